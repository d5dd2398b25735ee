"""A Kortex arm behind the arm protocol: one cyclic exchange per tick.

``write`` sends the command of a tick, ``read`` returns the feedback that answers it.
The first ``write`` takes the arm: it enters low-level servoing in the documented
order, at the position where the arm stands. ``stop`` brakes and gives the arm back.

In position mode the command is a position. In torque mode it is a torque and, beside
it, the position just measured: the actuators watch their following error in every
mode, and would trip on an old one.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.arm import COMMAND_MODES, ArmConfig, ArmInfo, Command, JointState
from ndp_ros.arms.kortex.client import KortexClient, faults_of
from ndp_ros.arms.kortex.config import KortexConfig
from ndp_ros.arms.kortex.errors import (
    KortexError,
    NotInControl,
    RobotInFault,
    Unreachable,
    WrongServoingMode,
)
from ndp_ros.arms.kortex.schema import CommandFlag, ControlMode, ServoingMode
from ndp_ros.arms.kortex.units import DEGREE, GRIPPER_CLOSED, JointUnits, to_degrees
from ndp_ros.arms.kortex.wire import CyclicRequest
from ndp_ros.errors import ArmError

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

_CONTROL_MODES = {"position": ControlMode.POSITION, "torque": ControlMode.TORQUE}
_SHARE_OF_PERIOD = 0.6
"""Share of a tick that ``read`` may spend waiting."""
_CALM_WAIT = 0.02
"""Longest wait for feedback outside the loop's pace, as when the arm is taken [s]."""
_TRIES = 12
"""Cycles that may get no answer in a row then: where 30 % are lost each way, all do in 0.03 %."""
_GRIP_TIME = 3.0
"""Longest time for closing the gripper [s]."""
_GRIPPER_CHANGE = 1e-3
"""Change of the gripper's command after which it is sent [rad]."""
_SETTLED = 0.02
"""Speed below which the arm counts as at rest [rad/s]."""


