# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Behaviour cloning, section 3.3: the squared distance to the expert's actions, eq. (7).

``bc-ndp`` trains phi through the dynamical system, ``bc-nn`` a network with the same hidden layers
and normaliser that predicts the k displacements.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from ndp_ros.errors import TrainingError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import LOG_STD, Array, initial_tensors
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.config import RunConfig
from ndp_ros.training.demonstrations import Demonstrations, load
from ndp_ros.training.directory import RunDirectory, State
from ndp_ros.training.logs import Row
from ndp_ros.training.ppo import Adam
from ndp_ros.training.rollouts import Rollouts
from ndp_ros.training.trainer import AnyRollouts, Trainer
from ndp_ros.training.worker import Plan

_SPLIT, _SHUFFLE = 4, 5
"""First keys of the generators that choose the held-out episodes and order the windows."""

_MUST_AGREE = ("arm", "joint_names", "observation", "control_dt", "k", "action_scale")


class ImitationRun(Trainer):
    """A run of behaviour cloning; a batch is one pass over the demonstrations."""

    def __init__(
        self, config: RunConfig, spec: PolicySpec, directory: RunDirectory, resume: bool
    ) -> None:
        """Read the demonstrations.

        Raises:
            TrainingError: If there are none, or they belong to another task or policy.
        """
        super().__init__(config, spec, directory, resume)
        if not config.demonstrations:
            raise TrainingError("imitation needs --demonstrations FILE (see ndp collect --help)")
        data = load(Path(config.demonstrations))
        _require_fit(data, spec, config.demonstrations)
        tensors = initial_tensors(spec, config.seed)
        self.policy = ArrayPolicy(spec, tensors, device=config.device)
        self.policy.parameters[LOG_STD][:] = np.log(1e-2)
        self._adam = Adam(self.policy.layout.size, self.policy.dtype)
        train, held = _split(data, config)
        seen = data.observations[train]
        self.policy.set_statistics(seen.mean(0), seen.var(0))
        self._train, self._held = (self._prepare(data, rows) for rows in (train, held))
        self.batches = config.bc.passes
        self.samples_per_batch = int(self._train[0].shape[1]) * spec.k
        self._resume()

    def _rollouts(self) -> AbstractContextManager[Rollouts | None]:
        if not self.config.evaluation_episodes:
            return contextlib.nullcontext()
        return Rollouts(Plan(self.config.choice, self.spec, self.config.seed, 1, 1, 1))

    def _train_batch(self, rollouts: AnyRollouts | None) -> Row:
        """Train on one pass over the demonstrations."""
        bc = self.config.bc
        x, targets = self._train
        rng = np.random.default_rng([self.config.seed, _SHUFFLE, self.batch])
        order = rng.permutation(x.shape[1])
        parts = np.array_split(order, -(-len(order) // bc.windows_per_step))
        steps = self.batches * len(parts)
        error = rate = 0.0
        for number, index in enumerate(parts, start=self.batch * len(parts)):
            rate = bc.step_size * (1.0 - number / steps if bc.decay else 1.0)
            step = self.policy.run(len(index))
            means, values = step.forward(np.take(x, index, axis=1))
            gap = means - np.take(targets, index, axis=2)
            error += float(np.vdot(gap, gap))
            gap *= 2.0 / gap.size
            gradient = step.backward(gap, np.zeros_like(values))
            self._adam.step(self.policy.flat, gradient, rate)
        if not np.isfinite(error):
            raise TrainingError("the error is not finite: lower step_size")
        return {
            "error": error / targets.size,
            "holdout_error": self._error(*self._held),
            "learning_rate": rate,
        }

    def _error(self, x: Array, targets: Array) -> float | None:
        """Return the mean squared error of the actions, None without windows."""
        if targets.size == 0:
            return None
        gap = self.policy.run(x.shape[1]).actor(x) - targets
        return float(np.vdot(gap, gap)) / targets.size

    def _prepare(self, data: Demonstrations, rows: Array) -> tuple[Array, Array]:
        """Return normalised observations ``(n_obs, n)`` and targets ``(k, dof, n)``."""
        obs = data.observations[rows]
        targets = data.actions[rows].transpose(1, 2, 0) - self.policy.drift(obs)
        dtype = self.policy.dtype
        return self.policy.normalise(obs), np.ascontiguousarray(targets, dtype)

    def _progress(self, row: Row) -> list[tuple[str, str]]:
        held = row["holdout_error"]
        return [
            ("error", f"{row['error']:.4f}"),
            ("held out", "none" if held is None else f"{held:.4f}"),
        ]

    def _state(self) -> State:
        adam = self._adam
        arrays = {"flat": self.policy.flat, "adam.m": adam.m, "adam.v": adam.v}
        return State(arrays, {"adam_steps": adam.steps})

    def _restore(self, state: State) -> None:
        self.policy.flat[:] = state.arrays["flat"]
        moments = state.part("adam")
        self._adam.m[:], self._adam.v[:] = moments["m"], moments["v"]
        self._adam.steps = state.counters["adam_steps"]


def _require_fit(data: Demonstrations, spec: PolicySpec, path: str) -> None:
    for name in _MUST_AGREE:
        theirs, ours = getattr(data.spec, name), getattr(spec, name)
        if theirs != ours:
            raise TrainingError(f"{path}: {name} is {theirs}, this task and policy have {ours}")


def _split(data: Demonstrations, config: RunConfig) -> tuple[Array, Array]:
    """Return the windows to train on and those held out, in whole episodes."""
    usable = np.arange(data.episodes)
    if config.bc.only_successful:
        usable = usable[data.success.astype(bool)]
    if len(usable) == 0:
        raise TrainingError(f"{config.demonstrations} has no episode to learn from")
    order = np.random.default_rng([config.seed, _SPLIT]).permutation(usable)
    held = min(round(config.bc.holdout * len(order)), len(order) - 1)
    return data.windows(sorted(order[held:])), data.windows(sorted(order[:held]))
