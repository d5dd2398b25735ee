"""Learning curves: interquartile means with fractional weights, intervals over seeds."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ndp_ros.errors import TrainingError
from ndp_ros.training.curves import Curve, band, bands, bootstrap, interquartile_mean, read_curve


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 3.0], 2.0),
        ([0.0, 1.0, 2.0, 100.0], 1.5),
        # of three values the outer ones keep a quarter of a third: (1/4 + 1 + 1/4) / 1.5
        ([0.0, 6.0, 12.0], 6.0),
        ([0.0, 0.0, 12.0], 2.0 * (1.0 / 12.0) * 12.0),
        ([-50.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 50.0], 1.0),
    ],
)
def test_interquartile_mean_by_hand(values: list[float], expected: float) -> None:
    assert interquartile_mean(np.array(values)[:, None])[0] == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(1, 9), st.just(3)), elements=st.floats(-1e3, 1e3)))
def test_interquartile_mean_lies_between_the_extremes(values: np.ndarray) -> None:
    middle = interquartile_mean(values)
    assert (middle >= values.min(0) - 1e-9).all()
    assert (middle <= values.max(0) + 1e-9).all()


def test_the_interval_holds_the_mean_and_shrinks_with_agreement() -> None:
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(0.5, 0.2, (5, 4)), rng.normal(0.5, 0.01, (5, 4))
    for values in (wide, narrow):
        low, high = bootstrap(values)
        middle = interquartile_mean(values)
        assert (low <= middle).all()
        assert (middle <= high).all()
    assert np.ptp(bootstrap(narrow), axis=0).max() < np.ptp(bootstrap(wide), axis=0).min()


def test_a_band_ends_where_the_shortest_run_ends() -> None:
    long = Curve("a", 0, np.array([0.0, 10.0]), np.array([0.0, 1.0]))
    short = Curve("a", 1, np.array([2.0, 6.0]), np.array([0.0, 0.0]))
    joined = band([long, short])
    assert (joined.x[0], joined.x[-1]) == (2.0, 6.0)
    assert joined.middle[-1] == pytest.approx(0.3)


def test_labels_make_groups() -> None:
    x = np.array([0.0, 1.0])
    curves = [Curve(label, i, x, x) for i, label in enumerate(["b", "a", "b"])]
    assert [(g.label, g.seeds) for g in bands(curves)] == [("b", 2), ("a", 1)]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no config\.yaml"):
        read_curve(tmp_path, "eval_success")
    with pytest.raises(TrainingError, match="is not one of"):
        read_curve(tmp_path, "eval_beauty")
