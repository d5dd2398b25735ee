# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The loop's clock: absolute deadlines, a histogram of lateness, and real-time scheduling.

A tick is due at a multiple of the period on CLOCK_MONOTONIC. The clock sleeps until shortly before
and spins for the rest. A period without a tick is missed: it is counted and skipped.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import resource
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ndp_ros.control.memory import fields
from ndp_ros.errors import ConfigError

BINS = 96
_FIRST_BIT = 7  # below 128 ns all is one bin
MOST_BUSY = 0.9
"""Share of a period that a tick and the busy wait before the next may take together."""
_PR_SET_TIMERSLACK = 29
_MCL_CURRENT_AND_FUTURE = 3


class Histogram(ctypes.Structure):
    """Counts of durations in bins a quarter of an octave wide, from 128 ns to 1.8 s.

    Attributes:
        counts: One count per bin.
        total: Number of durations.
        worst: Longest duration, exact [ns].
    """

    _fields_ = fields(total=int, worst=int)

    def __init__(self) -> None:
        self.counts = (ctypes.c_uint64 * BINS)()
        self.total = 0
        self.worst = 0

    def add(self, duration: int) -> None:
        """Count one duration [ns]; a negative one counts as zero."""
        self.total += 1
        if duration > self.worst:
            self.worst = duration
        if duration < 128:
            self.counts[0] += 1
            return
        octave = duration.bit_length() - 1
        place = ((octave - _FIRST_BIT) << 2) + ((duration >> (octave - 2)) & 3) + 1
        self.counts[place if place < BINS else BINS - 1] += 1

    def quantile(self, share: float) -> float:
        """Return a quantile of the durations [s]; 0 without any."""
        return quantile(list(self.counts), share, self.worst * 1e-9)


def bin_edges() -> list[float]:
    """Return the upper edge of every bin but the last [s]."""
    edges = [128e-9]
    for place in range(BINS - 2):
        octave, quarter = divmod(place, 4)
        edges.append((1 << (_FIRST_BIT + octave)) * (5 + quarter) / 4 * 1e-9)
    return edges


def quantile(counts: Sequence[int], share: float, worst: float = math.inf) -> float:
    """Return the quantile of binned durations [s]: interpolated in its bin, at most ``worst``."""
    total = sum(counts)
    if total == 0:
        return 0.0
    edges = [0.0, *bin_edges()]
    wanted, below = share * total, 0
    for place, count in enumerate(counts):
        if count and below + count >= wanted:
            low = edges[place]
            high = edges[place + 1] if place + 1 < len(edges) else worst
            inside = low + (high - low) * (wanted - below) / count
            return min(inside, worst)
        below += count
    return worst


def worst_of(counts: Sequence[int], before: float, after: float) -> float:
    """Return the longest duration of an interval [s]: exact if it is the longest of all.

    Args:
        counts: Binned durations of the interval.
        before: Longest duration before the interval [s].
        after: Longest duration up to its end [s].
    """
    if after > before:
        return after
    filled = [place for place, count in enumerate(counts) if count]
    edges = [*bin_edges(), math.inf]
    return min(edges[filled[-1]], after) if filled else 0.0


