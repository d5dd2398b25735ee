# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Ω and its rigid-body model against MuJoCo."""

from __future__ import annotations

import copy

import mujoco
import numpy as np
import pytest

from ndp_ros.arms.scenes import SCENES, load_scene
from ndp_ros.control.arm import ArmConfig, Command, JointState
from ndp_ros.control.arm_model import compile_arm
from ndp_ros.control.omega import Identity, InverseDynamics
from ndp_ros.control.rigid_body import RigidBody
from ndp_ros.errors import ConfigError

JACO = ArmConfig.named("jaco")
JOINTS = JACO.joint_names[:6]
FINGERS = ("finger_1", "finger_2", "finger_3")

# Joint offsets, references, slides, branches and a body off its joint: what an arm
# of identical hinges would not show.
TREE = """
<mujoco><compiler angle="radian"/><option gravity="1 -2 -9"/><worldbody>
  <body pos="0.1 0.2 0.3" quat="0.9 0.1 -0.2 0.3">
    <joint name="a" type="hinge" axis="1 2 -1" pos="0.05 -0.02 0.1" armature="0.1" damping="0.3"/>
    <geom type="box" size="0.1 0.2 0.05" pos="0.1 0 0.2" mass="2"/>
    <body pos="0.3 0 0.1" quat="0.7 0 0.7 0.1"><geom type="sphere" size="0.05" mass="0.7"/>
      <body pos="0 0.2 0">
        <joint name="b" type="slide" axis="0 1 1" ref="0.2" frictionloss="0.4"/>
        <geom type="capsule" size="0.03 0.1" euler="0.3 0.2 0.1" mass="0.5"/>
      </body>
    </body>
    <body pos="-0.2 0 0">
      <joint name="c" type="hinge" axis="0 0 1" pos="0.1 0 0" ref="0.3" armature="0.02"/>
      <geom type="box" size="0.05 0.1 0.02" pos="0 0.1 0" mass="1"/>
    </body>
  </body>
  <body pos="0 0 2"><freejoint/><geom type="sphere" size="0.1" mass="9"/></body>
</worldbody></mujoco>
"""


def test_torques_agree_with_mujoco_to_1e_10():
    model = mujoco.MjModel.from_xml_path(str(_scene()))
    names = (*JOINTS, *FINGERS)
    _agrees(model, names, slice(0, 9), speed=3.0)


def test_torques_agree_on_a_tree_with_offsets_slides_and_references():
    model = mujoco.MjModel.from_xml_string(TREE)
    _agrees(model, ("a", "b", "c"), slice(0, 3), speed=1.0)
    # In another order than the tree's.
    _, q, v, a, tau = _random_inverse(model, slice(0, 3), np.random.default_rng(0), 1.0)
    order = [2, 0, 1]
    body = RigidBody(model, ("c", "a", "b"))
    assert body.inverse_dynamics(q[order], v[order], a[order]) == pytest.approx(
        tau[order], abs=1e-10
    )
    assert body.damping == pytest.approx([0, 0.3, 0])
    assert body.friction == pytest.approx([0, 0, 0.4])


def test_joints_left_out_are_locked_where_they_are_told_to():
    model = load_scene(SCENES["throw"], JACO)
    data = mujoco.MjData(model)
    rng = np.random.default_rng(1)
    data.qpos[:9] = rng.uniform(0.5, 1.3, 9)
    data.qvel[:6] = rng.uniform(-2, 2, 6)
    body = RigidBody(model, JOINTS, locked=data.qpos)
    mujoco.mj_forward(model, data)
    # With the fingers at rest, the arm's bias does not depend on who counts them.
    assert body.bias(data.qpos[:6], data.qvel[:6]) == pytest.approx(data.qfrc_bias[:6], abs=1e-10)


def test_mass_matrix_agrees_with_mujoco():
    model = load_scene(SCENES["throw"], JACO)
    data = mujoco.MjData(model)
    data.qpos[:9] = np.random.default_rng(2).uniform(0.3, 1.3, 9)
    mujoco.mj_forward(model, data)
    full = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, full, data.qM)
    body = RigidBody(model, (*JOINTS, *FINGERS))
    assert body.mass_matrix(data.qpos[:9]) == pytest.approx(full[:9, :9], abs=1e-10)


