# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Conversion between Kortex positions, 0 to 360 degrees, and radians from -pi to pi.

The rest of the package uses radians; ``control.measurement`` unwraps continuous joints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ndp_ros.control.arm import Array

DEGREE = math.pi / 180.0
FULL_TURN = 360.0

GRIPPER_CLOSED = 0.81
"""Gripper position at 100 % [rad]: the hinge angle of a closed Robotiq 2F-85."""


def to_degrees(radians: Array) -> Array:
    """Convert to the positions of Kortex: 0 <= degrees < 360."""
    degrees = np.mod(np.degrees(radians), FULL_TURN)
    # A tiny negative angle rounds up to the full turn, in double or in single precision.
    degrees[degrees.astype(np.float32) >= FULL_TURN] = 0.0
    return degrees


_ROUNDS_UP = FULL_TURN - 2.0**-16
"""Least number that is a full turn in single precision."""


def degrees_of(radians: Sequence[float]) -> list[float]:
    """Convert a few positions as :func:`to_degrees` does, to the same bits and faster."""
    turned = [math.degrees(angle) % FULL_TURN for angle in radians]
    return [0.0 if angle >= _ROUNDS_UP else angle for angle in turned]


def radians_of(degrees: Sequence[float]) -> list[float]:
    """Convert a few positions as :func:`from_degrees` does, to the same bits and faster."""
    return [((angle + 180.0) % FULL_TURN - 180.0) * DEGREE for angle in degrees]


def from_degrees(degrees: Array) -> Array:
    """Convert measured positions to radians from -pi to pi."""
    return np.asarray((np.asarray(degrees, float) + 180.0) % FULL_TURN - 180.0) * DEGREE
