# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Places of an arm's joints, fingers, motors and frames in a compiled model.

A model may have other joints before, between and after them.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from ndp_ros.control.arm import ArmConfig, Array
from ndp_ros.control.arm_model import GRIP, finger_joints
from ndp_ros.errors import ArmError

Index = slice | NDArray[np.intp]


@dataclass(frozen=True)
class Places:
    """Indices of joints in the state."""

    q: Index
    """In ``qpos``."""
    v: Index
    """In ``qvel`` and in forces."""


class ArmJoints:
    """Places of one arm.

    Attributes:
        arm: Its joints, in the arm's order.
        fingers: The joints that its gripper drives.
        all: Both.
        n_fingers: Number of fingers.
        motors: The arm's motors in ``ctrl``.
        servos: The fingers' actuators in ``ctrl``.
        grip: The hand's site.
        palm: The body that carries it.
        base: The body that carries the joint next to the ground.
        links: The bodies that move with the arm, and its base.
    """

    def __init__(self, model: mujoco.MjModel, config: ArmConfig) -> None:
        """Find the arm in a model with its joints and actuators (``control.arm_model.fit``)."""
        n, known = config.n_arm, [model.joint(j).name for j in range(model.njnt)]
        names, fingers = config.joint_names[:n], finger_joints(config, known)
        self.n_fingers = len(fingers)
        self.arm, self.fingers = _places(model, names), _places(model, fingers)
        self.all = _places(model, (*names, *fingers))
        self.motors, self.servos = slice(0, n), slice(n, n + len(fingers))
        self.grip = int(model.site(GRIP).id)
        self.palm = int(model.site_bodyid[self.grip])
        # Bodies are numbered from the roots of their trees outwards.
        first = min(int(model.jnt_bodyid[known.index(name)]) for name in names)
        self.base = int(model.body_parentid[first])
        moved, links = {first}, [first]
        for body in range(first + 1, model.nbody):
            if int(model.body_parentid[body]) in moved:
                moved.add(body)
                links.append(body)
        self.links = frozenset({*links, self.base})

    def hand_pose(self, data: mujoco.MjData) -> tuple[Array, Array]:
        """Return position (3,) [m] and rotation (9,) of the hand; views of the state."""
        return data.site_xpos[self.grip], data.site_xmat[self.grip]


def free_joint(model: mujoco.MjModel, body: str) -> Places:
    """Return the place of the free joint of a body.

    Raises:
        ArmError: If there is no such body or it has none.
    """
    bodies = [model.body(b).name for b in range(model.nbody)]
    if body not in bodies:
        raise ArmError.choice("body of the scene", body, bodies)
    joint = int(model.body(body).jntadr[0])
    if joint < 0 or model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_FREE:
        raise ArmError(f"body {body} of the scene has no free joint: it cannot be placed")
    q, v = int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])
    return Places(slice(q, q + 7), slice(v, v + 6))


def _places(model: mujoco.MjModel, names: tuple[str, ...]) -> Places:
    """Return the places of joints with one degree of freedom each."""
    joints = [model.joint(name).id for name in names]
    return Places(_index(model.jnt_qposadr[joints]), _index(model.jnt_dofadr[joints]))


def _index(places: NDArray[np.int32]) -> Index:
    """Return indices, as a slice if they are neighbours, which is faster."""
    first, n = int(places[0]) if len(places) else 0, len(places)
    if np.array_equal(places, np.arange(first, first + n)):
        return slice(first, first + n)
    return places.astype(np.intp)
