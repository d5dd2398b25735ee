"""Who works through a queue: processes of this machine, or tasks of a cluster.

The queue lives in the file system, so an executor only has to start workers that see the same
folders; each takes whatever nobody else does. ``submitit`` (an optional package) hands them
to Slurm, ``submitit-local`` to its local executor, which runs the same code here.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from ndp_ros.errors import TrainingError
from ndp_ros.parent import end_with_parent, starting_what_ends_with_me
from ndp_ros.training.reproduce import Queue, outcomes, say

EXECUTORS = ("local", "submitit", "submitit-local")

_INTERRUPTED = 130


def run_queue(
    queue: Queue, workers: int, executor: str = "local", options: Mapping[str, Any] | None = None
) -> None:
    """Work on every run that is neither done nor under way elsewhere, until all have ended.

    Args:
        queue: The runs.
        workers: Workers to use, one core each; a single local one is this process.
        executor: A name of ``EXECUTORS``.
        options: Parameters of submitit's executor, such as ``slurm_partition``.

    Raises:
        TrainingError: If the executor is unknown or not installed, or a worker was lost.
    """
    if executor not in EXECUTORS:
        raise TrainingError.choice("executor", executor, EXECUTORS)
    left = [o for o in outcomes(queue.jobs(), queue.root) if o.status != "done"]
    workers = min(workers, len(left))
    if executor != "local":
        _by_submitit(queue, workers, executor, options or {})
    elif workers > 1:
        _by_processes(queue.work, workers)
    elif left:
        queue.work()


def _by_processes(work: Callable[[], None], workers: int) -> None:
    context = multiprocessing.get_context("spawn")
    started: list[BaseProcess] = [
        context.Process(target=_worker, args=(work,)) for _ in range(workers)
    ]
    try:
        with starting_what_ends_with_me():
            for worker in started:
                worker.start()
        # Looked at once a round: `wait` on an empty list would never return.
        while alive := [worker.sentinel for worker in started if worker.is_alive()]:
            wait(alive)
    finally:
        for worker in started:
            if worker.is_alive():
                worker.terminate()
            if worker.pid is not None:
                worker.join()


def _worker(work: Callable[[], None]) -> None:
    if end_with_parent():
        sys.exit(_INTERRUPTED)
    try:
        work()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _by_submitit(queue: Queue, workers: int, executor: str, options: Mapping[str, Any]) -> None:
    """Submit the workers and wait for them; an interruption cancels those that it started."""
    try:
        import submitit
    except ImportError as error:
        raise TrainingError(
            f"--executor {executor} needs submitit ({error}): pip install 'ndp_ros[cluster]'"
        ) from error
    if workers == 0:
        return
    cluster = "local" if executor == "submitit-local" else "slurm"
    try:
        made = submitit.AutoExecutor(folder=queue.root / "submitit", cluster=cluster)
        # Most of a run is single-threaded: one core a worker, as on this machine.
        made.update_parameters(**{"name": f"ndp-{queue.name}", "cpus_per_task": 1, **options})
        with made.batch():
            jobs = [made.submit(queue.work) for _ in range(workers)]
    except (RuntimeError, TypeError, ValueError, NameError, OSError) as error:
        raise TrainingError(f"submitit: {' '.join(str(error).split())}") from error
    say(f"submitted {', '.join(job.job_id for job in jobs)}; logs in {queue.root / 'submitit'}")
    try:
        lost = [job.job_id for job in jobs if job.exception() is not None]
    except BaseException:
        for job in jobs:
            job.cancel()
        raise
    if lost:
        raise TrainingError(
            f"submitit jobs {', '.join(lost)} were lost; what they did not finish is still in "
            f"the queue (logs in {queue.root / 'submitit'})"
        )
