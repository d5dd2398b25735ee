"""Tables and figures of the paper: the registry, and the queue of their runs.

Runs form a queue that lives in the file system, in ``<root>/<experiment>/<scale>/<row>-<seed>``:
a run is done when its folder has ``result.json``, under way while a process holds the lock of
its folder, and failed when it has ``failed.json``. So a queue survives interruption, any
number of processes and machines share it, and a run that failed is kept, shown, and tried
again by the next call. A run may belong to several experiments: it is made once.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ndp_ros.errors import NdpError, TrainingError
from ndp_ros.training.experiment import provenance
from ndp_ros.whole import write_whole

if TYPE_CHECKING:
    from ndp_ros.training.study import Study

RESULT, FAILED, LOCK = "result.json", "failed.json", ".lock"
SCALES = ("smoke", "short", "full")

EXPERIMENTS = {
    "experts": ("ndp_ros.training.table1:EXPERTS", "Meta-World's experts of Table 1"),
    "table1": ("ndp_ros.training.table1:TABLE1", "behaviour cloning: NN and NDP on five tasks"),
    "table2": ("ndp_ros.training.table2:TABLE2", "digits: NDP, CNN and CNN-DMP (and Fig. 4)"),
    "mt50": ("ndp_ros.training.mt50:MT50", "Meta-World's fifty tasks by one policy"),
    "fig5": ("ndp_ros.training.figures:FIG5", "learning curves: NDP, PPO, PPO-multi"),
    "fig6": ("ndp_ros.training.figures:FIG6", "push: kernels, N, integration steps, k"),
    "fig7": ("ndp_ros.training.figures:FIG7", "push: learned alpha, only g, solver, weights"),
    "fig8": ("ndp_ros.training.figures:FIG8", "throw: kernels, N, integration steps, k"),
    "fig9": ("ndp_ros.training.figures:FIG9", "throw: as Fig. 7, and latency"),
    "noise": ("ndp_ros.training.noise:NOISE", "exploration with correlated noise"),
}
"""Where each experiment is (``module:name``) and its summary."""

_SAY_EVERY = 10.0
_LOOK_AGAIN = 1.0


@dataclass(frozen=True)
class Job:
    """One run of an experiment."""

    row: str
    """Row of the table, or curve of the figure, that the run counts for."""
    seed: int
    config: Any
    """Frozen dataclass that decides every number of the result."""
    home: str = ""
    """``<experiment>/<scale>`` that the run belongs to."""
    needs: tuple[Job, ...] = ()
    """Runs that must be done before."""

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"{self.row}-{self.seed}"

    def folder(self, root: Path) -> Path:
        """Return the run's folder."""
        return root / self.home / self.name


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


@dataclass(frozen=True)
class Queue:
    """Which runs are to be made, and where: plain data that a worker can be given."""

    name: str
    scale: str
    root: Path
    command: str = ""
    """What the user typed, for the records."""
    only: tuple[str, ...] = ()
    """Patterns of rows, or of rows with a seed; without any, all runs."""
    without: tuple[str, ...] = ()
    """Runs that are left out, unless another one needs them."""

    def jobs(self) -> list[Job]:
        """Return the jobs in the order of work: each after those that it needs.

        Raises:
            TrainingError: If a pattern fits no run.
        """
        found = [j for j in experiment(self.name).jobs(self.scale) if self._wanted(j)]
        for pattern in self.only:
            if not any(_fits(job, pattern) for job in found):
                rows = dict.fromkeys(j.row for j in experiment(self.name).jobs(self.scale))
                raise TrainingError.choice("row", pattern, rows)
        ordered: dict[tuple[str, str], Job] = {}
        for job in (j for j in found if j.name not in self.without):
            for one in (*job.needs, job):
                ordered.setdefault((one.home, one.name), one)
        return list(ordered.values())

    def _wanted(self, job: Job) -> bool:
        return not self.only or any(_fits(job, pattern) for pattern in self.only)

    def work(self) -> None:
        """Go through the queue and do what nobody else does, until nothing is left to do."""
        jobs, tried = self.jobs(), set[str]()
        provenance()  # which commit runs is asked before a long queue outlives it
        waiting = True
        while waiting:
            waiting = False
            before = len(tried)
            for number, job in enumerate(jobs, start=1):
                folder = job.folder(self.root)
                if str(folder) in tried or (folder / RESULT).exists():
                    continue
                missing = [n for n in job.needs if not (n.folder(self.root) / RESULT).exists()]
                if any(not _given_up(n.folder(self.root)) for n in missing):
                    waiting = True
                    continue
                title = f"[{number}/{len(jobs)}] {job.name}: "
                if self._try(job, [n.name for n in missing], title):
                    tried.add(str(folder))
            if waiting and len(tried) == before:
                time.sleep(_LOOK_AGAIN)

    def _try(self, job: Job, missing: Sequence[str], title: str) -> bool:
        """Do a run unless another process does; false if one does."""
        folder = job.folder(self.root)
        folder.mkdir(parents=True, exist_ok=True)
        with _claim(folder) as mine:
            if not mine:
                return False
            if (folder / RESULT).exists():
                return True
            (folder / FAILED).unlink(missing_ok=True)
            try:
                if missing:
                    raise TrainingError(f"needs {', '.join(missing)}, which failed")
                home = experiment(job.home.partition("/")[0])
                home.work(job, self.root, self.command, _Throttled(title))
            except Exception as error:
                kind = "" if isinstance(error, NdpError) else f"{type(error).__name__}: "
                text = kind + " ".join(str(error).split())
                say(f"{job.name} failed: {text}")
                write_whole(folder / FAILED, json.dumps({"error": text}) + "\n")
        return True


def experiment(name: str) -> Study:
    """Return an experiment by its name.

    Raises:
        TrainingError: If there is none of that name.
    """
    if name not in EXPERIMENTS:
        raise TrainingError.choice("experiment", name, [*EXPERIMENTS, "all"])
    module, _, attribute = EXPERIMENTS[name][0].partition(":")
    return cast("Study", getattr(importlib.import_module(module), attribute))


def outcomes(jobs: Sequence[Job], root: Path) -> list[Outcome]:
    """Return what became of each job, from its folder.

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
    """Write a run's result, which says that it is complete."""
    write_whole(folder / RESULT, json.dumps(result) + "\n")


def _fits(job: Job, pattern: str) -> bool:
    return fnmatchcase(job.row, pattern) or fnmatchcase(job.name, pattern)


def _given_up(folder: Path) -> bool:
    """Return whether a run has failed and nobody is trying it again."""
    if not (folder / FAILED).exists():
        return False
    with _claim(folder) as mine:
        return mine and (folder / FAILED).exists()


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


Say = Callable[[str], None]


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
