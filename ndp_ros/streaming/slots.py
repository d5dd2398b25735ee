# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Slots, rings and matrices in shared memory: one writer each, read without waiting.

A reader copies a value, and discards the copy if the value's sequence number was odd before it
or has changed after it (a sequence lock). Neither side ever waits for the other, and a torn
value is never seen.
"""

from __future__ import annotations

import ctypes
import math
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.control.memory import fields

Array = NDArray[np.float64]

_RETRIES = 200
SAMPLES = 64
"""Most rows of a horizon by which a segment is judged as a whole."""


class Slot(ctypes.Structure):
    """One value of a structured type with one writer and any number of readers.

    ``slot["name"]`` is this process's own copy of a field: the writer fills it and calls
    :meth:`publish`; a reader calls :meth:`load` and reads it. ``stamp`` counts its versions.
    """

    _fields_ = fields(stamp=int)

    def __init__(self, memory: memoryview, offset: int, dtype: np.dtype[Any]) -> None:
        self.value = np.zeros((), dtype)
        self.stamp = 0
        self._own = self.value.reshape(1).view(np.uint8).data
        self._scratch = np.zeros(dtype.itemsize, np.uint8).data
        self._counter = memory[offset : offset + 8].cast("Q")
        self._shared = memory[offset + 64 : offset + 64 + dtype.itemsize]

    def __getitem__(self, name: str) -> Any:
        """Return this process's copy of a field: a view that stays valid."""
        return self.value[name]

    def __setitem__(self, name: str, value: Any) -> None:
        """Fill a field of this process's copy."""
        self.value[name] = value

    def memory(self, name: str) -> dict[str, Any]:
        """Return the memory that compiled code shares with a user, by its names for it."""
        parts = {"own": self._own, "shared": self._shared, "counter": self._counter}
        return {name: self} | {f"{name}_{part}": view for part, view in parts.items()}

    @property
    def written(self) -> bool:
        """Whether a value has ever been published."""
        return self._counter[0] > 0

    def publish(self) -> None:
        """Make this process's copy the slot's value; never waits."""
        counter = self._counter
        # A writer that was killed half-way left an odd number, from which its successor goes on.
        counter[0] = stamp = counter[0] | 1
        _fence()
        self._shared[:] = self._own
        _fence()
        counter[0] = self.stamp = stamp + 1

    def load(self) -> bool:
        """Copy the slot's value if it is newer than this process's copy.

        Returns:
            True if a new, whole value was copied; False if there is none or the writer kept
            changing it, in which case the copy stays as it was.
        """
        counter = self._counter
        if counter[0] == self.stamp:
            return False
        for _ in range(_RETRIES):
            before = counter[0]
            if before == self.stamp:
                return False
            if before & 1:
                continue
            _fence()
            self._scratch[:] = self._shared
            _fence()
            if counter[0] == before:
                self._own[:] = self._scratch
                self.stamp = before
                return True
        return False

    def release(self) -> None:
        """Release the shared memory."""
        self._counter.release()
        self._shared.release()


class Ring:
    """The last ``capacity`` records of one writer; each reader keeps its own place in it."""

    def __init__(
        self, memory: memoryview, offset: int, dtype: np.dtype[Any], capacity: int
    ) -> None:
        self.dtype = dtype
        self.capacity = capacity
        self.record = np.zeros((), dtype)
        self._own = self.record.reshape(1).view(np.uint8).data
        self._head = memory[offset : offset + 8].cast("Q")
        self._shared = memory[offset + 64 : offset + 64 + capacity * dtype.itemsize]
        self._place = 0

    @property
    def memory(self) -> dict[str, Any]:
        """The memory that compiled code shares with a writer, by its names for it."""
        return {"sample_shared": self._shared, "sample_head": self._head}

    @property
    def head(self) -> memoryview:
        """Number of records that were ever appended, in shared memory."""
        return self._head

    @property
    def place(self) -> int:
        """Number of records that this reader has read or lost."""
        return self._place

    @property
    def pending(self) -> bool:
        """Whether there are records that this reader has not read."""
        return bool(self._head[0] != self._place)

    def append(self) -> int:
        """Append this process's ``record`` and return how many were ever appended."""
        head, size = self._head[0], self.dtype.itemsize
        start = (head % self.capacity) * size
        self._shared[start : start + size] = self._own
        _fence()
        self._head[0] = head + 1
        return head + 1

    def read(self) -> tuple[NDArray[Any], int]:
        """Return the records since the last call, oldest first, and how many were lost.

        Records are lost when the writer is more than ``capacity - 1`` ahead.
        """
        head = self._head[0]
        oldest = max(self._place, head - self.capacity + 1, 0)
        _fence()
        every = np.frombuffer(self._shared, self.dtype)
        records = every[np.arange(oldest, head) % self.capacity]
        del every
        _fence()
        # Records that the writer may have reached meanwhile cannot be trusted.
        safe = max(oldest, self._head[0] - self.capacity + 1)
        lost = safe - self._place
        self._place = max(head, safe)
        return records[min(safe - oldest, len(records)) :], lost

    def release(self) -> None:
        """Release the shared memory."""
        self._head.release()
        self._shared.release()


