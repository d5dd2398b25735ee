"""The integrator node: DMP parameters in, an arm that moves.

It owns the mailbox and the streamer process behind it. A message that fits becomes a
segment; the response matrix that the loop multiplies is built here, off the loop. The
streamer's state comes back as topics.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from geometry_msgs.msg import PoseStamped
from ndp_interfaces.msg import DmpParameters, Status
from ndp_interfaces.srv import Reset
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.task import Future
from rclpy.timer import Timer
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from ndp_ros.arms.arm import ArmConfig
from ndp_ros.arms.ros2_arm import in_namespace, refuse_echo, resource
from ndp_ros.config import param
from ndp_ros.domain import Held, claim, claim_node, domain_id
from ndp_ros.errors import NdpError, StreamError
from ndp_ros.nodes import lifecycle, parameters, qos
from ndp_ros.nodes.clocks import SystemClock
from ndp_ros.nodes.lifecycle import Health, NdpNode
from ndp_ros.nodes.messages import (
    Parameters,
    RejectedError,
    duration_of,
    parameters_from_message,
    seconds,
    stamp_of,
)
from ndp_ros.nodes.observer import JOINT_STATES, SETPOINT, pose_topic
from ndp_ros.nodes.source import Source
from ndp_ros.nodes.stream import Stream
from ndp_ros.streaming.config import StreamSpec, options_of

NAME = "integrator_node"

_REQUEST_TIMEOUT = 5.0
_SILENCE = 1.5
"""Durations of a segment without a message after which the policy counts as silent."""
_RECENT = 2.0
"""How long a rejected message is worth a warning [s]."""
_UNHEALTHY = {
    Status.BRAKING: lifecycle.WARN,
    Status.FAULT: lifecycle.ERROR,
    Status.STOPPED: lifecycle.ERROR,
}


@dataclass(frozen=True)
class IntegratorConfig:
    """Parameters of the integrator node, beside those of the stream and the run time."""

    publish_rate: float = param(
        200.0, doc="Joint states, setpoints and poses per second.", unit="Hz", minimum=20.0,
        maximum=1000.0,
    )  # fmt: skip
    objects: tuple[str, ...] = param(
        ("cube", "bin"), doc="Objects whose poses a simulated arm publishes, if it has them."
    )
    base_frame: str = param("base", doc="Frame of the arm's base, in which poses are given.")
    follow_for: float = param(
        0.0,
        doc="The arm holds again by itself this long after the first segment; 0: when told to.",
        unit="s", minimum=0.0, maximum=3600.0,
    )  # fmt: skip
    node_priority: int = param(
        40, doc="SCHED_FIFO priority of this node where permitted; 0 asks for none.",
        minimum=0, maximum=98,
    )  # fmt: skip
    autostart: bool = param(True, doc="Configure and activate without being asked.")


class IntegratorNode(NdpNode):
    """Owns the streamer; turns messages into segments and its state into topics."""

    def __init__(self, **options: Any) -> None:
        """Make the node; it takes nothing before it is activated.

        Args:
            options: Keyword arguments of ``rclpy.node.Node``.
        """
        super().__init__(NAME, IntegratorConfig, StreamSpec, **options)
        self._config = IntegratorConfig()
        self._spec = StreamSpec()
        self._joint_names: tuple[str, ...] = ()
        self._claims: list[Held] = []
        self._stream: Stream | None = None
        self._epitaph = ""
        self._state_timer: Timer | None = None
        self._follow_until = math.inf
        self._waiting: dict[int, tuple[Future[str], float]] = {}
        self._scheduler = ""
        self._following = False
        self._asked = 0
        self._system_clock = SystemClock()
        self._source = Source()
        self._rejected: Counter[str] = Counter()
        self._last_rejection = _Rejection()
        self._ended = self._phase = ""
        self._refused = 0
        self._ignored = 0
        self._last: Parameters | None = None
        self._last_arrival = -math.inf
        self._warned: dict[str, float] = {}
        self._told: _Finding | None = None
        self.create_subscription(
            DmpParameters, "ndp/dmp_parameters", self._on_parameters, qos.PARAMETERS
        )
        self._joints = self._publisher(JointState, JOINT_STATES)
        self._setpoint = self._publisher(JointTrajectory, SETPOINT)
        self._status = self.create_publisher(Status, "ndp/status", qos.LATCHED)
        self._poses: dict[str, Publisher[PoseStamped]] = {}
        # A service that awaits the streamer must not keep the timers from running.
        aside = ReentrantCallbackGroup()
        for kind, name, callback in (
            (SetBool, "~/follow", self._on_follow),
            (Reset, "~/reset", self._on_reset),
            (Trigger, "~/stop", self._on_stop),
            (Trigger, "~/clear_fault", self._on_clear_fault),
        ):
            self.create_service(kind, name, callback, callback_group=aside)

    def _publisher(self, kind: Any, topic: str) -> Any:
        """Return a publisher of the arm's state, whose quality of service may be overridden."""
        overriding = QoSOverridingOptions.with_default_policies()
        return self.create_publisher(kind, topic, qos.STATE_OUT, qos_overriding_options=overriding)

    # -- life cycle -------------------------------------------------------------------------

    def configure(self) -> None:
        """Check that the arm is known, is not this node's echo, and has no other integrator."""
        self._config = parameters.read(self, IntegratorConfig)
        self._spec = parameters.read(self, StreamSpec)
        self._joint_names = ArmConfig.named(self._spec.arm).joint_names
        self._let_go()
        self._claims.append(claim_node(self.get_fully_qualified_name()))
        if self._spec.hardware == "ros2_control":
            options = options_of(self._spec.options, self._spec.hardware)
            options = in_namespace(options, self.get_namespace())
            refuse_echo(options, self._joints.topic_name)
            self._spec = replace(self._spec, options=json.dumps(options))
            controller = resource(options, self._spec.command_mode)
            self._claims.append(claim(f"ROS domain {domain_id()}: controller {controller}"))
        elif self._spec.hardware == "kortex":
            options = options_of(self._spec.options, self._spec.hardware)
            where = f"{options.get('robot_ip', '')}:{options.get('port', '')}"
            self._claims.append(claim(f"the arm at {where}"))

    def _let_go(self) -> None:
        """Let others have what this node has claimed."""
        while self._claims:
            self._claims.pop().close()

    def activate(self) -> None:
        """Start the streamer, which takes the arm and holds it where it is."""
        self._following = False
        self._epitaph = ""
        self._rejected.clear()
        self._refused = 0
        self._ignored = 0
        self._last, self._last_arrival = None, -math.inf
        self._source, self._last_rejection, self._ended = Source(), _Rejection(), ""
        self._phase = ""
        self._stream = Stream(self._spec, len(self._joint_names), self._config.objects)
        self._scheduler = lifecycle.prefer(self._config.node_priority)
        self.get_logger().info(self._stream.greeting())
        for name in self._stream.objects:
            self._poses[name] = self.create_publisher(PoseStamped, pose_topic(name), qos.STATE_OUT)
        self._state_timer = self.every(1.0 / self._config.publish_rate, self._publish)
        self._publish()

    def deactivate(self) -> None:
        """Bring the arm to rest and end the streamer."""
        if self._state_timer is not None:
            self.destroy_timer(self._state_timer)
            self._state_timer = None
        for future, _ in self._waiting.values():
            future.set_result("the node is being deactivated")
        self._waiting.clear()
        if self._stream is not None:
            self._epitaph = self._stream.close()
            self._stream = None
        for publisher in self._poses.values():
            self.destroy_publisher(publisher)
        self._poses.clear()
        if self._epitaph:
            self.get_logger().error(self._epitaph)
        self._publish_status(self._assess())

    def cleanup(self) -> None:
        """Let go of the arm if an error has kept ``deactivate`` from it."""
        if self._stream is not None:
            self.deactivate()
        self._let_go()

    # -- segments ---------------------------------------------------------------------------

    def _on_parameters(self, message: DmpParameters) -> None:
        stream = self._stream
        if stream is None or not stream.alive:
            return
        now = time.monotonic()
        try:
            age = self._system_clock.age(seconds(message.header.stamp))
            segment = parameters_from_message(
                message, self._joint_names, age, self._spec.runtime.max_parameter_age
            )
            if trouble := stream.trouble:
                raise StreamError(trouble)
            self._source.check(segment, now)
            # Also while nothing is followed, so that the first segment finds its matrix.
            stream.prepare(segment.config, segment.duration)
        except NdpError as error:
            reason = "streamer" if isinstance(error, StreamError) else "dynamics"
            reason = error.reason if isinstance(error, RejectedError) else reason
            self._rejected[reason] += 1
            self._reject(reason, str(error))
            self._warn(reason, f"segment {message.sequence} rejected: {error}")
            return
        if self._source.accept(segment, now):
            self._last_rejection = _Rejection()
            self.get_logger().warning(f"another policy drives the arm: {segment.checkpoint}")
        self._last_arrival = now
        if not self._following:
            self._ignored += 1
            return
        self._last = segment
        stream.send(segment.g, segment.w, now - age, segment.origin)
        if self._follow_until == math.inf and self._config.follow_for:
            self._follow_until = stream.arm_clock() + self._config.follow_for

    def _reject(self, name: str, text: str) -> None:
        """Remember why a segment was not taken, for status and diagnostics."""
        if name != self._last_rejection.name:
            self.report_soon()
        text = text.removeprefix(f"{name}: ")
        self._last_rejection = _Rejection(time.monotonic(), name, text)

    def _warn(self, reason: str, text: str) -> None:
        """Log, at most once in five seconds for each reason."""
        now = time.monotonic()
        if now - self._warned.get(reason, -math.inf) > 5.0:
            self._warned[reason] = now
            self.get_logger().warning(text)

    def _watch_refusals(self, stream: Stream) -> None:
        """Tell of the segments that fitted this node and were refused by the loop's guard."""
        refused, text = stream.refusals()
        if refused > self._refused:
            self._refused = refused
            name = text.partition(":")[0]
            self._reject(name, text)
            self._warn(name, f"segments refused by the guard: {text}")

    # -- what the streamer says -------------------------------------------------------------

    def _publish(self) -> None:
        stream = self._stream
        if stream is None:
            return
        stream.mailbox.beat()
        if stream.alive and stream.mailbox.state.load():
            self._publish_state(stream)
        if self._following and stream.arm_clock() > self._follow_until:
            # With too many requests waiting it is asked again at the next look.
            with contextlib.suppress(StreamError):
                stream.mailbox.request("hold")
                self._following = False
        self._answer(stream)
        self._watch_refusals(stream)
        self._watch_end(stream)
        finding = self._assess()
        if finding != self._told:
            self._publish_status(finding)

    def _publish_state(self, stream: Stream) -> None:
        state = stream.mailbox.state
        # One stamp for all: by it phi knows what is of one instant.
        stamp = stamp_of(stream.measured_at() + self._system_clock.offset())
        names = list(self._joint_names)
        joints = JointState(
            name=names, position=state["position"], velocity=state["velocity"],
            effort=state["effort"],
        )  # fmt: skip
        joints.header.stamp = stamp
        self._joints.publish(joints)
        for name, place in stream.objects.items():
            pose = state["poses"][place]
            if not math.isfinite(pose[0]):
                continue
            message = PoseStamped()
            message.header.stamp, message.header.frame_id = stamp, self._config.base_frame
            p, q = message.pose.position, message.pose.orientation
            p.x, p.y, p.z, q.w, q.x, q.y, q.z = map(float, pose)
            self._poses[name].publish(message)
        point = JointTrajectoryPoint(
            positions=state["y"], velocities=state["yd"], accelerations=state["ydd"],
            time_from_start=duration_of(stream.arm_clock()),
        )  # fmt: skip
        setpoint = JointTrajectory(joint_names=names, points=[point])
        setpoint.header.stamp = stamp
        # Last: it is what phi waits for, and by then everything else of this instant is there.
        self._setpoint.publish(setpoint)

    def _assess(self) -> _Finding:
        """Return the state and what is wrong: the one source of status and diagnostics.

        The cause comes before the symptom, and what happens now before what has happened.
        """
        stream, lost = self._stream, self.lost()
        if stream is None:
            bad = lifecycle.ERROR if self._epitaph else lifecycle.OK
            return _Finding(Status.STOPPED, bad, self._epitaph)
        if trouble := stream.trouble:
            return _Finding(Status.STOPPED, lifecycle.ERROR, _and(trouble, lost))
        phase, now = stream.mailbox.phase(), time.monotonic()
        fault, reason = stream.explanation()
        if fault:
            level = max(level_of(phase, fault), lifecycle.WARN)
            return _Finding(phase, level, _and(fault, lost))
        if dispute := self._source.dispute(now):
            return _Finding(phase, lifecycle.ERROR, _and(dispute, lost))
        well = phase in (Status.FOLLOWING, Status.HOLDING)
        why = "" if well else self._ended if phase == Status.WAITING else reason
        if lost:
            return _Finding(phase, lifecycle.ERROR, lost, why)
        rejection = self._last_rejection
        if now - rejection.at < _RECENT and (self._following or phase == Status.HOLDING):
            cause = f"segments rejected: {rejection.name}"
            return _Finding(phase, lifecycle.WARN, cause, rejection.text)
        if self._policy_silent(now):
            return _Finding(phase, lifecycle.WARN, "policy silent", why)
        level = lifecycle.WARN if why and phase == Status.WAITING else level_of(phase, why)
        return _Finding(phase, level, why)

    def _watch_end(self, stream: Stream) -> None:
        """Keep what ended the last motion: it stays true until a segment is followed again."""
        phase = stream.mailbox.phase()
        if phase == Status.WAITING and phase != self._phase:
            moved = self._phase in (Status.FOLLOWING, Status.BRAKING, Status.STOPPED)
            self._ended = stream.explanation()[1] if moved else ""
        self._phase = phase

    def _publish_status(self, finding: _Finding) -> None:
        self._told = finding
        stream, last = self._stream, self._last
        report = stream.report() if stream is not None else {}
        message = Status(
            state=finding.state, reason=finding.reason,
            arm=self._spec.arm, backend=self._spec.hardware,
            simulated=stream is not None and stream.simulated,
            joint_names=list(self._joint_names), rate=self._spec.runtime.rate,
            checkpoint=last.checkpoint if last else "", sequence=last.sequence if last else 0,
            accepted=report.get("accepted", 0),
            rejected=self._rejected.total() + report.get("refused", 0),
        )  # fmt: skip
        message.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(message)

    # -- services ---------------------------------------------------------------------------

    async def _ask(self, kind: str, seed: int = 0) -> str:
        """Pass a request to the streamer; return why it was refused, or nothing."""
        stream = self._stream
        if stream is None:
            return f"the node is {self.state}: activate it first"
        if not stream.alive:
            return stream.obituary()
        try:
            ticket = stream.mailbox.request(kind, seed, timeout=_REQUEST_TIMEOUT)
        except StreamError as error:
            return str(error)
        answer: Future[str] = Future(executor=self.executor)
        self._waiting[ticket] = answer, time.monotonic() + _REQUEST_TIMEOUT
        return str(await answer)

    def _answer(self, stream: Stream) -> None:
        """Complete the services whose requests the streamer has dealt with."""
        for ticket, (future, deadline) in list(self._waiting.items()):
            answer = stream.mailbox.answer(ticket)
            if answer is None and not stream.alive:
                answer = stream.obituary()
            if answer is None and time.monotonic() > deadline:
                answer = (
                    f"the streamer did not answer within {_REQUEST_TIMEOUT:g} s; a hold or stop is "
                    "carried out as soon as it ticks again, anything else is not"
                )
            if answer is not None:
                del self._waiting[ticket]
                future.set_result(answer)

    async def _on_follow(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        # Segments wait for the streamer's consent, but stop at once.
        self._following = self._following and request.data
        self._asked += 1
        asked = self._asked
        refusal = await self._ask("follow" if request.data else "hold")
        if request.data and not refusal and asked != self._asked:
            refusal = "a later request took its place"
        elif not refusal:
            self._following = request.data
        self._follow_until = math.inf
        done = "follows" if request.data else "holds"
        return self._conclude("follow" if request.data else "follow (off)", response, refusal, done)

    async def _on_reset(self, request: Reset.Request, response: Reset.Response) -> Reset.Response:
        refusal = await self._ask("reset", request.seed)
        if not refusal and self._stream is not None:
            self._stream.mark()
        return self._conclude("reset", response, refusal, f"start state of seed {request.seed}")

    async def _on_stop(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._following = False
        self._asked += 1
        refusal = await self._ask("stop")
        return self._conclude("stop", response, refusal, "stopped until ~/clear_fault")

    async def _on_clear_fault(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        refusal = await self._ask("clear_fault")
        return self._conclude("clear_fault", response, refusal, "holds")

    def _conclude(self, name: str, response: Any, refusal: str, done: str) -> Any:
        """Fill in a service's answer, log it, and report what it has changed."""
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
        """Return rates, lateness, counts, and in one phrase what is wrong."""
        values: dict[str, object] = {}
        values |= {f"rejected_{reason}": count for reason, count in self._rejected.items()}
        stream, finding = self._stream, self._assess()
        if stream is None:
            text = f"{self.state}: {finding.cause}" if finding.cause else self.state
            return Health(finding.level, text, values)
        values |= {"arm_state": finding.state, "reason": finding.reason, "ignored": self._ignored}
        values |= stream.figures()
        values["node_scheduler"] = self._scheduler
        if self._last is not None:
            values |= {"checkpoint": self._last.checkpoint, "sequence": self._last.sequence}
        text = f"{finding.state}: {finding.cause}" if finding.cause else finding.state
        return Health(finding.level, text, values)

    def _policy_silent(self, now: float) -> bool:
        """Whether segments are wanted and none has come for longer than one lasts."""
        if not self._following:
            return False
        duration = self._last.duration if self._last is not None else 1.0
        return now - self._last_arrival > _SILENCE * duration + 0.1


@dataclass(frozen=True)
class _Rejection:
    """The last segment that was not taken."""

    at: float = -math.inf
    """CLOCK_MONOTONIC [s]."""
    name: str = ""
    text: str = ""


@dataclass(frozen=True)
class _Finding:
    """What status and diagnostics say: the arm's state, how bad it is, and why."""

    state: str
    level: bytes
    cause: str
    """In the words that stay the same while it lasts."""
    detail: str = ""
    """Figures, or what came of it."""

    @property
    def reason(self) -> str:
        """Cause and detail in one line."""
        return f"{self.cause}: {self.detail}" if self.detail else self.cause


def _and(cause: str, lost: str) -> str:
    return f"{cause}; {lost}" if lost else cause


def level_of(state: str, reason: str) -> bytes:
    """Return how bad a state is; an arm that brakes because it was told to hold is well."""
    told = state == Status.BRAKING and not reason
    level: bytes = lifecycle.OK if told else _UNHEALTHY.get(state, lifecycle.OK)
    return level


def main(argv: list[str] | None = None) -> int:
    """Run the integrator node."""
    return lifecycle.run(IntegratorNode, argv)


if __name__ == "__main__":
    sys.exit(main())
