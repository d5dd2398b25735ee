# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The options of ``ndp collect``, apart from its work, so that ``--help`` loads nothing else."""

from __future__ import annotations

import argparse
from pathlib import Path

from ndp_ros.commands.arguments import add_arm, positive, whole

_EPILOG = """\
The safetensors file has observations, actions and the first window of each episode. Episode n
starts from seed SEED + n. script:TASK is Meta-World's hand-written policy of a task, such as
script:push, or of all fifty (script:mt50, which plays task n modulo 50 in episode n), or that of
a task with an expert of its own, such as script:reach.
lerobot:FOLDER is a LeRobot data set of the task --task: joints measured and commanded, in rad.

examples:
  ndp collect models/checkpoints/jaco_throw --episodes 200 -o throws.safetensors
  ndp collect models/checkpoints/jaco_throw --noise 0.5 -o throws.safetensors
  ndp train throw --method bc-ndp --k 10 --demonstrations throws.safetensors
  ndp collect lerobot:datasets/lift --task pick --columns object/cube=observation.cube -o lift.st
  ndp collect script:push --k 5 --every 1 --noise 0.3 --task-options horizon=250 -o push.safetensors
  ndp collect script:reach --arm my_arm.yaml --k 5 --every 1 --noise 0.3 -o reach.safetensors
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("expert", help="checkpoint, script:TASK or lerobot:FOLDER")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="file")
    parser.add_argument("--episodes", type=positive, default=200, help="episodes (default: 200)")
    parser.add_argument("--seed", type=whole, default=0, help="first start state (default: 0)")
    parser.add_argument(
        "--noise",
        type=float,
        default=0.0,
        metavar="PART",
        help="act with this part of the expert's exploration noise, record actions without it (0)",
    )
    parser.add_argument(
        "--k",
        type=positive,
        default=0,
        metavar="STEPS",
        help="control steps per window, if the expert acts at each (default: the expert's)",
    )
    parser.add_argument(
        "--every",
        type=positive,
        default=0,
        metavar="STEPS",
        help="control steps between the starts of such windows (default: --k)",
    )
    parser.add_argument(
        "--task-options",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="task options that differ from those of the expert's training",
    )
    add_arm(parser)
    parser.add_argument("--task", default="", help="task of a LeRobot data set")
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="FIELD=COLUMN",
        help="columns of a LeRobot data set (default: observation.FIELD)",
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
