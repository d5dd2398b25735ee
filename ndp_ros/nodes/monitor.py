# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Gather what running systems report, for the live view of ``ndp top``."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from ndp_interfaces.msg import DmpParameters, Status
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from ndp_ros.nodes import qos
from ndp_ros.nodes.observer import JOINT_STATES, SETPOINT
from ndp_ros.nodes.partners import PACKAGE
from ndp_ros.nodes.process import make_executor, ros

_STATUS = "ndp/status"
_WINDOW = 2.0
"""Time over which rates are measured [s]."""
_FORGET = 10.0
"""Silence after which a node is no longer listed [s]."""
_TOPICS: dict[str, Any] = {
    JOINT_STATES: JointState,
    SETPOINT: JointTrajectory,
    "ndp/dmp_parameters": DmpParameters,
}


@dataclass
class Report:
    """The newest health of a node."""

    level: int
    message: str
    values: dict[str, str]
    heard: float
    """CLOCK_MONOTONIC [s]."""


@dataclass
class System:
    """The reports received so far from one namespace."""

    namespace: str
    status: Status | None = None
    arrivals: dict[str, deque[float]] = field(
        default_factory=lambda: {topic: deque(maxlen=5000) for topic in _TOPICS}
    )
    """Arrivals of messages by topic [s, CLOCK_MONOTONIC]."""
    nodes: dict[str, Report] = field(default_factory=dict)
    """Reports of its nodes, by name without the namespace."""

    @property
    def reported(self) -> bool:
        """Whether status and integrator node have been heard."""
        return self.status is not None and "integrator_node" in self.nodes

    def rate(self, topic: str) -> float:
        """Return messages per second in the last two seconds [Hz]."""
        now, times = time.monotonic(), self.arrivals[topic]
        while times and now - times[0] > _WINDOW:
            times.popleft()
        return len(times) / _WINDOW

    def figure(self, name: str) -> str:
        """Return a figure of the integrator node, empty if it reports none."""
        report = self.nodes.get("integrator_node")
        return report.values.get(name, "") if report is not None else ""

    def guard(self) -> dict[str, int]:
        """Return the violations that the guard has counted, without those that never happened."""
        report = self.nodes.get("integrator_node")
        values = report.values if report is not None else {}
        counts = {k.removeprefix("guard_"): int(v) for k, v in values.items() if "guard_" in k}
        return {name: count for name, count in counts.items() if count}


class Monitor(Node):
    """A node that listens to every system of the ROS domain."""

    def __init__(self) -> None:
        super().__init__(f"ndp_top_{time.monotonic_ns()}", enable_rosout=False)
        self.systems: dict[str, System] = {}
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)

    def look(self) -> None:
        """Listen to systems that have appeared."""
        for topic, _ in self.get_topic_names_and_types():
            space = topic.removesuffix(f"/{_STATUS}")
            if space != topic and space not in self.systems:
                self._listen(space)

    def _listen(self, space: str) -> None:
        system = self.systems[space] = System(space)

        def on_status(message: Status) -> None:
            system.status = message

        def on_message(topic: str, _: bytes) -> None:
            system.arrivals[topic].append(time.monotonic())

        self.create_subscription(Status, f"{space}/{_STATUS}", on_status, qos.LATCHED)
        for topic, kind in _TOPICS.items():
            callback = partial(on_message, topic)
            name = f"{space}/{topic}"
            self.create_subscription(kind, name, callback, qos.RECORD, raw=True)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            space, _, name = f"/{status.name}".rpartition("/")
            if PACKAGE not in status.values or space not in self.systems:
                continue
            values = {pair.key: pair.value for pair in status.values}
            report = Report(status.level[0], status.message, values, time.monotonic())
            nodes = self.systems[space].nodes
            nodes[name] = report
            for other, old in list(nodes.items()):
                if report.heard - old.heard > _FORGET:
                    del nodes[other]


def watch(period: float) -> Iterator[list[System]]:
    """Yield the systems of this ROS domain once per period [s], until SIGINT or SIGTERM."""
    with ros(["--ros-args", "--log-level", "error"]) as signals:
        node, executor = Monitor(), make_executor()
        executor.add_node(node)
        try:
            while rclpy.ok() and not signals.received:
                node.look()
                end = time.monotonic() + period
                while (left := end - time.monotonic()) > 0.0 and not signals.received:
                    executor.spin_once(timeout_sec=min(left, 0.1))
                yield [node.systems[space] for space in sorted(node.systems)]
        finally:
            executor.shutdown()
            node.destroy_node()
