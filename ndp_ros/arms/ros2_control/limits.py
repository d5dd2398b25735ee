# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Limits of joints in a robot description (URDF), which count where they are tighter."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace

from ndp_ros.control.arm import ArmInfo
from ndp_ros.errors import ArmError

_NAMES = {"velocity": "max_velocity", "effort": "max_torque"}
_RANGE = ("lower", "upper")
_ENDLESS = "continuous"


Limits = dict[str, list[tuple[int, float]]]
"""Fields of an arm's information, each with places of joints and their limits."""


def limits_of(description: str, joints: Sequence[str]) -> Limits:
    """Return the limits of joints, in this order, in a URDF; none of a text that is no XML.

    A limit that is missing, not finite or 0 is left out: many descriptions have such effort and
    velocity where nobody knows better.
    """
    found: Limits = {}
    try:
        root = ElementTree.fromstring(description)
    except ElementTree.ParseError:
        return found
    for joint in root.iter("joint"):
        limit = joint.find("limit")
        if limit is None or joint.get("name") not in joints:
            continue
        place = list(joints).index(str(joint.get("name")))
        for name in (*_RANGE, *_NAMES):
            value = _number(limit.get(name, ""))
            if name in _RANGE:
                useful = math.isfinite(value) and joint.get("type") != _ENDLESS
            else:
                useful = math.isfinite(value) and value > 0.0
            if useful:
                found.setdefault(_NAMES.get(name, name), []).append((place, value))
    return found


def tightened(info: ArmInfo, limits: Limits) -> ArmInfo:
    """Return an arm with the tighter of its own limits and those given.

    Raises:
        ArmError: If a joint would have no range left.
    """
    changed = {name: getattr(info, name).copy() for name in limits}
    for name, values in limits.items():
        for place, value in values:
            own = changed[name][place]
            changed[name][place] = max(own, value) if name == "lower" else min(own, value)
    tighter = replace(info, **changed)
    for joint, low, high in zip(info.joint_names, tighter.lower, tighter.upper, strict=True):
        if not low < high:
            raise ArmError(
                f"the robot description and config/arms leave {joint} no range ({low:g} to "
                f"{high:g} rad): correct one of them, or set robot_description to ''"
            )
    return tighter


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
