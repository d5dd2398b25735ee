# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The guard: what leaves it is inside the limits, whatever comes in."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_ros.config import fields_of, load
from ndp_ros.control.arm import ArmConfig, ArmInfo, Command, JointState
from ndp_ros.errors import ConfigError
from ndp_ros.paths import share
from ndp_ros.streaming.config import TUNABLE, RuntimeConfig
from ndp_ros.streaming.guard import BRAKE, CLAMP, COUNT, FAULT, Guard

INFO = ArmInfo(
    joint_names=("a", "b", "gripper"),
    gripper=True,
    lower=np.array([-2.0, -0.5, 0.1]),
    upper=np.array([1.0, 3.0, 1.3]),
    max_velocity=np.array([3.0, 1.0, 6.0]),
    max_acceleration=np.array([40.0, 5.0, 300.0]),
    max_torque=np.array([40.0, 9.0, 0.0]),
    max_torque_rate=np.array([4000.0, 900.0, 0.0]),
    command_modes=("position", "torque"),
)
RATES = (500.0, 1000.0, 2000.0, 5000.0)
V, A = INFO.max_velocity, INFO.max_acceleration

rates = st.sampled_from(RATES)
shares = st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3)
signed = st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3)


def make(rate: float = 1000.0, **values) -> Guard:
    guard = Guard(INFO, dataclasses.replace(RuntimeConfig(rate=rate), **values))
    guard.rest_at((INFO.lower + INFO.upper) / 2)
    return guard


def viable(position: list[float], velocity: list[float], rate: float) -> np.ndarray:
    """Return a setpoint from which the arm can still stop: as fast as its place allows."""
    y = INFO.lower + np.array(position) * (INFO.upper - INFO.lower)
    T = 1.0 / rate
    speeds = []
    for joint in range(3):
        ahead = (INFO.upper[joint] - y[joint], y[joint] - INFO.lower[joint])
        room = ahead[0] if velocity[joint] > 0 else ahead[1]
        a = A[joint]
        fastest = math.sqrt((a * T / 2) ** 2 + 2 * a * max(room, 0.0)) - a * T / 2
        speeds.append(min(fastest, V[joint]) * velocity[joint])
    return np.stack((y, np.array(speeds), np.zeros(3)))


def assert_step_is_allowed(before: np.ndarray, after: np.ndarray, T: float) -> None:
    """The motion from one setpoint to the next needs no more than the limits."""
    assert np.isfinite(after).all()
    assert (after[0] >= INFO.lower - 1e-8).all()
    assert (after[0] <= INFO.upper + 1e-8).all()
    assert (np.abs(after[1]) <= V * (1 + 1e-8)).all()
    change = np.abs(after[1] - before[1])
    assert (change <= A * T * (1 + 1e-6)).all()
    drift = after[0] - before[0] - (before[1] + after[1]) * T / 2
    assert (np.abs(drift) <= (A * T - change) * T / 4 + A * T * T * 1e-6 + 1e-11).all()


