# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The streamer's process: its start from the parent's side, and its main function.

Exit status: 0 after a request to end, 1 after a failure of the arm or of the loop, 2 if it could
not start, 3 after the loss of its parent. One line on standard error gives the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys

import numpy as np

from ndp_ros.config import from_mapping, to_mapping
from ndp_ros.control.arm import Arm
from ndp_ros.errors import NdpError
from ndp_ros.processes import SINGLE_THREADED, remove_stale_shared_memory
from ndp_ros.streaming.backends import make
from ndp_ros.streaming.config import StreamSpec
from ndp_ros.streaming.mailbox import Mailbox
from ndp_ros.streaming.streamer import DONE, NOT_STARTED, ORPHANED, Streamer


def start(spec: StreamSpec, mailbox: Mailbox) -> subprocess.Popen[bytes]:
    """Start a streamer process on a mailbox of this process.

    It drives the arm once ``mailbox.handshake()`` returns something; if it ends before, its exit
    status and standard error say why. The caller calls ``mailbox.beat()`` at 20 Hz or
    more, asks for ``quit`` in the end, and waits for the process.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "ndp_ros.streaming.process", "--mailbox", mailbox.name],
        env={**os.environ, **SINGLE_THREADED},
        stdin=subprocess.PIPE,
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(json.dumps(to_mapping(spec)).encode())
    return process


def main(arguments: list[str] | None = None) -> int:
    """Run one streamer; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ndp_ros.streaming.process",
        description="Drive an arm at a fixed rate from the mailbox of another process.",
    )
    parser.add_argument("--mailbox", required=True, help="Name of the mailbox.")
    parser.add_argument(
        "--spec",
        help="StreamSpec as JSON. Without it standard input is read, so that a password among the "
        "options does not show in the list of processes.",
    )
    given = parser.parse_args(arguments)
    arm: Arm | None = None
    # From here on an arm that has been reached is always stopped before the process ends.
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda caught, _frame: signals.append(caught))
    try:
        text = sys.stdin.read() if given.spec is None else given.spec
        spec = from_mapping(StreamSpec, json.loads(text), source="streamer")
        mailbox = Mailbox.attach(given.mailbox)
        arm, omega = make(spec)
        streamer = Streamer(spec, mailbox, arm, omega, signals)
    except (NdpError, json.JSONDecodeError) as error:
        if arm is not None:
            arm.close()
        print(f"streamer: {error}", file=sys.stderr, flush=True)
        return NOT_STARTED
    # The guard deals with numbers that are not finite.
    np.seterr(all="ignore")
    status = streamer.run()
    if status != DONE:
        print(f"streamer: {streamer.reason}", file=sys.stderr, flush=True)
    mailbox.close()
    if status == ORPHANED:
        # A node that was killed leaves this to its streamer.
        remove_stale_shared_memory()
    return status


if __name__ == "__main__":
    sys.exit(main())
