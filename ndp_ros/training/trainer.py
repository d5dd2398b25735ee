"""What every run of training does: batch after batch, logged, evaluated, saved, resumable.

A method says what a batch is (roll-outs and what is learnt from them, or a pass over
demonstrations) and what it needs to go on; the rest is here. The environments start new
episodes after each checkpoint. Nothing but counters, parameters and statistics crosses that
boundary, so a resumed run computes the same numbers as one that was never interrupted.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.directory import RunDirectory, State
from ndp_ros.training.distributed import SharedRollouts
from ndp_ros.training.evaluation import EPISODE_FIGURES, EVALUATION_SEED, summarise
from ndp_ros.training.experiment import RunConfig
from ndp_ros.training.logs import ProgressLine, Row, RunLog, Watch, evaluation_columns
from ndp_ros.training.rollouts import Block, Rollouts
from ndp_ros.training.statistics import Moments, RewardScale

AnyRollouts = Rollouts | SharedRollouts


class Trainer(ABC):
    """A run between two batches.

    Attributes:
        config: What is trained.
        spec: What rebuilds the policy.
        policy: The policy that acts.
        batch: Batches done.
        batches: Batches of the whole run.
        samples_per_batch: Control steps that a batch counts.
        batches_per_checkpoint: Batches from one checkpoint to the next.
        before: Control steps taken before the first batch.
    """

    policy: ArrayPolicy
    batches: int
    samples_per_batch: int

    def __init__(
        self, config: RunConfig, spec: PolicySpec, directory: RunDirectory, resume: bool
    ) -> None:
        """Begin; a method ends its own beginning with :meth:`_take_up`."""
        self.config, self.spec = config, spec
        self.batch = self.before = 0
        self.batches_per_checkpoint = config.checkpoint_every
        self._directory = directory
        self._saved = directory.restore(spec) if resume else None
        self._best = -1.0
        self._seconds = 0.0

    # What a method says.

    @abstractmethod
    def _rollouts(self) -> AbstractContextManager[AnyRollouts | None]:
        """Return the environments, not yet started; None where the run needs none."""

    @abstractmethod
    def _one_batch(self, rollouts: AnyRollouts | None) -> Row:
        """Learn from one batch and return its row of the log."""

    @abstractmethod
    def _state(self) -> State:
        """Return what the method needs to go on."""

    @abstractmethod
    def _restore(self, state: State) -> None:
        """Take back what :meth:`_state` gave."""

    @abstractmethod
    def _figures(self, row: Row) -> list[tuple[str, str]]:
        """Return what the progress line shows of a row."""

    def _publish(self, rollouts: AnyRollouts) -> None:
        """Give the workers the policy as it is now."""
        rollouts.publish(self.policy)

    def _tensors(self) -> dict[str, NDArray[Any]]:
        """Return the policy's numbers for a checkpoint."""
        return self.policy.tensors()

    # What all have in common.

    @property
    def samples(self) -> int:
        """Control steps so far."""
        return self.before + self.batch * self.samples_per_batch

    def go(self, quiet: bool = False, watch: Watch | None = None) -> None:
        """Run to the end.

        Args:
            quiet: Show no progress.
            watch: Called with every row of the log, and with the run's ``total`` of samples.
        """
        title = f"{self.config.task} {self.config.method} seed {self.config.seed}"
        total = self.before + self.batches * self.samples_per_batch
        with (
            contextlib.closing(RunLog(self._directory.folder, self.samples)) as log,
            self._rollouts() as rollouts,
            ProgressLine(title, total, self.samples, quiet) as line,
        ):
            while self.batch < self.batches:
                start = time.monotonic()
                row = self._one_batch(rollouts)
                self.batch += 1
                due = self.batch % self.batches_per_checkpoint == 0 or self.batch == self.batches
                evaluation = self._evaluate(rollouts) if due else {}
                spent = time.monotonic() - start
                self._seconds += spent
                row |= evaluation_columns(evaluation) | {
                    "samples": self.samples,
                    "observed": self.samples // self.config.choice.k,
                    "seconds": self._seconds,
                    "samples_per_second": self.samples_per_batch / spent,
                }
                log.write(row)
                if due:
                    self._save(evaluation)
                line.show(self.samples, self._figures(row))
                if watch is not None:
                    watch(row | {"total": total})

    def _take_up(self) -> None:
        """Go on where the last checkpoint of a resumed run ends."""
        if self._saved is None:
            return
        state, self._saved = self._saved, None
        counters = state.counters
        self.batch, self._best = counters["batch"], counters["best"]
        self._seconds = counters["seconds"]
        self._restore(state)

    def _evaluate(self, rollouts: AnyRollouts | None) -> Row:
        """Return the figures of deterministic episodes, none if there shall be none."""
        n = self.config.evaluation_episodes
        if n == 0 or rollouts is None:
            return {}
        self._publish(rollouts)
        return summarise(rollouts.evaluate(range(EVALUATION_SEED, EVALUATION_SEED + n)))

    def _save(self, evaluation: Row) -> None:
        success = evaluation.get("success_rate")
        better = success is None or success >= self._best
        self._best = max(self._best, -1.0 if success is None else success)
        state = self._state()
        state.counters.update(batch=self.batch, best=self._best, seconds=self._seconds)
        self._directory.save(
            self.samples, self.spec, self._tensors(), state, evaluation, better
        )  # fmt: skip


