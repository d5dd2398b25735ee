# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The policy node: run Φ on the observation once per segment and publish DMP parameters.

A segment is due every k · control_dt on the arm's clock, which comes with the setpoints and is as
slow as a simulation. A new checkpoint is loaded in a thread of its own and takes over at the next
segment; one that does not fit is refused, and the running one goes on.
"""

from __future__ import annotations

import math
import secrets
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from ndp_interfaces.msg import DmpParameters
from ndp_interfaces.srv import LoadCheckpoint
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.parameter import Parameter
from rclpy.subscription import Subscription
from rclpy.task import Future
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from ndp_ros.config import param
from ndp_ros.errors import CheckpointError, NdpError, describe
from ndp_ros.nodes import diagnostics, lifecycle, parameters, process, qos, scheduling
from ndp_ros.nodes.clocks import clock_of_stamps
from ndp_ros.nodes.diagnostics import Health
from ndp_ros.nodes.lifecycle import NdpNode
from ndp_ros.nodes.messages import Parameters, parameters_to_message, seconds
from ndp_ros.nodes.observer import (
    JOINT_STATES,
    NOT_YET,
    SETPOINT,
    Observer,
    pose_topic,
    signal_topic,
)
from ndp_ros.nodes.phi import Phi

NAME = "policy_node"

_RECENT = 2.0
"""Time for which joint states of another publisher are worth a warning [s]."""
_START = 5.0
"""Time after the activation in which no first message is nothing to warn of [s]."""
_SWITCH_INTERVAL = 2e-4
"""Time after which a thread gives the interpreter to another one that waits for it [s]."""


@dataclass(frozen=True)
class PolicyNodeConfig:
    """Parameters of the policy node."""

    checkpoint: str = param(doc="Checkpoint folder, or the name of one that ships.")
    arm: str = param("", doc="Arm that the checkpoint must be made for; empty for any.")
    max_observation_age: float = param(
        0.1,
        doc="Age from which a part of the observation counts as missing.",
        unit="s",
        minimum=0.001,
        maximum=60.0,
    )
    base_frame: str = param("base", doc="Frame in which object poses must be given.")
    prefix: str = lifecycle.prefix_param()
    node_priority: int = scheduling.priority_param(30)
    autostart: bool = lifecycle.autostart_param()


class PolicyNode(NdpNode):
    """Runner of Φ: one observation in and one message of DMP parameters out per segment."""

    def __init__(self, **options: Any) -> None:
        writable = "checkpoint", "max_observation_age"
        super().__init__(NAME, PolicyNodeConfig, writable=writable, **options)
        self._phi: Phi | None = None
        self._next: Phi | None = None
        self._observer: Observer | None = None
        self._inputs: list[Subscription[Any]] = []
        self._running = False
        self._due = -math.inf
        """Time at which the next segment is due on the arm's clock [s]."""
        self._arm_clock = self._ran = -math.inf
        self._trouble: list[str] = []
        self._started = -math.inf
        self._config = PolicyNodeConfig(checkpoint="")
        self._clock_of_stamps = clock_of_stamps(self)
        self._foreign, self._foreign_at = 0, -math.inf
        self._session = secrets.randbits(63) + 1
        self._sequence = 0
        self._forward: deque[float] = deque(maxlen=200)
        self._refusal = ""
        self._accepting = False
        self._scheduler = ""
        self._output = self.create_lifecycle_publisher(
            DmpParameters, "ndp/dmp_parameters", qos.PARAMETERS
        )
        # A service that awaits a file must not keep Φ from running.
        self.create_service(
            LoadCheckpoint,
            "~/load_checkpoint",
            self._on_load,
            callback_group=ReentrantCallbackGroup(),
        )

    # -- life cycle -------------------------------------------------------------------------

    def configure(self) -> None:
        """Load the checkpoint and subscribe to the topics of its observation."""
        self._config = parameters.read(self, PolicyNodeConfig)
        self._adopt(Phi(self._config.checkpoint, self._config.arm))

    def activate(self) -> None:
        """Run Φ from the next setpoint on."""
        self._scheduler = scheduling.set_realtime_priority(self._config.node_priority)
        self._running, self._due = True, -math.inf
        self._started = time.monotonic()

    def deactivate(self) -> None:
        """Stop running Φ."""
        self._running = False

    def cleanup(self) -> None:
        """Release the checkpoint."""
        self._running = False
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs.clear()
        self._phi = self._next = self._observer = None

    # -- one segment ------------------------------------------------------------------------

    def _on_setpoint(self, message: JointTrajectory) -> None:
        """Run Φ if a segment is due; with an incomplete observation, try at the next setpoint."""
        phi, observer = self._phi, self._observer
        if phi is None or observer is None:
            return
        observer.on_setpoint(message)
        if not self._running or not message.points:
            return
        now, period = seconds(message.points[0].time_from_start), phi.spec.segment_duration
        # A clock that has stopped waits for a segment: the last one was lost.
        waits = now == self._arm_clock and time.monotonic() - self._ran > period
        self._arm_clock = now
        # A clock that was set back is a new one.
        if self._due - period <= now < self._due and not waits:
            return
        if not self._segment():
            return
        self._ran = time.monotonic()
        if waits:
            return
        late = now - self._due
        self._due = self._due + period if 0.0 <= late < 0.5 * period else now + period

    def _segment(self) -> bool:
        """Run Φ and publish its output; return whether the observation allowed it."""
        if self._next is not None:
            self._adopt(self._next)
        phi, observer = self._phi, self._observer
        if phi is None or observer is None:
            return False
        if observer.missing(self._clock_of_stamps.age, self._config.max_observation_age):
            return False
        if not observer.of_one_instant():
            return False
        started = time.perf_counter()
        obs, stamp = observer.observe()
        g, w = phi(obs)
        self._forward.append(time.perf_counter() - started)
        if not (np.isfinite(g).all() and np.isfinite(w).all()):
            self._trouble = ["phi (its output is not finite)"]
            return True
        self._trouble = []
        self._sequence += 1
        self._output.publish(
            parameters_to_message(
                Parameters(
                    joint_names=observer.joint_names,
                    g=g,
                    w=w,
                    config=phi.spec.dmp,
                    duration=phi.spec.segment_duration,
                    stamp=stamp,
                    session=self._session,
                    sequence=self._sequence,
                    checkpoint=phi.id,
                    origin=obs[phi.setpoint],
                )
            )
        )
        return True

    def _adopt(self, phi: Phi) -> None:
        """Run a loaded checkpoint from now on."""
        new = self._phi is None or self._phi.spec.observation != phi.spec.observation
        self._phi, self._next = phi, None
        self._forward.clear()
        if new:
            self._observer = self._observer_of(phi)
            self._subscribe(self._observer)
        self.get_logger().info(
            f"{phi.id}: {phi.spec.task} on {phi.spec.arm}, a segment every "
            f"{phi.spec.segment_duration:g} s"
        )

    def _observer_of(self, phi: Phi) -> Observer:
        """Return an observer of the topics that a checkpoint needs.

        Raises:
            ConfigError: If there is no topic for a field of its observation.
        """
        spec, config = phi.spec, self._config
        names = [config.prefix + name for name in spec.joint_names]
        return Observer(spec.observation, names, config.base_frame)

    def _subscribe(self, observer: Observer) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs.clear()
        self._inputs += [
            self.create_subscription(JointState, JOINT_STATES, observer.on_joint_states, qos.STATE),
            self.create_subscription(JointTrajectory, SETPOINT, self._on_setpoint, qos.STATE),
        ]
        for name in observer.objects:
            callback = partial(observer.on_pose, name)
            self._inputs.append(
                self.create_subscription(PoseStamped, pose_topic(name), callback, qos.STATE)
            )
        for name in observer.signals:
            take = partial(observer.on_signal, name)
            self._inputs.append(
                self.create_subscription(JointState, signal_topic(name), take, qos.STATE)
            )

    # -- another checkpoint -----------------------------------------------------------------

    def _load(self, name: str) -> Phi | NdpError:
        """Return a checkpoint that can take over, or the error that keeps it from doing so.

        Both ways to another checkpoint, the service and the parameter, lead through here, and
        whatever is offered, the one that runs goes on.
        """
        try:
            return self._require(name)
        except NdpError as error:
            return error
        except Exception as error:
            return CheckpointError(f"{name}: {describe(error)}")

    def _require(self, name: str) -> Phi:
        """Return a checkpoint that can take over.

        Raises:
            NdpError: If it is damaged, drives other joints or observes what is not published.
        """
        # An arm that differs is one of the differences.
        phi = Phi(name, "" if self._phi is not None else self._config.arm)
        topics = self._observer_of(phi).topics
        if self._phi is not None and self._observer is not None:
            new = (topic for topic in topics if topic not in self._observer.topics)
            absent = [topic for topic in new if not self.count_publishers(topic)]
            phi.require_fit(self._phi, absent)
        return phi

    async def _on_load(
        self, request: LoadCheckpoint.Request, response: LoadCheckpoint.Response
    ) -> LoadCheckpoint.Response:
        """Load a checkpoint in a thread of its own, while segments go on."""
        done: Future[Phi | NdpError] = Future(executor=self.executor)

        def load() -> None:
            done.set_result(self._load(request.path))

        threading.Thread(target=load, name="load checkpoint", daemon=True).start()
        result = await done
        if isinstance(result, NdpError):
            self._refuse(str(result))
            response.success, response.message = False, str(result)
            response.checkpoint = self._phi.id if self._phi is not None else ""
            return response
        assert isinstance(result, Phi)
        self._take(result)
        self._accepting = True
        self.set_parameters([Parameter("checkpoint", value=request.path)])
        self._accepting = False
        response.success, response.checkpoint = True, result.id
        response.message = (
            "runs from the next segment on"
            if self.state == "active"
            else f"is loaded; the node is {self.state}, and it runs once that is active"
        )
        return response

    def on_change(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        """Accept a change of parameters if the checkpoint that it names can take over."""
        for change in changes:
            if change.name == "checkpoint" and not self._accepting:
                if self._phi is None:
                    continue
                loaded = self._load(str(change.value))
                if isinstance(loaded, NdpError):
                    self._refuse(str(loaded))
                    return SetParametersResult(successful=False, reason=str(loaded))
                self._take(loaded)
        values = {change.name: change.value for change in changes}
        known = {name: values[name] for name in values if hasattr(self._config, name)}
        self._config = PolicyNodeConfig(**{**vars(self._config), **known})
        return SetParametersResult(successful=True)

    def _take(self, phi: Phi) -> None:
        """Let a checkpoint take over at the next segment."""
        self._refusal = ""
        if not self._running:
            self._adopt(phi)
        else:
            self._next = phi

    def _refuse(self, text: str) -> None:
        self._refusal = text
        self.get_logger().error(f"checkpoint refused, the old one goes on: {text}")

    # -- diagnostics ------------------------------------------------------------------------

    def health(self) -> Health:
        """Return the checkpoint, the duration of a forward pass, and what is missing."""
        values: dict[str, object] = {"state": self.state, "segments": self._sequence}
        if self._phi is not None:
            values["checkpoint"] = self._phi.id
            values["period_s"] = self._phi.spec.segment_duration
            values["node_scheduler"] = self._scheduler
        if self._forward:
            values["phi_us_p50"] = float(np.median(self._forward) * 1e6)
            values["phi_us_max"] = float(max(self._forward) * 1e6)
        if self._refusal:
            values["refused"] = self._refusal
        if self.state != "active":
            return Health(diagnostics.OK, self.state, values)
        missing = list(self._trouble)
        if self._observer is not None:
            age_of, oldest = self._clock_of_stamps.age, self._config.max_observation_age
            missing += self._observer.missing(age_of, oldest)
        if missing:
            values["missing"] = "; ".join(missing)
            topics = ", ".join(phrase.split(" ")[0] for phrase in missing)
            starting = time.monotonic() - self._started < _START
            if starting and any(NOT_YET in phrase for phrase in missing):
                return Health(diagnostics.OK, f"waiting for {topics}", values)
            return Health(diagnostics.WARN, f"observation incomplete: {topics}", values)
        foreign, now = self._observer.foreign if self._observer is not None else 0, time.monotonic()
        values["joint_states_without_setpoint"] = foreign
        if foreign != self._foreign:
            self._foreign, self._foreign_at = foreign, now
        if now - self._foreign_at < _RECENT:
            # The loss of a setpoint of the own arm is not worth a warning.
            others = self._nodes_that_publish(JOINT_STATES) - self._nodes_that_publish(SETPOINT)
            if others:
                listed = ", ".join(sorted(others))
                text = f"joint_states of another publisher are ignored (published by {listed})"
                return Health(diagnostics.WARN, text, values)
        return Health(diagnostics.OK, "running", values)

    def _nodes_that_publish(self, topic: str) -> set[str]:
        """Return the full names of the nodes that publish a topic."""
        found = self.get_publishers_info_by_topic(self.resolve_topic_name(topic))
        return {f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in found}


def main(argv: list[str] | None = None) -> int:
    """Run the policy node."""
    # A checkpoint that is loaded beside must not keep the interpreter from a segment for long.
    sys.setswitchinterval(_SWITCH_INTERVAL)
    return process.run(PolicyNode, argv)


if __name__ == "__main__":
    sys.exit(main())