numbers = st.one_of(st.floats(-5, 5), st.floats(allow_nan=True, allow_infinity=True), st.just(0.0))
garbage = st.lists(
    st.lists(numbers, min_size=9, max_size=9).map(lambda v: np.array(v).reshape(3, 3)),
    min_size=1,
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(rates, shares, signed, garbage)
def test_limits_hold_whatever_is_wanted(rate, position, velocity, wanted) -> None:
    guard, T = make(rate), 1.0 / rate
    current = viable(position, velocity, rate)
    for each in wanted:
        before = current.copy()
        with np.errstate(all="ignore"):
            guard.limit(current, each)
        assert_step_is_allowed(before, current, T)


@settings(max_examples=40, deadline=None)
@given(rates, shares, signed, st.integers(0, 2**31))
def test_limits_hold_on_a_long_random_walk(rate, position, velocity, seed) -> None:
    guard, T, rng = make(rate), 1.0 / rate, np.random.default_rng(seed)
    current = viable(position, velocity, rate)
    target = rng.uniform(-6, 6, (3, 3))
    for tick in range(120):
        if tick % 30 == 0:
            target = rng.uniform(-6, 6, (3, 3))
        before = current.copy()
        guard.limit(current, target)
        assert_step_is_allowed(before, current, T)


@settings(max_examples=80, deadline=None)
@given(rates, shares, signed)
def test_braking_stops_inside_the_limits_in_the_least_time(rate, position, velocity) -> None:
    guard, T = make(rate), 1.0 / rate
    current = viable(position, velocity, rate)
    needed = math.ceil(np.max(np.abs(current[1]) / A) * rate - 1e-9)
    for _ in range(needed + 1):
        before = current.copy()
        if guard.brake(current):
            break
        assert_step_is_allowed(before, current, T)
        assert (np.abs(current[1]) <= np.abs(before[1]) + 1e-12).all()
        assert (current[1] * before[1] >= -1e-12).all(), "no joint turns round"
    assert not current[1].any(), "at rest no more than a tick late, for rounding"


@pytest.mark.parametrize("rate", RATES)
def test_what_is_inside_the_limits_passes_bit_for_bit(rate: float) -> None:
    guard, t = make(rate), np.arange(1, round(0.5 * rate)) / rate
    w, amplitude = 2.0, np.array([0.4, 0.2, 0.3])
    middle = (INFO.lower + INFO.upper) / 2
    current = np.stack((middle, amplitude * w, np.zeros(3)))
    for at in t:
        wanted = np.stack(
            (
                middle + amplitude * np.sin(w * at),
                amplitude * w * np.cos(w * at),
                -amplitude * w * w * np.sin(w * at),
            )
        )
        assert guard.limit(current, wanted) == COUNT
        assert np.array_equal(current, wanted)
    assert sum(guard.counts) == 0


def test_a_clamped_joint_catches_up_with_what_is_wanted() -> None:
    guard = make()
    current = np.stack((np.zeros(3) + 0.2, np.zeros(3), np.zeros(3)))
    wanted = current.copy()
    wanted[0] += [0.5, 0.3, 0.2]
    ticks = 0
    while not np.array_equal(current, wanted):
        guard.limit(current, wanted)
        ticks += 1
        assert ticks < 2000
    assert ticks > 300, "joint b needs 0.3 s and more at 1 rad/s"
    assert guard.count_of("continuity") > 0


@pytest.mark.parametrize(
    ("row", "value", "name"),
    [
        (0, 9.0, "position"),
        (0, -9.0, "position"),
        (1, 9.0, "velocity"),
        (2, 900.0, "acceleration"),
        (0, 0.5, "continuity"),
        (1, math.nan, "setpoint_not_finite"),
        (0, math.inf, "setpoint_not_finite"),
    ],
)
def test_each_violation_is_named_and_counted(row, value, name) -> None:
    guard = make()
    current = np.zeros((3, 3))
    current[0] = 0.3
    wanted = current.copy()
    wanted[row, 0] = value
    with np.errstate(invalid="ignore"):
        met = guard.limit(current, wanted)
    assert met == (FAULT if "finite" in name else CLAMP)
    assert guard.count_of(name) == 1


@pytest.mark.parametrize(
    ("policy", "met"), [("count", COUNT), ("clamp", CLAMP), ("brake", BRAKE), ("fault", FAULT)]
)
def test_the_policy_is_what_was_asked_for(policy: str, met: int) -> None:
    guard = make(on_velocity=policy, on_acceleration="count")
    current = np.zeros((3, 3))
    current[0], current[1, 0] = 0.3, 2.99
    wanted = current.copy()
    wanted[0] += [3.005e-3, 0.0, 0.0]
    wanted[1, 0] = 3.02
    assert guard.limit(current, wanted) == met
    assert guard.count_of("velocity") == 1
    if met == COUNT:
        assert np.array_equal(current, wanted)
    else:
        assert abs(current[1, 0]) <= 3.0 * (1 + 1e-8)
    assert guard.fault == ("velocity" if met >= BRAKE else "")


def test_an_arm_that_starts_outside_its_limits_may_hold_and_come_back() -> None:
    guard = make()
    current = np.zeros((3, 3))
    current[0] = [1.4, 0.0, 0.5]
    guard.rest_at(current[0].copy())
    assert guard.count_of("position") == 1
    assert guard.limit(current, current.copy()) == COUNT
    outward = current.copy()
    outward[0, 0] = 2.0
    for _ in range(200):
        guard.limit(current, outward)
    assert current[0, 0] <= 1.4 + 1e-8
    inward = current.copy()
    inward[0, 0], inward[1:] = 0.5, 0.0
    for _ in range(2000):
        guard.limit(current, inward)
    assert current[0, 0] == 0.5


def test_approach_comes_to_rest_where_it_was_sent() -> None:
    guard, T = make(), 1e-3
    current = viable([0.5, 0.5, 0.5], [1.0, -1.0, 0.3], 1000.0)
    target = current[0] + [0.3, -0.2, 0.1]
    for _ in range(3000):
        before = current.copy()
        if guard.approach(current, target):
            break
        assert_step_is_allowed(before, current, T)
    assert np.abs(current[0] - target).max() < 2e-3
    assert not current[1].any()


# -- whole segments ------------------------------------------------------------------------------


def table(y, yd, ydd=0.0, n: int = 20) -> np.ndarray:
    """Return constant setpoints (dof, 3, n)."""
    values = np.stack([np.broadcast_to(np.asarray(v, float), (3,)) for v in (y, yd, ydd)], axis=1)
    return np.repeat(values[:, :, None], n, axis=2)


def test_a_segment_inside_the_limits_may_run() -> None:
    assert make().judge(table([0, 1, 0.5], [2.9, -0.9, 0.0])).stretch == 1.0


def test_a_segment_that_is_too_fast_is_to_be_slowed_down_by_the_excess() -> None:
    verdict = make(on_fast_segment="stretch").judge(table([0, 1, 0.5], [-4.5, 1.2, 0.0]))
    assert verdict.stretch == pytest.approx(1.5)
    assert verdict.name == "segment_stretched"


def test_the_gripper_slows_no_segment_down_and_has_none_refused() -> None:
    assert make().judge(table([0, 1, 5.0], [0, 0, 60.0])).stretch == 1.0


def test_a_segment_far_outside_the_limits_is_impossible_and_says_by_how_much() -> None:
    guard = make(position_tolerance=0.2)
    assert guard.judge(table([1.15, 1, 0.5], 0.0)).stretch == 1.0
    verdict = guard.judge(table([1.25, 1, 0.5], 0.0))
    assert (verdict.stretch, verdict.name) == (0.0, "segment_impossible")
    assert "a would leave its limits by 0.25 rad" in verdict.text


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_is_enough_to_refuse(bad: float) -> None:
    values = table([0, 1, 0.5], 0.0)
    values[1, 2, 7] = bad
    verdict = make().judge(values)
    assert (verdict.stretch, verdict.name) == (0.0, "segment_not_finite")
    for g, w in (
        ([bad, 0, 0], np.zeros((3, 2))),
        ([0, 0, 0], np.array([[0, 0], [0, bad], [0, 0]])),
    ):
        verdict = make().judge_parameters(np.array(g, float), w)
        assert (verdict.stretch, verdict.name) == (0.0, "segment_not_finite")


def test_torques_over_the_horizon_count_where_they_can_be_computed() -> None:
    def torque_of(setpoints: np.ndarray) -> np.ndarray:
        return np.stack((setpoints[0, 2], 9.0 * setpoints[1, 2]), axis=1)

    guard = Guard(INFO, RuntimeConfig(on_fast_segment="stretch"), torque_of)
    assert guard.judge(table([0, 1, 0.5], 0.0, [30.0, 0.9, 0.0])).stretch == 1.0
    verdict = guard.judge(table([0, 1, 0.5], 0.0, [30.0, 4.0, 0.0]))
    assert verdict.stretch == pytest.approx(2.0), "torque falls with the square of the time"


def test_peak_of_acceleration_that_is_clamped_on_the_way_is_no_torque() -> None:
    def torque_of(setpoints: np.ndarray) -> np.ndarray:
        assert setpoints.shape[2] <= 20, "a few samples are enough"
        return setpoints[:2, 2].T

    guard = Guard(INFO, RuntimeConfig(on_fast_segment="stretch"), torque_of)
    values = table([0, 1, 0.5], 0.0, [1.0, 1.0, 0.0])
    values[0, 2, 0] = 1e6
    assert guard.judge(values).stretch == 1.0


def test_arm_that_cannot_carry_a_motion_gets_it_slower() -> None:
    from ndp_ros.arms.kortex import make as make_kortex
    from ndp_ros.arms.kortex.config import KortexConfig

    config = ArmConfig.named("gen3")
    settings = KortexConfig(robot_ip="192.0.2.1")
    _, omega = make_kortex(
        config, task="", command_mode="position", rate=1000.0, seed=0, settings=settings
    )
    info = ArmInfo.from_config(config, ("position",))
    guard = Guard(info, RuntimeConfig.named("hardware"), omega.torque_of)
    slow = np.zeros((7, 3, 100))
    slow[:, 0] = np.array(config.home)[:, None]
    assert guard.judge(slow).stretch == 1.0
    strong = slow.copy()
    strong[1:3, 0] = [[-1.5], [0.0]]  # stretched out
    strong[1, 2] = 9.0  # and lifted as fast as its limits have it
    verdict = guard.judge(strong)
    assert verdict.name == "segment_stretched" and "torque" in verdict.text
    assert verdict.stretch > 1.0


# -- commands and measurements ---------------------------------------------------------------------


def command(torque=(0.0, 0.0), position=(0.0, 0.0, 0.5), mode: str = "torque") -> Command:
    made = Command.zeros(3, mode)
    made.torque[:2], made.position[:] = torque, position
    return made


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=5), min_size=1, max_size=20))
def test_no_command_beyond_torque_torque_rate_and_position_limits_leaves(stream) -> None:
    guard, last = make(), None
    for values in stream:
        sent = command(values[:2], values[2:])
        guard.command(sent)
        assert (np.abs(sent.torque[:2]) <= INFO.max_torque[:2]).all()
        assert (sent.position >= INFO.lower - 1e-8).all()
        assert (sent.position <= INFO.upper + 1e-8).all()
        if last is not None:
            step = np.abs(sent.torque[:2] - last)
            assert (step <= INFO.max_torque_rate[:2] * 1e-3 * (1 + 1e-9)).all()
        last = sent.torque[:2].copy()


