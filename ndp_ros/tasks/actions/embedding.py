# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Tasks whose actions are points of an embedding that decodes to k displacements: Dyn-E.

An action (1, m) is a point e of the embedding, in units of the largest one that the decoder was
trained on. The decoder turns it into the k displacements of a step,

    a = bound tanh(W3 selu(W2 selu(W1 e + b1) + b2) + b3).

It is read from a file in safetensors format, whose tensors are named ``embedding.<name>``: the
weights and biases, ``bound`` (k, dof), ``largest`` (1,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from ndp_ros.errors import TaskError
from ndp_ros.tasks.actions.wrapped import WrappedTask, summed
from ndp_ros.tasks.contract import Array, Step, finite_array
from ndp_ros.tasks.vector import VectorTask, vectorise

PREFIX = "embedding."

_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def selu(x: Array) -> Array:
    """Return the scaled exponential linear unit of x."""
    value: Array = _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0.0)))
    return value


class Decoder:
    """The map from points of the embedding to displacements.

    Attributes:
        size: Dimensions of the embedding.
        bound: Largest displacements (k, dof), in units of the task's ``action_scale``.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take the tensors by name, without their prefix.

        Raises:
            TaskError: If one is missing.
        """
        try:
            self.bound: Array = np.asarray(tensors["bound"], np.float64)
            self._largest = float(tensors["largest"][0])
            self._layers = [
                tuple(np.asarray(tensors[f"{i}.{name}"], np.float64) for name in ("weight", "bias"))
                for i in range(sum(name.endswith(".weight") for name in tensors))
            ]
            self.size = self._layers[0][0].shape[1]
        except (KeyError, IndexError) as error:
            raise TaskError(f"the embedding lacks {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Decoder:
        """Read a decoder from a file, which may hold other tensors.

        Raises:
            TaskError: If there is no such file or no decoder in it.
        """
        try:
            tensors = safetensors.numpy.load_file(path)
        except (OSError, SafetensorError) as error:
            raise TaskError(f"no embedding of actions in {path}: {error}") from error
        return cls({n.removeprefix(PREFIX): t for n, t in tensors.items() if n.startswith(PREFIX)})

    def __call__(self, action: Array) -> Array:
        """Return displacements (k, dof) for an action (1, m), clipped to [-1, 1].

        Raises:
            TaskError: If the action has another shape or is not finite.
        """
        action = finite_array("action", action, (1, self.size))
        x = self._largest * np.clip(action[0], -1.0, 1.0)
        for weight, bias in self._layers[:-1]:
            x = selu(weight @ x + bias)
        weight, bias = self._layers[-1]
        out: Array = self.bound * np.tanh(weight @ x + bias).reshape(self.bound.shape)
        return out


class EmbeddedActions(WrappedTask):
    """A task whose actions are points of an embedding."""

    _refusal = "an embedding decodes to displacements"

    def __init__(self, env: Any, decoder: Decoder) -> None:
        """Put an embedding before a task.

        Raises:
            TaskError: If the decoder was made for another task.
        """
        if decoder.bound.shape != (env.k, len(env.joint_names)):
            raise TaskError(
                f"the embedding decodes to {decoder.bound.shape} displacements, the task takes "
                f"{(env.k, len(env.joint_names))}"
            )
        super().__init__(env)
        self.decoder = decoder
        self.joint_names = tuple(f"embedding_{i}" for i in range(decoder.size))
        self.action_scale = np.ones(decoder.size)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1, decoder.size), np.float64)

    def step(self, action: Array) -> Step:
        """Run the k displacements that an action (1, m) decodes to."""
        return summed(self.env.step(self.decoder(action)))

    @staticmethod
    def vector(envs: Sequence[EmbeddedActions]) -> VectorEmbeddedActions:
        """Return environments as one whose tasks step together."""
        return VectorEmbeddedActions(envs)


class VectorEmbeddedActions(VectorTask):
    """Environments (E,) behind embeddings, whose tasks step together."""

    envs: tuple[EmbeddedActions, ...]

    def __init__(self, envs: Sequence[EmbeddedActions]) -> None:
        """Join environments of one task."""
        super().__init__(envs)
        self._tasks = vectorise([env.env for env in envs])

    def step(self, actions: Sequence[Array]) -> list[Step]:
        """Run ``step`` of every environment; actions (E, 1, m)."""
        decoded = [env.decoder(action) for env, action in zip(self.envs, actions, strict=True)]
        return [summed(step) for step in self._tasks.step(decoded)]
