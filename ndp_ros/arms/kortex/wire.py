# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The Kortex wire format: frames, the TCP delimiter, and the cyclic command as a fixed layout.

A frame is a header of four words and a payload. Over UDP one datagram is one frame; over TCP each
frame follows a 12-byte delimiter. The cyclic command always has the same fields, so
:class:`CyclicRequest` lays out the datagram once and the loop writes numbers into it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.kortex.errors import ProtocolError
from ndp_ros.arms.kortex.schema import MESSAGES, METHODS

VERSION = 1
MAGIC = b"\x07xEtRoK\x07"
DELIMITER_SIZE = len(MAGIC) + 4
MAX_FRAME = 1024 * 1024
"""Size limit of a frame over TCP [bytes]; every answer of an arm is far smaller."""
FRAME_TIMEOUT = 1.0
"""Longest wait for the rest of a frame [s]."""
MAX_DATAGRAM = 65507

_HEADER = struct.Struct("<BBBIBIBIBI")
_PREFIX = (0x0A, 0x14, 0x0D)
_LENGTH = struct.Struct(">I")
_WORDS = struct.Struct("<xxxIBIBIB")
_Frame = MESSAGES["Frame"]


class FrameType(IntEnum):
    """Kinds of frames."""

    REQUEST = 1
    RESPONSE = 3
    NOTIFICATION = 5
    PING = 7
    PONG = 8


class Header(NamedTuple):
    """A frame's header, with its bit fields separated."""

    kind: int
    uid: int
    """Service and function: ``service << 16 | function``."""
    message: int = 0
    """Number of the request; for a notification the handle of the subscription."""
    session: int = 0
    device: int = 0
    """0 for the base, else an identifier from DeviceManager.ReadAllDevices."""
    error_code: int = 0
    error_sub_code: int = 0
    version: int = VERSION


def encode_frame(header: Header, payload: bytes) -> bytes:
    """Encode a frame with all four header words."""
    frame_info = (
        header.version << 28
        | header.kind << 24
        | header.device << 16
        | header.error_code << 12
        | header.error_sub_code
    )
    words = _HEADER.pack(
        *_PREFIX,
        frame_info,
        0x15,
        header.session << 16 | header.message,
        0x1D,
        VERSION << 28 | header.uid,
        0x25,
        len(payload),
    )
    return b"".join((words, b"\x12", _varint(len(payload)), payload)) if payload else words


def decode_frame(data: bytes) -> tuple[Header, bytes]:
    """Decode a frame; encoders may omit header words that are zero.

    Raises:
        ProtocolError: If the bytes are not a frame.
    """
    try:
        frame = _Frame.FromString(data)
    except Exception as error:  # the exception's class differs between protobuf backends
        raise ProtocolError(f"{len(data)} bytes that are no Kortex frame") from error
    frame_info, message_info = frame.header.frame_info, frame.header.message_info
    header = Header(
        kind=frame_info >> 24 & 0xF,
        uid=frame.header.service_info & 0xFFFFFFF,
        message=message_info & 0xFFFF,
        session=message_info >> 16,
        device=frame_info >> 16 & 0xFF,
        error_code=frame_info >> 12 & 0xF,
        error_sub_code=frame_info & 0xFFF,
        version=frame_info >> 28,
    )
    return header, frame.payload


def delimit(frame: bytes) -> bytes:
    """Return a frame after its TCP delimiter, to be sent in one piece."""
    return b"".join((MAGIC, _LENGTH.pack(len(frame)), frame))