@pytest.mark.parametrize("mode", ["torque", "position"])
def test_a_command_inside_the_limits_is_not_changed(mode: str) -> None:
    guard = make()
    for _ in range(3):
        sent = command((30.0, -8.0), (0.3, 0.2, 0.5), mode)
        assert guard.command(sent) == COUNT
        assert list(sent.torque[:2]) == [30.0, -8.0]
        assert list(sent.position) == [0.3, 0.2, 0.5]
    assert sum(guard.counts) == 0


def test_the_first_torque_after_a_start_is_held_to_no_rate_of_before() -> None:
    guard = make()
    guard.command(command((0.0, 0.0)))
    guard.command(command((20.0, 0.0)))
    assert guard.count_of("torque_rate") == 1
    guard.rest_at(np.array([0.0, 0.0, 0.5]))
    first = command((30.0, -8.0))
    assert guard.command(first) == COUNT
    assert list(first.torque[:2]) == [30.0, -8.0]
    assert guard.count_of("torque_rate") == 1
    second = command((20.0, -8.0))
    assert guard.command(second) == CLAMP
    assert second.torque[0] == 26.0, "from the second on the rate counts again"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_command_that_is_not_finite_is_a_fault(bad: float) -> None:
    for sent in (
        command((bad, 0.0)),
        command(position=(0.0, bad, 0.5)),
        command(position=(0.0, bad, 0.5), mode="position"),
    ):
        guard = make()
        assert guard.command(sent) == FAULT
        assert guard.fault == "command_not_finite"