class Clock(ctypes.Structure):
    """A clock that wakes its caller once per period.

    Attributes:
        period: Time between ticks [s].
        lateness: Delays of the ticks after their deadlines.
        ticks: Number of ticks so far.
        missed: Number of periods without a tick; a tick that is late by more than a period adds
            the whole periods.
    """

    _fields_ = fields(
        _period=float,
        _max_spin=float,
        _spin=float,
        _busy=float,
        ticks=int,
        missed=int,
        _returned=int,
        _origin=int,
        _count=int,
        _deadline=int,
    )

    def __init__(self, rate: float, spin: float = 150e-6) -> None:
        """Prepare a clock that :meth:`start` sets going.

        Args:
            rate: Ticks per second [Hz].
            spin: Longest busy wait before a deadline [s]; 0 for none. The clock uses as much of
                it as this machine's sleeps end late, and leaves a tenth of the period idle.

        Raises:
            ConfigError: If the rate is not positive and finite.
        """
        if not (math.isfinite(rate) and rate > 0.0):
            raise ConfigError(f"rate is {rate!r} Hz, expected a positive number")
        self.period = 1.0 / rate
        self.lateness = Histogram()
        self.ticks = 0
        self.missed = 0
        self._period = 1e9 / rate
        self._max_spin = spin * 1e9
        self._spin = self._max_spin
        self._busy, self._returned = 0.0, 0
        self._origin = 0
        self._count = 0
        self._deadline = 0

    @property
    def memory(self) -> dict[str, Any]:
        """The numbers that compiled code shares, by its names for them."""
        return {"clock": self, "lateness": self.lateness, "lateness_counts": self.lateness.counts}

    def start(self) -> None:
        """Begin, or begin again after a pause that does not count as lateness."""
        self._origin = self._returned = time.monotonic_ns()
        self._count = 0
        self._next()

    def wait(self) -> int:
        """Return at the next deadline, or at once if it has passed.

        Returns:
            Number of periods skipped since the last tick: 0 unless the tick is late by a whole
            period or more.
        """
        deadline = self._deadline
        now = time.monotonic_ns()
        self._busy += (now - self._returned - self._busy) * 0.02
        # Beyond 95 % the kernel takes the CPU away from real-time processes for 50 ms.
        longest = max(0.0, min(self._max_spin, MOST_BUSY * self._period - self._busy))
        ahead = deadline - now - min(self._spin, longest)
        if ahead > 0.0:
            time.sleep(ahead * 1e-9)
            woken = time.monotonic_ns()
            # Spinning for twice the usual oversleep covers all but the tail, at a fraction of the
            # processor time of a fixed spin.
            over = 2.0 * (woken - now - ahead)
            self._spin += (min(over, longest) - self._spin) * 0.02
            now = woken
        while now < deadline:
            now = time.monotonic_ns()
        late = now - deadline
        self.lateness.add(late)
        self.ticks += 1
        skipped = int(late / self._period)
        if skipped:
            self.missed += skipped
            self._count += skipped
        self._next()
        self._returned = now
        return skipped

    def _next(self) -> None:
        self._count += 1
        # From the origin, so that a period with a fraction of a nanosecond does not drift.
        self._deadline = self._origin + round(self._count * self._period)


def make_realtime(priority: int = 80, cpu: int = -1) -> dict[str, str]:
    """Prepare this process for a real-time loop as far as the kernel permits.

    Garbage collection ends, memory is locked, the timer slack is 1 ns, and where permitted the
    process runs under SCHED_FIFO and on a CPU of its own.

    Args:
        priority: SCHED_FIFO priority, 1 to 98; 0 asks for none.
        cpu: CPU to bind the process to; -1 for any.

    Returns:
        The result in one phrase each for ``gc``, ``timer_slack``, ``memory``, ``scheduler`` and
        ``cpu``.
    """
    report = {}
    gc.collect()
    gc.freeze()
    gc.disable()
    report["gc"] = "frozen and off"
    libc = ctypes.CDLL(None, use_errno=True)
    slack = libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)
    report["timer_slack"] = "1 ns" if slack == 0 else f"default: {os.strerror(ctypes.get_errno())}"
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if os.geteuid() != 0 and limit != resource.RLIM_INFINITY:
        # With a limit, locking the future would make some later allocation fail.
        report["memory"] = f"not locked: the limit (ulimit -l) is {limit // 1024} KiB"
    elif libc.mlockall(_MCL_CURRENT_AND_FUTURE) == 0:
        report["memory"] = "locked"
    else:
        report["memory"] = f"not locked: {os.strerror(ctypes.get_errno())}"
    report["scheduler"] = "SCHED_OTHER"
    if priority > 0:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
            report["scheduler"] = f"SCHED_FIFO {priority}"
        except OSError as error:
            report["scheduler"] = f"SCHED_OTHER: SCHED_FIFO refused ({error.strerror})"
    # BLAS maps its work space at its first product, in 10 to 20 ms where memory is locked.
    np.dot(np.ones((300, 300)), np.ones((300, 300)))
    report["cpu"] = "any"
    if cpu >= 0:
        try:
            os.sched_setaffinity(0, {cpu})
            report["cpu"] = str(cpu)
        except OSError as error:
            report["cpu"] = f"any: CPU {cpu} refused ({error.strerror})"
    return report
