# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Run one node as a process: executor, signals, exit status.

Each executable of this package ends here. SIGINT and SIGTERM bring the arm to rest first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Self

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from ndp_ros.errors import NdpError
from ndp_ros.nodes.lifecycle import NdpNode
from ndp_ros.processes import may_start, terminate_with_parent

_LEAVE_TIMEOUT = 8
"""Time that a node's process may take to leave the ROS graph [s]."""
_END_TIMEOUT = 30
"""Time that a node that drives no arm may take to end what it does, such as to close a bag [s]."""


class StopRequested(BaseException):
    """SIGINT or SIGTERM in a section that may be broken off."""


class StopSignals:
    """SIGINT and SIGTERM as a request to end, which further signals neither hurry nor break.

    The exit of a parent that the process is bound to counts as one. rclpy's own handlers would end
    the context before the arm has been brought to rest.

    Attributes:
        received: Whether the request has come.
        interrupts: Whether it breaks off what the process does, by :class:`StopRequested`: the
            start of a node takes many seconds on a busy machine, and launch files wait for ten.
    """

    def __init__(self, process_ends: bool = True) -> None:
        """Prepare; afterwards signals are ignored if the process ends, else handled as before."""
        self.received = self.interrupts = False
        self._process_ends = process_ends

    def __enter__(self) -> Self:
        """Install the handlers."""
        self._before = [
            (s, signal.signal(s, self._receive)) for s in (signal.SIGINT, signal.SIGTERM)
        ]
        if terminate_with_parent():
            self.received = True
        return self

    def __exit__(self, *_: object) -> None:
        """Ignore the signals, or restore their handlers."""
        for number, handler in self._before:
            signal.signal(number, signal.SIG_IGN if self._process_ends else handler)

    def _receive(self, *_: object) -> None:
        self.received = True
        if self.interrupts:
            self.interrupts = False
            raise StopRequested


@contextlib.contextmanager
def ros(argv: Sequence[str] | None) -> Iterator[StopSignals]:
    """Initialise ROS by the command line given, or that of the process; shut it down afterwards.

    Yields:
        The signals that ask the node to end.

    Raises:
        SystemExit: If the parent does not let the node start.
    """
    # The shared-memory transport would leave files in /dev/shm when a node is killed.
    os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    with StopSignals(process_ends=argv is None) as signals:
        if not may_start():
            raise SystemExit(0)
        rclpy.init(
            args=list(argv) if argv is not None else None,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        try:
            yield signals
        finally:
            rclpy.try_shutdown()


def run(
    make: Callable[[], NdpNode], argv: Sequence[str] | None = None, drives_arm: bool = False
) -> int:
    """Run one lifecycle node until SIGINT or SIGTERM and return the exit status of its process.

    A node with the parameter ``autostart`` configures and activates itself; if that fails, the
    status is 2.

    Args:
        make: Creates the node, after ROS is initialised.
        argv: Command line with ``--ros-args``; None for that of the process.
        drives_arm: Whether the node may have taken an arm before it is active. The start of any
            other node is broken off when it is asked to end.
    """
    with ros(argv) as signals:
        node: NdpNode | None = None
        executor: Executor | None = None
        try:
            signals.interrupts = not drives_arm
            node = make()
            autostart = not node.has_parameter("autostart") or node.get_parameter("autostart").value
            # A node that is asked to end before it is active takes no arm.
            if autostart and not node.start(lambda: signals.received):
                return 2
            signals.interrupts = False
            executor = make_executor()
            executor.add_node(node)
            while rclpy.ok() and not signals.received:
                executor.spin_once(timeout_sec=0.1)
            if argv is None and not drives_arm:
                _end_within(_END_TIMEOUT)
            node.end()
            node.report()
        except (ExternalShutdownException, StopRequested):
            return 0
        except NdpError as error:
            print(error, file=sys.stderr)
            return 2
        finally:
            signals.interrupts = False
            if node is not None:
                node.end()
            if argv is None:
                # The arm rests.
                _end_within(_LEAVE_TIMEOUT)
            # Before the node: messages still come in, and the executor would look at a dead node.
            if executor is not None:
                executor.shutdown()
            if node is not None:
                node.destroy_node()
    return 0


def _end_within(seconds: int) -> None:
    """Have the kernel end this process in some time [s], if it has not ended by then.

    Fast DDS now and then deadlocks when publishers are destroyed while other participants leave.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)


def make_executor() -> Executor:
    """Return the cheapest executor that this ROS has, to be spun with ``spin_once(timeout_sec)``.

    The events executor takes a third of the time for each message; without a time-out
    it never returns.
    """
    if not awaits_services(rclpy_version()):
        return SingleThreadedExecutor()
    try:
        from rclpy.experimental.events_executor import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor()
    return EventsExecutor()


def awaits_services(release: tuple[int, ...]) -> bool:
    """Return whether the events executor of an rclpy runs services that are coroutines.

    On Jazzy before 7.1.11 the first call of one ends the process.
    """
    return (7, 1, 11) <= release < (8,) or release >= (9, 1)


def rclpy_version() -> tuple[int, ...]:
    """Return the version of rclpy, of a ROS installation or of its wheels; empty if unknown."""
    for name in ("rclpy", "ros-rclpy"):
        with contextlib.suppress(PackageNotFoundError):
            parts = version(name).split(".")[:3]
            return tuple(int(part) for part in parts if part.isdigit())
    return ()
