"""Shared memory between the integrator and its streamer: slots, rings and heartbeats.

The memory is anonymous (``memfd_create``): its name is a path below ``/proc`` of
the process that made it, other processes attach through that path, and the kernel
frees it when the last of them is gone, however they died. Nothing is ever left
behind for anybody to clean up.

Every value in it has one writer, and neither side ever waits for the other (``slots``).
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ndp_ros.errors import StreamError
from ndp_ros.streaming.clock import quantile
from ndp_ros.streaming.layout import (
    ANSWERS,
    GUARD_NAMES,
    HEADER,
    PHASES,
    REQUESTS,
    RESPONSES,
    SAFE_REQUESTS,
    MailboxLayout,
    room,
)
from ndp_ros.streaming.slots import Matrix, Ring, Slot

Array = NDArray[np.float64]

_MAGIC = b"ndpmail1"


@dataclass(frozen=True)
class ResponseHandle:
    """Where a response matrix lies; a segment names it by this handle."""

    slot: int
    generation: int
    rows: int
    n_basis: int
    duration: float


class Mailbox:
    """Everything that passes between a streamer and its parent.

    From the parent: segments (:meth:`send_segment`), the response matrices that they
    refer to (:meth:`send_response`), requests (:meth:`request`) and a heartbeat
    (:meth:`beat`).

    From the streamer, as slots to ``load()`` and look at:

    - ``state``, every tick: ``time`` [s, CLOCK_MONOTONIC], ``arm_time`` [s, of the
      measurement: CLOCK_MONOTONIC too, or the simulated time of a simulated arm],
      ``ticks``, ``phase`` (index into PHASES),
      ``sequence`` of the active segment (0: none), ``position, velocity, effort``
      (dof,) measured, ``y, yd, ydd`` (dof,) the setpoint, ``poses`` (objects, 7).
    - ``status``, at about 50 Hz and at every change of phase: ``fault`` and ``reason``
      (bytes), ``ticks, missed, worst, histogram`` of the clock, ``costliest, costs`` of
      the loop's body, ``guard`` counts (one per GUARD_NAMES), ``accepted, dropped,
      refused, stretched`` segments, ``pid``. :meth:`report` returns it as plain values.
    - ``samples``, a ring of ``time, arm_time, ticks, sequence, phase, y, yd, ydd,
      position, velocity, torque``: ``samples.read()`` at 50-100 Hz loses none.
    - :meth:`hello`: what the streamer said of its arm and of itself once connected.
    """

    def __init__(self, name: str, fd: int, layout: MailboxLayout) -> None:
        """Map the memory; use :meth:`create` or :meth:`attach` instead."""
        self.name = name
        self.layout = layout
        self._fd = fd
        self._map = mmap.mmap(fd, layout.size)
        self._memory = memoryview(self._map)
        self._sent = 0
        self._generation = 0
        offset = HEADER
        types = layout.types

        def slot(key: str) -> Slot:
            nonlocal offset
            made = Slot(self._memory, offset, types[key])
            offset += room(types[key].itemsize)
            return made

        self._words = self._memory[512 : 512 + 64].cast("q")
        self.segment = slot("segment")
        self.state = slot("state")
        self.status = slot("status")
        self._hello = slot("hello")
        self.requests = Ring(self._memory, offset, types["request"], ANSWERS)
        offset += room(types["request"].itemsize * ANSWERS)
        self.samples = Ring(self._memory, offset, types["sample"], layout.samples)
        offset += room(types["sample"].itemsize * layout.samples)
        # The streamer fills state and samples at every tick: without going through field names.
        self._state_numbers, self._state_counts, self._state_head, self._state_vectors = _split(
            self.state.value, layout.dof, 6
        )
        _, _, self._sample_numbers, self._sample_vectors = _split(
            self.samples.record, layout.dof, 6
        )
        self._responses = []
        for _ in range(RESPONSES):
            self._responses.append(Matrix(self._memory, offset, layout.matrix_size))
            offset += room(layout.matrix_room)

    @classmethod
    def create(cls, layout: MailboxLayout) -> Self:
        """Make the memory; its ``name`` is valid for as long as this process keeps it open.

        Raises:
            StreamError: If the kernel does not grant the memory.
        """
        header = json.dumps(asdict(layout)).encode()
        if len(header) > 400:
            raise StreamError(f"mailbox: the names of {len(layout.objects)} objects are too long")
        try:
            fd = os.memfd_create("ndp-mailbox")
            os.ftruncate(fd, layout.size)
        except OSError as error:
            raise StreamError(
                f"mailbox: cannot get {layout.size} bytes of shared memory: {error}"
            ) from error
        os.pwrite(fd, _MAGIC + len(header).to_bytes(8, "little") + header, 0)
        return cls(f"/proc/{os.getpid()}/fd/{fd}", fd, layout)

    @classmethod
    def attach(cls, name: str) -> Self:
        """Map memory that another process has made.

        Raises:
            StreamError: If it is gone or is no mailbox.
        """
        try:
            fd = os.open(name, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise StreamError(
                f"mailbox {name} cannot be opened ({error.strerror}): its owner has ended"
            ) from error
        head = os.pread(fd, 512, 0)
        if head[:8] != _MAGIC:
            os.close(fd)
            raise StreamError(f"{name} is no mailbox of this version")
        values = json.loads(head[16 : 16 + int.from_bytes(head[8:16], "little")])
        values["objects"] = tuple(values["objects"])
        return cls(name, fd, MailboxLayout(**values))

    # -- the parent's side -------------------------------------------------------------------

    def beat(self) -> None:
        """Say that the parent is alive; call at 20 Hz or more."""
        self._words[0] = time.monotonic_ns()

    def send_response(self, B: Array, duration: float) -> ResponseHandle:
        """Write the response matrix that following segments use.

        There are two places, used in turn, so that the matrix of the segment that
        runs at this moment is never overwritten by its successor's.

        Args:
            B: Response (3, rows, 3 + N) float64 at the normalised times
                i / (rate * duration), i = 0 ... rows - 1, of the loop's ticks; the rows
                cover the horizon and the grace time after it.
            duration: tau [s] that the rows were made for.

        Raises:
            StreamError: If it is larger than the layout or not finite.
        """
        B = np.asarray(B, np.float64)
        limit = f"(3, <= {self.layout.max_rows}, 4 to {3 + self.layout.max_basis})"
        if B.ndim != 3 or B.shape[0] != 3 or not 4 <= B.shape[2] <= 3 + self.layout.max_basis:
            raise StreamError(f"response has shape {B.shape}, expected {limit}")
        if not 2 <= B.shape[1] <= self.layout.max_rows:
            raise StreamError(f"response has shape {B.shape}, expected {limit}")
        if not np.isfinite(B).all() or not (np.isfinite(duration) and duration > 0.0):
            raise StreamError(f"response or its duration ({duration} s) is not finite")
        self._generation += 1
        slot = self._generation % RESPONSES
        self._responses[slot].write(self._generation, B, duration)
        return ResponseHandle(slot, self._generation, B.shape[1], B.shape[2] - 3, duration)

    def send_segment(
        self,
        g: Array,
        w: Array,
        stamp: float,
        sequence: int,
        response: ResponseHandle,
        origin: Array | None = None,
    ) -> None:
        """Hand a segment over; a newer one replaces one that was not taken yet.

        Values are not judged here: the streamer's guard does, and counts.

        Args:
            g: Goal (dof,) [rad].
            w: Weights (dof, N).
            stamp: When the observation was taken [s, CLOCK_MONOTONIC].
            sequence: Number of the segment, 1 or more.
            response: Where its response matrix lies; fixes its duration.
            origin: Setpoint (dof,) [rad] from which the goal was meant: whoever chose it
                saw that one, and the segment starts later, from another. The goal then
                moves along. None for a goal that stands where it is.

        Raises:
            StreamError: If a shape does not fit layout and response.
        """
        dof, n = self.layout.dof, response.n_basis
        g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
        if g.shape != (dof,) or w.shape != (dof, n):
            raise StreamError(
                f"segment has g {g.shape} and w {w.shape}, expected ({dof},) and ({dof}, {n})"
            )
        origin = np.full(dof, np.nan) if origin is None else np.asarray(origin, np.float64)
        if origin.shape != (dof,):
            raise StreamError(f"segment has an origin {origin.shape}, expected ({dof},)")
        value = self.segment.value
        self._sent += 1
        value["stamp"], value["sequence"] = stamp, sequence
        value["slot"], value["generation"] = response.slot, response.generation
        value["n_basis"] = n
        value["g"], value["origin"] = g, origin
        value["w"][:, :n] = w
        self.segment.publish()

    def request(self, kind: str, seed: int = 0, timeout: float = 60.0) -> int:
        """Ask the streamer for something and return a ticket for :meth:`answer`.

        Args:
            kind: ``follow`` accepts segments; ``hold`` brakes and holds; ``reset`` draws
                a new start state from ``seed`` (simulated arms); ``stop`` brakes, holds and
                latches a fault; ``clear_fault`` unlatches it (the streamer then holds);
                ``quit`` brakes, stops the arm and ends the process.
            seed: For ``reset``.
            timeout: Time after which the loop refuses what would begin a motion: whoever asked
                has given up by then [s].

        Raises:
            StreamError: If there is no such request, or if too many wait for an answer.
        """
        if kind not in REQUESTS:
            raise StreamError.choice("request", kind, REQUESTS)
        record = self.requests.record
        ticket = int(self._words[2]) + 1
        # Two are kept free for what must always get through.
        waiting = ANSWERS - 1 if kind in SAFE_REQUESTS else ANSWERS - 3
        if ticket > waiting and self.answer(ticket - waiting) is None:
            raise StreamError(f"{waiting} requests wait for the streamer: {kind} was not passed on")
        self._words[2] = record["ticket"] = ticket
        record["kind"], record["seed"] = REQUESTS.index(kind), seed
        record["expires"] = time.monotonic() + timeout
        self.requests.append()
        return ticket

    def answer(self, ticket: int) -> str | None:
        """Return None until a request is dealt with, then "" or why it was refused."""
        self.status.load()
        place = ticket % ANSWERS
        answered = int(self.status["answers"][place]["ticket"])
        if answered < ticket:
            return None
        if answered > ticket:
            return "the answer was replaced by a later one before it was read: ask again"
        return text(self.status["answers"][place]["refusal"])

    def wait(self, ticket: int, timeout: float = 5.0) -> None:
        """Wait for a request to be dealt with; for programs, not for callbacks.

        Raises:
            StreamError: If it is refused, or not dealt with within ``timeout`` [s].
        """
        deadline = time.monotonic() + timeout
        while (refusal := self.answer(ticket)) is None:
            if time.monotonic() > deadline:
                raise StreamError(f"the streamer did not answer within {timeout:g} s")
            self.beat()
            time.sleep(0.002)
        if refusal:
            raise StreamError(refusal)

    def streamer_age(self) -> float:
        """Return how long ago [s] the streamer was last alive; infinite if it never was."""
        last = self._words[1]
        return (time.monotonic_ns() - last) * 1e-9 if last else float("inf")

    def phase(self) -> str:
        """Return what the streamer is doing, newest ``state``."""
        self.state.load()
        return PHASES[int(self.state["phase"])]

    def hello(self) -> dict[str, Any] | None:
        """Return what the streamer said once connected, or None before that.

        Keys: ``pid, arm, hardware, simulated, joint_names, gripper, rate, command_mode,
        lower, upper, max_velocity, max_acceleration, realtime`` (what the kernel granted).
        """
        self._hello.load()
        size = int(self._hello["size"])
        if not size:
            return None
        values: dict[str, Any] = json.loads(bytes(self._hello["text"])[:size])
        return values

    def report(self) -> dict[str, Any]:
        """Return ``status`` as plain values.

        Keys: ``pid, ticks, missed, accepted, dropped, refused, stretched``; ``lateness_us`` and
        ``cost_us`` (the loop's body without physics), each ``p50, p99, max`` [us]; ``fault``
        and ``reason`` as text; ``guard``, the counts that are not 0 by name.
        """
        self.status.load()
        value = self.status.value
        report: dict[str, Any] = {
            name: int(value[name])
            for name in ("pid", "ticks", "missed", "accepted", "dropped", "refused", "stretched")
        }
        for name, counts, worst in (
            ("lateness_us", "histogram", "worst"),
            ("cost_us", "costs", "costliest"),
        ):
            bins, top = value[counts].tolist(), float(value[worst])
            report[name] = {
                "p50": quantile(bins, 0.5, top) * 1e6,
                "p99": quantile(bins, 0.99, top) * 1e6,
                "max": top * 1e6,
            }
        for name in ("fault", "reason"):
            report[name] = text(value[name])
        report["guard"] = {
            name: int(count)
            for name, count in zip(GUARD_NAMES, value["guard"], strict=True)
            if count
        }
        return report

    # -- the streamer's side -----------------------------------------------------------------

    def parent_age(self, now_ns: int) -> float:
        """Return how long ago [s] the parent was last alive; infinite if it never was."""
        last = self._words[0]
        return (now_ns - last) * 1e-9 if last else float("inf")

    def streamer_beat(self, now_ns: int) -> None:
        """Say that the streamer is alive."""
        self._words[1] = now_ns

    def say_hello(self, values: Mapping[str, Any]) -> None:
        """Publish what :meth:`hello` returns."""
        greeting = json.dumps(values).encode()
        if len(greeting) > self._hello["text"].size:
            raise StreamError(f"mailbox: greeting of {len(greeting)} bytes is too long")
        self._hello["size"] = len(greeting)
        self._hello["text"][: len(greeting)] = np.frombuffer(greeting, np.uint8)
        self._hello.publish()

    def publish_state(
        self, time: float, arm_time: float, ticks: int, sequence: int, phase: int,
        measured: Sequence[Array], setpoint: Array,
    ) -> None:  # fmt: skip
        """Publish ``state``: numbers, position, velocity and effort, and the setpoint (3, dof)."""
        numbers, counts = self._state_numbers, self._state_counts
        numbers[0], numbers[1] = time, arm_time
        counts[2], counts[3], counts[4] = ticks, sequence, phase
        vectors = self._state_vectors
        vectors[0], vectors[1], vectors[2] = measured
        vectors[3:] = setpoint
        self.state.publish()

    def append_sample(self, torque: Array) -> None:
        """Append what ``state`` holds now, and the torque (dof,), to ``samples``."""
        self._sample_numbers[:] = self._state_head
        vectors, state = self._sample_vectors, self._state_vectors
        vectors[:5] = state[[3, 4, 5, 0, 1]]
        vectors[5] = torque
        self.samples.append()

    def response(self, slot: int) -> Matrix:
        """Return a place for a response matrix, to be looked at under its sequence number."""
        return self._responses[slot]

    def close(self) -> None:
        """Let go of the memory; may be called twice."""
        if self._fd < 0:
            return
        for part in (self.segment, self.state, self.status, self._hello):
            part.release()
        for ring in (self.requests, self.samples):
            ring.release()
        for response in self._responses:
            response.release()
        self._words.release()
        # A view that a caller still holds keeps the pages mapped until it goes away.
        with contextlib.suppress(BufferError):
            self._memory.release()
            self._map.close()
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _split(record: NDArray[Any], dof: int, vectors: int) -> tuple[Any, Any, Any, Array]:
    """Return a record's five numbers as floats, as integers, as bytes, and its vectors (n, dof)."""
    whole = record.reshape(1).view(np.uint8)
    head = whole[:40]
    values = whole[40 : 40 + 8 * dof * vectors].view(np.float64).reshape(vectors, dof)
    return head.data.cast("d"), head.data.cast("Q"), head.data, values


def text(value: Any) -> str:
    """Return a bytes field of a slot as text."""
    return bytes(np.asarray(value).item()).decode(errors="replace")
