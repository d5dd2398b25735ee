# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The follower: whatever segments, delays, drops and requests come, the setpoint is smooth."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_ros.control.arm import ArmInfo
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response
from ndp_ros.dmp.segment import Segment
from ndp_ros.streaming.config import RuntimeConfig
from ndp_ros.streaming.follower import Follower
from ndp_ros.streaming.guard import Guard
from ndp_ros.streaming.layout import PHASES
from ndp_ros.streaming.slots import SAMPLES, Response

DOF = 3
INFO = ArmInfo(
    joint_names=("a", "b", "gripper"),
    gripper=True,
    lower=np.array([-2.0, -0.5, 0.1]),
    upper=np.array([1.0, 3.0, 1.3]),
    max_velocity=np.array([3.0, 1.0, 6.0]),
    max_acceleration=np.array([40.0, 5.0, 300.0]),
    max_torque=np.array([40.0, 9.0, 0.0]),
    max_torque_rate=np.array([4000.0, 900.0, 0.0]),
    command_modes=("position",),
)
BOUNDLESS = dataclasses.replace(
    INFO,
    lower=np.full(DOF, -100.0),
    upper=np.full(DOF, 100.0),
    max_velocity=np.full(DOF, 1e4),
    max_acceleration=np.full(DOF, 1e8),
)
HOME = np.array([0.0, 1.0, 0.5])
DMP = DmpConfig(n_basis=5)
FREE = DmpConfig(n_basis=5, forcing="free")
DURATION = 0.1


def from_home(*offset: float) -> np.ndarray:
    return HOME + np.array(offset)


class Place:
    """A response matrix as the mailbox offers it."""

    def __init__(self, B: np.ndarray, duration: float, horizon: int) -> None:
        self.generation, self.mark = 1, 2
        rows = np.ascontiguousarray(B.transpose(1, 0, 2))
        # The horizon, without the grace time.
        few = B[:, np.linspace(0, horizon - 1, min(SAMPLES, horizon)).astype(int)].transpose(
            2, 0, 1
        )
        self.response = Response(self.mark, rows, np.ascontiguousarray(few), duration)

    def view(self, generation: int):
        return self.response if generation == self.generation else None

    def unchanged(self, mark: int) -> bool:
        return mark == self.mark


class Rig:
    """A follower and its time."""

    def __init__(
        self, rate: float = 1000.0, info: ArmInfo = INFO, dmp: DmpConfig = DMP, **values
    ) -> None:
        self.config = dataclasses.replace(RuntimeConfig(rate=rate), **values)
        rows = self.config.rows(DURATION)
        self.dmp = dmp
        B = response(dmp, np.arange(rows) / (rate * DURATION))
        self.place = Place(B, DURATION, self.config.horizon(DURATION))
        self.guard = Guard(info, self.config)
        self.follower = Follower(self.guard, self.config, [self.place], max_rows=rows, max_basis=8)
        self.follower.rest_at(HOME)
        self.T, self.now, self.sequence = 1.0 / rate, 100.0, 0

    def offer(self, g, w=None, age: float = 0.0, **values) -> bool:
        self.sequence += 1
        segment = {
            "sequence": self.sequence,
            "stamp": self.now - age,
            "generation": 1,
            "slot": 0,
            "n_basis": DMP.n_basis,
            "scaled": self.dmp.scaled,
            "g": np.asarray(g, float),
            "w": np.zeros((DOF, 8)),
            "origin": np.full(DOF, np.nan),
            **values,
        }
        if w is not None:
            segment["w"][:, : DMP.n_basis] = w
        return self.follower.offer(segment, self.now)

    def tick(self) -> np.ndarray:
        self.follower.tick()
        self.now += self.T
        return self.follower.setpoint

    @property
    def phase(self) -> str:
        return PHASES[self.follower.phase]

    def run(self, until: str, ticks: int = 5000) -> int:
        for n in range(ticks):
            if self.phase == until:
                return n
            self.tick()
        raise AssertionError(f"still {self.phase} after {ticks} ticks, not {until}")


def assert_continuous(before: np.ndarray, after: np.ndarray, T: float) -> None:
    """Position and velocity go on within what the limits allow in one period."""
    a, v = INFO.max_acceleration, INFO.max_velocity
    assert np.isfinite(after).all()
    change = np.abs(after[1] - before[1])
    assert (change <= a * T * (1 + 1e-6)).all()
    drift = after[0] - before[0] - (before[1] + after[1]) * T / 2
    assert (np.abs(drift) <= (a * T - change) * T / 4 + a * T * T * 1e-6 + 1e-11).all()
    assert (np.abs(after[1]) <= v * (1 + 1e-8)).all()
    assert (after[0] >= INFO.lower - 1e-8).all()
    assert (after[0] <= INFO.upper + 1e-8).all()


