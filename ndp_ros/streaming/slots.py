"""Values and rings in shared memory with one writer each, read without waiting.

A reader takes a copy between two looks at a value's sequence number and throws the copy
away if the number was odd or has changed, so that neither side ever waits for the other
and a torn value is never seen.
"""

from __future__ import annotations

import ctypes
import platform
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_RETRIES = 200


class Slot:
    """One value of a structured type with one writer and any number of readers.

    ``slot["name"]`` is this process's own copy of a field: the writer fills it and
    calls :meth:`publish`; a reader calls :meth:`load` and looks.
    """

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

    @property
    def written(self) -> bool:
        """Whether anybody has ever published here."""
        return self._counter[0] > 0

    def publish(self) -> None:
        """Make this process's copy the slot's value; never waits."""
        counter = self._counter
        # A writer that was killed half-way left an odd number; its successor goes on from there.
        counter[0] = stamp = counter[0] | 1
        _fence()
        self._shared[:] = self._own
        _fence()
        counter[0] = self.stamp = stamp + 1

    def load(self) -> bool:
        """Copy the slot's value if it is newer than this process's copy.

        Returns:
            True if a new, whole value was copied; False if there is none or the
            writer kept changing it, and the copy is what it was before.
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
        """Let go of the shared memory."""
        self._counter.release()
        self._shared.release()


class Ring:
    """The last ``capacity`` records of one writer; each reader has its own place in it."""

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
        # Whatever the writer may have reached meanwhile cannot be trusted.
        safe = max(oldest, self._head[0] - self.capacity + 1)
        lost = safe - self._place
        self._place = max(head, safe)
        return records[min(safe - oldest, len(records)) :], lost

    def release(self) -> None:
        """Let go of the shared memory."""
        self._head.release()
        self._shared.release()


class Matrix:
    """A place for one response matrix, large enough to be read in place instead of copied."""

    def __init__(self, memory: memoryview, offset: int, size: int) -> None:
        self._counter = memory[offset : offset + 8].cast("Q")
        self._head = memory[offset + 64 : offset + 64 + 32].cast("d")
        self._data: Array | None = np.frombuffer(memory, np.float64, size, offset + 128)

    def write(self, generation: int, B: Array, duration: float) -> None:
        """Replace the matrix; ``generation`` tells it from those before."""
        assert self._data is not None
        stamp = self._counter[0] | 1
        self._counter[0] = stamp
        _fence()
        self._head[0], self._head[1] = float(generation), float(B.shape[1])
        self._head[2], self._head[3] = float(B.shape[2]), duration
        self._data[: B.size] = B.reshape(-1)
        _fence()
        self._counter[0] = stamp + 1

    def look(self, generation: int) -> tuple[int, Array, float] | None:
        """Return (stamp, B (3, rows, 3 + N) in shared memory, duration), or None if it is gone."""
        assert self._data is not None
        stamp = self._counter[0]
        if stamp & 1:
            return None
        _fence()
        found, rows, columns, duration = self._head
        size = 3 * int(rows) * int(columns)
        if found != generation or not 0 < size <= self._data.size:
            return None
        return stamp, self._data[:size].reshape(3, int(rows), int(columns)), duration

    def unchanged(self, stamp: int) -> bool:
        """Return whether nobody has written since :meth:`look` returned ``stamp``."""
        _fence()
        return bool(self._counter[0] == stamp)

    def release(self) -> None:
        """Let go of the shared memory."""
        self._data = None
        self._counter.release()
        self._head.release()


def _make_fence() -> Any:
    """Return a memory barrier: nothing on x86-64, whose stores and loads stay in order."""
    if platform.machine() in ("x86_64", "AMD64"):
        return lambda: None
    libc = ctypes.CDLL(None, use_errno=True)
    # membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED): a full barrier for the caller.
    return lambda: libc.syscall(283, 2, 0, 0)


_fence = _make_fence()
