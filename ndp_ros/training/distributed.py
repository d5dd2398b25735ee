"""One run over several processes or machines: torchrun starts them, gloo connects them.

The first rank learns; every rank steps its part of the environments with workers of its own.
What an environment does follows from the seed, its number and the batch alone, so the numbers
are those of a run in one place with as many workers. Parameters go out and roll-outs come
back once a batch::

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
from numpy.typing import NDArray

from ndp_ros.errors import NdpError, TrainingError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.training.evaluation import Episode
from ndp_ros.training.rollouts import Block, Plan, Rollouts

Array = NDArray[Any]

_SENT_OUT = ("flat", "mean", "variance", "episodes")
_BROUGHT_BACK = ("obs", "next_obs", "actions", "rewards", "terminated", "ended", "episodes")
_PATIENCE = timedelta(days=7)
"""How long a rank waits for the others; torchrun ends all of them if one dies."""


def alone() -> bool:
    """Return whether this process is the whole run."""
    return int(os.environ.get("WORLD_SIZE", "1")) <= 1


@contextlib.contextmanager
def joined() -> Iterator[int]:
    """Connect to the other ranks and yield this one's number.

    Raises:
        TrainingError: If torchrun's variables are not there or the others do not answer.
    """
    import torch.distributed as dist

    try:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise TrainingError(f"cannot join the other ranks: {error}") from error
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def assist() -> int:
    """Serve the first rank until it is done; return the exit status."""
    verb, plan, mine = _receive()
    if verb == "close":
        return 1
    try:
        rollouts = Rollouts(plan, mine)
    except NdpError as error:
        _answer(str(error))
        _receive()
        return 1
    with rollouts:
        _answer(None)
        while True:
            verb, *arguments = _receive()
            if verb == "close":
                return 0
            found: list[Episode] | str
            try:
                _spread(rollouts.block)
                ask = rollouts.collect if verb == "collect" else rollouts.evaluate
                found = ask(*arguments)
            except NdpError as error:
                found = str(error)
            _answer(found)
            if verb == "collect" and not isinstance(found, str):
                _send_rows(rollouts.block, _environments(plan, mine))


class SharedRollouts:
    """The learner's side of roll-outs that all ranks take part in; used as ``Rollouts``.

    Attributes:
        plan: Who does what, workers of all ranks counted.
        block: What the last batch holds.
    """

    def __init__(self, plan: Plan) -> None:
        """Start the workers of every rank.

        Args:
            plan: As for one process; each rank has that many workers.

        Raises:
            TrainingError: If there are more ranks than environments, or a worker fails.
        """
        import torch.distributed as dist

        self._ranks = dist.get_world_size()
        if self._ranks > plan.environments:
            self._tell_all([("close", None, None)] * self._ranks)
            raise TrainingError(
                f"{self._ranks} ranks share {plan.environments} environments: start fewer, or "
                "raise --environments"
            )
        self.plan = replace(plan, workers=min(plan.workers * self._ranks, plan.environments))
        edges = np.linspace(0, self.plan.workers, self._ranks + 1).astype(int)
        self._shares = [range(a, b) for a, b in itertools.pairwise(edges.tolist())]
        self._tell_all([("plan", self.plan, share) for share in self._shares])
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
        """Give the workers the present parameters and statistics."""
        self._mine.publish(policy)

    def collect(self, batch: int, fresh: bool) -> list[Episode]:
        """Fill the block with a batch and return the episodes that ended in it.

        Raises:
            TrainingError: If a worker of any rank fails.
        """
        answers = self._ask([("collect", batch, fresh)] * self._ranks, self._mine.collect)
        for rank, answer in enumerate(answers):
            # Whoever has rows sends them now, also where another rank has failed.
            if rank > 0 and not isinstance(answer, str):
                _receive_rows(self.block, _environments(self.plan, self._shares[rank]), rank)
        return _episodes(answers)

    def evaluate(self, seeds: Sequence[int]) -> list[Episode]:
        """Run one deterministic episode per seed, spread over the ranks.

        Raises:
            TrainingError: If a worker of any rank fails.
        """
        parts = np.array_split(np.array(seeds), self._ranks)
        orders = [("evaluate", part.tolist()) for part in parts]
        return _episodes(self._ask(orders, self._mine.evaluate))

    def close(self) -> None:
        """End the workers of every rank; may be called twice."""
        if self._ranks:
            self._tell_all([("close",)] * self._ranks)
            self._ranks = 0
        if self._rollouts is not None:
            self._rollouts.close()

    @property
    def _mine(self) -> Rollouts:
        if self._rollouts is None:
            raise TrainingError("these roll-outs are closed")
        return self._rollouts

    def _ask(self, orders: Sequence[tuple[Any, ...]], here: Any) -> list[list[Episode] | str]:
        """Return every rank's answer: its episodes, or what went wrong."""
        self._tell_all(orders)
        _spread(self.block)
        found: list[Episode] | str
        try:
            found = here(*orders[0][1:])
        except NdpError as error:
            found = str(error)
        return [found, *self._answers()]

    def _tell_all(self, orders: Sequence[tuple[Any, ...]]) -> None:
        import torch.distributed as dist

        dist.scatter_object_list([None], list(orders), src=0)

    def _answers(self) -> list[Any]:
        import torch.distributed as dist

        found: list[Any] = [None] * self._ranks
        dist.gather_object(None, found, dst=0)
        return found[1:]


def _episodes(answers: Sequence[list[Episode] | str]) -> list[Episode]:
    """Return the episodes of all ranks, or raise what the first one that failed says."""
    found: list[Episode] = []
    for answer in answers:
        if isinstance(answer, str):
            raise TrainingError(answer)
        found += answer
    return found


def _receive() -> tuple[Any, ...]:
    import torch.distributed as dist

    found: list[Any] = [None]
    dist.scatter_object_list(found, None, src=0)
    order: tuple[Any, ...] = found[0]
    return order


def _answer(content: Any) -> None:
    import torch.distributed as dist

    dist.gather_object(content, None, dst=0)


def _spread(block: Block) -> None:
    """Give every rank the first one's parameters, statistics and episode numbers."""
    import torch
    import torch.distributed as dist

    for name in _SENT_OUT:
        dist.broadcast(torch.from_numpy(getattr(block, name)), src=0)


def _environments(plan: Plan, workers: range) -> slice:
    """Return the environments of some workers."""
    return slice(plan.share(workers.start).start, plan.share(workers.stop - 1).stop)


def _part(block: Block, name: str, rows: slice) -> Array:
    array: Array = getattr(block, name)
    return array[rows] if name == "episodes" else array[:, rows]


def _send_rows(block: Block, rows: slice) -> None:
    import torch
    import torch.distributed as dist

    for name in _BROUGHT_BACK:
        part = np.ascontiguousarray(_part(block, name, rows))
        dist.send(torch.from_numpy(part.view(np.uint8)), dst=0)


def _receive_rows(block: Block, rows: slice, rank: int) -> None:
    import torch
    import torch.distributed as dist

    for name in _BROUGHT_BACK:
        place = _part(block, name, rows)
        part = np.empty(place.shape, place.dtype)
        dist.recv(torch.from_numpy(part.view(np.uint8)), src=rank)
        place[...] = part
