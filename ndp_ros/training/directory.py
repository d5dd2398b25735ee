"""The directory of a run: what was asked for, what came out, and how to go on.

::

    <run>/config.yaml        what was asked for
    <run>/provenance.json    commit, versions, machine, command; the same of each resumption
    <run>/progress.csv       one row a batch
    <run>/.lock              held by the one process that writes
    <run>/tensorboard/       the same for TensorBoard
    <run>/checkpoints/<samples>/   a checkpoint and the trainer's state
    <run>/checkpoints/last, best   links to the newest and to the best by evaluation

Only what a link points to is kept. A checkpoint appears in one step and the links move
afterwards, so that whatever happens there is a sound last checkpoint.
"""

from __future__ import annotations

import dataclasses
import fcntl
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
from ndp_ros.config import from_mapping, read_yaml, to_mapping
from ndp_ros.errors import CheckpointError, NdpError, TrainingError
from ndp_ros.paths import find_checkpoint
from ndp_ros.policies.layout import Tensors
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.environment import TaskChoice
from ndp_ros.training.evaluation import plain
from ndp_ros.training.experiment import RunConfig, differences, provenance, value_at
from ndp_ros.whole import write_whole

CONFIG = "config.yaml"
PROVENANCE = "provenance.json"
CHECKPOINTS = "checkpoints"
LAST, BEST = "last", "best"
LOCK = ".lock"
"""Whoever writes to the directory holds a lock on this file, in which its process id stands."""

_ARRAYS, _COUNTERS = "training.safetensors", "training.json"

_MAY_CHANGE = ("samples", "workers")
"""Fields that a resumed run may have otherwise than the run that it goes on with."""


