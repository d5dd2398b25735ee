"""Any arm behind ros2_control: commands to a controller's topic, state from joint_states.

rclpy has its own process, the bridge (``ros2_control``): its threads would keep the loop waiting.
The two are joined by a socket that carries one packet of plain numbers a tick each way. When either
ends, however it ends, the other one notices by the end of that socket.

    loop ──command──► bridge ──► <controller>/commands or <controller>/joint_trajectory
         ◄──state────        ◄── joint_states

In position mode the controller holds its last command when commands end. An effort
controller goes on with its last effort: set its own command time-out.

Torques need measured velocities: without them nothing damps the arm and no check sees its
speed. In position mode the bridge estimates those that nobody tells.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.arm import COMMAND_MODES, ArmConfig, ArmInfo, Command, JointState, arm_scene
from ndp_ros.config import from_mapping, param, to_mapping
from ndp_ros.control.omega import Identity, InverseDynamics, Omega
from ndp_ros.errors import ArmError, ConfigError

Array = NDArray[np.float64]

_DEFAULT_CONTROLLERS = {
    ("group", "position"): "forward_position_controller",
    ("group", "torque"): "forward_effort_controller",
    ("trajectory", "position"): "joint_trajectory_controller",
}
_BRIDGE = "ndp_ros.arms.ros2_control"
STATE, COMMAND, READY, PROBLEM = b"s", b"c", b"r", b"p"
"""First byte of a packet between loop and bridge; a reason, or plain numbers, follow: the time
[s] (0 in a command), and of every joint position, velocity, and effort or torque. NaN is what
nobody tells, and as the gripper's position in a command: none for it."""
LARGEST = 16384
"""No packet is larger [bytes]."""
_GRIPPER_CHANGE = 1e-3
"""Change of the gripper's setpoint from which on it is commanded [rad]."""
_ASKED, _MOVED, _PATIENCE = 0.02, 0.002, 0.5
"""An arm that is asked to go so far [rad] and moves by less than this [rad] in that time [s] has a
controller that takes no commands."""
_GONE = "the bridge to ROS 2 has ended: look for its last words, then activate again"


@dataclass(frozen=True)
class Ros2ControlConfig:
    """Topics of the arm's controllers."""

    kind: str = param(
        "group",
        doc="What the controller takes: group has one number a joint and each tick, trajectory "
        "trajectories of one point.",
        choices=("group", "trajectory"),
    )
    controller: str = param(
        "",
        doc="Its name; unless given forward_position_controller, forward_effort_controller or "
        "joint_trajectory_controller, by kind and mode.",
    )
    joints: tuple[str, ...] = param(
        (), doc="Names that ROS has for the arm's joints, in order; the same unless given."
    )
    namespace: str = param(
        "",
        doc="Where names that are not absolute belong; that of the integrator node unless given.",
    )
    joint_states: str = param(
        "joint_states", doc="Topic of the measured joints, in the namespace unless absolute."
    )
    trust_order: bool = param(
        False,
        doc="Take it that a group controller which cannot be asked has its joints in this order.",
    )
    gripper_controller: str = param(
        "", doc="Group controller of the gripper's position; empty: it gets no command."
    )
    gripper_joint: str = param("", doc="Name that ROS has for the gripper; the same unless given.")
    grip: float | None = param(
        None,
        doc="Command the gripper to this at first, and start from there; none: it keeps what it "
        "was told before until its setpoint changes.",
        unit="rad",
    )
    trajectory_rate: float = param(
        100.0, doc="Trajectories per second.", unit="Hz", minimum=1.0, maximum=1000.0
    )
    lookahead: float = param(
        0.02, doc="When a trajectory's point is due.", unit="s", minimum=0.001, maximum=1.0
    )
    timeout: float = param(
        5.0, doc="Time for the controllers to show themselves.", unit="s", minimum=0.1, maximum=60.0
    )
    dry_run: bool = param(False, doc="Read the arm but send it no command.")


