"""``ndp plot``: learning curves of runs, over seeds."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ndp_ros.errors import TrainingError
from ndp_ros.outputs import require_file
from ndp_ros.training.curves import (
    Curve,
    NothingYetError,
    bands,
    draw,
    read_curve,
    table,
    told_apart,
)
from ndp_ros.training.directory import CONFIG

_EPILOG = """\
Runs that differ only in seed, workers and samples are seeds of one curve: the line is the
interquartile mean, the band its 95 % bootstrap interval. A folder that holds runs stands for
all of them; one that has no value yet is left out.

examples:
  ndp plot runs/throw-ndp-* -o throw.png
  ndp plot runs -o all.svg --figure success --against samples
"""

_PICTURES = (".png", ".svg", ".pdf")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="picture (.png, .svg, .pdf)",
    )
    parser.add_argument("--figure", default="eval_success", help="column (default: eval_success)")
    parser.add_argument("--against", default="observed", help="column (default: observed)")
    parser.add_argument("--title", default="", help="title of the picture")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Draw and print where the curves end."""
    require_file(args.output, "--output", _PICTURES)
    folders = [run for path in args.runs for run in find_runs(path)]
    groups = bands(told_apart(_curves(folders, args.figure, args.against)))
    draw(groups, args.figure, args.against, args.output, args.title)
    rows = table(groups)
    if args.json:
        sys.stdout.write(json.dumps({"figure": args.figure, "curves": rows}) + "\n")
        return 0
    for row in rows:
        low, high = row["ci95"]
        sys.stdout.write(
            f"{row['label']}: {args.figure} {row['iqm']:.3f} ({low:.3f} to {high:.3f}, "
            f"{row['seeds']} seed{'s' * (row['seeds'] != 1)}) at {row['at']:.0f} {args.against}\n"
        )
    return 0


def _curves(folders: list[Path], figure: str, against: str) -> list[Curve]:
    """Return the curves of the runs that have one, with a note on the others."""
    curves, missing = [], []
    for folder in folders:
        try:
            curves.append(read_curve(folder, figure, against))
        except NothingYetError as error:
            missing.append(error)
    if not curves:
        raise missing[0]
    for reason in missing:
        sys.stderr.write(f"{reason}: left out\n")
    return curves


def find_runs(path: Path) -> list[Path]:
    """Return a run directory, or those inside a folder.

    Raises:
        TrainingError: If there is none.
    """
    if (path / CONFIG).is_file():
        return [path]
    inside = sorted(p.parent for p in path.glob(f"*/{CONFIG}"))
    if not inside:
        raise TrainingError(f"{path} is no run directory and holds none")
    return inside
