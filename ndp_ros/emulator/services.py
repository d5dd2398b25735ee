# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Procedures of the emulated arm: the base, its actions and the cyclic service.

A handler takes the caller, the request and the device, and returns the response message. It
refuses by raising :class:`~ndp_ros.emulator.request.Refusal`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ndp_ros.arms.kortex.codes import ActionKind, CommandFlag, ErrorCode, GripperMode, SubCode
from ndp_ros.arms.kortex.schema import METHODS, TOPICS, Method, message
from ndp_ros.arms.kortex.units import to_degrees
from ndp_ros.emulator.devices import BASE, SERIAL, Devices
from ndp_ros.emulator.feedback import Feedback
from ndp_ros.emulator.request import Caller, CyclicCommand, Handler, Refusal
from ndp_ros.emulator.robot import Robot

_HOME = 2
"""Identifier of the action named Home."""
_EMPTY = message("Empty")
# A plain integer: flags of an enumeration are slow, and this is read in every cycle.
_CLEAR = int(CommandFlag.CLEAR_MAJOR_FAULT | CommandFlag.CLEAR_MINOR_FAULT)


class Services:
    """All services of one robot, behind a table of procedures."""

    def __init__(self, robot: Robot) -> None:
        """Offer every procedure on the devices that have it."""
        self.robot = robot
        self.devices = Devices(robot)
        self.feedback = Feedback(robot)
        self._handlers: dict[str, Handler] = {
            **{topic: self._subscriber(topic) for topic in TOPICS},
            **self._base_handlers(),
            **self.devices.handlers(),
        }
        known, actuators = self.devices.identifiers, self.devices.actuators
        base_services = {method.service for method in METHODS.values()} - {10}
        self._served = {
            device: {9, 10} if device in actuators else {9} for device in known - {BASE}
        } | {BASE: base_services}

    def _base_handlers(self) -> dict[str, Handler]:
        """Return the procedures of the base and of the cyclic service."""
        robot = self.robot
        return {
            "Base.ReadAllActions": self._read_all_actions,
            "Base.ExecuteActionFromReference": self._execute_reference,
            "Base.ExecuteAction": self._execute_action,
            "Base.StopAction": self._do(robot.abort_motion),
            "Base.Unsubscribe": self._unsubscribe,
            "Base.Stop": self._do(robot.stop),
            "Base.GetMeasuredCartesianPose": self._pose,
            "Base.GetMeasuredJointAngles": self._joint_angles,
            "Base.SendGripperCommand": self._send_gripper,
            "Base.GetMeasuredGripperMovement": self._gripper_movement,
            "Base.ApplyEmergencyStop": self._do(robot.emergency_stop),
            "Base.ClearFaults": self._do(robot.clear_faults),
            "Base.SetServoingMode": self._set_servoing,
            "Base.GetServoingMode": lambda *_: message(
                "ServoingModeInformation", servoing_mode=robot.servoing
            ),
            "Base.GetActuatorCount": lambda *_: message("ActuatorInformation", count=robot.n),
            "Base.GetArmState": lambda *_: message("ArmStateInformation", active_state=robot.state),
            "Base.GetProductConfiguration": self._product,
            "BaseCyclic.Refresh": self.refresh,
            "BaseCyclic.RefreshCommand": self._refresh_command,
            "BaseCyclic.RefreshFeedback": self._refresh_feedback,
        }

    def call(
        self, caller: Caller, method: Method | None, uid: int, device: int, data: bytes
    ) -> Any:
        """Answer one request.

        Raises:
            Refusal: With the code of the arm's answer in such a case.
        """
        service = uid >> 16
        if service not in self._served.get(device, ()):
            raise Refusal(
                SubCode.UNSUPPORTED_SERVICE,
                f"Service not registered for service id: {service}",
                ErrorCode.PROTOCOL_SERVER,
            )
        handler = self._handlers.get(method.name) if method is not None else None
        if method is None or handler is None:
            raise no_function(uid)
        return handler(caller, parse(method.request, data), device)

    # The cyclic service.

    def refresh(self, caller: Caller, request: Any, device: int) -> Any:
        """Follow one cyclic command and return the newest feedback, stamped with its number."""
        self.robot.admit(caller.session, len(request.actuators))
        self.take(request)
        return self.feedback.reply(request)

    def take(self, request: Any) -> None:
        """Pass an admitted command to the robot."""
        position, velocity, torque, current = [], [], [], []
        for i, command in enumerate(request.actuators):
            position.append(command.position)
            velocity.append(command.velocity)
            torque.append(command.torque_joint)
            current.append(command.current_motor)
            if command.flags & _CLEAR:
                self.robot.faults.clear_actuator(i)
        gripper = None
        if request.HasField("interconnect") and request.interconnect.gripper_command.motor_cmd:
            motor = request.interconnect.gripper_command.motor_cmd[0]
            gripper = (motor.position, motor.velocity, motor.force)
        self.robot.command(
            CyclicCommand(request.frame_id, position, velocity, torque, current, gripper)
        )

    def _refresh_command(self, caller: Caller, request: Any, device: int) -> Any:
        self.refresh(caller, request, device)
        return _EMPTY

    def _refresh_feedback(self, caller: Caller, request: Any, device: int) -> Any:
        return self.feedback.now()

    # The base.

    def _do(self, action: Callable[[], None]) -> Handler:
        def handler(caller: Caller, request: Any, device: int) -> Any:
            action()
            return _EMPTY

        return handler

    def _subscriber(self, topic: str) -> Handler:
        def handler(caller: Caller, request: Any, device: int) -> Any:
            return message("NotificationHandle", identifier=caller.subscribe(topic))

        return handler

    def _unsubscribe(self, caller: Caller, request: Any, device: int) -> Any:
        if not caller.unsubscribe(request.identifier):
            raise Refusal(SubCode.ENTITY_NOT_FOUND, f"subscription {request.identifier}")
        return _EMPTY

    def _set_servoing(self, caller: Caller, request: Any, device: int) -> Any:
        self.robot.set_servoing(request.servoing_mode)
        return _EMPTY

    def _home(self) -> Any:
        home = self.robot.arm.home[: self.robot.n]
        action = message("Action", name="Home")
        action.handle.identifier = _HOME
        action.handle.action_type = ActionKind.REACH_JOINT_ANGLES
        for i, degrees in enumerate(to_degrees(np.array(home)).tolist()):
            action.reach_joint_angles.joint_angles.joint_angles.add(
                joint_identifier=i, value=degrees
            )
        return action

    def _read_all_actions(self, caller: Caller, request: Any, device: int) -> Any:
        wanted = request.action_type
        actions = message("ActionList")
        if wanted in (ActionKind.UNSPECIFIED, ActionKind.REACH_JOINT_ANGLES):
            actions.action_list.append(self._home())
        return actions

    def _execute_reference(self, caller: Caller, request: Any, device: int) -> Any:
        if request.identifier != _HOME:
            raise Refusal(SubCode.ENTITY_NOT_FOUND, f"action {request.identifier}")
        return self._execute_action(caller, self._home(), device)

    def _execute_action(self, caller: Caller, request: Any, device: int) -> Any:
        robot = self.robot
        if request.HasField("reach_joint_angles"):
            target = request.reach_joint_angles
            angles = {a.joint_identifier: a.value for a in target.joint_angles.joint_angles}
            if sorted(angles) != list(range(robot.n)):
                raise Refusal(
                    SubCode.CONTROL_ACTUATOR_COUNT_MISMATCH,
                    f"joints {sorted(angles)} given, the arm has {robot.n}",
                )
            handle = message("ActionHandle")
            handle.CopyFrom(request.handle)
            handle.action_type = ActionKind.REACH_JOINT_ANGLES
            kind, value = target.constraint.type, target.constraint.value
            robot.move(
                np.array([angles[i] for i in range(robot.n)]),
                handle,
                caller.session,
                duration=value if kind == 1 else 0.0,
                speed=math.radians(value) if kind == 2 else 0.0,
            )
        elif request.HasField("send_gripper_command"):
            self._send_gripper(caller, request.send_gripper_command, device)
        elif request.HasField("apply_emergency_stop"):
            robot.emergency_stop()
        elif request.HasField("clear_faults"):
            robot.clear_faults()
        elif request.HasField("stop_action"):
            robot.abort_motion()
        else:
            raise Refusal(SubCode.UNIMPLEMENTED, "the emulator has no such action")
        return _EMPTY

    def _product(self, caller: Caller, request: Any, device: int) -> Any:
        return message(
            "ProductConfiguration",
            kin=SERIAL,
            model=1,
            degree_of_freedom=self.robot.n,
            base_type=1,
            end_effector_type=3 if self.robot.arm.gripper else 1,
            vision_module_type=1,
            interface_module_type=2,
            wrist_type=2,
        )

    def _pose(self, caller: Caller, request: Any, device: int) -> Any:
        point, angles = self.robot.tool_pose()
        return message(
            "Pose",
            **dict(zip(("x", "y", "z"), point, strict=True)),
            **dict(zip(("theta_x", "theta_y", "theta_z"), angles, strict=True)),
        )

    def _joint_angles(self, caller: Caller, request: Any, device: int) -> Any:
        angles = message("JointAngles")
        for i, degrees in enumerate(to_degrees(self.robot.position).tolist()):
            angles.joint_angles.add(joint_identifier=i, value=degrees)
        return angles

    def _send_gripper(self, caller: Caller, request: Any, device: int) -> Any:
        if not self.robot.gripper.connected:
            raise Refusal(SubCode.DEVICE_DISCONNECTED, "no gripper")
        if not request.gripper.finger:
            raise Refusal(SubCode.INVALID_PARAM, "a gripper command without a finger")
        value = request.gripper.finger[0].value
        if request.mode == GripperMode.POSITION:
            self.robot.gripper.drive(100.0 * value)
        elif request.mode == GripperMode.SPEED:
            # Positive opens; without a speed it stays where it is.
            end = 0.0 if value > 0.0 else 100.0
            goal = end if value else 100.0 * self.robot.gripper.closed
            self.robot.gripper.drive(goal, speed=100.0 * abs(value))
        else:
            raise Refusal(SubCode.UNIMPLEMENTED, "the emulator's gripper has no FORCE mode")
        return _EMPTY

    def _gripper_movement(self, caller: Caller, request: Any, device: int) -> Any:
        gripper = self.robot.gripper
        values = {GripperMode.POSITION: gripper.closed, GripperMode.SPEED: gripper.speed}
        if request.mode not in values:
            raise Refusal(SubCode.INVALID_PARAM, f"gripper mode {request.mode}")
        movement = message("Gripper")
        movement.finger.add(finger_identifier=1, value=values[GripperMode(request.mode)])
        return movement


def no_function(uid: int) -> Refusal:
    """Return the refusal of a function that the arm does not have."""
    text = f"Function not registered for function id: {uid & 0xFFFF}"
    return Refusal(SubCode.UNSUPPORTED_METHOD, text, ErrorCode.PROTOCOL_SERVER)


def parse(kind: Any, data: bytes) -> Any:
    """Decode a message.

    Raises:
        Refusal: If they do not decode to that message.
    """
    try:
        return kind.FromString(data)
    except Exception as error:  # the exception's class differs between protobuf backends
        raise Refusal(
            SubCode.PAYLOAD_DECODING_ERR, "the payload cannot be decoded", ErrorCode.PROTOCOL_SERVER
        ) from error
