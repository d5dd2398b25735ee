# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The arithmetic of Meta-World's rewards on scalars, bit for bit the benchmark's.

Every operation has the order and the precision of the benchmark's, which works on arrays of two
or three numbers; sums of squares use the same product of vectors, whose rounding depends on the
machine's instructions.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from metaworld.utils import reward_utils
from numpy.typing import NDArray

from ndp_ros.tasks.contract import Array


@functools.cache
def _tail_scale(value_at_margin: float) -> float:
    return float(np.sqrt(1 / value_at_margin - 1))


@functools.cache
def _bell_scale(value_at_margin: float) -> float:
    return float(np.sqrt(-2 * np.log(value_at_margin)))


def tolerance(
    x: Any,
    bounds: tuple[float, float] = (0.0, 0.0),
    margin: float = 0.0,
    sigmoid: str = "gaussian",
    value_at_margin: float = 0.1,
) -> Any:
    """Return 1 inside the bounds and a falling function of the distance outside.

    Arguments are those of the benchmark's function of the same name. Scalars with the two shapes
    that the tasks use are computed here, everything else by that function.
    """
    lower, upper = bounds
    if (
        sigmoid not in ("long_tail", "gaussian")
        or not isinstance(x, float)  # np.float64 is a float
        or not 0 < value_at_margin < 1
        or lower > upper
        or margin < 0
    ):
        return reward_utils.tolerance(x, bounds, margin, sigmoid, value_at_margin)  # type: ignore[arg-type]
    x = float(x)
    if lower <= x <= upper:
        return 1.0
    if margin == 0:
        return 0.0
    distance = (lower - x if x < lower else x - upper) / float(margin)
    try:
        # A power and not a product: the benchmark's scalar power is libm's, like Python's.
        if sigmoid == "long_tail":
            return 1 / ((distance * _tail_scale(value_at_margin)) ** 2 + 1)
        # NumPy's exponential differs from libm's in the last bit.
        return float(np.exp(-0.5 * (distance * _bell_scale(value_at_margin)) ** 2))
    except OverflowError:
        return 0.0


def norm(x: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the 2-norm; vectors of float64 skip numpy's argument handling."""
    if args or kwargs or type(x) is not np.ndarray or x.ndim != 1 or x.dtype != np.float64:
        return np.linalg.norm(x, *args, **kwargs)
    return np.float64(math.sqrt(x.dot(x)))


def hstack(parts: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the parts in one row; scalars skip the general concatenation."""
    if args or kwargs or not all(isinstance(part, float) for part in parts):
        return np.hstack(parts, *args, **kwargs)
    return np.array(parts)


def hamacher(a: Any, b: Any) -> Any:
    """Return Hamacher's product of two values in [0, 1]."""
    if not (0.0 <= a <= 1.0 and 0.0 <= b <= 1.0):
        return reward_utils.hamacher_product(a, b)
    product = a * b
    denominator = a + b - product
    return product / denominator if denominator > 0 else 0


def caging(
    self: Any,
    action: NDArray[Any],
    obj_pos: Array,
    obj_radius: float,
    pad_success_thresh: float,
    object_reach_radius: float,
    xz_thresh: float,
    desired_gripper_effort: float = 1.0,
    high_density: bool = False,
    medium_density: bool = False,
) -> Any:
    """Return the reward of 24 tasks for fingers around an object, on scalars.

    Arguments and steps are those of the benchmark's ``_gripper_caging_reward``: the pads on both
    sides of the object, the hand over it, the fingers closing.
    """
    if high_density and medium_density:
        raise ValueError("Can only be either high_density or medium_density")
    x, y, z = obj_pos.tolist()
    start_x, start_y, start_z = self.obj_init_pos.tolist()
    tcp = self.tcp_center
    sides = []
    for pad in self._pad_bodies:
        pad_y = float(pad[1])
        sides.append(
            tolerance(
                abs(pad_y - y),
                (obj_radius, pad_success_thresh),
                abs(abs(pad_y - start_y) - pad_success_thresh),
                "long_tail",
            )
        )
    margin = _distance(start_x - float(self.init_tcp[0]), start_z - float(self.init_tcp[2]))
    beside = _distance(float(tcp[0]) - x, float(tcp[2]) - z)
    over = tolerance(beside, (0, xz_thresh), margin - xz_thresh, "long_tail")
    around = hamacher(hamacher(*sides), float(over))
    # The action has single precision, and so have its results.
    closed = min(max(0, action[-1]), desired_gripper_effort) / desired_gripper_effort
    reward = hamacher(around, closed if around > 0.97 else 0.0)
    if high_density:
        reward = (reward + around) / 2
    if medium_density:
        reach = tolerance(
            norm(obj_pos - tcp),
            (0, object_reach_radius),
            abs(norm(self.obj_init_pos - self.init_tcp) - object_reach_radius),
            "long_tail",
        )
        reward = (reward + float(reach)) / 2
    return reward


def _distance(a: float, b: float) -> float:
    """Return the length of (a, b) by the product of vectors in the benchmark's norm."""
    pair = np.array((a, b))
    return math.sqrt(pair.dot(pair))
