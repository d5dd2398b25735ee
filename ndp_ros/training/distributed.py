# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A run over several processes or machines, started by torchrun and connected by gloo.

The first rank learns; every rank steps its part of the environments with its own workers. The
numbers of an environment depend only on the seed, its index and the batch, so that a distributed
run equals a run on one machine with as many workers. Each batch, parameters are sent out and
roll-outs are brought back::

    torchrun --nproc-per-node 2 -m ndp_ros.cli train push --workers 4
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np

from ndp_ros.errors import NdpError, TrainingError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import Array
from ndp_ros.training.evaluation import Episode
from ndp_ros.training.rollouts import Rollouts
from ndp_ros.training.worker import Block, Plan

Answer = tuple[list[Episode], dict[str, Array]] | str
"""A rank's episodes and rows of the block, or an error message."""

_SENT = ("flat", "mean", "variance", "episodes")
_RETURNED = ("obs", "next_obs", "actions", "rewards", "terminated", "ended", "episodes")
"""Arrays of the block that the first rank sends, and rows that the others return."""

_PATIENCE = timedelta(days=7)
"""Timeout of a rank that waits for the others; torchrun ends all ranks if one dies."""


def is_single() -> bool:
    """Return whether this process runs without other ranks."""
    return int(os.environ.get("WORLD_SIZE", "1")) <= 1


def _torch_distributed() -> Any:
    """Import what connects the ranks, which a run of one process does without."""
    import torch.distributed

    return torch.distributed


@contextlib.contextmanager
def joined() -> Iterator[int]:
    """Connect to the other ranks and yield the number of this one.

    Raises:
        TrainingError: If torchrun's variables are missing or the other ranks do not answer.
    """
    dist = _torch_distributed()
    try:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise TrainingError(f"cannot join the other ranks: {error}") from error
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def assist() -> int:
    """Serve the first rank until the run ends; return the exit status."""
    try:
        verb, *plan_and_share = _receive()
    except RuntimeError:  # the first rank has refused the run, and has said why
        return 1
    if verb == "close":
        return 1
    plan, mine = plan_and_share
    try:
        rollouts = Rollouts(plan, mine)
    except NdpError as error:
        _answer(str(error))
        _receive()
        return 1
    with rollouts:
        _answer(None)
        while (order := _receive())[0] != "close":
            _answer(_perform(rollouts, mine, *order))
    return 0


class SharedRollouts:
    """Roll-outs by the workers of all ranks, with the interface of ``Rollouts``."""

    def __init__(self, plan: Plan) -> None:
        """Start the workers of every rank, on each as many as the plan for one process has.

        Raises:
            TrainingError: If there are more ranks than environments, or a worker fails.
        """
        self._ranks = _torch_distributed().get_world_size()
        if self._ranks > plan.environments:
            self._order_all([("close", None, None)] * self._ranks)
            raise TrainingError(
                f"{self._ranks} ranks share {plan.environments} environments: start fewer, or "
                "raise --environments"
            )
        self.plan = replace(plan, workers=min(plan.workers * self._ranks, plan.environments))
        edges = np.linspace(0, self.plan.workers, self._ranks + 1).astype(int)
        self._shares = [range(a, b) for a, b in itertools.pairwise(edges.tolist())]
        self._order_all([("plan", self.plan, share) for share in self._shares])
        self._rollouts: Rollouts | None = None
        problem: str | None = None
        try:
            self._rollouts = Rollouts(self.plan, self._shares[0])
        except NdpError as error:
            problem = str(error)
        problems = [problem, *self._answers()]
        if any(problems):
            self.close()
            raise TrainingError(next(p for p in problems if p))
        assert self._rollouts is not None
        self.block = self._rollouts.block

    def __enter__(self) -> SharedRollouts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def publish(self, policy: ArrayPolicy) -> None:
        """Send the current parameters and statistics to the workers."""
        self._mine.publish(policy)

    def collect(self, batch: int, fresh: bool) -> list[Episode]:
        """Fill the block with a batch and return the episodes that ended in it.

        Raises:
            TrainingError: If a worker of any rank fails.
        """
        return self._ask("collect", [(batch, fresh)] * self._ranks)

    def evaluate(self, seeds: Sequence[int]) -> list[Episode]:
        """Run one deterministic episode per seed, spread over the ranks.

        Raises:
            TrainingError: If a worker of any rank fails.
        """
        parts = np.array_split(np.array(seeds), self._ranks)
        return self._ask("evaluate", [(part.tolist(),) for part in parts])

    def close(self) -> None:
        """End the workers of every rank; idempotent."""
        if self._ranks:
            self._order_all([("close",)] * self._ranks)
            self._ranks = 0
        if self._rollouts is not None:
            self._rollouts.close()

    @property
    def _mine(self) -> Rollouts:
        if self._rollouts is None:
            raise TrainingError("these roll-outs are closed")
        return self._rollouts

    def _ask(self, verb: str, arguments: Sequence[tuple[Any, ...]]) -> list[Episode]:
        """Return the episodes of all ranks and copy their rows into the block."""
        sent = {name: getattr(self.block, name) for name in _SENT}
        self._order_all([(verb, part, sent) for part in arguments])
        answers = [_perform(self._mine, self._shares[0], verb, arguments[0], {}), *self._answers()]
        episodes: list[Episode] = []
        for answer, share in zip(answers, self._shares, strict=True):
            if isinstance(answer, str):
                raise TrainingError(answer)
            found, rows = answer
            episodes += found
            for name, part in rows.items():
                _rows(self.block, name, self.plan, share)[...] = part
        return episodes

    def _order_all(self, orders: Sequence[tuple[Any, ...]]) -> None:
        _torch_distributed().scatter_object_list([None], list(orders), src=0)

    def _answers(self) -> list[Any]:
        found: list[Any] = [None] * self._ranks
        _torch_distributed().gather_object(None, found, dst=0)
        return found[1:]


def _perform(
    rollouts: Rollouts, mine: range, verb: str, arguments: tuple[Any, ...], sent: dict[str, Array]
) -> Answer:
    """Collect or evaluate with the workers of one rank, after taking over what was sent."""
    block = rollouts.block
    for name, array in sent.items():
        getattr(block, name)[...] = array
    try:
        episodes: list[Episode] = getattr(rollouts, verb)(*arguments)
    except NdpError as error:
        return str(error)
    returned = _RETURNED if verb == "collect" else ()
    return episodes, {name: _rows(block, name, rollouts.plan, mine) for name in returned}


def _rows(block: Block, name: str, plan: Plan, workers: range) -> Array:
    """Return the part of an array that belongs to the environments of a range of workers."""
    environments = slice(plan.share(workers.start).start, plan.share(workers.stop - 1).stop)
    array: Array = getattr(block, name)
    return array[environments] if name == "episodes" else array[:, environments]


def _receive() -> tuple[Any, ...]:
    found: list[Any] = [None]
    _torch_distributed().scatter_object_list(found, None, src=0)
    order: tuple[Any, ...] = found[0]
    return order


def _answer(content: Any) -> None:
    _torch_distributed().gather_object(content, None, dst=0)
