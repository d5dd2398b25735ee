# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The m-step unroll of eqs. (4) and (5), section 3.2: the solver ``euler``, for parity.

The readings that the paper leaves open are decided as follows.

* A segment starts with x_0 = 1; in step i -> i + 1 the phase moves first and the forcing term is
  f(x_{i+1}), as in eq. (14) and in the released code.
* ``simultaneous`` (eqs. 18, 23, 29 and the released code) advances the velocity by the
  acceleration of the state before the step. ``lagged`` (eqs. 4, 5 as printed) advances it by the
  acceleration one step older still, with ydd_0 = 0.
* Row i is the state at time i / m and the acceleration that acts from there on:
  y_{i+1} = y_i + yd_i / m and yd_{i+1} = yd_i + ydd_i / m. The released code returns yd and ydd one
  step late (its row i + 1 is row i here) and the start velocity as its first acceleration; neither
  is fit for inverse dynamics.
"""

from __future__ import annotations

import numpy as np

from ndp_ros.dmp.basis import Array, forcing_columns
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError


def solve(config: DmpConfig, times: Array, stiffness: float, damping: float) -> Array:
    """Return B (3, r, 3 + N) of the unroll of ydd = stiffness (g - y) - damping yd + f.

    With stiffness = alpha beta and damping = alpha a step is eqs. (4) and (5):

        ydd_i = alpha (beta (g - y_i) - yd_i) + f(x_{i+1})
        yd_{i+1} = yd_i + ydd_i / m        (lagged: ydd_{i-1})
        y_{i+1} = y_i + yd_i / m

    It is linear, so all columns of B are unrolled at once, one step beyond the last row for its
    acceleration.

    Args:
        config: Forcing term, number of steps m and their order.
        times: Normalised times (r,), at least 0, rounded to the grid of m steps a segment.
        stiffness: [1/segment^2], positive.
        damping: [1/segment], at least 0.

    Raises:
        ConfigError: If m steps diverge.
    """
    m, dt, n = config.m, 1.0 / config.m, config.n_basis
    rows = np.rint(times * m).astype(np.int64)
    n_steps = int(rows.max()) + 1
    if config.order == "simultaneous":
        A = np.array([[1.0, dt], [-stiffness * dt, 1.0 - damping * dt]])
        gain = dt  # an acceleration enters the velocity at once
    else:
        A = np.array([[1.0, dt, 0.0], [0.0, 1.0, dt], [-stiffness, -damping, 0.0]])
        gain = 1.0  # and here it becomes a state of its own
    if np.abs(np.linalg.eigvals(A)).max() > 1.0 or config.a_x >= m:
        raise ConfigError(
            f"{m} {config.order} Euler steps diverge at alpha={damping:g}, "
            f"a_x={config.a_x:g}: raise m, or use solver=exact"
        )
    x = np.power(1.0 - config.a_x * dt, np.arange(1, n_steps + 1, dtype=np.float64))
    states = np.zeros((n_steps + 1, len(A), 3 + n))
    states[0, 0, 0] = states[0, 1, 1] = 1.0
    states[1:, -1, 2] = gain * stiffness
    states[1:, -1, 3:] = gain * forcing_columns(config, x)
    # states[i+1] = A states[i] + input[i], joined in pairs, then in pairs of pairs.
    power, stride = A, 1
    while stride <= n_steps:
        states[stride:] += np.matmul(power, states[:-stride])
        power, stride = power @ power, 2 * stride
    y, yd = states[:, 0], states[:, 1]
    ydd = states[:, 2] if config.order == "lagged" else np.diff(yd, axis=0) / dt
    return np.stack((y[rows], yd[rows], ydd[rows]))


def size(config: DmpConfig, horizon: float, rows: int, stiffness: float, damping: float) -> float:
    """Return about how many numbers :func:`solve` computes over a horizon, whatever the rows."""
    return (horizon * config.m + 2.0) * 3.0 * (3 + config.n_basis)
