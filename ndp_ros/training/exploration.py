"""The noise of a window: Gaussian, and correlated from one control step to the next.

The paper draws noise for each of the k actions of a window anew. Displacements then walk at
random: of their noise most cancels over a window, and what is left of a change of φ, which moves
all k actions of an NDP together, is counted k times in the ratios. Here noise may remember::

    a_i = mu_i + sigma n_i,    n_0 = e_0,    n_i = rho n_(i-1) + sqrt(1 - rho^2) e_i

Each action keeps its deviation sigma, and the ratio of a sub-step stays exact: given the
actions before it in the window, the density of a_i is that of e_i. So with n = L e a policy learns
as ever from *whitened* actions L^-1 a and means L^-1 mu, whose noise is independent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class WindowNoise:
    """Correlation over the sub-steps of a window; arrays are ``(k, ...)``."""

    def __init__(self, k: int, correlation: float, dtype: Any = np.float32) -> None:
        """Choose how much the noise remembers.

        Args:
            k: Actions of a window.
            correlation: rho, of neighbours; 0 leaves every array as it is.
            dtype: Type of the arrays.
        """
        lag = np.subtract.outer(np.arange(k), np.arange(k))
        colour = np.where(lag >= 0, float(correlation) ** np.maximum(lag, 0), 0.0)
        colour[:, 1:] *= np.sqrt(1.0 - correlation**2)
        self._white = correlation == 0.0 or k == 1
        self._colour = colour.astype(dtype)
        self._whiten = np.linalg.inv(colour).astype(dtype)

    def colour(self, independent: Array) -> Array:
        """Return noise n for independent e."""
        return self._times(self._colour, independent)

    def whiten(self, actions: Array) -> Array:
        """Return whitened actions or means, of which the noise is independent."""
        return self._times(self._whiten, actions)

    def pull_back(self, gradient: Array) -> Array:
        """Return the gradient of what was whitened, for that of the whitened."""
        return self._times(self._whiten.T, gradient)

    def _times(self, matrix: Array, array: Array) -> Array:
        if self._white:
            return array
        flat = array.reshape(len(matrix), -1)
        product: Array = np.matmul(matrix, flat).reshape(array.shape)
        return product
