# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The check that velocities of joints explain the change of their positions."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.control.arm import Array
from ndp_ros.control.memory import fields

Mask = NDArray[np.bool_]

_LONGEST = 0.03
"""Longest time between two readings over which velocities are added up [s]."""
_GAP = 3.0
"""Times the usual interval between readings after which the loop has paused: the arm may have
stopped and started again unseen, so that no velocities are added up over it."""
_STRETCH = 4.0
"""Largest accepted ratio between a change of position and its velocities, either way: the time of
an emulated arm may run slower or faster than the clock."""
_WINDOW = 0.02
"""Time over which velocities must explain the change of positions [s]."""
_STEP = 0.0039
"""Least time between two readings that are added up [s], which saves the loop time."""
_CLEAN = 2
"""Consecutive consistent windows after which velocities are trusted again."""
_DRIFT = 0.002
"""Change of position in a window that needs no velocity [rad]: delay, filters."""

CONSTANTS = {
    "longest": _LONGEST,
    "gap": _GAP,
    "step": _STEP,
    "window": _WINDOW,
    "stretch": _STRETCH,
    "drift": _DRIFT,
}
"""Those that compiled code needs, by its names for them."""


class Travel(ctypes.Structure):
    """The way of the arm's joints since a first reading, by positions and by velocities."""

    _fields_ = fields(began=float, time=float, interval=float)
    began: float
    time: float
    interval: float

    def __init__(self, n: int) -> None:
        self._n = n
        self._start, self._velocity = np.zeros(n), np.zeros(n)
        self._integral, self._step = np.zeros(n), np.zeros(n)
        self.began = self.time = -math.inf
        """Times of the first and of the newest reading [s]."""
        self.interval = _LONGEST
        """Usual time between two readings [s]."""

    @property
    def memory(self) -> dict[str, Any]:
        """The arrays and numbers that compiled code shares."""
        return {
            "travel": self,
            "start": self._start,
            "last_velocity": self._velocity,
            "integral": self._integral,
        }

    def start(self, raw: Array, at: float) -> None:
        """Start with a reading (3, dof)."""
        self._start[:] = raw[0, : self._n]
        self._velocity[:] = raw[1, : self._n]
        self._integral[:] = 0.0
        self.began = self.time = at

    def add(self, raw: Array, at: float) -> None:
        """Add a reading (3, dof)."""
        velocity = raw[1, : self._n]
        np.add(velocity, self._velocity, out=self._step)
        self._step *= 0.5 * (at - self.time)
        self._integral += self._step
        self._velocity[:] = velocity
        self.time = at

    def explains(self, raw: Array, slack: float) -> Mask:
        """Return whether velocities explain the way to the newest reading, to a slack [rad]."""
        moved = raw[0, : self._n] - self._start
        less, more = moved / _STRETCH, moved * _STRETCH
        lowest, highest = np.minimum(less, more) - slack, np.maximum(less, more) + slack
        return (self._integral >= lowest) & (self._integral <= highest)


class VelocityCheck:
    """The check that the velocities of the arm's joints explain their motion.

    Attributes:
        unexplained: The joint whose velocity was inconsistent in the last window, if any.
    """

    def __init__(self, n: int) -> None:
        self._travel = Travel(n)
        self._clean = 0
        self.unexplained: int | None = None

    @property
    def memory(self) -> dict[str, Any]:
        """The arrays and numbers that compiled code shares."""
        return self._travel.memory

    def begin(self, raw: Array, at: float) -> None:
        """Start a window with an accepted reading (3, dof)."""
        self.unexplained = None
        self._travel.start(raw, at)

    def explains(self, raw: Array, at: float) -> bool:
        """Add a reading (3, dof); return whether velocities explained the last window."""
        travel = self._travel
        elapsed = at - travel.time
        if elapsed < _STEP:
            return self.unexplained is None
        paused = elapsed > min(_LONGEST, _GAP * max(travel.interval, _STEP))
        # A slower rate of readings becomes the usual one at once, a faster one in a few readings.
        travel.interval = min(_LONGEST, max(elapsed, 0.5 * travel.interval))
        if paused:
            travel.start(raw, at)
        else:
            travel.add(raw, at)
            if at - travel.began >= _WINDOW:
                self._judge(travel.explains(raw, _DRIFT))
                travel.start(raw, at)
        return self.unexplained is None

    def _judge(self, explained: Mask) -> None:
        """Take the outcome of a window in; velocities are believed again after a few good ones."""
        if not explained.all():
            self.unexplained, self._clean = int(np.argmin(explained)), 0
        elif self.unexplained is not None:
            self._clean += 1
            if self._clean >= _CLEAN:
                self.unexplained = None
