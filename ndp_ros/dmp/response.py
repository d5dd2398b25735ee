# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The response B of a DMP: [y; yd; ydd] = B [y0; yd0; g; w (g - y0)].

With alpha, beta and the phase fixed, eq. (1) is linear in its start state, its goal and its scaled
weights (in the weights themselves if the forcing term is free), so a roll-out is one matrix
product. :func:`response` computes the matrix in float64 by
one of the solvers, ``exact`` (:mod:`ndp_ros.dmp.exact`) or ``euler`` (:mod:`ndp_ros.dmp.euler`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ndp_ros.dmp import euler, exact
from ndp_ros.dmp.basis import Array
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError


class Solver(NamedTuple):
    """A way to compute B, with the cost of doing so."""

    solve: Callable[[DmpConfig, Array, float, float], Array]
    """Configuration, times (r,), stiffness and damping to B (3, r, 3 + N)."""
    size: Callable[[DmpConfig, float, int, float, float], float]
    """Configuration, latest time, r, stiffness and damping to how many numbers are computed."""


SOLVERS = {
    "exact": Solver(exact.solve, exact.size),
    "euler": Solver(euler.solve, euler.size),
}

MOST_NUMBERS = 1 << 26
"""A response that is made from more numbers than these (0.5 GiB) is refused."""


def response(
    config: DmpConfig,
    times: ArrayLike,
    stiffness: float | None = None,
    damping: float | None = None,
) -> Array:
    """Return B, shape (3, r, 3 + N): rows for y, yd, ydd at the given times.

    Columns are [y0, yd0, g, w_1 (g - y0), ..., w_N (g - y0)], the last N without g - y0 if the
    forcing term is free; velocities are per segment and accelerations per segment squared, since
    the segment lasts 1.

    Args:
        config: The dynamical system.
        times: Normalised times (r,), at least 0, in any order; beyond 1 the system goes on.
            ``euler`` rounds them to its grid of m steps a segment.
        stiffness: Of ydd = stiffness (g - y) - damping yd + f [1/segment^2]; alpha beta by default.
        damping: [1/segment]; alpha by default.

    Raises:
        ConfigError: If the times are not finite, negative, too long or too many, or if Euler
            diverges.
    """
    times = normalised_times(times)
    if times.size == 0:
        return np.zeros((3, 0, 3 + config.n_basis))
    spring = (
        config.alpha * config.beta if stiffness is None else stiffness,
        config.alpha if damping is None else damping,
    )
    solver = SOLVERS[config.solver]
    numbers = solver.size(config, float(times.max()), len(times), *spring)
    if not max(numbers, 3.0 * len(times) * (3 + config.n_basis)) <= MOST_NUMBERS:
        raise ConfigError(
            f"the response at {len(times)} times up to {times.max():g} segments is made from "
            f"{numbers:.2g} numbers, at most {MOST_NUMBERS:.2g}"
        )
    return solver.solve(config, times, *spring)


def response_size(config: DmpConfig, times: Array) -> float:
    """Return about how many numbers :func:`response` computes.

    Its memory and its time grow with them: on a small machine half a million take a tenth of a
    second.

    Args:
        config: The dynamical system.
        times: Normalised times (r,), spread evenly.
    """
    spring = config.alpha * config.beta, config.alpha
    size = SOLVERS[config.solver].size
    return size(config, float(times.max(initial=0.0)), len(times), *spring)


def normalised_times(times: ArrayLike) -> Array:
    """Return times (r,) as an array.

    Raises:
        ConfigError: If they are not a row of finite numbers, each at least 0.
    """
    try:
        array = np.asarray(times, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"response times are not numbers: {error}") from error
    if array.ndim != 1:
        raise ConfigError(f"response times have shape {array.shape}, expected (r,)")
    if array.size and not (np.isfinite(array).all() and array.min() >= 0.0):
        raise ConfigError(
            "response times must be finite and at least 0, "
            f"got values from {array.min():g} to {array.max():g}"
        )
    return array


def whitening(config: DmpConfig, cut: float = 1e-3) -> Array:
    """Return M (N, r) that turns r numbers of order one into weights w = M v.

    The weight columns of B are tiny and nearly dependent (condition 3e2 at N = 6, 5e9 at N = 30).
    With w = M v the trajectory's shape is a sum of r orthogonal curves with a root mean square of
    |g - y0| each over the segment, or of 1 rad if the forcing term is free.

    Args:
        config: The dynamical system.
        cut: Directions whose singular value is below this share of the largest are
            dropped: they need weights so large that float32 cannot add them up.
    """
    columns = response(config, np.linspace(0.0, 1.0, 257))[0, :, 3:]
    _, s, vt = np.linalg.svd(columns, full_matrices=False)
    kept = s > cut * s[0]
    return np.asarray(vt[kept].T / s[kept] * np.sqrt(len(columns)))
