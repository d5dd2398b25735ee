# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A Kortex arm behind the arm protocol: one cyclic exchange per tick.

``write`` sends the command of a tick, ``read`` returns the feedback that answers it.
The first ``write`` takes the arm: it enters low-level servoing in the documented
order, at the position where the arm stands. ``stop`` brakes and gives the arm back.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from typing import Any

import numpy as np

from ndp_ros.arms.kortex.client import KortexClient
from ndp_ros.arms.kortex.codes import ControlMode, ServoingMode
from ndp_ros.arms.kortex.config import KortexConfig
from ndp_ros.arms.kortex.credentials import Credentials
from ndp_ros.arms.kortex.cycle import Cycle
from ndp_ros.arms.kortex.errors import (
    KortexError,
    NotInControl,
    RobotInFault,
    Unreachable,
    WrongServoingMode,
)
from ndp_ros.arms.kortex.units import GRIPPER_CLOSED
from ndp_ros.control.arm import COMMAND_MODES, ArmConfig, ArmInfo, Command, JointState
from ndp_ros.control.memory import TickCore
from ndp_ros.errors import ArmError

log = logging.getLogger(__name__)


_CONTROL_MODES = {"position": ControlMode.POSITION, "torque": ControlMode.TORQUE}
_SHARE_OF_PERIOD = 0.6
"""Share of a tick that ``read`` may spend waiting."""
_CALM_WAIT = 0.02
"""Longest wait for feedback outside the loop's pace, as when the arm is taken [s]."""
_TRIES = 12
"""Unanswered cycles in a row that are accepted then; with 30 % loss each way, 0.03 % of all
attempts exceed them."""
_GRIP_TIME = 3.0
"""Longest time for closing the gripper [s]."""
_GRIP_PERIOD = 0.02
"""Time between two readings of the gripper while it closes [s]."""
_GRIP_READINGS, _GRIP_STILL = 15, 0.002
"""A gripper is at rest once so many confirmed readings in a row differ by less than this [rad]."""
_SETTLED = 0.02
"""Speed below which the arm counts as at rest [rad/s]."""


