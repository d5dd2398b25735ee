"""Train a policy by whatever method its configuration names."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_ros.errors import TrainingError
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.directory import RunDirectory
from ndp_ros.training.experiment import CLONES, RunConfig, make_spec
from ndp_ros.training.logs import Watch

if TYPE_CHECKING:
    from ndp_ros.training.trainer import Trainer


def train(
    config: RunConfig,
    folder: Path,
    resume: bool = False,
    command: str = "",
    quiet: bool = False,
    watch: Watch | None = None,
) -> Path:
    """Train a policy and return the folder of the last checkpoint.

    Args:
        config: What to train. When resuming, it must equal the run's own except for
            ``samples`` and ``workers``.
        folder: The run directory; new or empty unless resuming.
        resume: Go on from the last checkpoint.
        command: What the user typed, for the record.
        quiet: Show no progress.
        watch: Called with every row of the log.

    Raises:
        TrainingError: If the directory cannot be used, a worker dies, a number is not
            finite or the disk refuses; the last checkpoint is intact.
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
            trainer = _trainer(config, spec, directory, resume)
        except BaseException:
            directory.discard_if_new()
            raise
        try:
            trainer.go(quiet, watch)
        except OSError as error:
            raise TrainingError(
                f"cannot write to {folder}: {error.strerror}; the last checkpoint is intact"
            ) from error
        return directory.last


def _trainer(config: RunConfig, spec: PolicySpec, directory: RunDirectory, resume: bool) -> Trainer:
    if config.method in CLONES:
        from ndp_ros.training.imitation import ImitationRun

        return ImitationRun(config, spec, directory, resume)
    if config.method in ("ndp-sac", "sac"):
        from ndp_ros.training.off_policy import SacRun

        return SacRun(config, spec, directory, resume)
    if config.method == "dyn-e":
        from ndp_ros.training.dyn_e import DynERun

        return DynERun(config, spec, directory, resume)
    from ndp_ros.training.on_policy import PpoRun

    return PpoRun(config, spec, directory, resume)
