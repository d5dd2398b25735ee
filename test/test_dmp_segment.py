# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A segment sampled at any rate, and handed over at any time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ndp_ros.dmp import segment as segment_module
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.segment import Segment
from ndp_ros.errors import SegmentError

CONFIG = DmpConfig()
DOF = 3


def vectors(size):
    return hnp.arrays(np.float64, (DOF,), elements=st.floats(-size, size, width=32))


segments = st.builds(
    Segment,
    st.just(CONFIG),
    vectors(3.0),
    hnp.arrays(np.float64, (DOF, 6), elements=st.floats(-100, 100, width=32)),
    st.floats(0.05, 5.0),
)


def random_segment(config=CONFIG, duration=0.2, seed=0):
    rng = np.random.default_rng(seed)
    return Segment(config, rng.normal(size=DOF), rng.normal(0, 30, (DOF, config.n_basis)), duration)


@given(segments, segments, vectors(3.0), vectors(5.0), st.floats(0.0, 1.5))
@settings(deadline=None, max_examples=60)
def test_position_and_velocity_are_continuous_at_every_hand_over(first, second, y0, yd0, part):
    take_over = part * first.duration
    y, yd, _ = first.bind(y0, yd0).sample(take_over)
    next_y, next_yd, _ = second.bind(y, yd).sample(0.0)
    assert next_y == pytest.approx(y, rel=1e-9, abs=1e-9)
    assert next_yd == pytest.approx(yd, rel=1e-9, abs=1e-9)


@given(segments, vectors(3.0), vectors(5.0), st.floats(0.0, 1.5))
@settings(deadline=None, max_examples=30)
def test_velocity_and_acceleration_are_the_slopes_of_the_motion(segment, y0, yd0, part):
    # In SI units, whatever the duration.
    motion, t, h = segment.bind(y0, yd0), part * segment.duration + 1e-3, 1e-6
    (y1, yd1, _), (_, yd, ydd), (y2, yd2, _) = (motion.sample(t + d) for d in (-h, 0.0, h))
    scale = 1.0 + np.abs(ydd).max()
    assert (y2 - y1) / (2 * h) == pytest.approx(yd, abs=1e-4 * scale)
    assert (yd2 - yd1) / (2 * h) == pytest.approx(ydd, abs=1e-2 * scale)


def test_same_parameters_are_the_same_function_of_time_at_100_hz_and_5_khz():
    motion = random_segment().bind(np.zeros(DOF), np.ones(DOF))
    slow = motion.setpoints(np.arange(21) / 100)
    fast = motion.setpoints(np.arange(1001) / 5000)
    assert fast[::50] == pytest.approx(slow, rel=1e-10, abs=1e-10)


def test_one_sample_equals_its_row_among_many():
    motion = random_segment().bind(np.zeros(DOF), np.ones(DOF))
    times = np.array([0.0, 0.013, 0.2, 0.31])
    setpoints = motion.setpoints(times)
    assert setpoints.shape == (4, 3, DOF)
    for t, row in zip(times, setpoints, strict=True):
        assert np.stack(motion.sample(t)) == pytest.approx(row, rel=1e-10, abs=1e-10)


def test_duration_stretches_time_and_nothing_else():
    slow = random_segment(duration=1.0).bind(np.zeros(DOF), np.ones(DOF))
    fast = random_segment(duration=0.1).bind(np.zeros(DOF), np.full(DOF, 10.0))
    for part in (0.0, 0.3, 1.0):
        y, yd, ydd = slow.sample(part)
        assert np.stack(fast.sample(part * 0.1)) == pytest.approx(np.stack((y, yd * 10, ydd * 100)))


def test_segment_at_its_goal_stays_there():
    y0 = np.array([0.1, -0.2, 0.3])
    motion = Segment(CONFIG, y0, np.full((DOF, 6), 80.0), 0.5).bind(y0, np.zeros(DOF))
    setpoints = motion.setpoints(np.linspace(0, 2, 9))
    assert setpoints[:, 0] == pytest.approx(np.tile(y0, (9, 1)))
    assert setpoints[:, 1:] == pytest.approx(0.0, abs=1e-12)


def test_euler_segment_is_sampled_on_its_grid():
    config = DmpConfig(solver="euler", m=20)
    motion = random_segment(config, duration=1.0).bind(np.zeros(DOF), np.ones(DOF))
    assert motion.sample(0.26)[0] == pytest.approx(motion.sample(0.25)[0])


