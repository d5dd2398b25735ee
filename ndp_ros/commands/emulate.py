# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp emulate kortex``: serve an emulated Kortex arm on this machine."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from typing import Any

from ndp_ros.commands.arguments import OneLineParser
from ndp_ros.config import add_arguments, from_arguments
from ndp_ros.emulator.config import EmulatorConfig

_EPILOG = """examples:
  ndp emulate kortex --arm gen3 --port 10000 --udp-port 10001
  ndp emulate kortex --port 0 --udp-port 0 --json        choose free ports and print them
  ndp emulate kortex --loss 0.05 --jitter 0.002          a bad network
Then in another terminal: ros2 launch ndp_ros jaco_throw.launch.py robot_ip:=127.0.0.1
"""


COMMON = (
    *("arm", "scene", "scene_seed", "host", "port", "udp_port", "control_port"),
    *("username", "password", "watchdog", "loss", "delay", "jitter", "json"),
)
"""Options that ``--help`` shows; ``--help-all`` shows the others too."""


def configure(parser: OneLineParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("protocol", choices=["kortex"], help="Protocol to speak.")
    parser.add_argument(
        "--json", action="store_true", help="Print the ports as one JSON object when ready."
    )
    parser.add_argument(
        "--exit-with-parent",
        action="store_true",
        help="Exit at the end of standard input, and so with the parent process.",
    )
    add_arguments(parser, EmulatorConfig)
    parser.abridge(COMMON)


def main(args: argparse.Namespace) -> int:
    """Run the emulator until it is interrupted.

    Raises:
        NdpError: If a value is not valid or a port is in use.
    """
    from ndp_ros.emulator.process import serve

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("ndp_ros").setLevel(logging.INFO)
    config = from_arguments(EmulatorConfig, args)

    def announce(emulator: Any) -> None:
        print(
            f"{config.arm} on {config.host}: TCP {emulator.port}, UDP {emulator.udp_port}, "
            f"experiments {emulator.control_port}; Ctrl-C ends it",
            file=sys.stderr,
        )
        if args.json:
            print(json.dumps(emulator.ports), flush=True)

    serve(config, sys.stdin.fileno() if args.exit_with_parent else None, announce)
    return 0
