# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The options of ``ndp eval``, apart from its work, so that ``--help`` loads nothing else."""

from __future__ import annotations

import argparse
from pathlib import Path

from ndp_ros.commands.arguments import add_arm, positive, whole

_EPILOG = """\
Episode n starts from seed SEED + n. The last line of standard output is the result, with
--json one JSON object; everything else goes to standard error.

examples:
  ndp eval jaco_throw
  ndp eval models/checkpoints/jaco_throw --episodes 100 --seed 7 --json
  ndp eval runs/throw-ndp-0/checkpoints/best --each episodes.jsonl --video throw.mp4
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("checkpoint", help="checkpoint folder, or the name of one that ships")
    parser.add_argument("--episodes", type=positive, default=100, help="episodes (default: 100)")
    parser.add_argument("--seed", type=whole, default=0, help="first start state (default: 0)")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--each", type=Path, metavar="FILE", help="write one JSON line per episode")
    parser.add_argument(
        "--video",
        type=Path,
        metavar="FILE",
        help="film the first episodes (.mp4, .webp, .gif), with a contact sheet (.png) beside it",
    )
    parser.add_argument(
        "--video-episodes",
        type=positive,
        default=3,
        metavar="N",
        help="episodes to film (default: 3)",
    )
    parser.add_argument(
        "--task-options",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="options of the task that differ from those of the training",
    )
    add_arm(parser)
