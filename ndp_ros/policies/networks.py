# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The torch building blocks of phi: perceptron, encoders of images, observation normaliser."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ndp_ros.observation import ObservationField, field_slices
from ndp_ros.policies.layout import OBSERVATION_CLIP, VARIANCE_FLOOR, image_shapes


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


class ImageEncoder(nn.ModuleList):
    """A small convolutional network with ReLU, whose features end in tanh."""

    def __init__(self, image: Sequence[int]) -> None:
        """Make the layers for an image (channels, height, width)."""
        *kernels, last = image_shapes(image)
        layers = [nn.Conv2d(s[1], s[0], 3, stride=2, padding=1) for s in kernels]
        super().__init__([*layers, nn.Linear(last[1], last[0])])
        self._image = tuple(image)

    def forward(self, x: Tensor) -> Tensor:
        """Map flat images ``(batch, size)`` to features ``(batch, FEATURES)``."""
        *convolutions, last = list(self)
        x = x.reshape(-1, *self._image)
        for layer in convolutions:
            x = torch.relu(layer(x))
        return torch.tanh(last(x.flatten(1)))


class ImageEncoders(nn.ModuleList):
    """The encoders of all images of an observation; its other fields pass unchanged."""

    def __init__(self, fields: Sequence[ObservationField]) -> None:
        """Make an encoder for each image among the fields."""
        places = field_slices(fields)
        super().__init__(ImageEncoder(f.image) for f, _ in places if f.image)
        self._vectors = [where for f, where in places if not f.image]
        self._images = [where for f, where in places if f.image]

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised observations ``(batch, n_obs)`` to vectors, then features."""
        if not self._images:
            return x
        features = [net(x[:, where]) for net, where in zip(self, self._images, strict=True)]
        return torch.cat([*(x[:, where] for where in self._vectors), *features], dim=1)


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
