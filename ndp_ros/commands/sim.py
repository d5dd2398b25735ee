# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp sim``: bring the simulated system up, run episodes, and end it completely."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

from ndp_ros.bringup.checks import listening
from ndp_ros.bringup.process import set_default_environment
from ndp_ros.bringup.supervisor import Supervisor, print_line
from ndp_ros.bringup.system import SimConfig, checked, simulation
from ndp_ros.commands.arguments import OneLineParser
from ndp_ros.config import add_arguments, from_arguments

_EPILOG = """\
Runs the nodes of ROS 2 with real DDS on this machine, without a launch system. One line per
episode on standard output; with --json those lines go to standard error and the last line of
standard output is one JSON object. Video, plot and results are written to OUT.

examples:
  ndp sim
  ndp sim --throws 50 --record none --json
  ndp sim --rate 5000 --seed 100 --checkpoint runs/throw-ndp-0/checkpoints/best
  ndp sim --throws 0    only bring the system up; then `ros2 topic echo /ndp/dmp_parameters`
  ndp sim --policy chunks               then publish way points to /ndp/chunk (docs/chunks.md)
"""
_INTERRUPTED = 128
"""Lowest exit status that stands for a signal."""
_RESULT = "episodes.json"


def configure(parser: OneLineParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    add_arguments(parser, SimConfig)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--verbose", action="store_true", help="show what the nodes log")
    parser.abridge(("json", "verbose", "checkpoint", "rate", "throws", "seed", "record", "out"))


def main(args: argparse.Namespace) -> int:
    """Run the simulation and return the exit status."""
    config = from_arguments(SimConfig, args)
    set_default_environment()
    result = Path(config.out) / _RESULT
    # It takes 1.5 s to hear whether another system is here: the nodes import meanwhile.
    with listening(config.namespace) as require_free:
        saved = checked(config)
        specs = simulation(config, saved)
        episodes = f"{config.episodes} episodes" if config.episodes else "until Ctrl-C"
        where = f"ROS domain {os.environ['ROS_DOMAIN_ID']}"
        _say(f"{saved.id} at {config.rate:g} Hz, {episodes}; {where}")

        def admit() -> None:
            require_free()
            with contextlib.suppress(FileNotFoundError):
                result.unlink()

        status = Supervisor(
            specs, quiet=args.json, verbose=args.verbose, say=_say, admit=admit
        ).run()
    interrupted = status >= _INTERRUPTED and config.episodes > 0
    # An interruption leaves a result if an episode was over.
    if args.json and config.episodes and (status == 0 or (interrupted and result.exists())):
        sys.stdout.write(json.dumps(json.loads(result.read_text(encoding="utf-8"))) + "\n")
    if interrupted:
        _say("interrupted")
    return status


def _say(text: str) -> None:
    print_line(f"ndp sim: {text}")
