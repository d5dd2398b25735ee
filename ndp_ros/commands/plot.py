# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp plot``: draw runs, recordings, checkpoints, and the field of Figure 1."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ndp_ros.commands.arguments import whole
from ndp_ros.errors import ConfigError
from ndp_ros.files import require_file
from ndp_ros.paths import find_checkpoint, share
from ndp_ros.pictures.style import PICTURES

_EPILOG = """\
what is drawn:
  a run, or a folder of runs   learning curves; runs that differ only in seed, workers and samples
                               are seeds of one curve: interquartile mean and its 95 % bootstrap
                               interval. Runs without a value yet are left out
  a recording (.npz)           joints planned and measured, with the tracking error in mrad; and,
                               beside it, the path of the hand (NAME-hand.png)
  a folder of recordings       the same of the first
  a bag of record:=mcap        joints planned and measured of each arm
  a checkpoint                 the same of one episode, which is simulated now
  field                        the vector field of a written digit, Figure 1 of the paper

examples:
  ndp plot runs/throw-ndp-* -o throw.png
  ndp plot runs -o all.svg --figure success --against samples
  ndp plot out/recordings/0.npz -o throw.png
  ndp plot out/bag_20261128_120000 -o joints.png
  ndp plot jaco_throw --seed 7 -o throw.png
  ndp plot field -o field.png --digit 4
"""

FIELD = "field"
_RUN_CONFIG = "config.yaml"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "what", nargs="+", metavar="WHAT", help="runs, a recording, a checkpoint, or field"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("plot.png"),
        metavar="FILE",
        help="picture (.png, .svg, .pdf; default: plot.png)",
    )
    parser.add_argument("--title", default="", help="title of the picture")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    runs = parser.add_argument_group("of runs")
    runs.add_argument("--figure", default="eval_success", help="column (default: eval_success)")
    runs.add_argument("--against", default="observed", help="column (default: observed)")
    others = parser.add_argument_group("of a checkpoint, and of the field")
    others.add_argument("--seed", type=whole, default=0, help="start state (default: 0)")
    others.add_argument("--digit", type=whole, default=4, help="digit that is written (default: 4)")


def main(args: argparse.Namespace) -> int:
    """Draw and print where the curves end, or the names of the pictures."""
    require_file(args.output, "--output", PICTURES)
    if args.what == [FIELD]:
        from ndp_ros.paper.digits.field import draw_field

        draw_field(share("models/checkpoints/digits"), args.output, args.digit)
        return _name(args, [args.output])
    folders = [run for name in args.what for run in find_runs(Path(name))]
    if folders:
        return _draw_curves(args, folders)
    if len(args.what) > 1:
        raise ConfigError(f"{args.what[0]} is no run: of other things, one picture shows one")
    return _draw_episode(args, args.what[0])


def _draw_curves(args: argparse.Namespace, folders: Sequence[Path]) -> int:
    """Draw learning curves."""
    from ndp_ros.training.curve_pictures import draw
    from ndp_ros.training.curves import bands, read_curves, table, with_distinct_labels

    curves, missing = read_curves(folders, args.figure, args.against)
    for reason in missing:
        sys.stderr.write(f"{reason}: left out\n")
    groups = bands(with_distinct_labels(curves))
    draw(groups, args.figure, args.against, args.output, args.title)
    rows = table(groups)
    if args.json:
        sys.stdout.write(json.dumps({"figure": args.figure, "curves": rows}) + "\n")
        return 0
    for row in rows:
        low, high = row["ci95"]
        sys.stdout.write(
            f"{row['label']}: {args.figure} {row['iqm']:.4g} ({low:.4g} to {high:.4g}, "
            f"{row['seeds']} seed{'s' * (row['seeds'] != 1)}) at {row['at']:.0f} {args.against}\n"
        )
    return 0


def _draw_episode(args: argparse.Namespace, name: str) -> int:
    """Draw a recording, or an episode of a checkpoint."""
    from ndp_ros.tasks.bag import is_bag, read_bag
    from ndp_ros.tasks.episode_pictures import draw_hand, draw_joints
    from ndp_ros.tasks.recording import Recording
    from ndp_ros.training.evaluate import record

    path = Path(name)
    if is_bag(path):
        written = []
        for space, recording in read_bag(path).items():
            suffix = space.replace("/", "-")  # several arms may be in one bag
            written.append(args.output.with_stem(f"{args.output.stem}{suffix}"))
            draw_joints(recording, written[-1], args.title or f"{path.name} {space}".rstrip())
        return _name(args, written)
    inside = sorted(path.glob("*.npz")) or sorted(path.glob("recordings/*.npz"))
    if path.suffix == ".npz" or inside:
        recording = Recording.load(inside[0] if inside else path)
    else:
        recording = record(_checkpoint(name), args.seed)
    hand = args.output.with_stem(f"{args.output.stem}-hand")
    draw_joints(recording, args.output, args.title)
    written = [args.output]
    if recording.hand:
        draw_hand(recording, hand, args.title)
        written.append(hand)
    return _name(args, written)


def _checkpoint(name: str) -> Path:
    """Return the folder of a checkpoint.

    Raises:
        ConfigError: If this names nothing that can be drawn.
    """
    try:
        return find_checkpoint(name)
    except ConfigError as error:
        raise ConfigError(f"{name} is no run, recording or {FIELD!r}: {error}") from error


def _name(args: argparse.Namespace, pictures: Sequence[Path]) -> int:
    """Print the names of the pictures."""
    if args.json:
        sys.stdout.write(json.dumps({"pictures": [str(p) for p in pictures]}) + "\n")
    else:
        sys.stdout.writelines(f"{picture}\n" for picture in pictures)
    return 0


def find_runs(path: Path) -> list[Path]:
    """Return a run directory, or those inside a folder; none if it is something else."""
    if (path / _RUN_CONFIG).is_file():
        return [path]
    return sorted(p.parent for p in path.glob(f"*/{_RUN_CONFIG}")) if path.is_dir() else []
