# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Readings of an arm are confirmed before anything is built on them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_ros.control.arm import ArmConfig, ArmInfo, JointState
from ndp_ros.control.measurement import AGREEING, Confirmer

INFO = ArmInfo.from_config(ArmConfig.named("gen3"), ("position",))
HOME = np.array(ArmConfig.named("gen3").home)
DOF, GRIPPER = INFO.dof, INFO.dof - 1
T = 0.001
ROWS = ("position", "velocity", "effort")
WRONG = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.floats(0.1, 6.0))


class Readings:
    """A confirmer, and the readings of an arm that it gets."""

    def __init__(self, period: float = T, start: float = HOME[0], velocities: bool = True) -> None:
        self.confirmer = Confirmer(INFO, velocities)
        self.reading = JointState.zeros(DOF)
        self.reading.position[:] = HOME
        self.reading.position[0] = start
        self.period = period
        for _ in range(AGREEING):
            self.next()

    def next(self, **changes: tuple[int, float]) -> bool:
        """Give the next reading, in which some values are others for once."""
        reading = JointState(*(getattr(self.reading, name).copy() for name in ROWS))
        for name, (joint, value) in changes.items():
            getattr(reading, name)[joint] = value
        self.reading.time += self.period
        reading.time = self.reading.time
        return self.confirmer.confirm(reading)

    @property
    def state(self) -> JointState:
        return self.confirmer.state


def test_a_first_reading_is_believed_once_others_agree():
    readings = Readings()
    assert readings.confirmer.complete
    assert readings.confirmer.rejected == 0
    single = Confirmer(INFO)
    reading = JointState.zeros(DOF)
    for n in range(AGREEING):
        assert not single.complete
        reading.time = float(n)
        single.confirm(reading)
        single.confirm(reading)  # the same reading twice is no agreement
    assert single.complete


@settings(deadline=None, max_examples=200)
@given(
    name=st.sampled_from(ROWS),
    joint=st.integers(0, DOF - 1),
    value=WRONG,
    period=st.sampled_from([0.001, 0.01]),
)
def test_one_wrong_value_is_never_taken_far(name, joint, value, period):
    readings = Readings(period)
    readings.next(**{name: (joint, value)})
    limits = {
        "position": 0.02 + 3.0 * INFO.max_velocity * period,
        "velocity": 0.1 * INFO.max_velocity + 5.0 * INFO.max_acceleration * period,
        "effort": np.where(INFO.max_torque > 0, 2.0 * INFO.max_torque, np.inf),
    }
    expected = {"position": HOME, "velocity": np.zeros(DOF), "effort": np.zeros(DOF)}
    for row, limit in limits.items():
        values = getattr(readings.state, row)
        assert np.isfinite(values).all()
        difference = values - expected[row]
        if row == "position":
            difference[INFO.continuous] -= np.rint(difference[INFO.continuous] / 6.2832) * 6.2832
        assert (np.abs(difference) <= limit + 1e-3).all()
    # A velocity that was just believable leaves a doubt, for as long as a window lasts.
    confirmed = [readings.next() for _ in range(round(0.1 / period))]
    assert confirmed[-1]
    np.testing.assert_allclose(readings.state.position, HOME, atol=1e-9)
    assert not readings.state.velocity.any()


def test_an_unconfirmed_reading_does_not_refresh_the_age():
    readings = Readings()
    before = readings.state.time
    for _ in range(AGREEING - 1):
        assert not readings.next(position=(0, 3.0))
    assert readings.state.time == before
    assert readings.confirmer.reason == "position of joint_1 jumped"
    assert readings.confirmer.rejected == AGREEING - 1


def test_a_reading_from_the_future_is_not_believed_and_spoils_no_later_one():
    readings = Readings()
    state, now = readings.state, readings.reading.time
    reading = JointState(state.position.copy(), state.velocity.copy(), state.effort.copy())
    for ahead in (np.inf, 3600.0, np.nan):
        reading.time = now + ahead
        assert not readings.confirmer.confirm(reading, now)
    assert state.time == now
    assert readings.next()


def test_a_jump_is_believed_after_a_gap_in_which_the_joint_could_move_there():
    readings = Readings()
    readings.reading.time += 0.5
    for _ in range(AGREEING - 1):
        assert not readings.next(position=(1, 1.0))
    assert readings.next(position=(1, 1.0))
    assert readings.state.position[1] == 1.0


@given(jump=st.floats(0.1, 6.0) | st.floats(-6.0, -0.1), gap=st.floats(0.0, 0.05))
def test_a_jump_is_not_believed_after_a_gap_in_which_a_resting_joint_could_not_reach_it(jump, gap):
    readings = Readings()
    readings.reading.time += gap
    for _ in range(20):
        assert not readings.next(position=(1, HOME[1] + jump))
    assert readings.state.position[1] == HOME[1]


@settings(deadline=None, max_examples=20)
@given(jump=st.floats(0.03, 6.0) | st.floats(-6.0, -0.03))
def test_a_jump_between_two_readings_is_not_believed_however_often_it_is_repeated(jump):
    readings = Readings()
    for _ in range(500):
        assert not readings.next(position=(1, HOME[1] + jump))
    assert readings.state.position[1] == HOME[1]
    assert readings.confirmer.reason == "position of joint_2 jumped"
    assert readings.next()


def test_a_jump_is_believed_when_the_arm_has_long_been_stopped_for_it():
    readings = Readings(0.01)
    confirmed = [readings.next(position=(1, 1.0)) for _ in range(300)]
    assert not any(confirmed[:200])
    assert all(confirmed[-50:])


