# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Log of a run: rows in CSV and TensorBoard files, and a progress line on standard error."""

from __future__ import annotations

import csv
import io
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ndp_ros.training.evaluation import EPISODE_FIGURES

Row = dict[str, Any]
"""Figures of one batch by column."""

Watch = Callable[[Row], None]
"""Called with every row of the log."""

CSV_NAME = "progress.csv"

TIME_COLUMNS = ("seconds", "samples_per_second")
"""Columns that depend on the machine; all others depend on the configuration only."""

_EPISODE = ("success", *EPISODE_FIGURES)

COLUMNS = (
    *("samples", "observed", "episodes"),
    *_EPISODE,
    *(f"eval_{name}" for name in _EPISODE),
    *("policy_loss", "value_loss", "entropy", "clipped", "kl", "epochs"),
    *("grad_norm", "learning_rate", "explained_variance", "std"),
    *("error", "holdout_error"),
    *TIME_COLUMNS,
)
"""Columns of the log; docs/training.md defines them."""


def evaluation_columns(evaluation: Row) -> Row:
    """Return the columns of an evaluation's summary, none for an empty one."""
    if not evaluation:
        return {}
    figures = {f"eval_{name}": evaluation.get(name) for name in EPISODE_FIGURES}
    return {"eval_success": evaluation["success_rate"], **figures}


def finite_figures(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the columns of a row that are finite numbers."""
    known = {name: float(row[name]) for name in row if name in COLUMNS and row[name] is not None}
    return {name: value for name, value in known.items() if math.isfinite(value)}


class RunLog:
    """The CSV file and the TensorBoard events of a run directory."""

    def __init__(self, folder: Path, after: int = 0) -> None:
        """Open the logs and drop the rows after the samples of the checkpoint to resume from."""
        kept = [row for row in read_progress(folder) if int(row["samples"]) <= after]
        path = folder / CSV_NAME
        scratch = path.with_suffix(".new")
        with scratch.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)
        scratch.replace(path)
        self._file = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, COLUMNS)
        self._events = _Events(folder / "tensorboard", after)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; missing columns stay empty.

        Raises:
            OSError: If the disk is full or read-only.
        """
        self._writer.writerow({name: _text(row.get(name)) for name in COLUMNS})
        self._file.flush()
        self._events.write(row)

    def close(self) -> None:
        """Flush and close both files."""
        self._file.close()
        self._events.close()


class _Events:
    """Scalars as TensorBoard events, without importing torch or TensorFlow."""

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(folder))
        if step:
            start = SessionLog(status=SessionLog.START)
            event = Event(wall_time=time.time(), step=step + 1, session_log=start)
            self._writer.add_event(event)

    def write(self, row: Mapping[str, Any]) -> None:
        each = finite_figures(row).items()
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in each]
        step, summary = int(row["samples"]), self._summary(value=values)
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self._writer.close()


def read_progress(folder: Path) -> list[dict[str, str]]:
    """Return the complete rows of a run's CSV file, none if the file is missing."""
    try:
        text = (folder / CSV_NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    complete = text[: text.rfind("\n") + 1]
    return [row for row in csv.DictReader(io.StringIO(complete)) if row.get("samples")]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)


class ProgressLine:
    """Progress on standard error: a bar on a terminal, otherwise a line every ten seconds."""

    def __init__(
        self, title: str, total: int, done: int = 0, quiet: bool = False, unit: str = "samples"
    ) -> None:
        """Show progress of ``total`` units, of which ``done`` were done before the start."""
        console = Console(stderr=True)
        self._total, self._first = total, done
        self._title, self._quiet, self._unit = title, quiet, unit
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._start = self._shown = time.monotonic()
        if console.is_terminal and not quiet:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(title, total=total, completed=done, figures="")

    def __enter__(self) -> ProgressLine:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int, figures: Sequence[tuple[str, str]]) -> None:
        """Show the progress and some figures as name and text."""
        text = "  ".join(f"{name} {value}" for name, value in figures)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, figures=text)
            return
        now = time.monotonic()
        if self._quiet or (now - self._shown < 10.0 and done < self._total):
            return
        self._shown = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        left = (self._total - done) / max(rate, 1e-9)
        sys.stderr.write(
            f"{self._title}: {done}/{self._total} {self._unit}  {text}  "
            f"{left:.0f} s left{os.linesep}"
        )
        sys.stderr.flush()
