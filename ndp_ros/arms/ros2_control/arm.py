# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The loop's side of ros2_control: an arm whose commands and measurements pass through a socket."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import subprocess
import sys
from typing import Any

import numpy as np

from ndp_ros.arms.ros2_control.config import Ros2ControlConfig
from ndp_ros.arms.ros2_control.limits import tightened
from ndp_ros.arms.ros2_control.packets import COMMAND, LARGEST, PROBLEM, READY, STATE, Numbers
from ndp_ros.arms.ros2_control.progress import Progress
from ndp_ros.config import to_mapping
from ndp_ros.control.arm import ArmConfig, ArmInfo, Command, JointState
from ndp_ros.errors import ArmError, ConfigError

_BRIDGE = "ndp_ros.arms.ros2_control.bridge"
_START = 30.0
"""Time that the interpreter and ROS may take to start, beside the wait for controllers [s]."""
_GRIPPER_CHANGE = 1e-3
"""Change of the gripper's setpoint that makes it a command [rad]."""
_GONE = "the bridge to ROS 2 has ended: its last message is in the log; activate again"


class Ros2ControlArm:
    """An arm whose controllers run elsewhere.

    ``JointState.time`` is the arrival of the joint state. A gripper that joint_states does not
    name is reported at its last command. The gripper gets no command until its setpoint changes:
    a grip is a setpoint beyond the measured position, and must survive the start of a loop.
    """

    def __init__(self, config: ArmConfig, settings: Ros2ControlConfig, mode: str) -> None:
        """Prepare the arm for a command mode; no process is started before :meth:`connect`.

        Raises:
            ConfigError: If the settings do not fit the arm or the command mode.
        """
        controller = settings.controller_for(mode)
        self._info = info = ArmInfo.from_config(config, (mode,))
        n = info.n_arm
        if settings.joints and len(settings.joints) != n:
            raise ConfigError(f"joints names {len(settings.joints)} joints, {config.name} has {n}")
        if settings.grip is not None:
            config.require_grip(settings.grip)
        self._settings, self._mode = settings, mode
        names = (settings.joints or config.joint_names[:n]) + (
            (settings.gripper_joint or config.joint_names[n],) if config.gripper else ()
        )
        self._task: dict[str, Any] = {
            "settings": to_mapping(settings),
            "arm": to_mapping(config),
            "mode": mode,
            "joints": names,
        }
        self._socket: socket.socket | None = None
        self._bridge: subprocess.Popen[bytes] | None = None
        self._state, self._packet = Numbers(info.dof), Numbers(info.dof)
        self._grip = math.nan
        self._progress = Progress(controller, n)
        # Infinite once the gripper is commanded, as it is from the start to hold a given grip.
        self._grip_at_start = math.nan if settings.grip is None else math.inf

    def connect(self) -> ArmInfo:
        """Start the bridge and wait for the controllers.

        Raises:
            ArmError: If a joint state or a subscriber of commands is missing.
        """
        if self._socket is not None:
            return self._info
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._bridge = subprocess.Popen(
            [sys.executable, "-m", _BRIDGE, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._socket = ours
        ours.send(json.dumps(self._task).encode())
        ours.settimeout(self._settings.controller_timeout + _START)
        answer = STATE
        try:
            while answer[:1] == STATE:  # measurements that arrive before the controllers do
                answer = ours.recv(LARGEST)
                if answer[:1] == STATE:
                    self._state.decode(answer)
        except TimeoutError:
            answer = PROBLEM + b"ROS 2 does not start"
        if answer[:1] != READY:
            self.close()
            raise ArmError(answer[1:].decode() or "the bridge to ROS 2 ended")
        try:
            self._info = tightened(self._info, json.loads(answer[1:]))
        except ArmError:
            self.close()
            raise
        self.attach(ours)
        return self._info

    def attach(self, link: socket.socket) -> None:
        """Use a socket to a bridge that is ready."""
        link.setblocking(False)
        self._socket = link

    def read(self, out: JointState) -> JointState:
        """Return the newest joint state.

        Raises:
            ArmError: If the bridge has ended, or the controller takes no commands.
        """
        self._receive()
        state, n = self._state, self._info.n_arm
        out.position[:], out.velocity[:] = state.position, state.velocity
        out.effort[:] = state.effort
        if self._info.gripper:
            grip = self._settings.grip
            if math.isnan(self._grip) and grip is not None:
                # A loop that starts from here must keep pressing on the held object.
                out.position[-1] = grip
            elif math.isnan(out.position[-1]):
                out.position[-1] = self._info.lower[-1] if math.isnan(self._grip) else self._grip
        # Some broadcasters omit efforts and the gripper's velocity, and nothing depends on them.
        # An arm joint without a velocity is not at rest: the guard must see the NaN.
        np.nan_to_num(out.velocity[n:], copy=False)
        np.nan_to_num(out.effort, copy=False)
        out.time, out.rejected = state.time, state.ignored
        self._progress.measured(out)
        return out

    def write(self, command: Command) -> None:
        """Send one command.

        Raises:
            ArmError: If it is not finite or in another mode, or if the bridge has ended.
        """
        if self._socket is None:
            raise ArmError("not connected: call connect() first")
        if command.mode != self._mode:
            raise ArmError.choice("command mode", command.mode, self._info.command_modes)
        packet = self._packet
        packet.position[:], packet.velocity[:] = command.position, command.velocity
        packet.effort[:] = command.torque if self._mode == "torque" else 0.0
        if not math.isfinite(float(packet.data[2:].sum())):
            raise ArmError(f"command is not finite: {command.position}, {command.torque}")
        self._grip = float(command.position[-1])
        if self._info.gripper and not self._gripper_is_commanded():
            packet.position[-1] = math.nan
        if self._settings.dry_run:
            return
        self._progress.commanded(command)
        try:
            # A bridge that is this far behind skips to the newest command, and the next command
            # replaces this one anyway.
            with contextlib.suppress(BlockingIOError):
                self._socket.send(packet.encode(COMMAND))
        except OSError as error:
            raise ArmError(_GONE) from error

    def _gripper_is_commanded(self) -> bool:
        """Return whether the gripper's setpoint was configured or has changed since the first."""
        if math.isnan(self._grip_at_start):
            self._grip_at_start = self._grip
        if abs(self._grip - self._grip_at_start) > _GRIPPER_CHANGE:
            self._grip_at_start = math.inf
        return self._grip_at_start == math.inf

    def stop(self) -> None:
        """Leave the arm to its controller, which holds the last position command."""

    def close(self) -> None:
        """End the bridge; may be called twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._bridge is not None:
            try:
                self._bridge.wait(5.0)
            except subprocess.TimeoutExpired:
                self._bridge.kill()
                self._bridge.wait()
            self._bridge = None

    def _receive(self) -> None:
        """Take the newest packet of the bridge."""
        if self._socket is None:
            raise ArmError("not connected: call connect() first")
        try:
            while packet := self._socket.recv(LARGEST):
                if packet[:1] == PROBLEM:
                    raise ArmError(packet[1:].decode())
                self._state.decode(packet)
        except BlockingIOError:
            return
        except OSError:
            pass
        raise ArmError(_GONE)
