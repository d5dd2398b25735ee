# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A learned alpha (section 5.2.1): B as a series over alpha, one alpha for each segment.

A network's raw output stands for an angle in (0, pi), whose cosine spans the range of alpha. The
entries of B are smooth in alpha, so a short Chebyshev series, T_n = cos(n angle), gives B and its
slope for every sample of a batch in one product.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from numbers import Real

import numpy as np

from ndp_ros.dmp.basis import Array
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response
from ndp_ros.errors import ConfigError

Respond = Callable[[DmpConfig, Array], Array]
"""A structure: normalised times (r,) to B (3, r, 3 + N); of a DMP, :func:`response`."""

ALPHA_RANGE = (0.5, 30.0)
"""Lowest and highest value of a learned alpha."""
_MOST_NODES = 256


def alpha_of(angle: Array, alpha_range: tuple[float, float]) -> Array:
    """Return the alpha at an angle in (0, pi); 0 is the highest alpha of the range."""
    low, high = alpha_range
    return 0.5 * (low + high) + 0.5 * (high - low) * np.cos(angle)


def raw_of(alpha: float, alpha_range: tuple[float, float]) -> float:
    """Return the raw output r that stands for an alpha, where angle = pi sigmoid(-r).

    Raises:
        ConfigError: If alpha is not inside the range.
    """
    low, high = alpha_range
    if not isinstance(alpha, Real) or not low < alpha < high:
        raise ConfigError(f"alpha is {alpha!r}, expected inside {low:g} to {high:g}")
    share = 1.0 - math.acos((2.0 * alpha - low - high) / (high - low)) / math.pi
    return math.log(share / (1.0 - share))


def alpha_series(
    config: DmpConfig,
    times: Array,
    orders: int,
    alpha_range: tuple[float, float],
    precision: float,
    respond: Respond = response,
) -> Array:
    """Return the Chebyshev coefficients (n, orders * r * (3 + N)) of B over alpha.

    B is the sum of cos(n angle) times the n-th coefficient. Nodes are doubled until the series
    has converged; coefficients below the precision, relative to the largest one, are cut off.

    Args:
        config: The dynamical system; its alpha does not matter.
        times: Normalised times (r,).
        orders: 1 for y, 3 for y, yd and ydd.
        alpha_range: Lowest and highest alpha.
        precision: Relative size of the coefficients that are left out.
        respond: The structure.

    Raises:
        ConfigError: If 256 nodes are not enough, or if Euler diverges inside the range.
    """
    low, high = alpha_range
    n_nodes = 16
    while n_nodes <= _MOST_NODES:
        angles = (np.arange(n_nodes) + 0.5) * np.pi / n_nodes
        systems = [replace(config, alpha=float(a)) for a in alpha_of(angles, alpha_range)]
        B = np.stack([respond(system, times)[:orders].ravel() for system in systems])
        series = 2.0 / n_nodes * np.cos(np.arange(n_nodes)[:, None] * angles) @ B
        series[0] *= 0.5
        size = np.abs(series).max(axis=1)
        above = np.flatnonzero(size > precision * size.max())
        if above[-1] < n_nodes - 2:
            return np.asarray(series[: above[-1] + 1])
        n_nodes *= 2
    raise ConfigError(
        f"alpha_range {low:g} to {high:g} is too wide for times up to {times.max():g}"
    )
