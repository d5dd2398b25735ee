# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Settled grasps of a body, computed once per scene by closing the hand in simulation."""

from __future__ import annotations

import copy
import functools
import math

import mujoco
import numpy as np

from ndp_ros.arms.joints import ArmJoints, free_joint
from ndp_ros.arms.scenes import Scene, load_scene
from ndp_ros.control.arm import ArmConfig, Array, Command, JointState
from ndp_ros.control.omega import InverseDynamics
from ndp_ros.control.rigid_body import RigidBody
from ndp_ros.errors import ArmError

_GRASPS = 16
_SEED = 0
_TIMESTEP = 0.002
"""Physics step [s], whatever the arm's own: a seed must mean the same start state."""
_STEPS, _WEIGHTLESS = 400, 150
"""Physics steps of a grasp, and how many of them pass before gravity acts on the cube."""
_SLIPPED = 0.03
"""Distance of the cube from the grip at which it has slipped out of the hand [m]."""


def compose(position: Array, quaternion: Array, pose: Array) -> Array:
    """Return the pose (7,) in the world of a pose in a frame at ``position`` and ``quaternion``."""
    out = np.empty(7)
    mujoco.mju_rotVecQuat(out[:3], pose[:3], quaternion)
    out[:3] += position
    mujoco.mju_mulQuat(out[3:], quaternion, pose[3:])
    return out


def relative(position: Array, quaternion: Array, pose: Array) -> Array:
    """Return the pose (7,) in a frame at ``position`` and ``quaternion`` of a pose in the world."""
    inverse = quaternion * (1.0, -1.0, -1.0, -1.0)
    return compose(np.zeros(3), inverse, np.concatenate((pose[:3] - position, pose[3:])))


@functools.lru_cache(maxsize=8)
def settled_grasps(scene: Scene, config: ArmConfig) -> Array:
    """Compute grasps (n, fingers + 7): finger positions, then the body's pose in the palm.

    The body is placed between the fingers with a small random rotation, and the hand closes by
    its own motors: without gravity until it holds, then with it.

    Raises:
        ArmError: If it does not stay in the hand, or has no free joint.
    """
    model = copy.copy(load_scene(scene, config))
    model.opt.timestep = _TIMESTEP
    data = mujoco.MjData(model)
    n, joints = config.n_arm, ArmJoints(model, config)
    arm, hand = joints.arm, joints.fingers
    law = InverseDynamics(RigidBody(model, config.joint_names[:n]), config.natural_frequency)
    y, rest = np.array(scene.start), np.zeros(n + 1)
    state, command = JointState.zeros(n + 1), Command.zeros(n + 1, "torque")
    cube = free_joint(model, scene.held).q
    palm, grip = joints.palm, joints.grip
    gravity = model.opt.gravity.copy()
    rng = np.random.default_rng(_SEED)
    grasps = np.empty((_GRASPS, joints.n_fingers + 7))
    for grasp in grasps:
        mujoco.mj_resetData(model, data)
        data.qpos[arm.q] = y[:n]
        data.qpos[hand.q] = scene.grasp_from
        mujoco.mj_kinematics(model, data)
        turn = rng.uniform(-0.15, 0.15)
        offset = np.array([*rng.uniform(-0.003, 0.003, 3), math.cos(turn), 0, 0, math.sin(turn)])
        data.qpos[cube] = compose(data.site_xpos[grip], data.xquat[palm], offset)
        for k in range(_STEPS):
            model.opt.gravity[:] = gravity if k >= _WEIGHTLESS else 0.0
            state.position[:n], state.velocity[:n] = data.qpos[arm.q], data.qvel[arm.v]
            law(y, rest, rest, state, command)
            data.ctrl[joints.motors], data.ctrl[joints.servos] = command.torque[:n], y[n]
            mujoco.mj_step(model, data)
        if np.linalg.norm(data.qpos[cube][:3] - data.site_xpos[grip]) > _SLIPPED:
            raise ArmError(f"{scene.model}: {scene.held} slips out of the hand at the start pose")
        grasp[:-7] = data.qpos[hand.q]
        grasp[-7:] = relative(data.xpos[palm], data.xquat[palm], data.qpos[cube])
    grasps.setflags(write=False)
    return grasps
