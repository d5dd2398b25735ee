"""``ndp reproduce``: a figure or table of the paper, from nothing to a table."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ndp_ros.errors import TrainingError
from ndp_ros.training.executors import EXECUTORS, run_queue
from ndp_ros.training.experiment import as_typed
from ndp_ros.training.reproduce import (
    EXPERIMENTS,
    SCALES,
    Outcome,
    Queue,
    experiment,
    outcomes,
    say,
)
from ndp_ros.training.results_page import PAGE, RESULTS, update

_EPILOG = """\
experiments:
{rows}

scales: smoke ends within minutes and checks the machinery; short is what this project
commits; full is the paper's budget. An interrupted command goes on where it stopped, and
any number of them, on any machines that see the same runs, share the work.

examples:
  ndp reproduce table2 --scale smoke
  ndp reproduce fig5 --scale short --only 'throw-*' 'pick-ndp-0'
  ndp reproduce fig6 --scale short --executor submitit --processes 40 \\
      --executor-options slurm_partition=cpu timeout_min=600
  ndp reproduce fig6 --scale short --unrecorded
  ndp reproduce all --scale short --report-only
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    rows = "\n".join(f"  {name:<8}  {text}" for name, (_, text) in EXPERIMENTS.items())
    parser.epilog = _EPILOG.format(rows=rows)
    parser.add_argument(
        "experiment", choices=[*EXPERIMENTS, "all"], metavar="EXPERIMENT",
        help=f"one of {', '.join(EXPERIMENTS)}, or all",
    )  # fmt: skip
    parser.add_argument("--scale", choices=SCALES, default="smoke", help="default: smoke")
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="ROW",
        help="only these rows (throw-ndp), runs (throw-ndp-0) or patterns ('throw-*'), "
        "and what they need",
    )  # fmt: skip
    parser.add_argument(
        "--unrecorded", action="store_true",
        help="leave out what the report in --out holds already, wherever it was made",
    )  # fmt: skip
    parser.add_argument(
        "--list", action="store_true", help="start nothing, list the runs and how they stand"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR",
        help="folder of all runs, in EXPERIMENT/SCALE/ROW-SEED (default: runs)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="DIR",
        help="tables, data and pictures, in EXPERIMENT (default: results; smoke: in the runs)",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=int, default=0, metavar="N",
        help="runs at a time (default: one per core)",
    )  # fmt: skip
    parser.add_argument(
        "--executor", choices=EXECUTORS, default="local",
        help="who works: processes here (default), Slurm through submitit, or submitit here",
    )  # fmt: skip
    parser.add_argument(
        "--executor-options", nargs="+", default=(), metavar="NAME=VALUE",
        help="parameters of submitit's executor",
    )  # fmt: skip
    parser.add_argument(
        "--report-only", action="store_true", help="start no run, report what is there"
    )
    parser.add_argument(
        "--json", action="store_true", help="end with one JSON object on standard output"
    )


def main(args: argparse.Namespace) -> int:
    """Run the queue, write the report, print the table; 1 if a run is not done."""
    if args.processes < 0:
        raise TrainingError(f"--processes is {args.processes}, expected at least 0")
    names = list(EXPERIMENTS) if args.experiment == "all" else [args.experiment]
    if len(names) > 1 and args.only:
        raise TrainingError("--only is for one experiment, not for all")
    command = as_typed(sys.argv[1:])
    summary = {
        name: _reproduce(Queue(name, args.scale, args.runs, command, tuple(args.only)), args)
        for name in names
    }
    if not args.list and args.out is None and args.scale != "smoke":
        placed = update(names)
        if placed:
            say(f"{PAGE}: {', '.join(placed)}")
    if args.json:
        sys.stdout.write(json.dumps({"scale": args.scale, "experiments": summary}) + "\n")
    if args.list:
        return 0
    bad = sum(s["failed"] + s["missing"] for s in summary.values())
    return 1 if bad else 0


def _reproduce(queue: Queue, args: argparse.Namespace) -> Any:
    """Do one experiment and return its counts."""
    study = experiment(queue.name)
    out = (args.out or (queue.root / "reports" if queue.scale == "smoke" else RESULTS)) / queue.name
    whole = replace(queue, only=()).jobs()  # with what other studies make for this one
    known = tuple(study.recorded(queue.scale, whole, out))
    if args.unrecorded:
        queue = replace(queue, without=known)
    jobs = queue.jobs()
    if args.list:
        found = outcomes(jobs, queue.root)
        for o in found:
            sys.stdout.write(f"{_status(o, known):<8} {o.folder}\n")
        return _counts(found, known)
    study.require_room(queue.scale, out)
    say(f"{queue.name}, {queue.scale}: {study.texts[queue.scale]}")
    try:
        queue.root.mkdir(parents=True, exist_ok=True)
        if not args.report_only:
            workers = args.processes or len(os.sched_getaffinity(0))
            run_queue(queue, workers, args.executor, _options(args.executor_options))
        everything = outcomes(study.jobs(queue.scale), queue.root)
        files = study.report(queue.scale, everything, out, queue.command)
        found = outcomes(jobs, queue.root)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on from here") from None
    except OSError as error:
        # A full disk says so to an open file, whose name the error does not know.
        where = error.filename or f"{queue.root} or {out}"
        raise TrainingError(f"cannot write to {where}: {error.strerror}") from error
    for o in found:
        if o.error:
            say(f"{o.job.name} failed: {o.error}")
    if not args.json:
        for table in (f for f in files if f.suffix == ".md"):
            sys.stdout.write(table.read_text(encoding="utf-8"))
    counts = _counts(found, known)
    made = f"{counts['done']} of {len(found)} runs done here, {counts['recorded']} recorded before"
    say(f"{made}; wrote {', '.join(map(str, files))}")
    return {**counts, "files": [str(f) for f in files]}


def _status(outcome: Outcome, known: Sequence[str]) -> str:
    """Return how a run stands; ``recorded`` if only an earlier report knows it."""
    elsewhere = outcome.status == "missing" and outcome.job.name in known
    return "recorded" if elsewhere else outcome.status


def _counts(found: Sequence[Outcome], known: Sequence[str]) -> dict[str, int]:
    how = [_status(o, known) for o in found]
    return {status: how.count(status) for status in ("done", "recorded", "failed", "missing")}


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    """Return ``name=value`` pairs, numbers as numbers."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name.isidentifier():
            raise TrainingError(f"--executor-options {pair}: expected NAME=VALUE")
        options[name] = int(value) if value.isdigit() else value
    return options
