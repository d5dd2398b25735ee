# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp run``: run a checkpoint on an arm, like ``jaco_throw.launch.py`` without ROS launch."""

from __future__ import annotations

import argparse
import os

from ndp_ros.bringup.arm import HardwareConfig, notice, processes
from ndp_ros.bringup.process import set_default_environment
from ndp_ros.bringup.supervisor import Supervisor, print_line
from ndp_ros.commands.arguments import OneLineParser
from ndp_ros.config import add_arguments, from_arguments

_EPILOG = """\
First checks the checkpoint, the ROS domain, and whether the arm answers, accepts the
password and is not in fault. Then starts the nodes; the arm holds its position until
'follow' is called:

  ndp follow on      or the service /integrator_node/follow

Ctrl-C brings the arm to rest and releases it. Read docs/hardware.md before the first run.

examples:
  ndp emulate kortex                              in another terminal: an emulated arm
  ndp run --robot-ip 127.0.0.1 --dry-run
  ndp run --robot-ip 192.168.1.10 --credentials-file ~/.kortex.yaml --command-mode position
  ndp run --hardware ros2_control --checkpoint runs/throw-ndp-0/checkpoints/best
"""


COMMON = (
    *("checkpoint", "arm", "hardware", "robot_ip", "credentials_file", "username", "dry_run"),
    *("command_mode", "controller", "runtime", "rate", "objects", "follow_for", "out", "verbose"),
)
"""Options that ``--help`` shows; ``--help-all`` shows the others too."""


def configure(parser: OneLineParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    add_arguments(parser, HardwareConfig)
    parser.add_argument("--verbose", action="store_true", help="show the logs of the nodes")
    parser.abridge(COMMON)


def main(args: argparse.Namespace) -> int:
    """Run the system until it is interrupted and return the exit status."""
    config = from_arguments(HardwareConfig, args)
    set_default_environment()
    specs = processes(config)
    _say(notice(config))
    _say(f"ROS domain {os.environ['ROS_DOMAIN_ID']}; Ctrl-C ends it")
    return Supervisor(specs, verbose=args.verbose, say=_say).run()


def _say(text: str) -> None:
    print_line(f"ndp run: {text}")
