# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Report a study: rows whose runs become JSON, CSV, pictures and a Markdown table.

A figure or table of the paper subclasses :class:`Study`, which names its rows, makes a run and
summarises the seeds of a row. A report is computed from the records of the runs; a run whose
folder is on another machine keeps the record that an earlier report of the same scale has of it,
unless it was made with another configuration than is asked for now.
"""

from __future__ import annotations

import csv
import io
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ndp_ros.config import from_mapping, to_mapping
from ndp_ros.errors import ConfigError, TrainingError
from ndp_ros.files import atomic_write
from ndp_ros.paper.claims import Claim, claims_table, judge, markdown_rows
from ndp_ros.paper.queue import SCALES, Job, Log, Outcome
from ndp_ros.tasks.contract import plain
from ndp_ros.training.provenance import provenance

Record = dict[str, Any]

_NUMBERS = re.compile(r"\[\n[-+.,\deE\s\[\]]*\]")  # strings have no line breaks


class Study(ABC):
    """A figure or table of the paper.

    Attributes:
        name: Name on the command line; the data are ``<name>.json``.
        texts: Cost and content of each scale, by name.
        claims: Statements of the paper, judged by the records.
        origin: File in a run's folder with its provenance; may be absent.
        columns: Headers of the Markdown table, after label and seeds.
        run_columns: Columns of ``runs.csv`` with their paths in a run's record.
        curve_columns: Columns of ``curves.csv`` after row and seed.
        learns_on_a_device: Whether the configuration of every run has a ``device``, which may be
            another one when the run goes on.
    """

    origin: ClassVar[str] = "run/provenance.json"
    columns: tuple[str, ...]
    run_columns: ClassVar[Mapping[str, str]]
    curve_columns: ClassVar[tuple[str, ...]]
    learns_on_a_device: ClassVar[bool] = False

    def __init__(self, name: str, texts: Mapping[str, str], claims: Sequence[Claim] = ()) -> None:
        if set(texts) != set(SCALES):
            raise TrainingError(f"{name} has scales {sorted(texts)}, expected {sorted(SCALES)}")
        self.name, self.texts, self.claims = name, dict(texts), tuple(claims)

    # The definition of a study.

    @abstractmethod
    def labels(self) -> Mapping[str, str]:
        """Return the label of each row, in the order of the table."""

    @abstractmethod
    def jobs(self, scale: str) -> list[Job]:
        """Return the runs of a scale in the order of work."""

    @abstractmethod
    def work(self, job: Job, root: Path, command: str, log: Log) -> None:
        """Make or resume one run in its own folder, and write its result."""

    @abstractmethod
    def aggregate(self, row: str, runs: Sequence[Record]) -> Record:
        """Return the figures of a row over its finished runs, of which there is at least one."""

    @abstractmethod
    def cells(self, row: Record) -> list[str]:
        """Return the cells of an aggregated row under ``columns``."""

    @abstractmethod
    def pictures(self, record: Record, out: Path) -> list[Path]:
        """Draw the record."""

    def curve(self, run: Record) -> list[Record]:
        """Return the rows of a finished run for ``curves.csv``."""
        rows: list[Record] = run["curve"]
        return rows

    def run_details(self, outcome: Outcome) -> Record:
        """Return further entries for the record of a finished run."""
        return {}

    def compared(self, scale: str, runs: list[Record]) -> list[Record]:
        """Return the records of all runs, completed by figures that take several of them."""
        return runs

    def details(self, scale: str, outcomes: Sequence[Outcome], before: Record) -> Record:
        """Return further entries for the record; ``before`` is the last report's."""
        return {}

    def pooled(self, claim: Claim) -> Collection[str]:
        """Return the rows whose seeds share one deviation with the claim's; none to separate."""
        return ()

    def wanted(self, scale: str, before: Record) -> list[Job]:
        """Return the runs to make now, given the last report; all of them, unless overridden."""
        return self.jobs(scale)

    def judged(self, record: Record) -> list[Record]:
        """Return the claims with their verdicts, given the rows of a record."""
        return [judge(c, record["rows"], self.pooled(c)) for c in self.claims]

    def claims_lines(self, record: Record) -> list[str]:
        """Return the lines of the table of a record's claims."""
        return claims_table(record["claims"])

    def seconds(self, run: Record) -> float:
        """Return the approximate core time of a finished run [s]."""
        return float(run["result"].get("seconds", 0.0))

    def notes(self, record: Record) -> list[str]:
        """Return the paragraphs below the table."""
        return []

    # The report.

    def report(
        self, scale: str, outcomes: Sequence[Outcome], out: Path, command: str
    ) -> list[Path]:
        """Write ``<name>.json``, ``runs.csv``, ``curves.csv``, ``<name>.md`` and the pictures.

        Raises:
            TrainingError: If there is a report of another scale.
        """
        self.require_same_scale(scale, out)
        out.mkdir(parents=True, exist_ok=True)
        before = _report(out, self.name, scale)
        known = self.recorded(scale, [outcome.job for outcome in outcomes], out)
        runs = [
            known[o.job.name] if o.status == "missing" and o.job.name in known else self._run(o)
            for o in outcomes
        ]
        runs = self.compared(scale, runs)
        asked = {outcome.job.row: _without_seed(outcome.job.config) for outcome in outcomes}
        record: Record = {
            "name": self.name,
            "scale": scale,
            "scale_text": self.texts[scale],
            "command": command,
            "report": provenance(),
            "rows": [
                self._row(row, label, [r for r in runs if r["row"] == row])
                | {"config": asked.get(row)}
                for row, label in self.labels().items()
            ],
            **self.details(scale, outcomes, before),
            "runs": runs,
        }
        record["claims"] = self.judged(record)
        record = plain(record)
        places = self.run_columns.values()
        each_run = [(r["row"], r["seed"], r["status"], *(_at(r, p) for p in places)) for r in runs]
        each_point = [
            (r["row"], r["seed"], *(point[c] for c in self.curve_columns))
            for r in runs
            if r["status"] == "done"
            for point in self.curve(r)
        ]
        texts = {
            f"{self.name}.json": json_text(record),
            "runs.csv": csv_text(("row", "seed", "status", *self.run_columns), each_run),
            "curves.csv": csv_text(("row", "seed", *self.curve_columns), each_point),
            f"{self.name}.md": self.table(record),
        }
        for name, text in texts.items():
            atomic_write(out / name, text)
        return [*(out / name for name in texts), *self.pictures(record, out)]

    def require_same_scale(self, scale: str, out: Path) -> None:
        """Check that a report would replace no finished runs of another scale.

        Raises:
            TrainingError: If it would.
        """
        before = read_record(out, self.name)
        runs = [run for run in before.get("runs", ()) if run["status"] == "done"]
        if runs and before.get("scale") != scale:
            raise TrainingError(
                f"{out} holds {len(runs)} runs of scale {before.get('scale')}: name another folder "
                f"for those of scale {scale} with --out"
            )

    def recorded(self, scale: str, jobs: Sequence[Job], out: Path) -> dict[str, Record]:
        """Return the records of jobs in earlier reports, by name.

        A run that another study makes is also looked up in the report of that study, beside ours.
        """
        known: dict[str, Record] = {}
        for home in sorted({job.home.partition("/")[0] for job in jobs} - {self.name}):
            known |= _kept(_report(out.parent / home, home, scale), jobs)
        return known | _kept(_report(out, self.name, scale), jobs)

    def table(self, record: Record) -> str:
        """Return the Markdown of a record: table, claims, notes and unfinished runs."""
        blank = [""] * len(self.columns)
        rows = [
            (r["label"], f"{r['done']} of {r['asked']}", *(self.cells(r) if r["done"] else blank))
            for r in record["rows"]
        ]
        lines = markdown_rows(("row", "seeds", *self.columns), rows)
        lines += ["", f"Scale {record['scale']}: {record['scale_text']}.", ""]
        for note in self.notes(record):
            lines += [note, ""]
        if record["claims"]:
            lines += [*self.claims_lines(record), ""]
        for run in record["runs"]:
            if run["status"] == "failed":
                lines += [f"Run {run['name']} failed: {run['error']}.", ""]
            if run.get("differs"):
                changed = ", ".join(run["differs"])
                lines += [f"Run {run['name']} was made with another {changed} than asked now.", ""]
        missing = sum(run["status"] == "missing" for run in record["runs"])
        if missing:
            lines += [f"{missing} runs have no result yet; `--list` names them.", ""]
        hours = sum(self.seconds(r) for r in record["runs"] if r["status"] == "done") / 3600.0
        lines += [f"Made by `{record['command']}`; {hours:.1f} hours of runs in all.", ""]
        return "\n".join(lines)

    def _run(self, outcome: Outcome) -> Record:
        made = outcome.folder / self.origin
        run = {
            "name": outcome.job.name,
            "row": outcome.job.row,
            "seed": outcome.job.seed,
            "home": outcome.job.home,
            "status": outcome.status,
            "error": outcome.error,
            "result": outcome.result,
            "origin": json.loads(made.read_text(encoding="utf-8")) if made.exists() else {},
        }
        return run | (self.run_details(outcome) if outcome.result else {})

    def _row(self, row: str, label: str, runs: Sequence[Record]) -> Record:
        done = [run for run in runs if run["status"] == "done"]
        seeds = [run["seed"] for run in done]
        counts = {"row": row, "label": label, "asked": len(runs), "done": len(done), "seeds": seeds}
        return counts | (self.aggregate(row, done) if done else {})


