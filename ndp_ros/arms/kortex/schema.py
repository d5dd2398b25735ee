# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The Kortex messages and remote procedures, from their field numbers.

The tables list the fields of each message as ``name=number:type`` (``*`` marks a repeated field),
and the number, request and response of each procedure. They are loaded into a separate descriptor
pool, which cannot collide with the vendor's package and works with any protobuf from 4.21 on.
Enumerations are transmitted as integers; ``codes`` names them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "ndp_ros.kortex"

_MESSAGES = {
    # frames
    "Header": "frame_info=1:fixed32 message_info=2:fixed32 service_info=3:fixed32 "
    "payload_info=4:fixed32",
    "Frame": "header=1:Header payload=2:bytes",
    "Error": "error_code=1:uint32 error_sub_code=2:uint32 error_sub_string=3:string",
    # common
    "Empty": "",
    "DeviceHandle": "device_type=1:uint32 device_identifier=2:uint32 order=3:uint32",
    "NotificationOptions": "type=1:uint32 rate_m_sec=2:uint32 threshold_value=3:float",
    "NotificationHandle": "identifier=1:uint32",
    "SafetyHandle": "identifier=1:uint32",
    "Timestamp": "sec=1:uint32 usec=2:uint32",
    "UserProfileHandle": "identifier=1:uint32 permission=2:fixed32",
    "Connection": "user_handle=1:UserProfileHandle connection_information=2:string "
    "connection_identifier=3:uint32",
    # session
    "CreateSessionInfo": "username=1:string session_inactivity_timeout=2:uint32 "
    "password=3:string connection_inactivity_timeout=4:uint32",
    "ConnectionList": "connection=1:*Connection",
    # device manager and device configuration
    "DeviceHandles": "device_handle=1:*DeviceHandle",
    "RunMode": "run_mode=1:uint32",
    "DeviceType": "device_type=1:uint32",
    "FirmwareVersion": "firmware_version=1:uint32",
    "BootloaderVersion": "bootloader_version=1:uint32",
    "ModelNumber": "model_number=1:string",
    "PartNumber": "part_number=1:string",
    "PartNumberRevision": "part_number_revision=1:string",
    "SerialNumber": "serial_number=1:string",
    "MACAddress": "mac_address=1:bytes",
    "IPv4Settings": "ipv4_address=1:uint32 ipv4_subnet_mask=2:uint32 ipv4_default_gateway=3:uint32",
    "SafetyStatus": "value=1:uint32",
    # base
    "ActuatorInformation": "count=1:uint32",
    "ArmStateInformation": "active_state=1:uint32 connection=2:Connection",
    "ArmStateNotification": "active_state=1:uint32 timestamp=2:Timestamp connection=3:Connection",
    "ServoingModeInformation": "servoing_mode=1:uint32",
    "ServoingModeNotification": "servoing_mode=1:uint32 timestamp=2:Timestamp "
    "user_handle=3:UserProfileHandle connection=4:Connection",
    "OperatingModeInformation": "operating_mode=1:uint32 device_handle=2:DeviceHandle",
    "RobotEventNotification": "event=1:uint32 handle=2:DeviceHandle timestamp=3:Timestamp "
    "user_handle=4:UserProfileHandle connection=6:Connection",
    "JointAngle": "joint_identifier=1:uint32 value=2:float",
    "JointAngles": "joint_angles=1:*JointAngle",
    "JointTrajectoryConstraint": "type=1:uint32 value=2:float",
    "ConstrainedJointAngles": "joint_angles=1:JointAngles constraint=2:JointTrajectoryConstraint",
    "Finger": "finger_identifier=1:uint32 value=2:float",
    "Gripper": "finger=1:*Finger",
    "GripperCommand": "mode=1:uint32 gripper=2:Gripper duration=3:uint32",
    "GripperRequest": "mode=1:uint32",
    "Pose": "x=1:float y=2:float z=3:float theta_x=4:float theta_y=5:float theta_z=6:float",
    "ActionHandle": "identifier=1:uint32 action_type=2:uint32 permission=3:fixed32",
    "RequestedActionType": "action_type=1:uint32",
    "Action": "handle=1:ActionHandle name=2:string application_data=3:string "
    "reach_joint_angles=10:ConstrainedJointAngles apply_emergency_stop=31:Empty "
    "clear_faults=32:Empty send_gripper_command=36:GripperCommand stop_action=38:Empty",
    "ActionList": "action_list=1:*Action",
    "ActionNotification": "action_event=1:uint32 handle=2:ActionHandle timestamp=3:Timestamp "
    "user_handle=4:UserProfileHandle abort_details=5:uint32 connection=6:Connection",
    "FirmwareComponentVersion": "name=1:string version=2:string device_id=3:uint32",
    "FirmwareBundleVersions": "main_bundle_version=1:string "
    "components_versions=2:*FirmwareComponentVersion",
    "ProductConfiguration": "kin=1:string model=2:uint32 assembly_plant=4:string "
    "model_year=5:string degree_of_freedom=6:uint32 base_type=7:uint32 end_effector_type=8:uint32 "
    "vision_module_type=9:uint32 interface_module_type=10:uint32 arm_laterality=11:uint32 "
    "wrist_type=12:uint32 brake_type=13:uint32",
    # actuator and control configuration
    "ControlModeInformation": "control_mode=1:uint32",
    "CommandModeInformation": "command_mode=1:uint32",
    "GravityVector": "x=1:float y=2:float z=3:float",
    "KinematicLimits": "control_mode=1:uint32 twist_linear=2:float twist_angular=3:float "
    "joint_speed_limits=4:*float joint_acceleration_limits=5:*float",
    # cyclic
    "MessageId": "identifier=1:fixed32",
    "MotorCommand": "motor_id=1:fixed32 position=3:float velocity=4:float force=5:float",
    "GripperCyclicCommand": "command_id=1:MessageId flags=2:fixed32 motor_cmd=3:*MotorCommand",
    "MotorFeedback": "motor_id=1:fixed32 position=4:float velocity=5:float current_motor=7:float "
    "voltage=8:float temperature_motor=10:float",
    "GripperCyclicFeedback": "feedback_id=1:MessageId status_flags=2:fixed32 "
    "fault_bank_a=3:fixed32 fault_bank_b=4:fixed32 warning_bank_a=5:fixed32 "
    "warning_bank_b=6:fixed32 motor=7:*MotorFeedback",
    "InterconnectCommand": "command_id=1:MessageId flags=2:fixed32 "
    "gripper_command=3:GripperCyclicCommand",
    "InterconnectFeedback": "feedback_id=1:MessageId status_flags=2:fixed32 jitter_comm=3:fixed32 "
    "imu_acceleration_x=4:float imu_acceleration_y=5:float imu_acceleration_z=6:float "
    "imu_angular_velocity_x=7:float imu_angular_velocity_y=8:float imu_angular_velocity_z=9:float "
    "voltage=10:float temperature_core=11:float fault_bank_a=12:fixed32 fault_bank_b=13:fixed32 "
    "warning_bank_a=14:fixed32 warning_bank_b=15:fixed32 gripper_feedback=18:GripperCyclicFeedback",
    "ActuatorCommand": "command_id=1:fixed32 flags=2:fixed32 position=3:float velocity=4:float "
    "torque_joint=5:float current_motor=6:float",
    "ActuatorFeedback": "command_id=1:fixed32 status_flags=2:fixed32 jitter_comm=3:fixed32 "
    "position=4:float velocity=5:float torque=6:float current_motor=7:float voltage=8:float "
    "temperature_motor=9:float temperature_core=10:float fault_bank_a=11:fixed32 "
    "fault_bank_b=12:fixed32 warning_bank_a=13:fixed32 warning_bank_b=14:fixed32",
    "BaseFeedback": "active_state_connection_identifier=1:uint32 active_state=2:uint32 "
    "arm_voltage=3:float arm_current=4:float temperature_cpu=5:float temperature_ambient=6:float "
    "imu_acceleration_x=7:float imu_acceleration_y=8:float imu_acceleration_z=9:float "
    "imu_angular_velocity_x=10:float imu_angular_velocity_y=11:float "
    "imu_angular_velocity_z=12:float tool_pose_x=13:float tool_pose_y=14:float "
    "tool_pose_z=15:float tool_pose_theta_x=16:float tool_pose_theta_y=17:float "
    "tool_pose_theta_z=18:float tool_twist_linear_x=19:float tool_twist_linear_y=20:float "
    "tool_twist_linear_z=21:float tool_twist_angular_x=22:float tool_twist_angular_y=23:float "
    "tool_twist_angular_z=24:float tool_external_wrench_force_x=25:float "
    "tool_external_wrench_force_y=26:float tool_external_wrench_force_z=27:float "
    "tool_external_wrench_torque_x=28:float tool_external_wrench_torque_y=29:float "
    "tool_external_wrench_torque_z=30:float fault_bank_a=31:fixed32 fault_bank_b=32:fixed32 "
    "warning_bank_a=33:fixed32 warning_bank_b=34:fixed32 commanded_tool_pose_x=35:float "
    "commanded_tool_pose_y=36:float commanded_tool_pose_z=37:float "
    "commanded_tool_pose_theta_x=38:float commanded_tool_pose_theta_y=39:float "
    "commanded_tool_pose_theta_z=40:float",
    "Command": "frame_id=1:fixed32 actuators=2:*ActuatorCommand interconnect=3:InterconnectCommand",
    "Feedback": "frame_id=1:fixed32 base=2:BaseFeedback actuators=3:*ActuatorFeedback "
    "interconnect=4:InterconnectFeedback",
}

