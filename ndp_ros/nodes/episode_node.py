# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The episode node: run episodes of a task in simulation, judge and record them.

Each episode is a start state from a seed, ``follow`` until the task is over, and a hold. The node
drives nothing itself: it calls the services of the integrator node.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from ndp_interfaces.msg import DmpParameters, Status
from ndp_interfaces.srv import Reset
from rclpy.node import Node
from std_srvs.srv import Trigger

from ndp_ros import checkpoint
from ndp_ros.config import param
from ndp_ros.errors import NdpError, StreamError
from ndp_ros.nodes import diagnostics, lifecycle, parameters, qos, scheduling
from ndp_ros.nodes.clocks import clock_of_stamps, steady_clock
from ndp_ros.nodes.diagnostics import Health
from ndp_ros.nodes.episode_report import EpisodeReport
from ndp_ros.nodes.integrator_client import ANSWER_TIMEOUT, START_TIMEOUT, IntegratorClient
from ndp_ros.nodes.partners import Partners
from ndp_ros.nodes.process import StopSignals, make_executor, ros
from ndp_ros.nodes.samples import Sample, Sampler
from ndp_ros.nodes.task import task_of
from ndp_ros.paths import find_checkpoint
from ndp_ros.tasks.recording import Recording

NAME = "episode_node"

_FOLLOW_TIMEOUT = 20.0
_REST_TIMEOUT = 10.0
_READY = (Status.HOLDING, Status.WAITING, Status.FOLLOWING, Status.FAULT)


@dataclass(frozen=True)
class EpisodeNodeConfig:
    """Parameters of the episode node."""

    checkpoint: str = param(doc="Checkpoint that is run; its task judges the episodes.")
    episodes: int = param(10, doc="Episodes to run.", minimum=1, maximum=100000)
    seed: int = param(
        0, doc="Start state of the first episode; each next episode adds 1.", minimum=0
    )
    task_options: tuple[str, ...] = lifecycle.task_options_param()
    record: bool = param(
        True, doc="Write recordings, plots, a film and a contact sheet after the last episode."
    )
    out: str = param("out", doc="Folder for recordings, film, plots and results.")
    prefix: str = lifecycle.prefix_param()
    integrator: str = param("integrator_node", doc="Name of the integrator node.")
    node_priority: int = scheduling.priority_param(20)


class InterruptionError(NdpError):
    """SIGINT or SIGTERM."""


