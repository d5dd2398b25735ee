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
from ndp_ros.control.measurement import AGREEING, Confirmer
from ndp_ros.control.omega import Omega
from ndp_ros.errors import ArmError, StreamError
from ndp_ros.streaming.clock import Clock, Histogram, make_realtime
from ndp_ros.streaming.config import StreamSpec
from ndp_ros.streaming.follower import BRAKING, FAULTY, HOLDING, WAITING, Follower
from ndp_ros.streaming.guard import BRAKE, FAULT, Guard
from ndp_ros.streaming.layout import REQUESTS, SAFE_REQUESTS
from ndp_ros.streaming.mailbox import Mailbox
from ndp_ros.streaming.report import Report

DONE, FAILED, NOT_STARTED, ORPHANED = 0, 1, 2, 3
"""Exit status of its process: asked to end, the arm or the loop failed, no start, parent lost."""
_PAUSE = 0.003
"""Pause of the loop from which on an arm may have braked [s]."""

_AGREE_TIMEOUT = 3.0
"""Time for the first readings of an arm to agree with each other [s]."""
_STILL_FOR, _STILL_WITHIN = 0.25, 0.005
"""An arm that stays within this distance [rad] for so long [s] has come to rest."""

_STATUS_RATE = 50.0
_POSES_RATE = 200.0
_STARTUP_TIMEOUT = 10.0
_CLOSING_TIMEOUT = 3.0
_REST_SPEED = 0.02
_SETTLING = 1.0
"""Time for an arm to come to rest after its setpoint has, before that is said anyway [s]."""


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
        # The physics of a simulated arm are its state; what a real one reports is confirmed first.
        self._confirmer = None if self._simulated else Confirmer(info)
        self._reading = JointState.zeros(info.dof)
        self._measured = self._confirmer.state if self._confirmer else self._reading
        self._still, self._still_since = np.full(info.dof, math.nan), 0.0
        self._rejected, self._settles_until = 0, 0.0
        self._asleep = _asleep()
        self._command = Command.zeros(info.dof, omega.mode)
        self._parent = os.getppid()
        self._signals = signals
        self._closing = ""
        self._retreats = config.after_following_error == "retreat"
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
        """Take the arm's start state as the first setpoint.

        Raises:
            ArmError: If its first readings do not agree with each other.
        """
        if self._confirmer is None:
            self._reset_arm(self._spec.seed)
            return
        deadline = time.monotonic() + _AGREE_TIMEOUT
        while not self._confirmer.complete:
            if time.monotonic() > deadline:
                raise ArmError(
                    f"{self._spec.arm}: no {AGREEING} readings in a row agree within "
                    f"{_AGREE_TIMEOUT:g} s: {self._confirmer.reason or 'nothing new is measured'}"
                )
            if not self._read():
                time.sleep(0.001)
        self.follower.seat(self._measured.position)

    def _read(self) -> bool:
        """Read the arm; whether the measurement is new and confirmed."""
        self._arm.read(self._reading)
        confirmer = self._confirmer
        if confirmer is None:
            return True
        confirmed = confirmer.confirm(self._reading, time.monotonic())
        rejected = confirmer.rejected + self._reading.rejected
        if rejected != self._rejected:
            self._rejected = rejected
            self.guard.hit_quietly("reading_unconfirmed")
        return confirmed

    @property
    def _finite(self) -> bool:
        """Whether the newest reading of the arm's joints was finite."""
        return self._confirmer is None or self._confirmer.finite

    def _read_again(self) -> bool:
        """Read until a measurement is confirmed, for as long as it takes a jump to be believed."""
        return any(self._read() for _ in range(AGREEING))

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
                if self._read_again():
                    follower.paused(before, measured.velocity)
            elif not simulated and _asleep() - self._asleep > stall:
                self._stalled((_asleep() - self._asleep) * 1e-9, "the machine was asleep")
            previous = began
            mailbox.streamer_beat(began)
            self._listen(began, now)
            if simulated is not None and self._patient(began):
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
            self._read()
            read = monotonic() * 1e-9
            age = 0.0 if simulated is not None else read - measured.time
            policy = guard.measured(setpoint[0], measured, age, self._finite)
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
                read, measured.time, ticks, follower.sequence, self._shown(read), vectors, setpoint
            )
            if ticks % self._every_sample == 0:
                mailbox.append_sample(command.torque)
            cost.add(monotonic() - began - (stepped - written))
            if self._retreats and follower.phase == FAULTY:
                self._retreat()
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

    def _shown(self, now: float) -> int:
        """Return the phase that is told: an arm brakes until it rests itself, not its setpoint."""
        phase = self.follower.phase
        if phase not in (HOLDING, WAITING):
            self._settles_until = now + _SETTLING
        elif now < self._settles_until:
            if np.abs(self._measured.velocity[: self.info.n_arm]).max() > _REST_SPEED:
                return BRAKING
            self._settles_until = 0.0
        return phase

    def _patient(self, began: int) -> bool:
        """Whether a simulated arm's clock stands still for a segment that is overdue."""
        if not self.follower.overdue:
            self._waits_since = began
            return False
        return (began - self._waits_since) * 1e-9 < self._config.patience

    def _answer(self, record: Any, now: float) -> None:
        follower, kind, refusal = self.follower, REQUESTS[int(record["kind"])], ""
        if kind not in SAFE_REQUESTS and now > float(record["expires"]):
            refusal = "expired: the loop did not get to it in time"
        elif kind not in SAFE_REQUESTS and self._closing:
            refusal = f"the loop is ending ({self._closing})"
        elif kind == "follow":
            refusal = follower.follow()
        elif kind == "hold":
            # An end that has begun brakes already, and its reason stays.
            follower.hold(follower.reason if self._closing else "")
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
            follower.stay()
        elif kind == "clear_fault":
            refusal = self._astray() or follower.clear()
        else:
            self._close("", DONE)
        self._report.answer(record, refusal)

    def _astray(self) -> str:
        """Return which joint is too far from its setpoint for a fault to be cleared, or nothing.

        A simulated arm may be held where it is instead: nobody stands beside it.
        """
        joint, error, high = self._furthest(self.follower.setpoint[0] - self._measured.position,
                                            self.guard.max_following_error)  # fmt: skip
        if error <= high or not self.follower.fault:
            return ""
        if self._simulated is not None:
            self.follower.seat(self._rest_position())
            return ""
        return (
            f"{joint} is {error:.3g} rad from its setpoint, at most {high:.3g}: free the arm, or "
            "deactivate and activate the node, which begins where the arm stands"
        )

    def _furthest(self, values: Any, high: Any) -> tuple[str, float, float]:
        """Return the arm's joint that is furthest beyond its limit, its value, and the limit."""
        sizes = np.abs(values[: self.info.n_arm])
        joint = int(np.argmax(sizes / high))
        return self.info.joint_names[joint], float(sizes[joint]), float(high[joint])

    # -- what can go wrong -------------------------------------------------------------------

    def _react(self, policy: int, text: str) -> None:
        name = self.guard.fault
        if policy == FAULT:
            self.follower.trip(name, text)
        elif self.follower.phase != FAULTY:
            self.follower.brake(f"{name}: {text}")

    def _measurement_failed(self, policy: int, torque: bool, age: float) -> None:
        name, measured, y = self.guard.fault, self._measured, self.follower.setpoint[0]
        if name == "feedback_not_finite":
            raise _HardError("feedback_not_finite: the arm reports no numbers")
        if name == "feedback_lost":
            text = f"last measurement {age * 1e3:.0f} ms ago"
            if self._confirmer is not None and self._confirmer.reason:
                text = f"last confirmed measurement {age * 1e3:.0f} ms ago"
                text += f", {self._confirmer.reason}"
            if torque:
                raise _HardError(f"feedback_lost: {text}; torques need measurements")
            self._react(policy, text)
            self.follower.stay()
        elif self.follower.phase != FAULTY or name == "following_error":
            if name == "following_error":
                furthest = self._furthest(y - measured.position, self.guard.max_following_error)
            else:
                furthest = self._furthest(measured.velocity, self.guard.max_measured_velocity)
            joint, value, high = furthest
            unit = "rad" if name == "following_error" else "rad/s"
            self._react(policy, f"{joint} {value:.3g} {unit}, at most {high:.3g}")

    def _stalled(self, pause: float, why: str = "the loop stood still") -> None:
        """Go on from rest after a pause in which a real arm got no commands.

        One that tracks positions has held the last of them all the while; one that gets
        torques is wherever they have taken it.
        """
        self.guard.hit_quietly("stalled")
        self._asleep = _asleep()
        confirmed = self._read_again()
        if self.follower.moving or self.follower.sequence:
            torque = self._command.mode == "torque" and confirmed
            self.follower.seat(
                self._rest_position() if torque else self.follower.setpoint[0].copy()
            )
        self.follower.reason = f"stalled: {why} for {pause * 1e3:.0f} ms"

    def _retreat(self) -> None:
        """Let an arm that is kept from its setpoint rest where it has come to rest instead.

        It is at rest by the times of its measurements: one that grows old says nothing of now.
        """
        follower, position, now = self.follower, self._measured.position, self._measured.time
        if follower.retreats or follower.moving:
            return
        if not follower.fault.startswith("following_error"):
            return
        # Written so that a NaN begins anew.
        if not (np.abs(position - self._still) < _STILL_WITHIN).all():
            self._still[:], self._still_since = position, now
        elif now - self._still_since > _STILL_FOR:
            follower.retreat(self._rest_position())

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


def _asleep() -> int:
    """Return how long this machine has been suspended since it booted [ns]."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()


class _HardError(StreamError):
    """A failure after which no command can be trusted: the arm is stopped by its own means."""
