# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Scenes around a simulated arm: their models, their objects and where everything starts.

A training task and the arm that the nodes drive in simulation load the same scene.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import mujoco

from ndp_ros.arms.bare import surround
from ndp_ros.control.arm import ArmConfig
from ndp_ros.control.arm_model import compiled, fit, read_spec
from ndp_ros.errors import ArmError, ConfigError
from ndp_ros.paths import share

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Placement:
    """Region in which a body on a free joint, or a mocap body, starts."""

    body: str
    """Name of the body."""
    low: Point
    """One corner of the box from which its position is drawn [m]."""
    high: Point
    """The opposite corner; equal to ``low`` for a body that always starts in one place."""
    turn: float = 0.0
    """Half-width of the uniform noise on its rotation about the vertical [rad]."""


@dataclass(frozen=True)
class Scene:
    """Surroundings of an arm, and the start state of arm and objects."""

    arm: str
    """Name or file of the arm in the scene."""
    model: str = ""
    """MJCF file with arm and surroundings, absolute or relative to the share folder; empty: the
    arm's own file, on a floor."""
    start: tuple[float, ...] = ()
    """Start position (dof,) [rad]; for the gripper the setpoint, which presses on a held body.
    Empty: the arm's rest position."""
    noise: float = 0.0
    """Half-width of the uniform noise on every arm joint at reset [rad]."""
    held: str = ""
    """Body that starts in the hand; empty for none."""
    grasp_from: float = 0.0
    """Position from which the fingers close on it [rad]."""
    placed: tuple[Placement, ...] = ()
    """Bodies that start elsewhere."""
    goal: str = ""
    """Mocap body that starts where a random posture puts the hand; empty for none. Without a model
    it is added."""
    goal_range: float = 0.4
    """Half-width of the uniform noise around the start position from which this posture is drawn
    [rad]."""

    def placement(self, body: str) -> Placement:
        """Return the region in which a body starts.

        Raises:
            ArmError: If it does not start in one.
        """
        for placement in self.placed:
            if placement.body == body:
                return placement
        raise ArmError.choice("placed body", body, [p.body for p in self.placed])


def _bin(low: Point, high: Point) -> tuple[Placement, ...]:
    return (Placement("bin", low, high),)


_THROW = Scene(
    "jaco",
    "models/throw.xml",
    start=(0.0, 1.05, 4.85, 3.0, 2.8, 1.5, 1.15),
    noise=0.1,
    held="cube",
    grasp_from=0.8,
    placed=_bin((1.3, 0.0, -0.495), (1.3, 0.0, -0.495)),
)
_THROW_GEN3 = replace(
    _THROW,
    arm="gen3",
    model="models/throw_gen3.xml",
    start=(0.0, 1.8, -1.45, 0.0, -0.45, 0.0, 0.46),
    grasp_from=0.3,
)
SCENES = {
    "throw": _THROW,
    "throw-moving": replace(_THROW, placed=_bin((1.3, -0.2, -0.495), (1.5, 0.2, -0.495))),
    "throw-gen3": _THROW_GEN3,
    "throw-gen3-moving": replace(
        _THROW_GEN3, placed=_bin((1.2, -0.15, -0.495), (1.35, 0.15, -0.495))
    ),
    "pick": Scene(
        "jaco",
        "models/pick.xml",
        start=(0.0, 1.63, 3.79, -1.57, 3.14, -1.56, 0.3),
        noise=0.05,
        placed=(Placement("cube", (0.665, -0.02, -0.0775), (0.705, 0.02, -0.0775), turn=0.2),),
    ),
}
"""Scenes by name."""


def scene_of(scene: str | Scene) -> Scene:
    """Return a scene, or the one of a name.

    Raises:
        ArmError: If there is no such scene.
    """
    if isinstance(scene, str):
        if scene not in SCENES:
            raise ArmError.choice("scene", scene, SCENES)
        return SCENES[scene]
    return scene


@functools.lru_cache(maxsize=8)
def load_scene(scene: Scene, config: ArmConfig, meshes: bool = False) -> mujoco.MjModel:
    """Compile a scene; the result is shared, copy it before a change.

    ``meshes`` shows dm_control's Jaco meshes where that package is installed. They have no mass and
    no contacts.

    Raises:
        ArmError: If MuJoCo refuses the file, or it does not hold the arm.
    """
    path = share(scene.model) if scene.model else config.model_path
    try:
        spec = read_spec(path)
        fit(spec, config)
        if not scene.model:
            surround(spec, scene.goal)
        if meshes and config.name == MESHED_ARM and (folder := mesh_folder()) is not None:
            _add_meshes(spec, folder)
        return compiled(spec, path)
    except ConfigError as error:
        raise ArmError(str(error)) from error


def mesh_folder() -> Path | None:
    """Return dm_control's folder of Jaco meshes, or None if it is not installed."""
    found = importlib.util.find_spec("dm_control")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "third_party" / "kinova" / "meshes_decimated"
    return folder if folder.is_dir() else None


MESHED_ARM = "jaco"
"""The arm that has meshes."""
_MESHES = {  # mesh file: the bodies that show it, and its material
    "base": (("base",), "dark_gray"),
    "shoulder": (("link_1",), "dark_gray"),
    "arm": (("link_2",), "dark_gray"),
    "forearm": (("link_3",), "dark_gray"),
    "wrist": (("link_4", "link_5"), "dark_gray"),
    "hand_3finger_main": (("palm",), "dark_gray"),
    "hand_3finger_insert": (("palm",), "light_gray"),
    "finger_proximal": (("finger_1", "finger_2", "finger_3"), "light_gray"),
    "finger_distal": (("finger_tip_1", "finger_tip_2", "finger_tip_3"), "light_gray"),
}
_HIDDEN_GROUP = 3


def _add_meshes(spec: mujoco.MjSpec, folder: Path) -> None:
    """Show meshes instead of the robot's primitives; contacts stay as they are."""
    for name, (bodies, material) in _MESHES.items():
        spec.add_mesh(name=name, file=str(folder / f"{name}.stl"))
        for body in map(spec.body, bodies):
            for geom in body.geoms:
                if geom.classname.name not in ("ring", "wrist_ring"):
                    geom.group = _HIDDEN_GROUP
        for body in map(spec.body, bodies):
            body.add_geom(
                type=mujoco.mjtGeom.mjGEOM_MESH,
                meshname=name,
                material=material,
                contype=0,
                conaffinity=0,
                mass=0,
            )
