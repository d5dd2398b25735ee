# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Cyclic feedback: read the measured values of an answer to BaseCyclic.Refresh in place.

An arm's answers have the same layout cycle after cycle: the same fields, each value of a known
type at a known offset. :class:`FeedbackReader` learns this layout from an answer that protobuf has
parsed. It reads a later one in place only if every byte that is no measured value is the same:
tags, lengths, variable-length numbers, frame type and error code, and fault banks, which are zero
in an answer to learn from. Everything else is left to protobuf. Both arrive at the same bits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.kortex.errors import ProtocolError
from ndp_ros.arms.kortex.schema import MESSAGES
from ndp_ros.arms.kortex.wire import fast_header, fast_payload

Path = tuple[str | int, ...]

LONGEST = 8192
"""Size limit of an answer over UDP [bytes]."""
_FEEDBACK = MESSAGES["Feedback"].DESCRIPTOR
_VALUES = ("position", "velocity", "torque")
_FAULTS = "fault_bank"
"""Beginning of the names of the fields that hold faults, in every message."""
_FIXED, _VARINT, _MESSAGE = 5, 0, 2
"""Wire types of four-byte values, variable-length numbers and messages."""
_NUMBER_AT = 8
"""Offset of the word with the request's number in a frame with a complete header [bytes]."""
_MOTOR: Path = ("interconnect", 0, "gripper_feedback", 0, "motor", 0)
_INTERVAL = 100
"""Answers without a known layout per layout learned: learning one costs more than parsing."""
_MOST = 16
"""Layouts that are kept: a value that is exactly zero is left out and makes another."""


class Measured(NamedTuple):
    """The values of a fault-free feedback message that the loop uses, in the units of Kortex."""

    word: int
    """Session and number of the request that it answers; 0 if unknown."""
    frame: int
    """Number of the cycle that the arm states."""
    position: Sequence[float]
    """Positions of the n actuators [deg]."""
    velocity: Sequence[float]
    """Velocities [deg/s]."""
    torque: Sequence[float]
    """Torques [N m], against the direction in which torque is commanded."""
    gripper: float
    """Position of the gripper [percent]; NaN without one."""

    @classmethod
    def of(cls, feedback: Any, word: int = 0) -> Measured:
        """Take the values from a feedback message of protobuf."""
        actuators = feedback.actuators
        motors = feedback.interconnect.gripper_feedback.motor
        return cls(
            word,
            feedback.frame_id,
            tuple([actuator.position for actuator in actuators]),
            tuple([actuator.velocity for actuator in actuators]),
            tuple([actuator.torque for actuator in actuators]),
            motors[0].position if len(motors) else math.nan,
        )


class FeedbackReader:
    """Reads answers of n actuators in place where their layout is known.

    Attributes:
        buffer: Where answers are received, of ``LONGEST`` bytes.
    """

    def __init__(self, n_actuators: int, buffer: bytearray | None = None) -> None:
        """Prepare to read answers of so many actuators, received in a buffer."""
        self.buffer = bytearray(LONGEST) if buffer is None else buffer
        self._bytes = np.frombuffer(self.buffer, np.uint8)
        self._n = n_actuators
        self._layouts: dict[int, _Layout] = {}
        self._until_next = 0
        """Answers to be left to protobuf before the next layout is learned."""

    def read(self, size: int) -> Measured | None:
        """Read an answer of a size [bytes] in the buffer; None if protobuf must decide on it."""
        layout = self._layouts.get(size)
        if layout is None:
            return None
        answer, mask, masked, fixed, head, position, velocity, torque = layout
        np.bitwise_and(answer, mask, masked)
        if masked.tobytes() != fixed:
            return None
        buffer = self.buffer
        word, frame, gripper = head(buffer)
        return Measured(word, frame, position(buffer), velocity(buffer), torque(buffer), gripper)

    def learn(self, size: int, feedback: Any) -> bool:
        """Learn the layout of the answer in the buffer; return whether it can be read in place.

        Its payload as protobuf has parsed it is the reference.
        """
        if self._until_next > 0:
            self._until_next -= 1
            return False
        self._until_next = _INTERVAL
        datagram = bytes(self._bytes[:size])
        words = fast_header(datagram)
        if words is None or len(feedback.actuators) != self._n:
            return False
        try:
            layout = _layout(datagram, self._bytes[:size], self._n)
        except (_UnusualError, ProtocolError, IndexError):
            return False
        if len(self._layouts) >= _MOST:
            self._layouts.clear()
        self._layouts[size] = layout
        read = self.read(size)
        if read is None or not _same(read, Measured.of(feedback, words[1])):
            del self._layouts[size]
            return False
        return True


_Read = Callable[[bytearray], tuple[Any, ...]]


