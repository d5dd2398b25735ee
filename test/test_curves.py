# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Learning curves: interquartile means with fractional weights, intervals over seeds."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ndp_ros import cli
from ndp_ros.config import to_mapping
from ndp_ros.errors import TrainingError
from ndp_ros.paper.figures import FIG8
from ndp_ros.pictures.style import METHOD_COLOURS, Look, looks
from ndp_ros.training.config import PpoConfig, RunConfig
from ndp_ros.training.curve_pictures import draw, draw_band
from ndp_ros.training.curves import (
    Curve,
    area,
    band,
    bands,
    bootstrap,
    interquartile_mean,
    read_curve,
)
from ndp_ros.training.methods import METHODS

RESULTS = Path(__file__).resolve().parents[1] / "results"


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


def test_areas_are_means_of_the_curve_from_nothing_at_the_start():
    assert area([(10.0, 1.0), (20.0, 1.0)], 20.0) == pytest.approx(0.75)
    assert area([(10.0, 1.0), (20.0, 1.0)], 10.0) == pytest.approx(0.5)
    assert area([(10.0, 0.5), (20.0, 0.5)], 15.0) == pytest.approx((2.5 + 2.5) / 15)
    # Nothing is credited to the time before there is a policy.
    assert area([(10.0, 1.0), (20.0, 1.0)], 20.0, start=8.0) == pytest.approx((1.0 + 10.0) / 20)
    assert area([(10.0, 1.0), (20.0, 1.0)], 20.0, start=12.0) == pytest.approx(0.75)


def test_a_band_ends_where_the_shortest_run_ends() -> None:
    long = Curve("a", 0, np.array([0.0, 4.0, 10.0]), np.array([0.0, 0.6, 1.0]))
    short = Curve("a", 1, np.array([2.0, 6.0]), np.array([0.0, 0.0]))
    joined = band([long, short])
    assert joined.x.tolist() == [2.0, 4.0, 6.0]
    assert joined.middle == pytest.approx([0.0, 0.3, 0.3])


def test_nothing_is_interpolated_between_two_evaluations() -> None:
    curve = Curve("a", 0, np.array([0.0, 10.0]), np.array([0.0, 1.0]))
    axes = Figure().subplots()
    draw_band(axes, band([curve, curve]), "a", Look("blue"))
    assert {line.get_drawstyle() for line in axes.lines} == {"steps-post"}


def test_the_curves_of_single_seeds_are_drawn_where_they_are_few() -> None:
    x = np.array([0.0, 1.0])
    drawn = []
    for seeds in (3, 9):
        axes = Figure().subplots()
        draw_band(axes, band([Curve("a", n, x, x * n) for n in range(seeds)]), "a", Look("blue"))
        drawn.append(len(axes.lines))
    assert drawn == [1 + 3, 1]


def test_labels_make_groups() -> None:
    x = np.array([0.0, 1.0])
    curves = [Curve(label, i, x, x) for i, label in enumerate(["b", "a", "b"])]
    assert [(g.label, g.seeds) for g in bands(curves)] == [("b", 2), ("a", 1)]


def a_run(folder: Path, *points: tuple[int, float], **changes: object) -> Path:
    """Write what a plot reads of a run."""
    folder.mkdir(parents=True)
    config = RunConfig(**{"task": "throw", "method": "ndp", **changes})
    (folder / "config.yaml").write_text(yaml.safe_dump(to_mapping(config)))
    rows = "".join(f"{x},{x},{y}\n" for x, y in points)
    (folder / "progress.csv").write_text(f"samples,observed,eval_success\n{rows}")
    return folder


