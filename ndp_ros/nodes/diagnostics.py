# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Describe the health of a node as a status on /diagnostics.

Each node publishes one status every half second, and at once when its level or message changes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from ndp_ros.nodes.partners import PACKAGE, host

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

DIAGNOSTICS_PERIOD = 0.5
"""Time between two reports without news [s]."""


@dataclass(frozen=True)
class Health:
    """Level, message and figures that a node publishes about itself."""

    level: bytes
    message: str
    values: Mapping[str, object] = field(default_factory=dict)


def to_message(
    node: Node, state: str, health: Health, hardware_id: str = "", *, needed: bool = True
) -> DiagnosticArray:
    """Return the message that a node publishes on /diagnostics.

    The other nodes expect further reports of a node whose ``state`` is active, and report its
    silence if it is ``needed``. ``hardware_id`` names the arm that the report is about.
    """
    values = {**health.values, "state": state, "pid": os.getpid(), "host": host()}
    values |= {} if needed else {"needed": False}
    status = DiagnosticStatus(
        level=health.level,
        name=node.get_fully_qualified_name().lstrip("/"),
        message=health.message,
        hardware_id=hardware_id,
        values=[PACKAGE, *(KeyValue(key=k, value=_text(v)) for k, v in values.items())],
    )
    message = DiagnosticArray(status=[status])
    message.header.stamp = node.get_clock().now().to_msg()
    return message


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
