# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Markers for RViz and Foxglove: objects, the hand's planned and executed path, the arm's state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose
from ndp_interfaces.msg import Status
from visualization_msgs.msg import Marker

from ndp_ros.arms.kinematic_tree import Shape, quaternion_of
from ndp_ros.control.arm import Array

Colour = tuple[float, float, float, float]

PLANNED: Colour = (0.1, 0.6, 1.0, 1.0)
IGNORED: Colour = (0.6, 0.6, 0.6, 0.6)
EXECUTED: Colour = (1.0, 0.6, 0.1, 0.8)
_STATES: dict[str, Colour] = {
    Status.FOLLOWING: (0.1, 0.8, 0.2, 1.0),
    Status.BRAKING: (1.0, 0.7, 0.0, 1.0),
    Status.FAULT: (1.0, 0.1, 0.1, 1.0),
    Status.STOPPED: (1.0, 0.1, 0.1, 1.0),
}
_CALM: Colour = (0.8, 0.8, 0.8, 1.0)
_LINE_WIDTH = 0.008
_TEXT_HEIGHT = 0.06
_TEXT_AT = (0.0, 0.0, 1.3)
_KINDS = {"box": Marker.CUBE, "sphere": Marker.SPHERE, "cylinder": Marker.CYLINDER}


def point_of(place: Array) -> Point:
    """Return a place (3,) [m] as a point."""
    x, y, z = map(float, place)
    return Point(x=x, y=y, z=z)


def pose_of(placement: Array) -> Pose:
    """Return a placement (4, 4) as a pose."""
    pose = Pose()
    p, q = pose.position, pose.orientation
    p.x, p.y, p.z = map(float, placement[:3, 3])
    q.w, q.x, q.y, q.z = map(float, quaternion_of(placement))
    return pose


def shape_markers(
    name: str, shapes: Iterable[Shape], placement: Array, stamp: Time, frame: str
) -> list[Marker]:
    """Return a marker for each shape of an object with a placement (4, 4) in a frame."""
    found = []
    for number, shape in enumerate(shapes):
        marker = _marker(name, number, _KINDS[shape.kind], shape.rgba, stamp, frame)
        marker.pose = pose_of(placement @ shape.placement)
        size = marker.scale
        if shape.kind == "box":
            size.x, size.y, size.z = shape.size
        else:
            size.x = size.y = size.z = 2.0 * shape.size[0]
            if shape.kind == "cylinder":
                size.z = shape.size[1]
        found.append(marker)
    return found


def line(
    name: str, points: Sequence[Point], colour: Colour, stamp: Time, frame: str
) -> list[Marker]:
    """Return a line through points as a marker; none with fewer than two points."""
    if len(points) < 2:
        return []
    marker = _marker(name, 0, Marker.LINE_STRIP, colour, stamp, frame)
    marker.pose.orientation.w, marker.scale.x = 1.0, _LINE_WIDTH
    marker.points = list(points)
    return [marker]


def state_text(status: Status, stamp: Time, frame: str) -> Marker:
    """Return the state of arm and guard as a text above the arm."""
    colour = _STATES.get(status.state, _CALM)
    marker = _marker("state", 0, Marker.TEXT_VIEW_FACING, colour, stamp, frame)
    marker.pose.orientation.w, marker.scale.z = 1.0, _TEXT_HEIGHT
    p = marker.pose.position
    p.x, p.y, p.z = _TEXT_AT
    lines = status.state, status.reason, status.checkpoint
    marker.text = "\n".join(text for text in lines if text)
    return marker


def _marker(name: str, number: int, kind: int, rgba: Colour, stamp: Time, frame: str) -> Marker:
    marker = Marker(ns=name, id=number, type=kind, action=Marker.ADD)
    marker.header.stamp, marker.header.frame_id = stamp, frame
    c = marker.color
    c.r, c.g, c.b, c.a = map(float, rgba)
    return marker
