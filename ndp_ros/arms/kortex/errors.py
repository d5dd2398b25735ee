# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Errors of a Kortex arm: one class per cause, each with advice."""

# ruff: noqa: N818  (``Error`` adds nothing to a name such as ``RobotInFault``)

from __future__ import annotations

from typing import ClassVar

from ndp_ros.arms.kortex.codes import ErrorCode, SubCode
from ndp_ros.errors import ArmError


class KortexError(ArmError):
    """A request that an arm refused or did not receive.

    Attributes:
        code: ``ErrorCode`` of the error frame; 0 without one.
        sub_code: Its ``SubCode``.
    """

    advice: ClassVar[str] = ""
    """Advice in one sentence."""

    def __init__(self, what: str, code: int = 0, sub_code: int = 0) -> None:
        self.what = what
        self.code = code
        self.sub_code = sub_code
        super().__init__(f"{what}: {self.advice}" if self.advice else what)


class Unreachable(KortexError):
    """An arm that does not answer, or no longer."""

    advice = "check that the arm is on, the cable, the address and your own address in its subnet"


class ProtocolError(KortexError):
    """Received bytes that are not Kortex."""

    advice = "check that the address and port are those of a Kortex arm"


class ReplyTimeout(KortexError):
    """A reply that did not arrive in time."""

    advice = "the network drops or delays frames; use a cable, and no switch that others share"


class InvalidPassword(KortexError):
    """A refused user name or password."""

    advice = "check username and password; a new arm has admin and admin"


class SessionLost(KortexError):
    """A session that the arm no longer knows."""

    advice = "it was idle for too long or closed by another client; connect again"


class NotInControl(KortexError):
    """An arm controlled by another session."""

    advice = "end the other client or release the joystick, wait 8 s and connect again"


class WrongServoingMode(KortexError):
    """A cyclic command outside low-level servoing."""

    advice = "the arm left low-level servoing; read its faults, clear them and connect again"


class RobotInFault(KortexError):
    """An arm in fault."""

    advice = "make sure that the arm is safe, clear its faults (clear_faults:=true), connect again"


class EmergencyStopped(RobotInFault):
    """An active emergency stop."""

    advice = "release the emergency stop, clear the faults (clear_faults:=true), connect again"


class RobotNotReady(KortexError):
    """An arm that is starting, updating or in maintenance."""

    advice = "wait until its light is green, then connect again"


class Unsupported(KortexError):
    """A service that the device does not have."""

    advice = "the arm's firmware or its devices differ from what this client expects"


_BY_SUB_CODE: dict[int, type[KortexError]] = {
    SubCode.UNSUPPORTED_SERVICE: Unsupported,
    SubCode.UNSUPPORTED_METHOD: Unsupported,
    SubCode.UNIMPLEMENTED: Unsupported,
    SubCode.INVALID_DEVICE: Unsupported,
    SubCode.INVALID_SESSION: SessionLost,
    SubCode.INVALID_USER_SESSION_ACCESS: SessionLost,
    SubCode.INVALID_PASSWORD: InvalidPassword,
    SubCode.USER_NOT_FOUND: InvalidPassword,
    SubCode.SESSION_NOT_IN_CONTROL: NotInControl,
    SubCode.CONTROL_MANUAL_STOP: NotInControl,
    SubCode.WRONG_SERVOING_MODE: WrongServoingMode,
    SubCode.ROBOT_IN_FAULT: RobotInFault,
    SubCode.ROBOT_IN_EMERGENCY_STOP: EmergencyStopped,
    SubCode.ROBOT_NOT_READY: RobotNotReady,
    SubCode.DEVICE_NOT_READY: RobotNotReady,
    SubCode.ROBOT_IN_MAINTENANCE: RobotNotReady,
    SubCode.ROBOT_IN_UPDATE_MODE: RobotNotReady,
}


def name_of(enumeration: type[ErrorCode] | type[SubCode], value: int) -> str:
    """Return the name of a code, or its number without one."""
    try:
        return enumeration(value).name
    except ValueError:
        return str(value)


def error_from(method: str, code: int, sub_code: int, text: str) -> KortexError:
    """Build the exception for an error frame that answers a method."""
    kind = _BY_SUB_CODE.get(sub_code, KortexError)
    codes = f"{name_of(ErrorCode, code)}/{name_of(SubCode, sub_code)}"
    said = f' "{text}"' if text else ""
    return kind(f"{method} refused with {codes}{said}", code, sub_code)
