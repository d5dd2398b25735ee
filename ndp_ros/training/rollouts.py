# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Roll-outs in worker processes: one message per batch, everything else in shared memory.

The learner writes the parameters to shared memory and asks for a batch; the workers act, step and
write observations, actions and rewards where the learner reads them. A worker ends when the learner
does, and a lost worker ends the run with one error.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from ndp_ros.errors import TrainingError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.processes import SINGLE_THREADED, environment, interrupts_blocked
from ndp_ros.training.evaluation import Episode
from ndp_ros.training.worker import Block, Plan, work

_START_TIMEOUT = 120.0
"""Longest time that workers take to build their environments [s]."""


class Rollouts:
    """Worker processes as the learner sees them, with the arrays of the last batch in ``block``."""

    def __init__(self, plan: Plan, mine: range | None = None) -> None:
        """Start the workers and build their environments; ``mine`` if others run elsewhere.

        Raises:
            TrainingError: If a worker cannot build its environments.
        """
        self.plan = plan
        self.block = Block(plan)
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        context = multiprocessing.get_context("spawn")
        try:
            # Starting the resource tracker unblocks the signal, so it is started first.
            resource_tracker.ensure_running()
            with environment(SINGLE_THREADED), interrupts_blocked():
                for index in range(plan.workers) if mine is None else mine:
                    ours, theirs = context.Pipe()
                    process = context.Process(
                        target=work,
                        args=(plan, index, self.block.memory, theirs),
                        name=f"ndp-rollouts-{index}",
                        daemon=True,
                    )
                    process.start()
                    theirs.close()
                    self._processes.append(process)
                    self._pipes.append(ours)
            self._gather(time.monotonic() + _START_TIMEOUT)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Rollouts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def publish(self, policy: ArrayPolicy) -> None:
        """Send the current parameters and statistics to the workers."""
        self.block.flat[:] = policy.flat
        self.block.mean[:] = policy.mean
        self.block.variance[:] = policy.variance

    def collect(self, batch: int, fresh: bool) -> list[Episode]:
        """Fill the block with a batch and return the episodes that ended in it.

        The number of the batch is a key of the noise. If ``fresh``, all environments start a new
        episode first.

        Raises:
            TrainingError: If a worker dies or an environment fails.
        """
        return self._ask("collect", [(batch, fresh)] * len(self._pipes))

    def evaluate(self, seeds: Sequence[int]) -> list[Episode]:
        """Run one deterministic episode per seed, spread over the workers.

        The next batch must be collected with ``fresh``.

        Raises:
            TrainingError: If a worker dies or an environment fails.
        """
        shares = [list(part) for part in np.array_split(np.array(seeds), len(self._pipes))]
        return self._ask("evaluate", shares)

    def close(self) -> None:
        """End the workers; idempotent."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(1.0)
            if process.is_alive():
                process.terminate()
                process.join(2.0)
            if process.is_alive():
                process.kill()
                process.join()
        self._pipes, self._processes = [], []

    def _ask(self, verb: str, arguments: Sequence[Any]) -> list[Episode]:
        for pipe, argument in zip(self._pipes, arguments, strict=True):
            with contextlib.suppress(OSError):
                pipe.send((verb, argument))
        return self._gather(None)

    def _gather(self, deadline: float | None) -> list[Episode]:
        """Return all workers' answers in order, or raise as soon as one fails."""
        answers: dict[int, list[Episode]] = {}
        while len(answers) < len(self._pipes):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            pending = [pipe for i, pipe in enumerate(self._pipes) if i not in answers]
            ready = wait([*pending, *(p.sentinel for p in self._processes)], left)
            if not ready:
                raise TrainingError(f"roll-out workers did not start in {_START_TIMEOUT:.0f} s")
            for pipe in pending:
                if pipe in ready:
                    index = self._pipes.index(pipe)
                    answers[index] = self._receive(index)
            for process in self._processes:
                if process.sentinel in ready and not process.is_alive():
                    raise TrainingError(_exit_reason(process))
        return [episode for index in sorted(answers) for episode in answers[index]]

    def _receive(self, index: int) -> list[Episode]:
        try:
            verb, content = self._pipes[index].recv()
        except (EOFError, OSError) as error:
            self._processes[index].join(2.0)
            raise TrainingError(_exit_reason(self._processes[index])) from error
        if verb == "error":
            raise TrainingError(content)
        episodes: list[Episode] = content
        return episodes


def _exit_reason(process: BaseProcess) -> str:
    """Return the error message for a worker that ended."""
    code = process.exitcode
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"ended with status {code}"
    return f"roll-out worker {process.name} {how}; the last checkpoint is intact, use --resume"
