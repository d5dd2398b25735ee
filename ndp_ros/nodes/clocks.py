# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Keep periods and ages of the nodes on the monotonic clock, across steps of the system clock.

NTP or an operator may set the system clock at any time. Stamps of messages are system time all the
same, because other packages read them; a stamp is turned into an age here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter

from ndp_ros.nodes.messages import CLOCK_TOLERANCE

_STEP = 0.01
"""A change of system time minus monotonic time that counts as a step [s]; NTP slews slower."""
_MEMORY = 2.0
"""Time after a step for which stamps of the former clock are accepted [s]."""
_ATTEMPTS = 5
_APART = 0.5
"""Difference between stamps and arrivals that counts as a step of the stamps' clock [s]."""

SIM_TIME = "use_sim_time is read when the node is started: start it with the other value"


def steady_clock() -> Clock:
    """Return the clock for timers: it neither steps nor follows /clock."""
    return Clock(clock_type=ClockType.STEADY_TIME)


def on_sim_time(node: Node) -> bool:
    """Return whether a node was started with ``use_sim_time``."""
    return bool(node.get_parameter("use_sim_time").value)


def clock_of_stamps(node: Node) -> SystemClock | SimulatedClock:
    """Return the clock of the stamps that a node reads and writes."""
    if not on_sim_time(node):
        return SystemClock()
    return SimulatedClock(lambda: node.get_clock().now().nanoseconds * 1e-9)


def keep_time(node: Node, changes: list[Parameter[Any]]) -> SetParametersResult:
    """Refuse a change of ``use_sim_time``."""
    now = on_sim_time(node)
    if any(change.name == "use_sim_time" and change.value != now for change in changes):
        return SetParametersResult(successful=False, reason=SIM_TIME)
    return SetParametersResult(successful=True)


class SystemClock:
    """The difference between system time and monotonic time, and its recent values."""

    def __init__(self) -> None:
        """Start with the present difference between the two clocks."""
        self._offset = _measure()
        self._former: deque[tuple[float, float]] = deque()
        """Former differences, each with the monotonic time until which it held."""

    def offset(self) -> float:
        """Return system time minus CLOCK_MONOTONIC [s]; frequent calls detect steps."""
        now, offset = time.monotonic(), _measure()
        if abs(offset - self._offset) > _STEP:
            self._former.append((now, self._offset))
        self._offset = offset
        while self._former and now - self._former[0][0] > _MEMORY:
            self._former.popleft()
        return offset

    def age(self, stamp: float) -> float:
        """Return the age of a stamp of system time [s]; negative for one from the future.

        Right after a step, a stamp may be of the former clock. The smallest age by any recent clock
        that is not negative is the age.
        """
        offset, now = self.offset(), time.monotonic()
        age = now + offset - stamp
        ages = [age, *(now + former - stamp for _, former in self._former)]
        return min((a for a in ages if a >= -CLOCK_TOLERANCE), default=age)

    def monotonic(self, stamp: float) -> float:
        """Return a stamp on CLOCK_MONOTONIC [s]."""
        return time.monotonic() - self.age(stamp)

    def steady(self) -> float:
        """Return a time that passes as that of the stamps does, and never steps [s]."""
        return time.monotonic()

    def stamp(self, at: float) -> float:
        """Return the stamp of a time on CLOCK_MONOTONIC [s]."""
        return at + self.offset()


class SimulatedClock:
    """The clock of a simulation, which ``/clock`` carries: it may run slowly, or be paused."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Take a function that returns the simulated time [s]."""
        self.now = now

    def age(self, stamp: float) -> float:
        """Return the age of a stamp in simulated time [s]; negative for one from the future."""
        return self.now() - stamp

    def monotonic(self, stamp: float) -> float:
        """Return a stamp on CLOCK_MONOTONIC [s], as if the simulation ran in real time."""
        return time.monotonic() - self.age(stamp)

    def steady(self) -> float:
        """Return a time that passes as that of the stamps does [s]: the simulated time."""
        return self.now()

    def stamp(self, at: float) -> float:
        """Return the stamp of a recent time on CLOCK_MONOTONIC [s]."""
        return self.now() - (time.monotonic() - at)


class StampLine:
    """A time line along the stamps of one topic that does not step with their clock."""

    def __init__(self) -> None:
        self._line = 0.0
        self._last: tuple[float, float] | None = None

    def __call__(self, stamp: float) -> float:
        """Return the time of a message with a stamp [s], from an arbitrary start [s]."""
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
