# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The limiter keeps setpoints inside position, velocity and acceleration limits.

A state (y, yd) of a joint is *viable* when braking at a, the acceleration limit, ends inside
the position limits; for yd > 0 at a period T

    y + yd^2 / (2 a) + yd T / 2 <= upper,

where the last term accounts for braking in whole ticks. Braking leads from a viable state to a
viable state, so a filter that only steps to viable states can always stop in time. A wanted
setpoint passes unchanged, bit for bit, if it is viable and some motion inside the limits joins it
to the present one. Any other is replaced by the nearest admissible step, and the limiter catches
up with the wanted setpoints as fast as the limits allow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ndp_ros.control.arm import Array
from ndp_ros.errors import ConfigError

Mask = NDArray[np.bool_]

ROWS = ("position",) * 2 + ("velocity",) + ("acceleration",) * 3 + ("continuity",)
"""Limit checked by each row of :attr:`Limiter.inside`."""

_ROUNDING = 1e-9
"""Relative tolerance of the comparisons, so that a state on a limit is inside it."""


class Limiter:
    """Limits of some joints at one rate.

    Attributes:
        lower, upper: Position limits (dof,) [rad], as :meth:`widen` has left them.
        max_velocity: Velocity limits (dof,) [rad/s].
        max_acceleration: Acceleration limits (dof,) [rad/s^2].
        period: Time between two setpoints [s].
        inside: After :meth:`admits`, whether each joint is inside each limit, (ROWS, dof).
    """

    def __init__(
        self,
        lower: ArrayLike,
        upper: ArrayLike,
        max_velocity: ArrayLike,
        max_acceleration: ArrayLike,
        period: float,
    ) -> None:
        """Prepare every array that a loop needs.

        Raises:
            ConfigError: If a joint has no room, or a limit or the period is not positive.
        """
        self.lower, self.upper, self.max_velocity, self.max_acceleration = (
            np.array(v, np.float64) for v in (lower, upper, max_velocity, max_acceleration)
        )
        self.period = T = float(period)
        v, a = self.max_velocity, self.max_acceleration
        if not ((self.lower < self.upper).all() and (v > 0).all() and (a > 0).all() and T > 0):
            raise ConfigError(
                f"limits leave no room: positions {self.lower} to {self.upper}, velocity {v}, "
                f"acceleration {a}, period {T}"
            )
        dof = len(v)
        self._half_over_a = 0.5 / a
        # All limited quantities are linear in (y', yd', ydd', y, yd), except for the braking
        # distance that is added to the second row. With dv = yd' - yd and the drift
        # d = y' - y - (yd + yd') T / 2, some motion with |ydd| <= a joins the two setpoints if
        # |d| <= (a T - |dv|) T / 4.
        self._rows = np.array([
            [1.0, 0.0, 0.0, 0.0, 0.0],                # y'
            [1.0, T / 2, 0.0, 0.0, 0.0],              # where braking from there would end
            [0.0, 1.0, 0.0, 0.0, 0.0],                # yd'
            [1.0, -T / 4, 0.0, -1.0, -3 * T / 4],     # d + dv T / 4
            [1.0, -3 * T / 4, 0.0, -1.0, -T / 4],     # d - dv T / 4
            [0.0, 0.0, 1.0, 0.0, 0.0],                # ydd'
            [1.0, -T / 2, 0.0, -1.0, -T / 2],         # d
        ])  # fmt: skip
        drift = a * (T * T / 4.0)
        self._high = np.stack((self.upper, self.upper, v, drift, drift, a, drift))
        self._high *= 1.0 + _ROUNDING * np.sign(self._high)
        # When the arm hardly moves, the drift of a smooth step is the rounding error of y.
        self._high[[3, 4, 6]] += 1e-12
        self._low = -self._high
        self._low[:2] = self.lower * (1.0 - _ROUNDING * np.sign(self.lower))
        self.lower, self.upper = self._low[0], self._high[0]
        self._states, self._q = np.zeros((5, dof)), np.zeros((len(ROWS), dof))
        self.inside, self._above = (
            np.zeros((len(ROWS), dof), bool),
            np.zeros((len(ROWS), dof), bool),
        )
        self._all_inside = np.ones((len(ROWS), dof), bool).tobytes()
        self._b, self._room = np.zeros(dof), np.zeros((2, dof))
        self._aT, self._aT_squared, self._twice_a = a * T, (a * T) ** 2, 2.0 * a
        self._half_aT, self._half_aT_squared = a * T / 2.0, (a * T / 2.0) ** 2

    @property
    def memory(self) -> dict[str, Array]:
        """The arrays that compiled code shares, by its names for them."""
        return {
            "limit_low": self._low,
            "limit_high": self._high,
            "half_over_a": self._half_over_a,
        }

    def limit_velocity(self, max_velocity: Array) -> None:
        """Take other velocity limits (dof,) [rad/s]; joints that are faster brake to them."""
        self.max_velocity[:] = max_velocity
        self._high[2] = max_velocity * (1.0 + _ROUNDING)
        self._low[2] = -self._high[2]

    def widen(self, position: Array) -> None:
        """Allow a position (dof,) outside the limits to be held; only inward steps leave it."""
        self._low[:2] = np.minimum(self._low[:2], position)
        self._high[:2] = np.maximum(self._high[:2], position)

    def follow(self, current: Array, wanted: Array) -> bool:
        """Step from the current setpoint towards the wanted one as far as the limits allow.

        Args:
            current: Setpoint (3, dof): y, yd, ydd; overwritten by the next one.
            wanted: Setpoint (3, dof) wanted one period later, finite.

        Returns:
            Whether it passed unchanged.
        """
        if self.admits(current, wanted):
            current[:] = wanted
            return True
        self.clamp(current, wanted)
        return False

    def admits(self, current: Array, wanted: Array) -> bool:
        """Return whether the wanted setpoint may follow the current one; fill :attr:`inside`."""
        states, q, b = self._states, self._q, self._b
        states[:3] = wanted
        states[3:] = current[:2]
        np.dot(self._rows, states, out=q)
        np.abs(states[1], out=b)
        b *= states[1]
        b *= self._half_over_a
        q[1] += b
        # Written so that a NaN is outside. Comparing bytes is ten times as fast as all().
        inside = np.less_equal(q, self._high, out=self.inside)
        inside &= np.greater_equal(q, self._low, out=self._above)
        return inside.tobytes() == self._all_inside

    def admits_all(self, current: Array, wanted: Array) -> int:
        """Return how many of the setpoints (n, 3, dof) may follow one another from the current."""
        n, _, dof = wanted.shape
        states = np.empty((5, n, dof))
        states[:3] = wanted.transpose(1, 0, 2)
        states[3:, 0] = current[:2]
        states[3:, 1:] = states[:2, :-1]
        q = np.dot(self._rows, states.reshape(5, n * dof)).reshape(len(ROWS), n, dof)
        b = np.abs(states[1])
        b *= states[1]
        b *= self._half_over_a
        q[1] += b
        inside = np.less_equal(q, self._high[:, None])
        inside &= np.greater_equal(q, self._low[:, None])
        if inside.tobytes() == b"\x01" * inside.size:
            return len(wanted)
        return int(np.argmin(inside.all(axis=(0, 2))))

    def clamp(self, current: Array, wanted: Array) -> None:
        """Step towards the wanted setpoint; joints that :attr:`inside` admits reach it."""
        y, yd = current[0], current[1]
        gap = wanted[0] - y - 0.5 * self.period * (yd + wanted[1])
        self._step(current, wanted[1] + self._closing(gap))
        np.copyto(current, wanted, where=self.inside.all(axis=0))

    def brake(self, current: Array) -> bool:
        """Step towards rest at the acceleration limits; return True once at rest."""
        if not current[1].any():
            current[2] = 0.0
            return True
        self._step(current, 0.0)
        # A velocity left over by rounding would cost another tick.
        current[1, np.abs(current[1]) < 1e-9 * self.max_velocity] = 0.0
        return False

    def approach(self, current: Array, target: Array, share: float = 1.0) -> bool:
        """Step towards rest at a position, inside the limits; return True once there.

        Args:
            current: Setpoint (3, dof); overwritten by the next one.
            target: Position (dof,) [rad].
            share: Used share of the velocity limits.
        """
        gap = target - current[0] - 0.5 * self.period * current[1]
        if np.abs(gap).max() < 1e-3 and np.abs(current[1]).max() < 1e-2:
            return self.brake(current)
        speed = share * self.max_velocity
        self._step(current, np.clip(self._closing(gap), -speed, speed))
        return False

    def _closing(self, gap: Array) -> Array:
        """Compute the velocity from which half the acceleration limit stops at the end of a gap."""
        speed = np.abs(gap)
        speed *= self.max_acceleration
        speed += self._half_aT_squared
        np.sqrt(speed, out=speed)
        speed -= self._half_aT
        return np.copysign(speed, gap, out=speed)

    def _step(self, current: Array, velocity: Array | float) -> None:
        """Move one period at constant acceleration to the nearest viable velocity."""
        half = 0.5 * self.period
        yd = current[1].copy()
        y = current[0] + half * yd
        # A velocity v' is viable towards the upper limit if v'^2 / (2 a) + v' T <= room: the
        # distance to the limit less what this period takes at half the present velocity.
        room = self._room
        np.subtract(self.upper, y, out=room[0])
        np.subtract(y, self.lower, out=room[1])
        np.maximum(room, 0.0, out=room)
        room *= self._twice_a
        room += self._aT_squared
        np.sqrt(room, out=room)
        room -= self._aT
        np.minimum(room, self.max_velocity, out=room)
        v = np.maximum(velocity, np.negative(room[1], out=room[1]))
        np.minimum(v, room[0], out=v)
        # The acceleration limit comes last: a state that is not viable brakes as hard as it may.
        np.maximum(v, yd - self._aT, out=v)
        np.minimum(v, yd + self._aT, out=v)
        np.multiply(v, half, out=current[0])
        current[0] += y
        np.subtract(v, yd, out=current[2])
        current[2] /= self.period
        current[1] = v
