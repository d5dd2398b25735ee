# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Enumerations of the Kortex messages: errors, devices, modes, events and faults."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class ErrorCode(IntEnum):
    """Origin of a refusal, the first part of an error."""

    NONE = 0
    PROTOCOL_SERVER = 1
    PROTOCOL_CLIENT = 2
    DEVICE = 3
    INTERNAL = 4


class SubCode(IntEnum):
    """Reason of a refusal, the second part of an error."""

    NONE = 0
    METHOD_FAILED = 1
    UNIMPLEMENTED = 2
    INVALID_PARAM = 3
    UNSUPPORTED_SERVICE = 4
    UNSUPPORTED_METHOD = 5
    FRAME_DECODING_ERR = 8
    INCOMPATIBLE_HEADER_VERSION = 9
    UNSUPPORTED_FRAME_TYPE = 10
    INVALID_SESSION = 12
    PAYLOAD_DECODING_ERR = 13
    INVALID_PASSWORD = 15
    USER_NOT_FOUND = 16
    ENTITY_NOT_FOUND = 17
    ROBOT_MOVEMENT_IN_PROGRESS = 18
    ROBOT_NOT_MOVING = 19
    ROBOT_NOT_READY = 21
    ROBOT_IN_FAULT = 22
    ROBOT_IN_MAINTENANCE = 23
    ROBOT_IN_UPDATE_MODE = 24
    ROBOT_IN_EMERGENCY_STOP = 25
    SINGLE_LEVEL_SERVOING = 26
    LOW_LEVEL_SERVOING = 27
    DEVICE_DISCONNECTED = 50
    DEVICE_NOT_READY = 51
    INVALID_DEVICE = 52
    SAFETY_THRESHOLD_REACHED = 53
    INVALID_USER_SESSION_ACCESS = 54
    CONTROL_MANUAL_STOP = 55
    CONTROL_ACTUATOR_COUNT_MISMATCH = 57
    CONTROL_WRONG_MODE = 64
    CONTROL_JOINT_POSITION_LIMIT = 65
    WRONG_SERVOING_MODE = 75
    SESSION_NOT_IN_CONTROL = 130
    METHOD_TIMEOUT = 131


class DeviceKind(IntEnum):
    """Kinds of devices."""

    BASE = 1
    BIG_ACTUATOR = 3
    SMALL_ACTUATOR = 4
    INTERCONNECT = 5
    GRIPPER = 6
    MEDIUM_ACTUATOR = 7
    XBIG_ACTUATOR = 8


ACTUATOR_KINDS = frozenset(
    {
        DeviceKind.BIG_ACTUATOR,
        DeviceKind.SMALL_ACTUATOR,
        DeviceKind.MEDIUM_ACTUATOR,
        DeviceKind.XBIG_ACTUATOR,
    }
)


class ServoingMode(IntEnum):
    """Whether the base or the client, cycle by cycle, closes the position loop."""

    SINGLE_LEVEL = 2
    LOW_LEVEL = 3


class ArmState(IntEnum):
    """States of the whole arm."""

    IN_FAULT = 4
    SERVOING_LOW_LEVEL = 6
    SERVOING_READY = 7


class ControlMode(IntEnum):
    """Control modes of an actuator in low-level servoing."""

    POSITION = 1
    VELOCITY = 2
    TORQUE = 3
    CURRENT = 4


class ActionKind(IntEnum):
    """Kinds of actions that this package uses."""

    UNSPECIFIED = 0
    REACH_JOINT_ANGLES = 7


class ActionEvent(IntEnum):
    """Events of an action."""

    END = 1
    ABORT = 2
    START = 4


class RobotEvent(IntEnum):
    """Connections and disconnections."""

    TOOL_CONNECTED = 5
    TOOL_DISCONNECTED = 6


class GripperMode(IntEnum):
    """Quantities that a high-level gripper command sets."""

    SPEED = 2
    POSITION = 3


class CommandFlag(IntFlag):
    """Flags of an actuator's cyclic command."""

    SERVO_ENABLE = 0x1
    CLEAR_MAJOR_FAULT = 0x4
    CLEAR_MINOR_FAULT = 0x8


class StatusFlag(IntFlag):
    """Flags of an actuator's cyclic feedback."""

    SERVOING = 0x800
    MAJOR_FAULT = 0x1000
    CALIBRATED_TORQUE = 0x4000


class ActuatorFault(IntFlag):
    """Bank A of an actuator's faults and warnings."""

    FOLLOWING_ERROR = 0x1
    MAXIMUM_VELOCITY = 0x2
    JOINT_LIMIT_HIGH = 0x4
    JOINT_LIMIT_LOW = 0x8
    MAXIMUM_TORQUE = 0x20
    MAXIMUM_MOTOR_CURRENT = 0x2000
    MAXIMUM_VOLTAGE = 0x8000
    MINIMUM_VOLTAGE = 0x10000
    MAXIMUM_MOTOR_TEMPERATURE = 0x20000
    MAXIMUM_CORE_TEMPERATURE = 0x40000
    EMERGENCY_LINE_ASSERTED = 0x200000
    COMMUNICATION_TICK_LOST = 0x400000
    WATCHDOG_TRIGGERED = 0x800000


class BaseFault(IntFlag):
    """Bank A of the base's faults."""

    JOINT_FAULT = 0x10
    CYCLIC_DATA_JITTER = 0x20
    EMERGENCY_STOP_ACTIVATED = 0x800000
