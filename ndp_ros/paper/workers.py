# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Start workers that call one function: processes of this machine, or jobs of a cluster.

Each way returns the workers that ended without returning from the function, by name and end, so
that the queue can name the runs that they lost.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ndp_ros.errors import TrainingError
from ndp_ros.processes import bound_to_this_process, environment, terminate_with_parent

TIMED_OUT = "UncompletedJobError"
"""Exception that submitit raises inside a job that has used up its time; it must end the worker."""

_INTERRUPTED = 130


def run_in_processes(work: Callable[[], None], workers: int) -> dict[str, str]:
    """Call a function in several processes; return how those ended that did not return from it."""
    context = multiprocessing.get_context("spawn")
    started: list[BaseProcess] = [
        context.Process(target=_worker, args=(work,)) for _ in range(workers)
    ]
    try:
        with environment(bound_to_this_process()):
            for worker in started:
                worker.start()
        # `wait` on an empty list would never return, so the list is made once a round.
        while alive := [worker.sentinel for worker in started if worker.is_alive()]:
            wait(alive)
    finally:
        for worker in started:
            if worker.is_alive():
                worker.terminate()
            if worker.pid is not None:
                worker.join()
    return {
        _process_name(worker.pid): f"exit status {worker.exitcode}"
        for worker in started
        if worker.exitcode
    }


def _worker(work: Callable[[], None]) -> None:
    if terminate_with_parent():
        sys.exit(_INTERRUPTED)
    try:
        work()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def run_by_submitit(
    work: Callable[[], None], workers: int, cluster: str, logs: Path, parameters: Mapping[str, Any]
) -> dict[str, str]:
    """Call a function in several jobs; return how those ended that did not return from it.

    The function is pickled. The cluster is ``slurm``, or ``local`` for processes of this machine;
    the parameters are those of submitit's executor, such as ``slurm_partition``, whose files go to
    the folder ``logs``. An interruption cancels the submitted jobs.

    Raises:
        TrainingError: If submitit is not installed or refuses.
    """
    try:
        import submitit
    except ImportError as error:
        raise TrainingError(
            f"--executor submitit needs submitit ({error}): pip install 'ndp_ros[cluster]'"
        ) from error
    try:
        made = submitit.AutoExecutor(folder=logs, cluster=cluster)
        # Most of a run is single-threaded: one core a worker, as on this machine.
        made.update_parameters(**{"cpus_per_task": 1, **parameters})
        with made.batch():
            jobs = [made.submit(work) for _ in range(workers)]
    except (RuntimeError, TypeError, ValueError, NameError, OSError) as error:
        raise TrainingError(f"submitit: {' '.join(str(error).split())}") from error
    submitted = ", ".join(job.job_id for job in jobs)
    sys.stderr.write(f"submitted {submitted}; logs in {logs}\n")
    lost = {}
    try:
        for job in jobs:
            if (problem := job.exception()) is not None:
                timed_out = job.state == "TIMEOUT" or "timed-out" in str(problem)
                how = "timed out" if timed_out else f"state {job.state}"
                lost[f"job {job.job_id}"] = f"{how}, logs in {logs}"
    except BaseException:
        for job in jobs:
            job.cancel()
        raise
    return lost


def own_name() -> str:
    """Return the name of this worker: its cluster job, or its process."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    slurm = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")
    job = os.environ.get("SUBMITIT_LOCAL_JOB_ID") or slurm
    return f"job {job}" if job else _process_name(os.getpid())


def _process_name(pid: int | None) -> str:
    return f"process {pid} on {platform.node()}"
