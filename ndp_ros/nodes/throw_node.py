"""The throw node: lets the system throw, judges where the cube lands, and reports.

For each throw: a start state from a seed, follow, watch until the episode is over, hold.
It drives nothing itself; everything goes through the integrator's services.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from ndp_interfaces.msg import DmpParameters, Status
from ndp_interfaces.srv import Reset
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from ndp_ros import checkpoint
from ndp_ros.bringup import task_arguments
from ndp_ros.config import param
from ndp_ros.errors import NdpError, StreamError, TaskError
from ndp_ros.nodes import lifecycle, parameters, qos
from ndp_ros.nodes.clocks import SystemClock, keep_system_time, refuse_sim_time, steady_clock
from ndp_ros.nodes.lifecycle import StopSignals, make_executor
from ndp_ros.nodes.messages import seconds
from ndp_ros.nodes.observer import JOINT_STATES, SETPOINT, pose_topic
from ndp_ros.nodes.partners import Partners
from ndp_ros.outputs import write_output
from ndp_ros.paths import find_checkpoint
from ndp_ros.tasks.replay import Recording, Replay, film, plot
from ndp_ros.tasks.throw import Throw

Array = NDArray[np.float64]

NAME = "throw_node"
RESULT, VIDEO, PLOT = "throws.json", "throws.mp4", "throw.png"

_START_TIMEOUT = 90.0
_ANSWER_TIMEOUT = 15.0
_ASK_AGAIN = 3.0
_FOLLOW_TIMEOUT = 20.0
_REST_TIMEOUT = 10.0
_MOST_SAMPLES = 1000
"""Incomplete samples that are kept; a clock that is set back leaves some behind."""
_FRAME = (480, 360)


@dataclass(frozen=True)
class ThrowNodeConfig:
    """Parameters of the throw node."""

    checkpoint: str = param(doc="Checkpoint that throws: it says which task judges.")
    throws: int = param(10, doc="Throws to make.", minimum=1, maximum=100000)
    seed: int = param(0, doc="Start state of the first throw; each next throw adds 1.", minimum=0)
    record: bool = param(True, doc="Write a video and a plot once all throws are made.")
    out: str = param("out", doc="Folder for video, plot and results.")
    integrator: str = param("integrator_node", doc="Name of the integrator node.")
    node_priority: int = param(
        0, doc="SCHED_FIFO priority of this node during the throws, where permitted; 0 for none.",
        minimum=0, maximum=98,
    )  # fmt: skip


class InterruptionError(NdpError):
    """SIGINT or SIGTERM."""


class ThrowNode(Node):
    """Conducts the throws; every wait has an end and says what it waited for."""

    def __init__(self, signals: StopSignals) -> None:
        super().__init__(NAME)
        parameters.declare(self, ThrowNodeConfig)
        refuse_sim_time(self)
        self.add_on_set_parameters_callback(keep_system_time)
        self.config = parameters.read(self, ThrowNodeConfig)
        saved = checkpoint.load(find_checkpoint(self.config.checkpoint))
        self.checkpoint = saved.id
        self.arguments = task_arguments(saved)
        self.replay = Replay(Throw(**self.arguments))
        self._signals = signals
        self.recordings: list[Recording] = []
        self._status: Status | None = None
        self._figures: dict[str, str] = {}
        self._figures_at = -math.inf
        self._segments = 0
        self._system_clock = SystemClock()
        self._samples: dict[float, dict[str, Array]] = {}
        self._heard = -math.inf
        self._recording: Recording | None = None
        self._follows_at = self._start = math.inf
        self._integrator: dict[str, Any] = {
            name: self.create_client(kind, f"{self.config.integrator}/{name}")
            for kind, name in ((SetBool, "follow"), (Reset, "reset"), (Trigger, "clear_fault"))
        }
        self._executor = make_executor()
        self._executor.add_node(self)
        self.create_subscription(JointState, JOINT_STATES, self._on_joints, qos.RECORD)
        self.create_subscription(JointTrajectory, SETPOINT, self._on_setpoint, qos.RECORD)
        for name in Throw.objects:
            callback = partial(self._on_pose, name)
            self.create_subscription(PoseStamped, pose_topic(name), callback, qos.RECORD)
        self.create_subscription(Status, "ndp/status", self._on_status, qos.LATCHED)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.create_subscription(
            DmpParameters, "ndp/dmp_parameters", self._on_segment, qos.PARAMETERS
        )
        self._partners = Partners(self)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(lifecycle.DIAGNOSTICS_PERIOD, self._report_life, clock=steady_clock())

    # -- what is heard ----------------------------------------------------------------------

    def _on_status(self, message: Status) -> None:
        if message.state == Status.FOLLOWING and not math.isfinite(self._follows_at):
            self._follows_at = self._when(message.header.stamp)
        self._status = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if f"/{status.name}" == self.resolve_service_name(self.config.integrator):
                self._figures = {pair.key: pair.value for pair in status.values}
                self._figures_at = self._when(message.header.stamp)

    def _on_segment(self, _message: DmpParameters) -> None:
        self._segments += 1

    def _on_pose(self, name: str, message: PoseStamped) -> None:
        p, q = message.pose.position, message.pose.orientation
        self._gather(message.header.stamp, name, np.array([p.x, p.y, p.z, q.w, q.x, q.y, q.z]))

    def _on_joints(self, message: JointState) -> None:
        if self.replay.of_this_arm(message.name, message.position):
            self._gather(message.header.stamp, JOINT_STATES, np.array(message.position))

    def _on_setpoint(self, message: JointTrajectory) -> None:
        if not message.points:
            return
        point = message.points[0]
        if not self.replay.of_this_arm(message.joint_names, point.positions):
            return
        clock = seconds(point.time_from_start)
        self._gather(message.header.stamp, SETPOINT, np.array([clock, *point.positions]))

    def _gather(self, at: Time, name: str, value: Array) -> None:
        """Put joints and poses of one instant together; those that stay incomplete are dropped.

        An arm of one instant with a cube of another would look as if the cube had left
        the hand. A throw is timed by the arm's clock, which comes with the setpoint.
        """
        stamp = seconds(at)
        sample = self._samples.setdefault(stamp, {})
        sample[name] = value
        if len(sample) < 2 + len(Throw.objects):
            if len(self._samples) > _MOST_SAMPLES:
                self._samples.pop(next(iter(self._samples)))
            return
        self._samples = {later: s for later, s in self._samples.items() if later > stamp}
        self._heard = when = self._when(at)
        recording = self._recording
        if recording is None or when < self._follows_at:
            return
        position, setpoint = sample.pop(JOINT_STATES), sample.pop(SETPOINT)
        clock = float(setpoint[0])
        if not math.isfinite(self._start):
            self._start = clock
        recording.joint_names = self.replay.task.joint_names
        recording.times.append(clock - self._start)
        recording.position.append(position)
        recording.setpoint.append(setpoint[1:])
        recording.poses.append(sample)
        self.replay.feed(clock - self._start, position, sample)

    def _when(self, stamp: Time) -> float:
        """Return when something was stamped [s, CLOCK_MONOTONIC]."""
        return self._system_clock.monotonic(seconds(stamp))

    def _report_life(self) -> None:
        """Say on /diagnostics that this node lives."""
        # No default argument: newer releases of rclpy hand a timer's callback what it takes.
        self._report("active")

    def _report(self, state: str) -> None:
        """Say on /diagnostics how this node is, and who has died."""
        lost = self._partners.lost()
        level = lifecycle.ERROR if lost else lifecycle.OK
        values = {"throws": len(self.recordings)}
        health = lifecycle.Health(level, lost or "throws are made", values)
        self._diagnostics.publish(lifecycle.as_message(self, state, health))

    # -- waiting ----------------------------------------------------------------------------

    def _until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Spin until a condition holds.

        Raises:
            StreamError: If it does not within ``timeout`` [s], or the integrator is gone.
            InterruptionError: If the process was asked to end.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if self._signals.received:
                raise InterruptionError("interrupted")
            if self._status is not None and self.count_publishers("ndp/status") == 0:
                raise StreamError("the integrator node is gone")
            if time.monotonic() > deadline:
                lost = self._partners.lost()
                raise StreamError(
                    f"waited {timeout:g} s for {what}" + (f": {lost}" if lost else "")
                )
            self._executor.spin_once(timeout_sec=0.1)

    def _call(self, name: str, request: Any) -> Any:
        """Call a service of the integrator and return its response.

        Raises:
            StreamError: If it does not answer, or refuses.
        """
        client = self._integrator[name]
        self._until(client.service_is_ready, _START_TIMEOUT, f"the service ~/{name}")
        deadline = time.monotonic() + _ANSWER_TIMEOUT
        while True:
            # A server that has not yet found its client answers into the void: a machine that
            # is busy enough makes that likely, and asking twice does no harm here.
            future = client.call_async(request)
            try:
                self._until(future.done, _ASK_AGAIN, f"an answer from ~/{name}")
                break
            except StreamError:
                client.remove_pending_request(future)
                if time.monotonic() > deadline:
                    raise
        response: Any = future.result()
        if not response.success:
            raise StreamError(f"~/{name} refused: {response.message}")
        return response

    @property
    def _state(self) -> str:
        return self._status.state if self._status is not None else ""

    # -- throws -----------------------------------------------------------------------------

    def wait_for_system(self) -> None:
        """Wait for an arm at rest, its state, and a policy that sees it.

        Raises:
            StreamError: If something of it does not come; the message says what.
        """
        ready = (Status.HOLDING, Status.WAITING, Status.FOLLOWING, Status.FAULT)
        self._until(lambda: self._state in ready, _START_TIMEOUT, "the integrator node")
        self._until(
            lambda: self._heard > -math.inf, _START_TIMEOUT, "joint states and object poses"
        )
        self._until(lambda: self._segments > 0, _START_TIMEOUT, "segments of the policy node")
        if self._status is not None and not self._status.simulated:
            raise StreamError(f"{self._status.arm} is no simulated arm: its throws are not judged")

    def throw(self, seed: int) -> dict[str, Any]:
        """Make one throw and return its figures.

        Raises:
            StreamError: If the system does not do its part.
        """
        if self._state == Status.FAULT:
            self._call("clear_fault", Trigger.Request())
        self._call("follow", SetBool.Request(data=False))
        at_rest = (Status.HOLDING,)
        self._until(lambda: self._state in at_rest, _REST_TIMEOUT, "the arm to come to rest")
        asked = time.monotonic()
        self._call("reset", Reset.Request(seed=seed))
        self._until(lambda: self._heard > asked, _ANSWER_TIMEOUT, "the new start state")
        self.replay.begin(seed)
        self._follows_at = self._start = math.inf
        self._recording = recording = Recording(seed)
        text = ""
        try:
            self._call("follow", SetBool.Request(data=True))
            self._until(
                lambda: math.isfinite(self._start), _FOLLOW_TIMEOUT, "a segment that is followed"
            )
            horizon = self.replay.task.config.horizon
            self._until(
                lambda: self.replay.over or self._state == Status.FAULT,
                horizon + _FOLLOW_TIMEOUT, "the end of the throw",
            )  # fmt: skip
            if self._status is not None and self._state != Status.FOLLOWING:
                text = f"{self._state} {self._status.reason}".strip()
        finally:
            self._recording = None
        summary = self.replay.summary()
        self.recordings.append(recording)
        ended = time.monotonic()
        self._call("follow", SetBool.Request(data=False))
        self._until(lambda: self._figures_at >= ended, _ANSWER_TIMEOUT, "the integrator's figures")
        landed = bool(summary["landed"])
        return {
            "seed": seed,
            "in_bin": bool(summary["success"]),
            "landing": [float(v) for v in summary["landing"]] if landed else None,
            "miss": float(summary["miss"]) if landed else None,
            "duration": recording.times[-1] if recording.times else 0.0,
            "worst_late_us": self._figure("lateness_us_max_since_reset"),
            "missed_ticks": int(self._figure("missed_since_reset")),
            "problem": text,
        }

    def _figure(self, name: str) -> float:
        return float(self._figures.get(name, "nan"))

    def result(self, throws: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what ``ndp sim --json`` prints."""
        return {
            "throws": len(throws),
            "in_bin": sum(t["in_bin"] for t in throws),
            "checkpoint": self.checkpoint,
            "rate_hz": self._figure("rate_hz"),
            "ticks": int(self._figure("ticks")),
            "missed_ticks": int(self._figure("missed_ticks")),
            "lateness_us": {n: self._figure(f"lateness_us_{n}") for n in ("p50", "p99", "max")},
            "segments": {
                n: int(self._figure(n)) for n in ("accepted", "dropped", "refused", "stretched")
            },
            "guard": {
                n.removeprefix("guard_"): int(v)
                for n, v in self._figures.items()
                if n.startswith("guard_")
            },
            "scheduler": self._figures.get("scheduler", ""),
            "each": throws,
        }

    def run(self) -> dict[str, Any]:
        """Make all throws, a line each, and return the result.

        Raises:
            InterruptionError: If the process was asked to end; what was made until then is
                told and written.
            NdpError: If the system does not do its part.
        """
        config = self.config
        # Kept from running by other work it would find the answers to its requests behind
        # seconds of states, and give up on a system that does its part.
        lifecycle.prefer(config.node_priority)
        self.wait_for_system()
        throws: list[dict[str, Any]] = []
        try:
            for n in range(config.throws):
                throws.append(self.throw(config.seed + n))
                print(_line(n + 1, config.throws, throws[-1]), flush=True)
        except InterruptionError:
            # What was made is worth as much as if no more had been asked for.
            if throws:
                self._conclude(throws)
            raise
        lifecycle.no_longer_prefer()
        # Drawing takes minutes without a sign of life.
        self._report("finalized")
        return self._conclude(throws)

    def _conclude(self, throws: list[dict[str, Any]]) -> dict[str, Any]:
        """Tell and write what was made, and return it.

        Raises:
            TaskError: If it cannot be written.
        """
        result = self.result(throws)
        print(_summary(result), flush=True)
        path = Path(self.config.out) / RESULT
        try:
            write_output(path, json.dumps(result, indent=1) + "\n")
        except OSError as error:
            raise TaskError(f"cannot write {path}: {error.strerror}") from error
        return result

    def record(self) -> None:
        """Write plot and video; what cannot be made is said in one line."""
        out = Path(self.config.out)
        try:
            plot(self.recordings[0], out / PLOT)
            print(f"plot: {out / PLOT}", flush=True)
            task = Throw(**self.arguments, render_mode="rgb_array", size=_FRAME)
            film(Replay(task), self.recordings, out / VIDEO, progress=self._progress())
            task.close()
            print(f"video: {out / VIDEO}", flush=True)
        except TaskError as error:
            print(f"no recording: {error}", file=sys.stderr, flush=True)

    def _progress(self) -> Callable[[float], None]:
        """Return what shows how far the video is, a line every three seconds."""
        last = time.monotonic()

        def show(share: float) -> None:
            nonlocal last
            if self._signals.received:
                raise InterruptionError("interrupted")
            if time.monotonic() - last > 3.0:
                last = time.monotonic()
                print(f"video: {share:.0%} drawn", file=sys.stderr, flush=True)

        return show

    def destroy_node(self) -> None:
        """Leave the graph at once: an executor that knows the node keeps it there."""
        self._report("finalized")
        self._executor.shutdown()
        super().destroy_node()

    def hold(self) -> None:
        """Ask the arm to hold, without waiting long; for an end before time."""
        client = self._integrator["follow"]
        if client.service_is_ready():
            future = client.call_async(SetBool.Request(data=False))
            self._executor.spin_until_future_complete(future, timeout_sec=1.0)