class Ros2ControlArm:
    """An arm whose controllers run elsewhere.

    ``JointState.time`` is when the joint state came in. A gripper that joint_states does not
    name is reported where it was commanded. Until its setpoint changes it gets no command: a
    grip is a setpoint beyond what is measured, and must not end because a loop begins.
    """

    def __init__(
        self, config: ArmConfig, settings: Ros2ControlConfig, mode: str, rate: float
    ) -> None:
        """Prepare; no process is started before :meth:`connect`.

        Raises:
            ConfigError: If the settings do not fit the arm or the command mode.
        """
        self._info = info = ArmInfo.from_config(config, (mode,))
        n = info.n_arm
        if settings.joints and len(settings.joints) != n:
            raise ConfigError(f"joints names {len(settings.joints)} joints, {config.name} has {n}")
        if (settings.kind, mode) not in _DEFAULT_CONTROLLERS:
            raise ConfigError(f"kind {settings.kind} takes no {mode} commands: choose group")
        grip = settings.grip
        if grip is not None and not config.gripper:
            raise ConfigError(f"grip is {grip:g}, and {config.name} has no gripper: leave it out")
        if grip is not None and not config.lower[-1] <= grip <= config.upper[-1]:
            raise ConfigError(
                f"grip is {grip:g}, the gripper of {config.name} takes {config.lower[-1]:g} to "
                f"{config.upper[-1]:g} [rad]"
            )
        self._settings, self._mode, self._rate = settings, mode, rate
        names = (settings.joints or config.joint_names[:n]) + (
            (settings.gripper_joint or config.joint_names[n],) if config.gripper else ()
        )
        self._task = {
            "settings": to_mapping(settings), "mode": mode, "joints": names, "n": n,
            "arm": to_mapping(config),
            "controller": settings.controller or _DEFAULT_CONTROLLERS[settings.kind, mode],
        }  # fmt: skip
        self._socket: socket.socket | None = None
        self._bridge: subprocess.Popen[bytes] | None = None
        self._numbers = struct.Struct(f"<{1 + 3 * info.dof}d")
        self._state = np.full(1 + 3 * info.dof, math.nan)
        self._packet = np.zeros(1 + 3 * info.dof)
        self._grip = math.nan
        self._followed = _Followed(str(self._task["controller"]), n)
        # Infinite once the gripper is commanded, as it is from the start to hold a given grip.
        self._grip_at_start = math.nan if grip is None else math.inf

    def connect(self) -> ArmInfo:
        """Start the bridge and wait for the controllers.

        Raises:
            ArmError: If a joint state or somebody who takes commands is missing.
        """
        if self._socket is not None:
            return self._info
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._bridge = subprocess.Popen(
            [sys.executable, "-m", _BRIDGE, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        self._socket = ours
        ours.send(json.dumps(self._task).encode())
        # The interpreter and ROS take their time to start as well.
        ours.settimeout(self._settings.timeout + 30.0)
        answer = STATE
        try:
            while answer[:1] == STATE:  # what it tells while it waits for the controller
                answer = ours.recv(LARGEST)
                if answer[:1] == STATE:
                    self._state[:] = self._numbers.unpack_from(answer, 1)
        except TimeoutError:
            answer = PROBLEM + b"ROS 2 does not start"
        if answer[:1] != READY:
            self.close()
            raise ArmError(answer[1:].decode() or "the bridge to ROS 2 ended")
        ours.setblocking(False)
        return self._info

    def read(self, out: JointState) -> JointState:
        """Return the newest joint state.

        Raises:
            ArmError: If the bridge has ended.
        """
        self._receive()
        dof, state = self._info.dof, self._state
        out.position[:] = state[1 : 1 + dof]
        out.velocity[:] = state[1 + dof : 1 + 2 * dof]
        out.effort[:] = state[1 + 2 * dof :]
        if self._info.gripper:
            grip = self._settings.grip
            if math.isnan(self._grip) and grip is not None:
                # Whoever starts from here must go on pressing what the gripper holds.
                out.position[-1] = grip
            elif math.isnan(out.position[-1]):
                out.position[-1] = self._info.lower[-1] if math.isnan(self._grip) else self._grip
        # Not every broadcaster tells efforts, or the gripper's velocity, and nothing depends on
        # them. An arm joint without a velocity is no joint at rest: the guard is to see that.
        np.nan_to_num(out.velocity[self._info.n_arm :], copy=False)
        np.nan_to_num(out.effort, copy=False)
        out.time = float(state[0])
        self._followed.measured(out)
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
        dof, packet = self._info.dof, self._packet
        packet[1 : 1 + dof] = command.position
        packet[1 + dof : 1 + 2 * dof] = command.velocity
        packet[1 + 2 * dof :] = command.torque if self._mode == "torque" else 0.0
        if not math.isfinite(float(packet.sum())):
            raise ArmError(f"command is not finite: {command.position}, {command.torque}")
        self._followed.commanded(command)
        self._grip = float(command.position[-1])
        if self._info.gripper and not self._gripper_is_commanded():
            packet[dof] = math.nan
        if self._settings.dry_run:
            return
        try:
            # A bridge that is so far behind skips to the newest command once it can, and the
            # next one replaces this one anyway.
            with contextlib.suppress(BlockingIOError):
                self._socket.send(COMMAND + packet.tobytes())
        except OSError as error:
            raise ArmError(_GONE) from error

    def _gripper_is_commanded(self) -> bool:
        """Whether its setpoint has changed since the first one, or was given."""
        if math.isnan(self._grip_at_start):
            self._grip_at_start = self._grip
        if abs(self._grip - self._grip_at_start) > _GRIPPER_CHANGE:
            self._grip_at_start = math.inf
        return self._grip_at_start == math.inf

    def stop(self) -> None:
        """Leave the arm to its controller, which holds the last position that it got."""

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
        """Take what the bridge has told since the last time."""
        if self._socket is None:
            raise ArmError("not connected: call connect() first")
        try:
            while packet := self._socket.recv(LARGEST):
                if packet[:1] == PROBLEM:
                    raise ArmError(packet[1:].decode())
                self._state[:] = self._numbers.unpack_from(packet, 1)
        except BlockingIOError:
            return
        except OSError:
            pass
        raise ArmError(_GONE)


class _Followed:
    """Whether an arm has ever followed its controller's commands.

    A controller that is not active, or that rejects what it gets, takes commands without a
    word. It shows by an arm that stands still from the start although it is asked to move.
    """

    def __init__(self, controller: str, n: int) -> None:
        self._controller, self._n = controller, n
        self._start = np.full(n, math.nan)
        self._asked = np.zeros(n)
        self._asked_since = math.inf
        self._follows = False

    def commanded(self, command: Command) -> None:
        """Note a command of positions."""
        if self._follows or command.mode != "position":
            return
        self._asked[:] = command.position[: self._n]
        if np.isfinite(self._start).all() and self._gap().max() > _ASKED:
            self._asked_since = min(self._asked_since, time.monotonic())

    def measured(self, state: JointState) -> None:
        """Note where the arm is.

        Raises:
            ArmError: If it has not moved, although it was asked to for a while.
        """
        if self._follows or not np.isfinite(state.position[: self._n]).all():
            return
        if np.isnan(self._start).any():
            self._start[:] = state.position[: self._n]
        if np.abs(state.position[: self._n] - self._start).max() > _MOVED:
            self._follows = True
        elif time.monotonic() - self._asked_since > _PATIENCE:
            raise ArmError(
                f"{self._controller} takes no commands: the arm has not moved for "
                f"{_PATIENCE:g} s, although it was asked to by {self._gap().max():.2g} rad. Is the "
                "controller active? Its own log says why it rejects what it gets"
            )

    def _gap(self) -> Array:
        gap: Array = np.abs(self._asked - self._start)
        return gap


def in_namespace(options: dict[str, Any], namespace: str) -> dict[str, Any]:
    """Return options for a node's namespace, unless they name another.

    Args:
        options: Parameters of :class:`Ros2ControlConfig`.
        namespace: Of the node, such as ``/left``.
    """
    return {"namespace": namespace, **options}


def resource(options: dict[str, Any], mode: str) -> str:
    """Return the name of the controller that these options drive, from the root.

    Raises:
        ConfigError: On an option that is unknown or does not fit.
    """
    settings = from_mapping(Ros2ControlConfig, options, source="ros2_control")
    controller = settings.controller or _DEFAULT_CONTROLLERS.get((settings.kind, mode), "")
    return resolved(settings.namespace, controller)


def resolved(namespace: str, name: str) -> str:
    """Return a topic's or node's name from the root, as ROS resolves it without remaps."""
    parts = name if name.startswith("/") else f"{namespace}/{name}"
    return "/" + "/".join(part for part in parts.split("/") if part)


def refuse_echo(options: dict[str, Any], own: str) -> None:
    """Refuse to hear joint states where the caller publishes those that it has heard.

    Its own messages would be taken for news, and feedback never be lost.

    Args:
        options: Parameters of :class:`Ros2ControlConfig`.
        own: Full name of the topic on which the caller publishes.

    Raises:
        ConfigError: If it is the same topic.
    """
    settings = from_mapping(Ros2ControlConfig, options, source="ros2_control")
    if resolved(settings.namespace, settings.joint_states) == own:
        raise ConfigError(
            f"joint_states is {own}, where this node publishes its own, so that feedback would "
            "never be lost: remap this node's and the policy's, as by --ros-args -r "
            "joint_states:=ndp/joint_states (ndp run and the launch file do)"
        )


def make(
    config: ArmConfig, *, task: str, command_mode: str, rate: float, seed: int, **options: Any
) -> tuple[Ros2ControlArm, Omega]:
    """Return an arm behind ros2_control, not yet connected, and the Ω that drives it.

    Args:
        config: The arm.
        task: Not used.
        command_mode: ``"position"``, or ``"torque"`` with Ω as inverse dynamics.
        rate: Ticks of the loop per second [Hz].
        seed: Not used.
        **options: Parameters of :class:`Ros2ControlConfig`.

    Raises:
        ConfigError: On an unknown parameter, or one that does not fit.
    """
    settings = from_mapping(Ros2ControlConfig, options, source="ros2_control")
    if command_mode not in COMMAND_MODES:
        raise ConfigError.choice("command_mode", command_mode, COMMAND_MODES)
    arm = Ros2ControlArm(config, settings, command_mode, rate)
    if command_mode == "position":
        return arm, Identity()
    import mujoco

    from ndp_ros.control.rigid_body import RigidBody

    n = len(config.joint_names) - int(config.gripper)
    model = mujoco.MjModel.from_xml_path(str(arm_scene(config)))
    body = RigidBody(model, config.joint_names[:n])
    return arm, InverseDynamics(body, config.natural_frequency, np.array(config.max_torque[:n]))
