"""The streamer: the loop that drives the arm.

    mailbox → follower → guard → Ω → guard → arm        at every tick, in this order

It has no ROS, no torch and no second thread. It ends by bringing the arm to rest, whatever
happens: on ``quit``, on SIGINT and SIGTERM, when its parent is gone, when the arm fails.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ndp_ros.arms.arm import Arm, Command, JointState, SimulatedArm
from ndp_ros.control.omega import Omega
from ndp_ros.errors import ArmError, StreamError
from ndp_ros.streaming.clock import Clock, Histogram, make_realtime
from ndp_ros.streaming.config import StreamSpec
from ndp_ros.streaming.follower import FAULTY, Follower
from ndp_ros.streaming.guard import BRAKE, FAULT, Guard
from ndp_ros.streaming.layout import REQUESTS
from ndp_ros.streaming.mailbox import Mailbox
from ndp_ros.streaming.report import Report

DONE, FAILED, NOT_STARTED, ORPHANED = 0, 1, 2, 3
"""Exit status of its process: asked to end, the arm or the loop failed, no start, parent lost."""
_PAUSE = 0.003
"""Pause of the loop from which on an arm may have braked [s]."""

_STATUS_RATE = 50.0
_POSES_RATE = 200.0
_STARTUP_TIMEOUT = 10.0
_CLOSING_TIMEOUT = 3.0
_REST_SPEED = 0.02


class Streamer:
    """One arm, one mailbox, one loop.

    Attributes:
        follower: The setpoint's state machine.
        clock: Ticks, lateness and missed periods.
        cost: How long the loop's body took, each tick, the physics of a simulated arm left out.
    """

    def __init__(
        self,
        spec: StreamSpec,
        mailbox: Mailbox,
        arm: Arm,
        omega: Omega,
        signals: Sequence[int] = (),
    ) -> None:
        """Connect the arm and prepare everything that the loop needs.

        Args:
            spec: What was asked for.
            mailbox: Shared memory of the parent.
            arm: Not connected yet.
            omega: The tracking law.
            signals: Signals that the process has caught; the first ends the loop.

        Raises:
            ArmError: If the arm cannot be reached or does not take Ω's commands.
            StreamError: If the mailbox was made for another arm.
        """
        config = spec.runtime
        self._spec, self._config, self._mailbox = spec, config, mailbox
        self._arm, self._omega = arm, omega
        self._simulated = arm if isinstance(arm, SimulatedArm) else None
        self.info = info = arm.connect()
        if omega.mode not in info.command_modes:
            raise ArmError.choice(f"{spec.arm}: command mode", omega.mode, info.command_modes)
        if info.dof != mailbox.layout.dof:
            raise StreamError(
                f"mailbox is for {mailbox.layout.dof} joints, {spec.arm} has {info.dof}"
            )
        self.guard = Guard(info, config, omega.torque_of)
        layout = mailbox.layout
        self.follower = Follower(self.guard, config, layout.max_rows, layout.max_basis)
        self.clock = Clock(config.rate, config.spin)
        self.cost = Histogram()
        self._report = Report(mailbox, self.follower, self.guard, self.clock, self.cost)
        self._measured = JointState.zeros(info.dof)
        self._command = Command.zeros(info.dof, omega.mode)
        self._parent = os.getppid()
        self._signals = signals
        self._closing = ""
        self._exit = DONE
        self._parent_silent = False
        self._waits_since = 0
        self._started = 0
        self._every_sample = max(1, round(config.rate / config.record_rate))
        self._every_status = max(1, round(config.rate / _STATUS_RATE))
        self._every_poses = max(1, round(config.rate / _POSES_RATE))
        # A predecessor on the same memory has answered some of the requests already.
        mailbox.status.load()
        self._answered = int(mailbox.status["answers"]["ticket"].max())
        self._begin()

    def _begin(self) -> None:
        """Take the arm's start state as the first setpoint."""
        if self._simulated is not None:
            self._reset_arm(self._spec.seed)
            return
        self._arm.read(self._measured)
        if not np.isfinite(self._measured.position).all():
            raise ArmError(f"{self._spec.arm} reports positions that are not finite")
        self.follower.seat(self._measured.position)

    def run(self) -> int:
        """Drive the arm until somebody or something ends it; return the exit status."""
        granted = make_realtime(self._config.priority, self._config.cpu)
        self._report.hello(self._spec, self.info, self._omega.mode, self._simulated, granted)
        try:
            self._loop()
        except Exception as error:
            name = "" if isinstance(error, _HardError) else "arm_error: "
            if name:
                self.guard.hit_quietly("arm_error")
            self._exit = FAILED
            self._closing = f"{name}{' '.join(str(error).split()) or type(error).__name__}"
            self.follower.fault = self.follower.reason = self._closing
        finally:
            self._end()
        return self._exit

    # -- the loop ----------------------------------------------------------------------------

    def _loop(self) -> None:
        follower, guard, clock, mailbox = self.follower, self.guard, self.clock, self._mailbox
        arm, omega, simulated, report = self._arm, self._omega, self._simulated, self._report
        measured, command, setpoint = self._measured, self._command, self.follower.setpoint
        period, cost = clock.period, self.cost
        stall = math.inf if simulated else self._config.stall_timeout * 1e9
        monotonic = time.monotonic_ns
        torque = command.mode == "torque"
        # An arm that tracks positions brakes where it was last told to be.
        paused = math.inf if simulated or torque else max(_PAUSE * 1e9, 2.0 * clock.period * 1e9)
        deadline, phase, told, resting = math.inf, -1, "", 0
        vectors = measured.position, measured.velocity, measured.effort
        clock.start()
        previous = self._started = monotonic()
        while True:
            clock.wait()
            began = monotonic()
            now = began * 1e-9
            if began - previous > stall:
                self._stalled((began - previous) * 1e-9)
            elif began - previous > paused and measured.time * 1e9 > previous:
                # Where the last answer was lost there is nothing to compare the next one with.
                before = measured.velocity.copy()
                follower.paused(before, arm.read(measured).velocity)
            previous = began
            mailbox.streamer_beat(began)
            self._listen(began, now)
            if simulated is not None and self._patient(began):
                clock.missed += 1
                mailbox.publish_state(
                    now, measured.time, clock.ticks, follower.sequence, follower.phase, vectors,
                    setpoint,
                )  # fmt: skip
                continue
            follower.tick()
            omega(setpoint[0], setpoint[1], setpoint[2], measured, command)
            policy = guard.command(command)
            if policy >= BRAKE:
                if guard.fault == "command_not_finite":
                    raise _HardError("command_not_finite: the tracking law gave no numbers")
                self._react(policy, "command")
            arm.write(command)
            written = monotonic()
            if simulated is not None:
                simulated.step(period)
            stepped = monotonic()
            arm.read(measured)
            read = monotonic() * 1e-9
            age = 0.0 if simulated is not None else read - measured.time
            policy = guard.measured(setpoint[0], measured, age)
            if policy >= BRAKE:
                self._measurement_failed(policy, torque, age)

            ticks = clock.ticks
            if simulated is not None and ticks % self._every_poses == 0:
                report.poses(simulated)
            if (
                ticks % self._every_status == 0
                or follower.phase != phase
                or follower.reason is not told
            ):
                # Before the state: who sees a phase there finds its reason here.
                phase, told = follower.phase, follower.reason
                report.status()
            mailbox.publish_state(
                read, measured.time, ticks, follower.sequence, follower.phase, vectors, setpoint
            )
            if ticks % self._every_sample == 0:
                mailbox.append_sample(command.torque)
            cost.add(monotonic() - began - (stepped - written))
            if self._closing:
                deadline = min(deadline, now + _CLOSING_TIMEOUT)
                resting = resting + 1 if self._at_rest() else 0
                if resting > 1:
                    return
                if now > deadline:
                    self._exit = self._exit or FAILED
                    follower.reason += f"; not at rest within {_CLOSING_TIMEOUT:g} s"
                    return

    def _listen(self, began: int, now: float) -> None:
        """Look for signals, for the parent, for requests and for a new segment."""
        mailbox, follower = self._mailbox, self.follower
        if self._signals:
            self._close(f"signal {signal.Signals(self._signals[0]).name}", DONE)
        if os.getppid() != self._parent:
            self._lose_parent("the process that started it has ended")
        age = mailbox.parent_age(began)
        if age > self._config.heartbeat_timeout:
            if age == math.inf:
                age = (began - self._started) * 1e-9 - _STARTUP_TIMEOUT
            if age > self._config.parent_timeout:
                self._lose_parent(f"no heartbeat for {age:.1f} s")
            elif age > self._config.heartbeat_timeout and not self._parent_silent:
                self._parent_silent = True
                self.guard.hit_quietly("parent_lost")
                follower.brake("parent_lost: no heartbeat")
        else:
            self._parent_silent = False
        if mailbox.requests.pending:
            for record in mailbox.requests.read()[0]:
                if record["ticket"] > self._answered:
                    self._answer(record, now)
        if mailbox.segment.load() and not self._closing:
            follower.offer(
                mailbox.segment.value, mailbox.response(int(mailbox.segment["slot"])), now
            )

    def _patient(self, began: int) -> bool:
        """Whether a simulated arm's clock stands still for a segment that is overdue."""
        if not self.follower.overdue:
            self._waits_since = began
            return False
        return (began - self._waits_since) * 1e-9 < self._config.patience

    def _answer(self, record: Any, now: float) -> None:
        follower, kind, refusal = self.follower, REQUESTS[int(record["kind"])], ""
        if kind == "follow":
            refusal = follower.follow()
        elif kind == "hold":
            follower.hold()
        elif kind == "reset":
            if self._simulated is None:
                refusal = f"{self._spec.arm} is no simulated arm: it cannot be reset"
            elif follower.fault:
                refusal = f"in fault ({follower.fault}): clear it first"
            else:
                self._reset_arm(int(record["seed"]))
                # The time that this took is nobody's lateness.
                self.clock.start()
        elif kind == "stop":
            self.guard.hit_quietly("stop_requested")
            follower.trip("stop_requested")
        elif kind == "clear_fault":
            refusal = follower.clear()
        else:
            self._close("", DONE)
        self._report.answer(record, refusal)

    # -- what can go wrong -------------------------------------------------------------------

    def _react(self, policy: int, text: str) -> None:
        name = self.guard.fault
        if policy == FAULT:
            retreat = self._rest_position() if name == "following_error" else None
            self.follower.trip(name, text, retreat)
        elif self.follower.phase != FAULTY:
            self.follower.brake(f"{name}: {text}")

    def _measurement_failed(self, policy: int, torque: bool, age: float) -> None:
        name, measured, y = self.guard.fault, self._measured, self.follower.setpoint[0]
        if name == "feedback_not_finite":
            raise _HardError("feedback_not_finite: the arm reports no numbers")
        if name == "feedback_lost":
            text = f"last measurement {age * 1e3:.0f} ms ago"
            if torque:
                raise _HardError(f"feedback_lost: {text}; torques need measurements")
            self._react(policy, text)
        elif self.follower.phase != FAULTY or name == "following_error":
            n = self.info.n_arm
            error = name == "following_error"
            quantity = np.abs(y - measured.position if error else measured.velocity)[:n]
            high = self.guard.max_following_error if error else self.guard.max_measured_velocity
            joint = int(np.argmax(quantity / high))
            unit = "rad" if error else "rad/s"
            text = f"{quantity[joint]:.3g} {unit}, at most {high[joint]:.3g}"
            self._react(policy, f"{self.info.joint_names[joint]} {text}")

    def _stalled(self, pause: float) -> None:
        """Go on from rest after a pause in which a real arm got no commands.

        One that tracks positions has held the last of them all the while; one that gets
        torques is wherever they have taken it.
        """
        self.guard.hit_quietly("stalled")
        self._arm.read(self._measured)
        if self.follower.moving or self.follower.sequence:
            torque = self._command.mode == "torque"
            self.follower.seat(
                self._rest_position() if torque else self.follower.setpoint[0].copy()
            )
        self.follower.reason = f"stalled: the loop stood still for {pause * 1e3:.0f} ms"

    def _lose_parent(self, text: str) -> None:
        if not self._closing:
            self.guard.hit_quietly("parent_lost")
        self._close(f"parent_lost: {text}", ORPHANED)

    def _close(self, reason: str, status: int) -> None:
        if not self._closing:
            self._closing = reason or "quit"
            self._exit = status
            self.follower.hold(reason)

    def _at_rest(self) -> bool:
        """Whether neither the setpoint nor the arm moves."""
        speed = np.abs(self._measured.velocity[: self.info.n_arm]).max()
        return not self.follower.moving and bool(speed < _REST_SPEED)

    def _rest_position(self) -> Any:
        """Return where to hold: the measured arm, and the gripper as it was commanded.

        A gripper that holds something is not where its setpoint is; the difference is
        the grip.
        """
        rest = self._measured.position.copy()
        rest[self.info.n_arm :] = self.follower.setpoint[0, self.info.n_arm :]
        return rest

    def _reset_arm(self, seed: int) -> None:
        assert self._simulated is not None
        start = self._simulated.reset(seed)
        self._arm.read(self._measured)
        self.follower.reset(start, time.monotonic())
        self._report.poses(self._simulated)

    def _end(self) -> None:
        """Bring the arm to rest by its own means, let go of it, and say so."""
        for act in (self._arm.stop, self._arm.close):
            try:
                act()
            except Exception as error:
                self._exit = self._exit or FAILED
                self.follower.reason += f"; {act.__name__}: {error}"
        self._report.stopped()


class _HardError(StreamError):
    """A failure after which no command can be trusted: the arm is stopped by its own means."""