def _line(n: int, of: int, throw: dict[str, Any]) -> str:
    verdict = "in the bin" if throw["in_bin"] else "NOT in the bin"
    if throw["landing"] is None:
        where = "did not come down"
    else:
        x, y = throw["landing"]
        where = f"landed at x {x:.2f} y {y:+.2f} m, {throw['miss'] * 100:.0f} cm from the middle"
    problem = f"  ({throw['problem']})" if throw["problem"] else ""
    return (
        f"throw {n:2}/{of}  {verdict:14}  {where:55}  "
        f"worst late tick {throw['worst_late_us'] / 1e3:.2f} ms, {throw['missed_ticks']} missed"
        f"{problem}"
    )


def _summary(result: dict[str, Any]) -> str:
    late = ", ".join(f"{value:.1f} us ({n})" for n, value in result["lateness_us"].items())
    return (
        f"{result['in_bin']} of {result['throws']} in the bin, {result['checkpoint']} at "
        f"{result['rate_hz']:g} Hz: {result['ticks']} ticks, {result['missed_ticks']} missed, "
        f"late by {late}"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the throw node; return 0 if all throws were made."""
    with StopSignals(process_ends=argv is None) as signals:
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
        node: ThrowNode | None = None
        try:
            node = ThrowNode(signals)
            node.run()
            if node.config.record:
                node.record()
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
            rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
