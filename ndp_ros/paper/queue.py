# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Run the jobs of a study from a queue that lives in the file system.

A run is done when its folder, ``<root>/<study>/<scale>/<row>-<seed>``, holds ``result.json``, under
way while a process holds the folder's lock, and failed when it holds ``failed.json``. Interrupted
queues therefore resume, any number of processes and machines share one, and failed runs are kept,
shown and tried again by the next command.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from ndp_ros.errors import NdpError, TrainingError
from ndp_ros.files import atomic_write
from ndp_ros.paper.workers import TIMED_OUT, own_name, run_by_submitit, run_in_processes
from ndp_ros.training.provenance import provenance

RESULT, FAILED, LOCK = "result.json", "failed.json", ".lock"
SCALES = ("smoke", "short", "full")
EXECUTORS = ("local", "submitit", "submitit-local")

Log = Callable[[str], None]
"""Called with one line of progress."""

_LOG_EVERY = 10.0
_POLL = 1.0
_ENDED = " ended during the run"


@dataclass(frozen=True)
class Job:
    """One run of a study."""

    row: str
    """Row of the table, or curve of the figure, that the run counts for."""
    seed: int
    config: Any
    """Frozen dataclass that decides every number of the result."""
    home: str
    """``<study>/<scale>`` that the run belongs to; two studies may share a run."""
    make: Callable[[Job, Path, str, Log], None] = field(compare=False, repr=False)
    """Makes the run in its folder, given the job, the root, the user's command and a log."""
    needs: tuple[Job, ...] = ()
    """Runs that must be done before."""

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"{self.row}-{self.seed}"

    def folder(self, root: Path) -> Path:
        """Return the run's folder."""
        return root / self.home / self.name

    def matches(self, pattern: str) -> bool:
        """Return whether a pattern fits the row or the name."""
        return fnmatchcase(self.row, pattern) or fnmatchcase(self.name, pattern)


@dataclass(frozen=True)
class Outcome:
    """State of a job, read from its folder."""

    job: Job
    folder: Path
    result: dict[str, Any] | None
    error: str | None
    """Why the run failed; ``None`` if it is done or was never started."""

    @property
    def status(self) -> str:
        """``done``, ``failed`` or ``missing``."""
        return "done" if self.result else "failed" if self.error else "missing"


def select(jobs: Sequence[Job], only: Sequence[str] = (), without: Sequence[str] = ()) -> list[Job]:
    """Return jobs in the order of work, each after those that it needs.

    Patterns in ``only`` are of rows, or of rows with a seed; without any, all jobs count. Runs
    named in ``without`` are left out unless another one needs them.

    Raises:
        TrainingError: If a pattern fits no job.
    """
    for pattern in only:
        if not any(job.matches(pattern) for job in jobs):
            raise TrainingError.choice("row", pattern, dict.fromkeys(job.row for job in jobs))
    ordered: dict[tuple[str, str], Job] = {}
    for job in jobs:
        if job.name not in without and (not only or any(map(job.matches, only))):
            for one in (*job.needs, job):
                ordered.setdefault((one.home, one.name), one)
    return list(ordered.values())


def outcomes(jobs: Sequence[Job], root: Path) -> list[Outcome]:
    """Return the state of each job.

    Raises:
        TrainingError: If a record cannot be read.
    """
    found = []
    for job in jobs:
        folder = job.folder(root)
        result, failed = _read(folder / RESULT), _read(folder / FAILED)
        found.append(Outcome(job, folder, result, failed["error"] if failed else None))
    return found


def finish(folder: Path, result: dict[str, Any]) -> None:
    """Write a run's result, which marks it as complete."""
    atomic_write(folder / RESULT, json.dumps(result) + "\n")


