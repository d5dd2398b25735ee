"""Training with PPO: each batch of roll-outs is learnt from once, section 3.4."""

from __future__ import annotations

from typing import Any

import numpy as np

from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import LOG_STD, initial_tensors
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.directory import RunDirectory, State
from ndp_ros.training.distributed import SharedRollouts, alone
from ndp_ros.training.experiment import RunConfig
from ndp_ros.training.logs import Row
from ndp_ros.training.ppo import Learner, make_batch
from ndp_ros.training.rollouts import Block, Plan, Rollouts
from ndp_ros.training.trainer import AnyRollouts, Collector
from ndp_ros.training.warm_start import start_tensors

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
        self.policy = ArrayPolicy(spec, tensors)
        self._learner = Learner(self.policy, config.ppo, learn_std=config.final_log_std is None)
        if seen is not None:
            self._moments.restore(
                {"mean": self.policy.mean, "variance": self.policy.variance, "count": seen}
            )
        self._take_up()

    def _rollouts(self) -> Rollouts | SharedRollouts:
        config = self.config
        plan = Plan(
            config.choice, self.spec, config.seed, config.environments, config.windows,
            config.processes, config.ppo.noise_correlation,
        )  # fmt: skip
        return Rollouts(plan) if alone() else SharedRollouts(plan)

    def _one_batch(self, rollouts: AnyRollouts | None) -> Row:
        config = self.config
        if config.final_log_std is not None:
            travelled = (config.final_log_std - config.init_log_std) * self.batch / self.batches
            self.policy.parameters[LOG_STD][:] = config.init_log_std + travelled
        return super()._one_batch(rollouts)

    def _learn(self, block: Block) -> Row:
        config, policy = self.config, self.policy
        rewards = block.rewards
        if config.ppo.normalise_returns:
            rewards = self._reward_scale(block.rewards, block.ended)
        shape = block.rewards.shape
        flat_obs = block.obs.reshape(-1, block.obs.shape[-1])
        values = policy.values(flat_obs).reshape(shape).astype(np.float64)
        ahead = policy.values(block.next_obs.reshape(flat_obs.shape))[:, 0]
        batch = make_batch(
            policy, block.obs, block.actions, rewards, values, ahead.reshape(shape[:2]),
            block.terminated, block.ended, config.ppo,
        )  # fmt: skip
        row: Row = {"explained_variance": _explained(batch.values, batch.returns)}
        # The first batch only teaches the normaliser what observations look like.
        if self.batch > 0 or not config.ppo.normalise_observations:
            rng = np.random.default_rng([config.seed, _SHUFFLE, self.batch])
            row |= self._learner.update(batch, rng, self.batch / self.batches)
        if config.ppo.normalise_observations:
            self._moments.update(flat_obs)
            policy.mean[:], policy.variance[:] = self._moments.mean, self._moments.variance
        return row | {"std": float(np.exp(policy.parameters[LOG_STD]).mean())}

    def _state(self) -> State:
        state, adam = super()._state(), self._learner.adam
        state.arrays.update({"flat": self.policy.flat, "adam.m": adam.m, "adam.v": adam.v})
        state.counters.update(adam_steps=adam.steps, rate=self._learner.rate)
        return state

    def _restore(self, state: State) -> None:
        super()._restore(state)
        self.policy.flat[:] = state.arrays["flat"]
        # These are the policy's also where nothing is normalised: of its start, or of nothing.
        self.policy.mean[:], self.policy.variance[:] = self._moments.mean, self._moments.variance
        adam, moments = self._learner.adam, state.part("adam")
        adam.m[:], adam.v[:] = moments["m"], moments["v"]
        adam.steps, self._learner.rate = state.counters["adam_steps"], state.counters["rate"]


def _explained(values: Any, returns: Any) -> float:
    """Return the part of the returns' variance that the critic explains."""
    spread = float(np.var(returns))
    return 1.0 - float(np.var(returns - values)) / spread if spread > 0.0 else 0.0
