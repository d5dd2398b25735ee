# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Figures of a loop over an interval: ticks, missed periods, lateness and cost.

They are differences of the counts that a streamer publishes, and can be added over intervals and
over loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ndp_ros.streaming.clock import quantile, worst_of

Counts = Mapping[str, NDArray[np.float64]]
"""Counts of a loop so far, see :meth:`~ndp_ros.streaming.handle.StreamerHandle.tick_counts`."""


@dataclass(frozen=True)
class Durations:
    """Binned durations and the longest of them."""

    bins: NDArray[np.float64]
    """Counts ``(BINS,)`` of :class:`~ndp_ros.streaming.clock.Histogram`."""
    worst: float
    """[s]."""

    def __add__(self, other: Self) -> Self:
        return replace(self, bins=self.bins + other.bins, worst=max(self.worst, other.worst))

    def quantile(self, share: float) -> float:
        """Return a quantile [s]."""
        return quantile(self.bins.tolist(), share, self.worst)

    def row(self) -> dict[str, float]:
        """Return quantiles and the longest [us]."""
        shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
        found = {name: self.quantile(share) * 1e6 for name, share in shares.items()}
        return {**found, "max": self.worst * 1e6}


@dataclass(frozen=True)
class Figures:
    """Ticks of a loop in an interval, or of several loops together."""

    ticks: int
    missed: int
    late: Durations
    cost: Durations | None = None

    def __add__(self, other: Self) -> Self:
        return replace(
            self,
            ticks=self.ticks + other.ticks,
            missed=self.missed + other.missed,
            late=self.late + other.late,
            cost=None if self.cost is None or other.cost is None else self.cost + other.cost,
        )

    @classmethod
    def between(cls, before: Counts, after: Counts) -> Self:
        """Return the figures between two readings of a streamer's counts."""
        late, cost = (
            Durations(bins, worst_of(bins.tolist(), float(before[worst]), float(after[worst])))
            for bins, worst in (
                (after["histogram"] - before["histogram"], "worst"),
                (after["costs"] - before["costs"], "costliest"),
            )
        )
        ticks, missed = (int(after[name] - before[name]) for name in ("ticks", "missed"))
        return cls(ticks, missed, late, cost)

    def row(self) -> dict[str, Any]:
        """Return the figures for a report."""
        return {
            "ticks": self.ticks,
            "missed": self.missed,
            "missed_percent": 100.0 * self.missed / max(1, self.ticks + self.missed),
            "lateness_us": self.late.row(),
            **({} if self.cost is None else {"cost_us": self.cost.row()}),
        }
