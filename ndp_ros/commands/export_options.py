# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The options of ``ndp export``, apart from its work, so that ``--help`` loads nothing else."""

from __future__ import annotations

import argparse
from pathlib import Path

from ndp_ros.commands.arguments import positive, whole

_EPILOG = """\
Writes policy and normaliser, without the state of the training, and a card with the task, the
command and the success rate. --results adds a folder with the learning curve, its picture and
every episode of the evaluation.

examples:
  ndp export runs/throw-ndp-0 -o models/checkpoints/jaco_throw --results results/jaco_throw
  ndp export runs/pick-ndp-1 -o models/checkpoints/jaco_pick --which last --seed 7
  ndp export runs/throw-ndp-0 -o throw --onnx            # a graph for ONNX Runtime as well
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder")
    parser.add_argument("--which", choices=("best", "last"), default="best", help="default: best")
    parser.add_argument("--episodes", type=positive, default=200, help="episodes (default: 200)")
    parser.add_argument("--seed", type=whole, default=7, help="first start state (default: 7)")
    parser.add_argument("--about", default="", metavar="TEXT", help="first sentence of the card")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="folder for curve and evaluation"
    )
    parser.add_argument(
        "--onnx", action="store_true", help="add policy.onnx, checked against the policy"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
