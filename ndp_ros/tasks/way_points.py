"""From k displacements of the setpoint to its position, velocity and acceleration at every tick.

The way points are joined by a C1 cubic, so that position and velocity of the setpoint are
continuous, also from segment to segment.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from ndp_ros.errors import TaskError

Array = NDArray[np.float64]


class WayPoints:
    """The curves through k way points."""

    def __init__(
        self, k: int, ticks: int, control_dt: float, lower: Array, upper: Array, max_step: Array
    ) -> None:
        """Take the times and the limits.

        Args:
            k: Way points.
            ticks: Ticks of a control step.
            control_dt: Time from one way point to the next [s].
            lower: Lowest position (dof,) [rad].
            upper: Highest position (dof,) [rad].
            max_step: Largest displacement (dof,) of a control step [rad].
        """
        self._k, self._dt = k, control_dt
        self._lower, self._upper, self._max_step = lower, upper, max_step
        self._basis = _hermite(k, ticks, control_dt)

    def join(self, y: Array, yd: Array, displacements: Array) -> Array:
        """Return the C1 cubic (n_ticks, 3, dof) through k way points, within the limits.

        Args:
            y: Position (dof,) where it starts [rad].
            yd: Velocity (dof,) with which it starts [rad/s].
            displacements: From one way point to the next (k, dof) [rad].
        """
        steps = np.clip(displacements, -self._max_step, self._max_step)
        points = np.empty((self._k + 1, len(y)))
        points[0] = y
        np.cumsum(steps, axis=0, out=points[1:])
        points[1:] += y
        low, high = self._lower, self._upper
        if (points[1:] < low).any() or (points[1:] > high).any():
            # A way point at a limit is where the next one starts from.
            for before, step, point in zip(points[:-1], steps, points[1:], strict=True):
                np.clip(before + step, low, high, out=point)
        steps = np.diff(points, axis=0)
        velocities = np.empty_like(points)
        velocities[0] = yd
        velocities[1:-1] = (steps[1:] + steps[:-1]) / (2 * self._dt)
        end = steps[-1] if self._k == 1 else 1.5 * steps[-1] - 0.5 * steps[-2]
        velocities[-1] = np.clip(end, -self._max_step, self._max_step) / self._dt
        return self._cubic(points, velocities)

    def deviation(self, displacements: Array) -> Array:
        """Return the C1 cubic (n_ticks, 3, dof) of displacements from rest to rest.

        Args:
            displacements: From one way point to the next (k, dof) [rad]; nothing limits them.
        """
        points = np.zeros((self._k + 1, displacements.shape[1]))
        np.cumsum(displacements, axis=0, out=points[1:])
        velocities = np.zeros_like(points)
        velocities[1:-1] = (points[2:] - points[:-2]) / (2 * self._dt)
        return self._cubic(points, velocities)

    def _cubic(self, points: Array, velocities: Array) -> Array:
        """Return the C1 cubic (n_ticks, 3, dof) through k + 1 knots (k + 1, dof)."""
        return (self._basis @ np.concatenate((points, velocities))).reshape(-1, 3, points.shape[1])


def whole_multiple(long: float, short: float, long_name: str, short_name: str) -> int:
    """Return how often ``short`` fits into ``long``.

    Raises:
        TaskError: If that is no whole number.
    """
    n = round(long / short)
    if n < 1 or abs(n * short - long) > 1e-9:
        raise TaskError(f"{long_name} = {long} s must be a multiple of {short_name} = {short} s")
    return n


@functools.lru_cache(maxsize=32)
def _hermite(k: int, ticks: int, dt: float) -> Array:
    """Return the matrix (3 k ticks, 2 (k + 1)) from knots to the cubic at every tick's end.

    Columns are the positions and then the velocities of the k + 1 knots; rows are
    position, velocity and acceleration in turn.
    """
    rows = np.zeros((k * ticks, 3, 2 * (k + 1)))
    s = np.arange(1, ticks + 1) / ticks
    position = (
        2 * s**3 - 3 * s**2 + 1, -2 * s**3 + 3 * s**2,
        (s**3 - 2 * s**2 + s) * dt, (s**3 - s**2) * dt,
    )  # fmt: skip
    velocity = (
        (6 * s**2 - 6 * s) / dt, (-6 * s**2 + 6 * s) / dt,
        3 * s**2 - 4 * s + 1, 3 * s**2 - 2 * s,
    )  # fmt: skip
    acceleration = (
        (12 * s - 6) / dt**2, (-12 * s + 6) / dt**2, (6 * s - 4) / dt, (6 * s - 2) / dt,
    )  # fmt: skip
    for j in range(k):
        here = slice(j * ticks, (j + 1) * ticks)
        for i, columns in enumerate((position, velocity, acceleration)):
            for knot, column in zip((j, j + 1, k + 1 + j, k + 2 + j), columns, strict=True):
                rows[here, i, knot] += column
    out = rows.reshape(3 * k * ticks, 2 * (k + 1))
    out.setflags(write=False)
    return out
