# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp follow``: let the arm of a running system follow its policy, or hold."""

from __future__ import annotations

import argparse

from ndp_ros.bringup.process import set_default_environment

_EPILOG = """\
Calls the service 'follow' of the integrator node, as this command of a ROS installation does:

  ros2 service call /integrator_node/follow std_srvs/srv/SetBool '{data: true}'

With 'on' a real arm moves: read docs/hardware.md before. With 'off' it brakes and holds.

examples:
  ndp follow on
  ndp follow off
  ndp follow on --namespace left
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("motion", choices=("on", "off"), help="follow the policy, or hold")
    parser.add_argument("--namespace", default="", help="namespace of the system (none)")
    parser.add_argument(
        "--integrator",
        default="integrator_node",
        metavar="NAME",
        help="name of its integrator node (integrator_node)",
    )


def main(args: argparse.Namespace) -> int:
    """Call the service and say what the arm does now."""
    set_default_environment()
    from ndp_ros.nodes.ask import follow

    follow(args.motion == "on", args.namespace, args.integrator)
    print("the arm follows its policy" if args.motion == "on" else "the arm holds")
    return 0
