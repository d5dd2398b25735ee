# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The TCP session with an arm, for every service but the cycle.

A thread of :class:`StreamChannel` receives: it passes answers to their callers, notifications to
their subscribers, and keeps an idle session alive.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from ndp_ros.arms.kortex.errors import (
    KortexError,
    ProtocolError,
    ReplyTimeout,
    Unreachable,
    error_from,
)
from ndp_ros.arms.kortex.schema import MESSAGES, METHODS, TOPICS
from ndp_ros.arms.kortex.wire import (
    FrameType,
    Header,
    StreamReader,
    decode_frame,
    delimit,
    encode_frame,
)

log = logging.getLogger(__name__)

KEEP_ALIVE = 0.5
"""Silence after which a session is kept alive [s]."""
_Error = MESSAGES["Error"]


def check(header: Header, payload: bytes, method: str) -> None:
    """Raise the error of an error frame."""
    if not header.error_code:
        return
    try:
        error = _Error.FromString(payload)
    except Exception:  # the exception's class differs between protobuf backends
        error = _Error()
    raise error_from(
        method,
        error.error_code or header.error_code,
        error.error_sub_code or header.error_sub_code,
        error.error_sub_string,
    )


def parse(method: str, payload: bytes) -> Any:
    """Decode the answer to a method."""
    try:
        return METHODS[method].response.FromString(payload)
    except Exception as error:  # the exception's class differs between protobuf backends
        raise ProtocolError(f"the answer to {method} cannot be decoded") from error


def no_arm(host: str, port: int, error: OSError | UnicodeError) -> Unreachable:
    """Return the error for an address where no arm can be reached."""
    # Names with an empty or an overlong part fail before anything is looked up.
    why = "no valid address" if isinstance(error, UnicodeError) else error.strerror or error
    return Unreachable(f"no arm at {host}:{port} ({why})")


class _Waiting:
    """A request whose answer has not come yet."""

    __slots__ = ("done", "error", "header", "payload")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.header: Header | None = None
        self.payload = b""
        self.error: KortexError | None = None


