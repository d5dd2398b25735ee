"""Where everything lies in the memory between the integrator and its streamer.

The words and the sizes are fixed here for both sides; the integrator writes the layout
into the memory's header and the streamer reads it from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ndp_ros.errors import StreamError
from ndp_ros.streaming.clock import BINS

PHASES = ("starting", "holding", "waiting", "following", "braking", "fault", "stopped")
"""What the streamer is doing: the words of ``ndp_interfaces/Status``."""

REQUESTS = ("follow", "hold", "reset", "stop", "clear_fault", "quit")
"""What a parent can ask for; see :meth:`Mailbox.request`."""

SAFE_REQUESTS = ("hold", "stop", "quit")
"""Requests that are carried out however late: they end a motion and begin none."""

GUARD_NAMES = (
    "segment_not_finite", "segment_mismatch", "segment_late", "segment_impossible",
    "segment_stretched", "setpoint_not_finite", "position", "velocity", "acceleration",
    "continuity", "command_not_finite", "torque", "torque_rate", "following_error", "overspeed",
    "feedback_not_finite", "feedback_lost", "starved", "stalled", "parent_lost", "arm_error",
    "stop_requested", "reading_unconfirmed",
)  # fmt: skip
"""Every violation that the guard names and counts, in the order of ``status["guard"]``."""

RESPONSES = 2
ANSWERS = 32
"""Requests that may wait for an answer at once, and one."""
TEXT = 240
"""Bytes of a reason."""

HEADER = 4096
"""Bytes before the first slot: magic, layout, heartbeats."""


def room(size: int) -> int:
    """Return the bytes that a slot takes: its counter and its value, in whole cache lines."""
    return 64 + (size + 63) // 64 * 64


@dataclass(frozen=True)
class MailboxLayout:
    """Sizes that fix where everything lies; written into the memory's header."""

    dof: int
    """Joints of a setpoint, the gripper counted."""
    objects: tuple[str, ...] = ()
    """Names of the objects whose poses the streamer publishes."""
    max_basis: int = 32
    """Largest number of basis functions N of a segment."""
    max_rows: int = 4096
    """Most rows (ticks) of a response matrix: horizon and grace at the loop's rate."""
    samples: int = 2048
    """Capacity of the recording ring, in samples."""

    def __post_init__(self) -> None:
        """Check that every size is positive."""
        for name in ("dof", "max_basis", "max_rows", "samples"):
            if getattr(self, name) < 1:
                raise StreamError(f"mailbox: {name} is {getattr(self, name)}, expected 1 or more")

    @property
    def matrix_size(self) -> int:
        """Most numbers of a response matrix."""
        return 3 * self.max_rows * (3 + self.max_basis)

    @property
    def matrix_room(self) -> int:
        """Bytes of a response matrix and what is said of it."""
        return 64 + 8 * self.matrix_size

    @property
    def size(self) -> int:
        """Bytes of the whole memory."""
        slots = ("segment", "state", "status", "hello")
        size = HEADER + sum(room(self.types[name].itemsize) for name in slots)
        size += room(self.types["request"].itemsize * ANSWERS)
        size += room(self.types["sample"].itemsize * self.samples)
        return size + RESPONSES * room(self.matrix_room)

    @cached_property
    def types(self) -> dict[str, np.dtype[Any]]:
        """The structured type of every slot and ring."""
        dof, poses = (self.dof,), (max(len(self.objects), 1), 7)

        def vectors(names: Sequence[str]) -> list[Any]:
            return [(name, "f8", dof) for name in names]

        answer = np.dtype([("ticket", "u8"), ("refusal", f"S{TEXT}")])
        fields: dict[str, list[Any]] = {
            "segment": [
                ("stamp", "f8"), ("sequence", "u8"), ("slot", "i8"), ("generation", "i8"),
                ("n_basis", "i8"), ("g", "f8", dof), ("origin", "f8", dof),
                ("w", "f8", (self.dof, self.max_basis)),
            ],
            "state": [
                ("time", "f8"), ("arm_time", "f8"), ("ticks", "u8"), ("sequence", "u8"),
                ("phase", "i8"), *vectors(["position", "velocity", "effort", "y", "yd", "ydd"]),
                ("poses", "f8", poses),
            ],
            "status": [
                ("pid", "i8"), ("ticks", "u8"), ("missed", "u8"), ("worst", "f8"),
                ("costliest", "f8"), ("histogram", "u8", (BINS,)), ("costs", "u8", (BINS,)),
                ("guard", "u8", (len(GUARD_NAMES),)),
                ("accepted", "u8"), ("dropped", "u8"), ("refused", "u8"), ("stretched", "u8"),
                ("fault", f"S{TEXT}"), ("reason", f"S{TEXT}"), ("refusal", f"S{TEXT}"),
                ("answers", answer, (ANSWERS,)),
            ],
            "hello": [("size", "i8"), ("text", "u1", (16384,))],
            "request": [("ticket", "u8"), ("kind", "i8"), ("seed", "u8"), ("expires", "f8")],
            "sample": [
                ("time", "f8"), ("arm_time", "f8"), ("ticks", "u8"), ("sequence", "u8"),
                ("phase", "i8"),
                *vectors(["y", "yd", "ydd", "position", "velocity", "torque"]),
            ],
        }  # fmt: skip
        return {name: np.dtype(types) for name, types in fields.items()}
