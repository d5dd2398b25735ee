"""What every node shares: configuration, start by itself, diagnostics, a clean end."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.timer import Timer

from ndp_ros.errors import NdpError
from ndp_ros.nodes import clocks, parameters
from ndp_ros.nodes.partners import PACKAGE, Partners
from ndp_ros.parent import end_with_parent

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

DIAGNOSTICS_PERIOD = 0.5
"""Time between two reports on /diagnostics without news [s]."""
LOG_PERIOD = 5.0
"""Time between two log lines of the same text [s]."""
WATCH_PERIOD = 0.05
"""Time between two looks for news [s]."""


@dataclass(frozen=True)
class Health:
    """What a node says of itself on /diagnostics."""

    level: bytes
    message: str
    values: Mapping[str, object] = field(default_factory=dict)


class NdpNode(LifecycleNode):
    """A lifecycle node whose transitions fail with one logged line instead of a traceback.

    Subclasses implement ``configure``, ``activate``, ``deactivate``, ``cleanup`` and
    ``health``; each may raise NdpError, which refuses the transition. They read their
    parameters in ``configure``: until then every parameter may be set.
    """

    def __init__(
        self, name: str, *classes: type, writable: Collection[str] = (), **options: Any
    ) -> None:
        """Make the node and declare its parameters.

        Args:
            name: Name of the node unless it is remapped.
            classes: Configuration classes whose fields become parameters.
            writable: Parameters that may change once the node is configured.
            options: Keyword arguments of ``rclpy.node.Node``, such as ``namespace``,
                ``context`` and ``parameter_overrides``, for nodes composed in one process.

        Raises:
            ConfigError: On a parameter that is unknown, missing or does not fit.
        """
        super().__init__(name, **options)
        self._classes, self._writable = classes, frozenset(writable)
        try:
            parameters.declare(self, *classes, writable=parameters.names_of(*classes))
        except NdpError:
            self.destroy_node()
            raise
        self.add_on_set_parameters_callback(self._check_change)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._partners = Partners(self)
        self._last_health: tuple[bytes, str] | None = None
        self._last_report = -math.inf
        self._logged: dict[str, float] = {}
        self.every(WATCH_PERIOD, self._watch)

    def configure(self) -> None:
        """Load and check everything that is needed; take nothing."""

    def activate(self) -> None:
        """Take the arm, start the timers."""

    def deactivate(self) -> None:
        """Bring the arm to rest, stop the timers."""

    def cleanup(self) -> None:
        """Forget what ``configure`` loaded."""

    def health(self) -> Health:
        """Return the node's present state for /diagnostics."""
        raise NotImplementedError

    def on_change(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        """Accept or refuse a change of parameters that fit; accept it by default.

        Args:
            changes: What is to change, at once or not at all.
        """
        return SetParametersResult(successful=True)

    @property
    def state(self) -> str:
        """The lifecycle state: unconfigured, inactive, active or finalized."""
        return str(self._state_machine.current_state[1])

    @property
    def hardware_id(self) -> str:
        """What the diagnostics are about: an arm and how it is reached; empty for neither."""
        return ""

    def lost(self) -> str:
        """Return in one phrase which other nodes of this system have died; empty for none."""
        return self._partners.lost()

    def every(self, period: float, callback: Callable[[], None]) -> Timer:
        """Call something regularly by the monotonic clock, whatever happens to system time.

        Args:
            period: Time between two calls [s].
            callback: What to call.
        """
        return self.create_timer(period, callback, clock=clocks.steady_clock())

    def now(self) -> float:
        """Return ROS time [s]."""
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: see ``configure``."""

        def configure() -> None:
            clocks.refuse_sim_time(self)
            self.configure()

        return self._transition(configure, super().on_configure, state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: see ``activate``."""
        self._partners.forget()
        return self._transition(self.activate, super().on_activate, state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: see ``deactivate``."""
        return self._transition(self.deactivate, super().on_deactivate, state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: see ``cleanup``."""
        return self._transition(self.cleanup, super().on_cleanup, state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: deactivates if need be."""

        def shut_down() -> None:
            if state.label == "active":
                self.deactivate()
            if state.label != "unconfigured":
                self.cleanup()

        return self._transition(shut_down, super().on_shutdown, state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured after an unforeseen error, so that another try is possible."""
        try:
            self.cleanup()
        except Exception as error:
            self.get_logger().error(f"clean-up after an error failed: {error}")
            return TransitionCallbackReturn.FAILURE
        return super().on_error(state)

    def start(self, called_off: Callable[[], bool] = lambda: False) -> bool:
        """Configure and activate; whether nothing has failed.

        Args:
            called_off: Asked before each of the two; when it says so, the node stays as it is.
        """
        for trigger in (self.trigger_configure, self.trigger_activate):
            if called_off():
                break
            if trigger() != TransitionCallbackReturn.SUCCESS:
                return False
        return True

    def end(self) -> None:
        """Deactivate and clean up from whatever state the node is in."""
        if self.state == "active":
            self.trigger_deactivate()
        if self.state == "inactive":
            self.trigger_cleanup()

    def report_soon(self) -> None:
        """Publish the node's health at the next look, not only when its message changes."""
        self._last_report = -math.inf

    def report(self) -> None:
        """Publish the node's health now."""
        self._report(self._judge())

    def _report(self, health: Health) -> None:
        self._diagnostics.publish(as_message(self, self.state, health, self.hardware_id))
        self._last_health = (health.level, health.message)
        self._last_report = time.monotonic()

    def _judge(self) -> Health:
        """Return the node's health; a dead partner comes first, for it is the cause."""
        health, lost = self.health(), self.lost()
        if not lost or self.state != "active" or lost in health.message:
            return health
        return Health(ERROR, f"{lost}; {health.message}", health.values)

    def _watch(self) -> None:
        health, now = self._judge(), time.monotonic()
        news = (health.level, health.message) != self._last_health
        # A state that comes and goes is worth a line now and then, not every time.
        if (
            news
            and self._last_health is not None
            and now - self._logged.get(health.message, -math.inf) >= LOG_PERIOD
        ):
            self._logged[health.message] = now
            self._log(health)
        if news or now - self._last_report >= DIAGNOSTICS_PERIOD:
            self._report(health)

    def _check_change(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        """Refuse a change of parameters that would have no effect, or the wrong one."""
        time_kept = clocks.keep_system_time(changes)
        if not time_kept.successful:
            return time_kept
        ours = parameters.names_of(*self._classes)
        values = {c.name: c.value for c in changes if c.name in ours}
        fixed = sorted(values.keys() - self._writable)
        if fixed and self.state != "unconfigured":
            return SetParametersResult(
                successful=False,
                reason=f"{', '.join(fixed)}: read when the node is configured, and it is "
                f"{self.state}; deactivate and clean it up first",
            )
        try:
            for cls in self._classes if values else ():
                parameters.read(self, cls, values)
        except NdpError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return self.on_change(changes)

    def _log(self, health: Health) -> None:
        # rclpy ties a severity to the line that it is called from.
        if health.level == OK:
            self.get_logger().info(health.message)
        elif health.level == WARN:
            self.get_logger().warning(health.message)
        else:
            self.get_logger().error(health.message)

    def _transition(
        self,
        own: Callable[[], None],
        base: Callable[[LifecycleState], TransitionCallbackReturn],
        state: LifecycleState,
    ) -> TransitionCallbackReturn:
        # rclpy swallows exceptions of transitions without a word.
        try:
            # Others expect no reports of a node in transition, which may take its time.
            self.report()
            own()
        except NdpError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.get_logger().fatal(f"{type(error).__name__}: {error}")
            return TransitionCallbackReturn.ERROR
        return base(state)


def as_message(node: Node, state: str, health: Health, hardware_id: str = "") -> DiagnosticArray:
    """Return what a node publishes on /diagnostics.

    Args:
        node: The node.
        state: Its lifecycle state; the other nodes expect to hear again of one that is active.
        health: How it is.
        hardware_id: The arm that it is about.
    """
    values = {**health.values, "state": state, "pid": os.getpid()}
    status = DiagnosticStatus(
        level=health.level, name=node.get_fully_qualified_name().lstrip("/"),
        message=health.message, hardware_id=hardware_id,
        values=[PACKAGE, *(KeyValue(key=k, value=_text(v)) for k, v in values.items())],
    )  # fmt: skip
    message = DiagnosticArray(status=[status])
    message.header.stamp = node.get_clock().now().to_msg()
    return message


def prefer(priority: int) -> str:
    """Put every thread of this process under SCHED_FIFO where that is permitted.

    Below the streamer's loop, above everything that has no deadline. Processes that are
    started later do not inherit it.

    Args:
        priority: 1 to 98; 0 for none.

    Returns:
        What the kernel granted.
    """
    if priority <= 0:
        return "SCHED_OTHER"
    try:
        _schedule(os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, priority)
    except OSError as error:
        return f"SCHED_OTHER: SCHED_FIFO refused ({error.strerror})"
    return f"SCHED_FIFO {priority}"


def no_longer_prefer() -> None:
    """Put every thread of this process back under SCHED_OTHER, for work without a deadline."""
    with contextlib.suppress(OSError):
        _schedule(os.SCHED_OTHER, 0)


def _schedule(policy: int, priority: int) -> None:
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setscheduler(int(thread.name), policy, os.sched_param(priority))


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


class StopSignals:
    """SIGINT and SIGTERM, caught: a wish to end, which further ones neither hurry nor break.

    The end of a parent that the process must not outlive counts as one.

    rclpy's own handlers end the context before the arm has been brought to rest.

    Attributes:
        received: Whether the wish has come.
    """

    def __init__(self, process_ends: bool = True) -> None:
        """Prepare.

        Args:
            process_ends: Whether nothing but the process' end comes afterwards. The signals are
                ignored from then on; otherwise they mean again what they meant before.
        """
        self.received = False
        self._process_ends = process_ends

    def __enter__(self) -> Self:
        """Catch the signals."""
        self._before = [
            (s, signal.signal(s, self._receive)) for s in (signal.SIGINT, signal.SIGTERM)
        ]
        if end_with_parent():
            self.received = True
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of them."""
        for number, handler in self._before:
            signal.signal(number, signal.SIG_IGN if self._process_ends else handler)

    def _receive(self, *_: object) -> None:
        self.received = True


def run(make: Callable[[], NdpNode], argv: Sequence[str] | None = None) -> int:
    """Run one node until SIGINT or SIGTERM and return the process' exit status.

    A node with the parameter ``autostart`` brings itself to active; where that fails, the
    process ends with status 2.

    Args:
        make: Creates the node; called after ROS is initialised.
        argv: Command line with ``--ros-args``; ``None`` for that of the process.
    """
    # Shared-memory transport leaves files in /dev/shm when a node is killed.
    os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    with StopSignals(process_ends=argv is None) as signals:
        rclpy.init(
            args=list(argv) if argv is not None else None,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        node: NdpNode | None = None
        executor: Executor | None = None
        try:
            node = make()
            autostart = not node.has_parameter("autostart") or node.get_parameter("autostart").value
            # Who is told to end before he has begun takes no arm.
            if autostart and not node.start(lambda: signals.received):
                return 2
            executor = make_executor()
            executor.add_node(node)
            while rclpy.ok() and not signals.received:
                executor.spin_once(timeout_sec=0.1)
            node.end()
            node.report()
        except ExternalShutdownException:
            return 0
        except NdpError as error:
            print(error, file=sys.stderr)
            return 2
        finally:
            if node is not None:
                node.end()
            # First: messages still come in, and an executor would look at a node that is gone.
            if executor is not None:
                executor.shutdown()
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
    return 0


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
