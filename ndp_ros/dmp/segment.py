# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A segment: the DMP parameters of one forward pass of Φ, sampled at any rate (numpy only).

A segment is a goal with weights; bound to a start state it is a motion. Binding to the desired
state at the moment of take-over keeps position and velocity continuous, however late the parameters
arrive.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response
from ndp_ros.errors import SegmentError

Array = NDArray[np.float64]

_LARGEST = 1e290
"""Bound of positions, velocities and accelerations in SI units."""


class Segment:
    """Goal and weights of a DMP that lasts a given time.

    Attributes:
        config: The dynamical system.
        g: Goal (dof,) [rad].
        w: Weights (dof, N).
        duration: Time that stands for tau = 1 [s].

    Source: eq. (1) with tau = duration, Algorithm 1.

    Example:
        >>> segment = Segment(DmpConfig(n_basis=6), g=[1.0, 2.0], w=[[0.0] * 6] * 2, duration=0.5)
        >>> motion = segment.bind(y0=[0.0, 0.0], yd0=[0.0, 0.0])
        >>> motion.setpoints([0.0, 0.25, 0.5]).shape
        (3, 3, 2)
    """

    __slots__ = ("config", "duration", "g", "w")

    def __init__(self, config: DmpConfig, g: ArrayLike, w: ArrayLike, duration: float) -> None:
        """Copy and check the parameters.

        Raises:
            SegmentError: If g or w has another shape or holds a value that is not finite,
                or if the duration is not positive; the message names the value.
        """
        self.config = config
        self.g = finite("g", g)
        if self.g.ndim != 1 or self.g.size == 0:
            raise SegmentError(f"g has shape {self.g.shape}, expected (dof,)")
        self.w = finite("w", w)
        expected = (self.g.size, config.n_basis)
        if self.w.shape != expected:
            raise SegmentError(f"w has shape {self.w.shape}, expected (dof, n_basis) = {expected}")
        length = finite("duration", duration)
        if length.shape != () or length <= 0.0:
            raise SegmentError(f"duration is {duration!r} s, expected a positive number")
        self.duration = float(length)

    @property
    def dof(self) -> int:
        """Number of joints."""
        return int(self.g.size)

    def bind(self, y0: ArrayLike, yd0: ArrayLike) -> BoundSegment:
        """Return the motion from a start state.

        Args:
            y0: Start position (dof,) [rad].
            yd0: Start velocity (dof,) [rad/s].

        Raises:
            SegmentError: If a shape differs, a value is not finite, or w (g - y0) overflows.
        """
        state = {"y0": finite("y0", y0), "yd0": finite("yd0", yd0)}
        for name, value in state.items():
            if value.shape != (self.dof,):
                raise SegmentError(f"{name} has shape {value.shape}, expected ({self.dof},)")
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                motion = BoundSegment(self, state["y0"], state["yd0"])
        except (OverflowError, ZeroDivisionError) as error:
            raise SegmentError(
                f"duration is {self.duration:g} s: velocities per segment overflow"
            ) from error
        if not np.isfinite(motion.columns).all():
            raise SegmentError("w (g - y0) or yd0 times duration overflows: values are too large")
        largest = np.abs(motion.columns).max(initial=1.0)
        lowest, highest = motion.units.min(), motion.units.max()  # nan fails both comparisons
        if not (lowest > 0.0 and highest < _LARGEST / largest):
            raise SegmentError(
                f"duration is {self.duration:g} s: velocities or accelerations of a motion of "
                f"{largest:.3g} rad overflow"
            )
        return motion


class BoundSegment:
    """A segment bound to its start state: setpoints as a function of the time since take-over.

    Attributes:
        segment: The parameters.
        columns: Right factor (3 + N, dof) of B: y0, yd0 per segment, g, w (g - y0) or a free w.
        units: Factors (3,) that turn y, yd, ydd per segment into rad, rad/s, rad/s^2.

    Example:
        >>> motion = Segment(DmpConfig(n_basis=1), [1.0], [[0.0]], duration=0.5).bind([0.0], [0.0])
        >>> y, yd, ydd = motion.sample(5.0)
        >>> round(float(y[0]), 6)
        1.0
    """

    __slots__ = ("columns", "segment", "units")

    def __init__(self, segment: Segment, y0: Array, yd0: Array) -> None:
        self.segment = segment
        T = segment.duration
        self.units = np.array([1.0, 1.0 / T, 1.0 / T**2])
        forcing = segment.w.T * (segment.g - y0) if segment.config.scaled else segment.w.T
        self.columns = np.concatenate((y0[None], yd0[None] * T, segment.g[None], forcing))

    def sample(self, t: float) -> tuple[Array, Array, Array]:
        """Return y [rad], yd [rad/s] and ydd [rad/s^2], each (dof,), at one time.

        Args:
            t: Time since take-over [s], at least 0; beyond the duration the system goes on.

        Raises:
            SegmentError: If t is negative or not finite.
            ConfigError: If t is later than the response can be computed.
        """
        times = self._normalised(np.array([t], dtype=np.float64))
        rows = response(self.segment.config, times)[:, 0]
        y, yd, ydd = (rows @ self.columns) * self.units[:, None]
        return y, yd, ydd

    def setpoints(self, times: ArrayLike) -> Array:
        """Return y, yd and ydd at many times (n, 3, dof), in SI units.

        The response is kept for each set of normalised times, so the same times cost one matrix
        product.

        Args:
            times: Times since take-over (n,) [s].

        Raises:
            SegmentError: If a time is negative or not finite.
            ConfigError: If a time is later than the response can be computed.
        """
        times = self._normalised(np.asarray(times, dtype=np.float64))
        B = kept_response(self.segment.config, times.tobytes())
        setpoints = np.empty((B.shape[1], 3, self.segment.dof))
        for i, unit in enumerate(self.units):
            np.multiply(B[i] @ self.columns, unit, out=setpoints[:, i])
        return setpoints

    def _normalised(self, times: Array) -> Array:
        if times.ndim != 1:
            raise SegmentError(f"times have shape {times.shape}, expected (n,)")
        if not (np.isfinite(times).all() and (times >= 0.0).all()):
            raise SegmentError("times since take-over must be finite and at least 0 s")
        return times / self.segment.duration


@lru_cache(maxsize=64)
def kept_response(config: DmpConfig, times: bytes) -> Array:
    """Return the response at the times in a buffer of float64, kept and read-only."""
    B = response(config, np.frombuffer(times))
    B.flags.writeable = False
    return B


def finite(name: str, value: ArrayLike) -> Array:
    """Return a private, read-only copy of an array of finite numbers."""
    try:
        array = np.asarray(value, dtype=np.float64).copy()
    except (TypeError, ValueError) as error:
        raise SegmentError(f"{name} is not an array of numbers: {error}") from error
    if not np.isfinite(array).all():
        bad = tuple(np.argwhere(~np.isfinite(array))[0])
        where = f"{name}[{', '.join(map(str, bad))}]" if bad else name
        raise SegmentError(f"{where} is {array[bad]}, expected a finite value")
    array.flags.writeable = False
    return array
