# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The streamer: the loop that drives the arm.

    mailbox → follower → guard → Ω → guard → arm        at every tick, in this order

It has no ROS, no torch and no second thread. However it ends (on ``quit``, on SIGINT or SIGTERM,
after the loss of its parent, after a failure of the arm), it brings the arm to rest first.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from ndp_ros.control.arm import Arm, ArmInfo, Command, SimulatedArm
from ndp_ros.control.memory import Interpreted
from ndp_ros.control.omega import Omega
from ndp_ros.errors import ArmError, StreamError
from ndp_ros.streaming.clock import Clock, Histogram, make_realtime
from ndp_ros.streaming.compiled import Core, Turn, lend, loop_of, make_core, memory_of
from ndp_ros.streaming.config import StreamSpec
from ndp_ros.streaming.feedback import Feedback
from ndp_ros.streaming.follower import BRAKING, HOLDING, WAITING, Follower
from ndp_ros.streaming.guard import BRAKE, Guard
from ndp_ros.streaming.layout import REQUESTS, SAFE_REQUESTS
from ndp_ros.streaming.mailbox import Mailbox
from ndp_ros.streaming.recovery import FatalError, Recovery
from ndp_ros.streaming.report import Report

DONE, FAILED, NOT_STARTED, ORPHANED = 0, 1, 2, 3
"""Exit status of its process: asked to end, the arm or the loop failed, no start, parent lost."""

_STATUS_RATE, _POSES_RATE = 50.0, 200.0
_STARTUP_TIMEOUT = 10.0
"""Time for the parent to give its first heartbeat [s]."""
_CLOSING_TIMEOUT = 3.0
"""Time for the arm to come to rest at the end [s]."""
_REST_SPEED = 0.02
"""Speed below which a measured joint is at rest [rad/s]."""
_SETTLING = 1.0
"""Time after the setpoint's rest from which on the arm counts as resting too [s]."""


