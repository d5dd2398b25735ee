"""What the emulated arm is asked, what it refuses, and what it tells of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ndp_ros.arms.kortex.codes import ErrorCode, SubCode


class Refusal(Exception):  # noqa: N818
    """A request that the arm does not carry out, and the codes that say why."""

    def __init__(self, sub_code: SubCode, text: str, code: ErrorCode = ErrorCode.DEVICE) -> None:
        super().__init__(text)
        self.sub_code = sub_code
        self.code = code


@dataclass
class CyclicCommand:
    """One BaseCyclic.Refresh, its numbers as lists (n,) in the units of the wire.

    Lists, here and in what runs each millisecond: for six numbers they are faster
    than arrays.
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
    """Something that subscribers of a topic are told."""

    topic: str
    fields: dict[str, Any] = field(default_factory=dict)
