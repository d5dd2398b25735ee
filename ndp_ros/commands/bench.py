# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp bench``: run a benchmark, each in a module that is imported on use."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ndp_ros.commands.arguments import OneLineParser
from ndp_ros.errors import ConfigError

BENCHES = {
    "dmp": "ndp_ros.commands.bench_dmp",
    "latency": "ndp_ros.commands.bench_latency",
    "smooth": "ndp_ros.commands.bench_smooth",
    "stream": "ndp_ros.commands.bench_stream",
    "train": "ndp_ros.commands.bench_train",
    "wire": "ndp_ros.commands.bench_wire",
}
"""Module of each benchmark, with ``configure(parser)`` and ``main(args) -> int``."""

ALL, GUARD = "all", "guard"
Results = dict[str, Any]
_STREAM = ["stream", "--hardware", "mock"]
RUNS = {
    ALL: {
        "dmp": ["dmp", "--seconds", "0.3"],
        "latency": ["latency", "--episodes", "3"],
        "smooth": ["smooth", "--episodes", "2"],
        "stream": [*_STREAM, "--rates", "1000", "5000", "--seconds", "5"],
        "stream_python": [*_STREAM, "--rates", "1000", "--seconds", "2", "--python"],
        "train": ["train", "--batches", "2", "--rounds", "1"],
        "wire": ["wire"],
    },
    GUARD: {
        "dmp": ["dmp", "--seconds", "0.05"],
        "stream": [*_STREAM, "--rates", "1000", "--seconds", "1"],
        "stream_python": [*_STREAM, "--rates", "1000", "--seconds", "1", "--python"],
        "wire": ["wire", "--cycles", "1000"],
    },
}
"""Benchmarks of ``ndp bench all`` and ``ndp bench guard``: arguments by name of the result."""
_EPILOG = """\
examples:
  ndp bench all --json                      every benchmark in a short form
  ndp bench guard                           layer, loop and wire in a quarter of a minute
  ndp bench dmp --json
  ndp bench stream --rates 1000 5000 --json
  ndp bench smooth --episodes 50 --json
  ndp bench train --json
  ndp bench train --task-options control_dt=0.01 tick=0.01 --batches 5
"""


def _layer(shape: str, kind: str) -> Callable[[Results], float]:
    return lambda results: float(results["dmp"][shape]["speed_up"][kind])


def _loop(results: Results) -> float:
    """Return the cost of a tick in Python in compiled ones, infinite where none was built."""
    compiled, python = (results[name]["rows"][0] for name in ("stream", "stream_python"))
    if compiled["loop"] != "compiled":
        return math.inf
    return float(python["cost_us"]["p50"] / compiled["cost_us"]["p50"])


def _wire(results: Results) -> float:
    return 8.0 / float(results["wire"]["over_floor"])


LEAST: tuple[tuple[str, Callable[[Results], float], float], ...] = (
    ("layer, throw: forward is faster than the recursion", _layer("throw", "forward"), 5.0),
    ("layer, digits: forward is faster than the recursion", _layer("digits", "forward"), 20.0),
    ("layer, digits: gradients are faster than the recursion", _layer("digits", "gradients"), 15.0),
    ("loop: a compiled tick is cheaper than one in Python", _loop, 3.0),
    ("wire: a cycle costs less than eight times its system calls", _wire, 1.0),
)
"""Ratios that ``ndp bench all`` and ``guard`` require, with margins for a busy machine."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the name of the benchmark; :func:`main` parses its arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("benchmark", choices=[*BENCHES, *RUNS], help="benchmark to run")
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="see ndp bench BENCHMARK --help"
    )


def main(args: argparse.Namespace) -> int:
    """Run the named benchmark.

    Raises:
        ConfigError: If there is no such benchmark.
    """
    if args.benchmark in RUNS:
        return run_several(RUNS[args.benchmark], "--json" in args.arguments)
    try:
        module = importlib.import_module(BENCHES[args.benchmark])
    except KeyError:
        raise ConfigError.choice("benchmark", args.benchmark, BENCHES) from None
    parser = OneLineParser(
        f"ndp bench {args.benchmark}", " ".join((module.__doc__ or "").split("\n\n")[0].split())
    )
    module.configure(parser)
    return int(module.main(parser.parse_args(args.arguments)))


def run_several(runs: Mapping[str, Sequence[str]], as_json: bool) -> int:
    """Run benchmarks, one process each; print one JSON object at the end.

    One that fails is named with its reason, and the others go on. The exit status is 1 if a ratio
    of :data:`LEAST` falls short or cannot be formed.
    """
    results: Results = {}
    for name, arguments in runs.items():
        sys.stderr.write(f"== ndp bench {' '.join(arguments)}\n")
        command = [sys.executable, "-m", "ndp_ros.cli", "bench", *arguments, "--json"]
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        try:
            results[name] = json.loads(out.stdout.strip().rpartition("\n")[2])
        except json.JSONDecodeError:
            results[name] = {"failed": f"exit status {out.returncode}"}
    if as_json:
        sys.stdout.write(json.dumps(results) + "\n")
    short = [name for name, ratio, least in LEAST if _falls_short(results, name, ratio, least)]
    return 1 if short else 0


def _falls_short(
    results: Results, name: str, ratio: Callable[[Results], float], least: float
) -> bool:
    """Print a ratio; return whether it is below the least."""
    try:
        found = ratio(results)
    except (KeyError, TypeError, ZeroDivisionError):
        sys.stderr.write(f"{name}: no figure\n")
        return True
    sys.stderr.write(f"{name}: {found:.2f} times, expected {least:g} or more\n")
    return found < least
