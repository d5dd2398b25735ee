# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Pick: a scripted grasp succeeds, and rewards pay for its parts."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from ndp_ros.errors import TaskError
from ndp_ros.tasks.pick import LIFTED, Pick

OPEN, CLOSED = 0.3, 1.2
# Each stage: seconds, height of the grip above the cube [m], gripper at its end [rad].
STAGES = ((0.6, 0.0, OPEN), (0.3, 0.0, CLOSED), (0.8, 0.2, CLOSED), (0.3, 0.2, CLOSED))


def joints_at(env: Pick, target: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return arm joints that bring the grip to a point [m] with the hand as it is, by Newton."""
    model = env.robot.model
    data = mujoco.MjData(model)
    data.qpos[:] = env.robot.data.qpos
    data.qpos[:6] = q
    site, jacobian, turn = model.site("grip").id, np.zeros((3, model.nv)), np.zeros((3, model.nv))
    for _ in range(30):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, jacobian, turn, site)
        tilt = np.cross(data.site_xmat[site].reshape(3, 3)[:, 2], (0.0, 0.0, 1.0))
        error = np.concatenate((target - data.site_xpos[site], 0.3 * tilt))
        J = np.vstack((jacobian[:, :6], 0.3 * turn[:, :6]))
        data.qpos[:6] += J.T @ np.linalg.solve(J @ J.T + 1e-4 * np.eye(6), error)
    return data.qpos[:6].copy()


def scripted_pick(env: Pick) -> np.ndarray:
    """Return setpoints (n, 3, dof): descend, close, lift, hold."""
    cube = env.robot.objects()["cube"][:3]
    y = env.setpoint[0]
    out = []
    for duration, height, grip in STAGES:
        end = np.append(joints_at(env, cube + np.array([0, 0, height]), y[:6]), grip)
        s = np.arange(1, round(duration / env.tick) + 1)[:, None] * env.tick / duration
        rest = end - y
        out.append(
            np.stack(
                (
                    y + rest * (10 * s**3 - 15 * s**4 + 6 * s**5),
                    rest * (30 * s**2 - 60 * s**3 + 30 * s**4) / duration,
                    rest * (60 * s - 180 * s**2 + 120 * s**3) / duration**2,
                ),
                axis=1,
            )
        )
        y = end
    return np.concatenate(out)


@pytest.mark.parametrize("seed", range(4))
def test_a_scripted_grasp_lifts_the_cube(seed):
    env = Pick()
    env.reset(seed=seed)
    setpoints = scripted_pick(env)
    n = len(env.segment_times)
    rewards = []
    for start in range(0, len(setpoints), n):
        _, reward, over, _, info = env.execute(setpoints[start : start + n])
        rewards.append(reward)
    assert over
    episode = info["outcome"]
    assert episode["success"]
    assert episode["height"] > LIFTED
    assert episode["saturation"] < 0.05
    assert rewards[-1] > 2 * rewards[0], "lifting pays"


@pytest.mark.parametrize("reward", ["shaped", "height"])
def test_doing_nothing_is_no_success(reward):
    env = Pick(reward=reward)
    env.reset(seed=0)
    over = False
    while not over:
        _, total, over, _, info = env.step(np.zeros((5, 7)))
    assert not info["outcome"]["success"]
    assert info["outcome"]["height"] == pytest.approx(0.0, abs=0.005)
    assert total < 5 * 1.0


def test_the_sparse_reward_pays_nothing_for_an_attempt():
    env = Pick(preset="released")
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    _, total, *_ = env.step(rng.normal(size=(5, 7)))
    assert total == 0.0


def test_a_stale_world_hides_the_cube_and_nothing_of_the_hand():
    rewards = {}
    for stale in (True, False):
        env = Pick(stale=stale, saturation_cost=0.0)
        env.reset(seed=0)
        action = np.zeros((5, 7))
        action[:, 0] = 1.0  # the hand swings beside a cube that lies still
        rewards[stale] = env.step(action)[4]["rewards"]
        env.close()
    assert len(set(rewards[True])) == 5, "the hand moves, so no two rewards are equal"
    np.testing.assert_allclose(rewards[True], rewards[False], atol=1e-4)


def test_unknown_reward_names_those_there_are():
    with pytest.raises(TaskError, match="shaped, height"):
        Pick(reward="kind")
