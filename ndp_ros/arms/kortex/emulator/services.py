"""What the emulated arm answers to each procedure, and to which device it was asked.

A handler takes the robot, the caller and the request, and returns the response
message. It refuses by raising :class:`~ndp_ros.arms.kortex.emulator.request.Refusal`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ndp_ros.arms.kortex.codes import (
    ActionKind,
    CommandFlag,
    DeviceKind,
    ErrorCode,
    GripperMode,
    SubCode,
)
from ndp_ros.arms.kortex.emulator.feedback import Feedback
from ndp_ros.arms.kortex.emulator.request import CyclicCommand, Refusal
from ndp_ros.arms.kortex.emulator.robot import Robot
from ndp_ros.arms.kortex.schema import METHODS, TOPICS, Method, message
from ndp_ros.arms.kortex.units import to_degrees

BASE = 0
"""Device identifier of the base."""
_HOME = 2
"""Identifier of the action named Home."""
_SERIAL = "EMULATED"
_EMPTY = message("Empty")
# A plain integer: flags of an enumeration are slow, and this is looked at in every cycle.
_CLEAR = int(CommandFlag.CLEAR_MAJOR_FAULT | CommandFlag.CLEAR_MINOR_FAULT)


class Caller(Protocol):
    """Who asks: a session on one connection."""

    session: int

    def subscribe(self, topic: str) -> int:
        """Remember a subscription and return its handle."""

    def unsubscribe(self, handle: int) -> bool:
        """Forget a subscription; whether there was one."""


@dataclass(frozen=True)
class Device:
    """One device of the arm."""

    kind: DeviceKind
    identifier: int
    order: int


class Services:
    """All services of one robot, behind a table of procedures."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        ids = robot.config.actuator_ids
        large = [limit > 20.0 for limit in robot.arm.max_torque]
        actuators = [
            Device(DeviceKind.BIG_ACTUATOR if large[i] else DeviceKind.SMALL_ACTUATOR, number, i)
            for i, number in enumerate(ids)
        ]
        spare = itertools.filterfalse(ids.__contains__, itertools.count(max(ids) + 1))
        others = [Device(DeviceKind.INTERCONNECT, next(spare), 0)]
        if robot.arm.gripper:
            others.append(Device(DeviceKind.GRIPPER, next(spare), 0))
        # The real arm lists its devices in no order that means anything; nor does this one.
        self.devices = (*others, *reversed(actuators), Device(DeviceKind.BASE, BASE, 0))
        self.actuators = {device.identifier: device.order for device in actuators}
        self.feedback = Feedback(robot)
        self._handlers: dict[str, Callable[[Caller, Any, int], Any]] = {
            "Base.ReadAllActions": self._read_all_actions,
            "Base.ExecuteActionFromReference": self._execute_reference,
            "Base.ExecuteAction": self._execute_action,
            "Base.StopAction": self._stop_action,
            "Base.Unsubscribe": self._unsubscribe,
            "Base.Stop": self._do(robot.stop),
            "Base.GetMeasuredCartesianPose": self._pose,
            "Base.GetMeasuredJointAngles": self._joint_angles,
            "Base.SendGripperCommand": self._send_gripper,
            "Base.GetMeasuredGripperMovement": self._gripper_movement,
            "Base.ApplyEmergencyStop": self._do(robot.emergency_stop),
            "Base.ClearFaults": self._do(robot.clear_faults),
            "Base.GetOperatingMode": lambda *_: message("OperatingModeInformation",
                                                        operating_mode=6),
            "Base.SetServoingMode": self._set_servoing,
            "Base.GetServoingMode": lambda *_: message("ServoingModeInformation",
                                                       servoing_mode=robot.servoing),
            "Base.GetActuatorCount": lambda *_: message("ActuatorInformation", count=robot.n),
            "Base.GetArmState": lambda *_: message("ArmStateInformation",
                                                   active_state=robot.state),
            "Base.GetProductConfiguration": lambda *_: message(
                "ProductConfiguration", kin=_SERIAL, model=1, degree_of_freedom=robot.n,
                base_type=1, end_effector_type=3 if robot.arm.gripper else 1,
                vision_module_type=1, interface_module_type=2, wrist_type=2),
            "Base.GetFirmwareBundleVersions": lambda *_: message(
                "FirmwareBundleVersions", main_bundle_version="2.5.2"),
            "BaseCyclic.Refresh": self.refresh,
            "BaseCyclic.RefreshCommand": self._refresh_command,
            "BaseCyclic.RefreshFeedback": self._refresh_feedback,
            "DeviceConfig.GetRunMode": lambda *_: message("RunMode"),
            "DeviceConfig.GetDeviceType": self._device_type,
            "DeviceConfig.GetFirmwareVersion": lambda *_: message(
                "FirmwareVersion", firmware_version=0x02050200),
            "DeviceConfig.GetBootloaderVersion": lambda *_: message(
                "BootloaderVersion", bootloader_version=0x01000000),
            "DeviceConfig.GetModelNumber": lambda *_: message(
                "ModelNumber", model_number=robot.arm.name),
            "DeviceConfig.GetPartNumber": lambda *_: message("PartNumber", part_number=_SERIAL),
            "DeviceConfig.GetPartNumberRevision": lambda *_: message(
                "PartNumberRevision", part_number_revision="0"),
            "DeviceConfig.GetSerialNumber": lambda caller, request, device: message(
                "SerialNumber", serial_number=f"{_SERIAL}-{device}"),
            "DeviceConfig.GetMACAddress": lambda *_: message("MACAddress", mac_address=bytes(6)),
            "DeviceConfig.GetIPv4Settings": lambda *_: message(
                "IPv4Settings", ipv4_address=0x7F000001, ipv4_subnet_mask=0xFF000000),
            "DeviceConfig.GetSafetyStatus": self._safety_status,
            "DeviceConfig.ClearAllSafetyStatus": self._clear_device,
            "ActuatorConfig.GetControlMode": self._get_control_mode,
            "ActuatorConfig.SetControlMode": self._set_control_mode,
            "ActuatorConfig.GetCommandMode": self._get_command_mode,
            "ActuatorConfig.SetCommandMode": self._set_command_mode,
            "ActuatorConfig.ClearFaults": self._clear_device,
            "ControlConfig.GetGravityVector": lambda *_: message("GravityVector", z=-9.81),
            "ControlConfig.GetControlMode": lambda *_: message(
                "ControlModeInformation", control_mode=13),
            "ControlConfig.GetKinematicHardLimits": self._kinematic_limits,
            "DeviceManager.ReadAllDevices": self._read_all_devices,
        }  # fmt: skip
        for topic in TOPICS:
            self._handlers[topic] = self._subscriber(topic)
        known = {device.identifier for device in self.devices}
        base_services = {method.service for method in METHODS.values()} - {10}
        self._served = {
            device: {9, 10} if device in self.actuators else {9} for device in known - {BASE}
        } | {BASE: base_services}

    def call(
        self, caller: Caller, method: Method | None, uid: int, device: int, data: bytes
    ) -> Any:
        """Answer one request.

        Raises:
            Refusal: With the code that the arm answers in such a case.
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
            raise Refusal(
                SubCode.UNSUPPORTED_METHOD,
                f"Function not registered for function id: {uid & 0xFFFF}",
                ErrorCode.PROTOCOL_SERVER,
            )
        return handler(caller, parse(method.request, data), device)

    # The cyclic service.

    def refresh(self, caller: Caller, request: Any, device: int) -> Any:
        """Take one cyclic command and return the newest feedback, stamped with its number."""
        self.robot.admit(caller.session, len(request.actuators))
        self.take(request)
        return self.feedback.reply(request)

    def take(self, request: Any) -> None:
        """Hand one command that was admitted to the robot."""
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

    def _do(self, action: Callable[[], None]) -> Callable[[Caller, Any, int], Any]:
        def handler(caller: Caller, request: Any, device: int) -> Any:
            action()
            return _EMPTY

        return handler

    def _subscriber(self, topic: str) -> Callable[[Caller, Any, int], Any]:
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
                np.array([angles[i] for i in range(robot.n)]), handle, caller.session,
                duration=value if kind == 1 else 0.0,
                speed=math.radians(value) if kind == 2 else 0.0,
            )  # fmt: skip
        elif request.HasField("send_gripper_command"):
            self._send_gripper(caller, request.send_gripper_command, device)
        elif request.HasField("apply_emergency_stop"):
            robot.emergency_stop()
        elif request.HasField("clear_faults"):
            robot.clear_faults()
        elif request.HasField("stop_action"):
            robot.abort_motion()
        else:
            raise Refusal(SubCode.UNIMPLEMENTED, "the emulator does not know this action")
        return _EMPTY

    def _stop_action(self, caller: Caller, request: Any, device: int) -> Any:
        self.robot.abort_motion()
        return _EMPTY

    def _pose(self, caller: Caller, request: Any, device: int) -> Any:
        point, angles = self.robot.tool_pose()
        return message(
            "Pose", x=point[0], y=point[1], z=point[2],
            theta_x=angles[0], theta_y=angles[1], theta_z=angles[2],
        )  # fmt: skip

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
            raise Refusal(SubCode.UNIMPLEMENTED, "the emulator's gripper knows no FORCE")
        return _EMPTY

    def _gripper_movement(self, caller: Caller, request: Any, device: int) -> Any:
        values = {GripperMode.POSITION: self.robot.gripper.closed, GripperMode.SPEED:
                  self.robot.gripper.speed}  # fmt: skip
        if request.mode not in values:
            raise Refusal(SubCode.INVALID_PARAM, f"gripper mode {request.mode}")
        movement = message("Gripper")
        movement.finger.add(finger_identifier=1, value=values[GripperMode(request.mode)])
        return movement

    # The other devices.

    def _read_all_devices(self, caller: Caller, request: Any, device: int) -> Any:
        handles = message("DeviceHandles")
        for known in self.devices:
            handles.device_handle.add(
                device_type=known.kind, device_identifier=known.identifier, order=known.order
            )
        return handles

    def _device_type(self, caller: Caller, request: Any, device: int) -> Any:
        kind = next(d.kind for d in self.devices if d.identifier == device)
        return message("DeviceType", device_type=kind)

    def _safety_status(self, caller: Caller, request: Any, device: int) -> Any:
        index = self.actuators.get(device)
        raised = index is not None and self.robot.faults.actuators[index] & request.identifier
        return message("SafetyStatus", value=2 if raised else 3)

    def _clear_device(self, caller: Caller, request: Any, device: int) -> Any:
        if device in self.actuators:
            self.robot.faults.clear_actuator(self.actuators[device])
        return _EMPTY

    def _get_control_mode(self, caller: Caller, request: Any, device: int) -> Any:
        mode = self.robot.control_modes[self.actuators[device]]
        return message("ControlModeInformation", control_mode=mode)

    def _set_control_mode(self, caller: Caller, request: Any, device: int) -> Any:
        self.robot.set_control_mode(self.actuators[device], request.control_mode)
        return _EMPTY

    def _get_command_mode(self, caller: Caller, request: Any, device: int) -> Any:
        mode = self.robot.command_modes[self.actuators[device]]
        return message("CommandModeInformation", command_mode=mode)

    def _set_command_mode(self, caller: Caller, request: Any, device: int) -> Any:
        self.robot.command_modes[self.actuators[device]] = request.command_mode
        return _EMPTY

    def _kinematic_limits(self, caller: Caller, request: Any, device: int) -> Any:
        arm, n = self.robot.arm, self.robot.n
        return message(
            "KinematicLimits", twist_linear=0.5, twist_angular=50.0,
            joint_speed_limits=np.degrees(arm.max_velocity[:n]).tolist(),
            joint_acceleration_limits=np.degrees(arm.max_acceleration[:n]).tolist(),
        )  # fmt: skip


def parse(kind: Any, data: bytes) -> Any:
    """Return a message from its bytes.

    Raises:
        Refusal: If they are not of that message.
    """
    try:
        return kind.FromString(data)
    except Exception as error:  # the exception's class differs between protobuf backends
        raise Refusal(
            SubCode.PAYLOAD_DECODING_ERR, "the payload cannot be decoded",
            ErrorCode.PROTOCOL_SERVER,
        ) from error  # fmt: skip
