# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp reproduce``: make a figure or table of the paper, from its runs to its report."""

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
from ndp_ros.paper import STUDIES, load_study
from ndp_ros.paper.queue import EXECUTORS, SCALES, Outcome, Queue, outcomes, print_line, select
from ndp_ros.paper.study import read_record
from ndp_ros.policies.devices import DEVICES, torch_device
from ndp_ros.training.provenance import as_typed

RESULTS = Path("results")

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


_HELP = {
    "--scale": "default: smoke",
    "--only": "only these rows (throw-ndp), runs (throw-ndp-0) or patterns ('throw-*'), and the "
    "runs that they need",
    "--unrecorded": "leave out what the report in --out holds already, wherever it was made",
    "--list": "start nothing, list the runs and how they stand",
    "--runs": "folder of all runs, in EXPERIMENT/SCALE/ROW-SEED (default: runs)",
    "--out": "tables, data and pictures, in EXPERIMENT (default: results; smoke: in the runs)",
    "--processes": "runs at a time (default: one per core)",
    "--device": "where torch learns the digits of table2 (default: cpu; auto: cuda, if any)",
    "--executor": "workers: processes here (default), Slurm through submitit, or submitit here",
    "--executor-options": "parameters of submitit's executor",
    "--report-only": "start no run, report what is there",
    "--json": "end with one JSON object on standard output",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    rows = "\n".join(f"  {name:<8}  {text}" for name, (_, text) in STUDIES.items())
    parser.epilog = _EPILOG.format(rows=rows)
    one_of = f"one of {', '.join(STUDIES)}, or all"
    parser.add_argument("experiment", choices=[*STUDIES, "all"], metavar="EXPERIMENT", help=one_of)

    def add(name: str, **how: Any) -> None:
        parser.add_argument(name, help=_HELP[name], **how)

    add("--scale", choices=SCALES, default="smoke")
    add("--only", nargs="+", default=(), metavar="ROW")
    add("--unrecorded", action="store_true")
    add("--list", action="store_true")
    add("--runs", type=Path, default=Path("runs"), metavar="DIR")
    add("--out", type=Path, metavar="DIR")
    add("--processes", type=int, default=0, metavar="N")
    add("--device", choices=DEVICES)
    add("--executor", choices=EXECUTORS, default="local")
    add("--executor-options", nargs="+", default=(), metavar="NAME=VALUE")
    add("--report-only", action="store_true")
    add("--json", action="store_true")


def main(args: argparse.Namespace) -> int:
    """Run the queue, write the report, print the table; return 1 if a run is not done."""
    if args.processes < 0:
        raise TrainingError(f"--processes is {args.processes}, expected at least 0")
    names = list(STUDIES) if args.experiment == "all" else [args.experiment]
    if len(names) > 1 and args.only:
        raise TrainingError("--only is for one experiment, not for all")
    if args.device:
        _check_device(args.device, names)
    summary = {name: _reproduce(name, args) for name in names}
    if args.json:
        sys.stdout.write(json.dumps({"scale": args.scale, "experiments": summary}) + "\n")
    if args.list:
        return 0
    bad = sum(s["failed"] + s["missing"] for s in summary.values())
    return 1 if bad else 0


def _check_device(device: str, names: Sequence[str]) -> None:
    """Check that an experiment learns on a device, and that this torch has it.

    Raises:
        TrainingError: If none does.
        ConfigError: If torch does not have the device.
    """
    if not any(load_study(name).learns_on_a_device for name in names):
        able = [name for name in STUDIES if load_study(name).learns_on_a_device]
        raise TrainingError(
            f"--device is {device}, but {names[0]} leaves no choice of it: leave it out; the "
            f"choice is for {', '.join(able)}"
        )
    torch_device(device)


def _reproduce(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Make the runs of one study that are asked for, report all of it and return the counts."""
    study, scale, root = load_study(name), args.scale, args.runs
    out = (args.out or (root / "reports" if scale == "smoke" else RESULTS)) / name
    everything = study.wanted(scale, read_record(out, name))
    # With the runs that other studies make for this one.
    known = tuple(study.recorded(scale, select(everything), out))
    jobs = select(everything, args.only, known if args.unrecorded else ())
    if args.list:
        found = outcomes(jobs, root)
        for o in found:
            sys.stdout.write(f"{_status(o, known):<8} {o.folder}\n")
        return _counts(found, known)
    study.require_same_scale(scale, out)
    print_line(f"{name}, {scale}: {study.texts[scale]}")
    if args.device and study.learns_on_a_device:
        jobs = [replace(job, config=replace(job.config, device=args.device)) for job in jobs]
    queue = Queue(name, tuple(jobs), root, as_typed(sys.argv[1:]))
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not args.report_only:
            workers = args.processes or len(os.sched_getaffinity(0))
            queue.run(workers, args.executor, _options(args.executor_options))
        files = study.report(scale, outcomes(everything, root), out, queue.command)
        found = outcomes(jobs, root)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on from here") from None
    except OSError as error:
        # On a full disk an open file raises the error, which then has no file name.
        where = error.filename or f"{root} or {out}"
        raise TrainingError(f"cannot write to {where}: {error.strerror}") from error
    for o in found:
        if o.error:
            print_line(f"{o.job.name} failed: {o.error}")
    if not args.json:
        for table in (f for f in files if f.suffix == ".md"):
            sys.stdout.write(table.read_text(encoding="utf-8"))
    counts = _counts(found, known)
    made = f"{counts['done']} of {len(found)} runs done here, {counts['recorded']} recorded before"
    print_line(f"{made}; wrote {', '.join(map(str, files))}")
    return {**counts, "files": [str(f) for f in files]}


def _status(outcome: Outcome, known: Sequence[str]) -> str:
    """Return the state of a run; ``recorded`` if only an earlier report has it."""
    elsewhere = outcome.status == "missing" and outcome.job.name in known
    return "recorded" if elsewhere else outcome.status


def _counts(found: Sequence[Outcome], known: Sequence[str]) -> dict[str, Any]:
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
