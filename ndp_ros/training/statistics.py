# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Running statistics of observations, and of returns for the scale of rewards."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.observation import Array

_FLOOR = 1e-8
_REWARD_CLIP = 10.0


class Moments:
    """Running mean and variance, merged batch by batch.

    Attributes:
        mean: Mean ``(size,)``.
        variance: Variance ``(size,)``, 1 before the first batch.
        count: Number of samples, ``(size,)``; 0 where the first batch sets the statistics.
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
        """Return the state for a checkpoint, by name."""
        return {"mean": self.mean, "variance": self.variance, "count": self.count}

    def restore(self, state: dict[str, Array]) -> None:
        """Restore the state that :meth:`state` returned."""
        self.mean, self.variance = state["mean"].copy(), state["variance"].copy()
        self.count = np.broadcast_to(state["count"], self.mean.shape).copy()


class RewardScale:
    """Rewards divided by the running deviation of the discounted return, and clipped.

    Several tasks that are learnt together can have a scale each: one for all would leave those with
    small rewards next to nothing of the loss.
    """

    def __init__(self, environments: int, gamma: float, tasks: int = 1) -> None:
        self._gamma = gamma
        self._moments = [Moments(1) for _ in range(tasks)]
        self._trace: Array = np.zeros(environments)

    def __call__(
        self,
        rewards: Array,
        ended: NDArray[np.bool_],
        task: NDArray[np.integer[Any]] | None = None,
    ) -> Array:
        """Update the statistics with rewards and return them scaled, in the same shape.

        Rewards are ``(windows, environments, k)``; ``ended`` and the number of the task in each
        window, None for one task, are ``(windows, environments)``.
        """
        returns = np.empty_like(rewards)
        for t in range(len(rewards)):
            for i in range(rewards.shape[2]):
                self._trace = self._gamma * self._trace + rewards[t, :, i]
                returns[t, :, i] = self._trace
            self._trace = np.where(ended[t], 0.0, self._trace)
        numbers = np.zeros(ended.shape, int) if task is None else task
        for number in np.unique(numbers):
            self._moments[number].update(returns[numbers == number].reshape(-1, 1))
        scaled: Array = rewards / self.scales[numbers][..., None]
        return scaled.clip(-_REWARD_CLIP, _REWARD_CLIP)

    @property
    def scales(self) -> Array:
        """Standard deviation of the discounted return so far, of every task ``(tasks,)``."""
        variances = np.concatenate([moments.variance for moments in self._moments])
        return np.asarray(np.sqrt(variances + _FLOOR))

    def cut(self) -> None:
        """Drop the returns of unfinished episodes, because all environments start new ones."""
        self._trace[:] = 0.0

    def state(self) -> dict[str, Array]:
        """Return the state for a checkpoint, by name."""
        states = [moments.state() for moments in self._moments]
        joined = {name: np.concatenate([s[name] for s in states]) for name in states[0]}
        return {**joined, "trace": self._trace}

    def restore(self, state: dict[str, Array]) -> None:
        """Restore the state that :meth:`state` returned."""
        for i, moments in enumerate(self._moments):
            moments.restore({n: a[i : i + 1] for n, a in state.items() if n != "trace"})
        self._trace = state["trace"].copy()
