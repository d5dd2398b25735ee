"""Figures and tables of the paper: experiments, and the queue of their runs.

An experiment is a module, named in ``EXPERIMENTS``, with

* ``SCALES``: what each scale costs and shows, by name;
* ``jobs(scale) -> list[Job]``: the runs, in the order in which they should be done;
* ``work(job, folder, command, say)``: do one run, or go on with it, in its own folder;
* ``report(scale, outcomes, out, command) -> list[Path]``: write the data, the pictures and
  the table, whose name ends in ``.md``, from whatever is there.

Runs form a queue that lives in the file system: a run is done when its folder has
``result.json``, under way while a process holds the lock of its folder, and failed when it
has ``failed.json``. So a queue survives interruption, any number of processes share it, and
a run that failed is kept, shown, and tried again by the next call.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import importlib
import io
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, cast

from ndp_ros.errors import NdpError, TrainingError

RESULT, FAILED, LOCK = "result.json", "failed.json", ".lock"
SCALES = ("smoke", "short", "full")

EXPERIMENTS = {
    "table2": ("ndp_ros.training.table2", "digit writing: NDP, CNN and CNN-DMP (Table 2, Fig. 4)"),
    "figure5": ("ndp_ros.training.figure5", "Throw and Pick: NDP, PPO and PPO-multi (Fig. 5 a, b)"),
}
"""Module and summary of every experiment, by name."""

_SAY_EVERY = 10.0
_INTERRUPTED = 130


@dataclass(frozen=True)
class Job:
    """One run of an experiment."""

    row: str
    """Row of the table, or curve of the figure, that the run counts for."""
    seed: int
    config: Any
    """Frozen dataclass that decides every number of the result."""

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"{self.row}-{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: Job
    folder: Path
    result: dict[str, Any] | None
    error: str | None
    """Why it failed; ``None`` if it is done or has not been started."""

    @property
    def status(self) -> str:
        """``done``, ``failed`` or ``missing``."""
        return "done" if self.result else "failed" if self.error else "missing"

    def record(self, origin: str) -> dict[str, Any]:
        """Return the run's figures and where they come from.

        Args:
            origin: File of the run's folder that says how it was made; may be absent.
        """
        made = self.folder / origin
        return {
            "name": self.job.name,
            "row": self.job.row,
            "seed": self.job.seed,
            "status": self.status,
            "error": self.error,
            "result": self.result,
            "origin": json.loads(made.read_text(encoding="utf-8")) if made.exists() else {},
        }


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


class Experiment(Protocol):
    """What a module of the registry offers."""

    SCALES: dict[str, str]

    def jobs(self, scale: str) -> list[Job]:
        """Return the runs of a scale."""

    def work(self, job: Job, folder: Path, command: str, say: Callable[[str], None]) -> None:
        """Do one run; ``result.json`` in the folder says that it is complete."""

    def report(
        self, scale: str, outcomes: Sequence[Outcome], out: Path, command: str
    ) -> list[Path]:
        """Write data, pictures and table."""


def experiment(name: str) -> Experiment:
    """Return an experiment by its name.

    Raises:
        TrainingError: If there is none of that name.
    """
    if name not in EXPERIMENTS:
        raise TrainingError.choice("experiment", name, [*EXPERIMENTS, "all"])
    return cast(Experiment, importlib.import_module(EXPERIMENTS[name][0]))


def outcomes(jobs: Sequence[Job], runs: Path) -> list[Outcome]:
    """Return what became of each job, from its folder.

    Raises:
        TrainingError: If a record cannot be read.
    """
    found = []
    for job in jobs:
        folder = runs / job.name
        result, failed = _read(folder / RESULT), _read(folder / FAILED)
        found.append(Outcome(job, folder, result, failed["error"] if failed else None))
    return found


def run_queue(name: str, scale: str, runs: Path, processes: int, command: str) -> None:
    """Work on every job that is neither done nor under way elsewhere.

    Args:
        name: The experiment.
        scale: Its scale.
        runs: Folder of the runs' folders.
        processes: Processes to use, one core each; 1 works in this process.
        command: What the user typed, for the records.
    """
    jobs = experiment(name).jobs(scale)
    left = [o for o in outcomes(jobs, runs) if o.status != "done"]
    processes = min(processes, len(left))
    if processes <= 1:
        if left:
            _work_through(name, scale, runs, command)
        return
    context = multiprocessing.get_context("spawn")
    arguments = (name, scale, runs, command)
    workers: list[BaseProcess] = [
        context.Process(target=_worker, args=arguments) for _ in range(processes)
    ]
    try:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            wait([worker.sentinel for worker in workers if worker.is_alive()])
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
            if worker.pid is not None:
                worker.join()


def _worker(name: str, scale: str, runs: Path, command: str) -> None:
    try:
        _work_through(name, scale, runs, command)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _work_through(name: str, scale: str, runs: Path, command: str) -> None:
    """Go through the queue once and do what nobody else does."""
    module = experiment(name)
    jobs = module.jobs(scale)
    for number, job in enumerate(jobs, start=1):
        folder = runs / job.name
        folder.mkdir(parents=True, exist_ok=True)
        with _claim(folder) as mine:
            if not mine or (folder / RESULT).exists():
                continue
            (folder / FAILED).unlink(missing_ok=True)
            progress = _Throttled(f"[{number}/{len(jobs)}] {job.name}: ")
            try:
                module.work(job, folder, command, progress)
            except Exception as error:
                kind = "" if isinstance(error, NdpError) else f"{type(error).__name__}: "
                text = kind + " ".join(str(error).split())
                say(f"{job.name} failed: {text}")
                (folder / FAILED).write_text(json.dumps({"error": text}) + "\n")


@contextlib.contextmanager
def _claim(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; false if another process does. It dies with its holder."""
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot read {path}: {error}; remove it to run again") from error


class _Throttled:
    """Says a line at once if the last one is long enough ago."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._last = 0.0

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last >= _SAY_EVERY:
            self._last = now
            say(self._prefix + text)


def say(text: str) -> None:
    """Say one line on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