class Streamer:
    """One arm, one mailbox, one loop."""

    def __init__(
        self,
        spec: StreamSpec,
        mailbox: Mailbox,
        arm: Arm,
        omega: Omega,
        signals: Sequence[int] = (),
    ) -> None:
        """Connect the arm, and take its start state as the first setpoint.

        Args:
            spec: Specification of the stream.
            mailbox: Shared memory of the parent.
            arm: Not connected yet.
            omega: The tracking law.
            signals: Signals that the process has caught; the first ends the loop.

        Raises:
            ArmError: If the arm cannot be reached, does not take Ω's commands, or if its first
                measurements do not agree with each other.
            StreamError: If the mailbox was made for another arm.
        """
        config, layout = spec.runtime, mailbox.layout
        self._spec, self._config, self._mailbox = spec, config, mailbox
        self._arm, self._omega, self._signals = arm, omega, signals
        self._simulated = arm if isinstance(arm, SimulatedArm) else None
        self._info = info = _connect(spec.arm, arm, omega.mode, layout.dof)
        self._guard = guard = Guard(info, config, omega.torque_of)
        self._follower = Follower(
            guard, config, mailbox.responses, layout.max_rows, layout.max_basis
        )
        self._clock = Clock(config.rate, config.spin)
        self._cost = Histogram()
        """Durations of the loop's body without the physics of a simulated arm."""
        self._report = Report(mailbox, self._follower, guard, self._clock, self._cost)
        simulated = self._simulated is not None
        self._feedback = Feedback(arm, info, guard, simulated)
        self._measured = state = self._feedback.state
        self._vectors = state.position, state.velocity, state.effort
        self._command = Command.zeros(info.dof, omega.mode)
        self._recovery = Recovery(config, info, guard, self._follower, self._feedback, omega.mode)
        self._closing, self._deadline, self._exit = "", math.inf, DONE
        self._rest_ticks, self._turn, self._paused, self._steps = 0, Turn(), False, 0
        self._parent, self._started, self._loop_runs = os.getppid(), 0, loop_of(config.compiled)
        self._reported: tuple[int, str] = -1, ""
        self._every_sample, self._every_status, self._every_poses = (
            max(1, round(config.rate / rate))
            for rate in (config.record_rate, _STATUS_RATE, _POSES_RATE)
        )
        if simulated:
            self._reset_arm(spec.seed)
        else:
            self._feedback.wait_until_complete(spec.arm)
            self._follower.rest_at(state.position)
        self._core: Core = Interpreted()
        if self._loop_runs == "compiled" and isinstance(signals, list):
            self._core = self._compiled(signals)
            lend(self._core, self._feedback, arm, omega)

    def _compiled(self, signals: list[int]) -> Core:
        """Return a core on the memory of the loop's parts."""
        memory = {
            "turn": self._turn,
            "cost": self._cost,
            "cost_counts": self._cost.counts,
            **memory_of(self._command, self._arm, self._omega),
        }
        constants = {
            "simulated": self._simulated is not None,
            "torque_mode": self._omega.mode == "torque",
            "parent": self._parent,
            "settling": _SETTLING,
            "every_status": self._every_status,
            "every_sample": self._every_sample,
        }
        parts = self._follower, self._recovery, self._clock, self._mailbox, self._feedback
        return make_core(self._config, self._info, parts, memory, constants, signals)

    @property
    def reason(self) -> str:
        """Why the arm last braked or the loop ended."""
        return self._follower.reason

    def run(self) -> int:
        """Drive the arm until the loop is ended; return the exit status."""
        granted = make_realtime(self._config.priority, self._config.cpu)
        granted["loop"] = self._loop_runs
        self._report.handshake(self._spec, self._info, self._omega.mode, self._simulated, granted)
        try:
            self._loop()
        except Exception as error:
            name = "" if isinstance(error, FatalError) else "arm_error: "
            if name:
                self._guard.count("arm_error")
            self._exit = FAILED
            self._closing = f"{name}{' '.join(str(error).split()) or type(error).__name__}"
            self._follower.fault = self._follower.reason = self._closing
        finally:
            self._end()
        return self._exit

    # -- the loop ----------------------------------------------------------------------------

    def _loop(self) -> None:
        wait = self._core.wait if self._loop_runs == "compiled" else self._clock.wait
        self.begin()
        wait()
        while not self.turn():
            wait()

    def begin(self) -> None:
        """Start the clock."""
        self._clock.start()
        self._turn.previous = self._started = time.monotonic_ns()

    def turn(self) -> bool:
        """Do what one tick asks for; return whether the loop ends."""
        core, turn = self._core, self._turn
        if not self._closing and core.tick():
            return False
        began = time.monotonic_ns()
        turn.changed = True
        if self._paused or not core.usual(began):
            self._recovery.check_pause(began, turn.previous)
            turn.previous = began
            self._mailbox.streamer_beat(began)
            self._check_parent(began)
            self._listen(began * 1e-9)
            if self._simulated is not None and self._stops(began):
                self._publish(began * 1e-9, self._follower.phase)
                return False
        self._tick(began)
        return bool(self._closing) and self._ended(began * 1e-9)

    def _tick(self, began: int) -> None:
        """Take one setpoint from the segment to the arm, and one measurement back."""
        guard, measured, setpoint = self._guard, self._measured, self._follower.setpoint
        command, simulated, monotonic = self._command, self._simulated, time.monotonic_ns
        core = self._core
        if not core.advance():
            self._follower.tick()
        self._omega(setpoint[0], setpoint[1], setpoint[2], measured, command)
        if not core.command():
            policy = guard.command(command)
            if policy >= BRAKE:
                self._recovery.command_failed(policy)
        self._arm.write(command)
        written = monotonic()
        if simulated is not None:
            simulated.step(self._clock.period)
        stepped = monotonic()
        self._feedback.read()
        now = monotonic() * 1e-9
        age = 0.0 if simulated is not None else now - measured.time
        if not core.tracked(age):
            policy = guard.measured(setpoint[0], measured, age, self._feedback.finite)
            if policy >= BRAKE:
                self._recovery.measurement_failed(policy, age)
        self._publish_all(now)
        self._cost.add(monotonic() - began - (stepped - written))
        self._recovery.retreat()

    def _publish_all(self, now: float) -> None:
        """Publish the state, and at their own rates poses, status and samples."""
        ticks, follower = self._clock.ticks, self._follower
        if self._simulated is not None and ticks % self._every_poses == 0:
            self._report.world(self._simulated)
        phase, reason = self._reported
        news = follower.phase != phase or follower.reason is not reason
        if news or ticks % self._every_status == 0:
            # Before the state, so that a reader of the new phase finds its reason here.
            self._reported = follower.phase, follower.reason
            self._report.status()
            self._turn.changed = False
        elif self._core.publish(now, self._measured.time):
            return
        self._publish(now, self._visible_phase(now))
        if ticks % self._every_sample == 0:
            self._mailbox.append_sample(self._command.torque)

    def _publish(self, now: float, phase: int) -> None:
        self._mailbox.publish_state(
            now,
            self._measured.time,
            self._clock.ticks,
            self._follower.sequence,
            phase,
            self._vectors,
            self._follower.setpoint,
        )

    def _visible_phase(self, now: float) -> int:
        """Return the phase to publish: braking lasts until the arm rests, not its setpoint."""
        phase = self._follower.phase
        if phase not in (HOLDING, WAITING):
            self._turn.settles_until = now + _SETTLING
        elif now < self._turn.settles_until:
            if self._feedback.speed > _REST_SPEED:
                return BRAKING
            self._turn.settles_until = 0.0
        return phase

    def _waits(self, began: int) -> bool:
        """Whether a simulated arm's clock stops for an overdue segment."""
        if not self._follower.overdue:
            self._turn.waits_since = began
            return False
        return bool((began - self._turn.waits_since) * 1e-9 < self._config.patience)

    def _stops(self, began: int) -> bool:
        """Whether a simulated arm's clock is paused, or waits for a segment."""
        if self._paused and not self._steps and not self._closing:
            self._turn.waits_since = began
            return True
        if self._waits(began):
            return True
        self._steps = max(0, self._steps - 1)
        return False

    # -- parent and requests -----------------------------------------------------------------

    def _check_parent(self, began: int) -> None:
        """End on a signal and after the loss of the parent; brake while the parent is silent."""
        if self._signals:
            self._close(f"signal {signal.Signals(self._signals[0]).name}", DONE)
        if os.getppid() != self._parent:
            self._lose_parent("the process that started it has ended")
        age, timeout = self._mailbox.parent_age(began), self._config.heartbeat_timeout
        if age <= timeout:
            self._turn.parent_silent = False
            return
        if age == math.inf:
            age = (began - self._started) * 1e-9 - _STARTUP_TIMEOUT
        if age > self._config.parent_timeout:
            self._lose_parent(f"no heartbeat for {age:.1f} s")
        elif age > timeout and not self._turn.parent_silent:
            self._turn.parent_silent = True
            self._guard.count("parent_lost")
            self._follower.brake("parent_lost: no heartbeat")

    def _listen(self, now: float) -> None:
        """Answer requests, and offer a new segment to the follower."""
        mailbox = self._mailbox
        if mailbox.requests.pending:
            for record in mailbox.requests.read():
                # Asked anew: the process may have been held up since the tick began.
                self._report.answer(record, self._carry_out(record, time.monotonic()))
        if mailbox.segment.load() and not self._closing:
            self._follower.offer(mailbox.segment.value, now)
        self._turn.request = mailbox.requests.place

    def _carry_out(self, record: Any, now: float) -> str:
        """Carry a request out; return why not, or nothing."""
        follower, kind = self._follower, REQUESTS[int(record["kind"])]
        if kind not in SAFE_REQUESTS and (self._closing or now > float(record["expires"])):
            late = "expired: the loop did not get to it in time"
            return f"the loop is ending ({self._closing})" if self._closing else late
        if kind == "follow":
            return follower.follow()
        if kind == "clear_fault":
            return self._recovery.clear_fault()
        if kind == "reset":
            if self._simulated is None:
                return f"{self._spec.arm} is no simulated arm: it cannot be reset"
            if follower.fault:
                return f"in fault ({follower.fault}): clear it first"
            self._reset_arm(int(record["seed"]))
            # The duration of the reset is not lateness of the loop.
            self._clock.start()
        elif kind == "hold":
            # An end that has begun brakes already, and its reason stays.
            follower.hold(follower.reason if self._closing else "")
        elif kind == "stop":
            self._guard.count("stop_requested")
            follower.trip("stop_requested")
            follower.cancel_retreat()
        elif kind == "quit":
            self._close("", DONE)
        elif kind == "tune":
            follower.tune(record["values"])
        else:
            return self._control_time(kind, int(record["seed"]))
        return ""

    def _control_time(self, kind: str, ticks: int) -> str:
        """Pause, resume or step the clock of a simulated arm; return why not, or nothing."""
        if self._simulated is None:
            return f"{self._spec.arm} is no simulated arm: its clock is not ours"
        if kind == "step" and not self._paused:
            return "the clock runs: pause it first"
        self._steps = ticks if kind == "step" else 0
        self._paused = kind != "resume"
        return ""

    def _reset_arm(self, seed: int) -> None:
        assert self._simulated is not None
        start = self._simulated.reset(seed)
        self._feedback.read()
        self._follower.reset(start, time.monotonic())
        self._report.world(self._simulated)

    # -- the end -----------------------------------------------------------------------------

    def _lose_parent(self, text: str) -> None:
        if not self._closing:
            self._guard.count("parent_lost")
        self._close(f"parent_lost: {text}", ORPHANED)

    def _close(self, reason: str, status: int) -> None:
        """Begin the end: brake, and leave the loop once the arm rests."""
        if not self._closing:
            self._closing = reason or "quit"
            self._exit = status
            self._follower.hold(reason)

    def _ended(self, now: float) -> bool:
        """Whether to leave the loop: setpoint and arm rest for two ticks, or do not in time."""
        self._deadline = min(self._deadline, now + _CLOSING_TIMEOUT)
        at_rest = not self._follower.moving and self._feedback.speed < _REST_SPEED
        self._rest_ticks = self._rest_ticks + 1 if at_rest else 0
        if self._rest_ticks > 1:
            return True
        if now <= self._deadline:
            return False
        self._exit = self._exit or FAILED
        self._follower.reason += f"; not at rest within {_CLOSING_TIMEOUT:g} s"
        return True

    def _end(self) -> None:
        """Bring the arm to rest by its own means, release it, and report that."""
        for act in (self._arm.stop, self._arm.close):
            try:
                act()
            except Exception as error:
                self._exit = self._exit or FAILED
                self._follower.reason += f"; {act.__name__}: {error}"
        self._report.stopped()
        self._core.release()


def _connect(name: str, arm: Arm, mode: str, dof: int) -> ArmInfo:
    """Connect an arm and check that it takes Ω's commands and fits the mailbox."""
    info = arm.connect()
    if mode not in info.command_modes:
        raise ArmError.choice(f"{name}: command mode", mode, info.command_modes)
    if info.dof != dof:
        raise StreamError(f"mailbox is for {dof} joints, {name} has {info.dof}")
    return info
