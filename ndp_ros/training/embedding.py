"""First stage of Dyn-E: an embedding of action sequences, learnt from random motion.

A sequence of k displacements a is encoded as a normal distribution over z, and z together
with the observation s at the start predicts how the observation has changed at the end:

    z ~ N(mu(a), sigma(a)^2),    loss = mean |f(s, z) - ds|^2 + beta KL(z, N(0, 1)).

Sequences with the same outcome come to lie together. Then a decoder D learns to invert
the encoder over whitened z, with as little motion as that takes:

    loss = mean |E(D(z)) - z|^2 + lambda sum |D(z)|.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ndp_ros.tasks.embedding import PREFIX
from ndp_ros.training.descent import descend
from ndp_ros.training.experiment import DynEConfig
from ndp_ros.whole import write_whole

Array = NDArray[Any]

_DRAW = 7
"""Key of the generator that draws windows."""
_LEAST = 1e-6
"""Deviations below this are those of a constant."""


def selu_net(*widths: int) -> nn.Sequential:
    """Return a perceptron with SELU between its layers and a linear end."""
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.SELU()]
    return nn.Sequential(*layers[:-1])


class Embedding(nn.Module):
    """Encoder and model of the outcome.

    Attributes:
        encoder: From displacements in units of their bounds to mu and log sigma^2.
        model: From whitened observation and z to the whitened change.
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
        """Return the loss per window, and the part of it that is the prediction's error.

        Args:
            obs: Whitened observations ``(b, n_obs)``.
            actions: Sequences ``(b, k dof)``.
            change: Whitened changes ``(b, n_obs)``.
            beta: Weight of the KL.
            generator: Draws z.
        """
        mean, log_variance = self.encode(actions)
        noise = torch.randn(mean.shape, generator=generator)
        z = mean + torch.exp(0.5 * log_variance) * noise
        error = ((self.model(torch.cat((obs, z), dim=1)) - change) ** 2).mean()
        return error + beta * divergence(mean, log_variance).mean(), error


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the KL ``(b,)`` of normal distributions from the standard one."""
    return 0.5 * (mean**2 + log_variance.exp() - log_variance - 1.0).sum(1)


def learn_embedding(
    obs: Array, actions: Array, next_obs: Array, bound: Array, config: DynEConfig, seed: int,
    say: Callable[[int, str], None] = lambda done, what: None,
) -> dict[str, Array]:  # fmt: skip
    """Return the decoder's tensors, as ``ndp_ros.tasks.embedding.Decoder`` takes them.

    Args:
        obs: Observations at the start of each window ``(n, n_obs)``.
        actions: Displacements ``(n, k, dof)``.
        next_obs: Observations at the end ``(n, n_obs)``.
        bound: Largest displacements ``(k, dof)``.
        config: Sizes and steps.
        seed: Decides initial weights, batches and noise.
        say: Told how many gradient steps have been done, and what shows that they help.

    Raises:
        TrainingError: If a loss is not finite.
    """
    torch.set_num_threads(1)
    size = config.embedding_size or actions.shape[2]
    states, changes = whitened(obs), whitened(next_obs - obs)
    sequences = (np.clip(actions, -bound, bound) / bound).reshape(len(actions), -1)
    data = [torch.from_numpy(a.astype(np.float32)) for a in (states, sequences, changes)]
    rng = np.random.default_rng([seed, _DRAW])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))

    def batches(n: int) -> Iterator[list[Tensor]]:
        for _ in range(n):
            index = torch.from_numpy(rng.integers(len(states), size=config.embedding_batch))
            yield [array[index] for array in data]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden = config.embedding_hidden
        net = Embedding(states.shape[1], sequences.shape[1], size, hidden)
        decoder = selu_net(size, hidden, hidden, sequences.shape[1])

    adam = torch.optim.Adam(net.parameters(), lr=config.embedding_rate, amsgrad=True)
    for done, (s, a, ds) in enumerate(batches(config.embedding_steps), start=1):
        loss, error = net.loss(s, a, ds, config.information_cost, generator)
        descend(adam, loss, "embedding", "embedding_rate")
        say(done, f"prediction error {error.item():.3f}")

    net.requires_grad_(False)
    means = torch.cat([net.encode(part)[0] for part in data[1].split(4096)])
    mean, deviation = means.mean(0), means.std(0).clamp(min=_LEAST)
    white = (means - mean) / deviation
    adam = torch.optim.Adam(decoder.parameters(), lr=config.embedding_rate)
    for done, (_, a, _) in enumerate(batches(config.decoder_steps), start=1):
        z = (net.encode(a)[0] - mean) / deviation
        decoded = torch.tanh(decoder(z))
        back = (net.encode(decoded)[0] - mean) / deviation
        error = ((back - z) ** 2).mean()
        motion = decoded.reshape(len(decoded), *bound.shape).norm(dim=2).sum()
        descend(adam, error + config.motion_cost * motion, "decoder", "embedding_rate")
        say(config.embedding_steps + done, f"decoding error {error.item():.3f}")

    linear = [layer for layer in decoder if isinstance(layer, nn.Linear)]
    tensors = {"bound": bound.astype(np.float32), "largest": white.abs().max().reshape(1).numpy()}
    for i, layer in enumerate(linear):
        tensors[f"{i}.weight"] = layer.weight.detach().numpy()
        tensors[f"{i}.bias"] = layer.bias.detach().numpy()
    return tensors


def save_decoder(path: Path, tensors: dict[str, Array]) -> None:
    """Write a decoder's tensors in one step."""
    named = {PREFIX + n: np.ascontiguousarray(t) for n, t in tensors.items()}
    write_whole(path, safetensors.numpy.save(named))


def load_decoder(path: Path) -> dict[str, Array]:
    """Return what :func:`save_decoder` wrote."""
    named = safetensors.numpy.load_file(path)
    return {n.removeprefix(PREFIX): t for n, t in named.items()}


def whitened(values: Array) -> Array:
    """Return values (n, m) with mean 0 and deviation 1 in each column; constants become 0."""
    deviation = values.std(axis=0)
    white: Array = (values - values.mean(axis=0)) / np.where(deviation > _LEAST, deviation, 1.0)
    return white
