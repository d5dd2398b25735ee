"""``ndp emulate kortex``: an arm that is not there, for clients that need one."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from typing import Any

from ndp_ros.arms.kortex.emulator.config import EmulatorConfig, NetworkConfig
from ndp_ros.config import add_arguments, from_arguments

_EPILOG = """examples:
  ndp emulate kortex --arm gen3 --port 10000 --udp-port 10001
  ndp emulate kortex --port 0 --udp-port 0 --json        free ports, told on standard output
  ndp emulate kortex --loss 0.05 --jitter 0.002          a bad network
Then, elsewhere: ros2 launch ndp_ros jaco_throw.launch.py robot_ip:=127.0.0.1
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("protocol", choices=["kortex"], help="Protocol to speak.")
    parser.add_argument(
        "--json", action="store_true", help="Print the ports as one JSON object when ready."
    )
    parser.add_argument(
        "--exit-with-parent", action="store_true",
        help="End when standard input does, so that no orphan is left behind.",
    )  # fmt: skip
    add_arguments(parser, EmulatorConfig)
    add_arguments(parser, NetworkConfig)


def main(args: argparse.Namespace) -> int:
    """Emulate until interrupted.

    Raises:
        NdpError: On a parameter that does not fit, or a port in use.
    """
    from ndp_ros.arms.kortex.emulator.process import serve

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    # Others' libraries have nothing to say here.
    logging.getLogger("ndp_ros").setLevel(logging.INFO)
    network = from_arguments(NetworkConfig, args)
    config = dataclasses.replace(from_arguments(EmulatorConfig, args), network=network)

    def announce(emulator: Any) -> None:
        ports = {name: getattr(emulator, name) for name in ("port", "udp_port", "control_port")}
        print(
            f"{config.arm} on {config.host}: TCP {ports['port']}, UDP {ports['udp_port']}, "
            f"experiments {ports['control_port']}; Ctrl-C ends it",
            file=sys.stderr,
        )
        if args.json:
            print(json.dumps(ports), flush=True)

    serve(config, sys.stdin.fileno() if args.exit_with_parent else None, announce)
    return 0