goals = st.lists(st.floats(-1.5, 1.5), min_size=DOF, max_size=DOF)
weights = st.lists(
    st.one_of(st.floats(-2000, 2000), st.just(0.0), st.just(math.nan)),
    min_size=DOF * DMP.n_basis,
    max_size=DOF * DMP.n_basis,
)
events = st.lists(
    st.tuples(
        st.sampled_from(["segment"] * 6 + ["drop", "hold", "follow", "follow", "trip", "clear"]),
        goals,
        weights,
        st.floats(0.0, 0.2),  # age of the observation [s]
        st.integers(1, 90),  # ticks until the next event
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([500.0, 1000.0, 2000.0]), events)
def test_position_and_velocity_are_continuous_at_every_hand_over(rate, stream) -> None:
    rig = Rig(rate)
    rig.follower.follow()
    for kind, g, w, age, ticks in stream:
        if kind == "segment":
            rig.offer(rig.follower.setpoint[0] + g, np.reshape(w, (DOF, -1)), age)
        elif kind == "hold":
            rig.follower.hold()
        elif kind == "follow":
            rig.follower.follow()
        elif kind == "trip":
            rig.follower.trip("following_error")
            rig.follower.retreat(rig.follower.setpoint[0] + 0.1)
        elif kind == "clear" and not rig.follower.moving:
            rig.follower.clear()
        for _ in range(ticks):
            before = rig.follower.setpoint.copy()
            with np.errstate(all="ignore"):
                after = rig.tick()
            assert_continuous(before, after, rig.T)
    rig.follower.hold()
    for _ in range(round(2.0 * rate)):
        rig.tick()
    assert not rig.follower.moving, "and in the end it is at rest"


@pytest.mark.parametrize("dmp", [DMP, FREE], ids=["scaled", "free"])
@pytest.mark.parametrize("rate", [500.0, 1000.0, 2000.0, 5000.0])
def test_setpoints_are_the_same_function_of_time_at_every_rate(rate: float, dmp: DmpConfig) -> None:
    rig = Rig(rate, BOUNDLESS, dmp)
    rng = np.random.default_rng(1)
    rig.follower.follow()
    for _ in range(3):
        g, w = HOME + rng.normal(size=DOF), 100 * rng.normal(size=(DOF, DMP.n_basis))
        y0, yd0 = rig.follower.setpoint[0].copy(), rig.follower.setpoint[1].copy()
        assert rig.offer(g, w)
        truth = Segment(dmp, g, w, DURATION).bind(y0, yd0)
        n = round(0.06 * rate)
        for i in range(1, n + 1):
            setpoint = rig.tick()
            if i % 10 == 0 or i in (1, n):
                y, yd, ydd = truth.sample(i / rate)
                assert np.allclose(setpoint[0], y, atol=1e-9)
                assert np.allclose(setpoint[1], yd, atol=1e-7)
                assert np.allclose(setpoint[2], ydd, atol=1e-5)
    assert sum(rig.guard.counts) == 0


def test_without_a_successor_it_goes_on_for_the_grace_time_then_brakes_and_waits() -> None:
    rig = Rig(grace=0.02)
    rig.follower.follow()
    assert rig.phase == "waiting"
    rig.offer(from_home(0.1, 0.02, 0.1))
    for _ in range(120):
        rig.tick()
        assert rig.phase == "following"
    rig.tick()
    assert rig.phase == "braking"
    assert rig.follower.reason.startswith("starved")
    assert rig.guard.count_of("starved") == 1
    rig.run("waiting")
    assert not rig.follower.moving
    assert rig.offer(HOME), "and the next one is followed"
    assert rig.phase == "following"


def test_an_arm_that_starves_because_its_segments_are_refused_says_so() -> None:
    rig = Rig()
    rig.follower.follow()
    rig.offer(HOME + 0.01)
    assert not rig.offer([0.0, 9.0, 0.5])
    refusal = rig.follower.reason
    assert refusal.startswith("segment_impossible: segment 2: ")
    rig.run(until="braking")
    assert rig.follower.reason.startswith("starved: ")
    assert "refused, segment_impossible" in rig.follower.reason
    assert rig.follower.refusal == refusal
    starved = rig.follower.reason
    assert not rig.offer([0.0, 9.0, 0.5])
    assert rig.follower.reason == starved
    # One that is accepted ends that: what starves afterwards starves for want of segments.
    rig.offer(HOME + 0.01)
    rig.run(until="braking")
    assert rig.follower.reason == "starved: the horizon passed without a new segment"


def test_a_request_to_hold_clears_the_reason_of_the_last_braking() -> None:
    rig = Rig()
    rig.follower.follow()
    assert not rig.offer([0.0, 9.0, 0.5])
    rig.offer(from_home(0.3, 0.0, 0.0))
    for _ in range(30):
        rig.tick()
    assert rig.follower.moving and rig.follower.reason
    rig.follower.hold()
    assert (rig.phase, rig.follower.reason) == ("braking", "")


def test_a_late_segment_is_dropped_and_counted_and_the_running_one_goes_on() -> None:
    rig = Rig(max_parameter_age=0.1)
    rig.follower.follow()
    assert rig.offer(HOME + 0.1)
    rig.tick()
    assert not rig.offer(HOME - 0.1, age=0.11)
    assert rig.follower.sequence == 1
    assert (rig.follower.dropped, rig.guard.count_of("segment_late")) == (1, 1)
    assert "110 ms old" in rig.follower.reason
    assert rig.offer(HOME, age=0.09)
    assert not rig.offer(HOME, age=math.nan)


def test_segments_from_before_a_reset_do_not_count_after_it() -> None:
    rig = Rig()
    rig.follower.follow()
    rig.follower.reset(HOME, rig.now)
    assert not rig.offer(HOME, age=0.01)
    rig.now += 0.02
    assert rig.offer(HOME, age=0.01)


def test_a_goal_relative_to_an_origin_moves_with_the_start_of_its_segment() -> None:
    """The arm travels while phi computes; the goal of phi is a displacement, not a place."""
    rig, w = Rig(), np.full((DOF, DMP.n_basis), 2.0)
    rig.follower.follow()
    assert rig.offer(HOME + 0.2)
    for _ in range(20):
        rig.tick()
    seen, way = HOME + 0.003, 0.1
    start = rig.follower.setpoint.copy()
    assert rig.offer(seen + way, w, age=0.01, origin=seen)
    expected = np.array([rig.tick().copy() for _ in range(50)])

    other = Rig()
    other.follower.follow()
    assert other.offer(HOME + 0.2)
    for _ in range(20):
        other.tick()
    assert other.offer(start[0] + way, w)
    np.testing.assert_allclose(expected, [other.tick().copy() for _ in range(50)], atol=1e-12)


@pytest.mark.parametrize("where", ["g", "w"])
def test_parameters_that_are_not_finite_are_refused_with_the_old_segment_running(where) -> None:
    rig = Rig()
    rig.follower.follow()
    rig.offer(HOME + 0.1)
    rig.tick()
    before = rig.follower.setpoint.copy()
    g, w = HOME.copy(), np.zeros((DOF, DMP.n_basis))
    (g if where == "g" else w).flat[1] = math.nan
    assert not rig.offer(g, w)
    assert (rig.follower.refused, rig.guard.count_of("segment_not_finite")) == (1, 1)
    assert rig.follower.sequence == 1
    assert_continuous(before, rig.tick(), rig.T)


def test_a_segment_that_is_too_fast_is_slowed_down_and_still_smooth() -> None:
    rig = Rig(on_fast_segment="stretch", max_stretch=10.0)
    rig.follower.follow()
    assert rig.offer(from_home(0.0, 0.3, 0.0)), "0.3 rad in 0.1 s: too fast for 1 rad/s"
    assert (rig.follower.stretched, rig.guard.count_of("segment_stretched")) == (1, 1)
    fastest, ticks = 0.0, 0
    while rig.phase == "following":
        before = rig.follower.setpoint.copy()
        assert_continuous(before, rig.tick(), rig.T)
        fastest, ticks = max(fastest, np.abs(rig.follower.setpoint[1, 1])), ticks + 1
    assert 0.9 < fastest <= 1.0 + 1e-8
    assert ticks > 300


@pytest.mark.parametrize("stretch", [1.3, 2.0, 3.7])
def test_a_slowed_segment_is_the_segment_of_the_longer_duration(stretch: float) -> None:
    rng = np.random.default_rng(2)
    g, w = HOME + rng.normal(size=DOF), 30 * rng.normal(size=(DOF, DMP.n_basis))
    fast = Segment(DMP, g, w, DURATION).bind(HOME, np.zeros(DOF))
    judged = np.linspace(0, 100, SAMPLES).astype(int) * 1e-3
    speed = np.abs(fast.setpoints(judged)[:, 1, :2]).max()
    limits = dataclasses.replace(BOUNDLESS, max_velocity=np.full(DOF, speed / stretch))
    rig = Rig(info=limits, max_stretch=10.0, on_fast_segment="stretch", on_velocity="count")
    rig.follower.follow()
    assert rig.offer(g, w)
    assert f"slowed down {stretch:.2f} times" in rig.follower.reason
    truth = Segment(DMP, g, w, DURATION * stretch).bind(HOME, np.zeros(DOF))
    for i in range(1, round(1000 * DURATION * stretch)):
        setpoint, wanted = rig.tick(), np.stack(truth.sample(i * rig.T))
        scale = np.abs(fast.setpoints(np.arange(101) * 1e-3)).max(axis=(0, 2))
        assert (
            np.abs(setpoint - wanted) <= np.array([1e-9, 1e-7, 1e-4])[:, None] * scale[:, None]
        ).all()


@pytest.mark.parametrize(
    ("values", "g", "why"),
    [
        ({}, [0.0, 9.0, 0.5], "would leave its limits"),
        (
            {"max_stretch": 2.0, "on_fast_segment": "stretch"},
            [0.0, 1.9, 0.5],
            "even slowed down 2 times",
        ),
    ],
)
def test_an_impossible_segment_is_refused_with_the_old_one_running(values, g, why) -> None:
    rig = Rig(**values)
    rig.follower.follow()
    rig.offer(HOME + 0.01)
    rig.tick()
    before, table = rig.follower.setpoint.copy(), rig.follower.sequence
    assert not rig.offer(g)
    assert why in rig.follower.reason
    assert rig.guard.count_of("segment_impossible") == 1
    assert rig.follower.sequence == table
    assert_continuous(before, rig.tick(), rig.T)


def test_a_gripper_that_is_to_close_further_than_it_can_grips_without_being_counted() -> None:
    rig = Rig()
    rig.follower.follow()
    for _ in range(3):
        assert rig.offer(from_home(0.0, 0.0, 1.2))
        for _ in range(100):
            before = rig.follower.setpoint.copy()
            assert_continuous(before, rig.tick(), rig.T)
    assert rig.follower.setpoint[0, 2] == INFO.upper[2]
    assert sum(rig.guard.counts) == 0


def test_too_fast_segments_may_be_clamped_on_the_way_instead() -> None:
    rig = Rig(on_fast_segment="clamp")
    rig.follower.follow()
    assert rig.offer(from_home(0.0, 0.3, 0.0))
    assert rig.follower.stretched == 0
    for _ in range(100):
        before = rig.follower.setpoint.copy()
        assert_continuous(before, rig.tick(), rig.T)
    assert rig.guard.count_of("velocity") > 0


def test_too_fast_segments_may_be_refused_instead() -> None:
    rig = Rig(on_fast_segment="refuse")
    rig.follower.follow()
    assert not rig.offer(from_home(0.0, 0.3, 0.0))
    assert rig.guard.count_of("segment_impossible") == 1


def test_a_response_that_was_replaced_or_is_of_another_size_is_refused() -> None:
    rig = Rig()
    rig.follower.follow()
    assert not rig.offer(HOME, generation=2)
    assert not rig.offer(HOME, n_basis=4)
    rig.place.unchanged = lambda mark: False
    assert not rig.offer(HOME)
    assert rig.guard.count_of("segment_mismatch") == 3


def test_an_arm_whose_response_is_overwritten_on_the_way_brakes_smoothly_and_says_so() -> None:
    rig = Rig()
    rig.follower.follow()
    assert rig.offer(from_home(0.05, 0.02, 0.0))
    for _ in range(40):
        rig.tick()
    rig.place.unchanged = lambda mark: False
    before = rig.follower.setpoint.copy()
    while rig.phase == "following":
        before = rig.follower.setpoint.copy()
        assert_continuous(before, rig.tick(), rig.T)
    assert rig.guard.count_of("segment_mismatch") == 1
    assert "was replaced" in rig.follower.reason
    rig.run("waiting")


def test_setpoints_that_are_known_to_pass_are_forgotten_when_the_arm_was_held_up() -> None:
    rig = Rig()
    rig.follower.follow()
    assert rig.offer(from_home(0.05, 0.05, 0.0))
    for _ in range(37):
        rig.tick()
    rig.follower.slow_down(rig.follower.setpoint[1].copy(), np.zeros(DOF))
    for _ in range(40):
        before = rig.follower.setpoint.copy()
        assert_continuous(before, rig.tick(), rig.T)


def test_nothing_is_followed_unless_that_was_asked_for() -> None:
    rig = Rig()
    assert rig.phase == "holding"
    assert not rig.offer(HOME + 0.1)
    rig.follower.follow()
    assert rig.offer(HOME + 0.1)
    rig.tick()
    rig.follower.hold()
    assert rig.phase == "braking"
    assert not rig.offer(HOME)
    rig.run("holding")


def test_a_fault_brakes_latches_and_is_cleared_on_request_only() -> None:
    rig = Rig()
    rig.follower.follow()
    assert rig.offer(from_home(0.15, 0.03, 0.2))
    for _ in range(30):
        rig.tick()
    rig.follower.trip("overspeed", "joint a")
    rig.follower.trip("stop_requested")
    assert rig.follower.fault == "overspeed: joint a", "the first cause stays"
    assert "clear it first" in rig.follower.follow()
    assert "still being brought to rest" in rig.follower.clear()
    for _ in range(200):
        before = rig.follower.setpoint.copy()
        assert_continuous(before, rig.tick(), rig.T)
        assert not rig.offer(HOME)
    assert rig.phase == "fault"
    assert not rig.follower.moving
    assert rig.follower.clear() == ""
    assert rig.phase == "holding"
    assert rig.follower.follow() == ""


def test_a_retreat_leads_slowly_and_smoothly_to_where_the_arm_is() -> None:
    rig = Rig()
    rig.follower.follow()
    assert rig.offer(from_home(0.15, 0.03, 0.2))
    for _ in range(60):
        rig.tick()
    stuck = from_home(0.02, 0.01, 0.0)
    rig.follower.trip("following_error")
    while rig.follower.moving:
        rig.tick()
    rig.follower.retreat(stuck)
    for _ in range(3000):
        before = rig.follower.setpoint.copy()
        assert_continuous(before, rig.tick(), rig.T)
        assert (np.abs(rig.follower.setpoint[1]) <= 0.1 * INFO.max_velocity + 1e-9).all()
    assert not rig.follower.moving
    assert np.abs(rig.follower.setpoint[0] - stuck).max() < 2e-3


@pytest.mark.parametrize("begun", [True, False])
def test_a_retreat_that_is_given_up_is_not_begun_again(begun: bool) -> None:
    rig = Rig()
    rig.follower.follow()
    assert rig.offer(from_home(0.15, 0.03, 0.2))
    for _ in range(60):
        rig.tick()
    rig.follower.trip("following_error")
    while rig.follower.moving:
        rig.tick()
    if begun:
        rig.follower.retreat(HOME)
        for _ in range(20):
            rig.tick()
        assert rig.follower.moving
    rig.follower.cancel_retreat()
    while rig.follower.moving:
        before = rig.follower.setpoint.copy()
        assert_continuous(before, rig.tick(), rig.T)
    held = rig.follower.setpoint.copy()
    rig.follower.retreat(HOME)
    rig.tick()
    assert np.array_equal(rig.follower.setpoint[:2], held[:2])
    assert rig.follower.clear() == ""
    assert not rig.follower.retreat_used


@given(at=st.integers(5, 80), still=st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_after_a_pause_the_motion_goes_on_slowed_as_the_arm_was(at, still) -> None:
    rig = Rig()
    rig.follower.follow()
    assert rig.offer(from_home(0.3, 0.05, 0.1))
    for share in still:
        for _ in range(at):
            rig.tick()
        before = rig.follower.setpoint.copy()
        lagging = np.where(np.abs(before[1]) > 0.05, 0.7 * before[1], 0.0)
        rig.follower.slow_down(lagging, share * lagging)
        assert np.array_equal(rig.follower.setpoint[0], before[0])
        left = np.where(np.abs(lagging) > 0.02, min(max(share, 0.0), 1.0), 1.0)
        assert np.allclose(rig.follower.setpoint[1], before[1] * left)
        at = 5
    for _ in range(100):
        before = rig.follower.setpoint.copy()
        assert_continuous(before, rig.tick().copy(), rig.T)