@dataclass(frozen=True)
class Response:
    """A response matrix as it lies in shared memory.

    Attributes:
        mark: For :meth:`Matrix.unchanged`.
        rows: Response (r, 3, 3 + N) at the loop's ticks.
        samples: Some of the rows, spread over the horizon, by columns (3 + N, 3, s).
        duration: tau [s] that the rows were made for.
    """

    mark: int
    rows: Array
    samples: Array
    duration: float


class Matrix:
    """One response matrix, which is read in place because it is too large to be copied.

    The rows of a tick, for y, yd and ydd, lie side by side. A few rows of the horizon are stored
    once more, one after another: a whole segment is judged by them, however long it is.
    """

    def __init__(self, memory: memoryview, offset: int, size: int) -> None:
        self.counter = memory[offset : offset + 8].cast("Q")
        self._head = memory[offset + 64 : offset + 64 + 40].cast("d")
        self._data: Array | None = np.frombuffer(memory, np.float64, size, offset + 128)

    def write(self, generation: int, B: Array, duration: float, horizon: int) -> None:
        """Replace the matrix.

        Args:
            generation: Distinguishes it from its predecessors.
            B: Response (3, rows, 3 + N).
            duration: tau [s].
            horizon: Number of rows that lie within the duration.
        """
        assert self._data is not None
        rows = B.transpose(1, 0, 2)
        few = np.linspace(0, horizon - 1, min(SAMPLES, horizon)).astype(int)
        samples = B[:, few].transpose(2, 0, 1)
        stamp = self.counter[0] | 1
        self.counter[0] = stamp
        _fence()
        head = generation, B.shape[1], B.shape[2], duration, len(few)
        for place, value in enumerate(head):
            self._head[place] = float(value)
        self._data[: samples.size] = samples.reshape(-1)
        self._data[samples.size : samples.size + B.size] = rows.reshape(-1)
        _fence()
        self.counter[0] = stamp + 1

    def view(self, generation: int) -> Response | None:
        """Return the matrix in shared memory, or None if it has been replaced."""
        assert self._data is not None
        mark = self.counter[0]
        if mark & 1:
            return None
        _fence()
        found, rows, columns, duration, samples = self._head
        shape, few = (int(rows), 3, int(columns)), (int(columns), 3, int(samples))
        start, size = math.prod(few), math.prod(shape)
        if found != generation or min(start, size) <= 0 or start + size > self._data.size:
            return None
        return Response(
            mark,
            self._data[start : start + size].reshape(shape),
            self._data[:start].reshape(few),
            duration,
        )

    def unchanged(self, mark: int) -> bool:
        """Return whether the matrix is still the one that :meth:`view` returned with ``mark``."""
        _fence()
        return bool(self.counter[0] == mark)

    def release(self) -> None:
        """Release the shared memory."""
        self._data = None
        self.counter.release()
        self._head.release()


def _make_fence() -> Any:
    """Return a memory barrier: nothing on x86-64, whose stores and loads stay in order."""
    if platform.machine() in ("x86_64", "AMD64"):
        return lambda: None
    libc = ctypes.CDLL(None, use_errno=True)
    # membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED): a full barrier for the caller.
    return lambda: libc.syscall(283, 2, 0, 0)


_fence = _make_fence()