# (service, function): name, request, response
_METHODS = """
1    1  Session.CreateSession              CreateSessionInfo        Empty
1    2  Session.CloseSession               Empty                    Empty
1    3  Session.KeepAlive                  Empty                    Empty
1    4  Session.GetConnections             Empty                    ConnectionList
2   44  Base.ReadAllActions                RequestedActionType      ActionList
2   47  Base.ExecuteActionFromReference    ActionHandle             Empty
2   48  Base.ExecuteAction                 Action                   Empty
2   49  Base.PauseAction                   Empty                    Empty
2   50  Base.StopAction                    Empty                    Empty
2   51  Base.ResumeAction                  Empty                    Empty
2   97  Base.Unsubscribe                   NotificationHandle       Empty
2  106  Base.ActionTopic                    NotificationOptions      NotificationHandle
2  107  Base.RobotEventTopic                NotificationOptions      NotificationHandle
2  112  Base.Stop                          Empty                    Empty
2  115  Base.GetMeasuredCartesianPose      Empty                    Pose
2  126  Base.GetMeasuredJointAngles        Empty                    JointAngles
2  136  Base.SendGripperCommand            GripperCommand           Empty
2  137  Base.GetMeasuredGripperMovement    GripperRequest           Gripper
2  145  Base.ApplyEmergencyStop            Empty                    Empty
2  146  Base.ClearFaults                   Empty                    Empty
2  151  Base.GetOperatingMode              Empty                    OperatingModeInformation
2  152  Base.SetServoingMode               ServoingModeInformation  Empty
2  153  Base.GetServoingMode               Empty                    ServoingModeInformation
2  154  Base.ServoingModeTopic             NotificationOptions    NotificationHandle
2  171  Base.GetActuatorCount              Empty                    ActuatorInformation
2  175  Base.GetArmState                   Empty                    ArmStateInformation
2  176  Base.ArmStateTopic                   NotificationOptions      NotificationHandle
2  198  Base.GetProductConfiguration       Empty                    ProductConfiguration
2  224  Base.GetFirmwareBundleVersions     Empty                    FirmwareBundleVersions
3    1  BaseCyclic.Refresh                 Command                  Feedback
3    2  BaseCyclic.RefreshCommand          Command                  Empty
3    3  BaseCyclic.RefreshFeedback         Empty                    Feedback
9    1  DeviceConfig.GetRunMode            Empty                    RunMode
9    3  DeviceConfig.GetDeviceType         Empty                    DeviceType
9    4  DeviceConfig.GetFirmwareVersion    Empty                    FirmwareVersion
9    5  DeviceConfig.GetBootloaderVersion  Empty                    BootloaderVersion
9    6  DeviceConfig.GetModelNumber        Empty                    ModelNumber
9    7  DeviceConfig.GetPartNumber         Empty                    PartNumber
9    8  DeviceConfig.GetSerialNumber       Empty                    SerialNumber
9    9  DeviceConfig.GetMACAddress         Empty                    MACAddress
9   10  DeviceConfig.GetIPv4Settings       Empty                    IPv4Settings
9   12  DeviceConfig.GetPartNumberRevision Empty                    PartNumberRevision
9   22  DeviceConfig.GetSafetyStatus       SafetyHandle             SafetyStatus
9   23  DeviceConfig.ClearAllSafetyStatus  Empty                    Empty
10   6  ActuatorConfig.GetControlMode      Empty                    ControlModeInformation
10   7  ActuatorConfig.SetControlMode      ControlModeInformation   Empty
10  24  ActuatorConfig.SetCommandMode      CommandModeInformation   Empty
10  25  ActuatorConfig.ClearFaults         Empty                    Empty
10  28  ActuatorConfig.GetCommandMode      Empty                    CommandModeInformation
16   2  ControlConfig.GetGravityVector     Empty                    GravityVector
16  13  ControlConfig.GetControlMode       Empty                    ControlModeInformation
16  18  ControlConfig.GetKinematicHardLimits Empty                  KinematicLimits
23   1  DeviceManager.ReadAllDevices       Empty                    DeviceHandles
"""