class EpisodeNode(Node):
    """Conducts the episodes; every wait has an end and names what did not come."""

    def __init__(self, signals: StopSignals) -> None:
        super().__init__(NAME)
        self.config = parameters.declare_and_read(self, EpisodeNodeConfig)
        saved = checkpoint.load(find_checkpoint(self.config.checkpoint))
        options = self.config.task_options
        self.task = task = task_of(saved, options)
        self.judge = task.judge()
        self.report = EpisodeReport(saved, self.config.out, task.units, options)
        self._signals = signals
        self._segments = 0
        self._clock_of_stamps = clock_of_stamps(self)
        self._heard = -math.inf
        self._recording: Recording | None = None
        self._start = math.inf
        """Time of the first sample of the episode on the arm's clock [s]."""
        self._integrator = IntegratorClient(self, self.config.integrator, self._wait)
        names = [self.config.prefix + name for name in task.joint_names]
        self.sampler = Sampler(self, names, task.objects, [*task.signals], self._on_sample)
        self.create_subscription(
            DmpParameters, "ndp/dmp_parameters", self._on_segment, qos.PARAMETERS
        )
        self._partners = Partners(self)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        period = diagnostics.DIAGNOSTICS_PERIOD
        self.create_timer(period, self._report_health, clock=steady_clock())
        self._executor = make_executor()
        self._executor.add_node(self)

    def run(self) -> None:
        """Run all episodes, print a line for each, and write the results.

        Raises:
            InterruptionError: If the process was asked to end; the episodes until then are printed
                and written.
            NdpError: If the system does not do its part.
        """
        config = self.config
        # Without priority on a busy machine, answers to requests would queue behind seconds of
        # states, and the node would give up on a system that works.
        scheduling.set_realtime_priority(config.node_priority)
        self._wait_for_system()
        try:
            for n in range(config.episodes):
                self.report.add(self._episode(config.seed + n), config.episodes)
        except InterruptionError:
            if self.report.episodes:
                self.report.write(self._integrator)
            raise
        scheduling.clear_realtime_priority()
        # The video takes minutes in which nothing is reported.
        self._publish_health("finalized")
        self.report.write(self._integrator)
        if config.record:
            self.report.record(self._raise_if_interrupted)

    def hold(self) -> None:
        """Ask the arm to hold, without waiting for long."""
        self._integrator.hold_soon(self._executor)

    def destroy_node(self) -> None:
        """Leave the graph at once; an executor that still has the node would keep it there."""
        self._publish_health("finalized")
        self._executor.shutdown()
        super().destroy_node()

    # -- one episode ------------------------------------------------------------------------

    def _wait_for_system(self) -> None:
        """Wait for a simulated arm at rest, its state, and a policy that sees it.

        Raises:
            StreamError: If one of them does not come; the message names it.
        """
        arm = self._integrator
        self._wait(lambda: arm.state in _READY, START_TIMEOUT, "the integrator node")
        self._wait(lambda: self._heard > -math.inf, START_TIMEOUT, "joint states and object poses")
        self._wait(lambda: self._segments > 0, START_TIMEOUT, "segments of the policy node")
        if arm.status is not None and not arm.status.simulated:
            raise StreamError(
                f"{arm.status.arm} is not simulated: the episodes of a real arm are not judged"
            )

    def _episode(self, seed: int) -> dict[str, Any]:
        """Run one episode and return its figures.

        Raises:
            StreamError: If the system does not do its part.
        """
        arm = self._integrator
        if arm.state == Status.FAULT:
            arm.call("clear_fault", Trigger.Request())
        arm.follow(False)
        self._wait(lambda: arm.state == Status.HOLDING, _REST_TIMEOUT, "the arm to come to rest")
        asked = time.monotonic()
        arm.call("reset", Reset.Request(seed=seed))
        self._wait(lambda: self._heard > asked, ANSWER_TIMEOUT, "the new start state")
        self.judge.begin(seed)
        arm.expect_following()
        self._start = math.inf
        self._recording = recording = Recording(seed, self.task.joint_names)
        try:
            problem = self._follow_until_over()
        finally:
            self._recording = None
        self.report.recordings.append(recording)
        summary, ended = self.judge.summary(), time.monotonic()
        arm.follow(False)
        self._wait(lambda: arm.figures_at >= ended, ANSWER_TIMEOUT, "the integrator's figures")
        return {
            "seed": seed,
            **summary,
            "duration": recording.times[-1] if recording.times else 0.0,
            "worst_late_us": arm.figure("lateness_us_max_since_reset"),
            "missed_ticks": int(arm.figure("missed_since_reset")),
            "problem": problem,
        }

    def _follow_until_over(self) -> str:
        """Let the arm follow until the episode is over; return what kept it from following."""
        arm = self._integrator
        arm.follow(True)
        self._wait(
            lambda: math.isfinite(self._start), _FOLLOW_TIMEOUT, "a segment that is followed"
        )
        timeout = self.task.duration + _FOLLOW_TIMEOUT
        ended = lambda: self.judge.over or arm.state == Status.FAULT  # noqa: E731
        self._wait(ended, timeout, "the end of the episode")
        if arm.status is None or arm.state == Status.FOLLOWING:
            return ""
        return f"{arm.state} {arm.status.reason}".strip()

    def _on_sample(self, sample: Sample) -> None:
        self._heard = when = self._clock_of_stamps.monotonic(sample.stamp)
        if self._recording is None or when < self._integrator.follows_at:
            return
        if not math.isfinite(self._start):
            self._start = sample.clock
            self._recording.segments.append(0.0)
        # An episode is timed by the arm's clock.
        at = sample.clock - self._start
        self._recording.add(at, sample.position, sample.setpoint, sample.poses)
        self.judge.feed(at, sample.position, {**sample.poses, **sample.signals})

    def _on_segment(self, _message: DmpParameters) -> None:
        self._segments += 1
        if self._recording is not None and self._recording.times:
            self._recording.segments.append(self._recording.times[-1])

    # -- waiting and reporting --------------------------------------------------------------

    def _raise_if_interrupted(self) -> None:
        if self._signals.received:
            raise InterruptionError("interrupted")

    def _wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Spin until a condition holds.

        Raises:
            StreamError: If it does not within ``timeout`` [s], or the integrator is gone.
            InterruptionError: If the process was asked to end.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            self._raise_if_interrupted()
            if self._integrator.status is not None and self.count_publishers("ndp/status") == 0:
                raise StreamError("the integrator node is gone")
            if time.monotonic() > deadline:
                cause = self._partners.lost() or self._partners.starved()
                raise StreamError(f"waited {timeout:g} s for {what}{': ' if cause else ''}{cause}")
            self._executor.spin_once(timeout_sec=0.1)

    def _report_health(self) -> None:
        # No default argument: newer releases of rclpy pass timer information to a callback.
        self._publish_health("active")

    def _publish_health(self, state: str) -> None:
        lost, starved = self._partners.lost(), self._partners.starved()
        level = diagnostics.ERROR if lost else diagnostics.WARN if starved else diagnostics.OK
        values = {"episodes": len(self.report.episodes)}
        health = Health(level, lost or starved or "runs episodes", values)
        self._diagnostics.publish(diagnostics.to_message(self, state, health))


def main(argv: list[str] | None = None) -> int:
    """Run the episode node; return 0 if all episodes were run."""
    with ros(argv) as signals:
        node: EpisodeNode | None = None
        try:
            node = EpisodeNode(signals)
            node.run()
        except InterruptionError:
            if node is not None:
                node.hold()
            return 130
        except NdpError as error:
            print(f"{NAME}: {error}", file=sys.stderr, flush=True)
            return 1
        finally:
            if node is not None:
                node.destroy_node()
    return 0


if __name__ == "__main__":
    sys.exit(main())
