# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The integrator node: turn DMP parameters into segments of the streamer, and own its process.

An acceptable message becomes a segment whose response matrix is built here, off the loop. The
streamer's state is published as topics.
"""

from __future__ import annotations

import contextlib
import math
import socket
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

from ndp_interfaces.msg import DmpParameters, Status
from ndp_interfaces.srv import Reset, Step
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.parameter import Parameter
from rclpy.timer import Timer
from std_srvs.srv import SetBool, Trigger

from ndp_ros.arms.kortex.config import KortexConfig
from ndp_ros.config import param
from ndp_ros.control.arm import ArmConfig
from ndp_ros.errors import NdpError, RejectedError, StreamError
from ndp_ros.nodes import diagnostics, lifecycle, parameters, process, qos, scheduling
from ndp_ros.nodes.arm_state import ArmStatePublisher
from ndp_ros.nodes.assessment import Assessment, Finding
from ndp_ros.nodes.claims import Claim, claim, claim_node, domain_id
from ndp_ros.nodes.diagnostics import Health
from ndp_ros.nodes.lifecycle import NdpNode
from ndp_ros.nodes.messages import parameters_from_message, seconds
from ndp_ros.nodes.requests import Requests
from ndp_ros.nodes.simulation_clock import SimulationClock
from ndp_ros.streaming.config import TUNABLE, StreamSpec
from ndp_ros.streaming.handle import StreamerHandle

NAME = "integrator_node"


@dataclass(frozen=True)
class IntegratorConfig:
    """Parameters of the integrator node, beside those of the stream and the run time."""

    publish_rate: float = param(
        200.0,
        doc="Joint states, setpoints and poses per second.",
        unit="Hz",
        minimum=20.0,
        maximum=1000.0,
    )
    objects: tuple[str, ...] = param(
        ("cube", "bin"), doc="Objects whose poses a simulated arm publishes, if it has them."
    )
    signals: int = param(
        0,
        doc="Number of further values that a simulated arm may publish, as the observation of "
        "Meta-World.",
        minimum=0,
        maximum=4096,
    )
    base_frame: str = param("base", doc="Frame of the arm's base, in which poses are given.")
    prefix: str = lifecycle.prefix_param()
    follow_for: float = param(
        0.0,
        doc="Time from the first segment after which the arm holds again; 0: on request only.",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
    )
    node_priority: int = scheduling.priority_param(40)
    autostart: bool = lifecycle.autostart_param()


class IntegratorNode(NdpNode):
    """Owner of the streamer: passes segments to it and publishes its state."""

    def __init__(self, **options: Any) -> None:
        super().__init__(NAME, IntegratorConfig, StreamSpec, writable=TUNABLE, **options)
        self._config = IntegratorConfig()
        self._spec = StreamSpec()
        self._joint_names: tuple[str, ...] = ()
        self._claims: list[Claim] = []
        self._stream: StreamerHandle | None = None
        self._exit_reason = ""
        """How the last streamer ended, if not as requested."""
        self._state_timer: Timer | None = None
        self._follow_until = math.inf
        self._scheduler = ""
        self._following = False
        self._follow_requests = 0
        self._assessment = Assessment()
        self._last_warning: dict[str, float] = {}
        self._last_published: Finding | None = None
        self._requests = Requests(self)
        self._clock_of_arm = SimulationClock(self, self._requests)
        self._arm_state = ArmStatePublisher(self)
        self._status = self.create_publisher(Status, "ndp/status", qos.LATCHED)
        self.create_subscription(
            DmpParameters, "ndp/dmp_parameters", self._on_parameters, qos.PARAMETERS
        )
        # A service that awaits the streamer must not keep the timers from running.
        aside = ReentrantCallbackGroup()
        for kind, name, callback in (
            (SetBool, "~/follow", self._on_follow),
            (Reset, "~/reset", self._on_reset),
            (Trigger, "~/stop", self._on_stop),
            (Trigger, "~/clear_fault", self._on_clear_fault),
            (SetBool, "~/pause", self._clock_of_arm.pause),
            (Step, "~/step", self._clock_of_arm.step),
        ):
            self.create_service(kind, name, callback, callback_group=aside)

    # -- life cycle -------------------------------------------------------------------------

    def configure(self) -> None:
        """Claim node and arm, and check that the node would not hear its own joint states."""
        self._config = parameters.read(self, IntegratorConfig)
        self._spec = parameters.read(self, StreamSpec)
        prefix, names = self._config.prefix, ArmConfig.named(self._spec.arm).joint_names
        self._joint_names = tuple(prefix + name for name in names)
        self._release_claims()
        self._claims.append(claim_node(self.get_fully_qualified_name()))
        if self._spec.hardware == "ros2_control":
            settings = self._spec.ros2_control
            if not settings.controller_namespace:
                settings = replace(settings, controller_namespace=self.get_namespace())
            settings.refuse_echo(self._arm_state.joint_states_topic)
            self._spec = replace(self._spec, ros2_control=settings)
            controller = settings.controller_for(self._spec.command_mode)
            self._claims.append(claim(f"ROS domain {domain_id()}: controller {controller}"))
        elif self._spec.hardware == "kortex":
            self._claims.append(claim(f"the arm at {_address(self._spec.kortex)}"))

    def on_change(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        """Pass limits of the loop that may change while it runs on to it."""
        values = {c.name: c.value for c in changes if c.name in TUNABLE}
        runtime = replace(self._spec.runtime, **values)
        if values and self._stream is not None:
            try:
                wanted = [getattr(runtime, name) for name in TUNABLE]
                self._stream.mailbox.requests.ask("tune", values=wanted)
            except StreamError as error:
                return SetParametersResult(successful=False, reason=str(error))
        self._spec = replace(self._spec, runtime=runtime)
        return super().on_change(changes)

    def _release_claims(self) -> None:
        while self._claims:
            self._claims.pop().close()

    def activate(self) -> None:
        """Start the streamer, which takes the arm and holds it where it is."""
        self._following, self._exit_reason = False, ""
        self._assessment = Assessment()
        self._stream = StreamerHandle(self._spec, self._config.objects, self._config.signals)
        try:
            self._clock_of_arm.open(self._stream)
        except NdpError:
            self.deactivate()
            raise
        self._scheduler = scheduling.set_realtime_priority(self._config.node_priority)
        self.get_logger().info(self._stream.description)
        self._arm_state.open([*self._stream.objects], [*self._stream.signals])
        self._state_timer = self.every(1.0 / self._config.publish_rate, self._publish)
        self._publish()

    def deactivate(self) -> None:
        """Bring the arm to rest and end the streamer."""
        if self._state_timer is not None:
            self.destroy_timer(self._state_timer)
            self._state_timer = None
        self._requests.cancel("the node is being deactivated")
        self._clock_of_arm.close()
        if self._stream is not None:
            self._exit_reason = self._stream.close()
            self._stream = None
        self._arm_state.close()
        if self._exit_reason:
            self.get_logger().error(self._exit_reason)
        self._publish_status(self._finding())

    def cleanup(self) -> None:
        """Release the arm, also if an error has kept ``deactivate`` from it."""
        if self._stream is not None:
            self.deactivate()
        self._release_claims()

    # -- segments ---------------------------------------------------------------------------

    def _on_parameters(self, message: DmpParameters) -> None:
        stream = self._stream
        if stream is None or not stream.alive or self._clock_of_arm.stands:
            return
        now = time.monotonic()
        try:
            age = self._clock_of_arm.stamps.age(seconds(message.header.stamp))
            segment = parameters_from_message(
                message, self._joint_names, age, self._spec.runtime.max_parameter_age
            )
            if problem := stream.problem:
                raise StreamError(problem)
            self._assessment.source.check(segment, now)
            # Also while nothing is followed, so that the first segment finds its matrix.
            stream.prepare(segment.config, segment.duration)
        except NdpError as error:
            reason = "streamer" if isinstance(error, StreamError) else "dynamics"
            reason = error.reason if isinstance(error, RejectedError) else reason
            self._assessment.rejected[reason] += 1
            self._reject(reason, str(error), f"segment {message.sequence} rejected: {error}")
            return
        if self._assessment.accept(segment, now, self._following):
            self.get_logger().warning(f"another policy drives the arm: {segment.checkpoint}")
        if not self._following:
            return
        stream.send(segment.g, segment.w, now - age, segment.origin)
        if self._follow_until == math.inf and self._config.follow_for:
            self._follow_until = stream.arm_clock() + self._config.follow_for

    def _reject(self, name: str, text: str, line: str) -> None:
        """Note a segment that was not accepted; log it at most once in five seconds a reason."""
        if self._assessment.reject(name, text):
            self.report_soon()
        now = time.monotonic()
        if now - self._last_warning.get(name, -math.inf) > 5.0:
            self._last_warning[name] = now
            self.get_logger().warning(line)

    # -- the state of the arm ---------------------------------------------------------------

    def _publish(self) -> None:
        """Publish the newest state; runs at ``publish_rate`` and keeps the heartbeat going."""
        stream = self._stream
        if stream is None:
            return
        stream.mailbox.beat()
        if stream.alive and stream.mailbox.state.load():
            at = self._clock_of_arm.publish()
            self._arm_state.publish(stream, self._joint_names, self._config.base_frame, at)
        if self._following and stream.arm_clock() > self._follow_until:
            # With too many requests waiting, the hold is requested at the next call.
            with contextlib.suppress(StreamError):
                stream.mailbox.requests.ask("hold")
                self._following = False
        self._requests.complete(stream)
        if text := self._assessment.refusal(stream):
            name = text.partition(":")[0]
            self._reject(name, text, f"segments refused by the guard: {text}")
        self._assessment.watch(stream)
        finding = self._finding()
        if finding != self._last_published:
            self._publish_status(finding)

    def _finding(self) -> Finding:
        """Return the state of the arm and the cause of what is wrong."""
        if self._stream is None:
            level = diagnostics.ERROR if self._exit_reason else diagnostics.OK
            return Finding(Status.STOPPED, level, self._exit_reason)
        if self._clock_of_arm.paused and not self._stream.problem:
            return Finding(self._stream.mailbox.phase(), diagnostics.OK, "paused")
        return self._assessment.finding(self._stream, self.lost(), self.starved(), self._following)

    def _publish_status(self, finding: Finding) -> None:
        self._last_published = finding
        stream, last = self._stream, self._assessment.last
        report = stream.mailbox.report() if stream is not None else {}
        message = Status(state=finding.state, reason=finding.reason)
        message.arm, message.backend = self._spec.arm, self._spec.hardware
        message.simulated = stream is not None and stream.simulated
        message.joint_names, message.rate = list(self._joint_names), self._spec.runtime.rate
        if last is not None:
            message.checkpoint, message.sequence = last.checkpoint, last.sequence
        message.accepted = report.get("accepted", 0)
        message.rejected = self._assessment.rejected.total() + report.get("refused", 0)
        message.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(message)

    # -- services ---------------------------------------------------------------------------

    async def _ask(self, kind: str, seed: int = 0) -> str:
        """Pass a request to the streamer; return why it was refused, empty if it was not."""
        if self._stream is None:
            return f"the node is {self.state}: activate it first"
        return await self._requests.ask(self._stream, kind, seed)

    async def _on_follow(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        # Segments begin with the streamer's consent, but end at once.
        self._following = self._following and request.data
        self._follow_requests += 1
        number = self._follow_requests
        refusal = await self._ask("follow" if request.data else "hold")
        if request.data and not refusal and number != self._follow_requests:
            refusal = "a later request took its place"
        elif not refusal:
            self._following = request.data
        self._follow_until = math.inf
        done = "follows" if request.data else "holds"
        return self._conclude("follow" if request.data else "follow (off)", response, refusal, done)

    async def _on_reset(self, request: Reset.Request, response: Reset.Response) -> Reset.Response:
        refusal = await self._ask("reset", request.seed)
        if not refusal and self._stream is not None:
            self._stream.mark_reset()
        return self._conclude("reset", response, refusal, f"start state of seed {request.seed}")

    async def _on_stop(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._following = False
        self._follow_requests += 1
        refusal = await self._ask("stop")
        return self._conclude("stop", response, refusal, "stopped until ~/clear_fault")

    async def _on_clear_fault(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        refusal = await self._ask("clear_fault")
        return self._conclude("clear_fault", response, refusal, "holds")

    def _conclude(self, name: str, response: Any, refusal: str, done: str) -> Any:
        """Fill in the response of a service, log it, and publish the node's health."""
        response.success, response.message = not refusal, refusal or done
        if refusal:
            self.get_logger().warning(f"~/{name} refused: {refusal}")
        else:
            self.get_logger().info(f"~/{name}: {done}")
        self.report()
        return response

    # -- diagnostics ------------------------------------------------------------------------

    @property
    def hardware_id(self) -> str:
        """The arm and the backend that reaches it."""
        return f"{self._spec.arm} ({self._spec.hardware})"

    def health(self) -> Health:
        """Return rates, lateness and counts, and the cause of what is wrong."""
        noted, stream, finding = self._assessment, self._stream, self._finding()
        values: dict[str, object] = {f"rejected_{r}": n for r, n in noted.rejected.items()}
        if stream is None:
            text = f"{self.state}: {finding.cause}" if finding.cause else self.state
            return Health(finding.level, text, values)
        values |= {"arm_state": finding.state, "reason": finding.reason, "ignored": noted.ignored}
        values |= stream.figures()
        values["node_scheduler"] = self._scheduler
        if noted.last is not None:
            values |= {"checkpoint": noted.last.checkpoint, "sequence": noted.last.sequence}
        return Health(finding.level, finding.text, values)


def _address(arm: KortexConfig) -> str:
    """Return the address of an arm, the same whatever name it is given by."""
    host = arm.robot_ip
    with contextlib.suppress(OSError):
        host = socket.gethostbyname(host)
    return f"{host}:{arm.port}"


def main(argv: list[str] | None = None) -> int:
    """Run the integrator node."""
    return process.run(IntegratorNode, argv, drives_arm=True)


if __name__ == "__main__":
    sys.exit(main())
