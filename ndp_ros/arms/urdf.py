# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Write the robot description (URDF) of an arm from the model that MuJoCo compiled."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np

from ndp_ros.arms.kinematic_tree import KinematicTree, Link, Shape, angles_of
from ndp_ros.control.arm import ArmConfig, Array


def urdf_of(tree: KinematicTree, config: ArmConfig, root: str = "base", prefix: str = "") -> str:
    """Return the URDF of an arm.

    Limits are those of the arm's description. Several fingers follow one joint, that of the
    gripper's setpoint, so that the joint states of this package move them. The root link is the
    frame in which poses are given; the prefix begins the name of every link and joint.
    """
    names = link_names(tree, root, prefix)
    robot = ET.Element("robot", name=f"{prefix}{config.name}")
    for link, name in zip(tree.links, names, strict=True):
        _write_link(ET.SubElement(robot, "link", name=name), link)
    driven: set[int] = set()
    for link, name in zip(tree.links[1:], names[1:], strict=True):
        first = link.place not in driven
        driven.add(link.place)
        leader = config.joint_names[link.place] if link.place >= 0 else ""
        joint_name = leader if leader and first else link.joint or f"{link.name}_fixed"
        kind = _kind(link, config)
        joint = ET.SubElement(robot, "joint", name=f"{prefix}{joint_name}", type=kind)
        ET.SubElement(joint, "parent", link=names[link.parent])
        ET.SubElement(joint, "child", link=name)
        _write_origin(joint, link.origin)
        if kind == "fixed":
            continue
        ET.SubElement(joint, "axis", xyz=_text(link.axis))
        _write_limit(joint, link.place, config, kind)
        if not first:
            ET.SubElement(joint, "mimic", joint=f"{prefix}{leader}")
    ET.indent(robot)
    return ET.tostring(robot, encoding="unicode", xml_declaration=True)


def link_names(tree: KinematicTree, root: str, prefix: str) -> list[str]:
    """Return the name of every link, which is that of its frame in TF."""
    return [prefix + (root if link.parent < 0 else link.name) for link in tree.links]


def _kind(link: Link, config: ArmConfig) -> str:
    if link.place < 0:
        return "fixed"
    if link.slides:
        return "prismatic"
    return "continuous" if config.joint_names[link.place] in config.continuous else "revolute"


def _write_limit(joint: ET.Element, place: int, config: ArmConfig, kind: str) -> None:
    limit = {"effort": config.max_torque[place], "velocity": config.max_velocity[place]}
    if kind != "continuous":
        limit |= {"lower": config.lower[place], "upper": config.upper[place]}
    ET.SubElement(joint, "limit", {name: f"{value:g}" for name, value in limit.items()})


def _write_link(element: ET.Element, link: Link) -> None:
    if link.mass > 0.0:
        inertial = ET.SubElement(element, "inertial")
        ET.SubElement(inertial, "origin", xyz=_text(link.centre), rpy="0 0 0")
        ET.SubElement(inertial, "mass", value=f"{link.mass:.9g}")
        entries = {
            f"i{'xyz'[i]}{'xyz'[j]}": f"{link.inertia[i, j]:.9g}"
            for i in range(3)
            for j in range(i, 3)
        }
        ET.SubElement(inertial, "inertia", entries)
    for shape in link.shapes:
        visual = ET.SubElement(element, "visual")
        _write_shape(visual, shape)
        material = ET.SubElement(visual, "material", name="".join(f"{c:.2f}_" for c in shape.rgba))
        ET.SubElement(material, "color", rgba=_text(np.array(shape.rgba)))
    for shape in link.shapes:
        if shape.solid:
            _write_shape(ET.SubElement(element, "collision"), shape)


def _write_shape(element: ET.Element, shape: Shape) -> None:
    _write_origin(element, shape.placement)
    geometry = ET.SubElement(element, "geometry")
    if shape.kind == "box":
        ET.SubElement(geometry, "box", size=_text(np.array(shape.size)))
    elif shape.kind == "sphere":
        ET.SubElement(geometry, "sphere", radius=f"{shape.size[0]:.9g}")
    else:
        radius, length = (f"{value:.9g}" for value in shape.size)
        ET.SubElement(geometry, "cylinder", radius=radius, length=length)


def _write_origin(element: ET.Element, placement: Array) -> None:
    angles = np.array(angles_of(placement))
    ET.SubElement(element, "origin", xyz=_text(placement[:3, 3]), rpy=_text(angles))


def _text(values: Array) -> str:
    return " ".join(f"{value:.9g}" for value in values)
