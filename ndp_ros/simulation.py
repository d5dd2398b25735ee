"""``ndp sim``: brings the simulated system up, supervises it, and ends it completely."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from ndp_ros.bringup import ProcessSpec, SimConfig, environment, preflight, simulation
from ndp_ros.config import add_arguments, from_arguments
from ndp_ros.errors import StreamError
from ndp_ros.leftovers import clear_leftovers
from ndp_ros.parent import ends_with_me

_EPILOG = """\
Runs the nodes of ROS 2 with real DDS on this machine, without a launch system. One line a
throw on standard output; with --json those lines go to standard error and the last line of
standard output is one JSON object. Video, plot and results are written to OUT.

examples:
  ndp sim
  ndp sim --throws 50 --no-record --json
  ndp sim --rate 5000 --seed 100 --checkpoint runs/throw-ndp-0/checkpoints/best
  ndp sim --throws 0            bring up only; look with `ros2 topic echo /ndp/dmp_parameters`
"""
_GRACE = 12.0
"""How long a process may take to end once it is asked to [s]."""
_RESPAWN_DELAY = 1.0
_MAX_RESPAWNS = 5
_STANDARD_ERROR = 2
_INTERRUPTED = 128
"""From this exit status on it was a signal that ended it."""
_RESULT = "throws.json"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    add_arguments(parser, SimConfig)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--verbose", action="store_true", help="show what the nodes log")


def main(args: argparse.Namespace) -> int:
    """Run the simulation and return the exit status."""
    config = from_arguments(SimConfig, args)
    default_environment()
    saved = preflight(config)
    specs = simulation(config, saved)
    result = Path(config.out) / _RESULT
    with contextlib.suppress(FileNotFoundError):
        result.unlink()
    throws = f"{config.throws} throws" if config.throws else "until Ctrl-C"
    _say(f"{saved.id} at {config.rate:g} Hz, {throws}; ROS domain {os.environ['ROS_DOMAIN_ID']}")
    status = Supervisor(specs, quiet=args.json, verbose=args.verbose).run()
    interrupted = status >= _INTERRUPTED and config.throws > 0
    # An end before time leaves a result if there was a throw.
    if args.json and config.throws and (status == 0 or (interrupted and result.exists())):
        sys.stdout.write(json.dumps(json.loads(result.read_text(encoding="utf-8"))) + "\n")
    if interrupted:
        _say("interrupted")
    return status


def default_environment() -> None:
    """Keep all traffic on this machine unless the user has said otherwise."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", "0")
    for name, value in environment().items():
        os.environ.setdefault(name, value)


class Supervisor:
    """Starts processes, watches them, and leaves none behind."""

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        quiet: bool = False,
        verbose: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            specs: What to start, in order.
            quiet: Keep standard output free.
            verbose: Let the nodes log more than warnings.
            say: Takes what the user is told, a line at a time.
        """
        self._say = say or _say
        self._specs = list(specs)
        self._quiet = quiet
        self._verbose = verbose
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._respawns = 0
        self._signal = 0

    def run(self) -> int:
        """Run until a process that ends the system has ended, and return its exit status.

        Raises:
            StreamError: If a process ends that must not.
        """
        handlers = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            for spec in self._specs:
                self._start(spec)
            while not self._signal:
                for spec in self._specs:
                    status = self._processes[spec.name].poll()
                    if status is None or spec.optional:
                        continue
                    if spec.ends_system:
                        return status if status >= 0 else 1
                    self._lost(spec, status)
                time.sleep(0.05)
            return 128 + self._signal
        finally:
            self._end()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number

    def _start(self, spec: ProcessSpec) -> None:
        logs = [] if self._verbose else ["--log-level", "warn"]
        self._processes[spec.name] = subprocess.Popen(
            [*spec.command, *logs],
            env={
                **os.environ, **spec.environment, **ends_with_me(),
                "RCUTILS_CONSOLE_OUTPUT_FORMAT": "{name}: {severity}: {message}",
            },
            stdin=subprocess.DEVNULL, stdout=_STANDARD_ERROR if self._quiet else None,
            # Ctrl-C reaches this process alone, which then ends the others in order.
            start_new_session=True,
        )  # fmt: skip

    def _lost(self, spec: ProcessSpec, status: int) -> None:
        """Start a process again that has died, or give up."""
        how = f"signal {-status}" if status < 0 else f"status {status}"
        # Status 2 is a refusal: it would refuse again.
        if spec.respawn and status != 2 and self._respawns < _MAX_RESPAWNS:
            self._respawns += 1
            self._say(f"{spec.name} has ended ({how}); it is started again")
            time.sleep(_RESPAWN_DELAY)
            self._start(spec)
            return
        raise StreamError(f"{spec.name} has ended ({how})")

    def _end(self) -> None:
        """End everything, the last that was started first, and wait for it."""
        order = list(reversed(self._processes.values()))
        for process in order:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + _GRACE
        for process in order:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                # The whole session, for a node may have a streamer below it.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        clear_leftovers()


def _say(text: str) -> None:
    sys.stderr.write(f"ndp sim: {text}\n")
    sys.stderr.flush()
