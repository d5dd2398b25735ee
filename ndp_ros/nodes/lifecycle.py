# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The base class of the nodes: lifecycle, parameters, diagnostics.

Transitions fail with one logged line, and each node watches the others of its system.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.timer import Timer

from ndp_ros.config import param
from ndp_ros.errors import NdpError
from ndp_ros.nodes import clocks, diagnostics, parameters
from ndp_ros.nodes.diagnostics import DIAGNOSTICS_PERIOD, ERROR, OK, WARN, Health
from ndp_ros.nodes.partners import Partners

LOG_PERIOD = 5.0
"""Time between two log lines of the same text [s]."""
_NICENESS = 10
"""Niceness of a node that is not needed."""
WATCH_PERIOD = 0.05
"""Time between two checks of the health [s]."""


def autostart_param() -> Any:
    """Return the parameter ``autostart`` of a node's configuration."""
    return param(True, doc="Configure and activate when the process starts.")


def prefix_param() -> Any:
    """Return the parameter ``prefix`` of a node's configuration."""
    return param("", doc="Begins the name of every joint and link in ROS, such as left_.")


def task_options_param() -> Any:
    """Return the parameter ``task_options`` of a node's configuration."""
    return param((), doc="Options of the task over those of the training, name=value each.")


class NdpNode(LifecycleNode):
    """A lifecycle node whose transitions fail with one logged line instead of a traceback.

    Subclasses implement ``configure``, ``activate``, ``deactivate``, ``cleanup`` and
    ``health``; each may raise NdpError, which refuses the transition. They read their
    parameters in ``configure``: until then every parameter may be set.

    Attributes:
        needed: Whether the other nodes report its silence.
    """

    needed = True

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
        """Load and check what the node needs; no arm is taken yet."""

    def activate(self) -> None:
        """Take the arm and start the timers."""

    def deactivate(self) -> None:
        """Bring the arm to rest and stop the timers."""

    def cleanup(self) -> None:
        """Release what ``configure`` loaded."""

    def health(self) -> Health:
        """Return the node's present state for /diagnostics."""
        raise NotImplementedError

    def on_change(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        """Accept or refuse changes that fit, together or not at all; accept them by default."""
        return SetParametersResult(successful=True)

    @property
    def state(self) -> str:
        """The lifecycle state: unconfigured, inactive, active or finalized."""
        return str(self._state_machine.current_state[1])

    @property
    def hardware_id(self) -> str:
        """The arm that the diagnostics are about, and its backend; empty for none."""
        return ""

    def lost(self) -> str:
        """Return one phrase that names the nodes that died or hang; empty for none."""
        return self._partners.lost()

    def starved(self) -> str:
        """Return one phrase that names the nodes without processor time; empty for none."""
        return self._partners.starved()

    def every(self, period: float, callback: Callable[[], None]) -> Timer:
        """Make a timer with a period [s] on the monotonic clock, which never steps."""
        return self.create_timer(period, callback, clock=clocks.steady_clock())

    def now(self) -> float:
        """Return ROS time [s]."""
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`configure` as a lifecycle transition."""
        return self._transition(self.configure, super().on_configure, state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`activate` as a lifecycle transition."""
        self._partners.forget()
        if not self.needed:
            # It takes no time from the nodes that are.
            os.nice(_NICENESS - os.nice(0))
        return self._transition(self.activate, super().on_activate, state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`deactivate` as a lifecycle transition."""
        return self._transition(self.deactivate, super().on_deactivate, state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`cleanup` as a lifecycle transition."""
        return self._transition(self.cleanup, super().on_cleanup, state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate and clean up, as far as the node has come."""

        def shut_down() -> None:
            if state.label == "active":
                self.deactivate()
            if state.label != "unconfigured":
                self.cleanup()

        return self._transition(shut_down, super().on_shutdown, state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured after an unexpected error; the node can be configured again."""
        try:
            self.cleanup()
        except Exception as error:
            self.get_logger().error(f"clean-up after an error failed: {error}")
            return TransitionCallbackReturn.FAILURE
        return super().on_error(state)

    def start(self, called_off: Callable[[], bool] = lambda: False) -> bool:
        """Configure and activate the node unless it is called off; return False if either fails."""
        for trigger in (self.trigger_configure, self.trigger_activate):
            if called_off():
                break
            if trigger() != TransitionCallbackReturn.SUCCESS:
                return False
        return True

    def end(self) -> None:
        """Deactivate and clean up from any state."""
        if self.state == "active":
            self.trigger_deactivate()
        if self.state == "inactive":
            self.trigger_cleanup()

    def report_soon(self) -> None:
        """Publish the node's health at the next check, even if its message is the same."""
        self._last_report = -math.inf

    def report(self) -> None:
        """Publish the node's health now."""
        self._report(self._judge())

    def _report(self, health: Health) -> None:
        self._diagnostics.publish(
            diagnostics.to_message(self, self.state, health, self.hardware_id, needed=self.needed)
        )
        self._last_health = (health.level, health.message)
        self._last_report = time.monotonic()

    def _judge(self) -> Health:
        """Return the node's health; a dead or starved partner comes first, being the cause."""
        health, lost, starved = self.health(), self.lost(), self.starved()
        cause = "; ".join(phrase for phrase in (lost, starved) if phrase)
        if not cause or self.state != "active" or cause in health.message:
            return health
        level = ERROR if lost else max(WARN, health.level)
        return Health(level, f"{cause}; {health.message}", health.values)

    def _watch(self) -> None:
        health, now = self._judge(), time.monotonic()
        news = (health.level, health.message) != self._last_health
        # A state that comes and goes is logged every few seconds at most.
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
        """Refuse a change of parameters that would have no effect or does not fit."""
        time_kept = clocks.keep_time(self, changes)
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
        # rclpy binds a severity to the calling line.
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
        # rclpy swallows exceptions of transitions.
        try:
            # The other nodes expect no reports during a transition, which may take long.
            self.report()
            own()
        except NdpError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.get_logger().fatal(f"{type(error).__name__}: {error}")
            return TransitionCallbackReturn.ERROR
        return base(state)
