# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Kinova's Python client, ``kortex_api``, instead of this package's: ``driver:=vendor``.

:class:`VendorStream` and :class:`VendorDatagrams` replace ``StreamChannel`` and
``DatagramChannel`` by the sockets, frames, sessions and keep-alives of ``kortex_api``. The package
is not a dependency: Kinova distributes it, and it is imported on request. Its stubs only serialise
a request, so messages of this package's schema pass unchanged.

A weakness of its threads is handled here: a connection closed by the arm keeps one busy for ever.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from ndp_ros.arms.kortex.errors import KortexError, ReplyTimeout, Unreachable, error_from
from ndp_ros.arms.kortex.feedback import FeedbackReader
from ndp_ros.arms.kortex.schema import MESSAGES, METHODS
from ndp_ros.arms.kortex.wire import CyclicRequest
from ndp_ros.errors import ConfigError

log = logging.getLogger(__name__)

PACKAGE = "kortex_api"
PROTOBUF_VARIABLE = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
"""Variable that selects the backend of protobuf for a process."""
_IN_FLIGHT = 64
"""Cycles whose answers are still expected."""
_PROBE = "from ndp_ros.arms.kortex import vendor; vendor.load()"


def environment() -> dict[str, str]:
    """Return the environment variables with which a process can import the package.

    Its generated messages are too old for the compiled backends of protobuf 4 and later.
    """
    return {PROTOBUF_VARIABLE: os.environ.get(PROTOBUF_VARIABLE, "python")}


def require(variables: Mapping[str, str]) -> None:
    """Check that another process with these variables can import the package.

    Raises:
        ConfigError: If it cannot; the message says what to do.
    """
    probe = subprocess.run(
        [sys.executable, "-c", _PROBE],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode:
        last = probe.stderr.strip().splitlines()[-1:] or [f"{PACKAGE} cannot be imported"]
        raise ConfigError(last[0].removeprefix("ndp_ros.errors.ConfigError: "))


@functools.cache
def load() -> SimpleNamespace:
    """Import the package.

    Raises:
        ConfigError: If it is missing or cannot be imported; the message says what to do.
    """
    try:
        names = ("RouterClient", "SessionManager", "TCPTransport", "UDPTransport")
        found = {name: importlib.import_module(f"{PACKAGE}.{name}") for name in names}
        stubs = f"{PACKAGE}.autogen.client_stubs"
        cyclic = importlib.import_module(f"{stubs}.BaseCyclicClientRpc")
        messages = importlib.import_module(f"{PACKAGE}.autogen.messages.BaseCyclic_pb2")
        server = importlib.import_module(f"{PACKAGE}.Exceptions.KServerException")
        general = importlib.import_module(f"{PACKAGE}.Exceptions.KException")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"driver:=vendor needs Kinova's Python package, and {error.name} is not installed: "
            f"install {PACKAGE} from Kinova's wheel with what it needs, or leave driver out"
        ) from error
    except Exception as error:  # protobuf raises different errors when it is too new or too old
        first = f"{error}".strip().split("\n")[0].rstrip(".:")
        raise ConfigError(
            f"Kinova's Python package {PACKAGE} cannot be imported ({first}): set "
            f"{PROTOBUF_VARIABLE}=python before the start, or leave driver out"
        ) from error
    return SimpleNamespace(
        TCPTransport=found["TCPTransport"].TCPTransport,
        UDPTransport=found["UDPTransport"].UDPTransport,
        RouterClient=found["RouterClient"].RouterClient,
        SendOptions=found["RouterClient"].RouterClientSendOptions,
        SessionManager=found["SessionManager"].SessionManager,
        ServerError=server.KServerException,
        AnyError=general.KException,
        stub=lambda service: getattr(
            importlib.import_module(f"{stubs}.{service}ClientRpc"), f"{service}Client"
        ),
        refresh=cyclic.BaseCyclicFunctionUid.uidRefresh,
        Feedback=messages.Feedback,
    )