@settings(deadline=None, max_examples=20)
@given(velocity=st.floats(0.25, 1.2) | st.floats(-1.2, -0.25))
def test_a_velocity_without_motion_is_never_believed(velocity):
    readings = Readings()
    for _ in range(500):
        readings.next(velocity=(1, velocity))
    assert abs(readings.state.velocity[1]) < 0.25


def test_a_velocity_that_drifts_away_without_motion_is_not_believed_for_long():
    readings = Readings()
    confirmed = [readings.next(velocity=(1, 0.002 * n)) for n in range(500)]
    assert readings.state.velocity[1] < 0.45
    assert not any(confirmed[250:])
    assert "velocity of joint_2" in readings.confirmer.reason


def test_an_arm_that_is_pushed_is_confirmed_within_tens_of_milliseconds():
    readings = Readings()
    speed, confirmed = 0.8, []
    for _ in range(60):
        readings.reading.position[1] += speed * T
        confirmed.append(readings.next(velocity=(1, speed)))
    assert not confirmed[0]
    assert all(confirmed[10:])


@settings(deadline=None, max_examples=50)
@given(pauses=st.lists(st.floats(0.012, 0.2), min_size=1, max_size=3), speed=st.floats(0.1, 1.0))
def test_readings_of_an_arm_that_stood_still_while_the_loop_paused_are_believed_at_once(
    pauses, speed
):
    readings = Readings()
    for _ in range(200):  # reach the speed
        readings.reading.velocity[1] += speed / 200
        readings.reading.position[1] += readings.reading.velocity[1] * T
        assert readings.next()
    for pause in pauses:
        readings.period = pause
        assert readings.next()
        readings.period = T
        for _ in range(100):
            readings.reading.position[1] += speed * T
            assert readings.next()


@settings(deadline=None, max_examples=20)
@given(wrong=st.floats(-1.2, 1.2), late=st.integers(0, 2), seed=st.integers(0, 99))
def test_a_holding_arm_that_is_driven_by_torque_stays_although_a_velocity_is_wrong(
    wrong, late, seed
):
    readings, random, period, wn = Readings(), np.random.default_rng(seed), 0.002, 25.0
    confirmer, q, qd, farthest = readings.confirmer, HOME[1], 0.0, 0.0
    for n in range(1000):
        state = confirmer.state
        qdd = -2.0 * wn * state.velocity[1] - wn**2 * (state.position[1] - HOME[1])
        readings.period = period * (1 + random.integers(0, late + 1))
        qd += qdd * readings.period
        q += qd * readings.period
        readings.reading.position[1] = q
        readings.next(velocity=(1, qd + wrong if 100 <= n < 700 else qd))
        farthest = max(farthest, abs(q - HOME[1]))
    assert farthest < 0.01
    assert abs(q - HOME[1]) < 1e-3


def test_positions_are_confirmed_where_the_arm_measures_no_velocities():
    readings = Readings(velocities=False)
    for _ in range(500):
        readings.reading.position[1] += 0.5 * T
        assert readings.next()


def test_nonsense_that_changes_is_never_believed():
    readings = Readings()
    random = np.random.default_rng(0)
    for _ in range(300):
        readings.next(position=(1, float(random.uniform(-2.0, 2.0))))
    assert abs(readings.state.position[1] - HOME[1]) < 0.3


def test_not_a_number_is_never_believed_and_leaves_no_trace():
    readings = Readings()
    for _ in range(20):
        assert not readings.next(position=(1, np.nan))
    assert not readings.confirmer.finite
    assert readings.next()
    np.testing.assert_array_equal(readings.state.position, HOME)


def test_the_gripper_is_confirmed_by_itself():
    readings = Readings()
    assert readings.next(position=(GRIPPER, np.nan))
    assert readings.state.time == readings.reading.time
    assert readings.confirmer.gripper_time < readings.reading.time
    assert readings.state.position[GRIPPER] == HOME[GRIPPER]
    assert readings.confirmer.reason == "gripper is not finite"


@settings(deadline=None)
@given(st.floats(-3.1, 3.1), st.lists(st.floats(-1.5, 1.5), max_size=60))
def test_a_continuous_joint_is_followed_over_any_number_of_turns(start, speeds):
    readings = Readings(0.02, start, velocities=False)
    angle = start
    for speed in speeds:
        angle += speed * 0.02 * 2.0
        reported = (angle + np.pi) % (2 * np.pi) - np.pi
        assert readings.next(position=(0, reported))
        assert readings.state.position[0] == pytest.approx(angle, abs=1e-6)


def test_a_joint_with_limits_is_not_turned():
    readings = Readings()
    assert not readings.next(position=(1, HOME[1] + 2 * np.pi))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_a_motion_inside_the_limits_is_always_confirmed_bit_for_bit(seed):
    random = np.random.default_rng(seed)
    confirmer, reading = Confirmer(INFO), JointState.zeros(DOF)
    reading.position[:] = HOME
    limits = INFO.max_velocity, INFO.max_acceleration
    for n in range(400):
        reading.time += T
        if n > AGREEING:
            reading.velocity += random.uniform(-1, 1, DOF) * limits[1] * T
            np.clip(reading.velocity, -limits[0], limits[0], out=reading.velocity)
            reading.position += reading.velocity * T
        confirmed = confirmer.confirm(reading)
        assert confirmed or n < AGREEING - 1
    np.testing.assert_array_equal(confirmer.state.velocity, reading.velocity)
    np.testing.assert_allclose(confirmer.state.position, reading.position, atol=1e-12)
    assert confirmer.rejected == 0
