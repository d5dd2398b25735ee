# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Call the integrator node's services and follow what it reports.

The episode node conducts the system through this client; every wait has an end and names what did
not come.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from diagnostic_msgs.msg import DiagnosticArray
from ndp_interfaces.msg import Status
from ndp_interfaces.srv import Reset
from rclpy.executors import Executor
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from ndp_ros.errors import StreamError
from ndp_ros.nodes import qos
from ndp_ros.nodes.clocks import clock_of_stamps
from ndp_ros.nodes.messages import seconds

START_TIMEOUT = 90.0
"""Time that the parts of a system may take to start [s]."""
ANSWER_TIMEOUT = 60.0
"""Time that an answer may take [s]: long, because a busy machine simulates slowly."""
_RETRY_AFTER = 3.0
"""Time after which a service is called again [s]."""


class Wait(Protocol):
    """A function that spins until a condition holds, and raises StreamError if it never does."""

    def __call__(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Spin until ``condition`` holds, at most ``timeout`` [s] for ``what``."""


class IntegratorClient:
    """The integrator node: its services, its status and the figures of its diagnostics.

    Attributes:
        status: The last status; None before the first.
        follows_at: When the arm has begun to follow since :meth:`expect_following`
            [s, CLOCK_MONOTONIC]; infinite until then.
        figures_at: When the last figures were published [s, CLOCK_MONOTONIC].
    """

    def __init__(self, node: Node, name: str, wait: Wait) -> None:
        self._wait, self._clock = wait, clock_of_stamps(node)
        self._full_name = node.resolve_service_name(name)
        self.status: Status | None = None
        self.follows_at = math.inf
        self.figures_at = -math.inf
        self._figures: dict[str, str] = {}
        self._clients: dict[str, Any] = {
            service: node.create_client(kind, f"{name}/{service}")
            for kind, service in ((SetBool, "follow"), (Reset, "reset"), (Trigger, "clear_fault"))
        }
        node.create_subscription(Status, "ndp/status", self._on_status, qos.LATCHED)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    @property
    def state(self) -> str:
        """State of the arm, such as ``Status.HOLDING``; empty before the first status."""
        return self.status.state if self.status is not None else ""

    def call(self, service: str, request: Any) -> None:
        """Call a service: ``follow``, ``reset`` or ``clear_fault``.

        Raises:
            StreamError: If it does not answer, or refuses.
        """
        client = self._clients[service]
        self._wait(client.service_is_ready, START_TIMEOUT, f"the service ~/{service}")
        calls: list[Any] = []
        called = -math.inf

        def answered() -> bool:
            # A server that has not discovered its client yet answers into the void, which a busy
            # machine makes likely; calling twice does no harm here. An answer to an earlier call
            # counts as well: it may have queued behind seconds of states.
            nonlocal called
            if time.monotonic() - called > _RETRY_AFTER:
                called = time.monotonic()
                calls.append(client.call_async(request))
            return any(call.done() for call in calls)

        self._wait(answered, ANSWER_TIMEOUT, f"an answer from ~/{service}")
        for call in calls:
            if not call.done():
                client.remove_pending_request(call)
        response: Any = next(call.result() for call in calls if call.done())
        if not response.success:
            raise StreamError(f"~/{service} refused: {response.message}")

    def follow(self, on: bool) -> None:
        """Let the arm follow segments, or hold.

        Raises:
            StreamError: If the service does not answer, or refuses.
        """
        self.call("follow", SetBool.Request(data=on))

    def hold_soon(self, executor: Executor) -> None:
        """Ask the arm to hold and wait a second at most."""
        client = self._clients["follow"]
        if client.service_is_ready():
            future = client.call_async(SetBool.Request(data=False))
            executor.spin_until_future_complete(future, timeout_sec=1.0)

    def expect_following(self) -> None:
        """Take note of the next time at which the arm begins to follow."""
        self.follows_at = math.inf

    def figure(self, name: str) -> float:
        """Return a figure of the integrator's diagnostics, NaN if it has none."""
        return float(self._figures.get(name, "nan"))

    def text(self, name: str) -> str:
        """Return a text of the integrator's diagnostics, empty if it has none."""
        return self._figures.get(name, "")

    def guard_counts(self) -> dict[str, int]:
        """Return how often the guard has seen each kind of violation."""
        return {
            name.removeprefix("guard_"): int(value)
            for name, value in self._figures.items()
            if name.startswith("guard_")
        }

    def _on_status(self, message: Status) -> None:
        if message.state == Status.FOLLOWING and not math.isfinite(self.follows_at):
            self.follows_at = self._clock.monotonic(seconds(message.header.stamp))
        self.status = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if f"/{status.name}" == self._full_name:
                self._figures = {pair.key: pair.value for pair in status.values}
                self.figures_at = self._clock.monotonic(seconds(message.header.stamp))
