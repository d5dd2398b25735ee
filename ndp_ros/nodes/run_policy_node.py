# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The node of the action ``run_policy``: let a policy drive the arm as one call with an end.

A behaviour tree calls a throw by it: the arm follows until the task has succeeded or the time is
over, then holds. The task's own code judges what the topics report, as in training.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ndp_interfaces.action import RunPolicy
from ndp_interfaces.msg import DmpParameters, Status
from ndp_interfaces.srv import LoadCheckpoint
from rclpy.action.server import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future

from ndp_ros import checkpoint
from ndp_ros.checkpoint import Checkpoint
from ndp_ros.config import param
from ndp_ros.control.arm import ArmConfig
from ndp_ros.errors import NdpError, StreamError
from ndp_ros.nodes import diagnostics, lifecycle, parameters, process, qos
from ndp_ros.nodes.diagnostics import Health
from ndp_ros.nodes.integrator_client import ANSWER_TIMEOUT, IntegratorClient
from ndp_ros.nodes.lifecycle import NdpNode
from ndp_ros.nodes.samples import Sample, Sampler
from ndp_ros.nodes.task import task_of
from ndp_ros.paths import find_checkpoint
from ndp_ros.tasks.contract import Judge, SimulatedTask

NAME = "run_policy_node"
ACTION = "run_policy"

_POLL = 0.02
_FEEDBACK_PERIOD = 0.1
_SPACING = 0.008
"""Shortest time between two samples that are judged [s]."""
_PATIENCE = 10.0
"""Longest time without a segment that is followed, and longest time to come to rest [s]."""
_LOAD_TIMEOUT = 60.0


@dataclass(frozen=True)
class RunPolicyConfig:
    """Parameters of the node of the action."""

    checkpoint: str = param(doc="Checkpoint that the policy node begins with.")
    task_options: tuple[str, ...] = lifecycle.task_options_param()
    prefix: str = lifecycle.prefix_param()
    integrator: str = param("integrator_node", doc="Name of the integrator node.")
    policy: str = param("policy_node", doc="Name of the policy node.")
    autostart: bool = lifecycle.autostart_param()


@dataclass
class Run:
    """One goal in progress."""

    samples: deque[Sample] = field(default_factory=deque)
    """Samples that have not been judged yet."""
    first: float = math.nan
    """Time of the first sample on the arm's clock [s]."""
    last: float = math.nan
    """Time of the newest sample on the arm's clock [s]."""
    segments: int = 0
    before: int = 0
    """Sequence number of the last segment that was not of this goal."""
    began: float = math.nan
    """Time at which the last segment came on the arm's clock [s]."""
    duration: float = math.inf
    """Duration of the last segment [s]."""
    checkpoint: str = ""
    error: float = 0.0
    worst: float = 0.0
    """Present and largest distance of an arm joint from its setpoint [rad]."""

    @property
    def elapsed(self) -> float:
        """Time for which the arm has followed [s]."""
        return 0.0 if math.isnan(self.first) else self.last - self.first

    @property
    def phase(self) -> float:
        """Part of the last segment that is over."""
        passed = (self.last - self.began) / self.duration
        return min(max(passed, 0.0), 1.0) if math.isfinite(passed) else 0.0