class StreamReader:
    """Splits a TCP byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.skipped = 0
        """Bytes dropped because they were not part of a frame."""
        self._whole = 0
        """Frames so far."""
        self._begun = (0, 0.0)
        """Number of frames when the incomplete one was first seen, and the time [s]."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add received bytes and yield every complete frame.

        Raises:
            ProtocolError: If a delimiter announces more than ``MAX_FRAME``.
        """
        self._buffer += data
        while True:
            start = self._buffer.find(MAGIC)
            if start < 0:
                # The last bytes may be the start of a delimiter.
                start = max(0, len(self._buffer) - len(MAGIC) + 1)
                while start < len(self._buffer) and not MAGIC.startswith(self._buffer[start:]):
                    start += 1
            self.skipped += start
            del self._buffer[:start]
            if len(self._buffer) < DELIMITER_SIZE:
                return
            (length,) = _LENGTH.unpack_from(self._buffer, len(MAGIC))
            if length > MAX_FRAME:
                raise ProtocolError(f"a frame of {length} bytes, at most {MAX_FRAME} are allowed")
            if len(self._buffer) < DELIMITER_SIZE + length:
                return
            frame = bytes(self._buffer[DELIMITER_SIZE : DELIMITER_SIZE + length])
            del self._buffer[: DELIMITER_SIZE + length]
            self._whole += 1
            yield frame

    def expect_progress(self, now: float) -> None:
        """Reject, now [s], a frame whose rest does not arrive: later bytes would be taken for it.

        Raises:
            ProtocolError: If the frame has been incomplete for ``FRAME_TIMEOUT``.
        """
        if len(self._buffer) < DELIMITER_SIZE:
            self._begun = (-1, now)
        elif self._begun[0] != self._whole:
            self._begun = (self._whole, now)
        elif now - self._begun[1] > FRAME_TIMEOUT:
            raise ProtocolError(f"the rest of a frame did not come within {FRAME_TIMEOUT:g} s")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, body: bytes) -> bytes:
    """Encode a length-delimited field."""
    return bytes([number << 3 | 2]) + _varint(len(body)) + body


def _fixed(*numbers: int) -> bytes:
    """Encode four-byte fields with value zero."""
    return b"".join(bytes([number << 3 | 5, 0, 0, 0, 0]) for number in numbers)


class CyclicRequest:
    """A BaseCyclic.Refresh datagram for n actuators, written in place.

    The arrays are views into the datagram: a loop assigns to them and sends ``data``. Every field
    is four bytes wide and always present, so the layout is fixed.
    """

    position: NDArray[np.float32]
    """Commanded positions (n,) [deg], 0 to 360."""
    velocity: NDArray[np.float32]
    """Commanded velocities (n,) [deg/s]."""
    torque: NDArray[np.float32]
    """Commanded joint torques (n,) [N m]."""
    flags: NDArray[np.uint32]
    """Command flags (n,)."""

    def __init__(self, n_actuators: int, gripper: bool = False) -> None:
        actuator = _field(2, _fixed(1, 2, 3, 4, 5, 6))
        head = _fixed(1)
        payload = head + actuator * n_actuators
        if gripper:
            motor = _field(3, _fixed(1, 3, 4, 5))
            command = _field(1, _fixed(1)) + _fixed(2) + motor
            payload += _field(3, _field(1, _fixed(1)) + _fixed(2) + _field(3, command))
        frame = encode_frame(Header(FrameType.REQUEST, METHODS["BaseCyclic.Refresh"].uid), payload)
        self.data = bytearray(frame)
        """The datagram."""
        self.payload_offset = len(frame) - len(payload)
        stride = len(actuator)
        start = self.payload_offset + len(head) + stride - 30

        def column(index: int, dtype: str) -> NDArray[np.float32]:
            offset = start + 5 * index + 1
            return np.ndarray(
                (n_actuators,), dtype, buffer=self.data, offset=offset, strides=(stride,)
            )

        self._command_id = column(0, "<u4")
        self.flags = column(1, "<u4")  # type: ignore[assignment]
        self.position = column(2, "<f4")
        self.velocity = column(3, "<f4")
        self.torque = column(4, "<f4")
        self.current = column(5, "<f4")
        self.gripper = np.zeros(0, "<f4")
        """Gripper position, velocity and force (3,) [percent], empty without a gripper."""
        if gripper:
            end = len(frame)
            self.gripper = np.ndarray((3,), "<f4", buffer=self.data, offset=end - 14, strides=(5,))
        numbers = f"{stride - 20}xxfxfxfxf" * n_actuators
        self._numbers = struct.Struct(f"<{self.payload_offset + len(head)}x{numbers}").unpack_from
        self._message = struct.Struct("<I")
        self._message_offset = 8
        self._frame_offset = self.payload_offset + 1

    def stamp(self, session: int, message: int, frame: int) -> None:
        """Write the session, the request's number and the cycle's number.

        Args:
            session: Session of the channel.
            message: Number of the request, 0 to 65535.
            frame: Number of the cycle, 0 to 65535; it goes to every actuator too.
        """
        self._message.pack_into(self.data, self._message_offset, session << 16 | message)
        self._message.pack_into(self.data, self._frame_offset, frame)
        self._command_id[:] = frame

    @property
    def finite(self) -> bool:
        """Whether every number for the actuators is finite."""
        # A sum is finite only if all its terms are.
        return math.isfinite(sum(self._numbers(self.data)))

    @property
    def payload(self) -> bytes:
        """The serialised Command message."""
        return bytes(self.data[self.payload_offset :])


def fast_header(data: bytes) -> tuple[int, int, int] | None:
    """Return frame, message and service word of a frame whose header is complete.

    Every known encoder writes this header; ``None`` means that :func:`decode_frame` is needed.
    """
    if len(data) < 22 or data[:3] != b"\x0a\x14\x0d":
        return None
    frame_info, tag_2, message_info, tag_3, service_info, tag_4 = _WORDS.unpack_from(data)
    if tag_2 != 0x15 or tag_3 != 0x1D or tag_4 != 0x25:
        return None
    return frame_info, message_info, service_info


def fast_payload(data: bytes) -> bytes:
    """Return the payload of a frame accepted by :func:`fast_header`.

    Raises:
        ProtocolError: If the frame's length and its payload do not agree.
    """
    size = len(data)
    if size == 22:
        return b""
    offset, length, shift = 23, 0, 0
    while offset < size:
        byte = data[offset]
        offset += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    if data[22] != 0x12 or offset + length != size:
        raise ProtocolError(f"a frame of {size} bytes whose payload does not fit it")
    return data[offset:]
