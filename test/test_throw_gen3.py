# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Throw on the Gen3: the same task, inside the limits of an arm that one can buy."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from ndp_ros.arms.kortex.codes import ServoingMode
from ndp_ros.arms.mujoco import MujocoArm
from ndp_ros.arms.scenes import SCENES
from ndp_ros.control.arm import ArmConfig
from ndp_ros.emulator.config import EmulatorConfig
from ndp_ros.emulator.request import CyclicCommand
from ndp_ros.emulator.robot import Robot
from ndp_ros.errors import ArmError, TaskError
from ndp_ros.tasks.arm_task import VectorArmTask
from ndp_ros.tasks.choice import TaskChoice
from ndp_ros.tasks.throw import Throw

GEN3 = ArmConfig.named("gen3")
SPEED, ACCELERATION, TORQUE = (
    np.array(v) for v in (GEN3.max_velocity, GEN3.max_acceleration, GEN3.max_torque)
)
PEAK = np.array([0.0, -1.07, 1.07, 0.0, 0.94, 0.0])  # rad/s
RISE, HOLD = 0.23, 0.35  # s
RELEASE = 0.45  # s


@pytest.fixture
def env() -> Throw:
    return Throw(scene="throw-gen3")


def swing(env: Throw, opens: bool) -> np.ndarray:
    """Return setpoints (n, 3, dof) of an underhand swing of three joints."""
    t = env.tick * np.arange(1, round(env.config.horizon / env.tick) + 1)
    rising = np.sin(np.pi / 2 * np.clip(t / RISE, 0, 1)) ** 2
    falling = np.cos(np.pi / 2 * np.clip((t - RISE - HOLD) / RISE, 0, 1)) ** 2
    yd = np.zeros((len(t), 7))
    yd[:, :6] = PEAK * (rising * falling)[:, None]
    if opens:
        yd[:, 6] = np.where((t > RELEASE) & (t <= RELEASE + 0.3), -1.19, 0.0)
    before = np.vstack((np.zeros(7), yd[:-1]))
    y = env.setpoint[0] + np.cumsum((yd + before) / 2 * env.tick, axis=0)
    return np.stack((y, yd, (yd - before) / env.tick), axis=1)


def play(env: Throw, setpoints: np.ndarray) -> dict:
    n = len(env.segment_times)
    for start in range(0, len(setpoints), n):
        *_, over, _, info = env.execute(setpoints[start : start + n])
        if over:
            return info["outcome"]
    raise AssertionError("the episode did not end within the script")


@pytest.mark.parametrize("seed", range(5))
def test_a_scripted_throw_lands_in_the_bin_without_a_joint_at_its_limits(env, seed):
    env.reset(seed=seed)
    episode = play(env, swing(env, opens=True))
    assert episode["success"]
    assert episode["saturation"] == 0.0
    assert episode["max_joint_speed"] < SPEED[:6].min()
    assert episode["release_velocity"][2] > 0.2, "an arc leaves upwards"


def test_the_grasp_holds_through_a_swing_without_a_release(env):
    env.reset(seed=3)
    data = env.robot.data
    gaps = []
    watch = env.watch

    def measure():
        watch()
        gap = data.body("cube").xpos - data.site("grip").xpos
        gaps.append(data.site("grip").xmat.reshape(3, 3).T @ gap)

    env.watch = measure
    episode = play(env, swing(env, opens=False))
    assert not episode["landed"]
    assert np.abs(np.array(gaps) - gaps[0]).max() < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_setpoints_and_torques_stay_inside_the_limits_for_any_action(env, seed):
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    setpoints, torques = [np.stack(env.setpoint)], []

    class Recorder(VectorArmTask):
        def run(self, control):
            (step,) = super().run(control)
            setpoints.extend(control.setpoints[:, :2, 0])
            return [step]

    env.watch = lambda: torques.append(env.robot.data.ctrl[:6].copy())
    recorder = Recorder([env])
    over = False
    while not over:
        wild = rng.normal(0.0, 10.0 ** rng.uniform(-1, 2), (env.k, 7))
        ((_, _, over, _, _),) = recorder.step([wild])
        assert np.all(np.abs(env.robot.data.actuator_force[:6]) <= TORQUE[:6] + 1e-9)
    y, yd = np.array(setpoints).transpose(1, 0, 2)
    share = env.config.limit_share
    assert share < 0.9, "the margin that a real arm's guard keeps"
    slack = 1 + 1e-6
    assert np.all(y >= np.array(GEN3.lower) - 1e-9) and np.all(y <= np.array(GEN3.upper) + 1e-9)
    assert np.all(np.abs(yd) <= share * SPEED * slack)
    assert np.all(np.abs(np.diff(yd, axis=0)) <= share * ACCELERATION * env.tick * slack)
    assert len(torques) == len(y) - 1
    assert np.all(np.abs(torques) <= TORQUE[:6])


