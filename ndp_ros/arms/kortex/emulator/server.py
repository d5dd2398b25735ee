"""Sockets, sessions and the clock of the emulator: one loop in one thread.

The loop waits for datagrams and bytes, answers them, and advances the physics by
one step each time its period has passed. Physics time is the only clock inside:
when the machine takes this process off the processor for longer than
``_CATCH_UP``, physics time stands still meanwhile, so that a slow machine is
no lost frame.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

from ndp_ros.arms.arm import ArmConfig
from ndp_ros.arms.kortex.emulator.config import EmulatorConfig
from ndp_ros.arms.kortex.emulator.control import Control
from ndp_ros.arms.kortex.emulator.network import Network
from ndp_ros.arms.kortex.emulator.robot import Refusal, Robot
from ndp_ros.arms.kortex.emulator.services import Services, parse
from ndp_ros.arms.kortex.errors import ProtocolError
from ndp_ros.arms.kortex.schema import (
    METHODS,
    METHODS_BY_UID,
    TOPICS,
    ErrorCode,
    ServoingMode,
    SubCode,
    message,
)
from ndp_ros.arms.kortex.wire import (
    MAX_DATAGRAM,
    VERSION,
    FrameType,
    Header,
    StreamReader,
    decode_frame,
    delimit,
    encode_frame,
)
from ndp_ros.errors import ArmError

log = logging.getLogger(__name__)

_CATCH_UP = 0.05
"""Physics that is made up for in one go [s]."""
_DATAGRAMS_A_TURN = 16
_REFRESH = METHODS["BaseCyclic.Refresh"].uid
_CREATE_SESSION = METHODS["Session.CreateSession"].uid


class Peer:
    """One client connection over either transport, with its session and subscriptions."""

    def __init__(self, send: Callable[[bytes], None], name: str) -> None:
        self.send = send
        self.name = name
        self.session = 0
        """Identifier of the session; 0 before CreateSession and after it ended."""
        self.session_timeout = 0.0
        self.connection_timeout = 0.0
        self.heard = 0.0
        """Physics time of the last request [s]."""
        self.silent = False
        self.subscriptions: dict[int, str] = {}
        self._handles = itertools.count(1)

    def subscribe(self, topic: str) -> int:
        """Remember a subscription and return its handle."""
        handle = next(self._handles)
        self.subscriptions[handle] = topic
        return handle

    def unsubscribe(self, handle: int) -> bool:
        """Forget a subscription; whether there was one."""
        return self.subscriptions.pop(handle, None) is not None


class Emulator:
    """A Kortex arm on TCP and UDP ports of this machine.

    Attributes:
        robot: The arm behind the sockets.
        network: What happens to datagrams.
        port: TCP port.
        udp_port: UDP port.
        control_port: TCP port for experiments.
    """

    def __init__(self, config: EmulatorConfig) -> None:
        """Open the ports; nothing is answered before :meth:`run`.

        Raises:
            ArmError: If a port is in use.
        """
        self.config = config
        self.robot = Robot(config, ArmConfig.named(config.arm))
        self.services = Services(self.robot)
        self.network = Network(config.network)
        self.peers: list[Peer] = []
        self.slipped = 0.0
        """Time by which physics fell behind the clock and did not catch up [s]."""
        self._sessions = itertools.count(1)
        self._datagram_peers: dict[Any, Peer] = {}
        self._selector = (
            selectors.SelectSelector()
        )  # waits to the microsecond; epoll to the millisecond
        self._streams: dict[socket.socket, Peer] = {}
        self._running = True
        try:
            self._tcp = self._listen(config.port, self._accept)
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.bind((config.host, config.udp_port))
            self._udp.setblocking(False)
            self._selector.register(self._udp, selectors.EVENT_READ, self._read_datagrams)
            self._control = self._listen(config.control_port, self._accept_control)
        except OSError as error:
            self.close()
            raise ArmError(
                f"cannot listen on {config.host}, ports {config.port}, {config.udp_port} and "
                f"{config.control_port}: {error.strerror}"
            ) from error
        self.port: int = self._tcp.getsockname()[1]
        self.udp_port: int = self._udp.getsockname()[1]
        self.control_port: int = self._control.getsockname()[1]

    # The loop.

    def run(self, watch: int | None = None) -> None:
        """Serve until :meth:`stop`.

        Args:
            watch: A file descriptor whose end of file ends the loop too: the pipe of
                a parent process, which closes however the parent dies.
        """
        if watch is not None:
            self._selector.register(watch, selectors.EVENT_READ, lambda _: self.stop())
        step = self.config.timestep
        # As the emulated arm is done with a step before the next begins, this is its deadline.
        due = time.monotonic() + step
        while self._running:
            now = time.monotonic()
            wait = min(due, self.network.due()) - now
            for key, _ in self._selector.select(max(0.0, wait)):
                key.data(key.fileobj)
            now = time.monotonic()
            self.network.advance(now)
            if now - due > _CATCH_UP:
                self.slipped += now - due - _CATCH_UP
                due = now - _CATCH_UP
            if self._in_cycle():
                due = now + step
            while due <= now and self._running:
                due += step
                self._tick()

    def stop(self) -> None:
        """Make :meth:`run` return."""
        self._running = False

    def close(self) -> None:
        """Close every socket."""
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()

    def _in_cycle(self) -> bool:
        """Whether commands and not the clock advance the physics."""
        return self.config.cycle > 0.0 and self.robot.servoing is ServoingMode.LOW_LEVEL

    def _tick(self) -> None:
        self.robot.tick()
        robot = self.robot
        if robot.events:
            events, robot.events = robot.events, []
            for event in events:
                self._notify(event.topic, event.fields)
        now = robot.time
        for peer in self.peers:
            if not peer.session:
                continue
            quiet = now - peer.heard
            if quiet > peer.connection_timeout and not peer.silent:
                peer.silent = True
                robot.lose(peer.session)
            if quiet > peer.session_timeout:
                self._end_session(peer)
        if robot.controller:
            # Whoever asks next gets this step's feedback without waiting for it.
            self.services.feedback()

    # Transports.

    def _listen(self, port: int, accept: Callable[[socket.socket], None]) -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.config.host, port))
        listener.listen()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, accept)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        connection, address = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(0.2)
        reader = StreamReader()

        def send(frame: bytes) -> None:
            # Delimiter and frame leave in one piece: clients may read them in one.
            with contextlib.suppress(OSError):
                connection.sendall(delimit(frame))

        peer = Peer(send, f"tcp {address[0]}:{address[1]}")

        def read(_: socket.socket) -> None:
            try:
                data = connection.recv(65536)
                for frame in reader.feed(data):
                    self._answer(peer, frame)
            except (OSError, ProtocolError):
                data = b""
            if not data:
                self._hang_up(connection)

        self.peers.append(peer)
        self._streams[connection] = peer
        self._selector.register(connection, selectors.EVENT_READ, read)

    def _hang_up(self, connection: socket.socket) -> None:
        peer = self._streams.pop(connection)
        self._end_session(peer)
        self.peers.remove(peer)
        self._selector.unregister(connection)
        connection.close()

    def end_sessions(self) -> None:
        """End every session on either channel."""
        for peer in self.peers:
            self._end_session(peer)

    def cut_streams(self) -> None:
        """Close every TCP connection, as a pulled cable and a reboot would."""
        for connection in list(self._streams):
            self._hang_up(connection)

    def _read_datagrams(self, udp: socket.socket) -> None:
        # A client that asks without pause must not keep the physics waiting.
        for _ in range(_DATAGRAMS_A_TURN):
            try:
                data, address = udp.recvfrom(MAX_DATAGRAM)
            except OSError:  # nothing left, or a reply that found its port closed
                return
            peer = self._datagram_peers.get(address)
            if peer is None:
                peer = self._datagram_peers[address] = Peer(
                    self._datagram_sender(address), f"udp {address[0]}:{address[1]}"
                )
                self.peers.append(peer)
            if self.network.idle:
                self._answer(peer, data)
            else:
                answer = functools.partial(self._answer, peer, data)
                self.network.carry(time.monotonic(), answer)

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

    # Requests.

    def _answer(self, peer: Peer, frame: bytes) -> None:
        try:
            header, payload = decode_frame(frame)
        except ProtocolError:
            return
        if header.kind == FrameType.PING:
            peer.send(encode_frame(header._replace(kind=FrameType.PONG), payload))
            return
        if header.kind != FrameType.REQUEST:
            return
        try:
            data = self._serve(peer, header, payload)
            code = sub_code = 0
        except Refusal as refusal:
            code, sub_code = refusal.code, refusal.sub_code
            data = message(
                "Error", error_code=code, error_sub_code=sub_code, error_sub_string=str(refusal)
            ).SerializeToString()
        peer.send(
            encode_frame(
                Header(
                    FrameType.RESPONSE, header.uid, header.message, peer.session, header.device,
                    code, sub_code,
                ),
                data,
            )
        )  # fmt: skip
        if header.uid == METHODS["Session.CloseSession"].uid:
            self._end_session(peer)

    def _serve(self, peer: Peer, header: Header, payload: bytes) -> bytes:
        if header.version != VERSION:
            raise Refusal(
                SubCode.INCOMPATIBLE_HEADER_VERSION, f"header version {header.version}",
                ErrorCode.PROTOCOL_SERVER,
            )  # fmt: skip
        if header.uid == _CREATE_SESSION:
            self._create_session(peer, payload)
            return b""
        if not peer.session or header.session != peer.session:
            raise Refusal(SubCode.INVALID_SESSION, "Invalid session", ErrorCode.PROTOCOL_SERVER)
        peer.heard, peer.silent = self.robot.time, False
        if header.uid >> 16 == 1:
            return self._session_service(header.uid)
        method = METHODS_BY_UID.get(header.uid)
        response = self.services.call(peer, method, header.uid, header.device, payload)
        if header.uid == _REFRESH and self._in_cycle():
            for _ in range(round(self.config.cycle / self.config.timestep)):
                self._tick()
            self.services.feedback()
        data: bytes = response.SerializeToString()
        return data

    def _create_session(self, peer: Peer, payload: bytes) -> None:
        info = parse(METHODS["Session.CreateSession"].request, payload)
        if info.username != self.config.username:
            raise Refusal(SubCode.USER_NOT_FOUND, "User not found", ErrorCode.PROTOCOL_SERVER)
        if info.password != self.config.password:
            raise Refusal(SubCode.INVALID_PASSWORD, "Wrong password", ErrorCode.PROTOCOL_SERVER)
        self._end_session(peer)
        peer.session = next(self._sessions) & 0xFFFF
        peer.session_timeout = info.session_inactivity_timeout / 1000.0
        peer.connection_timeout = info.connection_inactivity_timeout / 1000.0
        peer.heard, peer.silent = self.robot.time, False

    def _session_service(self, uid: int) -> bytes:
        """Close and keep alive need no more than to be heard; connections are listed."""
        method = METHODS_BY_UID.get(uid)
        if method is None:
            raise Refusal(
                SubCode.UNSUPPORTED_METHOD,
                f"Function not registered for function id: {uid & 0xFFFF}",
                ErrorCode.PROTOCOL_SERVER,
            )
        response = method.response()
        if method.name == "Session.GetConnections":
            for peer in self.peers:
                if peer.session:
                    response.connection.add(
                        connection_information=peer.name, connection_identifier=peer.session
                    )
        data: bytes = response.SerializeToString()
        return data

    def _end_session(self, peer: Peer) -> None:
        if peer.session:
            self.robot.lose(peer.session)
            peer.session = 0
            peer.subscriptions.clear()

    def _notify(self, topic: str, fields: dict[str, Any]) -> None:
        method = METHODS[topic]
        for peer in self.peers:
            for handle, subscribed in peer.subscriptions.items():
                if subscribed != topic:
                    continue
                now = time.time()
                note = message(TOPICS[topic], **fields)
                note.timestamp.sec, note.timestamp.usec = int(now), int(now % 1.0 * 1e6)
                peer.send(
                    encode_frame(
                        Header(FrameType.NOTIFICATION, method.uid, handle, peer.session),
                        note.SerializeToString(),
                    )
                )

    # Experiments.

    def _accept_control(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(1.0)
        control = Control(self)
        buffer = bytearray()

        def read(_: socket.socket) -> None:
            try:
                data = connection.recv(65536)
                buffer.extend(data)
                while (end := buffer.find(b"\n")) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    connection.sendall(json.dumps(control.answer(line)).encode() + b"\n")
            except OSError:
                data = b""
            if not data:
                self._selector.unregister(connection)
                connection.close()

        self._selector.register(connection, selectors.EVENT_READ, read)
