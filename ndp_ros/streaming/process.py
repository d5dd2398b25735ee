"""The streamer's process: how it is started, and what it says when it ends.

Exit status: 0 when asked to end, 1 after a failure of the arm or of the loop, 2 when it
could not start, 3 when its parent was lost. One line on standard error says why.
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

from ndp_ros.arms.arm import Arm
from ndp_ros.config import from_mapping, to_mapping
from ndp_ros.errors import NdpError
from ndp_ros.leftovers import clear_leftovers
from ndp_ros.streaming.backends import make
from ndp_ros.streaming.config import StreamSpec
from ndp_ros.streaming.mailbox import Mailbox
from ndp_ros.streaming.streamer import DONE, NOT_STARTED, ORPHANED, Streamer


def start(spec: StreamSpec, mailbox: Mailbox) -> subprocess.Popen[bytes]:
    """Start a streamer process on a mailbox of this process.

    It is alive once ``mailbox.hello()`` returns something; should it end before, its exit
    status and standard error say why. The caller calls ``mailbox.beat()`` at 20 Hz or
    more, asks for ``quit`` in the end, and waits for the process.
    """
    # One thread for the small matrix products: more would wait for each other.
    alone = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ndp_ros.streaming.process", "--mailbox", mailbox.name],
        env={**os.environ, **alone},
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
        help="What to drive: a StreamSpec as JSON. Without it standard input is read, so that a "
        "password among the options does not show in the list of processes.",
    )
    given = parser.parse_args(arguments)
    arm: Arm | None = None
    # From here on: an arm that has been reached is never left without being stopped.
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
    # What is not finite is the guard's business.
    np.seterr(all="ignore")
    status = streamer.run()
    if status != DONE:
        print(f"streamer: {streamer.follower.reason}", file=sys.stderr, flush=True)
    mailbox.close()
    if status == ORPHANED:
        # Nobody else is left to do it for a node that was killed.
        clear_leftovers()
    return status


if __name__ == "__main__":
    sys.exit(main())