def test_a_joint_that_is_absent_names_those_there_are():
    with pytest.raises(ConfigError, match="joint_6"):
        RigidBody(compile_arm(JACO), ("joint_7",))


def test_tracking_error_obeys_the_critically_damped_law():
    # e(t) = (1 + wn t) exp(-wn t) e0 for an arm that starts at rest beside its setpoint.
    wn, dt, e0 = 25.0, 0.0005, 0.01
    model, data, omega = _bare_arm(wn, dt)
    y = np.array(JACO.home)
    y[:6] += e0
    measured, command, zero = JointState.zeros(7), Command.zeros(7, "torque"), np.zeros(7)
    for i in range(400):
        measured.position[:6], measured.velocity[:6] = data.qpos[:6], data.qvel[:6]
        expected = (1 + wn * i * dt) * np.exp(-wn * i * dt) * e0
        assert y[:6] - data.qpos[:6] == pytest.approx(expected, abs=3e-4)
        omega(y, zero, zero, measured, command)
        data.ctrl[:6] = command.torque[:6]
        mujoco.mj_step(model, data)


@pytest.mark.parametrize(("dt", "bound"), [(0.002, 0.001), (0.01, 0.002)])
def test_a_fast_sine_is_tracked_within_millirads(dt, bound):
    worst = _track_sine(dt, natural_frequency=25.0)
    assert worst < bound


def test_dry_friction_is_compensated():
    without = _track_sine(0.002, friction=1.0, compensate=False)
    with_it = _track_sine(0.002, friction=1.0)
    assert with_it < 0.2 * without


def test_torque_is_clipped_and_says_so():
    model = load_scene(SCENES["throw"], JACO)
    limit = np.array(JACO.max_torque)
    omega = InverseDynamics(RigidBody(model, JOINTS), 25.0, limit)
    measured, command, zero = JointState.zeros(7), Command.zeros(7, "torque"), np.zeros(7)
    measured.position[:6] = JACO.home[:6]
    omega(np.array(JACO.home), zero, zero, measured, command)
    assert not omega.saturated
    far = np.array(JACO.home) + 5.0
    omega(far, zero, zero, measured, command)
    assert omega.saturated
    assert np.all(np.abs(command.torque[:6]) <= limit[:6])
    assert np.any(np.abs(command.torque[:6]) == limit[:6])
    assert command.position[6] == far[6], "the gripper is commanded by position"


@pytest.mark.parametrize("friction", [0.0, 0.5])
def test_arms_side_by_side_get_the_torques_that_each_gets_alone(friction):
    model = copy.copy(load_scene(SCENES["throw"], JACO))
    model.dof_frictionloss[:] = friction
    body, limit, rng = RigidBody(model, JOINTS), np.array(JACO.max_torque), np.random.default_rng(0)
    alone, many = InverseDynamics(body, 25.0, limit), InverseDynamics(body, 25.0, limit, arms=3)
    for scale in (0.01, 1.0):
        rows = scale * rng.normal(size=(5, 3, 6))
        torques = many.torque(*rows).copy()
        for arm in range(3):
            np.testing.assert_array_equal(torques[arm], alone.torque(*rows[:, arm]))
            assert many.saturated[arm] == alone.saturated
    assert many.saturated.any()


def test_identity_passes_the_setpoint_on():
    y, yd, ydd = np.arange(7.0), np.arange(7.0) + 1, np.arange(7.0) + 2
    command = Command.zeros(7, "position")
    Identity()(y, yd, ydd, JointState.zeros(7), command)
    assert np.array_equal(command.position, y)
    assert np.array_equal(command.velocity, yd)


@pytest.mark.parametrize("frequency", [0.0, -1.0, float("nan")])
def test_a_natural_frequency_must_be_positive(frequency):
    with pytest.raises(ConfigError, match="natural_frequency"):
        InverseDynamics(RigidBody(compile_arm(JACO), JOINTS), frequency)


