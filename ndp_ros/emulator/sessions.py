# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Sessions with the emulated arm: answers to requests over either transport.

A peer is one connection. Its requests are answered in order; between them the physics advances and
events are reported to subscribers.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from ndp_ros.arms.kortex.codes import ErrorCode, ServoingMode, SubCode
from ndp_ros.arms.kortex.errors import ProtocolError
from ndp_ros.arms.kortex.schema import METHODS, METHODS_BY_UID, TOPICS, message
from ndp_ros.arms.kortex.wire import (
    VERSION,
    FrameType,
    Header,
    decode_frame,
    encode_frame,
    fast_header,
    fast_payload,
)
from ndp_ros.emulator.config import EmulatorConfig
from ndp_ros.emulator.request import Refusal
from ndp_ros.emulator.robot import Robot
from ndp_ros.emulator.services import Services, no_function, parse

_REFRESH = METHODS["BaseCyclic.Refresh"].uid
_SET_SERVOING = METHODS["Base.SetServoingMode"].uid
_REFRESH_WORD = VERSION << 28 | _REFRESH
_REQUEST_WORD = VERSION << 28 | FrameType.REQUEST << 24
_Command = METHODS["BaseCyclic.Refresh"].request
_CREATE_SESSION = METHODS["Session.CreateSession"].uid


class Peer:
    """One client connection over either transport, with its session and subscriptions."""

    def __init__(
        self, send: Callable[[bytes], None], name: str, hang_up: Callable[[], None] = lambda: None
    ) -> None:
        """Describe a connection by its transport and address; ``send`` sends one frame."""
        self.send, self.name, self.hang_up = send, name, hang_up
        self.session = 0
        """Identifier of the session; 0 before CreateSession and after it ended."""
        self.session_timeout = self.connection_timeout = 0.0
        self.heard = 0.0
        """Physics time of the last request [s]."""
        self.silent = False
        self.subscriptions: dict[int, str] = {}
        self._handles = itertools.count(1)

    def subscribe(self, topic: str) -> int:
        """Add a subscription and return its handle."""
        handle = next(self._handles)
        self.subscriptions[handle] = topic
        return handle

    def unsubscribe(self, handle: int) -> bool:
        """Remove a subscription; return whether there was one."""
        return self.subscriptions.pop(handle, None) is not None


class Sessions:
    """All clients of one robot.

    Attributes:
        robot: The arm.
        services: Its procedures.
        peers: Every connection, with or without a session.
    """

    def __init__(self, config: EmulatorConfig, robot: Robot) -> None:
        """Start without connections."""
        self.config, self.robot = config, robot
        self.services = Services(robot)
        self.peers: list[Peer] = []
        self._identifiers = itertools.count(1)
        self._pending: list[Any] = []
        self._last_refresh = 0.0

    # Time.

    def in_cycle(self) -> bool:
        """Return whether commands and not the clock advance the physics.

        Without a command for the watchdog's time the clock takes over.
        """
        return (
            self.config.cycle > 0.0
            and self.robot.servoing is ServoingMode.LOW_LEVEL
            and time.monotonic() - self._last_refresh < self.config.watchdog
        )

    def tick(self) -> None:
        """Advance the physics by a step, report events and end silent sessions."""
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
                self.end(peer)
        if robot.controller:
            # Prepare this step's feedback, so that the next request is answered at once.
            self.services.feedback.now()

    # Requests.

    def answer_refresh(self, peer: Peer, data: bytes) -> bool:
        """Answer a cyclic command before it is processed; False if it is not a plain one.

        The feedback is that of the last step either way, and the next step follows the command, so
        the client does not wait for the processing.
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
        except Exception:  # the general way reports every error
            return False
        payload = services.feedback.reply(request).SerializeToString()
        header = Header(FrameType.RESPONSE, _REFRESH, words[1] & 0xFFFF, session)
        peer.send(encode_frame(header, payload))
        peer.heard, peer.silent = robot.time, False
        self._pending.append(request)
        return True

    def answer(self, peer: Peer, frame: bytes) -> None:
        """Answer one frame; ignore anything else."""
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
        uid, number, device = header.uid, header.message, header.device
        kind, session = FrameType.RESPONSE, peer.session
        answer = Header(kind, uid, number, session, device, code, sub_code)
        peer.send(encode_frame(answer, data))
        if header.uid == METHODS["Session.CloseSession"].uid:
            self.end(peer)

    def _serve(self, peer: Peer, header: Header, payload: bytes) -> bytes:
        if header.version != VERSION:
            raise Refusal(
                SubCode.INCOMPATIBLE_HEADER_VERSION,
                f"header version {header.version}",
                ErrorCode.PROTOCOL_SERVER,
            )
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
                self.tick()
            self.services.feedback.now()
        data: bytes = response.SerializeToString()
        return data

    def _take_pending(self) -> None:
        """Process the commands that were answered but not processed yet."""
        pending, self._pending = self._pending, []
        for request in pending:
            self.services.take(request)

    def _create_session(self, peer: Peer, payload: bytes) -> None:
        info = parse(METHODS["Session.CreateSession"].request, payload)
        if info.username != self.config.username:
            raise Refusal(SubCode.USER_NOT_FOUND, "User not found", ErrorCode.PROTOCOL_SERVER)
        if info.password != self.config.password:
            raise Refusal(SubCode.INVALID_PASSWORD, "Wrong password", ErrorCode.PROTOCOL_SERVER)
        self.end(peer)
        peer.session = next(self._identifiers) & 0xFFFF
        peer.session_timeout = info.session_inactivity_timeout / 1000.0
        peer.connection_timeout = info.connection_inactivity_timeout / 1000.0
        peer.heard, peer.silent = self.robot.time, False

    def _session_service(self, uid: int) -> bytes:
        """Answer the session service; only the list of connections has content."""
        method = METHODS_BY_UID.get(uid)
        if method is None:
            raise no_function(uid)
        response = method.response()
        if method.name == "Session.GetConnections":
            for peer in self.peers:
                if peer.session:
                    response.connection.add(
                        connection_information=peer.name, connection_identifier=peer.session
                    )
        data: bytes = response.SerializeToString()
        return data

    def end(self, peer: Peer) -> None:
        """End the session of a peer, if it has one, and everything that it started."""
        if peer.session:
            self.robot.lose(peer.session)
            peer.session = 0
            peer.subscriptions.clear()

    def hang_up_streams(self) -> None:
        """Close every TCP connection, as a pulled cable or a reboot would."""
        for peer in list(self.peers):
            peer.hang_up()

    def end_all(self) -> None:
        """End every session on either channel."""
        for peer in self.peers:
            self.end(peer)

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
