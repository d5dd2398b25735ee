"""A study: a table of rows, whose runs, once recorded, become CSV, JSON, pictures and Markdown.

A figure or table of the paper names its rows, does a run, and says what the seeds of a row
have in common; everything else is here. A report is made from the records of the runs alone.
Runs whose folders are not on this machine, but which an earlier report of the same scale
recorded, stay in it, so that parts of a study can be made in different places; not where the
configuration in the record is another one than is asked for now.
"""

from __future__ import annotations

import csv
import io
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ndp_ros.config import from_mapping, to_mapping
from ndp_ros.errors import ConfigError, TrainingError
from ndp_ros.training.claims import Claim, claims_table, judge
from ndp_ros.training.evaluation import plain
from ndp_ros.training.experiment import provenance
from ndp_ros.training.reproduce import SCALES, Job, Outcome
from ndp_ros.whole import write_whole

Record = dict[str, Any]

_NUMBERS = re.compile(r"\[\n[-+.,\deE\s\[\]]*\]")  # strings have no line breaks


class Study(ABC):
    """A figure or table of the paper.

    Attributes:
        name: Its name on the command line; its data are ``<name>.json``.
        texts: What each scale costs and shows, by name.
        claims: What the paper says of it, to be judged by the records.
        origin: File of a run's folder that says how it was made; may be absent.
        columns: Headers of the Markdown table, after label and seeds.
        run_columns: Columns of ``runs.csv`` with where they are in a run's record.
        curve_columns: Columns of ``curves.csv`` after row and seed.
    """

    origin: ClassVar[str] = "run/provenance.json"
    columns: tuple[str, ...]
    run_columns: ClassVar[Mapping[str, str]]
    curve_columns: ClassVar[tuple[str, ...]]

    def __init__(self, name: str, texts: Mapping[str, str], claims: Sequence[Claim] = ()) -> None:
        if set(texts) != set(SCALES):
            raise TrainingError(f"{name} has scales {sorted(texts)}, expected {sorted(SCALES)}")
        self.name, self.texts, self.claims = name, dict(texts), tuple(claims)

    # What a study says.

    @abstractmethod
    def labels(self) -> Mapping[str, str]:
        """Return what tables call each row, in the order of the table."""

    @abstractmethod
    def jobs(self, scale: str) -> list[Job]:
        """Return the runs of a scale, in the order in which they should be done."""

    @abstractmethod
    def work(self, job: Job, root: Path, command: str, say: Callable[[str], None]) -> None:
        """Do one run, or go on with it, in its own folder; a result says that it is complete."""

    @abstractmethod
    def aggregate(self, row: str, runs: Sequence[Record]) -> Record:
        """Return what the finished runs of a row, at least one, have in common."""

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

    def more_of(self, outcome: Outcome) -> Record:
        """Return what else the record of a finished run should hold."""
        return {}

    def compared(self, scale: str, runs: list[Record]) -> list[Record]:
        """Return the records of all runs with what only their comparison gives."""
        return runs

    def more(self, scale: str, outcomes: Sequence[Outcome], before: Record) -> Record:
        """Return what else the record should hold; ``before`` is the last report's."""
        return {}

    def alike(self, claim: Claim) -> Collection[str]:
        """Return the rows whose seeds are taken to deviate as a claim's; each alone if none."""
        return ()

    def seconds(self, run: Record) -> float:
        """Return the time of one core, about, that a finished run took [s]."""
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
        self.require_room(scale, out)
        out.mkdir(parents=True, exist_ok=True)
        before = _report(out, self.name, scale)
        known = self.recorded(scale, [outcome.job for outcome in outcomes], out)
        runs = [
            known[o.job.name] if o.status == "missing" and o.job.name in known else self._run(o)
            for o in outcomes
        ]
        runs = self.compared(scale, runs)
        asked = {outcome.job.row: _recorded(outcome.job.config) for outcome in outcomes}
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
            **self.more(scale, outcomes, before),
            "runs": runs,
        }
        record["claims"] = [judge(c, record["rows"], self.alike(c)) for c in self.claims]
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
            write_whole(out / name, text)
        return [*(out / name for name in texts), *self.pictures(record, out)]

    def require_room(self, scale: str, out: Path) -> None:
        """Check that a report may be written where it is to be.

        Raises:
            TrainingError: If that would replace finished runs of another scale.
        """
        before = read_record(out, self.name)
        runs = [run for run in before.get("runs", ()) if run["status"] == "done"]
        if runs and before.get("scale") != scale:
            raise TrainingError(
                f"{out} holds {len(runs)} runs of scale {before.get('scale')}: name another folder "
                f"for those of scale {scale} with --out"
            )

    def recorded(self, scale: str, jobs: Sequence[Job], out: Path) -> dict[str, Record]:
        """Return the records of runs in earlier reports that are still asked for, by name.

        A run that another experiment makes is looked for in that one's report, beside ours.
        """
        known: dict[str, Record] = {}
        for home in sorted({job.home.partition("/")[0] for job in jobs} - {self.name}):
            known |= _kept(_report(out.parent / home, home, scale), jobs)
        return known | _kept(_report(out, self.name, scale), jobs)

    def table(self, record: Record) -> str:
        """Return the Markdown of a record: table, claims, notes and what is not done."""
        lines = markdown_rows(("row", "seeds", *self.columns), ())
        for row in record["rows"]:
            cells = self.cells(row) if row["done"] else [""] * len(self.columns)
            lines.append(_line([row["label"], f"{row['done']} of {row['asked']}", *cells]))
        lines += ["", f"Scale {record['scale']}: {record['scale_text']}.", ""]
        for note in self.notes(record):
            lines += [note, ""]
        if record["claims"]:
            lines += [*claims_table(record["claims"]), ""]
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
        return run | (self.more_of(outcome) if outcome.result else {})

    def _row(self, row: str, label: str, runs: Sequence[Record]) -> Record:
        done = [run for run in runs if run["status"] == "done"]
        whole = {
            "row": row, "label": label, "asked": len(runs), "done": len(done),
            "seeds": [run["seed"] for run in done],
        }  # fmt: skip
        return whole | (self.aggregate(row, done) if done else {})


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
        and _still_asked(asked[run["name"]].config, configs.get(run["row"]))
    }


def _recorded(config: Any) -> Record:
    """Return what the record of a row says that its runs are: all but the seed."""
    return {name: value for name, value in to_mapping(config).items() if name != "seed"}


def _still_asked(config: Any, recorded: Any) -> bool:
    """Return whether a recorded configuration is the one that is asked for now.

    An option that there was not yet counts as one at its default.
    """
    seed = {"seed": config.seed} if hasattr(config, "seed") else {}
    try:
        then = from_mapping(type(config), {**recorded, **seed})
    except (ConfigError, TypeError):
        return False
    return bool(then == config)


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


def markdown_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [_line(columns), _line(["---"] * len(columns)), *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _at(record: Record, path: str) -> Any:
    """Return what a record holds at ``a.b.c``, None if it ends before."""
    value: Any = record
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
