# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A relay between the client and the emulated arm that bends what passes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from kortex_support import HOST

from ndp_ros.arms.kortex.schema import MESSAGES, METHODS_BY_UID
from ndp_ros.arms.kortex.wire import StreamReader, decode_frame, delimit, encode_frame
from ndp_ros.emulator.process import EmulatorProcess

Bend = Callable[[str, Any, bytes], list[bytes] | None]
"""Gets a method, a frame's header and its payload; returns what goes on instead; None: as it is."""


class Proxy:
    """Ports of its own in front of an emulator's.

    Attributes:
        answer, command: How answers over UDP, and commands, are bent.
        reply, request: The same over TCP; whole pieces of the stream.
        commands: Every cyclic command that passed.
    """

    def __init__(self, emulator: EmulatorProcess) -> None:
        self.answer: Bend | None = None
        self.command: Bend | None = None
        self.reply: Bend | None = None
        self.request: Bend | None = None
        self.commands: list[Any] = []
        self._ends: list[socket.socket] = []
        self.emulator = emulator
        self._tcp = self._keep(socket.create_server((HOST, 0)))
        self._near = self._keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._near.bind((HOST, 0))
        self._far = self._keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._far.connect((HOST, emulator.udp_port))
        self.port, self.udp_port = (s.getsockname()[1] for s in (self._tcp, self._near))
        self._client: Any = None
        for task in (self._accept, self._outwards, self._back):
            threading.Thread(target=self._quietly, args=(task,), daemon=True).start()

    def _keep(self, end: socket.socket) -> socket.socket:
        self._ends.append(end)
        return end

    def _quietly(self, task: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(OSError, ValueError, TypeError):  # the ends are closed
            task(*arguments)

    def _accept(self) -> None:
        while True:
            near = self._keep(self._tcp.accept()[0])
            far = self._keep(socket.create_connection((HOST, self.emulator.port)))
            for source, sink, way in ((near, far, "request"), (far, near, "reply")):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                pipe = (self._pipe, source, sink, way)
                threading.Thread(target=self._quietly, args=pipe, daemon=True).start()

    def _pipe(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        reader = StreamReader()
        while data := source.recv(65536):
            for frame in reader.feed(data):
                header, payload = decode_frame(frame)
                bent = self._bend(getattr(self, way), header, payload)
                for piece in [delimit(frame)] if bent is None else bent:
                    sink.sendall(piece)
        sink.shutdown(socket.SHUT_RDWR)

    def _outwards(self) -> None:
        while True:
            data, self._client = self._near.recvfrom(65507)
            header, payload = decode_frame(data)
            if _name(header) == "BaseCyclic.Refresh":
                self.commands.append(MESSAGES["Command"].FromString(payload))
            bent = self._bend(self.command, header, payload)
            for datagram in [data] if bent is None else bent:
                self._far.send(datagram)

    def _back(self) -> None:
        while True:
            data = self._far.recv(65507)
            header, payload = decode_frame(data)
            bent = self._bend(self.answer, header, payload)
            for datagram in [data] if bent is None else bent:
                self._near.sendto(datagram, self._client)

    @staticmethod
    def _bend(bend: Bend | None, header: Any, payload: bytes) -> list[bytes] | None:
        return bend(_name(header), header, payload) if bend else None

    def close(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _name(header: Any) -> str:
    method = METHODS_BY_UID.get(header.uid)
    return method.name if method else str(header.uid)


def feedback(change: Callable[[Any], object]) -> Bend:
    """Return a bend that lets a function change every cyclic feedback."""

    def bend(name: str, header: Any, payload: bytes) -> list[bytes] | None:
        if not name.startswith("BaseCyclic.Refresh") or header.error_code:
            return None
        message = MESSAGES["Feedback"].FromString(payload)
        change(message)
        return [encode_frame(header, message.SerializeToString())]

    return bend


def once(change: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return a change that happens to one feedback alone."""
    left = [change]
    return lambda message: left.pop()(message) if left else None
