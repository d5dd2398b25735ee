# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Rigid-body dynamics by Pinocchio on the model that MuJoCo compiled.

Pinocchio's MJCF reader does not infer inertias and counts massless geoms, so its model of a MuJoCo
robot can be wrong by tens of newton metres. This module copies every placement, axis and inertia
from the compiled ``mjModel``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import pinocchio as pin

from ndp_ros.control.arm import Array
from ndp_ros.errors import ConfigError

if TYPE_CHECKING:
    import mujoco

    from ndp_ros.control.arm import ArmConfig


# Values of mjtJoint, so that this module does not import MuJoCo.
_FREE, _BALL, _SLIDE, _HINGE = 0, 1, 2, 3


class RigidBody:
    """Inverse dynamics of n joints: tau = M(q) a + c(q, v) + g(q) + damping v + friction.

    Attributes:
        joint_names: The joints, in the order of every array.
        n: Number of joints.
        damping: Viscous damping (n,) [N m s/rad].
        friction: Dry friction (n,) [N m].
    """

    def __init__(
        self, model: mujoco.MjModel, joint_names: Sequence[str], locked: Array | None = None
    ) -> None:
        """Copy the model.

        Args:
            model: Compiled MuJoCo model; bodies on a free joint are left out.
            joint_names: Moving joints, in the order of the arrays.
            locked: Configuration (nq,) of the other joints, which are welded; ``qpos0`` unless
                given.

        Raises:
            ConfigError: If a joint is absent, is neither a hinge nor a slide, or shares its body
                with another joint.
        """
        self.joint_names = tuple(joint_names)
        self.n = len(self.joint_names)
        known = [model.joint(j).name for j in range(model.njnt)]
        for name in self.joint_names:
            if name not in known:
                raise ConfigError.choice("joint", name, known)
        locked = np.asarray(model.qpos0 if locked is None else locked, dtype=float)
        self._model = _pinocchio_model(model, set(self.joint_names), locked)
        self._data = self._model.createData()

        # Pinocchio orders joints along the tree; the caller may use another order.
        tree = [self._model.getJointId(name) for name in self.joint_names]
        self._order = np.array([self._model.idx_vs[i] for i in tree], dtype=np.intp)
        self._in_order = bool(np.array_equal(self._order, np.arange(self.n)))
        dofs = [model.jnt_dofadr[known.index(name)] for name in self.joint_names]
        armature = np.zeros(self.n)
        armature[self._order] = model.dof_armature[dofs]
        self._model.armature = armature
        self.damping: Array = model.dof_damping[dofs].copy()
        self.friction: Array = model.dof_frictionloss[dofs].copy()
        self._q, self._v, self._a = np.zeros(self.n), np.zeros(self.n), np.zeros(self.n)

    @classmethod
    def of_arm(cls, config: ArmConfig) -> Self:
        """Build the model of a configured arm's joints; the gripper is part of the last link."""
        from ndp_ros.control.arm_model import compile_arm

        return cls(compile_arm(config), config.joint_names[: config.n_arm])

    def inverse_dynamics(self, q: Array, v: Array, a: Array) -> Array:
        """Compute the torques (n,) for accelerations ``a``, without damping and friction.

        The next call overwrites the result.

        Args:
            q: Positions (n,) [rad].
            v: Velocities (n,) [rad/s].
            a: Accelerations (n,) [rad/s^2].
        """
        if self._in_order:
            tau: Array = pin.rnea(self._model, self._data, q, v, a)
            return tau
        self._q[self._order], self._v[self._order], self._a[self._order] = q, v, a
        ordered: Array = pin.rnea(self._model, self._data, self._q, self._v, self._a)
        return ordered[self._order]

    def torques(self, setpoints: Array) -> Array:
        """Compute the torques of setpoints (r, n), with damping and friction.

        Args:
            setpoints: y, yd, ydd of each joint (n or more, 3, r); joints beyond the n are ignored.
        """
        y, yd, ydd = np.ascontiguousarray(setpoints[: self.n].transpose(1, 2, 0))
        torque: Array = np.empty_like(y)
        for r in range(len(torque)):
            torque[r] = self.inverse_dynamics(y[r], yd[r], ydd[r])
        torque += self.damping * yd + self.friction * np.sign(yd)
        return torque

    def bias(self, q: Array, v: Array) -> Array:
        """Compute gravity, Coriolis and centrifugal torques (n,), MuJoCo's ``qfrc_bias``."""
        return self.inverse_dynamics(q, v, np.zeros(self.n))

    def mass_matrix(self, q: Array) -> Array:
        """Compute the joint-space inertia (n, n), with armature."""
        self._q[self._order] = q
        upper = np.triu(pin.crba(self._model, self._data, self._q))
        full = upper + np.triu(upper, 1).T
        return np.ascontiguousarray(full[np.ix_(self._order, self._order)])


