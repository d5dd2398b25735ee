# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Exploration noise of a window: Gaussian, with a correlation between control steps.

The paper draws independent noise for each of the k actions of a window. Most of it cancels over the
window, while a change of phi moves all k actions of an NDP together and counts k times in the
probability ratios. A first-order autoregressive process explores more evenly::

    a_i = mu_i + sigma n_i,    n_0 = e_0,    n_i = rho n_(i-1) + sqrt(1 - rho^2) e_i

Each action keeps its standard deviation sigma, and the ratio of a sub-step stays exact: given the
earlier actions of the window, the density of a_i is that of e_i. With n = L e, PPO is computed on
*whitened* actions L^-1 a and means L^-1 mu, whose noise is independent.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ndp_ros.policies.layout import Array


class WindowNoise:
    """Correlated noise over the sub-steps of a window; arrays are ``(k, ...)``."""

    def __init__(self, k: int, correlation: float, dtype: Any = np.float32) -> None:
        """Compute L and its inverse; with a correlation rho of 0 every array stays as it is."""
        lag = np.subtract.outer(np.arange(k), np.arange(k))
        colour = np.where(lag >= 0, float(correlation) ** np.maximum(lag, 0), 0.0)
        colour[:, 1:] *= np.sqrt(1.0 - correlation**2)
        self._white = correlation == 0.0 or k == 1
        self._colour = colour.astype(dtype)
        self._whiten = np.linalg.inv(colour).astype(dtype)

    def colour(self, independent: Array) -> Array:
        """Return correlated noise n for independent noise e."""
        return self._times(self._colour, independent)

    def whiten(self, actions: Array) -> Array:
        """Return whitened actions or means."""
        return self._times(self._whiten, actions)

    def pull_back(self, gradient: Array) -> Array:
        """Return the gradient of actions or means for the gradient of the whitened ones."""
        return self._times(self._whiten.T, gradient)

    def _times(self, matrix: Array, array: Array) -> Array:
        if self._white:
            return array
        flat = array.reshape(len(matrix), -1)
        product: Array = np.matmul(matrix, flat).reshape(array.shape)
        return product
