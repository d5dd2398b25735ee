"""The cyclic exchange with a Kortex arm: commands in its units out, measurements in ours back.

In position mode the command is a position. In torque mode it is a torque and, beside
it, the position just measured: the actuators watch their following error in every
mode, and would trip on an old one.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.arm import Command
from ndp_ros.arms.kortex.client import KortexClient, faults_of
from ndp_ros.arms.kortex.codes import CommandFlag
from ndp_ros.arms.kortex.config import KortexConfig
from ndp_ros.arms.kortex.errors import KortexError, RobotInFault, Unreachable, WrongServoingMode
from ndp_ros.arms.kortex.units import DEGREE, GRIPPER_CLOSED, JointUnits, to_degrees
from ndp_ros.arms.kortex.wire import CyclicRequest

Array = NDArray[np.float64]

_GRIPPER_CHANGE = 1e-3
"""Change of the gripper's command after which it is sent [rad]."""


class Cycle:
    """What goes to n actuators and comes back.

    Attributes:
        mode: Command mode in which the arm is driven, empty while it is not: also once it
            has left low-level servoing by itself.
        position: Measured positions (n,) [rad], continuous.
        velocity: Measured velocities (n,) [rad/s].
        effort: Measured torques (n,) [N m], with the sign of commanded ones.
        grip: Measured position of the gripper [rad].
        grip_rate: Its velocity [rad/s].
        measured_at: When the command was sent that the measurement answers [s].
        grip_at_start: Where the gripper was told to be before the arm was taken [rad]; NaN
            without one, infinite once it is commanded anew.
    """

    def __init__(self, client: KortexClient, settings: KortexConfig, n: int, gripper: bool) -> None:
        """Measure for the first time.

        Args:
            client: The sessions.
            settings: How long to wait, and how to drive the gripper.
            n: Number of actuators.
            gripper: Whether there should be a gripper.

        Raises:
            RobotInFault: If the arm is in fault.
            KortexError: If it has another number of actuators.
        """
        self._client, self._settings = client, settings
        self._n, self._gripper = n, gripper
        self._request = CyclicRequest(n, gripper and client.has_gripper)
        self._plain_request = CyclicRequest(n)
        for request in (self._request, self._plain_request):
            request.flags[:] = CommandFlag.SERVO_ENABLE
        self.mode = ""
        self._degrees, self.velocity, self.effort = np.zeros(n), np.zeros(n), np.zeros(n)
        self.grip = self.grip_rate = 0.0
        self.grip_at_start = math.nan
        self.measured_at = 0.0
        self._sent_at = [0.0] * 1024
        feedback = client.feedback()
        self._units = JointUnits(np.array([a.position for a in feedback.actuators]))
        self._take(feedback, time.monotonic())

    @property
    def position(self) -> Array:
        """Measured positions (n,) [rad], continuous."""
        return self._units.position

    # Out.

    def command(self, command: Command) -> None:
        """Send the command of a tick."""
        n, request = self._n, self._plain_request
        if self._gripper and len(self._request.gripper):
            wanted = float(command.position[n])
            # Until it is told something new the gripper keeps what it was told before: a
            # grip is a setpoint beyond what is measured, and must not end at a take-over.
            if abs(wanted - self.grip_at_start) > _GRIPPER_CHANGE:
                self.grip_at_start = math.inf
                request = self._request
                share = min(max(wanted / GRIPPER_CLOSED, 0.0), 1.0)
                request.gripper[0] = 100.0 * share
                request.gripper[1] = self._settings.gripper_speed
                request.gripper[2] = self._settings.gripper_force
        if command.mode == "position":
            request.position[:] = to_degrees(command.position[:n])
            request.velocity[:] = command.velocity[:n] / DEGREE
            request.torque[:] = 0.0
        else:
            request.position[:] = self._degrees
            request.velocity[:] = 0.0
            request.torque[:] = command.torque[:n]
        self._send(request)

    def go_to(self, position: Array) -> None:
        """Prepare the command of a position (n,) [rad] for :meth:`repeat`."""
        self._plain_request.position[:] = to_degrees(position)
        self._plain_request.velocity[:] = 0.0
        self._plain_request.torque[:] = 0.0

    def hold(self) -> None:
        """Prepare what holds the arm as it is: its position, and torque against it."""
        for request in (self._request, self._plain_request):
            request.position[:] = to_degrees(self.position)
            request.velocity[:] = 0.0
            request.torque[:] = self.effort

    def repeat(self) -> None:
        """Send what was prepared, or the last command without the gripper's."""
        self._send(self._plain_request)

    def _send(self, request: CyclicRequest) -> None:
        datagrams = self._client.datagrams
        datagrams.send(request)
        self._sent_at[datagrams.cycles & 1023] = datagrams.sent

    # Back.

    def receive(self, wait: float) -> bool:
        """Take the feedback that there is; whether it is new.

        Args:
            wait: Longest wait for it [s].

        Raises:
            WrongServoingMode: If the arm left low-level servoing; the message says why.
            RobotInFault: If a fault tripped.
            Unreachable: If nothing came for ``feedback_timeout``.
        """
        datagrams = self._client.datagrams
        try:
            feedback = datagrams.receive(wait)
        except WrongServoingMode as error:
            raise self._why_it_left(error) from error
        if feedback is None:
            silent = time.monotonic() - self.measured_at
            if silent > self._settings.feedback_timeout:
                raise Unreachable(f"no feedback from {self._client.host} for {silent:.2f} s")
            return False
        self._take(feedback, self._sent_at[datagrams.answered & 1023])
        return True

    def look(self, wait: float) -> None:
        """Ask for the state alone; a lost answer leaves the last one, with its age.

        Raises:
            RobotInFault: If a fault tripped.
            Unreachable: If nothing came for ``feedback_timeout``.
        """
        try:
            feedback = self._client.datagrams.call(
                "BaseCyclic.RefreshFeedback", timeout=wait, attempts=1
            )
        except Unreachable:
            if time.monotonic() - self.measured_at > self._settings.feedback_timeout:
                raise
            return
        self._take(feedback, time.monotonic())

    def measure(self) -> None:
        """Ask for the state alone, until there is an answer.

        Raises:
            RobotInFault: If a fault tripped.
            Unreachable: If none comes.
        """
        self._take(self._client.feedback(), time.monotonic())

    def _take(self, feedback: Any, at: float) -> None:
        """Convert one feedback; raise if it carries a fault."""
        actuators = feedback.actuators
        if len(actuators) != self._n:
            raise KortexError(f"feedback of {len(actuators)} actuators, expected {self._n}")
        faulty = feedback.base.fault_bank_a
        rows = []
        for actuator in actuators:
            rows.append((actuator.position, actuator.velocity, actuator.torque))
            faulty |= actuator.fault_bank_a
        columns = np.array(rows).T
        self._degrees[:] = columns[0]
        self._units.update(columns[0])
        np.multiply(columns[1], DEGREE, out=self.velocity)
        # Measured against the direction in which torque is commanded.
        np.negative(columns[2], out=self.effort)
        if self._gripper:
            motors = feedback.interconnect.gripper_feedback.motor
            if motors:
                position = motors[0].position / 100.0 * GRIPPER_CLOSED
                elapsed = at - self.measured_at
                if 0.0 < elapsed < 0.1:
                    # The arm reports the size of the speed alone.
                    self.grip_rate += 0.1 * ((position - self.grip) / elapsed - self.grip_rate)
                self.grip = position
        self.measured_at = at
        if faulty:
            self.mode = ""  # it brakes by itself and leaves low-level servoing
            raise RobotInFault(
                f"the arm at {self._client.host} tripped ({'; '.join(faults_of(feedback))})"
            )

    def _why_it_left(self, error: WrongServoingMode) -> KortexError:
        """Return the error that names why the arm left low-level servoing."""
        self.mode = ""
        try:
            faults = faults_of(self._client.feedback())
        except KortexError:
            faults = []
        if faults:
            return RobotInFault(f"the arm left low-level servoing ({'; '.join(faults)})")
        gap = time.monotonic() - self.measured_at
        return WrongServoingMode(
            f"the arm left low-level servoing without a fault, {gap:.2f} s after its last answer; "
            "commands came too late, or another client took it",
            error.code,
            error.sub_code,
        )
