"""The one place where degrees become radians and 0 to 360 becomes -pi to pi.

Kortex counts positions from 0 to 360 degrees. Everywhere else in this project angles are
radians; ``control.measurement`` follows continuous joints over whole turns.
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
    """Return measured positions between -pi and pi."""
    return np.asarray((np.asarray(degrees, float) + 180.0) % FULL_TURN - 180.0) * DEGREE