class _Layout(NamedTuple):
    """Where the values of an answer are, and what all other bytes must be."""

    answer: NDArray[np.uint8]
    """The answer in the buffer (size,)."""
    mask: NDArray[np.uint8]
    """Ones over the bytes that must not change (size,)."""
    masked: NDArray[np.uint8]
    """Work space (size,)."""
    fixed: bytes
    """Those bytes, and zeros between them."""
    head: _Read
    """Returns word, frame and position of the gripper."""
    position: _Read
    velocity: _Read
    torque: _Read


class _UnusualError(Exception):
    """An answer that is not laid out as an encoder would, or carries a fault."""


def _layout(datagram: bytes, place: NDArray[np.uint8], n: int) -> _Layout:
    """Return the layout of an answer, with a complete header, of n actuators.

    Raises:
        _UnusualError: If it has none that may be relied on.
    """
    mask, offsets = np.full(len(datagram), 0xFF, np.uint8), dict[Path, int]()
    mask[_NUMBER_AT : _NUMBER_AT + 4] = 0
    start = len(datagram) - len(fast_payload(datagram))
    for path, at in _fixed_fields(datagram, start, len(datagram), _FEEDBACK, ()):
        if not str(path[-1]).startswith(_FAULTS):
            mask[at : at + 4] = 0
            offsets[path] = at
        elif any(datagram[at : at + 4]):
            raise _UnusualError("a fault")
    motor = any(path[: len(_MOTOR)] == _MOTOR for path in offsets)
    head: list[tuple[int | None, str, float]] = [
        (_NUMBER_AT, "I", 0),
        (offsets.get(("frame_id",)), "I", 0),
        (offsets.get((*_MOTOR, "position")), "f", 0.0 if motor else math.nan),
    ]
    columns = [
        _values([(offsets.get(("actuators", i, value)), "f", 0.0) for i in range(n)])
        for value in _VALUES
    ]
    fixed = (np.frombuffer(datagram, np.uint8) & mask).tobytes()
    return _Layout(place, mask, np.empty_like(mask), fixed, _values(head), *columns)


def _values(wanted: Sequence[tuple[int | None, str, float]]) -> _Read:
    """Return a function that reads values from a buffer.

    Args:
        wanted: For each its offset, its type for ``struct``, and its value if it has no offset.
    """
    found = sorted((at, i, kind) for i, (at, kind, _) in enumerate(wanted) if at is not None)
    form, end = "<", 0
    for at, _, kind in found:
        form += f"{at - end}x{kind}"
        end = at + 4
    unpack, order = struct.Struct(form).unpack_from, [i for _, i, _ in found]
    if order == list(range(len(wanted))):
        return unpack
    absent = tuple(value for at, _, value in wanted if at is None)
    order += [i for i, (at, _, _) in enumerate(wanted) if at is None]
    # The i-th wanted value is at place order.index(i) of those found and those absent.
    places = [order.index(i) for i in range(len(wanted))]
    return lambda buffer: tuple(map((unpack(buffer) + absent).__getitem__, places))


def _fixed_fields(
    data: bytes, at: int, end: int, kind: Any, path: Path
) -> Iterator[tuple[Path, int]]:
    """Yield path and offset of every four-byte value of a message and of those inside.

    A path holds the name of a field and, if it is a message, its place among those of this name.

    Raises:
        _UnusualError: If fields are unknown, out of order, of another type or given twice.
    """
    last, place = 0, 0
    while at < end:
        tag, at = _number(data, at)
        number, wire = tag >> 3, tag & 7
        field = kind.fields_by_number.get(number)
        place = place + 1 if number == last else 0
        if field is None or number < last or (place and not _repeats(field)):
            raise _UnusualError(f"field {number} of {kind.name}")
        last = number
        if wire != _wire_type(field):
            raise _UnusualError(f"type of {field.name}")
        if wire == _FIXED:
            yield (*path, field.name), at
            at += 4
        elif wire == _VARINT:
            _, at = _number(data, at)
        else:
            size, at = _number(data, at)
            inside = (*path, field.name, place)
            if at + size > end:
                raise _UnusualError(f"size of {field.name}")
            yield from _fixed_fields(data, at, at + size, field.message_type, inside)
            at += size
    if at != end:
        raise _UnusualError(f"size of {kind.name}")


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return a variable-length number and the offset behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _wire_type(field: Any) -> int:
    """Return the wire type in which an encoder writes a field of the feedback."""
    if field.message_type is not None:
        return _MESSAGE
    return _VARINT if field.type == field.TYPE_UINT32 else _FIXED


def _repeats(field: Any) -> bool:
    """Return whether a field is repeated; newer versions of protobuf know no labels."""
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if repeated is None else repeated)


def _same(one: Measured, other: Measured) -> bool:
    """Return whether two readings are equal to the bit."""
    form = f"<II{3 * len(one.position) + 1}d"
    packed = [
        struct.pack(form, m.word, m.frame, *m.position, *m.velocity, *m.torque, m.gripper)
        for m in (one, other)
    ]
    return packed[0] == packed[1]