def _refusal(method: str, error: Any) -> KortexError:
    """Convert the error of an error frame to this package's exception."""
    said = error.error
    return error_from(method, said.error_code, said.error_sub_code, said.error_sub_string)


class _Channel:
    """A transport with its router, session and stubs.

    Attributes:
        session: Identifier of the session, assigned by the arm.
    """

    def __init__(self, transport: Any, host: str, port: int, timeout: float) -> None:
        self._package = package = load()
        self._where, self._timeout = f"{host}:{port}", timeout
        self._transport = transport
        self._router = package.RouterClient(
            transport, lambda error: log.debug("%s: %s", self._where, error)
        )
        try:
            transport.connect(host, port)
        except OSError as error:
            raise Unreachable(f"no arm at {self._where} ({error.strerror or error})") from error
        self._manager = package.SessionManager(self._router, self._silent)
        self._stubs: dict[str, Any] = {"Session": self._manager}
        self._closed = False

    @property
    def session(self) -> int:
        return int(self._router.getConnectionId())

    def _silent(self) -> None:
        log.debug("%s: nothing heard within the session's time", self._where)

    def _stub(self, service: str) -> Any:
        if service not in self._stubs:
            self._stubs[service] = self._package.stub(service)(self._router)
        return self._stubs[service]

    def _ask(self, method: str, request: Any, device: int, timeout: float) -> Any:
        """Call a procedure once.

        Raises:
            KortexError: If the arm refuses; the class names the cause.
            ReplyTimeout: If no answer comes in time.
            Unreachable: If nothing can be sent.
        """
        service, _, function = method.partition(".")
        options = self._package.SendOptions()
        options.timeout_ms = 1000.0 * timeout
        arguments: list[Any] = []
        if request is not None:
            arguments = [request]
        elif METHODS[method].request is not MESSAGES["Empty"]:
            arguments = [METHODS[method].request()]
        # The session manager has no device argument.
        where = {} if service == "Session" else {"deviceId": device}
        try:
            return getattr(self._stub(service), function)(*arguments, options=options, **where)
        except self._package.ServerError as error:
            raise _refusal(method, error) from error
        except TimeoutError as error:
            raise ReplyTimeout(f"{self._where} did not answer {method} in {timeout:g} s") from error
        except self._package.AnyError as error:
            if method == "Session.CreateSession":
                # The package raises this for silence on a port other than the default.
                raise ReplyTimeout(f"{self._where} did not answer {method}") from error
            raise KortexError(f"{method} failed ({error})") from error
        except OSError as error:
            raise Unreachable(f"{self._where} is gone ({error.strerror or error})") from error

    def _stop_threads(self) -> None:
        """End the package's threads, which would continue with a dead connection."""
        self._manager.event.set()
        self._transport.event.set()

    def close(self) -> None:
        """Close the connection and end its threads; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._stop_threads()
        keeper = self._manager.m_thread
        if keeper.is_alive():
            keeper.join(timeout=2.0)
        with contextlib.suppress(OSError):
            self._transport.disconnect()
        self._transport.sock.close()


class VendorStream(_Channel):
    """A session over TCP through the package; as ``StreamChannel``."""

    def __init__(self, host: str, port: int, timeout: float = 3.0) -> None:
        """Connect.

        Raises:
            ConfigError: If the package cannot be imported.
            Unreachable: If nothing accepts the connection.
        """
        package = load()
        try:
            # The package would wait for minutes: check first that the port is open.
            socket.create_connection((host, port), timeout).close()
        except OSError as error:
            raise Unreachable(f"no arm at {host}:{port} ({error.strerror or error})") from error
        super().__init__(package.TCPTransport(), host, port, timeout)
        self.when_idle: Callable[[], None] = lambda: None
        """Not called: the package keeps its sessions alive."""

    @property
    def dead(self) -> Unreachable | None:
        """Why the connection is closed; None while it is open."""
        try:
            gone = not self._transport.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            gone = True
        if not gone:
            return None
        self._stop_threads()
        return Unreachable(f"{self._where} closed the connection")

    def call(
        self, method: str, request: Any = None, device: int = 0, timeout: float | None = None
    ) -> Any:
        """Call a procedure and return its answer; as ``StreamChannel.call``."""
        dead = self.dead
        if dead is not None:
            raise dead
        return self._ask(method, request, device, self._timeout if timeout is None else timeout)


class VendorDatagrams(_Channel):
    """A session over UDP through the package, for the cycle; as ``DatagramChannel``.

    Attributes:
        cycles: Commands sent.
        answered: Number of the cycle that the newest feedback belongs to.
        missed: Calls of :meth:`receive` without new feedback.
        sent: Time of the last command, on the monotonic clock [s].
    """

    def __init__(self, host: str, port: int, timeout: float = 3.0) -> None:
        """Open the socket without sending.

        Raises:
            ConfigError: If the package cannot be imported.
            Unreachable: If the address is invalid.
        """
        super().__init__(load().UDPTransport(), host, port, timeout)
        self.cycles = self.answered = self.missed = 0
        self.sent = time.monotonic()
        self._in_flight: deque[tuple[int, Any]] = deque(maxlen=_IN_FLIGHT)
        self._keeps_pace = False

    def call(
        self,
        method: str,
        request: Any = None,
        device: int = 0,
        timeout: float | None = None,
        attempts: int = 12,
    ) -> Any:
        """Call a procedure and return its answer; as ``DatagramChannel.call``."""
        limit = (self._timeout if timeout is None else timeout) / attempts
        for _ in range(attempts):
            with contextlib.suppress(ReplyTimeout):
                return self._ask(method, request, device, limit)
        raise Unreachable(f"{self._where} does not answer over UDP")

    def send(self, request: CyclicRequest) -> None:
        """Send one cyclic command; :meth:`receive` has its feedback."""
        if not self._keeps_pace:
            self._keep_pace()
        self.cycles = cycle = self.cycles + 1
        # The router sets session and number of the request.
        request.stamp(0, 0, cycle & 0xFFFF)
        self.sent = time.monotonic()
        try:
            answer = self._router.send(request.payload, 1, self._package.refresh, 0)
        except OSError:  # a full buffer or no route counts as one lost datagram
            return
        self._in_flight.append((cycle, answer))

    def receive(self, timeout: float, reader: FeedbackReader | None = None) -> Any | None:
        """Return the newest feedback that was not returned yet, within a timeout [s], or None.

        Raises:
            KortexError: If the arm refuses; the class names the cause.
        """
        waiting = self._in_flight
        if waiting:
            with contextlib.suppress(TimeoutError, self._package.AnyError):
                waiting[-1][1].result(timeout)
        for place in reversed(range(len(waiting))):
            cycle, answer = waiting[place]
            if not answer.done():
                continue
            for _ in range(place + 1):
                waiting.popleft()  # older answers are outdated
            self.answered = cycle
            try:
                return self._package.Feedback.FromString(answer.result().payload)
            except self._package.ServerError as error:
                raise _refusal("BaseCyclic.Refresh", error) from error
            except Exception:  # damaged; the exception's class differs between protobuf backends
                break
        self.missed += 1
        return None

    def reader(self, n_actuators: int) -> FeedbackReader | None:
        """Return None: the package delivers payloads, and its protobuf parses them."""
        return None

    def _keep_pace(self) -> None:
        """Give the receiving thread the caller's priority, which a loop gets after connecting.

        A real-time loop would otherwise wait for a thread without priority.
        """
        self._keeps_pace = True
        receiver = self._transport.udp_transport_thread.native_id
        with contextlib.suppress(OSError):
            os.sched_setscheduler(receiver, os.sched_getscheduler(0), os.sched_getparam(0))

    def exchange(self, request: CyclicRequest, timeout: float) -> Any | None:
        """Send one cyclic command and return its feedback, or None if none comes in time."""
        self.send(request)
        return self.receive(timeout)

    def keep_alive(self) -> None:
        """Do nothing: the package keeps its session alive."""
