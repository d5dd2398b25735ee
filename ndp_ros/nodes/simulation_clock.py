# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Pause, step and publish the clock of a simulated arm, for the integrator node."""

from __future__ import annotations

import math
import time

from ndp_interfaces.srv import Step
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.task import Future
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool

from ndp_ros.errors import ConfigError
from ndp_ros.nodes import clocks
from ndp_ros.nodes.clocks import SimulatedClock, SystemClock
from ndp_ros.nodes.messages import stamp_of
from ndp_ros.nodes.requests import Requests
from ndp_ros.streaming.handle import StreamerHandle

_TOPIC = "/clock"
_PATIENCE = 30.0
"""Longest time that a step may take beyond its own length [s]."""


class SimulationClock:
    """The clock of the arm that a streamer drives, and the clock of its stamps.

    Attributes:
        paused: Whether the clock of a simulated arm is paused.
        stamps: The clock of the stamps of all that is published.
    """

    def __init__(self, node: Node, requests: Requests) -> None:
        self._node, self._requests = node, requests
        self._stream: StreamerHandle | None = None
        self._publisher: Publisher[Clock] | None = None
        self._step: tuple[Future[str], float, float] | None = None
        self.paused = False
        self.stamps: SystemClock | SimulatedClock = SystemClock()

    @property
    def stands(self) -> bool:
        """Whether the arm's clock is paused and no step is in progress."""
        return self.paused and self._step is None

    def open(self, stream: StreamerHandle) -> None:
        """Take over the clock of a streamer's arm; with ``use_sim_time`` it becomes ``/clock``.

        Raises:
            ConfigError: If another node publishes ``/clock`` already.
        """
        self.paused, self._stream = False, stream
        self.stamps = clocks.clock_of_stamps(self._node)
        if not (clocks.on_sim_time(self._node) and stream.simulated):
            return
        if others := self._node.get_publishers_info_by_topic(_TOPIC):
            raise ConfigError(
                f"use_sim_time is true, and {others[0].node_name} publishes {_TOPIC} already: only "
                "one simulated arm of a ROS domain keeps the time"
            )
        self._publisher = self._node.create_publisher(Clock, _TOPIC, 10)
        self.stamps = SimulatedClock(stream.arm_clock)

    def close(self) -> None:
        """Release the clock."""
        if self._step is not None:
            self._step[0].set_result("the node is being deactivated")
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
        self._publisher = self._stream = self._step = None

    def publish(self) -> float:
        """Publish the time of the state that was loaded last, and return its stamp [s]."""
        stream = self._stream
        assert stream is not None
        now = stream.arm_clock()
        if self._step is not None:
            done, target, deadline = self._step
            if now >= target or not self.paused:
                self._step = None
                done.set_result("" if now >= target else "the clock was resumed meanwhile")
            elif time.monotonic() > deadline:
                self._step = None
                done.set_result(f"the arm did not come to {target:.3f} s")
        if self._publisher is None:
            return self.stamps.stamp(stream.measured_at())
        self._publisher.publish(Clock(clock=stamp_of(now)))
        return now

    async def pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Answer the service that pauses or resumes the clock."""
        refusal = await self._ask("pause" if request.data else "resume")
        if not refusal:
            self.paused = request.data
        done = "the clock is paused" if request.data else "the clock runs"
        response.success, response.message = not refusal, refusal or done
        return response

    async def step(self, request: Step.Request, response: Step.Response) -> Step.Response:
        """Answer the service that moves a paused clock on, when the arm is there."""
        stream, ticks = self._stream, max(1, request.ticks)
        refusal = "another step is under way" if self._step is not None else ""
        if stream is not None and not refusal:
            span = ticks * stream.period
            done: Future[str] = Future(executor=self._node.executor)
            # Half a tick before: the sum of many ticks is not exact.
            target = stream.arm_clock() + span - 0.5 * stream.period
            self._step = done, target, time.monotonic() + span + _PATIENCE
            refusal = await self._ask("step", ticks)
            if refusal:
                self._step = None
            else:
                refusal = str(await done)
        response.success = stream is not None and not refusal
        response.message = refusal or ("1 tick" if ticks == 1 else f"{ticks} ticks")
        response.time = stream.arm_clock() if stream is not None else math.nan
        return response

    async def _ask(self, kind: str, ticks: int = 0) -> str:
        if self._stream is None:
            return "the node is not active: activate it first"
        return await self._requests.ask(self._stream, kind, ticks)
