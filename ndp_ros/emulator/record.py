# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The record of all commands that arrived, with which tests check that none was unsafe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ndp_ros.arms.kortex.units import DEGREE
from ndp_ros.control.arm import Array

_WINDOW = 50
"""Cycles over which the speed of commanded positions is measured: arrival times jitter."""
_BATCH = 512
"""Commands that are collected before the extremes are updated."""
_KEPT = 120_000
"""Newest commands that are kept."""


class CommandRecord:
    """Counts and extremes of the cyclic commands since :meth:`clear`.

    Adding a command is cheap; the extremes are computed on request.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._no_torque = [float("nan")] * n
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        n = self._n
        self.frames = 0
        """Commands that were taken."""
        self.rejected = 0
        """Commands that came after a newer one."""
        self.not_finite = 0
        """Commands with a value that is not finite."""
        self.refused = 0
        """Commands answered by an error."""
        self._batch = np.empty((_BATCH, 2 + 3 * n))
        self._filled = 0
        self._batches: list[Array] = []
        self._tail = np.zeros((0, 2 + 3 * n))
        self._max_step, self._max_speed = np.zeros(n), np.zeros(n)
        self._max_velocity, self._max_torque = np.zeros(n), np.zeros(n)
        self._low, self._high = np.full(n, np.inf), np.full(n, -np.inf)

    def restart(self) -> None:
        """Start a new period of servoing, whose first command is not compared with the last."""
        self._work()
        self._tail = self._tail[:0]

    def add(
        self,
        time: float,
        frame: int,
        position: Sequence[float],
        velocity: Sequence[float],
        torque: Sequence[float] | None,
    ) -> None:
        """Record one command that was taken.

        Its time is in [s]; positions [deg], velocities [deg/s] and torques [N m] are (n,), the last
        None unless in torque mode.
        """
        self.frames += 1
        if torque is None:
            torque = self._no_torque
        self._batch[self._filled] = (time, frame, *position, *velocity, *torque)
        self._filled += 1
        if self._filled == _BATCH:
            self._work()

    def rows(self) -> Array:
        """Return the newest commands (r, 2 + 3 n).

        Columns: time [s], frame, positions [rad], velocities [rad/s], torques [N m]. Positions
        are continuous within one period of servoing; torques outside torque mode are NaN.
        """
        self._work()
        return np.concatenate(self._batches) if self._batches else np.zeros((0, 2 + 3 * self._n))

    def summary(self) -> dict[str, Any]:
        """Return all counts and extremes as plain values.

        Every extreme is one value per joint, in rad, rad/s and N m. ``max_step`` is the
        change of position over one cycle, ``max_speed`` that over 50 cycles,
        ``max_velocity`` the velocity that was commanded beside the position.
        """
        self._work()
        seen = self.frames > 0
        return {
            "frames": self.frames,
            "rejected": self.rejected,
            "refused": self.refused,
            "not_finite": self.not_finite,
            "max_step": self._max_step.tolist(),
            "max_speed": self._max_speed.tolist(),
            "max_velocity": self._max_velocity.tolist(),
            "max_torque": self._max_torque.tolist(),
            "min_position": self._low.tolist() if seen else None,
            "max_position": self._high.tolist() if seen else None,
        }

    def _work(self) -> None:
        """Update the extremes with the commands added since the last update."""
        if not self._filled:
            return
        n = self._n
        new = self._batch[: self._filled].copy()
        self._filled = 0
        new[:, 2 : 2 + 2 * n] *= DEGREE
        rows = np.concatenate((self._tail, new))
        rows[:, 2 : 2 + n] = q = np.unwrap(rows[:, 2 : 2 + n], axis=0)
        # A first measurement of 359 degrees means -1.
        if not len(self._tail):
            q -= np.rint(q[0] / (2 * np.pi)) * (2 * np.pi)
            rows[:, 2 : 2 + n] = q
        frames = np.maximum(np.diff(rows[:, 1]) % 65536, 1)[:, None]
        np.maximum(self._max_step, _largest(np.diff(q, axis=0) / frames), out=self._max_step)
        np.maximum(self._max_velocity, _largest(new[:, 2 + n : 2 + 2 * n]), out=self._max_velocity)
        torques = new[:, 2 + 2 * n :]
        np.maximum(self._max_torque, _largest(np.nan_to_num(torques)), out=self._max_torque)
        np.minimum(self._low, q.min(axis=0), out=self._low)
        np.maximum(self._high, q.max(axis=0), out=self._high)
        if len(rows) > _WINDOW:
            span = np.maximum(rows[_WINDOW:, 0] - rows[:-_WINDOW, 0], 1e-3)[:, None]
            speed = (q[_WINDOW:] - q[:-_WINDOW]) / span
            np.maximum(self._max_speed, _largest(speed), out=self._max_speed)
        self._tail = rows[-_WINDOW:]
        self._batches.append(rows[len(rows) - len(new) :])
        del self._batches[: -(_KEPT // _BATCH + 1)]


def _largest(values: Array) -> Array:
    """Return the largest magnitude in each column (0 for no rows)."""
    return np.asarray(abs(values).max(axis=0, initial=0.0))