def measured(position=(0.0, 0.0, 0.5), velocity=(0.0, 0.0, 0.0)) -> JointState:
    state = JointState.zeros(3)
    state.position[:], state.velocity[:] = position, velocity
    return state


@pytest.mark.parametrize(
    ("state", "age", "name"),
    [
        (measured(), 0.0, ""),
        (measured((0.0, 0.0, 1.3)), 0.0, ""),
        (measured((0.6, 0.0, 0.5)), 0.0, "following_error"),
        (measured(velocity=(0.0, -2.5, 0.0)), 0.0, "overspeed"),
        (measured((math.nan, 0.0, 0.5)), 0.0, "feedback_not_finite"),
        (measured(velocity=(math.nan, 0.0, 0.0)), 0.0, "feedback_not_finite"),
        (measured(), 0.2, "feedback_lost"),
    ],
)
def test_measurements_are_judged(state: JointState, age: float, name: str) -> None:
    guard = make(max_following_error=0.5, max_overspeed=2.0, feedback_timeout=0.1)
    assert guard.measured(np.array([0.0, 0.0, 0.5]), state, age) == (FAULT if name else COUNT)
    assert guard.fault == name
    assert sum(guard.counts) == bool(name)


def test_a_guard_that_is_tuned_is_one_that_was_made_so() -> None:
    values = (0.2, 0.5, 0.1, 1.5)
    changes = dict(zip(TUNABLE, values, strict=True))
    tuned, made = make(), make(**changes)
    tuned.tune(dataclasses.replace(tuned.config, **changes))
    assert tuned.config == made.config
    for name, value in made.memory.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(tuned.memory[name], value, err_msg=name)
    rng = np.random.default_rng(0)
    ones = [np.stack([(INFO.lower + INFO.upper) / 2, np.zeros(3), np.zeros(3)]) for _ in range(2)]
    for _ in range(300):
        wanted = ones[0] + rng.normal(0.0, 1.0, (3, 3)) * np.array([1e-3, 0.1, 1.0])[:, None]
        assert tuned.limit(ones[0], wanted) == made.limit(ones[1], wanted)
        np.testing.assert_array_equal(*ones)
    assert tuned.counts == made.counts


