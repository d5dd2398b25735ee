# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The training loop: batches, log, evaluations and checkpoints, the same for every learner.

A subclass trains on one batch and returns the state that a resumed run needs. Environments start
new episodes after each checkpoint, so that only counters, parameters and statistics cross it and a
resumed run computes the same numbers as an uninterrupted one.
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
from ndp_ros.training.config import RunConfig
from ndp_ros.training.directory import RunDirectory, State
from ndp_ros.training.distributed import SharedRollouts
from ndp_ros.training.evaluation import EPISODE_FIGURES, EVALUATION_SEED, summarise
from ndp_ros.training.logs import ProgressLine, Row, RunLog, Watch, evaluation_columns
from ndp_ros.training.rollouts import Rollouts
from ndp_ros.training.statistics import Moments, RewardScale
from ndp_ros.training.worker import Block

AnyRollouts = Rollouts | SharedRollouts


class Trainer(ABC):
    """A training run.

    Attributes:
        config: Configuration of the run.
        spec: Specification of the policy.
        policy: The policy that acts.
        batch: Batches done.
        batches: Batches of the whole run.
        samples_per_batch: Control steps of a batch.
        batches_per_checkpoint: Batches between checkpoints.
        samples_before: Control steps before the first batch.
    """

    policy: ArrayPolicy
    batches: int
    samples_per_batch: int

    def __init__(
        self, config: RunConfig, spec: PolicySpec, directory: RunDirectory, resume: bool
    ) -> None:
        """Prepare the run; a subclass ends its own ``__init__`` with :meth:`_resume`."""
        self.config, self.spec = config, spec
        self.batch = self.samples_before = 0
        self.batches_per_checkpoint = config.checkpoint_every
        self._directory = directory
        self._saved = directory.restore(spec) if resume else None
        self._best = -1.0
        self._seconds = 0.0

    @property
    def samples(self) -> int:
        """Control steps so far."""
        return self.samples_before + self.batch * self.samples_per_batch

    def run(self, quiet: bool = False, watch: Watch | None = None) -> None:
        """Train to the end; the watch gets every row of the log, with the ``total`` of samples."""
        title = f"{self.config.task} {self.config.method} seed {self.config.seed}"
        total = self.samples_before + self.batches * self.samples_per_batch
        with (
            contextlib.closing(RunLog(self._directory.folder, self.samples)) as log,
            self._rollouts() as rollouts,
            ProgressLine(title, total, self.samples, quiet) as line,
        ):
            while self.batch < self.batches:
                start = time.monotonic()
                row = self._train_batch(rollouts)
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
                line.show(self.samples, self._progress(row))
                if watch is not None:
                    watch(row | {"total": total})

    def _evaluate(self, rollouts: AnyRollouts | None) -> Row:
        """Return the figures of deterministic episodes, none if evaluation is off."""
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
        self._directory.save(self.samples, self.spec, self._tensors(), state, evaluation, better)

    def _resume(self) -> None:
        """Restore the state of the last checkpoint in a resumed run."""
        if self._saved is None:
            return
        state, self._saved = self._saved, None
        counters = state.counters
        self.batch, self._best = counters["batch"], counters["best"]
        self._seconds = counters["seconds"]
        self._restore(state)

    # Defined by each learner.

    @abstractmethod
    def _rollouts(self) -> AbstractContextManager[AnyRollouts | None]:
        """Return the roll-outs, which start when entered; None if the run needs none."""

    @abstractmethod
    def _train_batch(self, rollouts: AnyRollouts | None) -> Row:
        """Train on one batch and return its row of the log."""

    @abstractmethod
    def _state(self) -> State:
        """Return the learner's state at a checkpoint."""

    @abstractmethod
    def _restore(self, state: State) -> None:
        """Restore the state that :meth:`_state` returned."""

    @abstractmethod
    def _progress(self, row: Row) -> list[tuple[str, str]]:
        """Return names and texts of the figures on the progress line."""

    def _publish(self, rollouts: AnyRollouts) -> None:
        """Send the present policy to the roll-out workers."""
        rollouts.publish(self.policy)

    def _tensors(self) -> dict[str, NDArray[Any]]:
        """Return the policy's tensors for a checkpoint."""
        return self.policy.tensors()


class Collector(Trainer):
    """A run whose batches are roll-outs of the policy, with running statistics of them."""

    def __init__(
        self, config: RunConfig, spec: PolicySpec, directory: RunDirectory, resume: bool
    ) -> None:
        super().__init__(config, spec, directory, resume)
        self._moments = Moments(sum(field.size for field in spec.observation))
        self._reward_scale = RewardScale(config.environments, config.ppo.gamma)
        self._episode_numbers: NDArray[Any] = np.zeros(config.environments, np.int64)
        self._episodes = 0
        self._first = True

    def _collect(self, rollouts: AnyRollouts | None) -> tuple[Block, Row]:
        """Return a batch of roll-outs and the figures of the episodes that ended in it."""
        assert rollouts is not None
        # The last checkpoint may lie between two regular ones, at the end of a shorter run.
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
        means = summarise(episodes) if episodes else {}
        return rollouts.block, {
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

    def _progress(self, row: Row) -> list[tuple[str, str]]:
        shown = [("success", row.get("success")), ("eval", row.get("eval_success"))]
        figures = [(name, f"{value:.2f}") for name, value in shown if value is not None]
        return [*figures, ("samples/s", f"{row['samples_per_second']:.0f}")]