class RunPolicyNode(NdpNode):
    """Server of the action ``run_policy``, one goal at a time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(NAME, RunPolicyConfig, **options)
        self._config = RunPolicyConfig(checkpoint="")
        self._task: SimulatedTask | None = None
        self._judge_of_task: Judge | None = None
        self._saved: Checkpoint | None = None
        self._run: Run | None = None
        self._goals = 0
        self._n_arm = 0
        self._arm: IntegratorClient | None = None
        self.create_subscription(
            DmpParameters, "ndp/dmp_parameters", self._on_segment, qos.PARAMETERS
        )
        self._server = ActionServer(
            self,
            RunPolicy,
            ACTION,
            self._execute,
            goal_callback=self._on_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )

    def configure(self) -> None:
        """Load the checkpoint, and the task that judges what it does."""
        self._config = config = parameters.read(self, RunPolicyConfig)
        self._judge_by(config.checkpoint)
        saved = self._saved
        assert saved is not None
        arm = self._task.arm_file if self._task is not None else saved.spec.arm
        self._n_arm = ArmConfig.named(arm).n_arm
        if self._arm is None:
            self._arm = IntegratorClient(self, config.integrator, self._wait)
            self._loader: Any = self.create_client(
                LoadCheckpoint, f"{config.policy}/load_checkpoint"
            )

    def destroy_node(self) -> None:
        """Leave the graph."""
        self._server.destroy()
        super().destroy_node()

    def _judge_by(self, name: str) -> None:
        """Load a checkpoint and make its task; without a task here, nothing is judged."""
        self._saved = checkpoint.load(find_checkpoint(name))
        self._task = self._judge_of_task = None
        try:
            self._task = task_of(self._saved, self._config.task_options)
            self._judge_of_task = self._task.judge()
        except NdpError as error:
            self.get_logger().warning(f"success is not judged: {error}")

    # -- input --------------------------------------------------------------------------------

    def _on_sample(self, sample: Sample) -> None:
        if self._run is not None:
            self._run.samples.append(sample)

    def _on_segment(self, message: DmpParameters) -> None:
        run, arm = self._run, self._arm
        if run is None or arm is None or arm.state != Status.FOLLOWING:
            return
        if math.isnan(run.began):
            run.before = message.sequence - 1
        # By their own count: some messages may have been missed here.
        run.segments = message.sequence - run.before
        run.began, run.duration = run.last, message.duration
        run.checkpoint = message.checkpoint

    # -- goals --------------------------------------------------------------------------------

    def _on_goal(self, request: RunPolicy.Goal) -> GoalResponse:
        if self.state != "active":
            refusal = f"the node is {self.state}: activate it first"
        elif self._run is not None:
            refusal = "another goal runs: cancel it first"
        elif not (math.isfinite(request.duration) and request.duration >= 0.0):
            refusal = f"duration is {request.duration:g} s, expected 0 (the task's horizon) or more"
        else:
            refusal = ""
        if refusal:
            self.get_logger().warning(f"goal rejected: {refusal}")
            return GoalResponse.REJECT
        self._run = Run()
        return GoalResponse.ACCEPT

    async def _execute(self, goal: Any) -> RunPolicy.Result:
        """Run a goal in a thread of its own, while the node goes on to receive."""
        sampler: Sampler | None = None
        try:
            await self._aside(lambda: self._prepare(goal.request.checkpoint))
            sampler = self._sampler()
            end, success, message = await self._aside(lambda: self._drive(goal))
        except NdpError as error:
            end, success, message = "abort", False, str(error)
        finally:
            if sampler is not None:
                sampler.close()
        run, self._run = self._run, None
        assert run is not None
        self._goals += 1
        getattr(goal, end)()
        self.get_logger().info(f"{ACTION}: {message}")
        return RunPolicy.Result(
            success=success,
            message=message,
            checkpoint=run.checkpoint,
            segments=run.segments,
            duration=run.elapsed,
            tracking_error=run.worst,
        )

    async def _aside(self, work: Callable[[], Any]) -> Any:
        """Return the result of a function that a thread of its own runs, or raise its error."""
        done: Future[Any] = Future(executor=self.executor)

        def run() -> None:
            try:
                done.set_result(work())
            except NdpError as error:
                done.set_result(error)
            except Exception as error:
                done.set_result(StreamError(f"{type(error).__name__}: {error}"))

        threading.Thread(target=run, name=ACTION, daemon=True).start()
        result = await done
        if isinstance(result, NdpError):
            raise result
        return result

    def _sampler(self) -> Sampler:
        """Subscribe to the state of arm and objects, for as long as a goal runs."""
        assert self._saved is not None
        names = [self._config.prefix + name for name in self._saved.spec.joint_names]
        task = self._task
        objects, signals = (task.objects, [*task.signals]) if task is not None else ((), [])
        # Few messages may wait: on a busy machine, answers would queue behind old states.
        return Sampler(self, names, objects, signals, self._on_sample, qos.STATE)

    def _drive(self, goal: Any) -> tuple[str, bool, str]:
        """Let the arm follow until the goal ends, and bring it to rest.

        Returns:
            Name of the method that ends the goal, whether the task has succeeded, and why the arm
            has stopped.

        Raises:
            NdpError: If the system does not do its part; the arm has been asked to hold.
        """
        arm, request = self._arm, goal.request
        assert arm is not None
        arm.follow(True)
        try:
            end, message = self._follow(goal, request.duration, request.until_success)
        finally:
            arm.follow(False)
        self._wait(lambda: arm.state not in (Status.FOLLOWING, Status.BRAKING), _PATIENCE, "rest")
        return end, self._succeeded(), message

    def _follow(self, goal: Any, duration: float, until_success: bool) -> tuple[str, str]:
        """Judge and report until the goal ends; return how, and why."""
        arm, run = self._arm, self._run
        assert arm is not None and run is not None
        if not duration:
            if self._task is None:
                raise StreamError("duration is 0, and the task whose horizon counts is not here")
            duration = self._task.duration
        reported = followed = time.monotonic()
        while True:
            self._take_samples(run)
            now = time.monotonic()
            if goal.is_cancel_requested:
                return "canceled", "cancelled: the arm brakes and holds"
            if run.elapsed >= duration:
                return "succeed", f"{duration:g} s are over"
            state = arm.state
            if state == Status.FOLLOWING:
                followed = now
            elif state in (Status.FAULT, Status.STOPPED) or now - followed > _PATIENCE:
                reason = arm.status.reason if arm.status is not None else ""
                return "abort", f"the arm does not follow: {state} {reason}".rstrip()
            elif state == Status.HOLDING and run.segments:
                return "succeed", "the arm was asked to hold"
            if now - reported >= _FEEDBACK_PERIOD:
                reported = now
                goal.publish_feedback(_feedback(run, state))
                if until_success and self._succeeded():
                    return "succeed", "the task has succeeded"
            time.sleep(_POLL)

    def _take_samples(self, run: Run) -> None:
        """Judge the samples that have come since the arm follows."""
        arm, judge = self._arm, self._judge_of_task
        assert arm is not None
        for _ in range(len(run.samples)):
            sample = run.samples.popleft()
            if math.isnan(run.first):
                if arm.state != Status.FOLLOWING:
                    continue
                run.first = sample.clock
            elif sample.clock - run.last < _SPACING:
                continue
            run.last = sample.clock
            away = np.abs(sample.position - sample.setpoint)[: self._n_arm]
            run.error = float(away.max())
            run.worst = max(run.worst, run.error)
            if judge is not None:
                judge.feed(run.elapsed, sample.position, {**sample.poses, **sample.signals})

    def _succeeded(self) -> bool:
        judge = self._judge_of_task
        return judge is not None and bool(judge.summary().get("success"))

    def _prepare(self, name: str) -> None:
        """Let the policy node run another checkpoint unless the name is empty; reset the judge.

        Raises:
            NdpError: If the policy node refuses, or does not answer.
        """
        if name:
            self._load(name)
            self._judge_by(name)
        if self._judge_of_task is not None:
            self._judge_of_task.begin(0)

    def _load(self, name: str) -> None:
        self._wait(self._loader.service_is_ready, ANSWER_TIMEOUT, "the policy node")
        future = self._loader.call_async(LoadCheckpoint.Request(path=name))
        self._wait(future.done, _LOAD_TIMEOUT, "the policy node to load")
        answer: Any = future.result()
        if not answer.success:
            raise StreamError(answer.message)

    def _wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Wait in the thread of a goal, while the node's executor runs.

        Raises:
            StreamError: If the condition does not hold within ``timeout`` [s].
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise StreamError(f"waited {timeout:g} s for {what}; {self.lost()}".rstrip("; "))
            time.sleep(_POLL)

    def health(self) -> Health:
        """Return whether a goal runs."""
        values: dict[str, object] = {"goals": self._goals, "running": self._run is not None}
        return Health(diagnostics.OK, self.state, values)


def _feedback(run: Run, state: str) -> RunPolicy.Feedback:
    return RunPolicy.Feedback(
        state=state,
        segment=run.segments,
        phase=run.phase,
        tracking_error=run.error,
        elapsed=run.elapsed,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the node of the action."""
    return process.run(RunPolicyNode, argv)


if __name__ == "__main__":
    sys.exit(main())
