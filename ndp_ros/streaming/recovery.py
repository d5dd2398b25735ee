# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Reactions of the loop to failed commands, failed measurements and pauses.

The guard detects a violation and names its policy; this module carries the policy out on the
follower's setpoint, and decides where the arm rests afterwards.
"""

from __future__ import annotations

import ctypes
import math
import time
from typing import Any

import numpy as np

from ndp_ros.control.arm import ArmInfo
from ndp_ros.control.memory import fields
from ndp_ros.errors import StreamError
from ndp_ros.streaming.config import RuntimeConfig
from ndp_ros.streaming.feedback import Feedback
from ndp_ros.streaming.follower import FAULTY, Follower
from ndp_ros.streaming.guard import FAULT, Guard

_PAUSE = 0.003
"""Pause of the loop from which on a position-controlled arm may have braked [s]."""
_STILL_FOR, _STILL_WITHIN = 0.25, 0.005
"""An arm that stays within this distance [rad] for this time [s] has come to rest."""


class FatalError(StreamError):
    """A failure after which no command can be trusted: the arm is stopped by its own means."""


class Recovery(ctypes.Structure):
    """Reactions to what goes wrong with one arm."""

    _fields_ = fields(_suspended=int)

    def __init__(
        self,
        config: RuntimeConfig,
        info: ArmInfo,
        guard: Guard,
        follower: Follower,
        feedback: Feedback,
        mode: str,
    ) -> None:
        """Prepare.

        Args:
            config: Time-outs and policies.
            info: The arm.
            guard: Judge of commands and measurements.
            follower: Owner of the setpoint.
            feedback: Measurements of the arm.
            mode: Command mode of the arm.
        """
        self._info, self._guard, self._follower = info, guard, follower
        self._feedback, self._torque = feedback, mode == "torque"
        self._stall = config.stall_timeout * 1e9
        # An arm that tracks positions brakes at the last command; torques go on acting.
        self._pause = math.inf if self._torque else max(_PAUSE, 2.0 * config.period) * 1e9
        self._retreats = config.after_following_error == "retreat"
        self._still, self._still_since = np.full(info.dof, math.nan), 0.0
        self._suspended = _suspended()

    @property
    def memory(self) -> dict[str, Any]:
        """The numbers that compiled code shares, by its names for them."""
        return {"recovery": self}

    @property
    def constants(self) -> dict[str, float]:
        """Pauses after which something is done [ns], for compiled code."""
        return {"stall": self._stall, "pause": self._pause}

    def check_pause(self, began: int, previous: int) -> None:
        """Go on after a pause of the loop or of the machine, in which a real arm got no commands.

        Args:
            began: Begin of this tick [ns, CLOCK_MONOTONIC].
            previous: Begin of the tick before.
        """
        if self._feedback.simulated:
            return
        pause, state = began - previous, self._feedback.state
        if pause > self._stall:
            self._restart(pause, "the loop paused")
        elif pause > self._pause and state.time * 1e9 > previous:
            # Where the last answer was lost there is nothing to compare the next one with.
            before = state.velocity.copy()
            if self._feedback.read_again():
                self._follower.slow_down(before, state.velocity)
        elif (asleep := _suspended() - self._suspended) > self._stall:
            self._restart(asleep, "the machine was asleep")

    def _restart(self, pause: int, cause: str) -> None:
        """Begin again from rest after a pause [ns].

        An arm that tracks positions has held the last one; torques have moved the arm on.
        """
        self._guard.count("stalled")
        self._suspended = _suspended()
        confirmed, follower = self._feedback.read_again(), self._follower
        if follower.moving or follower.sequence:
            measured = self._torque and confirmed
            follower.rest_at(self._rest_position() if measured else follower.setpoint[0].copy())
        follower.reason = f"stalled: {cause} for {pause * 1e-6:.0f} ms"

    def command_failed(self, policy: int) -> None:
        """React to a command that the guard has objected to.

        Raises:
            FatalError: If it is not finite.
        """
        if self._guard.fault == "command_not_finite":
            raise FatalError("command_not_finite: the tracking law gave no numbers")
        self._apply(policy, "command")

    def measurement_failed(self, policy: int, age: float) -> None:
        """React to a measurement that the guard has objected to.

        Args:
            policy: Policy of the violation.
            age: Age of the measurement [s].

        Raises:
            FatalError: If the arm cannot be driven without it.
        """
        name, follower, state = self._guard.fault, self._follower, self._feedback.state
        if name == "feedback_not_finite":
            raise FatalError("feedback_not_finite: the arm reports no numbers")
        if name == "feedback_lost":
            cause = self._feedback.unconfirmed
            text = f"last {'confirmed ' if cause else ''}measurement {age * 1e3:.0f} ms ago"
            text += f", {cause}" if cause else ""
            if self._torque:
                raise FatalError(f"feedback_lost: {text}; torques need measurements")
            self._apply(policy, text)
            follower.cancel_retreat()
        elif name == "following_error":
            error = follower.setpoint[0] - state.position
            joint, value, high = self._furthest(error, self._guard.max_following_error)
            self._apply(policy, f"{joint} {value:.3g} rad, at most {high:.3g}")
        elif follower.phase != FAULTY:
            limit = self._guard.max_measured_velocity
            joint, value, high = self._furthest(state.velocity, limit)
            self._apply(policy, f"{joint} {value:.3g} rad/s, at most {high:.3g}")

    def _apply(self, policy: int, text: str) -> None:
        name = self._guard.fault
        if policy == FAULT:
            self._follower.trip(name, text)
        elif self._follower.phase != FAULTY:
            self._follower.brake(f"{name}: {text}")

    def clear_fault(self) -> str:
        """Unlatch a fault; return why not, or nothing.

        A simulated arm that is far from its setpoint is held where it is; with a real one the
        fault stays, because somebody may stand beside it.
        """
        follower, state = self._follower, self._feedback.state
        error = follower.setpoint[0] - state.position
        joint, value, high = self._furthest(error, self._guard.max_following_error)
        # Written so that a NaN is far.
        if follower.fault and not value <= high:
            if not self._feedback.simulated:
                return (
                    f"{joint} is {value:.3g} rad from its setpoint, at most {high:.3g}: free the "
                    "arm, or deactivate and activate the node, which begins where the arm stands"
                )
            follower.rest_at(self._rest_position())
        return follower.clear()

    def retreat(self) -> None:
        """Let an arm that is kept from its setpoint rest where it has come to rest instead.

        Rest is judged by the times of the measurements: an old one says nothing of the present.
        """
        follower, state = self._follower, self._feedback.state
        if not self._retreats or follower.phase != FAULTY:
            return
        if follower.retreat_used or follower.moving:
            return
        if not follower.fault.startswith("following_error"):
            return
        # Written so that a NaN begins anew.
        if not (np.abs(state.position - self._still) < _STILL_WITHIN).all():
            self._still[:], self._still_since = state.position, state.time
        elif state.time - self._still_since > _STILL_FOR:
            follower.retreat(self._rest_position())

    def _furthest(self, values: Any, limits: Any) -> tuple[str, float, float]:
        """Return the arm's joint that is furthest beyond its limit, its value, and the limit."""
        sizes = np.abs(values[: self._info.n_arm])
        joint = int(np.argmax(sizes / limits))
        return self._info.joint_names[joint], float(sizes[joint]), float(limits[joint])

    def _rest_position(self) -> Any:
        """Return where to hold: the measured arm, and the gripper as commanded.

        A gripper that holds an object is not at its setpoint; the difference is the grip.
        """
        rest = self._feedback.state.position.copy()
        rest[self._info.n_arm :] = self._follower.setpoint[0, self._info.n_arm :]
        return rest


def _suspended() -> int:
    """Return how long this machine has been suspended since it booted [ns]."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
