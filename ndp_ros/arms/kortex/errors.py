"""What can go wrong with a Kortex arm: one class per cause, each with what to do about it."""

# ruff: noqa: N818  (the names are what happened; ``Error`` adds nothing to ``RobotInFault``)

from __future__ import annotations

from typing import ClassVar

from ndp_ros.arms.kortex.codes import ErrorCode, SubCode
from ndp_ros.errors import ArmError


class KortexError(ArmError):
    """An arm refused a request, or could not be asked.

    Attributes:
        code: Who refused, ``ErrorCode``; 0 where no error frame came.
        sub_code: Why, ``SubCode``.
    """

    advice: ClassVar[str] = ""
    """What to do, as one sentence."""

    def __init__(self, what: str, code: int = 0, sub_code: int = 0) -> None:
        self.what = what
        self.code = code
        self.sub_code = sub_code
        super().__init__(f"{what}: {self.advice}" if self.advice else what)


class Unreachable(KortexError):
    """Nothing answers, or it stopped to answer."""

    advice = "check that the arm is on, the cable, the address and your own address in its subnet"


class ProtocolError(KortexError):
    """Bytes came that are not Kortex."""

    advice = "check that the address and port are those of a Kortex arm"


class ReplyTimeout(KortexError):
    """One reply did not come in time."""

    advice = "the network drops or delays frames; use a cable, and no switch that others share"


class InvalidPassword(KortexError):
    """User name or password were refused."""

    advice = "check username and password; a new arm has admin and admin"


class SessionLost(KortexError):
    """The arm no longer knows the session."""

    advice = "it was idle for too long or closed by another client; connect again"


class NotInControl(KortexError):
    """Another session has control of the arm."""

    advice = "end the other client or release the joystick, wait 8 s and connect again"


class WrongServoingMode(KortexError):
    """A cyclic command outside low-level servoing."""

    advice = "the arm left low-level servoing; read its faults, clear them and connect again"


class RobotInFault(KortexError):
    """The arm is in fault."""

    advice = "make sure that the arm is safe, clear its faults (clear_faults:=true), connect again"


class EmergencyStopped(RobotInFault):
    """The emergency stop is active."""

    advice = "release the emergency stop, clear the faults (clear_faults:=true), connect again"


class RobotNotReady(KortexError):
    """The arm is starting, updating or in maintenance."""

    advice = "wait until its light is green, then connect again"


class Unsupported(KortexError):
    """A device has no such service."""

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
    """Return a code's name, or its number where it has none here."""
    try:
        return enumeration(value).name
    except ValueError:
        return str(value)


def error_from(method: str, code: int, sub_code: int, text: str) -> KortexError:
    """Return the exception for an error frame.

    Args:
        method: Procedure that was called, such as ``"Base.GetArmState"``.
        code: Error code of the frame.
        sub_code: Sub-code of the frame.
        text: What the arm says.
    """
    kind = _BY_SUB_CODE.get(sub_code, KortexError)
    codes = f"{name_of(ErrorCode, code)}/{name_of(SubCode, sub_code)}"
    said = f' "{text}"' if text else ""
    return kind(f"{method} refused with {codes}{said}", code, sub_code)
