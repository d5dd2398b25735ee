"""Throw: what the task promises to a trainer and to whoever watches it."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import ndp_ros.tasks  # noqa: F401  (registers the environments)
from ndp_ros.errors import TaskError
from ndp_ros.tasks.throw import Throw

PEAK = np.array([0.07, 2.30, -2.20, 0.44, -1.42, 0.40])  # rad/s
RISE, HOLD, FALL = 0.287, 0.17, 0.25  # s
RELEASE = 0.306  # s


def scripted_throw(env: Throw) -> np.ndarray:
    """Return setpoints (n, 3, dof) of an underhand toss: all joints swing, the hand opens."""
    t = env.tick * np.arange(1, round(env.config.horizon / env.tick) + 1)
    rising = np.sin(np.pi / 2 * np.clip(t / RISE, 0, 1)) ** 2
    falling = np.cos(np.pi / 2 * np.clip((t - RISE - HOLD) / FALL, 0, 1)) ** 2
    yd = np.zeros((len(t), 7))
    yd[:, :6] = PEAK * (rising * falling)[:, None]
    yd[:, 6] = np.where((t > RELEASE) & (t <= RELEASE + 1.0 / 6.0), -6.0, 0.0)
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


def test_a_cube_that_is_never_let_go_is_no_success():
    env = Throw(k=5)
    env.reset(seed=0)
    over = False
    while not over:
        _, _, over, _, info = env.step(np.zeros((5, 7)))
    assert not info["outcome"]["success"]
    assert not info["outcome"]["landed"]


def test_unknown_preset_names_those_there_are():
    with pytest.raises(TaskError, match="default, paper, released"):
        Throw(preset="quick")


def test_gymnasium_makes_it():
    env = gymnasium.make("ndp_ros/Throw-v0", k=3)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
