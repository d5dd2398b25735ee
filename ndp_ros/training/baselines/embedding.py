# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""First stage of Dyn-E: an embedding of action sequences, learnt from random motion.

A sequence of k displacements a is encoded as a normal distribution over z, and z and the
observation s at the start predict the change ds of the observation at the end:

    z ~ N(mu(a), sigma(a)^2),    loss = mean |f(s, z) - ds|^2 + beta KL(z, N(0, 1)).

Sequences with the same outcome get neighbouring z. Then a decoder D is trained to invert the
encoder over whitened z with little motion:

    loss = mean |E(D(z)) - z|^2 + lambda sum |D(z)|.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor, nn

from ndp_ros.errors import TrainingError
from ndp_ros.files import atomic_write
from ndp_ros.policies.devices import torch_device
from ndp_ros.policies.layout import Array
from ndp_ros.tasks.actions.embedding import PREFIX
from ndp_ros.training.config import DynEConfig

_DRAW = 7
"""Key of the generator that draws windows."""
_LEAST = 1e-6
"""Values with a smaller standard deviation count as constant."""

Progress = Callable[[int, str, float], None]
"""Called with the number of gradient steps done, the name of an error and its value."""


def selu_net(*widths: int) -> nn.Sequential:
    """Return a perceptron with SELU between its layers and a linear end."""
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.SELU()]
    return nn.Sequential(*layers[:-1])


