# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The phase x(t) of eq. (2), the normalised kernels and the forcing term of eq. (3).

Choices that the paper leaves open:

* ``i`` in c_i = exp(-i a_x / n) runs from 1 to n, as the weights w_1 ... w_n do.
* The argument of a non-Gaussian kernel of section 5.3 is the distance x - c_i in units of the
  width: (epsilon x)^2 becomes h_i (x - c_i)^2 for every kernel, since a function of x only is the
  same for every i and cancels in the normalisation.
* ``linear`` is sqrt(h_i) |x - c_i| in the paper's layout (psi(r) = r) and h_i (x - c_i)^2 in the
  released one, as in that code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ndp_ros.dmp.config import DmpConfig

Array = NDArray[np.float64]


def phase(config: DmpConfig, times: Array) -> Array:
    """Return the phase x(t) = exp(-a_x t), which solves eq. (2) with x(0) = 1.

    Args:
        config: The dynamical system; only ``a_x`` matters.
        times: Normalised times, any shape; 1 is the end of a segment.
    """
    return np.asarray(np.exp(-config.a_x * times))


def centre_times(config: DmpConfig) -> Array:
    """Return the normalised times (N,) at which the phase passes the centres c_i."""
    n = config.n_basis
    if config.layout == "paper":
        return np.arange(1, n + 1) / n
    return np.linspace(0.0, 1.0, n)


def centres(config: DmpConfig) -> Array:
    """Return the centres c_i (N,): exp(-i a_x / n), or the released spacing over [0, 1]."""
    return phase(config, centre_times(config))


def widths(config: DmpConfig) -> Array:
    """Return h_i (N,): n / c_i as printed, or N^1.5 / (c_i a_x) as released."""
    n, c = config.n_basis, centres(config)
    return np.asarray(n / c if config.layout == "paper" else n**1.5 / (c * config.a_x))


def normalised_kernels(config: DmpConfig, x: Array) -> Array:
    """Return psi_i(x) / sum_j psi_j(x), shape (r, N), rows summing to one.

    Kernels are logarithms until they are normalised: far from every centre all Gaussians underflow,
    while their ratios stay well defined.

    Args:
        config: The dynamical system.
        x: Phases (r,).
    """
    if config.n_basis == 1:
        return np.ones((len(x), 1))
    squared = widths(config) * (x[:, None] - centres(config)) ** 2
    log_psi = _log_kernel(config, squared)
    psi = np.exp(log_psi - log_psi.max(axis=1, keepdims=True))
    return np.asarray(psi / psi.sum(axis=1, keepdims=True))


def forcing_columns(config: DmpConfig, x: Array) -> Array:
    """Return the factors (r, N) of w (g - y0), or of a free w, in ydd at phases x (r,), eq. (3).

    A factor is x psi_i / sum_j psi_j, times alpha if the forcing term stands inside the bracket, as
    in eq. (4).
    """
    gain = config.alpha if config.forcing == "inside" else 1.0
    return np.asarray(gain * x[:, None] * normalised_kernels(config, x))


def _log_kernel(config: DmpConfig, squared: Array) -> Array:
    """Return log psi of the squared distance h (x - c)^2."""
    match config.kernel:
        case "gaussian":
            return -squared
        case "multiquadric":
            return np.asarray(0.5 * np.log1p(squared))
        case "inverse_quadric":
            return -np.log1p(squared)
        case "inverse_multiquadric":
            return -0.5 * np.log1p(squared)
        case _:
            with np.errstate(divide="ignore"):  # a kernel is zero at its own centre
                log_squared = np.log(squared)
            return np.asarray(log_squared if config.layout == "released" else 0.5 * log_squared)
