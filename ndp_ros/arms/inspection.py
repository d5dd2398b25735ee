# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Say in plain lines what an arm's file describes and what this package does with it.

The file is compared with its model: names, limits, torques against weight, and the rigid-body
model of the tracking law against MuJoCo's own inverse dynamics.
"""

from __future__ import annotations

import mujoco
import numpy as np

from ndp_ros.arms.joints import ArmJoints
from ndp_ros.control.arm import ArmConfig, Array
from ndp_ros.control.arm_model import compile_arm, read_spec
from ndp_ros.control.rigid_body import RigidBody
from ndp_ros.errors import ConfigError

_POSTURES = 200
"""Random postures in which the weight is computed."""
_AGREEMENT = 1e-6
"""Largest difference of two inverse dynamics of one model [N m]."""


def inspect(config: ArmConfig) -> list[str]:
    """Return what an arm's file describes, one statement a line, warnings first.

    Raises:
        ConfigError: If the model cannot be compiled or lacks a joint, if the rest position is
            outside the limits, or if the inverse dynamics does not describe the model.
    """
    outside = [
        f"{name} at {at:g} (limits {low:g} to {high:g})"
        for name, at, low, high in zip(
            config.joint_names, config.home, config.lower, config.upper, strict=True
        )
        if not low <= at <= high
    ]
    if outside:
        raise ConfigError(f"home is outside the limits: {', '.join(outside)}")
    if not config.model:
        return ["no model: only a simulation that brings its own, or a real arm, can be driven"]
    model = compile_arm(config)
    return [*_warnings(config, model), *_description(config, model)]


def _warnings(config: ArmConfig, model: mujoco.MjModel) -> list[str]:
    """Return where the file and its model disagree."""
    lines = []
    n = config.n_arm
    limits = zip(
        config.joint_names[:n], config.lower, config.upper, config.max_torque, strict=False
    )
    for name, low, high, torque in limits:
        joint = model.joint(name)
        if joint.limited[0]:
            first, last = joint.range
            if low < first - 1e-4 or high > last + 1e-4:
                lines.append(
                    f"warning: {name} goes from {low:g} to {high:g} rad here, in the model from "
                    f"{first:g} to {last:g}: setpoints beyond that are not reached"
                )
        effort = model.jnt_actfrcrange[joint.id][1] if model.jnt_actfrclimited[joint.id] else torque
        if torque > effort + 1e-6:
            lines.append(
                f"warning: max_torque of {name} is {torque:g} N m, in the model {effort:g}"
            )
    weight, worst = _weight(config, model)
    share = weight / np.array(config.max_torque[:n])
    if share.max() >= 1.0:
        lines.append(
            f"warning: {config.joint_names[worst]} cannot carry the arm's weight: it needs up to "
            f"{weight[worst]:.0f} N m of {config.max_torque[worst]:g}"
        )
    return lines


def _description(config: ArmConfig, model: mujoco.MjModel) -> list[str]:
    """Return what the package does with the arm."""
    n, joints = config.n_arm, ArmJoints(model, config)
    data = mujoco.MjData(model)
    data.qpos[joints.arm.q] = config.home[:n]
    data.qpos[joints.fingers.q] = config.home[n:]
    mujoco.mj_forward(model, data)
    moving = [b for b in joints.links if b != joints.base]
    mass = sum(float(model.body_mass[b]) for b in moving)
    grip = "no gripper"
    if config.gripper:
        fingers = model.dof_jntid[joints.fingers.v]
        moved = ", ".join(model.joint(int(j)).name for j in fingers)
        grip = f"{config.joint_names[-1]} moves {moved}"
    x, y, z = data.site_xpos[joints.grip] - data.xpos[joints.base]
    weight, worst = _weight(config, model)
    share = weight[worst] / config.max_torque[worst]
    given = [a.target for a in read_spec(config.model_path).actuators]
    kept = "the motors of the file" if given[:n] == [*config.joint_names[:n]] else "torque motors"
    return [
        f"model: {config.model_path}, {len(moving)} moving bodies, {mass:.2f} kg",
        f"joints: {n} ({', '.join(config.joint_names[:n])}); {grip}",
        f"hand: at ({x:.3f}, {y:.3f}, {z:.3f}) m from the base in the rest position",
        f"weight: at most {share:.0%} of a torque limit ({config.joint_names[worst]}, {_POSTURES} "
        "random postures)",
        f"inverse dynamics: equal to MuJoCo's to {_disagreement(config, model):.0e} N m",
        f"in simulation it is driven by {kept} that follow the setpoint by inverse dynamics",
        "on hardware:=ros2_control it is driven by the joints of these names",
    ]


def _weight(config: ArmConfig, model: mujoco.MjModel) -> tuple[Array, int]:
    """Return the largest torque (n,) against gravity, and the joint nearest to its limit."""
    n = config.n_arm
    body, rng = RigidBody(model, config.joint_names[:n]), np.random.default_rng(0)
    low, high = (np.array(limits[:n]) for limits in (config.lower, config.upper))
    at_rest = [body.bias(q, np.zeros(n)).copy() for q in rng.uniform(low, high, (_POSTURES, n))]
    weight: Array = np.abs(at_rest).max(axis=0)
    return weight, int(np.argmax(weight / np.maximum(config.max_torque[:n], 1e-9)))


def _disagreement(config: ArmConfig, model: mujoco.MjModel) -> float:
    """Return the largest difference from MuJoCo's inverse dynamics [N m].

    Raises:
        ConfigError: If it is too large: the model has springs or forces that the law does not know.
    """
    n, joints, rng = config.n_arm, ArmJoints(model, config), np.random.default_rng(1)
    body, data = RigidBody(model, config.joint_names[:n]), mujoco.MjData(model)
    worst = 0.0
    for _ in range(20):
        data.qpos[joints.fingers.q] = model.qpos0[joints.fingers.q]
        q = rng.uniform(config.lower[:n], config.upper[:n])
        v, a = rng.normal(size=n), rng.normal(size=n)
        data.qpos[joints.arm.q], data.qvel[:], data.qacc[:] = q, 0.0, 0.0
        data.qvel[joints.arm.v], data.qacc[joints.arm.v] = v, a
        mujoco.mj_inverse(model, data)
        # Without contacts, limits and friction, which the law does not have to produce.
        free = data.qfrc_inverse + data.qfrc_constraint
        tau = body.inverse_dynamics(q, v, a) + body.damping * v
        worst = max(worst, float(np.abs(free[joints.arm.v] - tau).max()))
    if worst > _AGREEMENT:
        raise ConfigError(
            f"{config.model_path}: MuJoCo's inverse dynamics and that of the tracking law differ "
            f"by {worst:.3g} N m: springs on joints, tendons and other passive forces are unknown "
            "to it"
        )
    return worst
