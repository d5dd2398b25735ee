# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Surroundings of an arm without a scene of its own: floor, light, cameras, goal, the hand's frame.

They are added to the model of the arm itself, whatever file it comes from.
"""

from __future__ import annotations

import mujoco
import numpy as np

from ndp_ros.control.arm import Array
from ndp_ros.control.arm_model import GRIP

_GOAL_AXIS = 0.06
"""Length of the axes that show the goal [m]."""
_COLOURS = ((0.85, 0.2, 0.2, 0.8), (0.2, 0.7, 0.25, 0.8), (0.2, 0.35, 0.9, 0.8))
_CAMERAS = {"side": (0.0, -2.2, 0.7), "near": (1.3, -1.3, 0.9)}
"""Places of the cameras by name [m]."""
_MIDDLE = np.array([0.2, 0.0, 0.45])
"""Point that they look at [m]."""

_SKY, _FLOOR = "ndp_ros/sky", "ndp_ros/floor"
"""Names of what an arm's own file hardly names so."""


def surround(spec: mujoco.MjSpec, goal: str = "") -> None:
    """Add surroundings that touch nothing to the model of an arm.

    ``goal`` names a mocap body that shows a pose of the hand; empty for none.
    """
    spec.option.timestep = 0.002
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
    world = spec.worldbody
    # The names are those of the scenes that ship; an arm's own file may have them already.
    cameras, bodies = {c.name for c in spec.cameras}, {b.name for b in spec.bodies}
    _add_sky_and_floor(spec)
    _add_lights(spec)
    for name, place in _CAMERAS.items():
        if name not in cameras:
            world.add_camera(
                name=name, pos=place, fovy=44.0, quat=_facing(np.array(place), _MIDDLE)
            )
    if goal and goal not in bodies:
        _add_goal(world, goal)
    if GRIP not in bodies:
        # The site as a body, whose pose is observed as that of an object.
        site = next(site for site in spec.sites if site.name == GRIP)
        site.parent.add_body(name=GRIP, pos=site.pos, quat=site.quat)


def _add_sky_and_floor(spec: mujoco.MjSpec) -> None:
    """Add a bright sky, unless the arm's file has one, and a floor with tiles."""
    if all(texture.type != mujoco.mjtTexture.mjTEXTURE_SKYBOX for texture in spec.textures):
        spec.add_texture(
            name=_SKY,
            type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
            builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
            rgb1=[0.86, 0.89, 0.93],
            rgb2=[0.45, 0.55, 0.68],
            width=256,
            height=512,
        )
    spec.add_texture(
        name=_FLOOR,
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.80, 0.81, 0.82],
        rgb2=[0.74, 0.75, 0.77],
        width=256,
        height=256,
    )
    tiles = spec.add_material(name=_FLOOR, texrepeat=[4, 4], texuniform=True, specular=0.1)
    tiles.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = _FLOOR
    spec.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[4.0, 4.0, 0.1],
        material=_FLOOR,
        contype=0,
        conaffinity=0,
    )


def _add_lights(spec: mujoco.MjSpec) -> None:
    """Add the lights of the scenes that ship: one with shadows, one opposite, and the camera's."""
    spec.worldbody.add_light(
        directional=True,
        pos=[0.2, -1.6, 2.6],
        dir=[0.2, 0.6, -0.9],
        diffuse=[0.55, 0.55, 0.52],
        specular=[0.25, 0.25, 0.25],
    )
    spec.worldbody.add_light(
        directional=True,
        pos=[1.5, 2.0, 2.0],
        dir=[-0.4, -0.6, -0.7],
        diffuse=[0.18, 0.20, 0.24],
        castshadow=False,
    )
    head = spec.visual.headlight
    head.ambient, head.diffuse, head.specular = [0.35] * 3, [0.35] * 3, [0.1] * 3


def _add_goal(world: mujoco.MjsBody, name: str) -> None:
    """Add a mocap body whose three axes are shown."""
    body = world.add_body(name=name, mocap=True)
    for axis, colour in enumerate(_COLOURS):
        end = np.zeros(3)
        end[axis] = _GOAL_AXIS
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[0.0, 0.0, 0.0, *end],
            size=[0.006, 0.0, 0.0],
            rgba=colour,
            contype=0,
            conaffinity=0,
        )


def _facing(place: Array, target: Array) -> Array:
    """Return the quaternion (w, x, y, z) of a camera that looks from a place at a target."""
    back = (place - target) / np.linalg.norm(place - target)
    x = np.cross([0.0, 0.0, 1.0], back)
    x /= np.linalg.norm(x)
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.column_stack((x, np.cross(back, x), back)).ravel())
    return quaternion