class Embedding(nn.Module):
    """Encoder of action sequences and model of their outcome.

    Attributes:
        encoder: Maps displacements in units of their bounds to mu and log sigma^2.
        model: Maps the whitened observation and z to the whitened change.
    """

    def __init__(self, n_obs: int, n_actions: int, size: int, hidden: int) -> None:
        super().__init__()
        self.encoder = selu_net(n_actions, hidden, hidden, 2 * size)
        self.model = selu_net(n_obs + size, hidden, hidden, n_obs)

    def encode(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and log sigma^2 ``(b, size)`` of sequences ``(b, k dof)``."""
        mean, log_variance = self.encoder(actions).chunk(2, dim=1)
        return mean, log_variance

    def loss(
        self, obs: Tensor, actions: Tensor, change: Tensor, beta: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and, as a part of it, the prediction error, both means over windows.

        Observations and changes ``(b, n_obs)`` are whitened, actions are sequences ``(b, k dof)``;
        ``beta`` weighs the KL, and the generator draws z.
        """
        mean, log_variance = self.encode(actions)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        z = mean + torch.exp(0.5 * log_variance) * noise
        error = ((self.model(torch.cat((obs, z), dim=1)) - change) ** 2).mean()
        return error + beta * divergence(mean, log_variance).mean(), error


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the KL ``(b,)`` of normal distributions from the standard one."""
    return 0.5 * (mean**2 + log_variance.exp() - log_variance - 1.0).sum(1)


def learn_embedding(
    obs: Array,
    actions: Array,
    next_obs: Array,
    bound: Array,
    config: DynEConfig,
    seed: int,
    progress: Progress = lambda done, name, error: None,
    device: str = "cpu",
) -> dict[str, Array]:
    """Return the tensors of ``ndp_ros.tasks.actions.embedding.Decoder``, learnt from windows.

    A window has the observations ``(n, n_obs)`` at its start and end and displacements
    ``(n, k, dof)``, of which ``bound (k, dof)`` are the largest. The seed is that of initial
    weights, batches and noise; ``progress`` is called after each gradient step.

    Raises:
        TrainingError: If a loss is not finite.
        ConfigError: If this torch has no such device.
    """
    torch.set_num_threads(1)
    place = torch_device(device)
    size = config.embedding_size or actions.shape[2]
    states, changes = whitened(obs), whitened(next_obs - obs)
    sequences = (np.clip(actions, -bound, bound) / bound).reshape(len(actions), -1)
    data = [torch.from_numpy(a.astype(np.float32)).to(place) for a in (states, sequences, changes)]
    rng = np.random.default_rng([seed, _DRAW])
    generator = torch.Generator(place).manual_seed(int(rng.integers(2**62)))
    draws = partial(_draws, data, config.embedding_batch, rng)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden = config.embedding_hidden
        net = Embedding(states.shape[1], sequences.shape[1], size, hidden)
        decoder = selu_net(size, hidden, hidden, sequences.shape[1]).to(place)
        net.to(place)

    adam = torch.optim.Adam(net.parameters(), lr=config.embedding_rate, amsgrad=True)
    for done, (state, sequence, change) in enumerate(draws(config.embedding_steps), start=1):
        loss, error = net.loss(state, sequence, change, config.information_cost, generator)
        _descend(adam, loss, "embedding")
        progress(done, "prediction error", error.item())

    net.requires_grad_(False)
    whiten, largest = _whitening(net, data[1])
    adam = torch.optim.Adam(decoder.parameters(), lr=config.embedding_rate)
    for done, (_, sequence, _) in enumerate(draws(config.decoder_steps), start=1):
        z = whiten(sequence)
        decoded = torch.tanh(decoder(z))
        error = ((whiten(decoded) - z) ** 2).mean()
        motion = decoded.reshape(len(decoded), *bound.shape).norm(dim=2).sum()
        _descend(adam, error + config.motion_cost * motion, "decoder")
        progress(config.embedding_steps + done, "decoding error", error.item())
    return {"bound": bound.astype(np.float32), "largest": largest, **_linear_tensors(decoder)}


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor, name: str) -> None:
    """Take one gradient step on the parameters of an optimiser; no other gradients are computed.

    Raises:
        TrainingError: If the loss is not finite.
    """
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss of the {name} is not finite: lower embedding_rate")
    optimiser.zero_grad()
    loss.backward(inputs=[p for group in optimiser.param_groups for p in group["params"]])
    optimiser.step()


def _draws(
    data: list[Tensor], size: int, rng: np.random.Generator, n: int
) -> Iterator[list[Tensor]]:
    """Yield n batches of windows drawn with replacement."""
    for _ in range(n):
        index = torch.from_numpy(rng.integers(len(data[0]), size=size))
        yield [array[index] for array in data]


def _whitening(net: Embedding, sequences: Tensor) -> tuple[Callable[[Tensor], Tensor], Array]:
    """Return the map from sequences to whitened z, and the largest |z| ``(1,)``."""
    means = torch.cat([net.encode(part)[0] for part in sequences.split(4096)])
    mean, deviation = means.mean(0), means.std(0).clamp(min=_LEAST)

    def whiten(actions: Tensor) -> Tensor:
        return (net.encode(actions)[0] - mean) / deviation

    return whiten, ((means - mean) / deviation).abs().max().reshape(1).cpu().numpy()


def _linear_tensors(net: nn.Sequential) -> dict[str, Array]:
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    return {
        f"{i}.{name}": tensor.detach().cpu().numpy()
        for i, layer in enumerate(linear)
        for name, tensor in (("weight", layer.weight), ("bias", layer.bias))
    }


def save_decoder(path: Path, tensors: dict[str, Array]) -> None:
    """Write a decoder's tensors atomically."""
    named = {PREFIX + n: np.ascontiguousarray(t) for n, t in tensors.items()}
    atomic_write(path, safetensors.numpy.save(named))


def load_decoder(path: Path) -> dict[str, Array]:
    """Return the tensors written by :func:`save_decoder`."""
    named = safetensors.numpy.load_file(path)
    return {n.removeprefix(PREFIX): t for n, t in named.items()}


def whitened(values: Array) -> Array:
    """Return values ``(n, m)`` with mean 0 and deviation 1 in each column, constants as 0."""
    deviation = values.std(axis=0)
    white: Array = (values - values.mean(axis=0)) / np.where(deviation > _LEAST, deviation, 1.0)
    return white
