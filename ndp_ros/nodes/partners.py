"""Which nodes of this system have fallen silent: those who live name the dead.

A killed node cannot report its own end. Every node of this package reports on
/diagnostics twice a second, and listens there to the others of its namespace.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

SILENCE = 2.0
"""Silence of an active node after which it counts as lost [s]; it reports every 0.5 s."""
_HELD_UP = 0.25
"""A pause of this node itself that is added to what it grants the others [s]."""

PACKAGE = KeyValue(key="package", value="ndp_ros")
"""What marks a diagnostic status as one of a node of this package."""


@dataclass
class _Partner:
    name: str
    heard: float
    expected: bool


class Partners:
    """The other nodes of this package in one namespace, as far as they have reported."""

    def __init__(self, node: Node) -> None:
        """Listen to /diagnostics on behalf of a node."""
        self._own = node.get_fully_qualified_name().lstrip("/")
        self._namespace = self._own.rpartition("/")[0]
        self._partners: dict[str, _Partner] = {}
        self._looked = time.monotonic()
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def lost(self) -> str:
        """Return in one phrase who has fallen silent while active; empty if nobody has."""
        now = time.monotonic()
        if (pause := now - self._looked) > _HELD_UP:
            # Their reports may wait in the queue of a node that was held up itself.
            for partner in self._partners.values():
                partner.heard += pause
        self._looked = now
        names = sorted(
            p.name for p in self._partners.values() if p.expected and now - p.heard > SILENCE
        )
        if not names:
            return ""
        verb = "has" if len(names) == 1 else "have"
        return f"{' and '.join(names)} {verb} fallen silent (killed, hanging or cut off)"

    def forget(self) -> None:
        """Expect nobody until they report again."""
        self._partners.clear()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._own or status.name.rpartition("/")[0] != self._namespace:
                continue
            if PACKAGE in status.values:
                self._partners[status.name] = _Partner(
                    status.name, time.monotonic(), _value(status, "state") == "active"
                )


def _value(status: DiagnosticStatus, key: str) -> str:
    return next((pair.value for pair in status.values if pair.key == key), "")
