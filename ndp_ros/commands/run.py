"""``ndp run``: what ``jaco_throw.launch.py`` starts, without a launch system."""

from __future__ import annotations

import argparse
import os
import sys

from ndp_ros.config import add_arguments, from_arguments
from ndp_ros.hardware import HardwareConfig, notice, processes
from ndp_ros.simulation import Supervisor, default_environment

_EPILOG = """\
Checks everything first: checkpoint, ROS domain, and whether the arm answers, takes the
password and is not in fault. Then the nodes start; the arm holds where it is until
somebody calls

  ros2 service call /integrator_node/follow std_srvs/srv/SetBool '{data: true}'

Ctrl-C brings the arm to rest and gives it back. Read docs/hardware.md before the first run.

examples:
  ndp emulate kortex                              in another terminal: an arm that is not there
  ndp run --robot-ip 127.0.0.1 --dry-run
  ndp run --robot-ip 192.168.1.10 --credentials-file ~/.kortex.yaml --command-mode position
  ndp run --hardware ros2_control --checkpoint runs/throw-ndp-0/checkpoints/best
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    add_arguments(parser, HardwareConfig)
    parser.add_argument("--verbose", action="store_true", help="show what the nodes log")


def main(args: argparse.Namespace) -> int:
    """Run until interrupted and return the exit status."""
    config = from_arguments(HardwareConfig, args)
    default_environment()
    specs = processes(config)
    _say(notice(config))
    _say(f"ROS domain {os.environ['ROS_DOMAIN_ID']}; Ctrl-C ends it")
    return Supervisor(specs, verbose=args.verbose, say=_say).run()


def _say(text: str) -> None:
    sys.stderr.write(f"ndp run: {text}\n")
    sys.stderr.flush()
