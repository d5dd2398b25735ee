"""Training with PPO: collect, learn, log; evaluate and save every so many batches.

The environments start new episodes after each checkpoint. Nothing but counters, parameters
and statistics crosses that boundary, so a resumed run computes the same numbers as one that
was never interrupted.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import LOG_STD, initial_tensors
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.directory import RunDirectory, State
from ndp_ros.training.distributed import SharedRollouts, alone
from ndp_ros.training.evaluation import EPISODE_FIGURES, EVALUATION_SEED, summarise
from ndp_ros.training.experiment import RunConfig
from ndp_ros.training.logs import ProgressLine, Row, RunLog, Watch, evaluation_columns
from ndp_ros.training.ppo import Learner, make_batch
from ndp_ros.training.rollouts import Plan, Rollouts
from ndp_ros.training.statistics import Moments, RewardScale
from ndp_ros.training.warm_start import start_tensors

_SHUFFLE = 3
"""Key of the generator that orders minibatches."""


class PpoRun:
    """The state of a run between two batches.

    Attributes:
        batch: Batches done.
        policy: The policy as it is now.
    """

    def __init__(
        self, config: RunConfig, spec: PolicySpec, directory: RunDirectory, resume: bool
    ) -> None:
        self.config, self.spec = config, spec
        self.batch = 0
        state = directory.restore(spec) if resume else None
        if state is None and config.start_from:
            tensors, seen = start_tensors(spec, config.start_from)
        else:
            tensors, seen = initial_tensors(spec, config.seed), None
        self.policy = ArrayPolicy(spec, tensors)
        self._directory = directory
        self._learner = Learner(self.policy, config.ppo, learn_std=config.final_log_std is None)
        self._moments = Moments(len(self.policy.mean))
        if seen is not None:
            self._moments.restore(
                {"mean": self.policy.mean, "variance": self.policy.variance, "count": seen}
            )
        self._reward_scale = RewardScale(config.environments, config.ppo.gamma)
        self._episode_numbers: NDArray[Any] = np.zeros(config.environments, np.int64)
        self._episodes = 0
        self._best = -1.0
        self._seconds = 0.0
        self._fresh = True
        if state is not None:
            self._restore(state)

    @property
    def samples(self) -> int:
        """Control steps taken so far."""
        return self.batch * self.config.samples_per_batch

    def go(self, quiet: bool = False, watch: Watch | None = None) -> None:
        """Run to the end."""
        config = self.config
        plan = Plan(
            config.choice, self.spec, config.seed, config.environments, config.windows,
            config.processes,
        )  # fmt: skip
        total = config.batches * config.samples_per_batch
        title = f"{config.task} {config.method} seed {config.seed}"
        with (
            contextlib.closing(RunLog(self._directory.folder, self.samples)) as log,
            (Rollouts if alone() else SharedRollouts)(plan) as rollouts,
            ProgressLine(title, total, self.samples, quiet) as line,
        ):
            rollouts.block.episodes[:] = self._episode_numbers
            # The last checkpoint may be that of a shorter run's end, between two regular ones.
            self._fresh = True
            while self.batch < config.batches:
                start = time.monotonic()
                row = self._one_batch(rollouts)
                due = self.batch % config.checkpoint_every == 0 or self.batch == config.batches
                evaluation = self._evaluate(rollouts) if due else {}
                spent = time.monotonic() - start
                self._seconds += spent
                row |= evaluation_columns(evaluation) | {
                    "seconds": self._seconds,
                    "samples_per_second": config.samples_per_batch / spent,
                }
                log.write(row)
                if due:
                    self._episode_numbers = rollouts.block.episodes.copy()
                    self._save(evaluation)
                line.show(self.samples, _figures(row))
                if watch is not None:
                    watch(row)

    def _one_batch(self, rollouts: Rollouts | SharedRollouts) -> Row:
        """Collect, learn and return the row of the log."""
        config, policy, block = self.config, self.policy, rollouts.block
        fresh = self._fresh or self.batch % config.checkpoint_every == 0
        self._fresh = False
        if fresh:
            self._reward_scale.cut()
        if config.final_log_std is not None:
            travelled = (config.final_log_std - config.init_log_std) * self.batch / config.batches
            policy.parameters[LOG_STD][:] = config.init_log_std + travelled
        rollouts.publish(policy)
        episodes = rollouts.collect(self.batch, fresh)
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
            row |= self._learner.update(batch, rng, self.batch / config.batches)
        if config.ppo.normalise_observations:
            self._moments.update(flat_obs)
            policy.mean[:], policy.variance[:] = self._moments.mean, self._moments.variance
        self.batch += 1
        self._episodes += len(episodes)
        means = summarise(episodes) if episodes else {}
        return row | {
            "samples": self.samples,
            "observed": self.samples // config.choice.k,
            "episodes": self._episodes,
            "success": means.get("success_rate"),
            **{name: means.get(name) for name in EPISODE_FIGURES},
            "std": float(np.exp(policy.parameters[LOG_STD]).mean()),
        }

    def _evaluate(self, rollouts: Rollouts | SharedRollouts) -> Row:
        """Return the figures of deterministic episodes, none if there shall be none."""
        n = self.config.evaluation_episodes
        if n == 0:
            return {}
        rollouts.publish(self.policy)
        return summarise(rollouts.evaluate(range(EVALUATION_SEED, EVALUATION_SEED + n)))

    def _save(self, evaluation: Row) -> None:
        success = evaluation.get("success_rate")
        better = success is None or success >= self._best
        self._best = max(self._best, -1.0 if success is None else success)
        adam = self._learner.adam
        state = State(
            {
                "flat": self.policy.flat,
                "adam.m": adam.m,
                "adam.v": adam.v,
                "episode_numbers": self._episode_numbers,
                **{f"moments.{n}": a for n, a in self._moments.state().items()},
                **{f"reward_scale.{n}": a for n, a in self._reward_scale.state().items()},
            },
            {
                "batch": self.batch,
                "episodes": self._episodes,
                "adam_steps": adam.steps,
                "rate": self._learner.rate,
                "best": self._best,
                "seconds": self._seconds,
            },
        )
        tensors = self.policy.tensors()
        self._directory.save(self.samples, self.spec, tensors, state, evaluation, better)

    def _restore(self, state: State) -> None:
        """Take back what :meth:`_save` wrote."""
        self.policy.flat[:] = state.arrays["flat"]
        self._moments.restore(state.part("moments"))
        self._reward_scale.restore(state.part("reward_scale"))
        if self.config.ppo.normalise_observations:
            self.policy.mean[:] = self._moments.mean
            self.policy.variance[:] = self._moments.variance
        adam, moments = self._learner.adam, state.part("adam")
        adam.m[:], adam.v[:] = moments["m"], moments["v"]
        self._episode_numbers = state.arrays["episode_numbers"]
        counters = state.counters
        adam.steps, self._learner.rate = counters["adam_steps"], counters["rate"]
        self.batch, self._episodes = counters["batch"], counters["episodes"]
        self._best, self._seconds = counters["best"], counters["seconds"]


def _explained(values: Any, returns: Any) -> float:
    """Return the part of the returns' variance that the critic explains."""
    spread = float(np.var(returns))
    return 1.0 - float(np.var(returns - values)) / spread if spread > 0.0 else 0.0


def _figures(row: Row) -> list[tuple[str, str]]:
    shown = [("success", row.get("success")), ("eval", row.get("eval_success"))]
    figures = [(name, f"{value:.2f}") for name, value in shown if value is not None]
    return [*figures, ("samples/s", f"{row['samples_per_second']:.0f}")]
