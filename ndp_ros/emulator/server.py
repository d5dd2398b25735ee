# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Sockets and clock of the emulator: one loop in one thread.

The loop answers datagrams and streams, and advances the physics by one step per period. All times
inside are physics time: it stops while the machine suspends this process for longer than
``_CATCH_UP``, so that a slow machine loses no frames.
"""

from __future__ import annotations

import contextlib
import functools
import json
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from ndp_ros.arms.kortex.errors import ProtocolError
from ndp_ros.arms.kortex.wire import MAX_DATAGRAM, StreamReader, delimit
from ndp_ros.control.arm import ArmConfig
from ndp_ros.emulator.config import EmulatorConfig
from ndp_ros.emulator.control import Control
from ndp_ros.emulator.network import Network
from ndp_ros.emulator.robot import Robot
from ndp_ros.emulator.sessions import Peer, Sessions
from ndp_ros.errors import ArmError

_CATCH_UP = 0.003
"""Physics that may be caught up at once [s]."""
_TICKS_A_TURN = 2
_DATAGRAMS_A_TURN = 16
"""Datagrams that are answered before physics continues: after a pause of this process several are
queued, and the newest must not be answered late while physics is behind."""
_LOCAL = "127.0.0.1"
"""The control port has no authentication, so it listens on this machine only."""
_LONGEST_LINE = 65536
"""Size limit of a line on the control port [bytes]."""
_PEERS = 64
"""Senders of datagrams without a session that are remembered."""


class Emulator:
    """A Kortex arm on TCP and UDP ports of this machine.

    Attributes:
        robot: The arm behind the sockets.
        sessions: Its clients.
        network: The disturbances of datagrams.
        port: TCP port.
        udp_port: UDP port.
        control_port: TCP port for experiments.
    """

    def __init__(self, config: EmulatorConfig) -> None:
        """Open the ports; :meth:`run` answers requests.

        Raises:
            ArmError: If a port is in use.
        """
        self.config = config
        self.robot = Robot(config, ArmConfig.named(config.arm))
        self.network = Network(config.network)
        self.sessions = Sessions(config, self.robot)
        self._due = 0.0
        self._more = False
        """Whether more datagrams are queued after a pause of this process."""
        self._datagram_peers: dict[Any, Peer] = {}
        self._readers: dict[int, Callable[[], None]] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._waited_for: list[int] = []
        self._streams: dict[socket.socket, Peer] = {}
        self._running = True
        try:
            self._tcp = self._listen(config.port, self._accept)
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.setblocking(False)
            self._watch(self._udp, self._read_datagrams)
            self._udp.bind((config.host, config.udp_port))
            self._control = self._listen(config.control_port, self._accept_control, _LOCAL)
        except (OSError, UnicodeError) as error:
            self.close()
            raise ArmError(
                f"cannot listen on {config.host}, ports {config.port}, {config.udp_port} and "
                f"{config.control_port}: {getattr(error, 'strerror', 'no valid address')}"
            ) from error
        self.port: int = self._tcp.getsockname()[1]
        self.udp_port: int = self._udp.getsockname()[1]
        self.control_port: int = self._control.getsockname()[1]

    @property
    def ports(self) -> dict[str, int]:
        """The ports by name."""
        return {name: getattr(self, name) for name in ("port", "udp_port", "control_port")}

    # The loop.

    def run(self, watch: int | None = None) -> None:
        """Serve until :meth:`stop`, or the end of file of a descriptor to watch.

        That is the pipe of a parent process, which closes however the parent dies.
        """
        if watch is not None:
            self._readers[watch] = self.stop
            self._waited_for = list(self._readers)
        step = self.config.timestep
        # A step ends before the next begins, so this is its deadline.
        self._due = time.monotonic() + step
        while self._running:
            now = time.monotonic()
            wait = min(self._due, self.network.due()) - now
            # select waits to the microsecond, epoll to the millisecond.
            for number in select.select(self._waited_for, (), (), max(0.0, wait))[0]:
                if number in self._readers:
                    self._readers[number]()
            now = time.monotonic()
            self.network.advance(now)
            if now - self._due > _CATCH_UP and not self._more:
                self.robot.slipped += now - self._due - _CATCH_UP
                self._due = now - _CATCH_UP
            if self.sessions.in_cycle():
                self._due = now + step
            # Not all at once: commands queued in the sockets belong in between.
            for _ in range(_TICKS_A_TURN):
                self._advance(now)

    def _advance(self, now: float) -> None:
        """Advance the physics by a step if one is due."""
        if self._due <= now:
            self._due += self.config.timestep
            self.sessions.tick()

    def stop(self) -> None:
        """Make :meth:`run` return."""
        self._running = False

    def close(self) -> None:
        """Close every socket; may be called twice."""
        for watched in list(self._sockets.values()):
            self._drop(watched)

    def _watch(self, watched: socket.socket, read: Callable[[], None]) -> None:
        self._readers[watched.fileno()] = read
        self._sockets[watched.fileno()] = watched
        self._waited_for = list(self._readers)

    def _drop(self, watched: socket.socket) -> None:
        del self._readers[watched.fileno()]
        del self._sockets[watched.fileno()]
        self._waited_for = list(self._readers)
        watched.close()

    # Transports.

    def _listen(
        self, port: int, accept: Callable[[socket.socket], None], host: str = ""
    ) -> socket.socket:
        """Listen on a port of an address, that of the configuration unless given.

        Raises:
            OSError: If the port is not available.
        """
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._watch(listener, lambda: accept(listener))
        listener.bind((host or self.config.host, port))
        listener.listen()
        listener.setblocking(False)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        connection, address = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(0.2)
        reader = StreamReader()

        def send(frame: bytes) -> None:
            # Clients may read delimiter and frame at once, so they are sent in one piece.
            with contextlib.suppress(OSError):
                connection.sendall(delimit(frame))

        peer = Peer(send, f"tcp {address[0]}:{address[1]}", lambda: self._hang_up(connection))

        def read() -> None:
            try:
                data = connection.recv(65536)
                for frame in reader.feed(data):
                    self.sessions.answer(peer, frame)
            except (OSError, ProtocolError):
                data = b""
            if not data:
                self._hang_up(connection)

        self.sessions.peers.append(peer)
        self._streams[connection] = peer
        self._watch(connection, read)

    def _hang_up(self, connection: socket.socket) -> None:
        peer = self._streams.pop(connection)
        self.sessions.end(peer)
        self.sessions.peers.remove(peer)
        self._drop(connection)

    def _read_datagrams(self) -> None:
        for _ in range(_DATAGRAMS_A_TURN):
            try:
                data, address = self._udp.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                self._more = False
                return
            except OSError:  # a reply found its port closed
                continue
            self._read_datagram(data, address)
            if not self.sessions.in_cycle():
                # After a pause of this process several commands are queued: each gets its step.
                self._advance(time.monotonic())
        self._more = True

    def _read_datagram(self, data: bytes, address: Any) -> None:
        peer = self._datagram_peers.get(address) or self._new_datagram_peer(address)
        if not self.network.idle:
            answer = functools.partial(self.sessions.answer, peer, data)
            self.network.carry(time.monotonic(), answer)
        elif not self.sessions.answer_refresh(peer, data):
            self.sessions.answer(peer, data)

    def _new_datagram_peer(self, address: Any) -> Peer:
        if len(self._datagram_peers) > _PEERS:
            known = {a: peer for a, peer in self._datagram_peers.items() if peer.session}
            self._datagram_peers = known
            self.sessions.peers = [*self._streams.values(), *known.values()]
        peer = Peer(self._datagram_sender(address), f"udp {address[0]}:{address[1]}")
        self._datagram_peers[address] = peer
        self.sessions.peers.append(peer)
        return peer

    def _datagram_sender(self, address: Any) -> Callable[[bytes], None]:
        def transmit(frame: bytes) -> None:
            with contextlib.suppress(OSError):
                self._udp.sendto(frame, address)

        def send(frame: bytes) -> None:
            if self.network.idle:
                transmit(frame)
            else:
                self.network.carry(time.monotonic(), lambda: transmit(frame))

        return send

    # Experiments.

    def _accept_control(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(1.0)
        control = Control(self.robot, self.sessions, self.network)
        buffer = bytearray()

        def read() -> None:
            try:
                data = connection.recv(65536)
                buffer.extend(data)
                while (end := buffer.find(b"\n")) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    connection.sendall(json.dumps(control.answer(line)).encode() + b"\n")
                if len(buffer) > _LONGEST_LINE:
                    error = {"error": f"a line has {_LONGEST_LINE} bytes at most"}
                    connection.sendall(json.dumps(error).encode() + b"\n")
                    data = b""
            except OSError:
                data = b""
            if not data:
                self._drop(connection)

        self._watch(connection, read)
