# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Requests of a parent to its streamer: carried out in order or refused, never lost.

The parent appends each request to a ring and gets a ticket; the streamer enters the answer to
every ticket in a table, which the parent reads without waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ndp_ros.errors import StreamError
from ndp_ros.streaming.layout import ANSWERS, REQUESTS, SAFE_REQUESTS, decode, encode
from ndp_ros.streaming.slots import Ring, Slot

_RESERVED = 2
"""Places in the queue that are kept free for safe requests."""


class RequestQueue:
    """Both ends of the requests in a mailbox."""

    def __init__(
        self, ring: Ring, status: Slot, last_ticket: memoryview, beat: Callable[[], None]
    ) -> None:
        """Build on the parts of a mailbox.

        Args:
            ring: Requests on their way.
            status: Slot with the table of answers, which the streamer publishes.
            last_ticket: One word of shared memory.
            beat: Heartbeat of the parent, called while it waits.
        """
        self._ring, self._status = ring, status
        self._last_ticket, self._beat = last_ticket, beat
        status.load()
        self._answered = int(status["answers"]["ticket"].max())
        """Requests that another streamer on the same memory has answered before."""

    # -- the parent's end --------------------------------------------------------------------

    def ask(
        self, kind: str, seed: int = 0, timeout: float = 60.0, values: Sequence[float] = ()
    ) -> int:
        """Ask the streamer for something and return a ticket for :meth:`answer`.

        Args:
            kind: ``follow`` accepts segments; ``hold`` brakes and holds; ``reset`` draws
                a new start state from ``seed`` (simulated arms); ``stop`` brakes, holds and
                latches a fault; ``clear_fault`` unlatches it (the streamer then holds);
                ``quit`` brakes, stops the arm and ends the process. The clock of a simulated
                arm stops with ``pause``, moves on by ``seed`` ticks with ``step``, and goes on
                with ``resume``. ``tune`` takes other values of the parameters ``TUNABLE``.
            seed: For ``reset`` and ``step``.
            timeout: Time after which the loop refuses a request that would begin a motion,
                because the caller has given up by then [s].
            values: For ``tune``, in the order of ``TUNABLE``.

        Raises:
            StreamError: If there is no such request, or if too many wait for an answer.
        """
        if kind not in REQUESTS:
            raise StreamError.choice("request", kind, REQUESTS)
        ticket = self._last_ticket[0] + 1
        waiting = ANSWERS - 1 - (0 if kind in SAFE_REQUESTS else _RESERVED)
        if ticket > waiting and self.answer(ticket - waiting) is None:
            raise StreamError(f"{waiting} requests wait for the streamer: {kind} was not passed on")
        record = self._ring.record
        self._last_ticket[0] = record["ticket"] = ticket
        record["kind"], record["seed"] = REQUESTS.index(kind), seed
        record["expires"] = time.monotonic() + timeout
        record["values"][: len(values)] = values
        self._ring.append()
        return ticket

    def answer(self, ticket: int) -> str | None:
        """Return None while a request waits, then an empty text or why it was refused."""
        self._status.load()
        answer = self._status["answers"][ticket % ANSWERS]
        answered = int(answer["ticket"])
        if answered < ticket:
            return None
        if answered > ticket:
            return "the answer was replaced by a later one before it was read: ask again"
        return decode(answer["refusal"])

    def wait(self, ticket: int, timeout: float = 5.0) -> None:
        """Block until a request is answered; for programs, not for callbacks.

        Raises:
            StreamError: If it is refused, or not answered within ``timeout`` [s].
        """
        deadline = time.monotonic() + timeout
        while (refusal := self.answer(ticket)) is None:
            if time.monotonic() > deadline:
                raise StreamError(f"the streamer did not answer within {timeout:g} s")
            self._beat()
            time.sleep(0.002)
        if refusal:
            raise StreamError(refusal)

    # -- the streamer's end ------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether requests have come that this process has not read."""
        return self._ring.pending

    @property
    def place(self) -> int:
        """Number of requests that this process has read."""
        return self._ring.place

    @property
    def head(self) -> memoryview:
        """Number of requests that have come, in shared memory."""
        return self._ring.head

    def read(self) -> Iterator[Any]:
        """Yield the records that await an answer, in order: their fields are those of ``ask``."""
        return (r for r in self._ring.read()[0] if r["ticket"] > self._answered)

    def reply(self, record: Any, refusal: str) -> None:
        """Enter an answer, empty for a request that was carried out; ``status`` publishes it."""
        ticket = int(record["ticket"])
        self._status["answers"][ticket % ANSWERS] = ticket, encode(refusal)

    def release(self) -> None:
        """Release the shared memory."""
        self._ring.release()
        self._last_ticket.release()
