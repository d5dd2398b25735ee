# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Fit a segment to way points: a chunk of any policy becomes a motion that the loop can stream.

The motion of a DMP is linear in its goal and its forcing (:mod:`ndp_ros.dmp.response`), so the
segment that passes way points best is a least-squares problem, solved for all joints at once. It
starts from the state of motion at hand-over and passes what is left of the chunk by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response
from ndp_ros.dmp.segment import BoundSegment, Segment, finite
from ndp_ros.errors import SegmentError

Array = NDArray[np.float64]

CHUNK = DmpConfig(n_basis=24, forcing="free")
"""The dynamical system of chunks: free forcing, which a goal at the start does not silence."""

_LEAST_SMOOTHING = 3e-4
"""Smoothing as a share of the duration that settles what the way points leave open: of all
motions through them the one with the least acceleration."""
_BEYOND = 1.2
"""End of the time over which acceleration counts, in segments: the system goes on past its end."""
_AT_REST = 2.0
"""The same, and end of the time at rest, for a motion that ends with its last way point."""
_MODESTY = 1e-9
"""Weight of the forcing weights: without it kernels cancel each other until the last of them stop,
and the motion leaves its last way point."""
_FIRM = 1e3
"""Weight of the acceleration at the start against the distance from a way point."""
_SMALLEST_WAY = 1e-9
"""Smallest |g - y0| that scaled forcing can divide by [rad]."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A segment that was fitted to way points, as the motion from the state it starts from."""

    motion: BoundSegment
    """The motion from y0, yd0."""
    times: Array
    """Times (n,) since the hand-over of the way points that were passed [s]."""
    residuals: Array
    """Motion minus way point (n, dof) at these times [rad]."""
    dropped: int
    """Number of way points that were already past."""

    @property
    def segment(self) -> Segment:
        """Goal and weights, to be sent or bound to another start state."""
        return self.motion.segment

    @property
    def residual(self) -> float:
        """Root mean square of the residuals [rad]."""
        return float(np.sqrt(np.mean(self.residuals**2)))


def fit_segment(
    way_points: ArrayLike,
    times: ArrayLike,
    y0: ArrayLike,
    yd0: ArrayLike,
    *,
    ydd0: ArrayLike | None = None,
    goal: ArrayLike | None = None,
    age: float = 0.0,
    duration: float | None = None,
    smoothing: float = 0.0,
    config: DmpConfig = CHUNK,
) -> Fit:
    """Return the segment that passes what is left of a chunk of way points best.

    Minimises the mean of ``|y - way point|^2 + smoothing^4 |ydd|^2`` over goal and forcing, as a
    smoothing spline does. Position and velocity continue from y0, yd0 whatever the chunk.

    Args:
        way_points: Positions ``(k, dof)`` [rad] of any policy.
        times: Their period, the first one being due after one, or a time for each ``(k,)`` since
            the chunk began, increasing [s].
        y0: Setpoint at hand-over ``(dof,)`` [rad].
        yd0: Its velocity ``(dof,)`` [rad/s].
        ydd0: Its acceleration ``(dof,)`` [rad/s^2], to be continued as well; None to let it step.
        goal: Goal ``(dof,)`` [rad] to keep; None for where the motion rests, or else to fit it.
        age: Time from the begin of the chunk to the hand-over [s]; earlier way points are dropped.
        duration: tau [s]; the last way point is then held beyond it. None: passed in motion.
        smoothing: Time constant [s]; 0 to pass the way points as exactly as N weights allow.
        config: The dynamical system. Scaled forcing, w (g - y0), fits no motion back to its start.

    Raises:
        SegmentError: If shapes do not fit, values are not finite, times do not increase, all way
            points are past, ``duration`` ends before the last, or the system cannot move so.

    Source: eq. (1), whose closed form is linear in g and f.

    Example:
        >>> chunk = [[0.02 * i, -0.01 * i] for i in range(1, 9)]
        >>> fit = fit_segment(chunk, times=0.05, y0=[0.03, 0.0], yd0=[0.4, -0.2], age=0.08)
        >>> y, yd, ydd = fit.motion.sample(0.1)
    """
    due, points = _left(way_points, times, age)
    tau, rests = _duration(due[-1], duration), duration is not None
    goal = points[-1] if rests and goal is None else goal
    if not smoothing >= 0.0:
        raise SegmentError(f"smoothing is {smoothing!r} s, expected 0 or more")
    dof = points.shape[1]
    start = np.stack([_vector("y0", y0, dof), _vector("yd0", yd0, dof) * tau])
    rows, sides, share = _passing(config, due / tau, points, _AT_REST if rests else 0.0)
    A, b = _calmly(config, rows, sides, max(smoothing / tau, _LEAST_SMOOTHING), rests)
    if ydd0 is not None:
        A = np.vstack((A, _FIRM * response(config, [0.0])[2]))
        b = np.vstack((b, _FIRM * tau**2 * _vector("ydd0", ydd0, dof)))
    known = start if goal is None else np.vstack((start, _vector("goal", goal, dof)))
    solution = _solve(A, b, known)[2:]
    segment = Segment(config, solution[0], _weights(config, solution, start[0]), tau)
    motion = segment.bind(y0, yd0)
    residuals = (rows @ motion.columns - sides)[: len(due)] / share
    return Fit(motion, due, residuals, dropped=len(np.asarray(way_points)) - len(due))


