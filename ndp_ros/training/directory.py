# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The run directory: configuration, provenance, logs and checkpoints of one training run.

::

    <run>/config.yaml        the configuration
    <run>/provenance.json    commit, versions, machine, command; the same of each resumption
    <run>/progress.csv       one row per batch
    <run>/tensorboard/       the same for TensorBoard
    <run>/.lock              locked by the process that writes to the directory
    <run>/checkpoints/<samples>/   a checkpoint with the state of the trainer
    <run>/checkpoints/last, best   links to the newest and to the best by evaluation

Checkpoints without a link are removed. A checkpoint is written atomically before the links move,
so that ``last`` is sound whenever the process dies.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import yaml
from numpy.typing import NDArray
from safetensors import SafetensorError

from ndp_ros import checkpoint
from ndp_ros.config import from_mapping, to_mapping
from ndp_ros.errors import CheckpointError, LockedError, NdpError, TrainingError
from ndp_ros.files import atomic_write, read_yaml
from ndp_ros.paths import find_checkpoint
from ndp_ros.policies.layout import Tensors
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.processes import lock_file
from ndp_ros.tasks.choice import TaskChoice
from ndp_ros.tasks.contract import plain
from ndp_ros.training.config import RunConfig, differences, value_at
from ndp_ros.training.provenance import provenance

CONFIG = "config.yaml"
PROVENANCE = "provenance.json"
CHECKPOINTS = "checkpoints"
LAST, BEST = "last", "best"
LOCK = ".lock"
"""File that the writing process locks, with its process id as content."""

_ARRAYS, _COUNTERS = "training.safetensors", "training.json"

_MAY_CHANGE = ("samples", "workers", "device")
"""Options that may differ when a run is resumed."""


@dataclass(frozen=True)
class State:
    """State of a trainer at a checkpoint: arrays and plain numbers, by name."""

    arrays: dict[str, NDArray[Any]]
    counters: dict[str, Any]

    def part(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays whose names begin with ``prefix.``, without it."""
        start = prefix + "."
        return {n.removeprefix(start): a for n, a in self.arrays.items() if n.startswith(start)}


class RunDirectory:
    """A run's directory, new or resumed."""

    def __init__(self, folder: Path, config: RunConfig, resume: bool, command: str = "") -> None:
        """Make the directory, or check that the run in it has this configuration.

        Raises:
            TrainingError: If a new run's directory is in use, or the run to resume is missing or
                has another configuration.
        """
        self.folder, self.config, self._command = folder, config, command
        self._checkpoints = folder / CHECKPOINTS
        self._new = not resume
        self._saved_config = config
        if not resume:
            self._make_folder()
        self._lock = hold(folder)
        try:
            if resume:
                self._saved_config = self._require_same()
                self._record_resumption()
            else:
                self._make()
        except BaseException:
            self.close()
            raise

    @property
    def warning(self) -> str:
        """Warning about a schedule that a resumption changes; empty if none."""
        was, now = self._saved_config.samples, self.config.samples
        scheduled = self.config.final_log_std is not None or self.config.ppo.schedule == "linear"
        if was == now or not scheduled:
            return ""
        return (
            f"samples is {now:,}, was {was:,}: deviation and step size follow the schedule of the "
            "new length from here on; a run of that length from the start is another one"
        )

    @property
    def last(self) -> Path:
        """Link to the newest checkpoint."""
        return self._checkpoints / LAST

    @property
    def best(self) -> Path:
        """Link to the best checkpoint by evaluation, the newest without evaluations."""
        return self._checkpoints / BEST

    def save(
        self,
        samples: int,
        spec: PolicySpec,
        tensors: Tensors,
        state: State,
        evaluation: Mapping[str, Any] | None,
        better: bool,
    ) -> None:
        """Write a checkpoint, move the links to it and remove checkpoints without a link.

        Its folder is named by the control steps so far; ``best`` moves to it if it is ``better``.

        Raises:
            CheckpointError: If it cannot be written.
        """
        name = f"{samples:09d}"
        origin = {
            **provenance(),
            "command": self._command,
            "config": to_mapping(self.config),
            "seed": self.config.seed,
            "samples": samples,
            "evaluation": plain(evaluation),
        }
        arrays = {n: np.asarray(a, order="C") for n, a in state.arrays.items()}
        counters = json.dumps(state.counters).encode()
        files = {_ARRAYS: safetensors.numpy.save(arrays), _COUNTERS: counters}
        checkpoint.save(self._checkpoints / name, spec, tensors, origin, extra=files)
        if better:
            _link(self.best, name)
        _link(self.last, name)
        kept = {p.readlink().name for p in self._checkpoints.iterdir() if p.is_symlink()}
        for path in self._checkpoints.iterdir():
            if path.is_dir() and not path.is_symlink() and path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def restore(self, spec: PolicySpec) -> State | None:
        """Return the trainer's state at the last checkpoint, None before the first one.

        Raises:
            CheckpointError: If the checkpoint is damaged.
            TrainingError: If it has another policy specification.
        """
        if not self.last.is_symlink():
            return None
        if checkpoint.load(self.last).spec != spec:
            raise TrainingError(f"{self.last} was made for another policy than this task's")
        try:
            arrays = safetensors.numpy.load_file(self.last / _ARRAYS)
            counters = json.loads((self.last / _COUNTERS).read_text(encoding="utf-8"))
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(
                f"{self.last}: the trainer's state is damaged: {error}"
            ) from error
        return State(arrays, counters)

    def discard_if_new(self) -> None:
        """Remove the directory of a new run that could not start."""
        if self._new:
            shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Release the lock, as does the end of the process."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _make_folder(self) -> None:
        self._require_empty()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"cannot write to {self.folder}: {error.strerror}") from error

    def _require_empty(self) -> None:
        """Check that the folder, if it is there, holds nothing but a lock."""
        folder = self.folder
        if folder.exists() and not (
            folder.is_dir() and {p.name for p in folder.iterdir()} <= {LOCK}
        ):
            raise TrainingError(f"{folder} exists: add --resume, or name another with --out")

    def _origin(self) -> dict[str, Any]:
        """Return the provenance of this start."""
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        return {**provenance(), "command": self._command, "started": started}

    def _make(self) -> None:
        self._require_empty()
        folder, origin = self.folder, self._origin()
        if self.config.start_from:
            origin["start_from"] = checkpoint.load(find_checkpoint(self.config.start_from)).id
        try:
            self._checkpoints.mkdir(parents=True)
            atomic_write(folder / PROVENANCE, json.dumps(origin, indent=1) + "\n")
            atomic_write(folder / CONFIG, self._config_text())
        except OSError as error:
            raise TrainingError(f"cannot write to {folder}: {error.strerror}") from error

    def _record_resumption(self) -> None:
        """Add this resumption to the provenance and write the configuration."""
        entry = {**self._origin(), "samples": self.config.samples}
        path = self.folder / PROVENANCE
        try:
            origin = json.loads(path.read_text(encoding="utf-8"))
            origin.setdefault("resumed", []).append(entry)
            atomic_write(path, json.dumps(origin, indent=1) + "\n")
            atomic_write(self.folder / CONFIG, self._config_text())
        except (ValueError, AttributeError) as error:
            raise TrainingError(f"cannot resume {self.folder}: {PROVENANCE}: {error}") from error
        except OSError as error:
            raise TrainingError(f"cannot write to {self.folder}: {error.strerror}") from error

    def _config_text(self) -> str:
        values = to_mapping(self.config)
        first = {name: values.pop(name) for name in ("task", "method", "seed", "samples")}
        text: str = yaml.safe_dump(first | values, sort_keys=False)
        return text

    def _require_same(self) -> RunConfig:
        """Return the run's configuration, if the new one may continue it."""
        try:
            saved = read_config(self.folder)
        except NdpError as error:
            raise TrainingError(f"cannot resume {self.folder}: {error}") from error
        changed = [n for n in differences(saved, self.config) if n not in _MAY_CHANGE]
        if changed:
            other = [f"{n} ({value_at(saved, n)}, now {value_at(self.config, n)})" for n in changed]
            raise TrainingError(
                f"{self.folder} was started with another {', '.join(other)}: continue it with "
                f"'{resume_command(self.folder, saved)}', or start a new run with --out"
            )
        return saved


