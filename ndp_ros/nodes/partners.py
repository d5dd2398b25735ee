# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Watch the other nodes of the system and name those that no longer report.

A killed node cannot report its own end. Every node of this package publishes to /diagnostics twice
a second and listens there to the other nodes of its namespace. On the same machine the state of
their processes tells a node that has died from one that hangs or waits for a processor.
"""

from __future__ import annotations

import math
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

SILENCE = 2.0
"""Time without a report after which an active node counts as lost [s]; reports come every 0.5 s."""
_HELD_UP = 0.25
"""Pause of this node itself that is added to the time granted to the others [s]."""
_LOOK_AGAIN = 0.1
"""Time after which the process of a silent node is looked at again [s]. Nodes ask at their rate of
publication, and to look costs the processor time that a starved node waits for."""

PACKAGE = KeyValue(key="package", value="ndp_ros")
"""Marks a diagnostic status as one of a node of this package."""


@dataclass
class _Partner:
    heard: float
    """Time of the last report [s, CLOCK_MONOTONIC]."""
    expected: bool
    """Whether the node was active and will report again."""
    pid: int = 0
    """Its process; 0 on another machine or in another container."""
    looks: int = 0
    """How often its process was looked at since the last report."""
    runnable: int = 0
    """How often it ran, or waited for a processor, when it was looked at."""
    looked: float = -math.inf
    """Time of the last look [s, CLOCK_MONOTONIC]."""
    found: tuple[str, bool] = ("", False)
    """A phrase for what was found by it, and whether it only waits its turn."""


class Partners:
    """The other nodes of this package in one namespace, as far as they have reported."""

    def __init__(self, node: Node) -> None:
        """Listen to /diagnostics."""
        self._own = node.get_fully_qualified_name().lstrip("/")
        self._namespace = self._own.rpartition("/")[0]
        self._partners: dict[str, _Partner] = {}
        self._looked = time.monotonic()
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def lost(self) -> str:
        """Return one phrase that names the active nodes that died or hang; empty for none."""
        return "; ".join(phrase for phrase, starved in self._silent() if not starved)

    def starved(self) -> str:
        """Return one phrase that names the active nodes without processor time; empty for none."""
        return "; ".join(phrase for phrase, starved in self._silent() if starved)

    def forget(self) -> None:
        """Expect no report of any node until it reports again."""
        self._partners.clear()

    def _silent(self) -> list[tuple[str, bool]]:
        """Return for each silent node what has become of it, and whether it only waits its turn."""
        now = time.monotonic()
        if (pause := now - self._looked) > _HELD_UP:
            # Their reports may still wait in the queue of this node, which was held up itself.
            for partner in self._partners.values():
                partner.heard += pause
        self._looked = now
        silent = []
        for name, partner in sorted(self._partners.items()):
            if partner.expected and now - partner.heard > SILENCE:
                if now - partner.looked >= _LOOK_AGAIN:
                    partner.looked, partner.found = now, _diagnose(name, partner)
                silent.append(partner.found)
        return silent

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._own or status.name.rpartition("/")[0] != self._namespace:
                continue
            if PACKAGE in status.values:
                here = _value(status, "host") == host()
                self._partners[status.name] = _Partner(
                    heard=time.monotonic(),
                    expected=_value(status, "state") == "active"
                    and _value(status, "needed") != "False",
                    pid=int(_value(status, "pid") or 0) if here else 0,
                )


def host() -> str:
    """Return a name for this machine, or this container, in which process numbers are unique."""
    return f"{socket.gethostname()} {Path('/proc/self/ns/pid').stat().st_ino}"


def _diagnose(name: str, partner: _Partner) -> tuple[str, bool]:
    if not partner.pid:
        return f"{name} has fallen silent (killed, hanging or cut off)", False
    states = thread_states(partner.pid)
    if set(states) <= {"Z"}:
        return f"{name} has died (process {partner.pid})", False
    if states[0] in "Tt":
        return f"{name} is stopped (process {partner.pid})", False
    partner.looks += 1
    partner.runnable += "R" in states
    if 2 * partner.runnable > partner.looks:
        return f"{name} is too busy to report, or waits for a processor", True
    return f"{name} hangs (process {partner.pid})", False


def thread_states(pid: int) -> str:
    """Return the state letters of a process and of each of its threads, as ``ps`` shows them.

    Returns:
        Letters such as ``SSR``; empty if there is no such process.
    """
    states = ""
    process = Path(f"/proc/{pid}")
    for stat in (process / "stat", *process.glob("task/*/stat")):
        try:
            states += stat.read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue  # the thread has just ended
    return states


def _value(status: DiagnosticStatus, key: str) -> str:
    return next((pair.value for pair in status.values if pair.key == key), "")
