# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Let one publisher of DMP parameters drive the arm until it falls silent; refuse all others."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ndp_ros.errors import RejectedError
from ndp_ros.nodes.messages import Parameters

PATIENCE = 1.0
"""Silence after which another publisher may take over [s], or two segments if those last longer:
the arm is at rest by then."""
RECENT = 2.0
"""Time for which a refused publisher is reported [s]."""

SECOND, SEQUENCE = "second_policy", "sequence"
"""Reasons for rejecting a publisher's message."""


@dataclass
class Source:
    """The publisher that drives the arm, identified by its session.

    A respawned policy node is a new session and takes over when the old one is silent. The ROS
    graph does not help: the publisher of a killed process stays in it for another 20 s.
    """

    _driver: Parameters | None = None
    _last: float = -math.inf
    _rival: Parameters | None = None
    _rival_at: float = -math.inf

    def check(self, segment: Parameters, now: float) -> None:
        """Refuse a segment, now [s, CLOCK_MONOTONIC], that is not the driving publisher's next one.

        Raises:
            RejectedError: If another publisher drives the arm, or the number is not new.
        """
        driver = self._driver
        if driver is None or now - self._last > max(PATIENCE, 2.0 * driver.duration):
            return
        if segment.session != driver.session:
            self._rival, self._rival_at = segment, now
            raise RejectedError(
                SECOND,
                f"{_name(segment)} publishes while {_name(driver)} drives the arm: end one of them",
            )
        if segment.sequence <= driver.sequence:
            raise RejectedError(
                SEQUENCE,
                f"number {segment.sequence} came after number {driver.sequence}, expected a "
                "larger one",
            )

    def accept(self, segment: Parameters, now: float) -> bool:
        """Accept a checked segment; return whether its publisher has just taken over."""
        new = self._driver is not None and segment.session != self._driver.session
        self._driver, self._last = segment, now
        if self._rival is not None and self._rival.session == segment.session:
            self._rival = None
        return new

    def dispute(self, now: float) -> str:
        """Return one phrase on a second publisher; empty if there is none."""
        if self._driver is None or self._rival is None or now - self._rival_at > RECENT:
            return ""
        return (
            f"two policies publish: {_name(self._driver)} drives the arm, "
            f"{_name(self._rival)} is refused"
        )


def _name(segment: Parameters) -> str:
    """Return the name of a publisher for messages."""
    session = f"session {segment.session:x}" if segment.session else "without a session"
    return f"{segment.checkpoint[:60] or 'a policy without a checkpoint'} ({session})"
