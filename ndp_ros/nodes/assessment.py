# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Judge how the system is: the one source of the integrator node's status and diagnostics.

The node notes segments and rejections here. The cause comes before its symptoms, and what is wrong
now before what was.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass

from ndp_interfaces.msg import Status

from ndp_ros.nodes.diagnostics import ERROR, OK, WARN
from ndp_ros.nodes.messages import Parameters
from ndp_ros.nodes.source import Source
from ndp_ros.streaming.handle import StreamerHandle

_SILENCE = 1.5
"""Durations of a segment without a message after which the policy counts as silent."""
_RECENT = 2.0
"""Time for which a rejected segment is worth a warning [s]."""
_UNHEALTHY = {Status.BRAKING: WARN, Status.FAULT: ERROR, Status.STOPPED: ERROR}


@dataclass(frozen=True)
class Finding:
    """State of the arm, level of what is wrong, and its cause."""

    state: str
    level: bytes
    cause: str
    """A phrase that stays the same as long as the cause lasts."""
    detail: str = ""
    """Figures or consequences."""

    @property
    def reason(self) -> str:
        """Cause and detail in one line."""
        return f"{self.cause}: {self.detail}" if self.detail else self.cause

    @property
    def text(self) -> str:
        """State and cause in one line."""
        return f"{self.state}: {self.cause}" if self.cause else self.state


@dataclass(frozen=True)
class Rejection:
    """The last segment that was not accepted."""

    at: float = -math.inf
    """CLOCK_MONOTONIC [s]."""
    name: str = ""
    text: str = ""


class Assessment:
    """Record of segments and rejections of one activation, and the findings that follow from it.

    Attributes:
        source: The publisher that drives the arm.
        rejected: Number of segments that were rejected by the node, by reason.
        ignored: Number of acceptable segments that came while the arm did not follow.
        last: The last segment that was followed; None before the first.
    """

    def __init__(self) -> None:
        self.source = Source()
        self.rejected: Counter[str] = Counter()
        self.ignored = 0
        self.last: Parameters | None = None
        self._last_arrival = -math.inf
        self._rejection = Rejection()
        self._refused = 0
        """Segments refused by the loop's guard until now."""
        self._phase = ""
        self._ended = ""
        """Reason for which the last motion ended."""

    def accept(self, segment: Parameters, now: float, following: bool) -> bool:
        """Note a segment at a time [s, CLOCK_MONOTONIC]; return whether its publisher is new."""
        new = self.source.accept(segment, now)
        if new:
            self._rejection = Rejection()
        self._last_arrival = now
        if following:
            self.last = segment
        else:
            self.ignored += 1
        return new

    def reject(self, name: str, text: str) -> bool:
        """Note a segment that was not accepted; return whether the reason is a new one."""
        new = name != self._rejection.name
        self._rejection = Rejection(time.monotonic(), name, text.removeprefix(f"{name}: "))
        return new

    def refusal(self, stream: StreamerHandle) -> str:
        """Return why the guard has refused segments since the last call; empty if it has not."""
        refused, text = stream.refusals()
        if refused <= self._refused:
            return ""
        self._refused = refused
        return text

    def watch(self, stream: StreamerHandle) -> None:
        """Keep the end of the last motion: it holds until a segment is followed again."""
        phase = stream.mailbox.phase()
        if phase == Status.WAITING and phase != self._phase:
            moved = self._phase in (Status.FOLLOWING, Status.BRAKING, Status.STOPPED)
            self._ended = stream.explanation()[1] if moved else ""
        self._phase = phase

    def finding(self, stream: StreamerHandle, lost: str, starved: str, following: bool) -> Finding:
        """Return the state of a running system and the cause of what is wrong with it.

        ``lost`` and ``starved`` are phrases on such nodes, empty for none.
        """
        if problem := stream.problem:
            return Finding(Status.STOPPED, ERROR, _join(problem, lost))
        phase, now = stream.mailbox.phase(), time.monotonic()
        fault, reason = stream.explanation()
        if fault:
            return Finding(phase, max(level_of(phase, fault), WARN), _join(fault, lost))
        if dispute := self.source.dispute(now):
            return Finding(phase, ERROR, _join(dispute, lost))
        well = phase in (Status.FOLLOWING, Status.HOLDING)
        why = "" if well else self._ended if phase == Status.WAITING else reason
        if lost:
            return Finding(phase, ERROR, lost, why)
        rejection = self._rejection
        if now - rejection.at < _RECENT and (following or phase == Status.HOLDING):
            return Finding(phase, WARN, f"segments rejected: {rejection.name}", rejection.text)
        # Judged at the loop's last tick: while the loop hangs, the policy cannot see the arm.
        if following and self._is_silent(now - stream.mailbox.streamer_age()):
            return Finding(phase, WARN, starved or "policy silent", why)
        level = WARN if why and phase == Status.WAITING else level_of(phase, why)
        return Finding(phase, level, why)

    def _is_silent(self, now: float) -> bool:
        """Whether no segment has come for longer than one lasts."""
        duration = self.last.duration if self.last is not None else 1.0
        return now - self._last_arrival > _SILENCE * duration + 0.1


def level_of(state: str, reason: str) -> bytes:
    """Return the level of a state; braking without a reason follows a request and is well."""
    requested = state == Status.BRAKING and not reason
    level: bytes = OK if requested else _UNHEALTHY.get(state, OK)
    return level


def _join(cause: str, lost: str) -> str:
    return f"{cause}; {lost}" if lost else cause
