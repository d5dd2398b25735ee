# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Read an arm's MJCF or URDF file and compile it with motors on the joints that are driven.

Both files of a robot's vendor and files written for other simulators are read: actuators of other
kinds are replaced, and meshes that are absent are left out.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from xml.etree import ElementTree

import mujoco

from ndp_ros.control.arm import ArmConfig
from ndp_ros.errors import ConfigError

GRIP = "grip"
"""Site at the hand; it is added where a model has none."""
FINGER = "finger_"
"""Prefix of the joints that are fingers, unless the arm names its own."""

_MESHES = (".stl", ".obj", ".msh")
"""Files of meshes that MuJoCo reads."""
_HINGES = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
_STIFFNESS = 4.0
"""Stiffness of an added finger actuator: its force is reached at this share of the way."""


@functools.lru_cache(maxsize=8)
def compile_arm(config: ArmConfig) -> mujoco.MjModel:
    """Compile an arm on its own; the result is shared, copy it before a change.

    Raises:
        ConfigError: If MuJoCo refuses the file or it does not have the arm's joints.
    """
    spec = read_spec(config.model_path)
    fit(spec, config)
    return compiled(spec, config.model_path)


def read_spec(path: Path) -> mujoco.MjSpec:
    """Read an MJCF or URDF file.

    Raises:
        ConfigError: If it is neither.
    """
    try:
        if path.suffix.lower() != ".urdf":
            return mujoco.MjSpec.from_file(str(path))
        spec = mujoco.MjSpec.from_string(_urdf(path))
    except (ValueError, OSError, ElementTree.ParseError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"MuJoCo cannot read {path}: {problem}") from error
    # The frames of fixed links, such as a flange, can be named.
    spec.compiler.fusestatic = False
    return spec


def compiled(spec: mujoco.MjSpec, path: Path | str) -> mujoco.MjModel:
    """Compile a model.

    Raises:
        ConfigError: If MuJoCo refuses it.
    """
    try:
        return spec.compile()
    except ValueError as error:
        raise ConfigError(f"MuJoCo refuses {path}: {' '.join(str(error).split())}") from error


def fit(spec: mujoco.MjSpec, config: ArmConfig) -> None:
    """Put a torque motor on every joint of an arm, position actuators on its fingers, and a site.

    A model that has these actuators already, in this order, stays as it is.

    Raises:
        ConfigError: If a joint, finger or hand is absent.
    """
    names = [joint.name for joint in spec.joints]
    hinges = [joint.name for joint in spec.joints if joint.type in _HINGES]
    for name in config.joint_names[: config.n_arm]:
        if name not in hinges:
            raise ConfigError.choice(f"{config.model}: joint", name, hinges)
    fingers = finger_joints(config, names)
    n = config.n_arm
    wanted = (*config.joint_names[:n], *fingers)
    motors = [a for a in spec.actuators if a.target in wanted]
    if [a.target for a in spec.actuators[: len(wanted)]] != [*wanted] or not (
        all(_is_motor(a) for a in motors[:n]) and all(_is_servo(a) for a in motors[n:])
    ):
        _replace_actuators(spec, config, fingers)
    for body in spec.bodies:
        # Inverse dynamics carries the arm's weight.
        body.gravcomp = 0.0
    _mark_hand(spec, config)


def finger_joints(config: ArmConfig, known: list[str]) -> tuple[str, ...]:
    """Return the joints of a model that a gripper drives.

    Args:
        config: The arm.
        known: Names of the model's joints, in order.

    Raises:
        ConfigError: If there are none, or one is absent.
    """
    if not config.gripper:
        return ()
    gripper = config.joint_names[-1]
    found = config.fingers or tuple(name for name in known if name.startswith(FINGER))
    found = found or tuple(name for name in known if name == gripper)
    for name in found:
        if name not in known:
            raise ConfigError.choice(f"{config.model}: finger", name, known)
    if not found:
        raise ConfigError(
            f"{config.model} has no joint {gripper} or {FINGER}1: name the joints that the gripper "
            f"drives as fingers, or set gripper: false; there are {', '.join(known)}"
        )
    return found


def hand_body(spec: mujoco.MjSpec, config: ArmConfig) -> str:
    """Return the name of the body that the last joint of an arm moves."""
    last = config.joint_names[config.n_arm - 1]
    body = next(joint.parent for joint in spec.joints if joint.name == last)
    return str(body.name)


def _is_motor(actuator: mujoco.MjsActuator) -> bool:
    """Whether the actuator's control is a torque on a joint."""
    fixed = actuator.gaintype == mujoco.mjtGain.mjGAIN_FIXED and actuator.gainprm[0] == 1.0
    free = actuator.biastype == mujoco.mjtBias.mjBIAS_NONE and actuator.gear[0] == 1.0
    direct = actuator.dyntype == mujoco.mjtDyn.mjDYN_NONE
    return bool(fixed and free and direct and actuator.trntype == mujoco.mjtTrn.mjTRN_JOINT)