def _solve(A: Array, b: Array, known: Array) -> Array:
    """Return x (columns, dof) that solves A x = b best, given its first rows."""
    n = len(known)
    return np.vstack((known, np.linalg.lstsq(A[:, n:], b - A[:, :n] @ known, rcond=None)[0]))


def _left(way_points: ArrayLike, times: ArrayLike, age: float) -> tuple[Array, Array]:
    """Return the times since hand-over and the positions of the way points that are left.

    Raises:
        SegmentError: If they do not fit, or none is left.
    """
    points, due = finite("way_points", way_points), finite("times", times)
    if points.ndim != 2 or 0 in points.shape:
        raise SegmentError(f"way_points have shape {points.shape}, expected (k, dof)")
    if due.ndim == 0:
        due = due * np.arange(1, len(points) + 1)
    if due.shape != (len(points),):
        raise SegmentError(
            f"times have shape {due.shape}, expected a period or ({len(points)},) times"
        )
    if (np.diff(due, prepend=0.0) < 0.0).any() or (np.diff(due) == 0.0).any():
        raise SegmentError("times must be at least 0 s and increase from way point to way point")
    if not np.isfinite(age):
        raise SegmentError(f"age is {age!r} s, expected a finite value")
    due = due - age
    left = due > 0.0
    if not left.any():
        raise SegmentError(f"all {len(points)} way points are past: the last by {-due[-1]:.3g} s")
    return due[left], points[left]


def _duration(last: float, duration: float | None) -> float:
    """Return the duration of a segment whose last way point is due at ``last`` [s]."""
    tau = float(last if duration is None else duration)
    if not (np.isfinite(tau) and tau >= last * (1.0 - 1e-9)):
        raise SegmentError(f"duration is {tau:g} s, but the last way point is due at {last:g} s")
    return tau


def _passing(
    config: DmpConfig, due: Array, points: Array, end: float
) -> tuple[Array, Array, float]:
    """Return rows (n, 3 + N) and sides (n, dof) that ask for the way points, and a point's weight.

    From the last way point until ``end`` they ask the motion to stay there, at times that leave no
    basis function unseen. Each counts as much as the time that it answers for.

    Args:
        config: The dynamical system.
        due: When the way points are due (k,), in segments.
        points: The way points (k, dof) [rad].
        end: End of the time at rest, in segments; 0 for none.
    """
    step, time_left = due[-1] / len(due), max(0.0, end - due[-1])
    count = int(np.ceil(time_left / min(step, 0.5 / config.n_basis)))
    rest = np.linspace(end, due[-1], count, endpoint=False)[::-1]
    spans = np.repeat((step, time_left / max(count, 1)), (len(due), count))
    shares = np.sqrt(spans / spans.sum())[:, None]
    wanted = np.concatenate((points, np.repeat(points[-1:], count, axis=0)))
    rows = response(config, np.concatenate((due, rest)))[0]
    return rows * shares, wanted * shares, float(shares[0, 0])


def _calmly(
    config: DmpConfig, rows: Array, sides: Array, smoothing: float, rests: bool
) -> tuple[Array, Array]:
    """Append rows for little acceleration and, in a motion to rest, for modest weights."""
    calm = smoothing**2 * _acceleration_rows(config, _AT_REST if rests else _BEYOND)
    if rests:
        calm = np.vstack((calm, _MODESTY * np.eye(3 + config.n_basis)[3:]))
    return np.vstack((rows, calm)), np.vstack((sides, np.zeros((len(calm), sides.shape[1]))))


@lru_cache(maxsize=16)
def _acceleration_rows(config: DmpConfig, end: float) -> Array:
    """Return rows whose squares add up to the integral of ydd^2 until ``end``, in segments."""
    n = round(end / _BEYOND * (4 * config.n_basis + 16))
    return np.asarray(response(config, np.linspace(0.0, end, n))[2] * np.sqrt(end / n))


def _weights(config: DmpConfig, solution: Array, y0: Array) -> Array:
    """Return w (dof, N) for a goal and forcing amounts (1 + N, dof).

    Raises:
        SegmentError: If forcing is scaled by a way of no length.
    """
    amounts = solution[1:].T
    if not config.scaled:
        return amounts
    way = solution[0] - y0
    if (short := np.abs(way) < _SMALLEST_WAY).any():
        raise SegmentError(
            f"joint {int(np.argmax(short))} returns to its start, and forcing {config.forcing!r} "
            "is scaled by g - y0: use DmpConfig(forcing='free')"
        )
    return np.asarray(amounts / way[:, None])


def _vector(name: str, value: ArrayLike, dof: int) -> Array:
    vector = finite(name, value)
    if vector.shape != (dof,):
        raise SegmentError(f"{name} has shape {vector.shape}, expected ({dof},)")
    return vector