def hold(folder: Path) -> int:
    """Lock a run directory for this process, for as long as the descriptor is open.

    Returns:
        The file descriptor of the lock.

    Raises:
        TrainingError: If the directory cannot be written to, or another process holds it.
    """
    if not folder.is_dir():
        raise TrainingError(f"cannot resume {folder}: there is no such run")
    try:
        return lock_file(folder / LOCK, 0o644)
    except LockedError as error:
        raise TrainingError(
            f"{folder} is being written by process {error.holder}: wait for its end, or name "
            "another directory with --out"
        ) from error
    except OSError as error:
        raise TrainingError(f"cannot write to {folder}: {error.strerror}") from error


def acting_choice(config: RunConfig, checkpoint: str | Path) -> TaskChoice:
    """Return the task with the embedding in a checkpoint's folder, for methods that act in one."""
    file = str(Path(checkpoint) / _ARRAYS) if config.row.embedded else ""
    return dataclasses.replace(config.choice, embedding=file)


def resume_command(folder: Path, config: RunConfig) -> str:
    """Return the command that resumes a run, with all options from its own file."""
    where = ("--config", str(folder / CONFIG), "--out", str(folder), "--resume")
    return shlex.join(("ndp", "train", config.task, "--method", config.method, *where))


def interrupted(folder: Path, config: RunConfig) -> str:
    """Return the message for an interrupted run, with the command that resumes it."""
    if not (folder / CHECKPOINTS / LAST).exists():
        return f"interrupted before the first checkpoint of {folder}"
    return f"interrupted; resume with: {resume_command(folder, config)}"


def read_config(folder: Path) -> RunConfig:
    """Return the configuration of a run.

    Raises:
        ConfigError: If the directory holds none, or one that does not fit.
    """
    values = read_yaml(folder / CONFIG)
    if isinstance(values, dict) and "sac" in values and values.get("method") != "dyn-e":
        # Older runs have values of the off-policy methods under another name, whatever theirs is.
        values = {name: value for name, value in values.items() if name not in ("sac", "dyne")}
    return from_mapping(RunConfig, values, source=str(folder / CONFIG))


def _link(path: Path, target: str) -> None:
    """Point a relative link to another target atomically."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target)
    scratch.replace(path)