def _pinocchio_model(model: mujoco.MjModel, moving: set[str], locked: Array) -> pin.Model:
    """Build the tree of moving joints, with all other bodies welded to it."""
    out = pin.Model()
    out.gravity.linear = np.array(model.opt.gravity)
    # For each MuJoCo body: the joint that carries it and its placement there; None on a free joint.
    carrier: list[tuple[int, pin.SE3] | None] = [(0, pin.SE3.Identity())]
    for b in range(1, model.nbody):
        parent = carrier[model.body_parentid[b]]
        joints = [int(model.body_jntadr[b]) + i for i in range(model.body_jntnum[b])]
        kinds = [int(model.jnt_type[j]) for j in joints]
        names = [model.joint(j).name for j in joints]
        if parent is None or any(
            kind in (_FREE, _BALL) and name not in moving
            for kind, name in zip(kinds, names, strict=True)
        ):
            carrier.append(None)
            continue
        index, placement = parent
        placement = placement * _se3(model.body_pos[b], model.body_quat[b])
        if any(name in moving for name in names):
            if len(joints) != 1 or kinds[0] not in (_SLIDE, _HINGE):
                raise ConfigError(
                    f"body {model.body(b).name} has joints {names}: "
                    "a moving joint must be the only one of its body, and a hinge or a slide"
                )
            j = joints[0]
            anchor = pin.SE3(np.eye(3), np.array(model.jnt_pos[j]))
            reference = _displacement(model, j, -float(model.qpos0[model.jnt_qposadr[j]]))
            axis = np.array(model.jnt_axis[j])
            kind = (
                pin.JointModelPrismaticUnaligned(axis)
                if kinds[0] == _SLIDE
                else pin.JointModelRZ()
                if np.array_equal(axis, (0.0, 0.0, 1.0))
                else pin.JointModelRevoluteUnaligned(axis)
            )
            index = out.addJoint(index, kind, placement * anchor * reference, names[0])
            placement = anchor.inverse()
        else:
            for j in joints:
                anchor = pin.SE3(np.eye(3), np.array(model.jnt_pos[j]))
                address = model.jnt_qposadr[j]
                shift = float(locked[address] - model.qpos0[address])
                placement = placement * anchor * _displacement(model, j, shift) * anchor.inverse()
        carrier.append((index, placement))
        if index:
            centre = _se3(model.body_ipos[b], model.body_iquat[b])
            inertia = pin.Inertia(
                float(model.body_mass[b]), np.zeros(3), np.diag(model.body_inertia[b])
            )
            out.appendBodyToJoint(index, inertia, placement * centre)
    return out


def _se3(position: Array, quaternion: Array) -> pin.SE3:
    """Convert MuJoCo's position and quaternion (w, x, y, z) to a placement."""
    w, x, y, z = (float(value) for value in quaternion)
    return pin.SE3(pin.Quaternion(w, x, y, z).normalized().matrix(), np.array(position))


def _displacement(model: mujoco.MjModel, joint: int, amount: float) -> pin.SE3:
    """Compute the displacement of a body for a change of its hinge or slide."""
    axis = np.array(model.jnt_axis[joint])
    if int(model.jnt_type[joint]) == _SLIDE:
        return pin.SE3(np.eye(3), amount * axis)
    return pin.SE3(pin.exp3(amount * axis), np.zeros(3))