@dataclass(frozen=True)
class State:
    """What a trainer needs to go on: arrays and plain numbers, by name."""

    arrays: dict[str, NDArray[Any]]
    counters: dict[str, Any]

    def part(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays whose names begin with ``prefix.``, without it."""
        start = prefix + "."
        return {n.removeprefix(start): a for n, a in self.arrays.items() if n.startswith(start)}


class RunDirectory:
    """A run's directory, new or resumed.

    Attributes:
        folder: Where it is.
        config: The run's configuration.
    """

    def __init__(self, folder: Path, config: RunConfig, resume: bool, command: str = "") -> None:
        """Make the directory, or check that it belongs to the configuration.

        Raises:
            TrainingError: If there is a run already, or none to resume, or another one.
        """
        self.folder, self.config, self._command = folder, config, command
        self._checkpoints = folder / CHECKPOINTS
        self._new = not resume
        self._before = config
        if not resume:
            self._make_folder()
        self._lock = hold(folder)
        try:
            if resume:
                self._before = self._require_same()
                self._go_on()
            else:
                self._make()
        except BaseException:
            self.close()
            raise

    @property
    def warning(self) -> str:
        """What a resumption changes that nobody may have meant; empty if nothing."""
        was, now = self._before.samples, self.config.samples
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
        self, samples: int, spec: PolicySpec, tensors: Tensors, state: State,
        evaluation: Mapping[str, Any] | None, better: bool,
    ) -> None:  # fmt: skip
        """Write a checkpoint, move the links to it and drop what no link points to.

        Args:
            samples: Control steps so far; names the folder.
            spec: What rebuilds the policy.
            tensors: Its numbers.
            state: What the trainer needs to go on.
            evaluation: Figures of the evaluation, for the record.
            better: Whether it is the best so far.

        Raises:
            CheckpointError: If the disk refuses.
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
        files = {
            _ARRAYS: safetensors.numpy.save(arrays),
            _COUNTERS: json.dumps(state.counters).encode(),
        }
        checkpoint.save(self._checkpoints / name, spec, tensors, origin, extra=files)
        if better:
            _link(self.best, name)
        _link(self.last, name)
        kept = {p.readlink().name for p in self._checkpoints.iterdir() if p.is_symlink()}
        for path in self._checkpoints.iterdir():
            if path.is_dir() and not path.is_symlink() and path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def restore(self, spec: PolicySpec) -> State | None:
        """Return the state of the last checkpoint, or None if the run has none yet.

        Raises:
            CheckpointError: If the checkpoint is damaged.
            TrainingError: If it was made for another policy.
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
        """Remove a directory that was made for a run which then could not start."""
        if self._new:
            shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Let others write to the directory; the end of the process does it too."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _make_folder(self) -> None:
        folder = self.folder
        taken = folder.exists() and (
            not folder.is_dir() or any(path.name != LOCK for path in folder.iterdir())
        )
        if taken:
            raise TrainingError(f"{folder} exists: add --resume, or name another with --out")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"cannot write to {folder}: {error.strerror}") from error

    def _make(self) -> None:
        folder = self.folder
        if any(path.name != LOCK for path in folder.iterdir()):
            raise TrainingError(f"{folder} exists: add --resume, or name another with --out")
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        origin = {**provenance(), "command": self._command, "started": started}
        if self.config.start_from:
            origin["start_from"] = checkpoint.load(find_checkpoint(self.config.start_from)).id
        try:
            self._checkpoints.mkdir(parents=True)
            write_whole(folder / PROVENANCE, json.dumps(origin, indent=1) + "\n")
            write_whole(folder / CONFIG, self._config_text())
        except OSError as error:
            raise TrainingError(f"cannot write to {folder}: {error.strerror}") from error

    def _go_on(self) -> None:
        """Note who goes on with the run, and for how long."""
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        entry = {
            **provenance(), "command": self._command, "started": started,
            "samples": self.config.samples,
        }  # fmt: skip
        path = self.folder / PROVENANCE
        try:
            origin = json.loads(path.read_text(encoding="utf-8"))
            origin.setdefault("resumed", []).append(entry)
            write_whole(path, json.dumps(origin, indent=1) + "\n")
            write_whole(self.folder / CONFIG, self._config_text())
        except (ValueError, AttributeError) as error:
            raise TrainingError(f"cannot resume {self.folder}: {PROVENANCE}: {error}") from error
        except OSError as error:
            raise TrainingError(f"cannot write to {self.folder}: {error.strerror}") from error

    def _config_text(self) -> str:
        text: str = yaml.safe_dump(to_mapping(self.config), sort_keys=False)
        return text

    def _require_same(self) -> RunConfig:
        """Return the configuration so far, if the run may go on with that of now."""
        try:
            saved = read_config(self.folder)
        except NdpError as error:
            raise TrainingError(f"cannot resume {self.folder}: {error}") from error
        changed = [n for n in differences(saved, self.config) if n not in _MAY_CHANGE]
        if changed:
            other = [f"{n} ({value_at(saved, n)}, now {value_at(self.config, n)})" for n in changed]
            raise TrainingError(
                f"{self.folder} was started with another {', '.join(other)}: go on as it was with "
                f"'{resume_command(self.folder, saved)}', or start a new run with --out"
            )
        return saved


def hold(folder: Path) -> int:
    """Become the one who writes to a run's directory, for as long as the descriptor is open.

    Returns:
        The descriptor of its lock.

    Raises:
        TrainingError: If the directory cannot be written to, or another process holds it.
    """
    path = folder / LOCK
    if not folder.is_dir():
        raise TrainingError(f"cannot resume {folder}: there is no such run")
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise TrainingError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise TrainingError(
            f"{folder} is being written by process {holder}: wait for its end, or name another "
            "directory with --out"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def acting_choice(config: RunConfig, checkpoint: str | Path) -> TaskChoice:
    """Return the task as the policy of one of a run's checkpoints acts in it.

    Args:
        config: The run's configuration.
        checkpoint: Folder of the checkpoint, which has the embedding that Dyn-E acts through.
    """
    file = str(Path(checkpoint) / _ARRAYS) if config.method == "dyn-e" else ""
    return dataclasses.replace(config.choice, embedding=file)


def resume_command(folder: Path, config: RunConfig) -> str:
    """Return the command that goes on with a run, whatever it was started with."""
    return shlex.join([
        "ndp", "train", config.task, "--method", config.method,
        "--config", str(folder / CONFIG), "--out", str(folder), "--resume",
    ])  # fmt: skip


def interrupted(folder: Path, config: RunConfig) -> str:
    """Return what to say of a run that was interrupted: how to go on, if there is something."""
    if not (folder / CHECKPOINTS / LAST).exists():
        return f"interrupted before the first checkpoint of {folder}"
    return f"interrupted; go on with: {resume_command(folder, config)}"


def read_config(folder: Path) -> RunConfig:
    """Return the configuration of a run.

    Raises:
        ConfigError: If the directory holds none, or one that does not fit.
    """
    return from_mapping(RunConfig, read_yaml(folder / CONFIG), source=str(folder / CONFIG))


def _link(path: Path, target: str) -> None:
    """Point a relative link elsewhere in one step."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target)
    scratch.replace(path)
