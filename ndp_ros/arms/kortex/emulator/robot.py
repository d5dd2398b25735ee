"""The emulated arm itself: physics, servo loops, faults, actions. No sockets here.

Time is physics time: :meth:`Robot.tick` advances it by one step. What the real
arm's firmware does in each millisecond happens in that order here: take the newest
command, servo, step, check.

Known of the firmware and kept: gating by servoing mode, one fault bank an actuator,
a watchdog, no compensation of gravity in torque mode, reversed measured torque.
Chosen here, because nothing is published: the servo's bandwidth, the thresholds'
places (parameters) and how the arm brakes after a fault.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.arm import ArmConfig, arm_scene
from ndp_ros.arms.kortex.emulator.config import EmulatorConfig
from ndp_ros.arms.kortex.emulator.record import CommandRecord
from ndp_ros.arms.kortex.schema import (
    ActionEvent,
    ActuatorFault,
    ArmState,
    BaseFault,
    ControlMode,
    ErrorCode,
    RobotEvent,
    ServoingMode,
    SubCode,
)
from ndp_ros.arms.kortex.units import DEGREE, GRIPPER_CLOSED, from_degrees
from ndp_ros.errors import ConfigError

Array = NDArray[np.float64]

_REFERENCE_FREQUENCY = 200.0
"""Bandwidth of the filter that makes a smooth reference of commanded positions [rad/s]."""
_SERVO_FREQUENCY = 60.0
"""Bandwidth of the position servo [rad/s]."""
_REFERENCE_ACCELERATION = 300.0
"""Largest acceleration of the reference [rad/s^2]."""
_LIMIT_MARGIN = 0.01
"""How far beyond a joint limit trips an actuator [rad]."""
_ENTRY_GRACE = 0.5
"""Time for the first command after low-level servoing was entered [s]."""
_TORQUE_PER_AMPERE = (11.0, 7.6)
"""Large and small actuators, used in CURRENT mode [N m/A]."""
_STRENGTH = (56.7, 29.4)
"""Torque that large and small actuators can give [N m]: what the arm's user guide only warns of.
More than what is asked of them (39 and 9), and needed when an arm has to stop at once."""
_TOO_FAST = (math.radians(120.0), math.radians(200.0))
"""Measured speed that trips large and small actuators [rad/s], after the arm's user guide."""
_ACTION_SPEED = math.radians(25.0)
"""Speed of an action without a constraint [rad/s]."""

SUPPORTED_MODES = frozenset(
    {ControlMode.POSITION, ControlMode.VELOCITY, ControlMode.TORQUE, ControlMode.CURRENT}
)


class Refusal(Exception):  # noqa: N818
    """A request that the arm does not carry out, and the codes that say why."""

    def __init__(self, sub_code: SubCode, text: str, code: ErrorCode = ErrorCode.DEVICE) -> None:
        super().__init__(text)
        self.sub_code = sub_code
        self.code = code


@dataclass
class CyclicCommand:
    """One BaseCyclic.Refresh, its numbers as lists (n,) in the units of the wire.

    Lists, here and in what runs each millisecond: for six numbers they are faster
    than arrays.
    """

    frame: int
    position: list[float]
    velocity: list[float]
    torque: list[float]
    current: list[float]
    gripper: tuple[float, float, float] | None
    """Position, velocity and force [percent]."""


@dataclass
class Motion:
    """A movement to a posture, along a straight line in joint space."""

    start: Array
    goal: Array
    duration: float
    handle: Any
    session: int
    time: float = 0.0

    def sample(self) -> tuple[Array, Array, Array]:
        """Return position, velocity and acceleration (n,) of a quintic from rest to rest."""
        s = min(1.0, self.time / self.duration)
        span = self.goal - self.start
        rate = span / self.duration
        return (
            self.start + span * (s**3 * (10.0 - 15.0 * s + 6.0 * s**2)),
            rate * (30.0 * s**2 * (1.0 - s) ** 2),
            rate / self.duration * (60.0 * s - 180.0 * s**2 + 120.0 * s**3),
        )


@dataclass
class Event:
    """Something that subscribers of a topic are told."""

    topic: str
    fields: dict[str, Any] = field(default_factory=dict)


