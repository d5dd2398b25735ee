# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Film episodes of a checkpoint: at the end by ``ndp eval``, now and then while it is trained."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from ndp_ros import checkpoint
from ndp_ros.errors import NdpError
from ndp_ros.tasks.choice import TaskChoice
from ndp_ros.tasks.contract import TaskEnvironment
from ndp_ros.tasks.film import film
from ndp_ros.tasks.live_film import LiveFilm
from ndp_ros.tasks.replay import Recorder, Replay
from ndp_ros.training.directory import CHECKPOINTS, LAST
from ndp_ros.training.evaluate import arm_task_in, measure, task_choice
from ndp_ros.training.evaluation import EVALUATION_SEED
from ndp_ros.training.logs import ProgressLine, Row, Watch

FILMS = "films"
"""Folder of the films in a run directory."""


def watcher_of(env: TaskEnvironment, saved: checkpoint.Checkpoint) -> Recorder | LiveFilm:
    """Return what films a task: a recorder of an arm, or a camera that sees what it draws."""
    task = arm_task_in(env)
    if task is not None:
        return Recorder(task, {"checkpoint": saved.id, "task": saved.spec.task})
    return LiveFilm(env, env.control_dt, env.k)


def save_film(
    path: Path, watcher: Recorder | LiveFilm, choice: TaskChoice, quiet: bool = False
) -> None:
    """Write a film and the contact sheet beside it.

    Raises:
        TaskError: If a file cannot be written.
    """
    sheet = path.with_suffix(".png")
    if isinstance(watcher, LiveFilm):
        watcher.save(path, sheet)
        return
    with closing(replace(choice, impedance="").make(render_mode="rgb_array")) as env:
        line = ProgressLine(f"film {path.name}", 100, quiet=quiet, unit="%")
        with line as shown:
            show = lambda share: shown.show(round(100 * share), [])  # noqa: E731
            film(Replay(env), watcher.recordings, path, show, sheet)  # type: ignore[arg-type]


def filming(folder: Path, every: int) -> Watch:
    """Return a watch of a run that films an episode of its checkpoint at every n-th evaluation.

    Films are ``films/SAMPLES.mp4`` in the run directory. What cannot be filmed is one line on
    standard error, and the training goes on.
    """
    evaluations = 0

    def watch(row: Row) -> None:
        nonlocal evaluations
        if row.get("eval_success") is None:
            return
        evaluations += 1
        if evaluations % every:
            return
        last = folder / CHECKPOINTS / LAST
        try:
            saved = checkpoint.load(last)
            choice = task_choice(saved, [], last)
            with closing(choice.make(render_mode="rgb_array")) as env:
                watcher = watcher_of(env, saved)
                measure(saved, env, 1, EVALUATION_SEED, watcher=watcher, watched=1)
            save_film(folder / FILMS / f"{row['samples']}.mp4", watcher, choice, quiet=True)
        except NdpError as error:
            sys.stderr.write(f"no film: {error}\n")

    return watch
