# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Start the processes of a system without a launch system, watch them, and end them completely."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from types import FrameType

from ndp_ros.bringup.process import REFUSED, RVIZ, ProcessSpec
from ndp_ros.errors import NdpError, StreamError
from ndp_ros.processes import Gate, bound_to_this_process, remove_stale_shared_memory

_GRACE = 12.0
"""Time that a process may take to exit after SIGTERM [s]."""
_IMPORT = 5.0
"""Time that nodes may take to reach a closed gate and exit [s]: the import of MuJoCo runs a child
process, which complains on standard error if its parent is ended."""
_RESPAWN_DELAY = 1.0
_MAX_RESPAWNS = 5
_STANDARD_ERROR = 2


def print_line(text: str) -> None:
    """Print a line on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Supervisor:
    """Processes that are started, watched, restarted, and all ended."""

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        quiet: bool = False,
        verbose: bool = False,
        say: Callable[[str], None] = print_line,
        admit: Callable[[], None] | None = None,
    ) -> None:
        """Prepare processes, which are started in this order.

        ``quiet`` sends their standard output to standard error; ``verbose`` lets the nodes log more
        than warnings. ``admit`` raises if the system must not run: the nodes import their modules
        meanwhile, and none joins the ROS domain before it has returned.
        """
        self._say, self._admit = say, admit
        self._specs = list(specs)
        self._quiet = quiet
        self._verbose = verbose
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._respawns = 0
        self._signal = 0

    def run(self) -> int:
        """Run until a process exits that ends the system, and return its exit status.

        Raises:
            StreamError: If any other process exits.
            NdpError: If the system is not admitted.
        """
        handlers = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._start_all()
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

    def _start_all(self) -> None:
        """Start every process; the nodes wait until the system is admitted."""
        if self._admit is None:
            for spec in self._specs:
                self._start(spec)
            return
        try:
            with closing(Gate()) as gate:
                for spec in self._specs:
                    if spec.name != RVIZ:  # another's program, which knows no gate
                        self._start(spec, gate)
                self._admit()
                if self._signal:
                    return
                gate.open()
        except NdpError:
            self._await(_IMPORT)
            raise
        for spec in self._specs:
            if spec.name == RVIZ:
                self._start(spec)

    def _start(self, spec: ProcessSpec, gate: Gate | None = None) -> None:
        quiet = not (self._verbose or spec.log_level)
        logs = ["--log-level", "warn"] if quiet else []
        self._processes[spec.name] = subprocess.Popen(
            [*spec.command, *logs],
            env={
                **os.environ,
                **spec.environment,
                **bound_to_this_process(),
                **(gate.environment() if gate is not None else {}),
                "RCUTILS_CONSOLE_OUTPUT_FORMAT": "{name}: {severity}: {message}",
            },
            pass_fds=(gate.entrance,) if gate is not None else (),
            stdin=subprocess.DEVNULL,
            stdout=_STANDARD_ERROR if self._quiet else None,
            # Ctrl-C then reaches only this process, which ends the others in order.
            start_new_session=True,
        )

    def _lost(self, spec: ProcessSpec, status: int) -> None:
        """Start a process again that has exited, or give up."""
        how = f"signal {-status}" if status < 0 else f"status {status}"
        if spec.respawn and status != REFUSED and self._respawns < _MAX_RESPAWNS:
            self._respawns += 1
            self._say(f"{spec.name} has ended ({how}); it is started again")
            time.sleep(_RESPAWN_DELAY)
            self._start(spec)
            return
        raise StreamError(f"{spec.name} has ended ({how})")

    def _await(self, seconds: float) -> None:
        """Wait until all processes have exited by themselves, or some time [s] is over."""
        deadline = time.monotonic() + seconds
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))

    def _end(self) -> None:
        """End all processes in reverse order, and wait for them."""
        order = list(reversed(self._processes.values()))
        for process in order:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + _GRACE
        for process in order:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                # The whole session: a node may have a streamer as its child.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        remove_stale_shared_memory()