def test_setpoints_at_the_same_times_compute_one_response(monkeypatch):
    motion, times = random_segment().bind(np.zeros(DOF), np.ones(DOF)), [0.0, 0.0123, 0.0717]
    first = motion.setpoints(times)
    monkeypatch.setattr(segment_module, "response", None)
    first[:] = 9.0  # of its own, so it spoils nothing
    assert motion.setpoints(times)[0, 1] == pytest.approx(1.0)


def test_segment_keeps_its_own_copy():
    g, w = np.zeros(DOF), np.ones((DOF, 6))
    segment = Segment(CONFIG, g, w, 0.1)
    g[:], w[:] = 9.0, 9.0
    assert (segment.g == 0.0).all()
    assert (segment.w == 1.0).all()
    with pytest.raises(ValueError, match="read-only"):
        segment.g[0] = 1.0


@pytest.mark.parametrize(
    ("g", "w", "duration", "words"),
    [
        (np.zeros((1, DOF)), np.zeros((DOF, 6)), 0.1, r"g has shape \(1, 3\), expected \(dof,\)"),
        (np.zeros(0), np.zeros((0, 6)), 0.1, r"g has shape \(0,\)"),
        (np.zeros(DOF), np.zeros((DOF, 5)), 0.1, r"w has shape \(3, 5\).*n_basis\) = \(3, 6\)"),
        (np.zeros(DOF), np.zeros(18), 0.1, r"w has shape \(18,\)"),
        ([0.0, np.nan, 0.0], np.zeros((DOF, 6)), 0.1, r"g\[1\] is nan"),
        (np.zeros(DOF), np.full((DOF, 6), np.inf), 0.1, r"w\[0, 0\] is inf"),
        (["a", "b", "c"], np.zeros((DOF, 6)), 0.1, "g is not an array of numbers"),
        (np.zeros(DOF), np.zeros((DOF, 6)), 0.0, "duration is 0.0 s"),
        (np.zeros(DOF), np.zeros((DOF, 6)), np.nan, "duration is nan"),
        (np.zeros(DOF), np.zeros((DOF, 6)), None, "duration is nan"),
    ],
)
def test_wrong_parameters_are_refused_by_name(g, w, duration, words):
    with pytest.raises(SegmentError, match=words):
        Segment(CONFIG, g, w, duration)


@pytest.mark.parametrize(
    ("y0", "yd0", "words"),
    [
        (np.zeros(2), np.zeros(DOF), r"y0 has shape \(2,\), expected \(3,\)"),
        (np.zeros(DOF), np.zeros((DOF, 1)), r"yd0 has shape \(3, 1\)"),
        (np.zeros(DOF), [0.0, 0.0, -np.inf], r"yd0\[2\] is -inf"),
    ],
)
def test_wrong_start_states_are_refused_by_name(y0, yd0, words):
    with pytest.raises(SegmentError, match=words):
        random_segment().bind(y0, yd0)


def test_finite_parameters_whose_product_is_not_are_refused():
    segment = Segment(CONFIG, np.full(DOF, 1e200), np.full((DOF, 6), 1e200), 0.1)
    with pytest.raises(SegmentError, match="overflows"):
        segment.bind(np.zeros(DOF), np.zeros(DOF))


@pytest.mark.parametrize("t", [-1e-9, np.nan, np.inf])
def test_wrong_times_are_refused(t):
    motion = random_segment().bind(np.zeros(DOF), np.zeros(DOF))
    with pytest.raises(SegmentError, match="time"):
        motion.sample(t)
    with pytest.raises(SegmentError, match="time"):
        motion.setpoints([0.0, t])


ANY = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=300)
@given(
    numbers=st.lists(ANY, min_size=5, max_size=5),
    duration=st.one_of(
        st.floats(5e-324, 1.7e308), st.sampled_from([1e-200, 1e200, 1e-160, 1e-154, 1e-308])
    ),
    share=st.floats(0.0, 2.0),
)
def test_any_finite_numbers_give_finite_setpoints_or_a_segment_error(numbers, duration, share):
    g, w1, w2, y0, yd0 = numbers
    segment = Segment(DmpConfig(n_basis=2), [g], [[w1, w2]], duration)
    try:
        motion = segment.bind([y0], [yd0])
    except SegmentError as error:
        assert str(error)
        return
    t = share * duration
    if not np.isfinite(t):
        return
    assert np.isfinite(motion.sample(t)).all()
    assert np.isfinite(motion.setpoints([0.0, t])).all()
