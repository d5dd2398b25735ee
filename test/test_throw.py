# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Throw: a scripted throw succeeds, and a held cube does not."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
import pytest

import ndp_ros.tasks  # noqa: F401  (registers the environments)
from ndp_ros.errors import TaskError
from ndp_ros.tasks.throw import Throw


@dataclass(frozen=True)
class Toss:
    """An underhand toss: all joints swing, the hand opens."""

    peak: tuple[float, ...]  # rad/s
    rise: float  # s
    hold: float
    release: float


FLAT = Toss((0.07, 2.30, -2.20, 0.44, -1.42, 0.40), 0.287, 0.17, 0.306)
HIGH = Toss((0.07, 2.36, -2.69, 0.51, -1.34, 0.43), 0.218, 0.133, 0.247)
FALL = 0.25  # s
WALL_AT = 0.94  # m, its near side


def scripted_throw(env: Throw, toss: Toss = FLAT) -> np.ndarray:
    """Return setpoints (n, 3, dof) of a toss."""
    t = env.tick * np.arange(1, round(env.config.horizon / env.tick) + 1)
    rising = np.sin(np.pi / 2 * np.clip(t / toss.rise, 0, 1)) ** 2
    falling = np.cos(np.pi / 2 * np.clip((t - toss.rise - toss.hold) / FALL, 0, 1)) ** 2
    yd = np.zeros((len(t), 7))
    yd[:, :6] = np.array(toss.peak) * (rising * falling)[:, None]
    yd[:, 6] = np.where((t > toss.release) & (t <= toss.release + 1.0 / 6.0), -6.0, 0.0)
    before = np.vstack((np.zeros(7), yd[:-1]))
    y = env.setpoint[0] + np.cumsum((yd + before) / 2 * env.tick, axis=0)
    return np.stack((y, yd, np.zeros_like(y)), axis=1)


def play(env: Throw, setpoints: np.ndarray) -> dict:
    n = len(env.segment_times)
    for start in range(0, len(setpoints), n):
        *_, over, _, info = env.execute(setpoints[start : start + n])
        if over:
            return info["outcome"]
    raise AssertionError("the episode did not end within the script")


@pytest.mark.parametrize("seed", range(4))
def test_a_scripted_throw_lands_in_the_bin(seed):
    env = Throw()
    env.reset(seed=seed)
    episode = play(env, scripted_throw(env))
    assert episode["success"]
    assert episode["saturation"] < 0.05
    assert episode["max_joint_speed"] < 3.0
    assert episode["release_velocity"][2] > 0.5, "an arc leaves upwards"
    assert episode["apex"] > 0.02


def test_a_cube_that_is_never_released_is_no_success():
    env = Throw(k=5)
    env.reset(seed=0)
    over = False
    while not over:
        _, _, over, _, info = env.step(np.zeros((5, 7)))
    assert not info["outcome"]["success"]
    assert not info["outcome"]["landed"]


def test_an_arc_passes_over_the_wall_and_a_flat_throw_is_stopped_by_it():
    outcomes = {}
    for toss in (FLAT, HIGH):
        for wall in (False, True):
            env = Throw(wall=wall)
            env.reset(seed=1)
            outcomes[toss, wall] = play(env, scripted_throw(env, toss))
    assert [o["success"] for o in outcomes.values()] == [True, False, True, True]
    assert outcomes[FLAT, True]["landing"][0] < WALL_AT < outcomes[HIGH, True]["landing"][0]


def test_the_reward_sees_the_wall_in_the_way_of_a_flight():
    """A throw that will hit the wall comes down there, and is the worse the lower it hits."""

    def predicted_miss(velocity: list[float], wall: bool) -> float:
        env = Throw(wall=wall, saturation_cost=0.0)
        env.reset(seed=0)
        start = np.linalg.norm((env.position_of("cube") - env.position_of("bin"))[:2])
        cube, data = env.robot.model.joint("cube"), env.robot.data
        data.qpos[cube.qposadr[0] : cube.qposadr[0] + 3] = (0.6, 0.0, 0.1)
        data.qvel[cube.dofadr[0] : cube.dofadr[0] + 3] = velocity
        mujoco.mj_kinematics(env.robot.model, data)
        return float(start) - env.reward(True) / env.config.progress_gain

    high, low, lower = [0.9, 0.0, 2.6], [1.5, 0.0, 1.2], [1.5, 0.0, 0.4]
    assert predicted_miss(high, True) == pytest.approx(predicted_miss(high, False))
    assert predicted_miss(low, True) > 1.3 - WALL_AT > predicted_miss(low, False)
    assert predicted_miss(lower, True) > predicted_miss(low, True)


def test_a_wall_is_refused_for_an_arm_that_has_none():
    with pytest.raises(TaskError, match="for the jaco, not for the gen3"):
        Throw(scene="throw-gen3", wall=True)


def test_unknown_preset_names_those_there_are():
    with pytest.raises(TaskError, match="default, paper, released"):
        Throw(preset="quick")
