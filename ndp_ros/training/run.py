# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``train``: prepare a run directory, make the trainer of the method and run it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from ndp_ros.errors import TrainingError
from ndp_ros.training.config import RunConfig, make_spec
from ndp_ros.training.directory import RunDirectory
from ndp_ros.training.logs import Watch
from ndp_ros.training.methods import run_class


def train(
    config: RunConfig,
    folder: str | Path,
    resume: bool = False,
    command: str = "",
    quiet: bool = False,
    watch: Watch | None = None,
) -> Path:
    """Train a policy and return the folder of the last checkpoint.

    Section 3.4 of the paper for ``ndp``, ``ppo`` and ``ppo-multi``; the other methods are those of
    :data:`ndp_ros.training.methods.METHODS`.

    Args:
        config: Configuration of the run. To resume, it must equal that of the run except
            for ``samples``, ``workers`` and ``device``.
        folder: Run directory, new or empty unless resuming.
        resume: Continue from the last checkpoint.
        command: Command line of the user, for the record.
        quiet: Show no progress.
        watch: Called with every row of the log.

    Raises:
        TrainingError: If the directory cannot be used, a worker dies, a number is not
            finite or a file cannot be written; the last checkpoint stays intact.

    Example:
        >>> config = RunConfig(task="throw", samples=80, environments=1, workers=1)
        >>> last = train(config, "runs/short", quiet=True)
        >>> load_policy(last).spec.task
        'throw'
    """
    env = config.choice.make()
    try:
        spec = make_spec(config, env)
    finally:
        env.close()
    with contextlib.closing(RunDirectory(Path(folder), config, resume, command)) as directory:
        if directory.warning and not quiet:
            sys.stderr.write(directory.warning + "\n")
        try:
            trainer = run_class(config.row.learner)(config, spec, directory, resume)
        except BaseException:
            directory.discard_if_new()
            raise
        try:
            trainer.run(quiet, watch)
        except OSError as error:
            raise TrainingError(
                f"cannot write to {folder}: {error.strerror}; the last checkpoint is intact"
            ) from error
        return directory.last
