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
import select
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
    fast_header,
    fast_payload,
)
from ndp_ros.errors import ArmError

log = logging.getLogger(__name__)

_CATCH_UP = 0.003
"""Physics that is made up for in one go [s]."""
_TICKS_A_TURN = 2
_DATAGRAMS_A_TURN = 16
"""Datagrams that are answered before physics goes on: after a pause of this process they wait
in a row, and the newest must not get its answer late for as long as physics is behind."""
_PEERS = 64
"""Senders of datagrams that are remembered without a session."""
_REFRESH = METHODS["BaseCyclic.Refresh"].uid
_SET_SERVOING = METHODS["Base.SetServoingMode"].uid
_REFRESH_WORD = VERSION << 28 | _REFRESH
_REQUEST_WORD = VERSION << 28 | FrameType.REQUEST << 24
_Command = METHODS["BaseCyclic.Refresh"].request
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
        self._due = 0.0
        self._more = False
        """Whether datagrams wait that came while this process was off the processor."""
        self._sessions = itertools.count(1)
        self._datagram_peers: dict[Any, Peer] = {}
        self._readers: dict[int, Callable[[], None]] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._waited_for: list[int] = []
        self._pending: list[Any] = []
        self._last_refresh = 0.0
        self._streams: dict[socket.socket, Peer] = {}
        self._running = True
        try:
            self._tcp = self._listen(config.port, self._accept)
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.setblocking(False)
            self._watch(self._udp, self._read_datagrams)
            self._udp.bind((config.host, config.udp_port))
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
            self._readers[watch] = self.stop
            self._waited_for = list(self._readers)
        step = self.config.timestep
        # As the emulated arm is done with a step before the next begins, this is its deadline.
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
                self.slipped += now - self._due - _CATCH_UP
                self._due = now - _CATCH_UP
            if self._in_cycle():
                self._due = now + step
            # Not all at once: commands that wait in the sockets belong in between.
            for _ in range(_TICKS_A_TURN):
                self._advance(now)

    def _advance(self, now: float) -> None:
        """Advance the physics by a step if one is due."""
        if self._due <= now:
            self._due += self.config.timestep
            self._tick()

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

    def _in_cycle(self) -> bool:
        """Whether commands and not the clock advance the physics.

        When they stay away for the watchdog's time the clock goes on, to its end.
        """
        return (
            self.config.cycle > 0.0
            and self.robot.servoing is ServoingMode.LOW_LEVEL
            and time.monotonic() - self._last_refresh < self.config.watchdog
        )

    def _tick(self) -> None:
        robot = self.robot
        self._take_pending()
        robot.tick()
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
        """Listen on a port.

        Raises:
            OSError: If it cannot be had.
        """
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._watch(listener, lambda: accept(listener))
        listener.bind((self.config.host, port))
        listener.listen()
        listener.setblocking(False)
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

        def read() -> None:
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
        self._watch(connection, read)

    def _hang_up(self, connection: socket.socket) -> None:
        peer = self._streams.pop(connection)
        self._end_session(peer)
        self.peers.remove(peer)
        self._drop(connection)

    def end_sessions(self) -> None:
        """End every session on either channel."""
        for peer in self.peers:
            self._end_session(peer)

    def cut_streams(self) -> None:
        """Close every TCP connection, as a pulled cable and a reboot would."""
        for connection in list(self._streams):
            self._hang_up(connection)

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
            if not self._in_cycle():
                # After a pause of this process commands wait in a row: each has its step.
                self._advance(time.monotonic())
        self._more = True

    def _read_datagram(self, data: bytes, address: Any) -> None:
        peer = self._datagram_peers.get(address) or self._new_datagram_peer(address)
        if not self.network.idle:
            answer = functools.partial(self._answer, peer, data)
            self.network.carry(time.monotonic(), answer)
        elif not self._answer_refresh(peer, data):
            self._answer(peer, data)

    def _new_datagram_peer(self, address: Any) -> Peer:
        if len(self._datagram_peers) > _PEERS:
            known = {a: peer for a, peer in self._datagram_peers.items() if peer.session}
            self._datagram_peers = known
            self.peers = [*self._streams.values(), *known.values()]
        peer = Peer(self._datagram_sender(address), f"udp {address[0]}:{address[1]}")
        self._datagram_peers[address] = peer
        self.peers.append(peer)
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

    # Requests.

    def _answer_refresh(self, peer: Peer, data: bytes) -> bool:
        """Answer a cyclic command before it is worked on; False if it is not a usual one.

        The feedback is that of the last step either way, and the next step follows the
        command: the client need not wait for what lies between.
        """
        words = fast_header(data)
        if words is None or words[2] != _REFRESH_WORD or words[0] != _REQUEST_WORD:
            return False
        session = peer.session
        if not session or words[1] >> 16 != session or self.config.cycle:
            return False
        services, robot = self.services, self.robot
        try:
            request = _Command.FromString(fast_payload(data))
            robot.admit(session, len(request.actuators))
        except Exception:  # whatever it is, the general way says it
            return False
        payload = services.reply(request).SerializeToString()
        header = Header(FrameType.RESPONSE, _REFRESH, words[1] & 0xFFFF, session)
        peer.send(encode_frame(header, payload))
        peer.heard, peer.silent = robot.time, False
        self._pending.append(request)
        return True

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
            if header.uid == _REFRESH:
                self.robot.record.refused += 1
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
        self._take_pending()
        if header.uid >> 16 == 1:
            return self._session_service(header.uid)
        method = METHODS_BY_UID.get(header.uid)
        response = self.services.call(peer, method, header.uid, header.device, payload)
        if header.uid == _SET_SERVOING:
            self._last_refresh = time.monotonic()
        if header.uid == _REFRESH and self.config.cycle:
            self._last_refresh = time.monotonic()
            for _ in range(round(self.config.cycle / self.config.timestep)):
                self._tick()
            self.services.feedback()
        data: bytes = response.SerializeToString()
        return data

    def _take_pending(self) -> None:
        """Hand over the commands that were answered and not worked on yet."""
        pending, self._pending = self._pending, []
        for request in pending:
            self.services.take(request)

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

        def read() -> None:
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
                self._drop(connection)

        self._watch(connection, read)