def print_line(text: str) -> None:
    """Print one line on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@dataclass(frozen=True)
class Queue:
    """Jobs and the folder of their runs; picklable, so that worker processes can have it."""

    name: str
    """Name of the study, for the cluster."""
    jobs: tuple[Job, ...]
    """In the order of work, each after those that it needs: see :func:`select`."""
    root: Path
    command: str = ""
    """Command of the user, for the records."""

    def run(
        self, workers: int, executor: str = "local", options: Mapping[str, Any] | None = None
    ) -> None:
        """Make every run that is neither done nor under way elsewhere, and wait for all of them.

        Workers have one core each; a single local one is this process. Options are parameters of
        submitit's executor, such as ``slurm_partition``. A run whose worker ended before it is
        recorded as failed, with the worker's name.

        Raises:
            TrainingError: If the executor is unknown or not installed, or a worker ended early
                without having begun a run.
        """
        if executor not in EXECUTORS:
            raise TrainingError.choice("executor", executor, EXECUTORS)
        for job in self.jobs:
            _release(job.folder(self.root))
        left = [o for o in outcomes(self.jobs, self.root) if o.status != "done"]
        workers = min(workers, len(left))
        if executor != "local" and workers:
            cluster = "local" if executor == "submitit-local" else "slurm"
            parameters = {"name": f"ndp-{self.name}", **(options or {})}
            logs = self.root / "submitit"
            lost = run_by_submitit(self.work, workers, cluster, logs, parameters)
        elif workers > 1:
            lost = run_in_processes(self.work, workers)
        else:
            lost = {}
            if left:
                self.work()
        named = False
        for o in outcomes(self.jobs, self.root):
            holder = _abandoned_by(o.folder) or (o.error or "").removesuffix(_ENDED)
            if holder in lost:
                _fail(o.folder, f"{holder}{_ENDED} ({lost[holder]})")
                named = True
        if lost and not named:
            ends = ", ".join(f"{worker} ({how})" for worker, how in lost.items())
            raise TrainingError(f"workers ended early, their runs stay in the queue: {ends}")

    def work(self) -> None:
        """Make the runs that no other process makes, until none is left."""
        tried: set[Path] = set()
        provenance()  # read the commit now: a long queue may outlive it
        waiting = True
        while waiting:
            waiting = False
            before = len(tried)
            for number, job in enumerate(self.jobs, start=1):
                folder = job.folder(self.root)
                if folder in tried or (folder / RESULT).exists():
                    continue
                missing = [n for n in job.needs if not (n.folder(self.root) / RESULT).exists()]
                if any(not _given_up(n.folder(self.root)) for n in missing):
                    waiting = True
                    continue
                title = f"[{number}/{len(self.jobs)}] {job.name}: "
                if self._try(job, [n.name for n in missing], title):
                    tried.add(folder)
            if waiting and len(tried) == before:
                time.sleep(_POLL)

    def _try(self, job: Job, missing: Sequence[str], title: str) -> bool:
        """Make a run unless another process does; return False if one does."""
        folder = job.folder(self.root)
        folder.mkdir(parents=True, exist_ok=True)
        holder = _abandoned_by(folder)
        with _claim(folder) as mine:
            if not mine:
                return False
            if (folder / RESULT).exists():
                return True
            (folder / FAILED).unlink(missing_ok=True)
            try:
                if holder:  # a run that killed its worker would kill all of them
                    raise TrainingError(f"{holder}{_ENDED}")
                if missing:
                    raise TrainingError(f"needs {', '.join(missing)}, which failed")
                job.make(job, self.root, self.command, _throttled(title))
            except Exception as error:
                if type(error).__name__ == TIMED_OUT:
                    raise
                kind = "" if isinstance(error, NdpError) else f"{type(error).__name__}: "
                text = kind + " ".join(str(error).split())
                print_line(f"{job.name} failed: {text}")
                _fail(folder, text)
        return True


@contextlib.contextmanager
def _claim(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder and yield True, or yield False if another process holds it.

    The lock ends with its holder. The holder's name stays in the file if it is killed, interrupted
    or timed out.
    """
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        file.truncate(0)
        file.write(own_name())
        file.flush()
        yield True
        file.truncate(0)


def _abandoned_by(folder: Path) -> str:
    """Return the name of the worker that was killed during a run, empty if none was."""
    if not (folder / LOCK).exists():
        return ""
    with (folder / LOCK).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return ""
        return file.read()


def _release(folder: Path) -> None:
    """Forget the worker that was killed during a run, so that the run is made again."""
    if _abandoned_by(folder):
        with _claim(folder):
            pass


def _given_up(folder: Path) -> bool:
    """Return whether a run has failed and no process tries it again."""
    if not (folder / FAILED).exists():
        return False
    with _claim(folder) as mine:
        return mine and (folder / FAILED).exists()


def _fail(folder: Path, error: str) -> None:
    atomic_write(folder / FAILED, json.dumps({"error": error}) + "\n")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot read {path}: {error}; remove it to run again") from error


def _throttled(prefix: str) -> Log:
    """Return a log that prints a line if the last one is ten seconds old."""
    last = 0.0

    def log(text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LOG_EVERY:
            last = now
            print_line(prefix + text)

    return log