class KortexArm:
    """A Kinova Gen3-family arm over its own protocol.

    ``JointState.time`` is the time of the command that the measurement answers, so that a late
    answer counts as old. Efforts have the sign of commanded torques.

    Attributes:
        client: The sessions, once connected.
    """

    client: KortexClient
    _cycle: Cycle

    def __init__(
        self,
        config: ArmConfig,
        settings: KortexConfig,
        rate: float = 1000.0,
        credentials: Credentials | None = None,
    ) -> None:
        """Prepare; nothing is sent before :meth:`connect`.

        ``rate`` is that of the loop [Hz]. Credentials that are not given are those of the settings'
        file, of the environment or of the factory.

        Raises:
            ConfigError: If the settings do not fit the arm.
        """
        if settings.grip is not None:
            config.require_grip(settings.grip)
        self._config, self._settings, self._credentials = config, settings, credentials
        self._info = ArmInfo.from_config(config, COMMAND_MODES, confirmed=True)
        self._n = n = self._info.n_arm
        self._gripper = config.gripper
        self._period = 1.0 / rate
        self._wait = min(settings.reply_timeout, _SHARE_OF_PERIOD / rate)
        if settings.lockstep:
            self._wait = settings.unreachable_after
        self._connected = False
        self._awaiting = False
        self._command = np.zeros(n)

    @property
    def memory(self) -> dict[str, Any]:
        """The arrays that compiled code shares, once connected."""
        return self._cycle.memory

    def use(self, core: TickCore) -> None:
        """Leave usual readings of this connection to a core."""
        self._cycle.use(core)

    # The arm protocol.

    def connect(self) -> ArmInfo:
        """Log in and check the arm and its faults; the arm is not taken yet.

        Raises:
            Unreachable: If nothing answers at the address.
            InvalidPassword: If the arm refuses the credentials.
            RobotInFault: If it is in fault and ``clear_faults`` is not set.
            KortexError: If it is not the arm that the configuration describes.
        """
        if self._connected:
            return self._info
        s = self._settings
        who = self._credentials or Credentials.find(s.username, file=s.credentials_file)
        client = KortexClient(s.robot_ip, who, s.port, s.udp_port, s.service_timeout, s.driver)
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
            self._cycle = Cycle(client, s, self._info)
            if s.grip is not None and client.has_gripper and not s.dry_run:
                self._close_gripper(s.grip)
        except BaseException:
            client.close()
            raise
        self._awaiting = False
        self._connected = True
        return self._info

    def read(self, out: JointState) -> JointState:
        """Return the feedback that answers the last ``write``, or the newest available.

        Waits for at most a share of a tick. Without a ``write`` since the last call only the
        arm's state is requested.

        Raises:
            WrongServoingMode: If the arm left low-level servoing; the message says why.
            RobotInFault: If a fault tripped.
            Unreachable: If nothing came for ``unreachable_after``.
        """
        self._require_connection()
        if self.client.stream.dead is not None:
            raise self.client.stream.dead
        cycle = self._cycle
        if self._awaiting:
            self._awaiting = False
            cycle.receive(self._wait)
        else:
            # A driven arm waits for its next command.
            cycle.look(self._wait if cycle.mode else _CALM_WAIT)
        n = self._n
        out.position[:] = cycle.measured.position
        out.velocity[:] = cycle.measured.velocity
        out.effort[:] = cycle.measured.effort
        if self._gripper:
            out.velocity[n], out.effort[n] = cycle.grip_rate, 0.0
            if self._settings.grip is not None and not cycle.mode:
                # A loop that starts from here must keep pressing on the held object.
                out.position[n], out.velocity[n] = self._settings.grip, 0.0
        out.time, out.rejected = cycle.measured.time, cycle.rejected
        out.unconfirmed = cycle.unconfirmed
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
        total = sum(command.position.tolist())
        if command.mode == "torque":
            total += sum(command.torque.tolist())
        if not math.isfinite(total):
            raise ArmError(
                f"command is not finite: position {command.position}, torque {command.torque}"
            )
        if self._settings.dry_run:
            return
        cycle = self._cycle
        if command.mode != cycle.mode:
            self._enter(command)
        position = command.position[:n] if command.mode == "position" else cycle.position
        self._command[:] = position
        cycle.command(command)
        self._awaiting = True

    def stop(self) -> None:
        """Brake within the acceleration limits, then give the arm back to its base."""
        if not self._connected or not self._cycle.mode:
            return
        mode = self._cycle.mode
        self._cycle.never_give_up()
        try:
            self._brake(mode)
        except (RobotInFault, WrongServoingMode):
            log.warning("the arm at %s stops by itself", self.client.host)
        finally:
            self._cycle.mode = ""
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

        The documented order is feedback, positions into the command, servoing mode, one cycle,
        control modes. A cycle between any two steps satisfies the arm's watchdog.
        """
        client, cycle, mode = self.client, self._cycle, _CONTROL_MODES[command.mode]
        if not cycle.mode:
            client.require_no_fault()
            cycle.measure()
            cycle.grip_at_start = command.position[self._n] if self._gripper else math.nan
        cycle.hold()
        try:
            if not cycle.mode:
                client.set_servoing_mode(ServoingMode.LOW_LEVEL)
                log.info("low-level servoing at %s, %s mode", client.host, command.mode)
            self._pump()
            if cycle.mode or mode is not ControlMode.POSITION:
                for actuator in range(self._n):
                    client.set_control_mode(actuator, mode)
                    self._pump()
        except BaseException:
            # The request may have taken effect although its answer was lost.
            with contextlib.suppress(KortexError):
                client.give_back()
            cycle.mode = ""
            raise
        cycle.mode = command.mode

    def _close_gripper(self, position: float) -> None:
        """Close the gripper and wait until it rests, on an object or at its goal.

        Only confirmed readings count: a wrong one neither ends the wait nor prolongs it.

        Raises:
            KortexError: If no reading is confirmed for ``unreachable_after``.
        """
        cycle = self._cycle
        self.client.move_gripper(position / GRIPPER_CLOSED)
        end, resting = time.monotonic() + _GRIP_TIME, 0
        reference, newest = cycle.grip, cycle.grip_measured_at
        while resting < _GRIP_READINGS and time.monotonic() < end:
            time.sleep(_GRIP_PERIOD)
            cycle.look(_CALM_WAIT)
            if abs(cycle.grip - reference) > _GRIP_STILL:
                reference, resting = cycle.grip, 0
            elif cycle.grip_measured_at > newest:
                resting += 1
            newest = cycle.grip_measured_at

    def _require_free_arm(self, client: KortexClient) -> None:
        """Refuse an arm that another client drives; the arm releases itself from a dead client.

        Raises:
            NotInControl: If low-level servoing does not end within a second.
        """
        end = time.monotonic() + 1.0
        while client.servoing_mode != ServoingMode.SINGLE_LEVEL:
            if time.monotonic() > end:
                raise NotInControl(f"another client drives the arm at {client.host}")
            time.sleep(0.05)

    def _pump(self) -> None:
        """Send one cycle that holds the arm, and require its answer."""
        for _ in range(_TRIES):
            self._cycle.repeat()
            if self._cycle.receive(_CALM_WAIT):
                return
        raise Unreachable(f"{self.client.host} does not answer cyclic commands")

    def _brake(self, mode: str) -> None:
        """Bring the arm to rest by position commands, from its present position and velocity."""
        cycle, n = self._cycle, self._n
        if mode == "torque":
            for actuator in range(n):
                # Actuators still in torque mode keep their present torque.
                cycle.hold()
                cycle.repeat()
                cycle.receive(self._wait)
                self.client.set_control_mode(actuator, ControlMode.POSITION)
            cycle.hold()
            cycle.repeat()
            cycle.receive(self._wait)
            self._command[:] = cycle.position
        # The last commands may have been sent in the request that includes the gripper.
        cycle.go_to(self._command)
        rate = np.where(abs(cycle.velocity) > _SETTLED, cycle.velocity, 0.0)
        step = self._info.max_acceleration[:n] * self._period
        lower, upper = self._info.lower[:n], self._info.upper[:n]
        due = time.monotonic()
        while rate.any():
            before = rate
            rate = before - np.clip(before, -step, step)
            self._command += 0.5 * (before + rate) * self._period
            np.clip(self._command, lower, upper, out=self._command)
            cycle.go_to(self._command)
            cycle.repeat()
            cycle.receive(self._wait)
            due += self._period
            time.sleep(max(0.0, due - time.monotonic()))

    def _leave(self) -> None:
        """Return each actuator to position mode, then the arm to the base's servoing."""
        client = self.client
        try:
            for actuator in range(self._n):
                self._cycle.repeat()
                client.datagrams.receive(_CALM_WAIT)
                client.set_control_mode(actuator, ControlMode.POSITION)
            self._cycle.repeat()
            # No command may be in flight when the servoing mode changes.
            client.datagrams.receive(_CALM_WAIT)
        except KortexError as error:
            log.warning(
                "the arm at %s has left low-level servoing by itself: %s", client.host, error
            )
        client.give_back()
        log.info("back to the base's servoing at %s", client.host)

    def _require_connection(self) -> None:
        if not self._connected:
            raise ArmError(f"{self._config.name} is not connected: call connect() first")
