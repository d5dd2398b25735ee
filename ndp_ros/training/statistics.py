"""Running statistics: of observations, and of returns to scale rewards by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_FLOOR = 1e-8
_REWARD_CLIP = 10.0


class Moments:
    """Mean and variance of everything seen so far, merged batch by batch.

    Attributes:
        mean: Mean ``(size,)``.
        variance: Variance ``(size,)``, 1 before the first batch.
        count: Number of samples seen, ``(size,)``; 0 where the first batch decides.
    """

    def __init__(self, size: int) -> None:
        self.mean: Array = np.zeros(size)
        self.variance: Array = np.ones(size)
        self.count: Array = np.zeros(size)

    def update(self, batch: NDArray[Any]) -> None:
        """Merge a batch ``(n, size)`` (Chan, Golub and LeVeque's pairwise formula)."""
        n = len(batch)
        mean, variance = batch.mean(0, dtype=np.float64), batch.var(0, dtype=np.float64)
        total = self.count + n
        delta = mean - self.mean
        spread = self.variance * self.count + variance * n + delta**2 * self.count * n / total
        self.mean = self.mean + delta * (n / total)
        self.variance = spread / total
        self.count = total

    def state(self) -> dict[str, Array]:
        """Return everything that a resumed run needs, by name."""
        return {"mean": self.mean, "variance": self.variance, "count": self.count}

    def restore(self, state: dict[str, Array]) -> None:
        """Take back what :meth:`state` returned."""
        self.mean, self.variance = state["mean"].copy(), state["variance"].copy()
        self.count = np.broadcast_to(state["count"], self.mean.shape).copy()


class RewardScale:
    """Rewards divided by the running deviation of the discounted return, then clipped."""

    def __init__(self, environments: int, gamma: float) -> None:
        self._gamma = gamma
        self._moments = Moments(1)
        self._trace: Array = np.zeros(environments)

    def __call__(self, rewards: Array, ended: NDArray[np.bool_]) -> Array:
        """Return scaled rewards of the same shape, after learning from them.

        Args:
            rewards: Rewards ``(windows, environments, k)``.
            ended: Whether an episode ended with a window, ``(windows, environments)``.
        """
        returns = np.empty_like(rewards)
        for t in range(len(rewards)):
            for i in range(rewards.shape[2]):
                self._trace = self._gamma * self._trace + rewards[t, :, i]
                returns[t, :, i] = self._trace
            self._trace = np.where(ended[t], 0.0, self._trace)
        self._moments.update(returns.reshape(-1, 1))
        scaled: Array = rewards / self.scale
        return scaled.clip(-_REWARD_CLIP, _REWARD_CLIP)

    @property
    def scale(self) -> float:
        """Deviation of the discounted return seen so far."""
        return float(np.sqrt(self._moments.variance[0] + _FLOOR))

    def cut(self) -> None:
        """Forget the episodes under way: the environments start new ones."""
        self._trace[:] = 0.0

    def state(self) -> dict[str, Array]:
        """Return everything that a resumed run needs, by name."""
        return {**self._moments.state(), "trace": self._trace}

    def restore(self, state: dict[str, Array]) -> None:
        """Take back what :meth:`state` returned."""
        self._moments.restore(state)
        self._trace = state["trace"].copy()
