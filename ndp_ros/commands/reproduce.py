"""``ndp reproduce``: a figure or table of the paper, from nothing to a table."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from ndp_ros.errors import TrainingError
from ndp_ros.training.reproduce import EXPERIMENTS, SCALES, experiment, outcomes, run_queue, say

_EPILOG = """\
experiments:
{rows}

scales: smoke ends within minutes and checks the machinery; short is what this project
commits; full is the paper's budget. An interrupted command goes on where it stopped.

examples:
  ndp reproduce table2 --scale smoke
  ndp reproduce table2 --scale short --processes 2
  ndp reproduce all --scale smoke
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
        "--runs", type=Path, metavar="DIR", help="runs (default: runs/EXPERIMENT/SCALE)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR",
        help="table, data and pictures (default: results/EXPERIMENT; smoke: within the runs)",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=int, default=0, metavar="N", help="default: one per core"
    )
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
    if len(names) > 1 and (args.runs or args.out):
        raise TrainingError("--runs and --out are for one experiment, not for all")
    processes = args.processes or len(os.sched_getaffinity(0))
    command = shlex.join(["ndp", *sys.argv[1:]])
    summary = {name: _reproduce(name, args, processes, command) for name in names}
    if args.json:
        sys.stdout.write(json.dumps({"scale": args.scale, "experiments": summary}) + "\n")
    bad = sum(s["failed"] + s["missing"] for s in summary.values())
    return 1 if bad else 0


def _reproduce(name: str, args: argparse.Namespace, processes: int, command: str) -> Any:
    """Do one experiment and return its counts."""
    runs = args.runs or Path("runs") / name / args.scale
    out = args.out or (runs / "report" if args.scale == "smoke" else Path("results") / name)
    module = experiment(name)
    say(f"{name}, {args.scale}: {module.SCALES[args.scale]}")
    try:
        runs.mkdir(parents=True, exist_ok=True)
        if not args.report_only:
            run_queue(name, args.scale, runs, processes, command)
        found = outcomes(module.jobs(args.scale), runs)
        files = module.report(args.scale, found, out, command)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on from here") from None
    except OSError as error:
        raise TrainingError(f"cannot write to {error.filename}: {error.strerror}") from error
    counts = {s: sum(o.status == s for o in found) for s in ("done", "failed", "missing")}
    for o in found:
        if o.error:
            say(f"{o.job.name} failed: {o.error}")
    if not args.json:
        for table in (f for f in files if f.suffix == ".md"):
            sys.stdout.write(table.read_text(encoding="utf-8"))
    say(f"{counts['done']} of {len(found)} runs done; wrote {', '.join(map(str, files))}")
    return {**counts, "files": [str(f) for f in files]}
