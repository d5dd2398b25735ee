"""``ndp plot``: learning curves of runs, over seeds."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ndp_ros.errors import TrainingError
from ndp_ros.training.curves import bands, draw, read_curve, table
from ndp_ros.training.directory import CONFIG

_EPILOG = """\
Runs of the same task and method are seeds of one curve: the line is the interquartile mean,
the band its 95 % bootstrap interval. A folder that holds runs stands for all of them.

examples:
  ndp plot runs/throw-ndp-* -o throw.png
  ndp plot runs -o all.svg --figure success --against samples
"""


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
    folders = [run for path in args.runs for run in find_runs(path)]
    groups = bands([read_curve(folder, args.figure, args.against) for folder in folders])
    draw(groups, args.figure, args.against, args.output, args.title)
    rows = table(groups)
    if args.json:
        sys.stdout.write(json.dumps({"figure": args.figure, "curves": rows}) + "\n")
        return 0
    for row in rows:
        low, high = row["ci95"]
        sys.stdout.write(
            f"{row['label']}: {args.figure} {row['iqm']:.3f} ({low:.3f} to {high:.3f}, "
            f"{row['seeds']} seeds) at {row['at']:.0f} {args.against}\n"
        )
    return 0


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
