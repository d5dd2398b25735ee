# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A run of TD3 over windows: roll-outs into a replay memory, gradient steps on draws from it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from ndp_ros.errors import TrainingError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import Array, initial_tensors
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.baselines.td3 import TwinDelayed
from ndp_ros.training.config import RunConfig
from ndp_ros.training.directory import RunDirectory, State
from ndp_ros.training.logs import Row
from ndp_ros.training.rollouts import Rollouts
from ndp_ros.training.trainer import AnyRollouts, Collector
from ndp_ros.training.worker import Block, Plan

_LEARN = 6
"""First key of the generators that draw from the memory."""

UNIFORM = 1.0 / math.sqrt(3.0)
"""Deviation of the uniform distribution over [-1, 1]."""


class Memory:
    """A replay memory of windows; the oldest are overwritten."""

    def __init__(self, size: int, n_obs: int, decision: tuple[int, int]) -> None:
        self.arrays: dict[str, Array] = {
            "obs": np.zeros((size, n_obs), np.float32),
            "next_obs": np.zeros((size, n_obs), np.float32),
            "actions": np.zeros((size, *decision), np.float32),
            "rewards": np.zeros(size, np.float32),
            "going_on": np.zeros(size, np.float32),
        }
        self.size = size
        self.added = 0
        """Windows added since the start."""

    @property
    def used(self) -> int:
        """Number of windows in memory."""
        return min(self.size, self.added)

    def add(self, block: Block, gamma: float) -> None:
        """Add all windows of a batch."""
        k = block.rewards.shape[-1]
        rows = {
            "obs": block.obs,
            "next_obs": block.next_obs,
            "actions": block.actions,
            "rewards": block.rewards @ gamma ** np.arange(k),
            "going_on": 1.0 - block.terminated,
        }
        n = block.terminated.size
        where = (self.added + np.arange(n)) % self.size
        for name, values in rows.items():
            self.arrays[name][where] = values.reshape(n, *self.arrays[name].shape[1:])
        self.added += n

    def restore(self, arrays: dict[str, Array], added: int) -> None:
        """Restore the windows in use and the number added since the start."""
        self.added = added
        for name, array in arrays.items():
            self.arrays[name][: self.used] = array

    def draw(
        self, rng: np.random.Generator, n: int, device: torch.device | str = "cpu"
    ) -> dict[str, Tensor]:
        """Return n windows drawn with replacement, on a device."""
        index = rng.integers(self.used, size=n)
        return {n: torch.from_numpy(a[index]).to(device) for n, a in self.arrays.items()}


class Td3Run(Collector):
    """A run of TD3; a batch is one round of collecting and learning."""

    def __init__(
        self, config: RunConfig, spec: PolicySpec, directory: RunDirectory, resume: bool
    ) -> None:
        torch.set_num_threads(1)
        super().__init__(config, spec, directory, resume)
        self._choice = config.choice
        self._learner = TwinDelayed(spec, config)
        self.policy = ArrayPolicy(spec, initial_tensors(spec, config.seed))
        self._memory = Memory(config.td3.memory, len(self.policy.mean), spec.decision)
        k = config.choice.k
        self._windows = max(1, config.td3.collect // (config.environments * k))
        self.samples_per_batch = self._windows * config.environments * k
        self.batches = -(-config.samples // self.samples_per_batch)
        self.batches_per_checkpoint = max(
            1, config.checkpoint_every * config.samples_per_batch // self.samples_per_batch
        )
        self._resume()

    def _rollouts(self) -> Rollouts:
        plan = Plan.of(self.config, self.spec, self._windows)
        return Rollouts(dataclasses.replace(plan, choice=self._choice))

    @property
    def _warming_up(self) -> bool:
        """Whether the memory holds too few windows to learn from."""
        return self._memory.added * self.config.choice.k < self.config.td3.warm_up

    def _train_batch(self, rollouts: AnyRollouts | None) -> Row:
        """Collect a batch into the memory and take gradient steps on windows drawn from it."""
        block, row = self._collect(rollouts)
        self._memory.add(block, self.config.ppo.gamma)
        self._reward_scale(block.rewards, block.ended)
        self._moments.update(block.obs.reshape(-1, block.obs.shape[-1]))
        if not self._warming_up:
            row |= self._descend()
        return row | {"std": self._learner.actor.log_std.detach().exp().mean().item()}

    def _descend(self) -> Row:
        """Take the gradient steps of a batch and return the means of their figures.

        Raises:
            TrainingError: If a loss is not finite.
        """
        td3 = self.config.td3
        self._set_statistics()
        rng = np.random.default_rng([self.config.seed, _LEARN, self.batch + 1])
        device = self._learner.device
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        steps = max(1, round(td3.steps_per_window * self._windows * self.config.environments))
        (scale,) = self._reward_scale.scales.tolist()
        figures = [
            self._learner.learn(self._memory.draw(rng, td3.replay_batch, device), scale, generator)
            for _ in range(steps)
        ]
        row = {}
        for name, rate in (("value_loss", "critic_rate"), ("policy_loss", "actor_rate")):
            values = [f[name] for f in figures if name in f]
            if values:
                row[name] = float(torch.stack(values).mean())
                if not math.isfinite(row[name]):
                    raise TrainingError(f"the mean {name} is {row[name]}: lower {rate}")
        return row

    def _set_statistics(self) -> None:
        if self.config.ppo.normalise_observations:
            normaliser = self._learner.actor.normaliser
            normaliser.mean.copy_(torch.from_numpy(self._moments.mean))
            normaliser.variance.copy_(torch.from_numpy(self._moments.variance))

    def _publish(self, rollouts: AnyRollouts) -> None:
        """Send the actor to the workers, with uniform noise's deviation during the warm-up."""
        deviation = UNIFORM if self._warming_up else self.config.td3.exploration
        self._learner.actor.log_std.data.fill_(math.log(deviation))
        tensors, acting = self._tensors(), self.policy
        acting.flat[:] = acting.layout.flatten(tensors)
        acting.mean[:] = tensors["normaliser.mean"]
        acting.variance[:] = tensors["normaliser.variance"]
        rollouts.publish(acting)

    def _tensors(self) -> dict[str, Array]:
        return dict(self._learner.actor.tensors())

    def _state(self) -> State:
        state = super()._state()
        arrays = state.arrays
        arrays |= {f"memory.{n}": a[: self._memory.used] for n, a in self._memory.arrays.items()}
        arrays |= {f"learner.{n}": t.cpu().numpy() for n, t in self._learner.state_dict().items()}
        for name, optimiser in self._learner.optimisers.items():
            for i, parameter in optimiser.state_dict()["state"].items():
                for part, value in parameter.items():
                    arrays[f"optimiser.{name}.{i}.{part}"] = value.cpu().numpy()
        return state

    def _restore(self, state: State) -> None:
        super()._restore(state)
        learner = {n: torch.from_numpy(a.copy()) for n, a in state.part("learner").items()}
        self._learner.load_state_dict(learner)
        for name, optimiser in self._learner.optimisers.items():
            parts: dict[int, dict[str, Tensor]] = {}
            for key, array in state.part(f"optimiser.{name}").items():
                index, _, part = key.partition(".")
                parts.setdefault(int(index), {})[part] = torch.from_numpy(array.copy())
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": parts, "param_groups": groups})
        self._memory.restore(
            state.part("memory"), self.batch * self._windows * self.config.environments
        )
