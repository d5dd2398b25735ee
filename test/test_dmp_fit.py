# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Segments fitted to way points: exact if they can be, and always continuous."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.fit import CHUNK, fit_segment
from ndp_ros.dmp.segment import Segment
from ndp_ros.errors import SegmentError

DOF = 3
FINE = np.linspace(0.0, 1.0, 101)


def vectors(size):
    return hnp.arrays(np.float64, (DOF,), elements=st.floats(-size, size, width=32))


chunks = st.integers(1, 50).flatmap(
    lambda k: hnp.arrays(np.float64, (k, DOF), elements=st.floats(-3.0, 3.0, width=32))
)


@pytest.mark.parametrize("config", [DmpConfig(), DmpConfig(n_basis=10, forcing="free"), CHUNK])
@given(seed=st.integers(0, 10**6), duration=st.floats(0.1, 5.0))
@settings(deadline=None, max_examples=15)
def test_a_chunk_that_is_a_dmp_is_recovered_as_the_same_motion(config, seed, duration):
    rng = np.random.default_rng(seed)
    size = 10.0 if config.scaled else 100.0
    g = rng.uniform(0.5, 2.0, DOF) * rng.choice([-1.0, 1.0], DOF)
    segment = Segment(config, g, rng.normal(0.0, size, (DOF, config.n_basis)), duration)
    y0, yd0 = rng.normal(0.0, 0.1, DOF), rng.normal(0.0, 1.0, DOF) / duration
    motion = segment.bind(y0, yd0)
    k = 2 * config.n_basis
    way_points = motion.setpoints(np.arange(1, k + 1) * duration / k)[:, 0]
    fit = fit_segment(way_points, duration / k, y0, yd0, config=config)
    times = FINE * duration
    assert fit.residual < 1e-6
    assert fit.motion.setpoints(times)[:, 0] == pytest.approx(
        motion.setpoints(times)[:, 0], abs=1e-5
    )


@given(chunks, vectors(3.0), vectors(5.0), st.floats(0.01, 0.1), st.floats(0.0, 0.99), st.data())
@settings(deadline=None, max_examples=40)
def test_position_velocity_and_acceleration_go_on_from_the_hand_over(
    way_points, y0, yd0, period, part, data
):
    ydd0 = data.draw(vectors(20.0))
    age = part * len(way_points) * period
    fit = fit_segment(way_points, period, y0, yd0, ydd0=ydd0, age=age, smoothing=0.02)
    y, yd, ydd = fit.motion.sample(0.0)
    assert y == pytest.approx(y0, abs=1e-9)
    assert yd == pytest.approx(yd0, abs=1e-7)
    scale = 1.0 + np.abs(fit.motion.setpoints(FINE * fit.segment.duration)[:, 2]).max()
    assert ydd == pytest.approx(ydd0, abs=1e-2 * scale)


@given(chunks, vectors(3.0), vectors(5.0), st.floats(0.0, 0.99), st.floats(0.0, 0.1))
@settings(deadline=None, max_examples=40)
def test_the_residual_is_the_distance_of_the_motion_from_the_way_points(
    way_points, y0, yd0, part, smoothing
):
    period = 0.05
    due = period * np.arange(1, len(way_points) + 1)
    age = part * due[-1]
    fit = fit_segment(way_points, period, y0, yd0, age=age, smoothing=smoothing)
    left = due > age
    assert fit.dropped == (~left).sum()
    assert fit.times == pytest.approx(due[left] - age)
    distance = np.stack([fit.motion.sample(t)[0] for t in fit.times]) - way_points[left]
    assert fit.residuals == pytest.approx(distance, abs=1e-6)
    assert fit.residual == pytest.approx(np.sqrt(np.mean(distance**2)), abs=1e-6)


def test_no_other_parameters_pass_closer_to_the_way_points():
    rng = np.random.default_rng(0)
    way_points, y0 = rng.normal(0.0, 0.3, (40, DOF)), np.zeros(DOF)
    config = DmpConfig(n_basis=6, forcing="free")
    fit = fit_segment(way_points, 0.025, y0, y0, config=config)
    for _ in range(50):
        g = fit.segment.g + rng.normal(0.0, 1e-2, DOF)
        w = fit.segment.w + rng.normal(0.0, 1.0, fit.segment.w.shape)
        other = Segment(config, g, w, 1.0).bind(y0, y0)
        worse = other.setpoints(fit.times)[:, 0] - way_points
        assert np.sqrt(np.mean(worse**2)) > fit.residual


@pytest.mark.parametrize("age", [0.0, 0.03, 0.21, 0.5])
def test_a_late_chunk_is_joined_where_it_is_by_now(age):
    def path(t):
        return np.stack([0.3 * np.sin(3.0 * t), 0.5 * t, np.cos(2.0 * t)], axis=-1)

    due = 0.05 * np.arange(1, 21)
    h = 1e-5
    velocity = (path(age + h) - path(age - h)) / (2.0 * h)
    fit = fit_segment(path(due), due, path(age), velocity, age=age)
    ahead = np.linspace(0.0, 1.0 - age, 50)
    assert fit.motion.setpoints(ahead)[:, 0] == pytest.approx(path(age + ahead), abs=2e-3)


