"""The torch building blocks of phi: the perceptron and the observation normaliser."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ndp_ros.policies.layout import OBSERVATION_CLIP, VARIANCE_FLOOR


class Mlp(nn.ModuleList):
    """A perceptron with tanh between its layers and a linear end."""

    def __init__(self, widths: Sequence[int]) -> None:
        """Make linear layers between consecutive widths."""
        super().__init__(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, widths[0])`` to ``(batch, widths[-1])``."""
        for layer in list(self)[:-1]:
            x = torch.tanh(layer(x))
        return torch.as_tensor(self[-1](x))


class Normaliser(nn.Module):
    """Shift and scale an observation by running statistics, then clip it.

    The statistics are buffers: they travel with the weights and get no gradient.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))

    def forward(self, obs: Tensor) -> Tensor:
        """Return the normalised observation ``(batch, n_obs)``."""
        scaled = (obs - self.mean) * torch.rsqrt(self.variance + VARIANCE_FLOOR)
        return scaled.clamp(-OBSERVATION_CLIP, OBSERVATION_CLIP)
