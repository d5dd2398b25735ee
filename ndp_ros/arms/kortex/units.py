"""The one place where degrees become radians, 0-360 becomes continuous and signs turn.

Kortex counts positions from 0 to 360 degrees, and measures torque against the
direction in which it commands it. Everywhere else in this project angles are
continuous radians and a torque has one sign.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DEGREE = math.pi / 180.0
FULL_TURN = 360.0

# Kinova's gripper counts per cent from open to closed; these are the Robotiq
# 2F-85's hinge angle when closed and the time in which it closes.
GRIPPER_CLOSED = 0.81
"""Gripper position at 100 % [rad]."""


def to_degrees(radians: Array) -> Array:
    """Return positions as Kortex wants them: 0 <= degrees < 360."""
    degrees = np.mod(np.degrees(radians), FULL_TURN)
    # A tiny negative angle rounds up to the full turn, in double or in single precision.
    degrees[degrees.astype(np.float32) >= FULL_TURN] = 0.0
    return degrees


def from_degrees(degrees: Array) -> Array:
    """Return positions between -pi and pi; for the first measurement of a joint."""
    return np.asarray((np.asarray(degrees, float) + 180.0) % FULL_TURN - 180.0) * DEGREE


class JointUnits:
    """Turns measured positions into continuous ones, following each joint over 0 and 360.

    Between two measurements a joint must turn by less than half a turn, which no
    Kinova joint can do within a second.
    """

    def __init__(self, degrees: Array) -> None:
        """Start from a first measurement (n,) [deg]; the result lies in -pi to pi."""
        self.position = from_degrees(degrees)
        """Continuous positions (n,) [rad], overwritten by :meth:`update`."""
        self._turn = np.zeros_like(self.position)

    def update(self, degrees: Array) -> Array:
        """Follow a new measurement (n,) [deg] and return the continuous positions [rad]."""
        turn, position = self._turn, self.position
        np.multiply(degrees, DEGREE, out=turn)
        turn -= position
        # What is left of the difference after whole turns is the movement.
        turn -= np.rint(turn / (2.0 * math.pi)) * (2.0 * math.pi)
        position += turn
        return position
