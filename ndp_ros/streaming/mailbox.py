# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Shared memory between the integrator and its streamer: slots, rings and heartbeats.

The memory is anonymous (``memfd_create``): its name is a path below ``/proc`` of the process
that made it, other processes attach through that path, and the kernel frees it when the last of
them has ended, however that happened. Every value has one writer, and neither side ever waits
for the other (``slots``).
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
    PHASES,
    RESPONSES,
    MailboxLayout,
    decode,
)
from ndp_ros.streaming.requests import RequestQueue
from ndp_ros.streaming.slots import Matrix, Ring, Slot

Array = NDArray[np.float64]

_MAGIC = b"ndpmail1"


@dataclass(frozen=True)
class ResponseHandle:
    """Reference of a segment to its response matrix in the memory."""

    slot: int
    generation: int
    n_basis: int
    scaled: bool
    """Whether the weights are multiplied by g - y0."""


class Mailbox:
    """Everything that passes between a streamer and its parent.

    From the parent: segments (:meth:`send_segment`), the response matrices that they refer to
    (:meth:`send_response`), requests (``requests``) and a heartbeat (:meth:`beat`).

    From the streamer, as slots to ``load()`` and read:

    - ``state``, every tick: ``time`` [s, CLOCK_MONOTONIC], ``arm_time`` [s, of the
      measurement: CLOCK_MONOTONIC too, or the simulated time of a simulated arm],
      ``ticks``, ``phase`` (index into PHASES), ``sequence`` of the active segment (0: none),
      ``position, velocity, effort`` (dof,) measured, ``y, yd, ydd`` (dof,) the setpoint,
      ``poses`` (objects, 7).
    - ``status``, at about 50 Hz and at every change of phase: ``fault`` and ``reason``
      (bytes), ``ticks, missed, worst, histogram`` of the clock, ``costliest, costs`` of
      the loop's body, ``guard`` counts (one per GUARD_NAMES), ``accepted, dropped,
      refused, stretched`` segments, ``pid``. :meth:`report` returns it as plain values.
    - ``samples``, a ring of ``time, arm_time, ticks, sequence, phase, y, yd, ydd,
      position, velocity, torque``: ``samples.read()`` at 50-100 Hz loses none.
    - :meth:`handshake`: description of the arm and of the streamer, once connected.
    """

    def __init__(self, name: str, fd: int, layout: MailboxLayout) -> None:
        """Map the memory; use :meth:`create` or :meth:`attach` instead."""
        self.name = name
        self.layout = layout
        self._fd = fd
        self._map = mmap.mmap(fd, layout.offsets["end"])
        self._memory = memory = memoryview(self._map)
        self._generation = 0
        at, types = layout.offsets, layout.types
        self._words = memory[512 : 512 + 64].cast("q")
        """Last heartbeat of the parent and of the streamer [ns], last ticket of a request."""
        self.segment, self.state, self.status, self._handshake = (
            Slot(memory, at[part], types[part])
            for part in ("segment", "state", "status", "handshake")
        )
        ring = Ring(memory, at["request"], types["request"], ANSWERS)
        self.requests = RequestQueue(ring, self.status, self._words[2:3], self.beat)
        self.samples = Ring(memory, at["sample"], types["sample"], layout.samples)
        self.responses = [
            Matrix(memory, at[f"response_{i}"], layout.matrix_size) for i in range(RESPONSES)
        ]
        # The streamer fills state and samples at every tick: without going through field names.
        self._state_numbers, self._state_counts, self._state_head, self._state_vectors = _split(
            self.state.value, layout.dof, 6
        )
        _, _, self._sample_numbers, self._sample_vectors = _split(
            self.samples.record, layout.dof, 6
        )

    @classmethod
    def create(cls, layout: MailboxLayout) -> Self:
        """Allocate the memory; its ``name`` is valid while this process keeps it open.

        Raises:
            StreamError: If the kernel does not grant the memory.
        """
        header = json.dumps(asdict(layout)).encode()
        if len(header) > 400:
            raise StreamError(f"mailbox: the names of {len(layout.objects)} objects are too long")
        try:
            fd = os.memfd_create("ndp-mailbox")
            os.ftruncate(fd, layout.offsets["end"])
        except OSError as error:
            raise StreamError(
                f"mailbox: cannot get {layout.offsets['end']} bytes of shared memory: {error}"
            ) from error
        os.pwrite(fd, _MAGIC + len(header).to_bytes(8, "little") + header, 0)
        return cls(f"/proc/{os.getpid()}/fd/{fd}", fd, layout)

    @classmethod
    def attach(cls, name: str) -> Self:
        """Map the memory of another process.

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
        """Give the parent's heartbeat; call at 20 Hz or more."""
        self._words[0] = time.monotonic_ns()

    def send_response(
        self, B: Array, duration: float, scaled: bool = True, horizon: int | None = None
    ) -> ResponseHandle:
        """Write the response matrix of the segments to come.

        There are several places, used in turn, so that the matrix of the running segment is not
        overwritten by its successor's. A loop whose matrix is overwritten nevertheless brakes.

        Args:
            B: Response (3, rows, 3 + N) float64 at the normalised times
                i / (rate * duration), i = 0 ... rows - 1, of the loop's ticks; the rows
                cover the horizon and the grace time after it.
            duration: tau [s] that the rows were made for.
            scaled: Whether the last N columns are those of w (g - y0), not of a free w.
            horizon: Number of rows that lie within the duration; all unless given.

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
        rows = B.shape[1]
        within = rows if horizon is None else min(horizon, rows)
        self.responses[slot].write(self._generation, B, duration, within)
        return ResponseHandle(slot, self._generation, B.shape[2] - 3, scaled)

    def send_segment(
        self,
        g: Array,
        w: Array,
        stamp: float,
        sequence: int,
        response: ResponseHandle,
        origin: Array | None = None,
    ) -> None:
        """Hand a segment over; it replaces one that the streamer has not taken yet.

        The streamer's guard checks the values.

        Args:
            g: Goal (dof,) [rad].
            w: Weights (dof, N).
            stamp: When the observation was taken [s, CLOCK_MONOTONIC].
            sequence: Number of the segment, 1 or more.
            response: Its response matrix, which fixes its duration.
            origin: Setpoint (dof,) [rad] at the observation. The segment starts later, from
                another one, and the goal moves along. None for a goal in absolute positions.

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
        value["stamp"], value["sequence"] = stamp, sequence
        value["slot"], value["generation"] = response.slot, response.generation
        value["n_basis"], value["scaled"] = n, response.scaled
        value["g"], value["origin"] = g, origin
        value["w"][:, :n] = w
        self.segment.publish()

    def streamer_age(self) -> float:
        """Return the age of the streamer's last heartbeat [s]; infinite before the first."""
        last = self._words[1]
        return (time.monotonic_ns() - last) * 1e-9 if last else float("inf")

    def phase(self) -> str:
        """Return the streamer's phase in the newest ``state``."""
        self.state.load()
        return PHASES[int(self.state["phase"])]

    def handshake(self) -> dict[str, Any] | None:
        """Return the streamer's description of its arm and of itself; None until it is connected.

        Keys: ``pid, arm, hardware, simulated, joint_names, gripper, rate, command_mode,
        lower, upper, max_velocity, max_acceleration, objects, realtime`` (granted by the kernel).
        """
        self._handshake.load()
        size = int(self._handshake["size"])
        text = bytes(self._handshake["text"])[:size]
        values: dict[str, Any] | None = json.loads(text) if text else None
        return values

    def report(self) -> dict[str, Any]:
        """Return ``status`` as plain values.

        Keys: ``pid, ticks, missed, accepted, dropped, refused, stretched``; ``lateness_us`` and
        ``cost_us`` (the loop's body without physics), each ``p50, p99, max`` [us]; ``fault``
        and ``reason`` as text; ``guard``, the counts by name that are not 0.
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
            report[name] = decode(value[name])
        report["guard"] = {
            name: int(count)
            for name, count in zip(GUARD_NAMES, value["guard"], strict=True)
            if count
        }
        return report

    # -- the streamer's side -----------------------------------------------------------------

    def parent_age(self, now_ns: int) -> float:
        """Return the age of the parent's last heartbeat [s]; infinite before the first."""
        last = self._words[0]
        return (now_ns - last) * 1e-9 if last else float("inf")

    def streamer_beat(self, now_ns: int) -> None:
        """Give the streamer's heartbeat."""
        self._words[1] = now_ns

    @property
    def memory(self) -> dict[str, Any]:
        """The memory that compiled code shares with the streamer, by its names for it."""
        return {
            "words": self._words[:2],
            "request_head": self.requests.head,
            "responses": self._memory[self.layout.offsets["response_0"] :],
            **self.segment.memory("segment"),
            **self.state.memory("state"),
            **self.status.memory("status"),
            **self.samples.memory,
        }

    @property
    def constants(self) -> dict[str, float]:
        """Places of the loop's figures in ``status``, of responses [bytes], for compiled code."""
        fields, at = self.status.value.dtype.fields or {}, self.layout.offsets
        names = ("ticks", "missed", "accepted", "worst", "histogram", "costliest", "costs")
        stride = at["response_1"] - at["response_0"]
        return {"response_stride": stride, **{f"at_{name}": fields[name][1] for name in names}}

    def publish_handshake(self, values: Mapping[str, Any]) -> None:
        """Publish the values that :meth:`handshake` returns."""
        text = json.dumps(values).encode()
        slot = self._handshake
        if len(text) > slot["text"].size:
            raise StreamError(f"mailbox: a handshake of {len(text)} bytes is too long")
        slot["size"] = len(text)
        slot["text"][: len(text)] = np.frombuffer(text, np.uint8)
        slot.publish()

    def publish_state(
        self,
        time: float,
        arm_time: float,
        ticks: int,
        sequence: int,
        phase: int,
        measured: Sequence[Array],
        setpoint: Array,
    ) -> None:
        """Publish ``state``: numbers, position, velocity and effort, and the setpoint (3, dof)."""
        numbers, counts = self._state_numbers, self._state_counts
        numbers[0], numbers[1] = time, arm_time
        counts[2], counts[3], counts[4] = ticks, sequence, phase
        vectors = self._state_vectors
        vectors[0], vectors[1], vectors[2] = measured
        vectors[3:] = setpoint
        self.state.publish()

    def append_sample(self, torque: Array) -> None:
        """Append the present ``state`` and the torque (dof,) to ``samples``."""
        self._sample_numbers[:] = self._state_head
        vectors, state = self._sample_vectors, self._state_vectors
        vectors[:5] = state[[3, 4, 5, 0, 1]]
        vectors[5] = torque
        self.samples.append()

    def close(self) -> None:
        """Release the memory; may be called twice."""
        if self._fd < 0:
            return
        for slot in (self.segment, self.state, self.status, self._handshake):
            slot.release()
        for response in self.responses:
            response.release()
        self.requests.release()
        self.samples.release()
        self._words.release()
        # A view that a caller still holds keeps the pages mapped until it is dropped.
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