def plotted(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, int]:
    """Return the number of seeds by the label of a curve."""
    assert cli.main(["plot", *map(str, arguments), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    return {row["label"]: row["seeds"] for row in report["curves"]}


def test_runs_of_different_experiments_are_no_seeds_of_one_curve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = ((10, 0.0), (20, 1.0))
    moving = ("shared=1", "bin_speed=0.2")
    a_run(tmp_path / "a", *points, task_options=("shared=1",))
    a_run(tmp_path / "b", *points, task_options=moving, start_from="jaco_throw")
    a_run(tmp_path / "c", *points, task_options=moving, start_from="jaco_throw", seed=1, samples=9)
    a_run(tmp_path / "d", *points, task="pick", workers=3)
    assert plotted(capsys, tmp_path, "-o", tmp_path / "x.png") == {
        "throw ndp, no other task_options, start_from none": 1,
        "throw ndp, bin_speed=0.2, start_from jaco_throw": 2,
        "pick ndp": 1,
    }


def test_values_of_nested_configurations_tell_curves_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for clip in (0.1, 0.2):
        a_run(tmp_path / str(clip), (10, 0.0), ppo=PpoConfig(clip=clip))
    labels = plotted(capsys, tmp_path, "-o", tmp_path / "x.png")
    assert set(labels) == {"throw ndp, ppo.clip 0.1", "throw ndp, ppo.clip 0.2"}


def test_a_run_that_has_just_begun_is_left_out_of_the_picture_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = a_run(tmp_path / "new")
    old = a_run(tmp_path / "old", (10, 0.5), seed=1)
    picture = tmp_path / "x.png"
    assert cli.main(["plot", str(new), str(old), "-o", str(picture)]) == 0
    captured = capsys.readouterr()
    assert f"{new} has no values of eval_success yet: left out" in captured.err
    assert "1 seed)" in captured.out
    picture.unlink()
    assert cli.main(["plot", str(new), "-o", str(picture)]) == 2
    assert "no values of eval_success yet" in capsys.readouterr().err
    assert not picture.exists()


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_curve_of_one_point_is_seen(seeds: int) -> None:
    axes = Figure().subplots()
    point = [Curve("a", n, np.array([5.0]), np.array([0.2 * n])) for n in range(seeds)]
    draw_band(axes, band(point), "a", Look("blue"))
    line, _, (interval,) = axes.containers[0].lines
    assert line.get_marker() == "o"
    assert np.ptp(interval.get_segments()[0][:, 1]) > 0.0 or seeds == 1


@pytest.mark.parametrize("label", ["curve {}", "throw ndp, n {}", "ndp{}, throw ppo"])
def test_no_two_of_forty_curves_look_the_same(label: str) -> None:
    found = looks([label.format(n) for n in range(40)])
    assert len({(look.colour, look.line) for look in found.values()}) == 40


def test_a_method_has_one_colour_in_every_picture() -> None:
    both = looks(["throw ndp", "throw ppo", "throw ppo, ppo.clip 0.1"])
    other = looks(["vices (3)", "PPO-multi, wider", "NDP", "default"])
    assert both["throw ndp"].colour == other["NDP"].colour == METHOD_COLOURS["ndp"]
    assert both["throw ppo, ppo.clip 0.1"].colour == both["throw ppo"].colour
    assert other["PPO-multi, wider"].colour == METHOD_COLOURS["ppo-multi"]
    assert {look.colour for look in other.values()} <= set(METHOD_COLOURS.values())


def test_every_method_has_a_colour_of_its_own() -> None:
    assert set(METHODS) <= METHOD_COLOURS.keys()
    assert len({METHOD_COLOURS[name] for name in METHODS}) == len(METHODS)


def test_a_study_of_runs_with_one_evaluation_has_markers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Axes] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: seen.extend(self.axes))
    point = {"observed": 128, "samples": 640, "eval_success": 0.5}
    run = {"row": "throw-base", "seed": 0, "status": "done", "curve": [point]}
    FIG8.pictures({"runs": [run]}, tmp_path)
    assert all(axes.containers for axes in seen if axes.axison)


def test_a_tracking_error_is_drawn_in_thousandths_without_a_power_of_ten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Axes] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: seen.extend(self.axes))
    x = np.array([0.0, 1.0])
    group = band([Curve("a", 0, x, np.array([0.0004, 0.0008]))])
    draw([group], "eval_tracking_rms", "samples", tmp_path / "tracking.png")
    assert "[mrad" in seen[0].get_ylabel()
    assert seen[0].yaxis.get_major_formatter()(0.0005, 0) == "0.5"


def test_a_long_title_is_broken_into_lines_that_fit(tmp_path: Path) -> None:
    run, picture = a_run(tmp_path / "run", (10, 0.5)), tmp_path / "x.svg"
    title = "success of " + "many words " * 20
    assert cli.main(["plot", str(run), "-o", str(picture), "--title", title]) == 0
    lines = [t for t in re.findall(">([^<]*)</", picture.read_text()) if "words" in t]
    assert len(lines) > 1
    assert max(map(len, lines)) <= 62


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "run"], "--output is 'run', a folder"),
        (["-o", ""], "--output is '.', a folder"),
        (["-o", "x"], "--output is 'x', whose ending is not one of [.png, .svg, .pdf]"),
        (["-o", "x.png", "--against", "foo"], "--against: 'foo' is not one of"),
        (["-o", "x.png", "--figure", "foo"], "--figure: 'foo' is not one of"),
    ],
)
def test_plot_refuses_what_it_could_not_write_and_names_the_option(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    a_run(tmp_path / "run", (10, 0.5))
    assert cli.main(["plot", "run", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no config\.yaml"):
        read_curve(tmp_path, "eval_success")
    with pytest.raises(TrainingError, match="is not one of"):
        read_curve(tmp_path, "eval_beauty")


@pytest.mark.parametrize(
    "config", sorted(RESULTS.glob("*/config.yaml")), ids=lambda path: path.parent.name
)
def test_the_curve_of_every_result_that_ships_is_read(config: Path) -> None:
    figure = "eval_success" if config.parent.name != "mt50_ndp" else "holdout_error"
    curve = read_curve(config.parent, figure)
    assert len(curve.y) > 5
