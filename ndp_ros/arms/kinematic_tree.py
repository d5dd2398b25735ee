# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The links of an arm, their frames and shapes, read from the model that MuJoCo compiled.

The robot description and the frames of TF are made from one tree, so that they agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from ndp_ros.arms.joints import ArmJoints
from ndp_ros.control.arm import ArmConfig, Array
from ndp_ros.control.arm_model import finger_joints
from ndp_ros.errors import ArmError

_GEOM = mujoco.mjtGeom
_BOX, _SPHERE, _CYLINDER = "box", "sphere", "cylinder"


@dataclass(frozen=True)
class Shape:
    """A primitive of a link."""

    kind: str
    """``box``, ``sphere`` or ``cylinder``."""
    size: tuple[float, ...]
    """Edges of a box, radius of a sphere, radius and length of a cylinder [m]."""
    placement: Array
    """Placement (4, 4) in the link's frame."""
    rgba: tuple[float, float, float, float]
    solid: bool
    """Whether it takes part in contacts."""


@dataclass(frozen=True)
class Link:
    """One body of the arm and the joint that carries it."""

    name: str
    parent: int
    """Index of the parent link; -1 for the root."""
    origin: Array
    """Placement (4, 4) of the link in its parent's frame, with its joint at zero."""
    joint: str
    """Name of the moving joint that carries it; empty if it is fixed."""
    axis: Array
    """Axis (3,) of the joint in the link's frame."""
    slides: bool
    """Whether the joint is a slide instead of a hinge."""
    place: int
    """Index of the joint in the arm's joint vector; -1 for none. Fingers share one."""
    mass: float
    centre: Array
    """Centre of mass (3,) in the link's frame [m]."""
    inertia: Array
    """Inertia (3, 3) about the centre of mass, along the link's axes [kg m^2]."""
    shapes: tuple[Shape, ...]

    def placement(self, position: float) -> Array:
        """Return the placement in the parent's frame (4, 4) at a joint position [rad or m]."""
        if not self.joint:
            return self.origin
        out = np.eye(4)
        if self.slides:
            out[:3, 3] = position * self.axis
        else:
            quaternion, matrix = np.empty(4), np.empty(9)
            mujoco.mju_axisAngle2Quat(quaternion, self.axis, position)
            mujoco.mju_quat2Mat(matrix, quaternion)
            out[:3, :3] = matrix.reshape(3, 3)
        product: Array = self.origin @ out
        return product


class KinematicTree:
    """All links of an arm, parents before children.

    Attributes:
        links: The links; the first is the root.
        hand: Index of the link that carries the hand's point.
        grip: That point (3,) in the link's frame [m].
    """

    def __init__(self, model: mujoco.MjModel, config: ArmConfig) -> None:
        """Read the links from a model that holds the arm, and perhaps a scene around it.

        Raises:
            ArmError: If a body has several joints.
        """
        joints = ArmJoints(model, config)
        names = [model.joint(j).name for j in range(model.njnt)]
        self._places = {names.index(n): i for i, n in enumerate(config.joint_names[: config.n_arm])}
        for finger in finger_joints(config, names):
            self._places[names.index(finger)] = config.n_arm
        bodies = sorted(joints.links)
        index = {body: i for i, body in enumerate(bodies)}
        shifts: dict[int, Array] = {}
        self.links = [self._link(model, body, index, shifts) for body in bodies]
        self.hand = index[joints.palm]
        self.grip: Array = model.site_pos[joints.grip] - shifts[joints.palm]

    def _link(
        self, model: mujoco.MjModel, body: int, index: dict[int, int], shifts: dict[int, Array]
    ) -> Link:
        """Return one link; its frame is the body's, moved to the anchor of the joint."""
        name, count = model.body(body).name or f"body_{body}", int(model.body_jntnum[body])
        if count > 1:
            raise ArmError(f"body {name} has {count} joints: a link is carried by one at most")
        root = index[body] == 0
        origin = np.eye(4) if root else placement(model.body_pos[body], model.body_quat[body])
        shift, axis, joint, slides, place = np.zeros(3), np.array([0.0, 0.0, 1.0]), "", False, -1
        if count:
            j = int(model.body_jntadr[body])
            kind = int(model.jnt_type[j])
            if kind not in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE):
                raise ArmError(f"joint {model.joint(j).name} is neither a hinge nor a slide")
            shift, axis = model.jnt_pos[j].copy(), model.jnt_axis[j].copy()
            # A joint that nothing drives is shown where it is at the start.
            place, slides = self._places.get(j, -1), kind == mujoco.mjtJoint.mjJNT_SLIDE
            joint = model.joint(j).name if place >= 0 else ""
            zero = float(model.qpos0[model.jnt_qposadr[j]])
            moved = np.eye(4)
            moved[:3, 3] = shift
            still = Link("", -1, origin @ moved, joint, axis, slides, -1, 0.0, shift, moved, ())
            origin = still.placement(-zero if joint else 0.0)
        shifts[body] = shift
        parent = -1 if root else index[int(model.body_parentid[body])]
        if not root:
            origin = origin.copy()
            origin[:3, 3] -= shifts[int(model.body_parentid[body])]
        turn = placement(np.zeros(3), model.body_iquat[body])[:3, :3]
        return Link(
            name=name,
            parent=parent,
            origin=origin,
            joint=joint,
            axis=axis,
            slides=slides,
            place=place,
            mass=float(model.body_mass[body]),
            centre=model.body_ipos[body] - shift,
            inertia=turn @ np.diag(model.body_inertia[body]) @ turn.T,
            shapes=shapes_of(model, body, shift),
        )

    def placements(self, position: Array) -> list[Array]:
        """Return the placement (4, 4) of each link in its parent's frame at joints (dof,)."""
        values = [*map(float, position), 0.0]
        return [link.placement(values[link.place]) for link in self.links]

    def hand_at(self, position: Array) -> Array:
        """Return the hand's point (3,) in the root's frame [m] at joints (dof,) [rad]."""
        placements = self.placements(position)
        point, i = np.append(self.grip, 1.0), self.hand
        while i > 0:
            point, i = placements[i] @ point, self.links[i].parent
        found: Array = point[:3]
        return found


