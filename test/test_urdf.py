# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The robot description: one source with the model that is simulated."""

import mujoco
import numpy as np
import pytest

from ndp_ros.arms.kinematic_tree import KinematicTree
from ndp_ros.arms.urdf import urdf_of
from ndp_ros.control.arm import ArmConfig
from ndp_ros.control.arm_model import compile_arm
from ndp_ros.control.rigid_body import RigidBody

pin = pytest.importorskip("pinocchio")
ARMS = ("jaco", "gen3")


@pytest.fixture(params=ARMS)
def arm(request: pytest.FixtureRequest) -> tuple[ArmConfig, mujoco.MjModel, KinematicTree]:
    config = ArmConfig.named(request.param)
    model = compile_arm(config)
    return config, model, KinematicTree(model, config)


def configuration(model: mujoco.MjModel, config: ArmConfig, q: np.ndarray) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[: config.n_arm] = q[: config.n_arm]
    data.qpos[config.n_arm :] = q[-1]
    mujoco.mj_forward(model, data)
    return data


def joints(read: "pin.Model", config: ArmConfig, q: np.ndarray, prefix: str = "") -> np.ndarray:
    """Return the reader's configuration; joints without a value of their own mimic the gripper."""
    values = {f"{prefix}{name}": value for name, value in zip(config.joint_names, q, strict=True)}
    at = pin.neutral(read)
    for name, joint in zip(read.names[1:], read.joints[1:], strict=True):
        value = values.get(name, q[-1])
        turns = (np.cos(value), np.sin(value))
        at[joint.idx_q : joint.idx_q + joint.nq] = value if joint.nq == 1 else turns
    return at


def test_another_library_finds_every_link_where_mujoco_has_it(arm: tuple) -> None:
    config, model, tree = arm
    read = pin.buildModelFromXML(urdf_of(tree, config, prefix="left_"))
    data, rng = read.createData(), np.random.default_rng(0)
    for _ in range(5):
        q = rng.uniform(config.lower, config.upper)
        pin.framesForwardKinematics(read, data, joints(read, config, q, "left_"))
        world = configuration(model, config, q)
        base = model.body("base").id
        for body in ("palm", "finger_1", "finger_2", "link_3"):
            expected = world.xmat[base].reshape(3, 3).T @ (world.body(body).xpos - world.xpos[base])
            found = data.oMf[read.getFrameId(f"left_{body}", pin.BODY)].translation
            np.testing.assert_allclose(found, expected, atol=1e-7)


def test_description_and_dynamics_of_the_arm_agree_with_the_simulation(arm: tuple) -> None:
    config, model, tree = arm
    read = pin.buildModelFromXML(urdf_of(tree, config))
    assert sum(i.mass for i in read.inertias) == pytest.approx(
        float(model.body_mass.sum()), rel=1e-6
    )
    body, q = RigidBody(model, config.joint_names[: config.n_arm]), np.array(config.home)
    gravity = pin.computeGeneralizedGravity(read, read.createData(), joints(read, config, q))
    indices = [
        read.joints[read.getJointId(name)].idx_v for name in config.joint_names[: config.n_arm]
    ]
    # RigidBody welds the fingers at their reference position; those of the URDF are at home.
    expected = body.bias(q[: config.n_arm], np.zeros(config.n_arm))
    np.testing.assert_allclose(gravity[indices], expected, atol=0.15)


def test_the_hand_is_where_the_grip_is(arm: tuple) -> None:
    config, model, tree = arm
    q = np.array(config.home)
    world = configuration(model, config, q)
    base = model.body("base").id
    expected = world.xmat[base].reshape(3, 3).T @ (world.site("grip").xpos - world.xpos[base])
    np.testing.assert_allclose(tree.hand_at(q), expected, atol=1e-9)


def test_limits_are_those_of_the_arm(arm: tuple) -> None:
    config, _, tree = arm
    text = urdf_of(tree, config, root="base", prefix="r_")
    assert text.count("<mimic") == sum(link.joint != "" for link in tree.links) - len(
        config.joint_names
    )
    read = pin.buildModelFromXML(text)
    for name, speed in zip(config.joint_names, config.max_velocity, strict=True):
        assert read.velocityLimit[read.joints[read.getJointId(f"r_{name}")].idx_v] == speed
