# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The Gen3 model: the published figures, its limits, its dynamics and its grip."""

import math

import mujoco
import numpy as np
import pytest

from ndp_ros.control.arm import ArmConfig, Command, JointState
from ndp_ros.control.omega import InverseDynamics
from ndp_ros.control.rigid_body import RigidBody

GEN3 = ArmConfig.named("gen3")
JOINTS = GEN3.joint_names[:6]
N = 6
CUBE = """
<mujoco model="gen3_with_cube">
  <compiler angle="radian" autolimits="true"/>
  <include file="gen3.xml"/>
  <option timestep="0.002" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <worldbody>
    <body name="cube"><freejoint name="cube"/>
      <geom type="box" size="0.0225 0.0225 0.0225" mass="0.1" contype="2" conaffinity="5"
            friction="0.8 0.005 0.0001" solref="0.006 1" solimp="0.95 0.99 0.001"/>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(str(GEN3.model_path))


@pytest.fixture
def gripping_model(tmp_path) -> mujoco.MjModel:
    (tmp_path / "gen3.xml").write_text(GEN3.model_path.read_text())
    (tmp_path / "scene.xml").write_text(CUBE)
    return mujoco.MjModel.from_xml_path(str(tmp_path / "scene.xml"))


def test_masses_are_the_published_ones_plus_the_gripper(model):
    bodies = ("base", *(f"link_{i}" for i in range(1, 7)))
    published = [1.697, 1.377, 1.262, 0.93, 0.678, 0.678, 0.364]
    np.testing.assert_allclose([model.body(name).mass[0] for name in bodies], published)
    assert model.body_mass.sum() == pytest.approx(6.986 + 0.925)


# Published placement of each joint in its parent's frame: x, y, z [m], and its turn about x
# [quarter turns]; the flange follows.
PLACEMENTS = [
    ((0, 0, 0.15643), -2), ((0, 0.005375, -0.12838), 1), ((0, -0.41, 0), 2),
    ((0, 0.20843, -0.006375), 1), ((0, -0.00017505, -0.10593), -1),
    ((0, 0.10593, -0.00017505), 1),
]  # fmt: skip
FLANGE = (0, 0, -0.061525)


def flange_by_hand(q):
    """Return the flange's position and the direction out of the hand."""

    def about_x(a):
        return np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])

    def about_z(a):
        return np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])

    turn, at = np.eye(3), np.zeros(3)
    for (offset, quarters), angle in zip(PLACEMENTS, q, strict=True):
        at = at + turn @ np.array(offset)
        turn = turn @ about_x(quarters * math.pi / 2) @ about_z(angle)
    return at + turn @ np.array(FLANGE), -turn[:, 2]


def test_hand_is_where_the_published_placements_put_it(model):
    data, rng = mujoco.MjData(model), np.random.default_rng(2)
    for q in (np.zeros(N), *rng.uniform(-2, 2, (20, N))):
        data.qpos[:N] = q
        mujoco.mj_kinematics(model, data)
        position, out = flange_by_hand(q)
        np.testing.assert_allclose(data.body("palm").xpos, position, atol=1e-9)
        np.testing.assert_allclose(data.body("palm").xmat[[2, 5, 8]], out, atol=1e-9)
    assert flange_by_hand(np.zeros(N))[0][2] == pytest.approx(1.176625)


def test_limits_are_the_same_in_model_and_configuration(model):
    torque = model.actuator_ctrlrange[:N, 1]
    np.testing.assert_allclose(torque, GEN3.max_torque[:N])
    np.testing.assert_allclose(torque, [39, 39, 39, 9, 9, 9])
    np.testing.assert_allclose(
        np.degrees(GEN3.max_velocity[:N]), [80, 80, 80, 70, 70, 70], atol=0.01
    )
    for i, name in enumerate(JOINTS):
        joint = model.joint(name)
        if joint.limited[0]:
            np.testing.assert_allclose(joint.range, [GEN3.lower[i], GEN3.upper[i]])
        else:
            assert GEN3.upper[i] > 6.0  # continuous