def _report(out: Path, name: str, scale: str) -> Record:
    """Return the record of an earlier report of a scale, empty without one."""
    before = read_record(out, name)
    return before if before.get("scale") == scale else {}


def _kept(before: Record, jobs: Sequence[Job]) -> dict[str, Record]:
    """Return the records of finished runs that are still asked for, by name."""
    configs = {row["row"]: row.get("config") for row in before.get("rows", ())}
    asked = {job.name: job for job in jobs}
    return {
        run["name"]: run
        for run in before.get("runs", ())
        if run["status"] == "done"
        and run["name"] in asked
        and _is_recorded(asked[run["name"]].config, configs.get(run["row"]))
    }


def _without_seed(config: Any) -> Record:
    """Return the configuration of a row for its record, without the seed."""
    return {name: value for name, value in to_mapping(config).items() if name != "seed"}


def _is_recorded(config: Any, recorded: Any) -> bool:
    """Return whether a configuration equals a recorded one, in which newer options are default."""
    seed = {"seed": config.seed} if hasattr(config, "seed") else {}
    try:
        then = from_mapping(type(config), {**_at_present(config, recorded), **seed})
    except (ConfigError, TypeError):
        return False
    return bool(then == config)


def _at_present(config: Any, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded configuration by the present names of its options.

    Older records have off-policy values in a section ``sac``. No method but Dyn-E used them, whose
    present ones are the same but for its target noise (docs/baselines.md), so they count as equal.
    """
    kept = {name: value for name, value in recorded.items() if name != "sac"}
    if "expert" in kept:
        kept["expert"] = _at_present(config.expert, kept["expert"])
    if "sac" in recorded:
        now = to_mapping(config)
        dyne = {name: value for name, value in recorded["dyne"].items() if name in now["dyne"]}
        kept |= {"dyne": dyne, "td3": now["td3"]}
    return kept


def read_record(out: Path, name: str) -> Record:
    """Return the record of an earlier report, empty without one.

    Raises:
        TrainingError: If it cannot be read.
    """
    path = out / f"{name}.json"
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot read {path}: {error}; remove it to report anew") from error
    return record


def json_text(record: Record) -> str:
    """Return a record as JSON, indented, with lists of numbers on one line each."""
    text = json.dumps(record, indent=1)
    return _NUMBERS.sub(lambda found: " ".join(found.group().split()), text) + "\n"


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _at(record: Record, path: str) -> Any:
    """Return the value of a record at ``a.b.c``, None if it ends before."""
    value: Any = record
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