class Collector(Trainer):
    """A run whose batches are roll-outs of the policy."""

    def __init__(
        self, config: RunConfig, spec: PolicySpec, directory: RunDirectory, resume: bool
    ) -> None:
        """Begin with statistics of nothing."""
        super().__init__(config, spec, directory, resume)
        self._moments = Moments(sum(field.size for field in spec.observation))
        self._reward_scale = RewardScale(config.environments, config.ppo.gamma)
        self._episode_numbers: NDArray[Any] = np.zeros(config.environments, np.int64)
        self._episodes = 0
        self._first = True

    @abstractmethod
    def _learn(self, block: Block) -> Row:
        """Learn from roll-outs; return figures of it, ``std`` among them."""

    def _one_batch(self, rollouts: AnyRollouts | None) -> Row:
        assert rollouts is not None
        # The last checkpoint may be that of a shorter run's end, between two regular ones.
        fresh = self._first or self.batch % self.batches_per_checkpoint == 0
        if self._first:
            rollouts.block.episodes[:] = self._episode_numbers
            self._first = False
        if fresh:
            self._reward_scale.cut()
        self._publish(rollouts)
        episodes = rollouts.collect(self.batch, fresh)
        self._episode_numbers = rollouts.block.episodes.copy()
        self._episodes += len(episodes)
        row = self._learn(rollouts.block)
        means = summarise(episodes) if episodes else {}
        return row | {
            "episodes": self._episodes,
            "success": means.get("success_rate"),
            **{name: means.get(name) for name in EPISODE_FIGURES},
        }

    def _state(self) -> State:
        arrays = {
            "episode_numbers": self._episode_numbers,
            **{f"moments.{n}": a for n, a in self._moments.state().items()},
            **{f"reward_scale.{n}": a for n, a in self._reward_scale.state().items()},
        }
        return State(arrays, {"episodes": self._episodes})

    def _restore(self, state: State) -> None:
        self._moments.restore(state.part("moments"))
        self._reward_scale.restore(state.part("reward_scale"))
        self._episode_numbers = state.arrays["episode_numbers"]
        self._episodes = state.counters["episodes"]

    def _figures(self, row: Row) -> list[tuple[str, str]]:
        shown = [("success", row.get("success")), ("eval", row.get("eval_success"))]
        figures = [(name, f"{value:.2f}") for name, value in shown if value is not None]
        return [*figures, ("samples/s", f"{row['samples_per_second']:.0f}")]