def test_torques_agree_with_mujoco_to_1e_10(model):
    rng = np.random.default_rng(0)
    body = RigidBody(model, JOINTS)
    data = mujoco.MjData(model)
    for _ in range(50):
        data.qpos[:N], data.qvel[:] = rng.uniform(-2, 2, N), 0.0
        data.qvel[:N] = rng.uniform(-1.4, 1.4, N)
        mujoco.mj_forward(model, data)
        a = np.zeros(model.nv)
        a[:N] = rng.uniform(-10, 10, N)
        product = np.zeros(model.nv)
        mujoco.mj_mulM(model, data, product, a)
        expected = product[:N] + data.qfrc_bias[:N]
        tau = body.inverse_dynamics(data.qpos[:N], data.qvel[:N], a[:N])
        np.testing.assert_allclose(tau, expected, atol=1e-10)


def test_arm_can_hold_itself_anywhere(model):
    body = RigidBody(model, JOINTS)
    rng = np.random.default_rng(1)
    low, high = np.array(GEN3.lower[:N]), np.array(GEN3.upper[:N])
    for _ in range(300):
        gravity = body.bias(rng.uniform(low, high), np.zeros(N))
        assert np.all(abs(gravity) < np.array(GEN3.max_torque[:N]))


def test_gripper_opens_85_mm_and_closes(model):
    data = mujoco.MjData(model)

    def gap(angle):
        data.qpos[N : N + 2] = angle
        mujoco.mj_kinematics(model, data)
        pads = data.geom("pad_1").xpos - data.geom("pad_2").xpos
        return np.linalg.norm(pads) - 2 * model.geom("pad_1").size[0]

    assert gap(GEN3.lower[N]) == pytest.approx(0.085, abs=0.003)
    assert gap(0.38) == pytest.approx(0.045, abs=0.001)
    assert gap(GEN3.upper[N]) == pytest.approx(0.0, abs=0.002)


def grip(model, closed=0.55):
    """Return data with the cube gripped at home, and a law that holds the arm there."""
    data = mujoco.MjData(model)
    data.qpos[:N], data.qpos[N : N + 2] = GEN3.home[:N], 0.3
    mujoco.mj_kinematics(model, data)
    data.qpos[8:11] = data.site("grip").xpos
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, data.body("palm").xmat)
    data.qpos[11:15] = quaternion
    law = InverseDynamics(RigidBody(model, JOINTS), 25.0, np.array(GEN3.max_torque[:N]))
    state, command = JointState.zeros(7), Command.zeros(7, "torque")

    def step(y, yd, ydd, gripper):
        state.position[:N], state.velocity[:N] = data.qpos[:N], data.qvel[:N]
        law(y, yd, ydd, state, command)
        data.ctrl[:N], data.ctrl[N:] = command.torque[:N], gripper
        mujoco.mj_step(model, data)

    home, rest = np.array(GEN3.home), np.zeros(7)
    gravity = model.opt.gravity.copy()
    model.opt.gravity[:] = 0.0
    for _ in range(200):
        step(home, rest, rest, closed)
    model.opt.gravity[:] = gravity
    for _ in range(200):
        step(home, rest, rest, closed)
    return data, step


def offset(data):
    """Return where the cube is, seen from the hand."""
    return data.body("palm").xmat.reshape(3, 3).T @ (
        data.body("cube").xpos - data.site("grip").xpos
    )


def test_gripped_cube_stays_in_the_hand_through_hard_motion(gripping_model):
    data, step = grip(gripping_model)
    before = offset(data)
    assert np.linalg.norm(before) < 0.01
    home, rate = np.array(GEN3.home), 2 * math.pi * 1.5
    peak = np.array([0.12, 0.1, 0.1, 0.12, 0.12, 0.12, 0.0])  # near the limits of speed
    for k in range(700):
        angle = rate * k * 0.002
        step(
            home + peak * (1 - math.cos(angle)),
            peak * rate * math.sin(angle),
            peak * rate**2 * math.cos(angle),
            0.55,
        )
    assert np.linalg.norm(offset(data) - before) < 0.01


def test_opened_gripper_lets_the_cube_go(gripping_model):
    data, step = grip(gripping_model)
    home, rest = np.array(GEN3.home), np.zeros(7)
    height = data.body("cube").xpos[2]
    for _ in range(200):
        step(home, rest, rest, 0.0)
    assert data.body("cube").xpos[2] < height - 0.3