class StreamChannel:
    """A Kortex session over TCP. Calls may come from any thread.

    Attributes:
        session: Identifier of the session, assigned by the arm.
        dead: Why the connection is closed; None while it is open.
    """

    def __init__(self, host: str, port: int, timeout: float = 3.0) -> None:
        """Connect; the timeout [s] is for connecting and for each answer.

        Raises:
            Unreachable: If nothing accepts the connection.
        """
        self.session = 0
        self.dead: Unreachable | None = None
        self._where = f"{host}:{port}"
        self._timeout = timeout
        try:
            self._socket = socket.create_connection((host, port), timeout)
        except (OSError, UnicodeError) as error:
            raise no_arm(host, port, error) from error
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wait = struct.pack("ll", 0, 100_000)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        limit = struct.pack("ll", int(timeout), int(timeout % 1.0 * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._lock = threading.Lock()
        self._message = 0
        self._waiting: dict[int, _Waiting] = {}
        self._ignored: set[int] = set()
        self._subscribers: dict[tuple[int, int], tuple[str, Callable[[Any], None]]] = {}
        self._early: list[tuple[Header, bytes]] = []
        self._sent = time.monotonic()
        self._closing = False
        self.when_idle: Callable[[], None] = lambda: None
        """Called a few times a second by the receiving thread."""
        self._thread = threading.Thread(target=self._receive, name="kortex", daemon=True)
        self._thread.start()

    def call(
        self, method: str, request: Any = None, device: int = 0, timeout: float | None = None
    ) -> Any:
        """Call a procedure of ``METHODS`` and return its answer.

        The request is empty unless given. Device 0 is the base; the timeout [s] is the channel's
        unless given.

        Raises:
            KortexError: If the arm refuses; the class names the cause.
            ReplyTimeout: If no answer comes in time.
            Unreachable: If the connection is gone.
        """
        waiting = _Waiting()
        number = self._send(method, request, device, waiting)
        limit = self._timeout if timeout is None else timeout
        if not waiting.done.wait(limit):
            with self._lock:
                self._waiting.pop(number, None)
            raise ReplyTimeout(f"{self._where} did not answer {method} within {limit:g} s")
        if waiting.error is not None:
            raise waiting.error
        assert waiting.header is not None
        check(waiting.header, waiting.payload, method)
        return parse(method, waiting.payload)

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> int:
        """Call a function with every notification of a topic.

        The function runs in the receiving thread. It must be short and must not call the arm;
        its exceptions are logged.

        Returns:
            The handle for :meth:`unsubscribe`.

        Raises:
            KortexError: As in :meth:`call`.
        """
        handle: int = self.call(topic, METHODS[topic].request()).identifier
        with self._lock:
            key = (METHODS[topic].uid, handle)
            self._subscribers[key] = (TOPICS[topic], callback)
            # A notification may have arrived before this line.
            early = [note for note in self._early if (note[0].uid, note[0].message) == key]
            self._early = []
        for header, payload in early:
            self._deliver(header, payload)
        return handle

    def unsubscribe(self, topic: str, handle: int) -> None:
        """End a subscription."""
        with self._lock:
            self._subscribers.pop((METHODS[topic].uid, handle), None)
        self.call("Base.Unsubscribe", METHODS["Base.Unsubscribe"].request(identifier=handle))

    def close(self) -> None:
        """Close the connection and end the thread; may be called twice."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._socket.close()

    def _send(self, method: str, request: Any, device: int, waiting: _Waiting | None) -> int:
        payload = b"" if request is None else request.SerializeToString()
        with self._lock:
            if self.dead is not None:
                raise self.dead
            number = self._message % 65535 + 1
            while number in self._waiting:
                number = number % 65535 + 1
            self._message = number
            # An older request of this number is no longer waited for.
            self._ignored.discard(number)
            if waiting is not None:
                self._waiting[number] = waiting
            else:
                self._ignored.add(number)
            header = Header(FrameType.REQUEST, METHODS[method].uid, number, self.session, device)
            self._sent = time.monotonic()
            try:
                self._socket.sendall(delimit(encode_frame(header, payload)))
            except OSError as error:
                self._waiting.pop(number, None)
                raise Unreachable(f"{self._where} is gone ({error.strerror or error})") from error
        return number

    def _receive(self) -> None:
        reader = StreamReader()
        why = "closed the connection"
        while not self._closing:
            silent = False
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                data = b""
                silent = True
            except OSError as error:
                why = f"is gone ({error.strerror or error})"
                break
            if not data and not silent:
                break
            try:
                for frame in reader.feed(data):
                    self._take(*decode_frame(frame))
                reader.expect_progress(time.monotonic())
            except ProtocolError as error:
                why = f"sends what is not Kortex ({error.what})"
                break
            self._idle()
        with self._lock:
            self.dead = Unreachable(f"{self._where} {why}")
            waiting, self._waiting = self._waiting, {}
        for request in waiting.values():
            request.error = self.dead
            request.done.set()

    def _idle(self) -> None:
        self.when_idle()
        if self.session and time.monotonic() - self._sent > KEEP_ALIVE:
            with contextlib.suppress(KortexError):
                self._send("Session.KeepAlive", None, 0, None)

    def _take(self, header: Header, payload: bytes) -> None:
        if header.kind == FrameType.NOTIFICATION:
            self._deliver(header, payload)
            return
        if header.kind != FrameType.RESPONSE:
            return
        with self._lock:
            if header.session:
                self.session = header.session
            waiting = self._waiting.pop(header.message, None)
            if header.message in self._ignored:
                self._ignored.discard(header.message)
                return
        if waiting is None:
            log.debug("answer %d arrived too late", header.message)
            return
        waiting.header, waiting.payload = header, payload
        waiting.done.set()

    def _deliver(self, header: Header, payload: bytes) -> None:
        with self._lock:
            known = self._subscribers.get((header.uid, header.message))
            if known is None:
                self._early = [*self._early[-15:], (header, payload)]
                return
        name, callback = known
        try:
            callback(MESSAGES[name].FromString(payload))
        except Exception:
            log.exception("a subscriber of %s failed", name)