def test_a_velocity_limit_below_the_present_speed_is_braked_to_inside_the_acceleration() -> None:
    guard = make()
    current = np.stack([(INFO.lower + INFO.upper) / 2, 0.5 * V, np.zeros(3)])
    guard.tune(dataclasses.replace(guard.config, velocity_margin=0.1))
    speeds = [current[1].copy()]
    while (current[1] > 0.1 * V * (1.0 + 1e-6)).any():
        wanted = np.stack([current[0] + 1e-3 * speeds[0], speeds[0], np.zeros(3)])
        guard.limit(current, wanted)
        speeds.append(current[1].copy())
    steps = np.diff(speeds, axis=0)
    assert (steps <= 1e-12).all()
    assert (-steps <= A * 1e-3 * (1.0 + 1e-6)).all()


def test_margins_that_leave_no_room_are_refused() -> None:
    with pytest.raises(ConfigError, match="leaves a no room"):
        Guard(
            dataclasses.replace(INFO, lower=np.array([0.5, -0.5, 0.1])),
            RuntimeConfig(position_margin=0.3),
        )


@pytest.mark.parametrize("name", ["default", "simulation", "hardware", "throw", "emulator"])
def test_the_runtime_files_load(name: str) -> None:
    assert RuntimeConfig.named(name, rate=2000).rate == 2000.0


def test_every_value_of_the_loop_is_explained_where_it_is_edited() -> None:
    path = share("config/runtime/default.yaml")
    assert load(RuntimeConfig, path) == RuntimeConfig(), "the file holds the defaults"
    blocks = {
        block.rpartition("\n")[2].partition(":")[0]: block
        for block in path.read_text().strip().split("\n\n")
    }
    for p in fields_of(RuntimeConfig):
        comment = blocks[p.name].rpartition("\n")[0].replace("\n#", "").removeprefix("# ")
        assert comment.startswith(p.describe()), p.name
        assert len(comment) > len(p.describe()) + 20, f"{p.name}: when to change it"


def test_an_unknown_runtime_file_or_value_is_named() -> None:
    with pytest.raises(ConfigError, match="default, emulator, hardware, simulation, throw"):
        RuntimeConfig.named("warp")
    with pytest.raises(ConfigError, match="rate is 0"):
        RuntimeConfig.named("default", rate=0)
