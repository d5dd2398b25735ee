# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Pass requests of services to the streamer and await its answers.

The streamer answers through shared memory. A service is a coroutine that awaits its answer, while
the integrator node's timer goes on and completes it.
"""

from __future__ import annotations

import time

from rclpy.node import Node
from rclpy.task import Future

from ndp_ros.errors import StreamError
from ndp_ros.streaming.handle import StreamerHandle

_TIMEOUT = 5.0
"""Time that an answer may take [s]."""


class Requests:
    """Requests that wait for the streamer's answer."""

    def __init__(self, node: Node) -> None:
        """Begin without any; the executor of the node runs the services."""
        self._node = node
        self._waiting: dict[int, tuple[Future[str], float]] = {}

    async def ask(self, stream: StreamerHandle, kind: str, seed: int = 0) -> str:
        """Pass on a request, as :meth:`RequestQueue.ask`; return why it was refused, if it was."""
        if not stream.alive:
            return stream.exit_reason()
        try:
            ticket = stream.mailbox.requests.ask(kind, seed, timeout=_TIMEOUT)
        except StreamError as error:
            return str(error)
        answer: Future[str] = Future(executor=self._node.executor)
        self._waiting[ticket] = answer, time.monotonic() + _TIMEOUT
        return str(await answer)

    def complete(self, stream: StreamerHandle) -> None:
        """Complete the requests that the streamer has answered, or no longer will."""
        for ticket, (future, deadline) in list(self._waiting.items()):
            answer = stream.mailbox.requests.answer(ticket)
            if answer is None and not stream.alive:
                answer = stream.exit_reason()
            if answer is None and time.monotonic() > deadline:
                answer = (
                    f"the streamer did not answer within {_TIMEOUT:g} s; a hold or stop is carried "
                    "out as soon as it ticks again, anything else is not"
                )
            if answer is not None:
                del self._waiting[ticket]
                future.set_result(answer)

    def cancel(self, reason: str) -> None:
        """Refuse all requests that wait."""
        for future, _ in self._waiting.values():
            future.set_result(reason)
        self._waiting.clear()
