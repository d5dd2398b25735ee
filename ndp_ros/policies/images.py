# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The encoders of images between arrays: what :class:`ArrayPolicy` has in front of its layers.

Convolutions are torch's, and so is their gradient; everything behind them stays in numpy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ndp_ros.policies.devices import torch_device
from ndp_ros.policies.layout import Array
from ndp_ros.policies.networks import ImageEncoders
from ndp_ros.policies.spec import PolicySpec


class ArrayEncoders:
    """Encoders whose parameters are read from a policy's flat vector in every pass."""

    def __init__(
        self, spec: PolicySpec, parameters: Mapping[str, Array], device: str = "cpu"
    ) -> None:
        """Make the encoders, whose parameters are views of the flat vector by name.

        Torch computes with one thread from now on: images are small, and more threads than idle
        cores take thirty times as long.

        Raises:
            ConfigError: If this torch has no such device.
        """
        torch.set_num_threads(1)
        self._device = torch_device(device)
        self._net = ImageEncoders(spec.observation)
        self._views = {
            f"images.{name}": torch.from_numpy(parameters[f"images.{name}"])
            for name, _ in self._net.named_parameters()
        }
        self._net.to(self._device, next(iter(self._views.values())).dtype)

    def encode(self, x: Array) -> Array:
        """Return the inputs of actor and critic ``(inputs, batch)`` without a backward pass.

        ``x (n_obs, batch)`` is normalised.
        """
        with torch.no_grad():
            return self.forward(x)[0]

    def forward(self, x: Array) -> tuple[Array, Tensor]:
        """Return the inputs as :meth:`encode` does, and the tensor that :meth:`backward` needs."""
        with torch.no_grad():
            for parameter, view in zip(self._net.parameters(), self._views.values(), strict=True):
                parameter.copy_(view)
        made = self._net(torch.from_numpy(x.T).to(self._device))
        return np.ascontiguousarray(made.detach().cpu().numpy().T), made

    def backward(self, made: Tensor, d_inputs: Array, slopes: Mapping[str, Array]) -> None:
        """Write the gradients of the parameters into ``slopes``, views of that of the flat vector.

        ``made`` is the second result of :meth:`forward`, ``d_inputs (inputs, batch)`` the gradient
        of the inputs.
        """
        above = torch.from_numpy(np.ascontiguousarray(d_inputs.T)).to(self._device)
        found = torch.autograd.grad(made, list(self._net.parameters()), above)
        for name, gradient in zip(self._views, found, strict=True):
            slopes[name][...] = gradient.cpu().numpy()
