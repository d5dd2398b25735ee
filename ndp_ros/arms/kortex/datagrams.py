# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The UDP session with an arm, for the cycle.

:class:`DatagramChannel` has no thread: the loop that sends a command receives its feedback
itself, within a time limit.
"""

from __future__ import annotations

import socket
import time
from select import select
from typing import Any

from ndp_ros.arms.kortex.channel import KEEP_ALIVE, check, no_arm, parse
from ndp_ros.arms.kortex.errors import ProtocolError, Unreachable
from ndp_ros.arms.kortex.feedback import LONGEST, FeedbackReader
from ndp_ros.arms.kortex.schema import MESSAGES, METHODS
from ndp_ros.arms.kortex.wire import (
    CyclicRequest,
    FrameType,
    Header,
    decode_frame,
    encode_frame,
    fast_header,
    fast_payload,
)

_NO_REQUEST = 0
"""Message number of keep-alives over UDP, whose answers are ignored."""
_CYCLES = 32768
"""Message numbers of cycles run from 1 to this; those of other calls lie above."""
_CALLS = 65535 - _CYCLES
_SURE, _DOUBT = 100, 10
"""Echoed cycle numbers in a row after which an answer with another number counts as damaged, and
the loss of trust by each such answer: an arm may number its cycles in its own way."""


class DatagramChannel:
    """A Kortex session over UDP for the cycle. One thread uses it at a time.

    Cycles are numbered. An answer counts if it belongs to a later cycle than the newest answer
    so far: late and reordered datagrams are dropped, and an arm may answer one cycle late.

    Attributes:
        session: Identifier of the session, assigned by the arm.
        cycles: Commands sent.
        answered: Number of the cycle that the newest feedback belongs to.
        stale: Datagrams that arrived too late.
        missed: Calls of :meth:`receive` without new feedback.
        sent: Time of the last datagram sent, on the monotonic clock [s].
    """

    def __init__(self, host: str, port: int, timeout: float = 3.0) -> None:
        """Open the socket without sending; the timeout [s] is for an answer outside the cycle.

        Raises:
            Unreachable: If the address is invalid.
        """
        self.session = self.cycles = self.answered = self.stale = self.missed = 0
        self._where = f"{host}:{port}"
        self._timeout = timeout
        try:
            family, kind, _, _, address = socket.getaddrinfo(
                host, port, socket.AF_INET, socket.SOCK_DGRAM
            )[0]
            self._socket = socket.socket(family, kind)
            self._socket.connect(address)
        except (OSError, UnicodeError) as error:
            raise no_arm(host, port, error) from error
        self._socket.setblocking(False)
        self._fd, self._buffer = [self._socket.fileno()], bytearray(LONGEST)
        self._calls = 0
        self._parse_feedback = MESSAGES["Feedback"].FromString
        self._echoed = 0
        self.sent = time.monotonic()

    def call(
        self,
        method: str,
        request: Any = None,
        device: int = 0,
        timeout: float | None = None,
        attempts: int = 12,
    ) -> Any:
        """Call a procedure of ``METHODS`` and return its answer; a lost datagram is sent again.

        All attempts together last for the timeout [s]; otherwise as :meth:`StreamChannel.call`.

        Raises:
            KortexError: If the arm refuses; the class names the cause.
            Unreachable: If no attempt is answered.
        """
        payload = b"" if request is None else request.SerializeToString()
        limit = (self._timeout if timeout is None else timeout) / attempts
        numbers = set()
        for _ in range(attempts):
            self._calls = self._calls % _CALLS + 1
            number = _CYCLES + self._calls
            numbers.add(number)
            header = Header(FrameType.REQUEST, METHODS[method].uid, number, self.session, device)
            self._transmit(encode_frame(header, payload))
            end = time.monotonic() + limit
            while (wait := end - time.monotonic()) > 0:
                size = self._wait(wait)
                if not size:
                    continue
                try:
                    answer, data = decode_frame(bytes(self._buffer[:size]))
                except ProtocolError:
                    continue
                if answer.kind != FrameType.RESPONSE or answer.message not in numbers:
                    self.stale += 1
                    continue
                if answer.session:
                    self.session = answer.session
                check(answer, data, method)
                return parse(method, data)
        raise Unreachable(f"{self._where} does not answer over UDP")

    def send(self, request: CyclicRequest) -> None:
        """Send one cyclic command; :meth:`receive` has its feedback."""
        self.cycles = cycle = self.cycles + 1
        request.stamp(self.session, cycle % _CYCLES + 1, cycle & 0xFFFF)
        self._transmit(request.data)

    def receive(self, timeout: float, reader: FeedbackReader | None = None) -> Any | None:
        """Return the newest feedback that has not been returned yet, or None without one.

        Waits for the answer to the last command, and returns an earlier one if that is missing.

        Args:
            timeout: Longest wait [s], whatever else arrives.
            reader: Reads answers in place where it can, and learns from the others; made by
                :meth:`reader`.

        Returns:
            What the reader has read, or a message of protobuf.

        Raises:
            KortexError: If the arm refuses; the class names the cause.
        """
        cycles = self.cycles
        newest: Any = None
        wait, end = timeout, time.monotonic() + timeout
        while self.answered < cycles:
            if size := self._wait(wait):
                feedback: Any = None if reader is None else reader.read(size)
                if feedback is None:
                    feedback = self._parse(size, reader)
                elif not self._is_newer(feedback.word, feedback.frame):
                    feedback = None
                if feedback is None:
                    self.stale += 1
                else:
                    newest = feedback
            if self.answered == cycles:
                return newest
            wait = end - time.monotonic()
            if wait <= 0.0:
                break
        if newest is None:
            self.missed += 1
        return newest

    def reader(self, n_actuators: int) -> FeedbackReader | None:
        """Return a reader of the answers that this channel receives."""
        return FeedbackReader(n_actuators, self._buffer)

    def exchange(self, request: CyclicRequest, timeout: float) -> Any | None:
        """Send one cyclic command and return its feedback, or None if none comes in time."""
        self.send(request)
        return self.receive(timeout)

    def keep_alive(self) -> None:
        """Keep an idle session alive without waiting for an answer; callable from any thread."""
        if self.session and time.monotonic() - self.sent > KEEP_ALIVE:
            header = Header(
                FrameType.REQUEST, METHODS["Session.KeepAlive"].uid, _NO_REQUEST, self.session
            )
            self._transmit(encode_frame(header, b""))

    def close(self) -> None:
        """Close the socket; may be called twice."""
        self._socket.close()

    def _transmit(self, data: bytes | bytearray) -> None:
        self.sent = time.monotonic()
        try:  # noqa: SIM105  (the usual way out of it costs a microsecond)
            self._socket.send(data)
        except OSError:
            pass  # a full buffer or no route counts as one lost datagram

    def _wait(self, timeout: float) -> int:
        """Receive the next datagram into the buffer; return its size, 0 without one in time."""
        # A time limit of the socket itself would be rounded up to whole milliseconds or more.
        if not select(self._fd, (), (), timeout)[0]:
            return 0
        try:
            return self._socket.recv_into(self._buffer)
        except OSError:  # a closed port counts as silence
            return 0

    def _cycle_of(self, message: int) -> int:
        """Return the cycle of a message number; 0 if it is not newer than the last answer."""
        if not 0 < message <= _CYCLES:
            return 0
        age = (self.cycles % _CYCLES + 1 - message) % _CYCLES
        cycle = self.cycles - age
        return cycle if cycle > self.answered else 0

    def _is_newer(self, word: int, frame: int) -> bool:
        """Count a feedback as answered if it is newer than all before and not damaged.

        ``word`` holds the request's number; ``frame`` is the cycle that the feedback states.
        """
        cycle = self._cycle_of(word & 0xFFFF)
        if cycle == 0:
            return False
        if frame == cycle & 0xFFFF:
            self._echoed = min(self._echoed + 1, _SURE)
        elif self._echoed > _SURE // 2:
            self._echoed -= _DOUBT
            return False
        else:
            self._echoed = 0
        self.answered = cycle
        return True

    def _parse(self, size: int, reader: FeedbackReader | None) -> Any | None:
        """Decode the feedback in the buffer by protobuf if it is newer than all before."""
        datagram = bytes(self._buffer[:size])
        words = fast_header(datagram)
        if words is None or words[0] & 0x0F00F000 != 0x03000000:
            self._special(datagram)  # no answer, or an error
            return None
        if self._cycle_of(words[1] & 0xFFFF) == 0:
            return None
        try:
            feedback = self._parse_feedback(fast_payload(datagram))
        except Exception:  # damaged; the exception's class differs between protobuf backends
            return None
        if not self._is_newer(words[1], feedback.frame_id):
            return None
        if reader is not None:
            reader.learn(size, feedback)
        return feedback

    def _special(self, datagram: bytes) -> None:
        """Handle a datagram that is not a plain answer, such as an error frame.

        Raises:
            KortexError: If the arm refuses; the class names the cause.
        """
        try:
            header, payload = decode_frame(datagram)
        except ProtocolError:
            return
        cycle = self._cycle_of(header.message) if header.kind == FrameType.RESPONSE else 0
        if cycle:
            self.answered = cycle
            check(header, payload, "BaseCyclic.Refresh")