TOPICS = {
    "Base.ActionTopic": "ActionNotification",
    "Base.RobotEventTopic": "RobotEventNotification",
    "Base.ServoingModeTopic": "ServoingModeNotification",
    "Base.ArmStateTopic": "ArmStateNotification",
}
"""Message of each subscription."""

_SCALARS = {
    kind: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind.upper()}")
    for kind in ("fixed32", "uint32", "float", "string", "bytes")
}


def _load() -> dict[str, Any]:
    """Build one message class per row of the table."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, row in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for entry in row.split():
            field_name, _, spec = entry.partition("=")
            number, _, kind = spec.partition(":")
            repeated = kind.startswith("*")
            kind = kind.removeprefix("*")
            field = message.field.add(name=field_name, number=int(number))
            field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type = field.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    # GetMessageClass was added in 4.22; its predecessor was removed in 5.
    make = getattr(message_factory, "GetMessageClass", None)
    if make is None:
        make = message_factory.MessageFactory(pool).GetPrototype  # type: ignore[attr-defined]
    return {name: make(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES}


MESSAGES: dict[str, Any] = _load()
"""Message classes by name."""


@dataclass(frozen=True)
class Method:
    """One remote procedure."""

    name: str
    service: int
    function: int
    request: Any
    response: Any

    @property
    def uid(self) -> int:
        """Service and function as in the low 28 bits of ``service_info``."""
        return self.service << 16 | self.function


METHODS: dict[str, Method] = {
    name: Method(name, int(service), int(function), MESSAGES[request], MESSAGES[response])
    for service, function, name, request, response in map(str.split, _METHODS.strip().splitlines())
}
"""Remote procedures by name, such as ``"Base.GetArmState"``."""

METHODS_BY_UID: dict[int, Method] = {method.uid: method for method in METHODS.values()}


def message(kind: str, /, **fields: Any) -> Any:
    """Build a message of a kind in ``MESSAGES`` with its fields set."""
    return MESSAGES[kind](**fields)
