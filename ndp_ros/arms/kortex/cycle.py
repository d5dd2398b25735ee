# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The cyclic exchange with a Kortex arm: commands in its units, measurements in SI units.

In position mode the command is a position. In torque mode it is a torque and the position just
measured, because the actuators check their following error in every mode.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from ndp_ros.arms.kortex.client import KortexClient, faults_of
from ndp_ros.arms.kortex.codes import CommandFlag
from ndp_ros.arms.kortex.config import KortexConfig
from ndp_ros.arms.kortex.errors import KortexError, RobotInFault, Unreachable, WrongServoingMode
from ndp_ros.arms.kortex.feedback import Measured
from ndp_ros.arms.kortex.units import DEGREE, GRIPPER_CLOSED, degrees_of, radians_of, to_degrees
from ndp_ros.arms.kortex.wire import CyclicRequest
from ndp_ros.control.arm import ArmInfo, Array, Command, JointState
from ndp_ros.control.measurement import AGREEING, Confirmer
from ndp_ros.control.memory import Interpreted, TickCore

_GRIPPER_CHANGE = 1e-3
"""Change of the gripper's command after which it is sent [rad]."""


class Cycle:
    """Commands to n actuators and their feedback.

    Feedback counts once it is confirmed (``control.measurement``); until then the last
    confirmed one stands, with its age.

    Attributes:
        mode: Command mode of a driven arm; empty while it is not driven, and once it has left
            low-level servoing by itself.
        measured: The last confirmed feedback (dof,). Efforts have the sign of commanded
            torques; ``time`` is that of the command that it answers.
        grip_rate: Speed of the gripper [rad/s], estimated.
        grip_at_start: Setpoint of the gripper when the arm was taken [rad]; NaN without a
            gripper, infinite once the gripper is commanded.
    """

    def __init__(self, client: KortexClient, settings: KortexConfig, info: ArmInfo) -> None:
        """Measure for the first time.

        Raises:
            RobotInFault: If the arm is in fault.
            KortexError: If it has another number of actuators, or its answers do not agree.
        """
        self._client, self._settings = client, settings
        self._n, self._gripper = n, gripper = info.n_arm, info.gripper
        self._request = CyclicRequest(n, gripper and client.has_gripper)
        self._plain_request = CyclicRequest(n)
        for request in (self._request, self._plain_request):
            request.flags[:] = CommandFlag.SERVO_ENABLE
        self.mode = ""
        # In lockstep the arm lives by the number of commands and not by the clock.
        self._confirmer = Confirmer(info, velocities=not settings.lockstep)
        self.measured = self._confirmer.state
        self._core: TickCore = Interpreted()
        self._reader = client.datagrams.reader(n)
        self._reading = JointState.zeros(info.dof)
        self._torque = np.zeros(n)
        self._odd = ""
        self._patience = settings.unreachable_after
        self.grip_rate = 0.0
        self.grip_at_start = math.nan
        self._sent_at = [0.0] * 1024
        self.measure()

    @property
    def memory(self) -> dict[str, Any]:
        """The arrays and numbers that compiled code shares."""
        return self._confirmer.memory

    def use(self, core: TickCore) -> None:
        """Leave usual readings to a core on this memory."""
        self._core = core

    @property
    def position(self) -> Array:
        """Measured positions (n,) [rad], continuous."""
        return self.measured.position[: self._n]

    @property
    def velocity(self) -> Array:
        """Measured velocities (n,) [rad/s]."""
        return self.measured.velocity[: self._n]

    @property
    def effort(self) -> Array:
        """Measured torques (n,) [N m], with the sign of commanded ones."""
        return self.measured.effort[: self._n]

    @property
    def grip(self) -> float:
        """Measured position of the gripper [rad]; 0 without one."""
        return float(self.measured.position[-1]) if self._gripper else 0.0

    @property
    def grip_measured_at(self) -> float:
        """Time of the last confirmed reading of the gripper [s]."""
        return self._confirmer.gripper_time

    def never_give_up(self) -> None:
        """Continue without feedback from now on, so that an unreachable arm is still braked."""
        self._patience = math.inf

    @property
    def rejected(self) -> int:
        """Feedback so far that was not confirmed."""
        return self._confirmer.rejected

    @property
    def unconfirmed(self) -> str:
        """Why the newest feedback was not confirmed; empty if it was."""
        return self._confirmer.reason

    # Out.

    def command(self, command: Command) -> None:
        """Send the command of a tick."""
        n, request = self._n, self._plain_request
        if self._gripper and len(self._request.gripper):
            wanted = float(command.position[n])
            # The gripper keeps its last command until its setpoint changes: a grip is a setpoint
            # beyond the measured position, and must survive a hand-over.
            if abs(wanted - self.grip_at_start) > _GRIPPER_CHANGE:
                self.grip_at_start = math.inf
                request = self._request
                share = min(max(wanted / GRIPPER_CLOSED, 0.0), 1.0)
                request.gripper[0] = 100.0 * share
                request.gripper[1] = self._settings.gripper_speed
                request.gripper[2] = self._settings.gripper_force
        if command.mode == "position":
            request.position[:] = degrees_of(command.position.tolist()[:n])
            request.velocity[:] = [speed / DEGREE for speed in command.velocity.tolist()[:n]]
            request.torque[:] = 0.0
        else:
            request.position[:] = degrees_of(self.position.tolist())
            request.velocity[:] = 0.0
            request.torque[:] = self._torque = command.torque[:n].copy()
        self._send(request)

    def go_to(self, position: Array) -> None:
        """Prepare the command of a position (n,) [rad] for :meth:`repeat`."""
        self._plain_request.position[:] = to_degrees(position)
        self._plain_request.velocity[:] = 0.0
        self._plain_request.torque[:] = 0.0

    def hold(self) -> None:
        """Prepare the command that holds the arm: its position, and a torque.

        An arm driven by torque gets its last torque, any other the torque that it measures.
        """
        torque = self._torque if self.mode == "torque" else self.effort
        for request in (self._request, self._plain_request):
            request.position[:] = to_degrees(self.position)
            request.velocity[:] = 0.0
            request.torque[:] = torque

    def repeat(self) -> None:
        """Send the prepared command, or the last one without the gripper's part."""
        self._send(self._plain_request)

    def _send(self, request: CyclicRequest) -> None:
        if not request.finite:
            raise KortexError("a command that is not finite was not sent")
        datagrams = self._client.datagrams
        datagrams.send(request)
        self._sent_at[datagrams.cycles & 1023] = datagrams.sent

    # Back.

    def receive(self, wait: float) -> bool:
        """Receive feedback within a wait [s]; return whether it is new.

        Raises:
            WrongServoingMode: If the arm left low-level servoing; the message says why.
            RobotInFault: If a fault tripped.
            Unreachable: If nothing came for ``unreachable_after``.
        """
        datagrams = self._client.datagrams
        try:
            feedback = datagrams.receive(wait, self._reader)
        except WrongServoingMode as error:
            raise self._why_it_left(error) from error
        if feedback is None:
            silent = time.monotonic() - self.measured.time
            if silent > self._patience:
                raise Unreachable(f"no feedback from {self._client.host} for {silent:.2f} s")
            return False
        self._take(feedback, self._sent_at[datagrams.answered & 1023])
        return True

    def look(self, wait: float) -> None:
        """Request the state without a command; after a lost answer the last state stands.

        Raises:
            RobotInFault: If a fault tripped.
            Unreachable: If nothing came for ``unreachable_after``.
        """
        try:
            feedback = self._client.datagrams.call(
                "BaseCyclic.RefreshFeedback", timeout=wait, attempts=1
            )
        except Unreachable:
            if time.monotonic() - self.measured.time > self._settings.unreachable_after:
                raise
            return
        self._take(feedback, time.monotonic())

    def measure(self) -> None:
        """Request the state without a command until answers agree with each other.

        Raises:
            RobotInFault: If a fault tripped.
            Unreachable: If none comes.
            KortexError: If they do not agree.
        """
        for _ in range(4 * AGREEING):
            if self._take(self._client.feedback(), time.monotonic()) and self._confirmer.complete:
                return
        raise KortexError(
            f"the answers of the arm at {self._client.host} do not agree with each other "
            f"({self._odd or self._confirmer.reason})"
        )

    def _take(self, feedback: Any, at: float) -> bool:
        """Process the feedback to a command sent at a time [s]; return whether it is confirmed.

        It is a message of protobuf, or what the reader has read: no fault, n actuators.

        Raises:
            RobotInFault: If it carries a fault.
            Unreachable: If none has been confirmed for ``unreachable_after``.
        """
        n, reading = self._n, self._reading
        if not isinstance(feedback, Measured):
            if len(feedback.actuators) != n:
                self._odd = f"feedback of {len(feedback.actuators)} actuators, expected {n}"
                self._require_sense(at)
                return False
            if faults := faults_of(feedback):
                self.mode, self._odd = "", ""  # it brakes by itself and leaves low-level servoing
                raise RobotInFault(f"the arm at {self._client.host} tripped ({'; '.join(faults)})")
            feedback = Measured.of(feedback)
        self._odd = ""
        # Lists, which for a few joints are faster than arrays; NaN is not confirmed below.
        reading.position[:n] = radians_of(feedback.position)
        reading.velocity[:n] = [speed * DEGREE for speed in feedback.velocity]
        # Measured against the direction in which torque is commanded.
        reading.effort[:n] = [-torque for torque in feedback.torque]
        reading.time = at
        if not self._gripper:
            confirmed = self._confirm()
        else:
            confirmed = self._take_gripper(feedback.gripper, at)
        self._require_sense(at)
        return confirmed

    def _confirm(self) -> bool:
        """Confirm the reading, by compiled code if it is a usual one."""
        reading = self._reading
        vectors = reading.position, reading.velocity, reading.effort
        return self._core.confirm(*vectors, reading.time) or self._confirmer.confirm(reading)

    def _require_sense(self, at: float) -> None:
        """Raise Unreachable if no feedback has been confirmed for ``unreachable_after``."""
        silent = at - self.measured.time
        if silent > self._patience and self._confirmer.complete:
            raise Unreachable(
                f"no feedback from {self._client.host} that makes sense for {silent:.2f} s "
                f"({self._odd or self._confirmer.reason})"
            )

    def _take_gripper(self, percent: float, at: float) -> bool:
        """Process feedback with a gripper; return whether the arm's joints are confirmed."""
        confirmer = self._confirmer
        before, since = self.grip, confirmer.gripper_time
        if self._client.has_gripper:
            self._reading.position[-1] = percent / 100.0 * GRIPPER_CLOSED
        confirmed = self._confirm()
        elapsed = confirmer.gripper_time - since
        if 0.0 < elapsed < 0.1:
            # The arm reports only the magnitude of the speed.
            self.grip_rate += 0.1 * ((self.grip - before) / elapsed - self.grip_rate)
        silent = at - confirmer.gripper_time
        if silent > self._patience and confirmer.complete:
            raise KortexError(f"no feedback of the gripper for {silent:.2f} s: is its cable in?")
        return confirmed

    def _why_it_left(self, error: WrongServoingMode) -> KortexError:
        """Return the error that names why the arm left low-level servoing."""
        self.mode = ""
        try:
            faults = faults_of(self._client.feedback())
        except KortexError:
            faults = []
        if faults:
            return RobotInFault(f"the arm left low-level servoing ({'; '.join(faults)})")
        gap = time.monotonic() - self.measured.time
        return WrongServoingMode(
            f"the arm left low-level servoing without a fault, {gap:.2f} s after its last answer; "
            "commands came too late, or another client took it",
            error.code,
            error.sub_code,
        )