class KortexArm:
    """A Kinova Gen3-family arm over its own protocol.

    ``JointState.time`` is when the command was sent that the measurement answers, so
    a late answer is as old as it is. Efforts have the sign of commanded torques.

    Attributes:
        client: The sessions, once connected.
    """

    client: KortexClient

    def __init__(self, config: ArmConfig, settings: KortexConfig, rate: float = 1000.0) -> None:
        """Prepare; nothing is sent before :meth:`connect`.

        Args:
            config: The arm and its limits.
            settings: Where it is and how to log in.
            rate: Ticks of the loop per second [Hz].
        """
        self._config, self._settings = config, settings
        self._info = ArmInfo.from_config(config, COMMAND_MODES)
        self._n = n = self._info.n_arm
        self._gripper = config.gripper
        self._period = 1.0 / rate
        self._wait = min(settings.reply_timeout, _SHARE_OF_PERIOD / rate)
        if settings.lockstep:
            self._wait = settings.feedback_timeout
        self._mode = ""
        self._connected = False
        self._awaiting = False
        self._units = JointUnits(np.zeros(n))
        self._degrees, self._velocity, self._effort = np.zeros(n), np.zeros(n), np.zeros(n)
        self._grip = self._grip_rate = 0.0
        self._measured_at = 0.0
        self._sent_at = [0.0] * 1024
        self._command = np.zeros(n)
        self._grip_command = math.nan
        self._grip_at_start = math.nan

    # The arm protocol.

    def connect(self) -> ArmInfo:
        """Log in, look at the arm and at its faults; the arm is not taken yet.

        Raises:
            Unreachable: If nothing answers at the address.
            InvalidPassword: If the arm refuses the credentials.
            RobotInFault: If it is in fault and ``clear_faults`` is not set.
            KortexError: If it is not the arm that the configuration describes.
        """
        if self._connected:
            return self._info
        s = self._settings
        client = KortexClient(s.robot_ip, s.credentials(), s.port, s.udp_port, s.timeout, s.driver)
        try:
            if len(client.actuators) != self._n:
                raise KortexError(
                    f"the arm at {s.robot_ip} has {len(client.actuators)} actuators, "
                    f"{self._config.name} has {self._n}; choose the arm that is there"
                )
            client.require_no_fault(s.clear_faults)
            self._require_free_arm(client)
            if self._gripper and not client.has_gripper:
                log.warning("the arm has no gripper: commands to it are not sent")
            self.client = client
            self._request = CyclicRequest(self._n, self._gripper and client.has_gripper)
            self._plain_request = CyclicRequest(self._n)
            for request in (self._request, self._plain_request):
                request.flags[:] = CommandFlag.SERVO_ENABLE
            feedback = client.feedback()
            self._units = JointUnits(np.array([a.position for a in feedback.actuators]))
            self._take(feedback, time.monotonic())
            if s.grip is not None and client.has_gripper and not s.dry_run:
                self._close_gripper(s.grip)
        except BaseException:
            client.close()
            raise
        self._mode = ""
        self._awaiting = False
        self._connected = True
        return self._info

    def read(self, out: JointState) -> JointState:
        """Return the feedback that answers the last ``write``, or the newest there is.

        Waits for a share of a tick at most. Without a ``write`` since the last call
        the arm is asked for its state alone.

        Raises:
            WrongServoingMode: If the arm left low-level servoing; the message says why.
            RobotInFault: If a fault tripped.
            Unreachable: If nothing came for ``feedback_timeout``.
        """
        self._require_connection()
        if self.client.stream.dead is not None:
            raise self.client.stream.dead
        if self._awaiting:
            self._awaiting = False
            self._receive(self._wait)
        else:
            self._look()
        n = self._n
        out.position[:n] = self._units.position
        out.velocity[:n] = self._velocity
        out.effort[:n] = self._effort
        if self._gripper:
            out.position[n], out.velocity[n], out.effort[n] = self._grip, self._grip_rate, 0.0
            if self._settings.grip is not None and not self._mode:
                # Whoever starts from here must go on pressing what the gripper holds.
                out.position[n], out.velocity[n] = self._settings.grip, 0.0
        out.time = self._measured_at
        return out

    def write(self, command: Command) -> None:
        """Send one command; the first one takes the arm.

        Raises:
            ArmError: If the command is not finite or in an unknown mode.
            KortexError: If the arm cannot be taken.
        """
        self._require_connection()
        n = self._n
        if command.mode not in _CONTROL_MODES:
            raise ArmError.choice("command mode", command.mode, COMMAND_MODES)
        # A sum is finite only if all its terms are.
        total = float(command.position.sum())
        if command.mode == "torque":
            total += float(command.torque.sum())
        if not math.isfinite(total):
            raise ArmError(
                f"command is not finite: position {command.position}, torque {command.torque}"
            )
        if self._settings.dry_run:
            return
        if command.mode != self._mode:
            self._enter(command)
        request = self._fill(command)
        if command.mode == "position":
            self._command[:] = command.position[:n]
        else:
            self._command[:] = self._units.position
        self._send(request)
        self._awaiting = True

    def stop(self) -> None:
        """Brake within the acceleration limits, then give the arm back to its base."""
        if not self._connected or not self._mode:
            return
        mode, self._mode = self._mode, ""
        try:
            self._brake(mode)
        except (RobotInFault, WrongServoingMode):
            log.warning("the arm at %s stops by itself", self.client.host)
        finally:
            self._leave()

    def close(self) -> None:
        """Stop, and close both sessions; may be called twice."""
        if not self._connected:
            return
        try:
            with contextlib.suppress(KortexError):
                self.stop()
        finally:
            self._connected = False
            self.client.close()

    # Taking the arm and giving it back.

    def _enter(self, command: Command) -> None:
        """Take the arm for low-level servoing, or switch between position and torque.

        Documented order: feedback, positions into the command, servoing mode, one
        cycle, control modes. A cycle between each two steps keeps the arm's watchdog
        quiet.
        """
        client, mode = self.client, _CONTROL_MODES[command.mode]
        if not self._mode:
            client.require_no_fault()
            self._take(client.feedback(), time.monotonic())
            self._grip_at_start = command.position[self._n] if self._gripper else math.nan
        self._hold()
        if not self._mode:
            client.set_servoing_mode(ServoingMode.LOW_LEVEL)
            log.info("low-level servoing at %s, %s mode", client.host, command.mode)
        try:
            self._pump()
            if self._mode or mode is not ControlMode.POSITION:
                for actuator in range(self._n):
                    client.set_control_mode(actuator, mode)
                    self._pump()
        except BaseException:
            with contextlib.suppress(KortexError):
                client.set_servoing_mode(ServoingMode.SINGLE_LEVEL)
            self._mode = ""
            raise
        self._mode = command.mode

    def _close_gripper(self, position: float) -> None:
        """Close the gripper and wait until it has stopped, on an object or on its goal."""
        self.client.move_gripper(position / GRIPPER_CLOSED)
        end, before = time.monotonic() + _GRIP_TIME, -1.0
        while time.monotonic() < end:
            time.sleep(0.2)
            motors = self.client.feedback().interconnect.gripper_feedback.motor
            if not motors or abs(motors[0].position - before) < 0.2:
                return
            before = motors[0].position

    def _require_free_arm(self, client: KortexClient) -> None:
        """Refuse an arm that another client drives; one that died lets go by itself.

        Raises:
            NotInControl: If low-level servoing does not end within a second.
        """
        end = time.monotonic() + 1.0
        while client.servoing_mode != ServoingMode.SINGLE_LEVEL:
            if time.monotonic() > end:
                raise NotInControl(f"another client drives the arm at {client.host}")
            time.sleep(0.05)

    def _hold(self) -> None:
        """Fill the command with what holds the arm as it is: position, and torque against it."""
        for request in (self._request, self._plain_request):
            request.position[:] = to_degrees(self._units.position)
            request.velocity[:] = 0.0
            request.torque[:] = self._effort

    def _pump(self) -> None:
        """Send one more cycle that holds the arm, and require its answer."""
        for _ in range(_TRIES):
            self._send(self._plain_request)
            if self._receive(_CALM_WAIT):
                return
        raise Unreachable(f"{self.client.host} does not answer cyclic commands")

    def _brake(self, mode: str) -> None:
        """Bring the arm to rest by position commands, from where it is and as it moves."""
        client, n = self.client, self._n
        if mode == "torque":
            for actuator in range(n):
                # Those still in torque mode go on with the torque that they have.
                self._hold()
                self._send(self._plain_request)
                self._receive(self._wait)
                client.set_control_mode(actuator, ControlMode.POSITION)
            self._command[:] = self._units.position
        # The last commands may have gone out in the other request, the one with the gripper's.
        self._request_position(self._command)
        rate = np.where(abs(self._velocity) > _SETTLED, self._velocity, 0.0)
        step = self._info.max_acceleration[:n] * self._period
        lower, upper = self._info.lower[:n], self._info.upper[:n]
        due = time.monotonic()
        while rate.any():
            before = rate
            rate = before - np.clip(before, -step, step)
            self._command += 0.5 * (before + rate) * self._period
            np.clip(self._command, lower, upper, out=self._command)
            self._request_position(self._command)
            self._send(self._plain_request)
            self._receive(self._wait)
            due += self._period
            time.sleep(max(0.0, due - time.monotonic()))

    def _leave(self) -> None:
        """Position mode for each actuator, then the base's own servoing."""
        client = self.client
        try:
            for actuator in range(self._n):
                client.set_control_mode(actuator, ControlMode.POSITION)
                self._send(self._plain_request)
                # No command may be on its way when the servoing mode changes.
                client.datagrams.receive(_CALM_WAIT)
        except KortexError as error:
            log.warning("the arm at %s has left low-level servoing by itself: %s",
                        client.host, error)  # fmt: skip
        client.set_servoing_mode(ServoingMode.SINGLE_LEVEL)
        log.info("back to the base's servoing at %s", client.host)

    # The cycle.

    def _fill(self, command: Command) -> CyclicRequest:
        """Write the command of this tick into a request and return it."""
        n, request = self._n, self._plain_request
        if self._gripper and len(self._request.gripper):
            wanted = float(command.position[n])
            # Until it is told something new the gripper keeps what it was told before: a
            # grip is a setpoint beyond what is measured, and must not end at a take-over.
            if abs(wanted - self._grip_at_start) > _GRIPPER_CHANGE:
                self._grip_at_start = math.inf
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
        return request

    def _request_position(self, position: Array) -> None:
        self._plain_request.position[:] = to_degrees(position)
        self._plain_request.velocity[:] = 0.0
        self._plain_request.torque[:] = 0.0

    def _send(self, request: CyclicRequest) -> None:
        datagrams = self.client.datagrams
        datagrams.send(request)
        self._sent_at[datagrams.cycles & 1023] = datagrams.sent

    def _receive(self, wait: float) -> bool:
        """Take the feedback that there is; whether it is new."""
        datagrams = self.client.datagrams
        try:
            feedback = datagrams.receive(wait)
        except WrongServoingMode as error:
            raise self._why_it_left(error) from error
        if feedback is None:
            silent = time.monotonic() - self._measured_at
            if silent > self._settings.feedback_timeout:
                raise Unreachable(f"no feedback from {self.client.host} for {silent:.2f} s")
            return False
        self._take(feedback, self._sent_at[datagrams.answered & 1023])
        return True

    def _look(self) -> None:
        """Ask for the state alone; a lost answer leaves the last one, with its age."""
        # A driven arm waits for its next command meanwhile.
        wait = self._wait if self._mode else _CALM_WAIT
        try:
            feedback = self.client.datagrams.call(
                "BaseCyclic.RefreshFeedback", timeout=wait, attempts=1
            )
        except Unreachable:
            silent = time.monotonic() - self._measured_at
            if silent > self._settings.feedback_timeout:
                raise
            return
        self._take(feedback, time.monotonic())

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
        np.multiply(columns[1], DEGREE, out=self._velocity)
        # Measured against the direction in which torque is commanded.
        np.negative(columns[2], out=self._effort)
        if self._gripper:
            motors = feedback.interconnect.gripper_feedback.motor
            if motors:
                position = motors[0].position / 100.0 * GRIPPER_CLOSED
                elapsed = at - self._measured_at
                if 0.0 < elapsed < 0.1:
                    # The arm reports the size of the speed alone.
                    self._grip_rate += 0.1 * ((position - self._grip) / elapsed - self._grip_rate)
                self._grip = position
        self._measured_at = at
        if faulty:
            self._mode = ""  # it brakes by itself and leaves low-level servoing
            raise RobotInFault(
                f"the arm at {self.client.host} tripped ({'; '.join(faults_of(feedback))})"
            )

    def _why_it_left(self, error: WrongServoingMode) -> KortexError:
        """Return the error that names why the arm left low-level servoing."""
        self._mode = ""
        try:
            faults = faults_of(self.client.feedback())
        except KortexError:
            faults = []
        if faults:
            return RobotInFault(f"the arm left low-level servoing ({'; '.join(faults)})")
        gap = time.monotonic() - self._measured_at
        return WrongServoingMode(
            f"the arm left low-level servoing without a fault, {gap:.2f} s after its last answer; "
            "commands came too late, or another client took it",
            error.code,
            error.sub_code,
        )

    def _require_connection(self) -> None:
        if not self._connected:
            raise ArmError(f"{self._config.name} is not connected: call connect() first")