def test_smoothing_halves_a_wave_of_its_own_time_constant():
    # As a smoothing spline: gain 1 / (1 + (smoothing omega)^4).
    omega, config = 20.0, DmpConfig(n_basis=40, forcing="free")
    due = 0.01 * np.arange(1, 201)
    wave = np.sin(omega * due)[:, None]
    for smoothing, gain in ((0.5 / omega, 16 / 17), (1.0 / omega, 0.5)):
        fit = fit_segment(wave, 0.01, [0.0], [omega], smoothing=smoothing, config=config)
        middle = slice(60, 140)
        passed = wave[middle] + fit.residuals[middle]
        assert np.vdot(passed, wave[middle]) / np.vdot(wave[middle], wave[middle]) == (
            pytest.approx(gain, abs=0.02)
        )


def test_a_motion_back_to_its_start_needs_free_forcing():
    there_and_back = 1.0 - np.cos(2.0 * np.pi * np.arange(1, 41) / 40)[:, None] * np.ones(DOF)
    rest = np.zeros(DOF)
    fit = fit_segment(there_and_back, 0.025, rest, rest)
    assert fit.residual < 2e-3
    ydd = fit.motion.setpoints(FINE)[:, 2]
    assert np.abs(ydd).max() == pytest.approx((2.0 * np.pi) ** 2, rel=0.1)
    at_rest = np.zeros((20, DOF))
    assert fit_segment(at_rest, 0.05, rest, rest).residual == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(SegmentError, match=r"returns to its start.*forcing='free'"):
        fit_segment(at_rest, 0.05, rest, rest, config=DmpConfig())


@pytest.mark.parametrize("last", [0.1, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("k", [1, 12])
@pytest.mark.parametrize("shape", ["stays", "arrives", "swings"])
def test_after_the_last_way_point_the_motion_stays_there_beyond_its_duration(last, k, shape):
    due = last * np.arange(1, k + 1) / k
    path = {"stays": 0.0 * due, "arrives": 0.5 - 0.5 * due / last, "swings": np.sin(8.0 * due)}
    fit = fit_segment(path[shape][:, None], due, [0.5], [0.3], duration=1.0, smoothing=0.02)
    assert fit.segment.g == pytest.approx(path[shape][-1:])
    # A sharp stop is rounded off: until shortly after it.
    settled = np.linspace(max(last + 0.25, 1.0), 2.0, 50)
    y, yd, _ = np.moveaxis(fit.motion.setpoints(settled), 1, 0)
    assert y == pytest.approx(path[shape][-1], abs=5e-3)
    assert yd == pytest.approx(0.0, abs=0.1)


def test_one_way_point_is_reached_with_the_least_acceleration():
    # A cubic: ydd falls linearly to zero at the end.
    fit = fit_segment([[1.0]], 1.0, [0.0], [0.0])
    y = fit.motion.setpoints(FINE)[:, 0, 0]
    assert y[-1] == pytest.approx(1.0, abs=1e-3)
    assert y == pytest.approx(1.5 * FINE**2 - 0.5 * FINE**3, abs=2e-2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"way_points": [0.0, 1.0]}, r"shape \(2,\), expected \(k, dof\)"),
        ({"way_points": np.zeros((0, 2))}, r"shape \(0, 2\)"),
        ({"way_points": [[0.0, np.nan]]}, r"way_points\[0, 1\] is nan"),
        ({"way_points": [["a", "b"]]}, "not an array of numbers"),
        ({"times": [0.1, 0.2]}, r"\(3,\) times"),
        ({"times": [0.1, 0.1, 0.2]}, "increase"),
        ({"times": [-0.1, 0.1, 0.2]}, "at least 0"),
        ({"times": -0.1}, "increase"),
        ({"y0": [0.0]}, r"y0 has shape \(1,\), expected \(2,\)"),
        ({"yd0": [0.0, np.inf]}, "yd0"),
        ({"ydd0": [0.0]}, "ydd0"),
        ({"age": 0.4}, "all 3 way points are past: the last by 0.1 s"),
        ({"age": np.nan}, "age is nan"),
        ({"duration": 0.1}, "the last way point is due at 0.3 s"),
        ({"duration": np.inf}, "duration is inf"),
        ({"smoothing": -1.0}, "smoothing is -1.0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, words):
    values = {"way_points": np.ones((3, 2)), "times": 0.1, "y0": [0.0, 0.0], "yd0": [0.0, 0.0]}
    with pytest.raises(SegmentError, match=words):
        fit_segment(**(values | change))


def test_a_given_goal_is_kept_and_the_shape_is_carried_over_to_another():
    s = np.arange(1, 101) / 100.0
    reach = s**3 * (10.0 - 15.0 * s + 6.0 * s**2)
    shown = np.stack((reach, 0.5 * reach + 0.3 * np.sin(np.pi * reach)), axis=1)
    rest, config = np.zeros(2), DmpConfig(n_basis=20, forcing="outside")
    fit = fit_segment(shown, 0.01, rest, rest, goal=shown[-1], config=config)
    np.testing.assert_array_equal(fit.segment.g, shown[-1])
    assert fit.residual < 2e-3
    twice = Segment(config, 2.0 * shown[-1], fit.segment.w, fit.segment.duration)
    y = twice.bind(rest, rest).setpoints(s)[:, 0]
    np.testing.assert_allclose(y, 2.0 * shown, atol=0.01)
    with pytest.raises(SegmentError, match=r"goal have|goal has"):
        fit_segment(shown, 0.01, rest, rest, goal=[0.0], config=config)
