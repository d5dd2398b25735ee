# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Training of several seeds of one configuration in parallel, one process and core each."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from ndp_ros.errors import NdpError, TrainingError
from ndp_ros.processes import bound_to_this_process, environment, terminate_with_parent
from ndp_ros.training.config import RunConfig
from ndp_ros.training.directory import CONFIG, interrupted
from ndp_ros.training.run import train
from ndp_ros.training.tracking import watched

_FAILED, _INTERRUPTED = 2, 130
_GRACE = 3.0


def train_seeds(
    config: RunConfig,
    seeds: list[int],
    out: Path | None,
    resume: bool,
    command: str,
    watching: tuple[str, int] = ("", 0),
) -> int:
    """Train every seed with one worker in ``out/seed-<n>``, or in a folder of its default name.

    A seed that is resumed without a checkpoint starts. ``watching`` are the tracker and the
    evaluations between films, as for :func:`tracking.watched`. Return the worst exit status.

    Raises:
        TrainingError: If a seed is given twice or is negative.
    """
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise TrainingError(f"--seeds {' '.join(map(str, seeds))}: expected different seeds from 0")
    context = multiprocessing.get_context("spawn")
    waiting = list(seeds)
    running: list[BaseProcess] = []
    worst = 0
    try:
        while waiting or running:
            while waiting and len(running) < len(os.sched_getaffinity(0)):
                seed = waiting.pop(0)
                one = dataclasses.replace(config, seed=seed, workers=1)
                folder = out / f"seed-{seed}" if out else Path("runs") / one.name
                process = context.Process(
                    target=_train_one, args=(one, folder, resume, command, watching)
                )
                with environment(bound_to_this_process()):
                    process.start()
                running.append(process)
            wait([process.sentinel for process in running])
            for ended in [process for process in running if not process.is_alive()]:
                ended.join()
                running.remove(ended)
                worst = max(worst, abs(ended.exitcode or 0))
    finally:
        _end(running)
    return worst


def _end(processes: list[BaseProcess]) -> None:
    """Wait for processes that received the same Ctrl-C, and interrupt the others."""
    deadline = time.monotonic() + _GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    for process in processes:
        if process.is_alive() and process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGINT)
        process.join()


def _train_one(
    config: RunConfig, folder: Path, resume: bool, command: str, watching: tuple[str, int]
) -> None:
    if terminate_with_parent():
        sys.exit(_INTERRUPTED)
    try:
        with watched(config, folder, *watching) as watch:
            resume = resume and (folder / CONFIG).exists()
            train(config, folder, resume, command, watch=watch)
    except NdpError as error:
        sys.stderr.write(f"ndp train: seed {config.seed}: {error}\n")
        sys.exit(_FAILED)
    except KeyboardInterrupt:
        sys.stderr.write(f"ndp train: seed {config.seed}: {interrupted(folder, config)}\n")
        sys.exit(_INTERRUPTED)
