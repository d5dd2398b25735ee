# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Layout of the memory between the integrator and its streamer: words, types, sizes, offsets.

The integrator writes the layout into the memory's header, and the streamer reads it from there,
so that both sides agree on every byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ndp_ros.errors import StreamError
from ndp_ros.streaming.clock import BINS
from ndp_ros.streaming.config import TUNABLE
from ndp_ros.streaming.slots import SAMPLES

PHASES = ("starting", "holding", "waiting", "following", "braking", "fault", "stopped")
"""Phases of the streamer, in the words of ``ndp_interfaces/Status``."""

REQUESTS = (
    "follow",
    "hold",
    "reset",
    "stop",
    "clear_fault",
    "quit",
    "pause",
    "resume",
    "step",
    "tune",
)
"""Requests of a parent; :meth:`RequestQueue.ask` explains each."""

SAFE_REQUESTS = ("hold", "stop", "quit", "tune")
"""Requests that are carried out however late, because they begin no motion."""

GUARD_NAMES = (
    "segment_not_finite",
    "segment_mismatch",
    "segment_late",
    "segment_impossible",
    "segment_stretched",
    "setpoint_not_finite",
    "position",
    "velocity",
    "acceleration",
    "continuity",
    "command_not_finite",
    "torque",
    "torque_rate",
    "following_error",
    "overspeed",
    "feedback_not_finite",
    "feedback_lost",
    "starved",
    "stalled",
    "parent_lost",
    "arm_error",
    "stop_requested",
    "reading_unconfirmed",
)
"""Every violation that the guard names and counts, in the order of ``status["guard"]``."""

RESPONSES = 3
"""Response matrices in the memory, written in turn: the one in use and two successors."""
ANSWERS = 32
"""Answers that the memory holds; one fewer request may wait at once."""
TEXT = 240
"""Longest reason [bytes]."""

HEADER = 4096
"""Size of the header [bytes]: magic, layout, heartbeats."""


@dataclass(frozen=True)
class MailboxLayout:
    """Sizes from which the offset of every part of the memory follows."""

    dof: int
    """Number of joints, the gripper included."""
    objects: tuple[str, ...] = ()
    """Names of the objects whose poses the streamer publishes."""
    signals: int = 0
    """Number of further values of a simulated arm that it publishes."""
    max_basis: int = 32
    """Largest number of basis functions N of a segment."""
    max_rows: int = 4096
    """Largest number of rows (ticks) of a response matrix: horizon and grace at the loop's rate."""
    samples: int = 2048
    """Capacity of the recording ring, in samples."""

    def __post_init__(self) -> None:
        """Check that every size is positive."""
        for name in ("dof", "max_basis", "max_rows", "samples"):
            if getattr(self, name) < 1:
                raise StreamError(f"mailbox: {name} is {getattr(self, name)}, expected 1 or more")

    @property
    def matrix_size(self) -> int:
        """Largest number of entries of a response matrix and its samples."""
        return 3 * (self.max_rows + SAMPLES) * (3 + self.max_basis)

    @cached_property
    def offsets(self) -> dict[str, int]:
        """First byte of every part by name, and the size of the whole memory as ``end``."""
        slots = ("segment", "state", "status", "handshake")
        sizes = {name: self.types[name].itemsize for name in slots}
        sizes["request"] = self.types["request"].itemsize * ANSWERS
        sizes["sample"] = self.types["sample"].itemsize * self.samples
        sizes |= {f"response_{i}": 64 + 8 * self.matrix_size for i in range(RESPONSES)}
        offsets, end = {}, HEADER
        for name, size in sizes.items():
            offsets[name] = end
            end += 64 + (size + 63) // 64 * 64  # a counter and the value, in whole cache lines
        return {**offsets, "end": end}

    @cached_property
    def types(self) -> dict[str, np.dtype[Any]]:
        """The structured type of every slot and ring."""
        dof, poses = (self.dof,), (max(len(self.objects), 1), 7)
        tick = [*_each("f8", "time arm_time"), *_each("u8", "ticks sequence"), ("phase", "i8")]
        answer = np.dtype([("ticket", "u8"), ("refusal", f"S{TEXT}")])
        fields: dict[str, list[Any]] = {
            "segment": [
                *_each("f8", "stamp"),
                *_each("i8", "sequence slot generation n_basis scaled"),
                *_each("f8", "g origin", dof),
                ("w", "f8", (self.dof, self.max_basis)),
            ],
            "state": [
                *tick,
                *_each("f8", "position velocity effort y yd ydd", dof),
                ("poses", "f8", poses),
                ("signals", "f8", (max(self.signals, 1),)),
            ],
            "status": [
                *_each("u8", "pid ticks missed accepted dropped refused stretched"),
                *_each("f8", "worst costliest"),
                *_each("u8", "histogram costs", (BINS,)),
                ("guard", "u8", (len(GUARD_NAMES),)),
                *_each(f"S{TEXT}", "fault reason refusal"),
                ("answers", answer, (ANSWERS,)),
            ],
            "handshake": [("size", "i8"), ("text", "u1", (16384,))],
            "request": [
                *_each("u8", "ticket seed"),
                ("kind", "i8"),
                ("expires", "f8"),
                ("values", "f8", (len(TUNABLE),)),
            ],
            "sample": [*tick, *_each("f8", "y yd ydd position velocity torque", dof)],
        }
        return {name: np.dtype(types) for name, types in fields.items()}


def _each(kind: str, names: str, shape: tuple[int, ...] = ()) -> list[Any]:
    """Return fields of one type and shape."""
    return [(name, kind, shape) for name in names.split()]


def encode(text: str) -> bytes:
    """Return a text as it fits a slot, cut after a whole word."""
    whole = text.encode()
    if len(whole) <= TEXT:
        return whole
    cut = whole[: TEXT - 4].decode(errors="ignore").rpartition(" ")[0]
    return (cut or text[: TEXT // 4 - 1]).encode() + " …".encode()


def decode(field: Any) -> str:
    """Return the text in a field of a slot."""
    return bytes(np.asarray(field).item()).decode(errors="replace")
