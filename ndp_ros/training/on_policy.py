# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A PPO run: each batch of roll-outs is trained on once, section 3.4 of the paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ndp_ros.observation import field_slice
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import LOG_STD, initial_tensors
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.config import RunConfig
from ndp_ros.training.directory import RunDirectory, State
from ndp_ros.training.distributed import SharedRollouts, is_single
from ndp_ros.training.logs import Row
from ndp_ros.training.ppo import Batch, Learner, make_batch, segment_rewards
from ndp_ros.training.rollouts import Rollouts
from ndp_ros.training.statistics import RewardScale
from ndp_ros.training.trainer import AnyRollouts, Collector
from ndp_ros.training.warm_start import start_tensors
from ndp_ros.training.worker import Block, Plan

_SHUFFLE = 3
"""Key of the generator that orders minibatches."""


class PpoRun(Collector):
    """A run of PPO."""

    def __init__(
        self, config: RunConfig, spec: PolicySpec, directory: RunDirectory, resume: bool
    ) -> None:
        super().__init__(config, spec, directory, resume)
        self.batches, self.samples_per_batch = config.batches, config.samples_per_batch
        if self._saved is None and config.start_from:
            tensors, seen = start_tensors(spec, config.start_from)
        else:
            tensors, seen = initial_tensors(spec, config.seed), None
        self.policy = ArrayPolicy(spec, tensors, device=config.device)
        self._learner = Learner(self.policy, config.ppo, learn_std=config.final_log_std is None)
        if seen is not None:
            self._moments.restore(
                {"mean": self.policy.mean, "variance": self.policy.variance, "count": seen}
            )
        self._tasks = field_slice(spec.observation, by) if (by := config.ppo.scale_by) else None
        if self._tasks is not None:
            count = self._tasks.stop - self._tasks.start
            self._reward_scale = RewardScale(config.environments, config.ppo.gamma, count)
        self._resume()

    def _rollouts(self) -> AnyRollouts:
        plan = Plan.of(self.config, self.spec, self.config.windows)
        return Rollouts(plan) if is_single() else SharedRollouts(plan)

    def _train_batch(self, rollouts: AnyRollouts | None) -> Row:
        """Collect a batch, update the policy on it, then the statistics that it normalises by."""
        config, policy, progress = self.config, self.policy, self.batch / self.batches
        if config.final_log_std is not None:
            travelled = (config.final_log_std - config.init_log_std) * self.batch / self.batches
            policy.parameters[LOG_STD][:] = config.init_log_std + travelled
        block, row = self._collect(rollouts)
        batch = self._batch(block)
        row["explained_variance"] = _explained(batch.values, batch.returns)
        # The first batch only initialises the statistics of observations.
        if self.batch > 0 or not config.ppo.normalise_observations:
            rng = np.random.default_rng([config.seed, _SHUFFLE, self.batch])
            row |= self._learner.update(batch, rng, progress)
        if config.ppo.normalise_observations:
            self._moments.update(block.obs.reshape(-1, block.obs.shape[-1]))
            policy.set_statistics(self._moments.mean, self._moments.variance)
        return row | {"std": float(np.exp(policy.parameters[LOG_STD]).mean())}

    def _batch(self, block: Block) -> Batch:
        """Return the learner's batch: scaled rewards, values, advantages."""
        config, policy = self.config, self.policy
        rewards = block.rewards
        if config.ppo.normalise_returns:
            task = self._task_of(block.obs)
            rewards = self._reward_scale(block.rewards, block.ended, task)
        gamma = config.ppo.gamma
        if self.spec.noise == "segment":
            # One decision, one value and one ratio a segment: its rewards are one.
            rewards, gamma = segment_rewards(rewards, gamma), gamma**self.spec.k
        shape = rewards.shape
        flat_obs = block.obs.reshape(-1, block.obs.shape[-1])
        values = policy.values(flat_obs).reshape(shape).astype(np.float64)
        ahead = policy.values(block.next_obs.reshape(flat_obs.shape))[:, 0]
        return make_batch(
            policy,
            block.obs,
            block.actions,
            rewards,
            values,
            following=ahead.reshape(shape[:2]),
            terminated=block.terminated,
            ended=block.ended,
            config=replace(config.ppo, gamma=gamma),
        )

    def _task_of(self, obs: Any) -> Any:
        """Return the number of the task in each window, None with one scale for all."""
        if self._tasks is None:
            return None
        return obs[..., self._tasks].argmax(axis=-1)

    def _state(self) -> State:
        state, adam = super()._state(), self._learner.adam
        state.arrays.update({"flat": self.policy.flat, "adam.m": adam.m, "adam.v": adam.v})
        state.counters.update(adam_steps=adam.steps, rate=self._learner.rate)
        return state

    def _restore(self, state: State) -> None:
        super()._restore(state)
        self.policy.flat[:] = state.arrays["flat"]
        # Without normalisation the moments are those of the start.
        self.policy.set_statistics(self._moments.mean, self._moments.variance)
        adam, moments = self._learner.adam, state.part("adam")
        adam.m[:], adam.v[:] = moments["m"], moments["v"]
        adam.steps, self._learner.rate = state.counters["adam_steps"], state.counters["rate"]


def _explained(values: Any, returns: Any) -> float:
    """Return the part of the returns' variance that the critic explains."""
    spread = float(np.var(returns))
    return 1.0 - float(np.var(returns - values)) / spread if spread > 0.0 else 0.0
