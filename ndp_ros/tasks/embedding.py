"""Tasks whose actions are points of an embedding that decode to k displacements: Dyn-E.

An action (1, m) is a point e of the embedding in units of the largest one that the
decoder has seen; a network with one hidden layer more than it needs turns it into the
k displacements of a step,

    a = bound tanh(W3 selu(W2 selu(W1 e + b1) + b2) + b3).

The decoder comes from a file in safetensors format, whose tensors are named
``embedding.<name>``: the weights and biases, ``bound`` (k, dof), ``largest`` (1,).
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
from ndp_ros.tasks.wrapped import Step, WrappedTask

Array = NDArray[np.float64]

PREFIX = "embedding."

_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def selu(x: Array) -> Array:
    """Return the scaled exponential linear unit of x."""
    value: Array = _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0.0)))
    return value


class Decoder:
    """From points of the embedding to displacements.

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
                (np.asarray(tensors[f"{i}.weight"], np.float64),
                 np.asarray(tensors[f"{i}.bias"], np.float64))
                for i in range(sum(name.endswith(".weight") for name in tensors))
            ]  # fmt: skip
            self.size = self._layers[0][0].shape[1]
        except (KeyError, IndexError) as error:
            raise TaskError(f"the embedding lacks {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Decoder:
        """Read a decoder from a file, whatever else is in it.

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
        action = np.asarray(action, dtype=float)
        if action.shape != (1, self.size) or not np.isfinite(action).all():
            raise TaskError(f"action must be {(1, self.size)} finite values, got {action.shape}")
        x = self._largest * np.clip(action[0], -1.0, 1.0)
        for weight, bias in self._layers[:-1]:
            x = selu(weight @ x + bias)
        weight, bias = self._layers[-1]
        out: Array = self.bound * np.tanh(weight @ x + bias).reshape(self.bound.shape)
        return out


class EmbeddedActions(WrappedTask):
    """A task acted in through an embedding; one action a ``step`` of k control steps.

    Attributes:
        joint_names: Names of the embedding's dimensions.
        action_scale: One for each.
    """

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
        self._decoder = decoder
        self.joint_names = tuple(f"embedding_{i}" for i in range(decoder.size))
        self.action_scale = np.ones(decoder.size)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1, decoder.size), np.float64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start an episode of the task."""
        return self._env.reset(seed=seed)  # type: ignore[no-any-return]

    def step(self, action: Array) -> Step:
        """Run the k displacements that an action (1, m) decodes to."""
        return summed(self._env.step(self._decoder(action)))

    @staticmethod
    def together(envs: Sequence[EmbeddedActions]) -> SideBySide:
        """Return environments as one that advances them side by side, where they can."""
        return SideBySide(envs)


class SideBySide:
    """Embedded environments whose tasks advance side by side."""

    def __init__(self, envs: Sequence[EmbeddedActions]) -> None:
        self._envs = tuple(envs)
        tasks = [env._env for env in envs]
        join = getattr(type(tasks[0]), "together", None)
        self._crowd = None if join is None else join(tasks)

    def step(self, actions: Sequence[Array]) -> list[Step]:
        """Run ``step`` of every environment."""
        pairs = list(zip(self._envs, actions, strict=True))
        if self._crowd is None:
            return [env.step(action) for env, action in pairs]
        return [summed(s) for s in self._crowd.step([e._decoder(a) for e, a in pairs])]

    def execute(self, setpoints: Sequence[Array]) -> list[Step]:
        """Refuse, as each environment does."""
        return [env.execute(s) for env, s in zip(self._envs, setpoints, strict=True)]


def summed(step: Step) -> Step:
    """Return a step of k rewards as one of a single action and the sum of its rewards."""
    obs, reward, terminated, truncated, info = step
    return obs, reward, terminated, truncated, {**info, "rewards": np.array([reward])}