class Robot:
    """An arm with n actuators and a gripper.

    Attributes:
        n: Number of actuators.
        time: Physics time [s].
        servoing: Who closes the loop.
        control_modes: Control mode of each actuator.
        faults: Fault bank A of each actuator (n,).
        base_faults: Fault bank A of the base.
        warnings: Warning bank A of each actuator (n,).
        controller: Session whose cyclic commands are followed; 0 for none.
        tool_connected: Whether the gripper answers.
        record: Every command that arrived.
        events: What happened since the server last looked.
        torque: Torque that each actuator exerts (n,) [N m].
    """

    def __init__(self, config: EmulatorConfig, arm: ArmConfig) -> None:
        """Build the arm at rest.

        Raises:
            ConfigError: If the arm and the list of devices do not fit.
        """
        self.config, self.arm = config, arm
        self.n = n = len(arm.joint_names) - int(arm.gripper)
        if len(config.actuator_ids) != n or len(set(config.actuator_ids)) != n:
            raise ConfigError(f"actuator_ids are {config.actuator_ids}: {n} of them are needed")
        self._scene: Any = None
        grip = arm.home[n] if arm.gripper else 0.0
        if config.scene:
            from ndp_ros.arms.mujoco import MujocoArm

            self._scene = MujocoArm(arm, config.scene, config.timestep)
            self.model, self.data = self._scene.model, self._scene.data
            grip = float(self._scene.reset(config.scene_seed)[n])
        else:
            self.model = mujoco.MjModel.from_xml_path(str(arm_scene(arm)))
            self.model.opt.timestep = config.timestep
            self.data = mujoco.MjData(self.model)
            self.data.qpos[:n] = arm.home[:n]
            self.data.qpos[self._finger_addresses()] = grip
        self._fingers = self._finger_addresses()
        self._finger_dofs = self._fingers  # hinges before any free joint: the same addresses
        self._force_range = self.model.actuator_forcerange[n:].copy()
        self._force_share = 1.0
        self._palm = self.model.body("palm").id
        self._damping = self.model.dof_damping[:n].copy()
        large = np.array(arm.max_torque[:n]) > 20.0
        self._limit = np.where(large, *_STRENGTH)
        self.model.actuator_ctrlrange[:n] = np.stack([-self._limit, self._limit], axis=1)
        self._speed = list(arm.max_velocity[:n])
        self._brake = np.array(arm.max_acceleration[:n])
        bounded = self.model.jnt_limited[:n].astype(bool)
        self._upper = np.where(bounded, arm.upper[:n], np.inf).tolist()
        self._lower = np.where(bounded, arm.lower[:n], -np.inf).tolist()
        self._per_ampere = np.where(large, *_TORQUE_PER_AMPERE)
        self._too_fast = (config.overspeed * np.where(large, *_TOO_FAST)).tolist()

        self.time = 0.0
        self.servoing = ServoingMode.SINGLE_LEVEL
        self.control_modes = [ControlMode.POSITION] * n
        self.command_modes = [0] * n
        self.faults = np.zeros(n, np.uint32)
        self.warnings = np.zeros(n, np.uint32)
        self.base_faults = 0
        self.controller = 0
        self.tool_connected = arm.gripper
        self.record = CommandRecord(n)
        self.events: list[Event] = []
        self.torque = np.zeros(n)
        self._command: CyclicCommand | None = None
        self._target = [0.0] * n
        self._motion: Motion | None = None
        self._last_command = 0.0
        self._entered = 0.0
        self._last_frame: int | None = None
        mujoco.mj_forward(self.model, self.data)
        self._reference = self.data.qpos[:n].copy()
        self._rate = np.zeros(n)
        self._acceleration = np.zeros(n)
        self._wanted = np.zeros(self.model.nv)
        self._product = np.zeros(self.model.nv)
        self._grip_target = self._grip = grip
        self._grip_speed = arm.max_velocity[n] if arm.gripper else 0.0
        self.data.ctrl[n:] = grip

    def _finger_addresses(self) -> NDArray[np.intp]:
        model = self.model
        names = [model.joint(j).name for j in range(model.njnt)]
        return np.array(
            [model.joint(name).qposadr[0] for name in names if name.startswith("finger_")],
            dtype=np.intp,
        )

    # What the arm says of itself.

    @property
    def position(self) -> Array:
        """Measured positions (n,) [rad], continuous."""
        measured: Array = self.data.qpos[: self.n]
        return measured

    @property
    def velocity(self) -> Array:
        """Measured velocities (n,) [rad/s]."""
        measured: Array = self.data.qvel[: self.n]
        return measured

    @property
    def gripper(self) -> float:
        """How far the gripper is closed, 0 to 1."""
        return float(np.clip(self.data.qpos[self._fingers].mean() / GRIPPER_CLOSED, 0.0, 1.0))

    @property
    def gripper_speed(self) -> float:
        """Speed of the gripper, in units of its largest speed."""
        return float(self.data.qvel[self._finger_dofs].mean() / self.arm.max_velocity[self.n])

    @property
    def in_fault(self) -> bool:
        """Whether faults keep the arm from moving."""
        return bool(self.base_faults) or bool(self.faults.any())

    @property
    def moving(self) -> bool:
        """Whether an action is being carried out."""
        return self._motion is not None

    @property
    def state(self) -> ArmState:
        """State of the arm as a whole."""
        if self.in_fault:
            return ArmState.IN_FAULT
        if self.servoing is ServoingMode.LOW_LEVEL:
            return ArmState.SERVOING_LOW_LEVEL
        return ArmState.SERVOING_READY

    def tool_pose(self) -> tuple[Array, Array]:
        """Return the tool's position [m] and its x-y-z Euler angles [deg]."""
        matrix = self.data.xmat[self._palm].reshape(3, 3)
        angles = np.array(
            [
                math.atan2(matrix[2, 1], matrix[2, 2]),
                math.asin(float(np.clip(-matrix[2, 0], -1.0, 1.0))),
                math.atan2(matrix[1, 0], matrix[0, 0]),
            ]
        )
        return self.data.xpos[self._palm], np.degrees(angles)

    def objects(self) -> dict[str, Array]:
        """Return the pose (7,) of each object of the scene, if it has any."""
        return {} if self._scene is None else self._scene.objects()

    # What clients ask for.

    def admit(self, session: int, n_commands: int) -> None:
        """Look whether a session may command, and give it control if nobody else has it.

        Raises:
            Refusal: Outside low-level servoing, with the wrong number of actuators, or
                while another session has control.
        """
        if self.servoing is not ServoingMode.LOW_LEVEL:
            raise Refusal(
                SubCode.WRONG_SERVOING_MODE, "Wrong servoing mode, must be low level servoing mode"
            )
        if n_commands != self.n:
            raise Refusal(
                SubCode.CONTROL_ACTUATOR_COUNT_MISMATCH,
                f"{n_commands} actuators commanded, the arm has {self.n}",
            )
        if session != self.controller:
            held = self.time - self._last_command < self.config.control_grace
            if self.controller and held:
                raise Refusal(SubCode.SESSION_NOT_IN_CONTROL, "another session has control")
            self.controller, self._last_frame = session, None

    def command(self, command: CyclicCommand) -> None:
        """Take one cyclic command of the session in control; the next tick follows it."""
        self._last_command = self.time
        if self._last_frame is not None:
            # Half of all frame numbers count as older: those came too late.
            ahead = (command.frame - self._last_frame) % 65536
            if ahead == 0 or ahead >= 32768:
                self.record.rejected += 1
                return
        total = sum(command.position) + sum(command.velocity)
        if not math.isfinite(total + sum(command.torque) + sum(command.current)):
            self.record.not_finite += 1
            return
        self._last_frame = command.frame
        driven = ControlMode.TORQUE in self.control_modes
        torque = command.torque if driven else None
        self.record.add(self.time, command.frame, command.position, command.velocity, torque)
        self._command = command
        for i, reference in enumerate(self._reference.tolist()):
            target = command.position[i] * DEGREE
            self._target[i] = target + round((reference - target) / math.tau) * math.tau
        if command.gripper is not None:
            self.set_gripper(*command.gripper)

    def set_gripper(self, position: float, speed: float = 100.0, force: float = 100.0) -> None:
        """Drive the gripper; all three in per cent."""
        if not self.tool_connected or not math.isfinite(position):
            return
        n = self.n
        self._grip_target = min(max(position, 0.0), 100.0) / 100.0 * GRIPPER_CLOSED
        self._grip_speed = max(0.1, min(speed, 100.0) / 100.0) * self.arm.max_velocity[n]
        share = max(0.1, min(force, 100.0) / 100.0)
        if share != self._force_share:
            self._force_share = share
            self.model.actuator_forcerange[n:] = self._force_range * share

    def connect_tool(self, connected: bool) -> None:
        """Connect the gripper or take it away; subscribers of robot events are told."""
        event = RobotEvent.TOOL_CONNECTED if connected else RobotEvent.TOOL_DISCONNECTED
        self.tool_connected = connected
        self.events.append(Event("Base.RobotEventTopic", {"event": int(event)}))

    def set_servoing(self, mode: int) -> None:
        """Enter or leave low-level servoing.

        Raises:
            Refusal: In fault, during an action, or for a mode that this arm lacks.
        """
        if mode not in (ServoingMode.SINGLE_LEVEL, ServoingMode.LOW_LEVEL):
            raise Refusal(SubCode.INVALID_PARAM, f"servoing mode {mode}")
        if mode == self.servoing:
            return
        if mode == ServoingMode.LOW_LEVEL:
            self._refuse_in_fault()
            if self.moving:
                raise Refusal(SubCode.ROBOT_MOVEMENT_IN_PROGRESS, "an action is being executed")
            self.servoing = ServoingMode.LOW_LEVEL
            self._command, self._last_frame = None, None
            self._entered = self._last_command = self.time
            self.warnings[:] = 0
            self.record.restart()
            self._tell_mode()
        else:
            self._leave_low_level()

    def set_control_mode(self, index: int, mode: int) -> None:
        """Choose what an actuator follows in low-level servoing.

        Raises:
            Refusal: In fault, or for a mode that the emulator does not know.
        """
        self._refuse_in_fault()
        if mode not in SUPPORTED_MODES:
            raise Refusal(SubCode.INVALID_PARAM, f"control mode {mode}")
        self.control_modes[index] = ControlMode(mode)
        # Whatever moved the joint, the position servo goes on from where it is.
        self._reference[index], self._rate[index] = self.position[index], self.velocity[index]

    def move(
        self, goal: Array, handle: Any, session: int, duration: float = 0.0, speed: float = 0.0
    ) -> None:
        """Start a movement to a posture (n,) [deg]; joints without limits take the short way.

        Raises:
            Refusal: In fault, in low-level servoing, or beyond a joint limit.
        """
        self._refuse_in_fault()
        if self.servoing is ServoingMode.LOW_LEVEL:
            raise Refusal(SubCode.LOW_LEVEL_SERVOING, "the arm is in low-level servoing")
        goal = from_degrees(goal)
        if not np.isfinite(goal).all() or (goal > self._upper).any() or (goal < self._lower).any():
            raise Refusal(SubCode.CONTROL_JOINT_POSITION_LIMIT, "a joint beyond its limits")
        self.abort_motion()
        start = self._reference.copy()
        turns = np.where(np.isinf(self._upper), np.rint((start - goal) / math.tau), 0.0)
        goal = goal + turns * math.tau
        span = abs(goal - start)
        # A quintic's top speed is 15/8 of its mean.
        fastest = min(speed, *self._speed) if speed > 0.0 else _ACTION_SPEED
        shortest = float((1.875 * span / self._speed).max())
        needed = duration if duration > 0.0 else 1.875 * float(span.max()) / fastest
        self._motion = Motion(start, goal, max(needed, shortest, 0.05), handle, session)
        self.events.append(self._action_event(ActionEvent.START))

    def abort_motion(self, reason: SubCode = SubCode.NONE) -> None:
        """End the action under way, if there is one; the arm brakes."""
        if self._motion is not None:
            self.events.append(self._action_event(ActionEvent.ABORT, reason))
            self._motion = None

    def stop(self) -> None:
        """Bring the arm to rest, whatever it does."""
        self.abort_motion(SubCode.CONTROL_MANUAL_STOP)
        if self.servoing is ServoingMode.LOW_LEVEL:
            self._leave_low_level()

    def emergency_stop(self) -> None:
        """Stop, and stay in fault until the faults are cleared."""
        self.base_faults |= BaseFault.EMERGENCY_STOP_ACTIVATED
        self._give_up()

    def trip(self, index: int, fault: ActuatorFault) -> None:
        """Put an actuator into fault: the whole arm brakes and leaves low-level servoing."""
        self.faults[index] |= fault
        self.base_faults |= BaseFault.JOINT_FAULT
        self._give_up()

    def clear_faults(self) -> None:
        """Clear every fault; their causes, where they last, bring them back."""
        was = self.in_fault
        self.faults[:] = 0
        self.warnings[:] = 0
        self.base_faults = 0
        if was:
            self.events.append(Event("Base.ArmStateTopic", {"active_state": int(self.state)}))

    def clear_actuator_faults(self, index: int) -> None:
        """Clear the faults of one actuator."""
        self.faults[index] = self.warnings[index] = 0
        if not self.faults.any():
            self.base_faults &= ~int(BaseFault.JOINT_FAULT)

    def lose(self, session: int) -> None:
        """A session went silent or away: stop what it began."""
        if self._motion is not None and self._motion.session == session:
            self.abort_motion(SubCode.INVALID_USER_SESSION_ACCESS)
        if session == self.controller:
            self.controller = 0
            if self.servoing is ServoingMode.LOW_LEVEL:
                self._leave_low_level()

    def amperes(self) -> Array:
        """Return the motor currents (n,) [A] that go with the torques."""
        return self.torque / self._per_ampere

    def reset_scene(self, seed: int) -> None:
        """Put the scene back to a start state, at rest and without faults."""
        if self._scene is None:
            self.data.qpos[: self.n] = self.arm.home[: self.n]
            self.data.qvel[:] = 0.0
        else:
            grip = float(self._scene.reset(seed)[self.n])
            self._grip = self._grip_target = grip
        mujoco.mj_forward(self.model, self.data)
        self.stop()
        self.clear_faults()
        self._reference[:], self._rate[:] = self.position, 0.0

    # What the firmware does in each step.

    def tick(self) -> None:
        """Advance by one physics step."""
        n, data, model = self.n, self.data, self.model
        mujoco.mj_step1(model, data)
        self._guide()
        q, v = data.qpos[:n], data.qvel[:n]
        self._wanted[:n] = (
            self._acceleration
            + 2.0 * _SERVO_FREQUENCY * (self._rate - v)
            + _SERVO_FREQUENCY**2 * (self._reference - q)
        )
        mujoco.mj_mulM(model, data, self._product, self._wanted)
        torque = self._product[:n] + data.qfrc_bias[:n] + self._damping * v
        if self.servoing is ServoingMode.LOW_LEVEL and self._command is not None:
            for i, mode in enumerate(self.control_modes):
                if mode is ControlMode.TORQUE:
                    torque[i] = self._command.torque[i]
                elif mode is ControlMode.CURRENT:
                    torque[i] = self._command.current[i] * self._per_ampere[i]
        np.minimum(torque, self._limit, out=torque)
        np.maximum(torque, -self._limit, out=self.torque)
        data.ctrl[:n] = self.torque
        if self.arm.gripper:
            step = self._grip_speed * self.config.timestep
            self._grip += min(max(self._grip_target - self._grip, -step), step)
            data.ctrl[n:] = self._grip
        mujoco.mj_step2(model, data)
        self.time += self.config.timestep
        self._check()

    def _guide(self) -> None:
        """Move the reference: along the action, after the commands, or to rest."""
        dt = self.config.timestep
        if self._motion is not None:
            motion = self._motion
            motion.time += dt
            self._reference, self._rate, self._acceleration = motion.sample()
            if motion.time >= motion.duration:
                self.events.append(self._action_event(ActionEvent.END))
                self._motion = None
            return
        if self.servoing is ServoingMode.LOW_LEVEL and self._command is not None:
            self._follow(dt)
            return
        if not self._rate.any():
            self._acceleration[:] = 0.0
            return
        step = self._brake * dt
        before = self._rate
        self._rate = before - np.clip(before, -step, step)
        self._acceleration = (self._rate - before) / dt
        self._reference = self._reference + 0.5 * (before + self._rate) * dt

    def _follow(self, dt: float) -> None:
        """Filter the commanded positions, or integrate the commanded velocities."""
        assert self._command is not None
        w, command = _REFERENCE_FREQUENCY, self._command
        q, v = self.position.tolist(), self.velocity.tolist()
        r, rate = self._reference.tolist(), self._rate.tolist()
        for i, mode in enumerate(self.control_modes):
            if mode is ControlMode.POSITION:
                pull = w * w * (self._target[i] - r[i]) - 2.0 * w * rate[i]
            elif mode is ControlMode.VELOCITY:
                pull = (command.velocity[i] * DEGREE - rate[i]) / dt
            else:
                # Nothing follows the reference: keep it at the joint.
                self._reference[i], self._rate[i], self._acceleration[i] = q[i], v[i], 0.0
                continue
            pull = min(max(pull, -_REFERENCE_ACCELERATION), _REFERENCE_ACCELERATION)
            limit = self._speed[i]
            after = min(max(rate[i] + pull * dt, -limit), limit)
            self._acceleration[i] = (after - rate[i]) / dt
            self._rate[i] = after
            self._reference[i] = r[i] + after * dt

    def _check(self) -> None:
        """Look for every cause of a fault, and for a client that went silent."""
        if self.servoing is not ServoingMode.LOW_LEVEL:
            return
        config = self.config
        silence = self.time - self._last_command
        if silence > (config.watchdog if self._command is not None else _ENTRY_GRACE):
            self.warnings[:] |= np.uint32(ActuatorFault.WATCHDOG_TRIGGERED)
            self._leave_low_level()
            return
        if self._command is None:
            return
        tripped: list[tuple[int, ActuatorFault]] = []
        q, v = self.position.tolist(), self.velocity.tolist()
        for i, target in enumerate(self._target):
            error = target - q[i]
            error -= round(error / math.tau) * math.tau
            if abs(error) > config.following_error:
                tripped.append((i, ActuatorFault.FOLLOWING_ERROR))
            if abs(v[i]) > self._too_fast[i]:
                tripped.append((i, ActuatorFault.MAXIMUM_VELOCITY))
            if max(q[i], target) > self._upper[i] + _LIMIT_MARGIN:
                tripped.append((i, ActuatorFault.JOINT_LIMIT_HIGH))
            if min(q[i], target) < self._lower[i] - _LIMIT_MARGIN:
                tripped.append((i, ActuatorFault.JOINT_LIMIT_LOW))
        for i, fault in tripped:
            self.trip(i, fault)

    def _refuse_in_fault(self) -> None:
        if self.base_faults & BaseFault.EMERGENCY_STOP_ACTIVATED:
            raise Refusal(SubCode.ROBOT_IN_EMERGENCY_STOP, "The emergency stop is active")
        if self.in_fault:
            raise Refusal(SubCode.ROBOT_IN_FAULT, "The robot is in fault")

    def _give_up(self) -> None:
        self.abort_motion(SubCode.ROBOT_IN_FAULT)
        if self.servoing is ServoingMode.LOW_LEVEL:
            self._leave_low_level()
        self.events.append(Event("Base.ArmStateTopic", {"active_state": int(ArmState.IN_FAULT)}))

    def _leave_low_level(self) -> None:
        """Hand the arm back to the base, which brakes it from where it is."""
        self.servoing = ServoingMode.SINGLE_LEVEL
        self.control_modes = [ControlMode.POSITION] * self.n
        self._command = None
        self.controller = 0
        self._reference, self._rate = self.position.copy(), self.velocity.copy()
        self._tell_mode()

    def _tell_mode(self) -> None:
        self.events.append(Event("Base.ServoingModeTopic", {"servoing_mode": int(self.servoing)}))
        self.events.append(Event("Base.ArmStateTopic", {"active_state": int(self.state)}))

    def _action_event(self, event: ActionEvent, reason: SubCode = SubCode.NONE) -> Event:
        assert self._motion is not None
        return Event(
            "Base.ActionTopic",
            {"action_event": int(event), "handle": self._motion.handle,
             "abort_details": int(reason)},
        )  # fmt: skip
