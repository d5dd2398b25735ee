# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""C1 cubics through way points: the setpoints that k displacements stand for.

Position and velocity of the setpoint are continuous, also from segment to segment.
"""

from __future__ import annotations

import functools

import numpy as np

from ndp_ros.errors import TaskError
from ndp_ros.tasks.contract import Array


class WayPoints:
    """Curves through k way points, at every tick."""

    def __init__(
        self, k: int, ticks: int, control_dt: float, lower: Array, upper: Array, max_step: Array
    ) -> None:
        """Prepare curves of k control steps of ``control_dt`` [s], each of so many ticks.

        Positions (dof,) are held between the lowest and the highest [rad], displacements of a
        control step to ``max_step`` (dof,) [rad].
        """
        self._k, self._dt = k, control_dt
        self._lower, self._upper, self._max_step = lower, upper, max_step
        self._basis = _hermite(k, ticks, control_dt)

    def join(self, y: Array, yd: Array, displacements: Array) -> Array:
        """Return C1 cubics (E, n_ticks, 3, dof) through k way points each, within the limits.

        They start at positions y (E, dof) [rad] with velocities yd (E, dof) [rad/s]; displacements
        (E, k, dof) [rad] lead from one way point to the next.
        """
        steps = np.clip(displacements, -self._max_step, self._max_step)
        points = np.empty((len(y), self._k + 1, y.shape[-1]))
        points[:, 0] = y
        np.cumsum(steps, axis=1, out=points[:, 1:])
        points[:, 1:] += y[:, None]
        low, high = self._lower, self._upper
        beyond = ((points[:, 1:] < low) | (points[:, 1:] > high)).any(axis=(1, 2))
        if beyond.any():
            # The displacement after a way point at a limit begins at this limit; where no limit
            # is met, the sum from the start stays as it is.
            held, moves = points[beyond], steps[beyond]
            for j in range(self._k):
                np.clip(held[:, j] + moves[:, j], low, high, out=held[:, j + 1])
            points[beyond] = held
        steps = points[:, 1:] - points[:, :-1]
        velocities = np.empty_like(points)
        velocities[:, 0] = yd
        velocities[:, 1:-1] = (steps[:, 1:] + steps[:, :-1]) / (2 * self._dt)
        end = steps[:, -1] if self._k == 1 else 1.5 * steps[:, -1] - 0.5 * steps[:, -2]
        velocities[:, -1] = np.clip(end, -self._max_step, self._max_step) / self._dt
        return self._cubic(points, velocities)

    def deviation(self, displacements: Array) -> Array:
        """Return the C1 cubics (E, n_ticks, 3, dof) of displacements (E, k, dof) from rest to rest.

        Displacements [rad] have no limits.
        """
        E, k, dof = displacements.shape
        points = np.zeros((E, k + 1, dof))
        np.cumsum(displacements, axis=1, out=points[:, 1:])
        velocities = np.zeros_like(points)
        velocities[:, 1:-1] = (points[:, 2:] - points[:, :-2]) / (2 * self._dt)
        return self._cubic(points, velocities)

    def _cubic(self, points: Array, velocities: Array) -> Array:
        """Return the C1 cubics (E, n_ticks, 3, dof) through k + 1 knots (E, k + 1, dof)."""
        knots = np.concatenate((points, velocities), axis=1)
        return (self._basis @ knots).reshape(len(points), -1, 3, points.shape[-1])


def whole_multiple(long: float, short: float, long_name: str, short_name: str) -> int:
    """Return the quotient of two periods.

    Raises:
        TaskError: If it is no whole number.
    """
    n = round(long / short)
    if n < 1 or abs(n * short - long) > 1e-9:
        raise TaskError(f"{long_name} = {long} s must be a multiple of {short_name} = {short} s")
    return n


@functools.lru_cache(maxsize=32)
def _hermite(k: int, ticks: int, dt: float) -> Array:
    """Return the matrix (3 k ticks, 2 (k + 1)) of the cubic Hermite spline at every tick's end.

    Columns are the positions and then the velocities of the k + 1 knots; rows are
    position, velocity and acceleration in turn.
    """
    s = np.arange(1, ticks + 1) / ticks
    # Weights of the positions and of the velocities of the knots before and after a tick.
    weights = np.array([
        [2 * s**3 - 3 * s**2 + 1, -2 * s**3 + 3 * s**2, (s**3 - 2 * s**2 + s) * dt,
         (s**3 - s**2) * dt],
        [(6 * s**2 - 6 * s) / dt, (-6 * s**2 + 6 * s) / dt, 3 * s**2 - 4 * s + 1, 3 * s**2 - 2 * s],
        [(12 * s - 6) / dt**2, (-12 * s + 6) / dt**2, (6 * s - 4) / dt, (6 * s - 2) / dt],
    ])  # fmt: skip
    rows = np.zeros((k, ticks, 3, 2 * (k + 1)))
    for j in range(k):
        rows[j][:, :, [j, j + 1, k + 1 + j, k + 2 + j]] = np.moveaxis(weights, 2, 0)
    out = rows.reshape(3 * k * ticks, 2 * (k + 1))
    out.setflags(write=False)
    return out
