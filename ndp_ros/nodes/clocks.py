"""Time in the nodes: every period and every age is kept on the monotonic clock.

The system clock can step: NTP sets it, an operator does, a machine comes up with a wrong
one. Stamps of messages are system time all the same, because others read them. What is
here turns a stamp into an age that survives such a step.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter

from ndp_ros.errors import ConfigError
from ndp_ros.nodes.messages import CLOCK_TOLERANCE

_STEP = 0.01
"""A change of system time minus monotonic time that counts as a step [s]; NTP slews slower."""
_MEMORY = 2.0
"""How long stamps of the clock before a step are still understood [s]."""
_ATTEMPTS = 5
_APART = 0.5
"""Difference between stamps and arrivals from which on the stamps' clock has stepped [s]."""

SIM_TIME = (
    "use_sim_time is true, and this package keeps time by the monotonic clock: its simulated arm "
    "publishes no /clock, and a real arm has none; start the node without use_sim_time"
)


def steady_clock() -> Clock:
    """Return the clock for timers: it neither steps nor follows /clock."""
    return Clock(clock_type=ClockType.STEADY_TIME)


def refuse_sim_time(node: Node) -> None:
    """Refuse a node that was started with ``use_sim_time``.

    Raises:
        ConfigError: If it was.
    """
    if node.get_parameter("use_sim_time").value:
        raise ConfigError(f"{node.get_name()}: {SIM_TIME}")


def keep_system_time(changes: list[Parameter[Any]]) -> SetParametersResult:
    """Refuse to switch ``use_sim_time`` on; a callback for changes of parameters."""
    if any(change.name == "use_sim_time" and change.value for change in changes):
        return SetParametersResult(successful=False, reason=SIM_TIME)
    return SetParametersResult(successful=True)


class SystemClock:
    """System time as seen from the monotonic clock, across steps of the system clock."""

    def __init__(self) -> None:
        """Start with the present difference between the two clocks."""
        self._offset = _measure()
        self._former: deque[tuple[float, float]] = deque()
        """Differences that no longer hold, each with the monotonic time at which it ended."""

    def offset(self) -> float:
        """Return system time minus CLOCK_MONOTONIC [s]; call it often, so that steps are seen."""
        now, offset = time.monotonic(), _measure()
        if abs(offset - self._offset) > _STEP:
            self._former.append((now, self._offset))
        self._offset = offset
        while self._former and now - self._former[0][0] > _MEMORY:
            self._former.popleft()
        return offset

    def age(self, stamp: float) -> float:
        """Return how old a stamp is [s]; negative for one from the future.

        Right after a step a stamp may have been made before it. Of the ages by either clock
        the smallest that is not negative holds.

        Args:
            stamp: System time [s].
        """
        offset, now = self.offset(), time.monotonic()
        age = now + offset - stamp
        ages = [age, *(now + former - stamp for _, former in self._former)]
        return min((a for a in ages if a >= -CLOCK_TOLERANCE), default=age)

    def monotonic(self, stamp: float) -> float:
        """Return a stamp on CLOCK_MONOTONIC [s]."""
        return time.monotonic() - self.age(stamp)


class StampLine:
    """A time line along the stamps of one topic that goes on evenly when their clock steps."""

    def __init__(self) -> None:
        """Start at the first stamp that comes."""
        self._line = 0.0
        self._last: tuple[float, float] | None = None

    def __call__(self, stamp: float) -> float:
        """Return the time of a message [s], from an arbitrary start.

        Args:
            stamp: Its stamp [s].
        """
        arrival = time.monotonic()
        if self._last is not None:
            by_stamp, by_arrival = stamp - self._last[0], arrival - self._last[1]
            stepped = abs(by_stamp - by_arrival) > _APART
            self._line += by_arrival if stepped else by_stamp
        self._last = stamp, arrival
        return self._line


def _measure() -> float:
    """Return system time minus monotonic time [s], undisturbed by a pause between the two."""
    best, found = float("inf"), 0.0
    for _ in range(_ATTEMPTS):
        before = time.monotonic()
        system = time.time()
        after = time.monotonic()
        if after - before < best:
            best, found = after - before, system - 0.5 * (before + after)
        if best < 1e-4:
            break
    return found
