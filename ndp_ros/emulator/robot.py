# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The emulated arm: physics, servo loops, faults and actions, without sockets.

Time is physics time: :meth:`Robot.tick` advances it by one step. Each step follows the order of
the firmware: take the newest command, servo, step, check.

Modelled after the firmware: gating by servoing mode, one fault bank per actuator, a watchdog, no
gravity compensation in torque mode, measured torque of opposite sign. Not published and chosen
here: the servo's bandwidth, the thresholds (parameters) and the braking after a fault.
"""

from __future__ import annotations

import math
from typing import Any

import mujoco
import numpy as np

from ndp_ros.arms.kortex.codes import (
    ActionEvent,
    ActuatorFault,
    ArmState,
    ControlMode,
    RobotEvent,
    ServoingMode,
    SubCode,
)
from ndp_ros.arms.kortex.units import DEGREE, from_degrees
from ndp_ros.control.arm import ArmConfig, Array
from ndp_ros.emulator.config import EmulatorConfig
from ndp_ros.emulator.faults import FaultBanks, Thresholds
from ndp_ros.emulator.gripper import Gripper
from ndp_ros.emulator.record import CommandRecord
from ndp_ros.emulator.reference import Motion, Reference
from ndp_ros.emulator.request import CyclicCommand, Event, Refusal
from ndp_ros.emulator.servos import SUPPORTED_MODES, Servos
from ndp_ros.errors import ConfigError

_ENTRY_GRACE = 0.5
"""Time for the first command after low-level servoing was entered [s]."""


class Robot:
    """An arm with n actuators and a gripper.

    Attributes:
        n: Number of actuators.
        time: Physics time [s].
        slipped: Time by which physics fell behind the wall clock and did not catch up [s].
        servoing: Servoing mode.
        control_modes: Control mode of each actuator.
        faults: Fault banks of actuators and base.
        controller: Session whose cyclic commands are followed; 0 for none.
        gripper: The gripper, whether there is one or not.
        record: Every command that arrived.
        events: Events that the sessions have not reported yet.
        servos: The actuators' loops.
    """

    def __init__(self, config: EmulatorConfig, arm: ArmConfig) -> None:
        """Build the arm at rest.

        Raises:
            ConfigError: If the number of actuators and of their identifiers differ.
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
            self.model = mujoco.MjModel.from_xml_path(str(arm.model_path))
            self.model.opt.timestep = config.timestep
            self.data = mujoco.MjData(self.model)
            self.data.qpos[:n] = arm.home[:n]
        self.gripper = Gripper(
            self.model, self.data, n, arm.max_velocity[n] if arm.gripper else None
        )
        if not config.scene:
            self.data.qpos[self.gripper.fingers] = grip
        self._palm = self.model.body("palm").id
        large = np.array(arm.max_torque[:n]) > 20.0
        self.servos = Servos(self.model, self.data, large)
        bounded = self.model.jnt_limited[:n].astype(bool)
        self._upper = np.where(bounded, arm.upper[:n], np.inf)
        self._lower = np.where(bounded, arm.lower[:n], -np.inf)
        self._thresholds = Thresholds(
            (self._lower.tolist(), self._upper.tolist()),
            large,
            config.following_error,
            config.overspeed,
        )

        self.time = self.slipped = 0.0
        self.servoing = ServoingMode.SINGLE_LEVEL
        self.control_modes = [ControlMode.POSITION] * n
        self.command_modes = [0] * n
        self.faults = FaultBanks(n)
        self.controller = 0
        self.record = CommandRecord(n)
        self.events: list[Event] = []
        self._command: CyclicCommand | None = None
        self._target = [0.0] * n
        self._motion: Motion | None = None
        self._last_command = 0.0
        self._last_frame: int | None = None
        mujoco.mj_forward(self.model, self.data)
        self._reference = Reference(
            self.data.qpos[:n], arm.max_velocity[:n], np.array(arm.max_acceleration[:n])
        )
        self.gripper.put(grip)

    # State.

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
    def moving(self) -> bool:
        """Whether an action is being carried out."""
        return self._motion is not None

    @property
    def state(self) -> ArmState:
        """State of the whole arm."""
        if self.faults.any():
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

    # Requests of clients.

    def admit(self, session: int, n_commands: int) -> None:
        """Check that a session may command, and give it control if no other session has it.

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
        """Accept one cyclic command of the session in control, for the next tick."""
        self._last_command = self.time
        if self._last_frame is not None:
            # Half of all frame numbers count as older: those commands are late.
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
        for i, reference in enumerate(self._reference.position.tolist()):
            target = command.position[i] * DEGREE
            self._target[i] = target + round((reference - target) / math.tau) * math.tau
        if command.gripper is not None:
            self.gripper.drive(*command.gripper)

    def connect_tool(self, connected: bool) -> None:
        """Connect or disconnect the gripper, and report it as a robot event."""
        event = RobotEvent.TOOL_CONNECTED if connected else RobotEvent.TOOL_DISCONNECTED
        self.gripper.connected = connected
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
            self.faults.refuse()
            if self.moving:
                raise Refusal(SubCode.ROBOT_MOVEMENT_IN_PROGRESS, "an action is being executed")
            self.servoing = ServoingMode.LOW_LEVEL
            self._command, self._last_frame = None, None
            self._last_command = self.time
            self.faults.warnings[:] = 0
            self.record.restart()
            self._report_mode()
        else:
            self._leave_low_level()

    def set_control_mode(self, index: int, mode: int) -> None:
        """Choose the control mode of an actuator in low-level servoing.

        Raises:
            Refusal: In fault, or for a mode that the emulator does not have.
        """
        self.faults.refuse()
        if mode not in SUPPORTED_MODES:
            raise Refusal(SubCode.INVALID_PARAM, f"control mode {mode}")
        self.control_modes[index] = ControlMode(mode)
        # The position servo continues from the joint's present state.
        self._reference.hold_joint(index, self.position[index], self.velocity[index])

    def move(
        self, goal: Array, handle: Any, session: int, duration: float = 0.0, speed: float = 0.0
    ) -> None:
        """Start a motion to a posture (n,) [deg]; joints without limits take the short way.

        Raises:
            Refusal: In fault, in low-level servoing, or beyond a joint limit.
        """
        self.faults.refuse()
        if self.servoing is ServoingMode.LOW_LEVEL:
            raise Refusal(SubCode.LOW_LEVEL_SERVOING, "the arm is in low-level servoing")
        goal = from_degrees(goal)
        if not np.isfinite(goal).all() or (goal > self._upper).any() or (goal < self._lower).any():
            raise Refusal(SubCode.CONTROL_JOINT_POSITION_LIMIT, "a joint beyond its limits")
        self.abort_motion()
        turns = (self._reference.position - goal) / math.tau
        goal = goal + np.where(np.isinf(self._upper), np.rint(turns), 0.0) * math.tau
        self._motion = self._reference.plan(goal, handle, session, duration, speed)
        self.events.append(self._action_event(ActionEvent.START))

    def abort_motion(self, reason: SubCode = SubCode.NONE) -> None:
        """Abort the action under way, if there is one; the arm brakes."""
        if self._motion is not None:
            self.events.append(self._action_event(ActionEvent.ABORT, reason))
            self._motion = None

    def stop(self) -> None:
        """Bring the arm to rest."""
        self.abort_motion(SubCode.CONTROL_MANUAL_STOP)
        if self.servoing is ServoingMode.LOW_LEVEL:
            self._leave_low_level()

    def emergency_stop(self) -> None:
        """Stop, and stay in fault until the faults are cleared."""
        self.faults.stop()
        self._give_up()

    def trip(self, index: int, fault: ActuatorFault) -> None:
        """Put an actuator into fault: the whole arm brakes and leaves low-level servoing."""
        self.faults.trip(index, fault)
        self._give_up()

    def clear_faults(self) -> None:
        """Clear every fault; a cause that persists raises it again."""
        was = self.faults.any()
        self.faults.clear()
        if was:
            self.events.append(Event("Base.ArmStateTopic", {"active_state": int(self.state)}))

    def lose(self, session: int) -> None:
        """Stop everything that a lost session started."""
        if self._motion is not None and self._motion.session == session:
            self.abort_motion(SubCode.INVALID_USER_SESSION_ACCESS)
        if session == self.controller:
            self.controller = 0
            if self.servoing is ServoingMode.LOW_LEVEL:
                self._leave_low_level()

    def reset_scene(self, seed: int) -> None:
        """Reset the scene to a start state, at rest and without faults."""
        if self._scene is None:
            self.data.qpos[: self.n] = self.arm.home[: self.n]
            self.data.qvel[:] = 0.0
        else:
            grip = float(self._scene.reset(seed)[self.n])
            self.gripper.put(grip)
        mujoco.mj_forward(self.model, self.data)
        self.stop()
        self.clear_faults()
        self._reference.hold(self.position, np.zeros(self.n))

    # One step of the firmware.

    def tick(self) -> None:
        """Advance by one physics step."""
        mujoco.mj_step1(self.model, self.data)
        # A command from before low-level servoing ended no longer counts.
        command = self._command if self.servoing is ServoingMode.LOW_LEVEL else None
        self._guide(command)
        self.servos.drive(self._reference, command, self.control_modes)
        if self.arm.gripper:
            self.gripper.step(self.config.timestep)
        mujoco.mj_step2(self.model, self.data)
        self.time += self.config.timestep
        self._check()

    def _guide(self, command: CyclicCommand | None) -> None:
        """Advance the reference along the action, by the commands, or to rest."""
        dt = self.config.timestep
        if self._motion is not None:
            if self._reference.along(self._motion, dt):
                self.events.append(self._action_event(ActionEvent.END))
                self._motion = None
        elif command is not None:
            measured = self.position, self.velocity
            self._reference.follow(command, self._target, self.control_modes, measured, dt)
        else:
            self._reference.brake(dt)

    def _check(self) -> None:
        """Check for every cause of a fault, and for a silent client."""
        if self.servoing is not ServoingMode.LOW_LEVEL:
            return
        silence = self.time - self._last_command
        if silence > (self.config.watchdog if self._command is not None else _ENTRY_GRACE):
            self.faults.warn(ActuatorFault.WATCHDOG_TRIGGERED)
            self._leave_low_level()
            return
        if self._command is None:
            return
        q, v = self.position.tolist(), self.velocity.tolist()
        for i, fault in self._thresholds.crossed(self._target, q, v):
            self.trip(i, fault)

    def _give_up(self) -> None:
        self.abort_motion(SubCode.ROBOT_IN_FAULT)
        if self.servoing is ServoingMode.LOW_LEVEL:
            self._leave_low_level()
        self.events.append(Event("Base.ArmStateTopic", {"active_state": int(ArmState.IN_FAULT)}))

    def _leave_low_level(self) -> None:
        """Return the arm to the base, which brakes it."""
        self.servoing = ServoingMode.SINGLE_LEVEL
        self.control_modes = [ControlMode.POSITION] * self.n
        self._command = None
        self.controller = 0
        self._reference.hold(self.position, self.velocity)
        self._report_mode()

    def _report_mode(self) -> None:
        self.events.append(Event("Base.ServoingModeTopic", {"servoing_mode": int(self.servoing)}))
        self.events.append(Event("Base.ArmStateTopic", {"active_state": int(self.state)}))

    def _action_event(self, event: ActionEvent, reason: SubCode = SubCode.NONE) -> Event:
        assert self._motion is not None
        return Event(
            "Base.ActionTopic",
            {
                "action_event": int(event),
                "handle": self._motion.handle,
                "abort_details": int(reason),
            },
        )
