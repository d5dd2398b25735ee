# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Requests to the emulated arm, its refusals, and the events that it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ndp_ros.arms.kortex.codes import ErrorCode, SubCode


class Refusal(Exception):  # noqa: N818
    """A request that the arm refuses, with the codes of its reason."""

    def __init__(self, sub_code: SubCode, text: str, code: ErrorCode = ErrorCode.DEVICE) -> None:
        super().__init__(text)
        self.sub_code = sub_code
        self.code = code


@dataclass
class CyclicCommand:
    """One BaseCyclic.Refresh, its numbers as lists (n,) in the units of the wire.

    For six numbers lists are faster than arrays, here and in everything that runs each millisecond.
    """

    frame: int
    position: list[float]
    velocity: list[float]
    torque: list[float]
    current: list[float]
    gripper: tuple[float, float, float] | None
    """Position, velocity and force [percent]."""


@dataclass
class Event:
    """An event for the subscribers of a topic."""

    topic: str
    fields: dict[str, Any] = field(default_factory=dict)


class Caller(Protocol):
    """A session on one connection."""

    session: int

    def subscribe(self, topic: str) -> int:
        """Add a subscription and return its handle."""

    def unsubscribe(self, handle: int) -> bool:
        """Remove a subscription; return whether there was one."""


Handler = Callable[[Caller, Any, int], Any]
"""Answers one procedure: caller, request, device → response."""
