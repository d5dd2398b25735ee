"""Adam on one flat vector, in place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Adam:
    """Adam (Kingma and Ba, Algorithm 1) with buffers made once.

    Attributes:
        m: First moment ``(size,)``.
        v: Second moment ``(size,)``.
        steps: Number of steps taken.
    """

    def __init__(
        self, size: int, dtype: Any, eps: float = 1e-5, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        self.m: Array = np.zeros(size, dtype)
        self.v: Array = np.zeros(size, dtype)
        self.steps = 0
        self._eps = eps
        self._betas = betas
        self._slack: Array = np.empty(size, dtype)

    def step(self, parameters: Array, gradient: Array, learning_rate: float) -> None:
        """Move the parameters ``(size,)`` one step down the gradient, which is overwritten."""
        b1, b2 = self._betas
        self.steps += 1
        slack = self._slack
        self.m *= b1
        np.multiply(gradient, 1.0 - b1, out=slack)
        self.m += slack
        self.v *= b2
        np.multiply(gradient, gradient, out=gradient)
        gradient *= 1.0 - b2
        self.v += gradient
        np.multiply(self.v, 1.0 / (1.0 - b2**self.steps), out=slack)
        np.sqrt(slack, out=slack)
        slack += self._eps
        np.divide(self.m, slack, out=slack)
        slack *= learning_rate / (1.0 - b1**self.steps)
        parameters -= slack


def clip_norm(gradient: Array, maximum: float) -> float:
    """Scale a gradient ``(size,)`` in place to a norm of at most ``maximum``; return its norm."""
    norm = math.sqrt(float(np.dot(gradient, gradient)))
    if norm > maximum:
        gradient *= maximum / (norm + 1e-6)
    return norm