def _scene():
    from ndp_ros.paths import share

    return share("models/throw.xml")


def _random_inverse(model, joints, rng, speed):
    """Return a random state and MuJoCo's inverse dynamics without its passive forces."""
    data = mujoco.MjData(model)
    data.qpos[joints] = rng.uniform(-1.5, 1.5, len(data.qpos[joints]))
    data.qvel[joints] = rng.uniform(-speed, speed, len(data.qvel[joints]))
    a = np.zeros(model.nv)
    a[joints] = rng.uniform(-9, 9, len(a[joints]))
    data.qacc[:] = a
    mujoco.mj_inverse(model, data)
    tau = data.qfrc_inverse + data.qfrc_passive + data.qfrc_constraint
    return data, data.qpos[joints].copy(), data.qvel[joints].copy(), a[joints], tau[joints]


def _agrees(model, names, joints, speed):
    rng = np.random.default_rng(0)
    body = RigidBody(model, names)
    for _ in range(50):
        data, q, v, a, tau = _random_inverse(model, joints, rng, speed)
        assert body.inverse_dynamics(q, v, a) == pytest.approx(tau, abs=1e-10)
        assert body.bias(q, v) == pytest.approx(data.qfrc_bias[joints], abs=1e-10)


def _bare_arm(natural_frequency, dt, friction=0.0, compensate=True):
    """Return the arm alone, welded fingers and all, at its home position."""
    spec = mujoco.MjSpec.from_file(str(_scene().parent / "jaco.xml"))
    for finger in FINGERS:
        spec.joint(finger).delete()
        spec.actuator(finger).delete()
    for joint in JOINTS:
        spec.joint(joint).frictionloss = friction
    model = spec.compile()
    model.opt.timestep = min(dt, 0.002)
    data = mujoco.MjData(model)
    data.qpos[:6] = JACO.home[:6]
    mujoco.mj_forward(model, data)
    known = copy.copy(model)
    if not compensate:
        known.dof_frictionloss[:] = 0.0
    law = InverseDynamics(RigidBody(known, JOINTS), natural_frequency, np.array(JACO.max_torque))
    return model, data, law


def _track_sine(dt, natural_frequency=25.0, friction=0.0, compensate=True):
    """Return the worst error [rad] on 0.5 rad at 0.8 Hz in every joint at once."""
    model, data, omega = _bare_arm(natural_frequency, dt, friction, compensate)
    start = np.array(JACO.home)
    measured, command = JointState.zeros(7), Command.zeros(7, "torque")
    rate, worst = 2 * np.pi * 0.8, 0.0
    for i in range(round(1.25 / dt)):
        t = i * dt
        y = start + 0.5 * (1 - np.cos(rate * t)) / 2
        yd = np.full(7, 0.25 * rate * np.sin(rate * t))
        # A torque is held for a tick: the acceleration due is that of its middle.
        ydd = np.full(7, 0.25 * rate**2 * np.cos(rate * (t + dt / 2)))
        measured.position[:6], measured.velocity[:6] = data.qpos[:6], data.qvel[:6]
        worst = max(worst, float(np.abs(y - measured.position)[:6].max()))
        omega(y, yd, ydd, measured, command)
        assert not omega.saturated
        data.ctrl[:6] = command.torque[:6]
        mujoco.mj_step(model, data, round(dt / model.opt.timestep))
    return worst


def test_torques_of_setpoints_are_those_of_each_setpoint() -> None:
    model = compile_arm(JACO)
    body = RigidBody(model, JOINTS)
    setpoints = np.random.default_rng(0).normal(size=(7, 3, 5))
    torques = body.torques(setpoints)
    for r in range(5):
        y, yd, ydd = setpoints[:6, :, r].T
        expected = body.inverse_dynamics(y, yd, ydd) + body.damping * yd
        np.testing.assert_allclose(torques[r], expected + body.friction * np.sign(yd), atol=1e-12)