def shapes_of(model: mujoco.MjModel, body: int, shift: Array | None = None) -> tuple[Shape, ...]:
    """Return the shapes of a body as primitives; meshes become their bounding boxes.

    Placements count from a point (3,) of the body [m]; from its origin unless given.
    """
    found: list[Shape] = []
    first = int(model.body_geomadr[body])
    for geom in range(first, first + int(model.body_geomnum[body])):
        kind, size = int(model.geom_type[geom]), model.geom_size[geom]
        at = placement(model.geom_pos[geom], model.geom_quat[geom])
        if shift is not None:
            at[:3, 3] -= shift
        material = int(model.geom_matid[geom])
        colour = model.mat_rgba[material] if material >= 0 else model.geom_rgba[geom]
        parts: list[tuple[str, tuple[float, ...], Array]] = []
        if kind == _GEOM.mjGEOM_SPHERE:
            parts = [(_SPHERE, (float(size[0]),), at)]
        elif kind in (_GEOM.mjGEOM_CYLINDER, _GEOM.mjGEOM_CAPSULE):
            radius, half = float(size[0]), float(size[1])
            parts = [(_CYLINDER, (radius, 2.0 * half), at)]
            if kind == _GEOM.mjGEOM_CAPSULE:
                parts += [(_SPHERE, (radius,), at @ _lifted(z)) for z in (-half, half)]
        elif kind in (_GEOM.mjGEOM_BOX, _GEOM.mjGEOM_ELLIPSOID):
            parts = [(_BOX, tuple(2.0 * float(edge) for edge in size), at)]
        elif kind == _GEOM.mjGEOM_MESH:
            box = model.geom_aabb[geom]
            centre = np.eye(4)
            centre[:3, 3] = box[:3]
            parts = [(_BOX, tuple(2.0 * float(edge) for edge in box[3:]), at @ centre)]
        rgba = (float(colour[0]), float(colour[1]), float(colour[2]), float(colour[3]))
        solid = bool(model.geom_contype[geom] or model.geom_conaffinity[geom])
        found += [Shape(name, edges, placed, rgba, solid) for name, edges, placed in parts]
    return tuple(found)


def quaternion_of(placement: Array) -> Array:
    """Return the rotation of a placement (4, 4) as a quaternion (w, x, y, z)."""
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(placement[:3, :3]).ravel())
    return quaternion


def angles_of(placement: Array) -> tuple[float, float, float]:
    """Return the rotation of a placement (4, 4) as roll, pitch and yaw [rad], as URDF has them."""
    r = placement[:3, :3]
    pitch = math.atan2(-r[2, 0], math.hypot(r[0, 0], r[1, 0]))
    if math.cos(pitch) < 1e-9:
        return math.atan2(-r[1, 2], r[1, 1]), pitch, 0.0
    return math.atan2(r[2, 1], r[2, 2]), pitch, math.atan2(r[1, 0], r[0, 0])


def placement(position: Array, quaternion: Array) -> Array:
    """Return a placement (4, 4) from a position and a quaternion (w, x, y, z)."""
    out, matrix = np.eye(4), np.empty(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(quaternion, np.float64))
    out[:3, :3], out[:3, 3] = matrix.reshape(3, 3), position
    return out


def _lifted(z: float) -> Array:
    out = np.eye(4)
    out[2, 3] = z
    return out