def _is_servo(actuator: mujoco.MjsActuator) -> bool:
    """Whether the actuator's control is a position of a joint."""
    gain, bias = actuator.gainprm[0], actuator.biasprm
    affine = actuator.biastype == mujoco.mjtBias.mjBIAS_AFFINE
    joint = actuator.trntype == mujoco.mjtTrn.mjTRN_JOINT and actuator.gear[0] == 1.0
    return bool(affine and joint and gain > 0.0 and bias[1] == -gain)


def _replace_actuators(spec: mujoco.MjSpec, config: ArmConfig, fingers: tuple[str, ...]) -> None:
    """Drive the arm's joints by motors and its fingers by position, and nothing else."""
    for key in [*spec.keys]:
        key.delete()  # has controls of the old actuators
    kept = {a.target: a for a in spec.actuators if a.target in fingers and _is_servo(a)}
    servos = {
        name: (a.gainprm.copy(), a.biasprm.copy(), a.forcelimited, a.forcerange.copy())
        for name, a in kept.items()
    }
    for actuator in [*spec.actuators]:
        actuator.delete()
    joint = {"trntype": mujoco.mjtTrn.mjTRN_JOINT}
    for name, limit in zip(config.joint_names[: config.n_arm], config.max_torque, strict=False):
        spec.add_actuator(name=name, target=name, ctrllimited=1, ctrlrange=[-limit, limit], **joint)
    force, way = config.max_torque[-1], config.upper[-1] - config.lower[-1]
    for name in fingers:
        servo = spec.add_actuator(name=name, target=name, **joint)
        servo.gaintype, servo.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
        if name in servos:
            servo.gainprm, servo.biasprm, servo.forcelimited, servo.forcerange = servos[name]
            continue
        if force <= 0.0:
            raise ConfigError(
                f"arm {config.name}: {config.model} has no position actuator for {name}: give the "
                "force of the fingers as the gripper's entry of max_torque"
            )
        stiffness = _STIFFNESS * force / way
        gain, bias = [0.0] * 10, [0.0] * 10
        gain[0], bias[1], bias[2] = stiffness, -stiffness, -0.1 * stiffness
        servo.gainprm, servo.biasprm = gain, bias
        servo.forcelimited, servo.forcerange = 1, [-force, force]


def _mark_hand(spec: mujoco.MjSpec, config: ArmConfig) -> None:
    """Add the site of the hand unless the model has it."""
    sites, bodies = {s.name: s for s in spec.sites}, {b.name: b for b in spec.bodies}
    if config.hand in sites and config.hand:
        site = sites[config.hand]
        if config.hand != GRIP:
            site.parent.add_site(name=GRIP, pos=site.pos, quat=site.quat, group=4)
    elif config.hand:
        if config.hand not in bodies:
            raise ConfigError.choice(
                f"{config.model}: hand", config.hand, [*filter(None, (*sites, *bodies))]
            )
        bodies[config.hand].add_site(name=GRIP, group=4)
    elif GRIP not in sites:
        bodies[hand_body(spec, config)].add_site(name=GRIP, group=4)


def _urdf(path: Path) -> str:
    """Return a URDF with the paths of its meshes, without those that cannot be read."""
    root = ElementTree.parse(path).getroot()
    for link in root.iter("link"):
        for kind in ("visual", "collision"):
            for element in link.findall(kind):
                mesh = element.find("geometry/mesh")
                if mesh is None:
                    continue
                file = _mesh_file(mesh.get("filename", ""), path.absolute().parent)
                if file is None:
                    link.remove(element)
                else:
                    mesh.set("filename", str(file))
    settings = root.find("mujoco")
    settings = ElementTree.SubElement(root, "mujoco") if settings is None else settings
    compiler = settings.find("compiler")
    compiler = ElementTree.SubElement(settings, "compiler") if compiler is None else compiler
    for name in ("strippath", "fusestatic"):
        compiler.set(name, "false")
    return ElementTree.tostring(root, encoding="unicode")


def _mesh_file(name: str, folder: Path) -> Path | None:
    """Return the file that a URDF names as a mesh, or None if it cannot be read."""
    scheme, sign, rest = name.partition("://")
    package, _, inner = rest.partition("/")
    if not sign:
        places = [folder / name]
    elif scheme == "package":
        prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
        places = [prefix / "share" / package / inner for prefix in prefixes]
        places += [up / package / inner for up in folder.parents]
        places += [up / inner for up in (folder, *folder.parents) if up.name == package]
    else:
        places = [Path("/" + rest.lstrip("/"))]
    readable = (p for p in places if p.is_file() and p.suffix.lower() in _MESHES)
    return next(readable, None)