def test_the_bin_is_out_of_reach():
    arm = MujocoArm(GEN3, "throw-gen3")
    model, data = arm.model, arm.data
    bin_at = arm.objects()["bin"]
    wall = model.geom("bin_front")
    rim = bin_at[2] + wall.pos[2] + wall.size[2]
    inside = bin_at[0] + wall.pos[0] + wall.size[0]
    rng = np.random.default_rng(0)
    farthest = 0.0
    for _ in range(5000):
        data.qpos[:6] = rng.uniform(GEN3.lower[:6], GEN3.upper[:6])
        mujoco.mj_kinematics(model, data)
        x, y, z = data.site("grip").xpos
        if z < rim:
            farthest = max(farthest, float(np.hypot(x, y)))
    assert 0.7 < farthest < inside - 0.2


def test_setpoints_beyond_the_limits_have_a_cost():
    rewards = {}
    for cost in (0.0, 1.0):
        env = Throw(scene="throw-gen3", limit_cost=cost, saturation_cost=0.0)
        env.reset(seed=0)
        action = np.zeros((env.k, 7))
        _, calm, *_ = env.step(action)
        action[:, 1] = np.array([1, -1, 1, -1, 1]) * 2.0
        _, hasty, *_ = env.step(action)
        rewards[cost] = calm, hasty
    assert rewards[0.0][0] == pytest.approx(rewards[1.0][0], abs=1e-12)
    assert rewards[1.0][1] < rewards[0.0][1] - 0.5


def test_the_task_has_a_short_name():
    env = TaskChoice("throw-gen3", 5, "default").make()
    assert env.arm == "gen3"
    assert env.joint_names == GEN3.joint_names
    assert TaskChoice("throw-gen3", 5, "default", ("moving_bin=true",)).make().arm == "gen3"


def test_a_scene_holds_one_arm():
    with pytest.raises(ArmError, match="gen3, not jaco"):
        MujocoArm(ArmConfig.named("jaco"), "throw-gen3")
    with pytest.raises(TaskError, match="throw-gen3"):
        Throw(scene="juggle")
    assert {SCENES[name].arm for name in ("throw", "throw-gen3")} == {"jaco", "gen3"}


def test_the_emulated_arm_throws_the_same_cube(env):
    env.reset(seed=2)
    start, setpoints = env.setpoint[0], swing(env, opens=True)
    due = np.r_[0.0, env.tick * np.arange(1, len(setpoints) + 1)]
    position = np.vstack((start, setpoints[:, 0]))
    settings = EmulatorConfig(scene="throw-gen3", scene_seed=2, timestep=0.001)
    robot = Robot(settings, GEN3)
    robot.set_servoing(ServoingMode.LOW_LEVEL)
    zeros = [0.0] * 6
    for frame in range(2000):
        y = [np.interp(frame * settings.timestep, due, joint) for joint in position.T]
        degrees = [float(np.degrees(v)) % 360.0 for v in y[:6]]
        gripper = min(max(100.0 * y[6] / GEN3.upper[6], 0.0), 100.0), 100.0, 100.0
        robot.command(CyclicCommand(frame, degrees, zeros, zeros, zeros, gripper))
        robot.tick()
        # No more than the arm's user guide goes without warning of.
        assert np.all(np.abs(robot.servos.torque) <= np.where(TORQUE[:6] > 20.0, 56.7, 29.4))
    assert not robot.faults.any()
    x, y, z = robot.data.body("cube").xpos - robot.data.body("bin").xpos
    assert abs(x) < 0.15 and abs(y) < 0.15 and z < 0.1
