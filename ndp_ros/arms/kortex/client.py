# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Procedures of a Kortex arm: sessions, devices, modes, faults, actions and the gripper.

:class:`KortexClient` keeps the TCP and the UDP session. The cyclic exchange is in
:mod:`ndp_ros.arms.kortex.cycle`.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import Any, Self

from ndp_ros.arms.kortex.channel import StreamChannel
from ndp_ros.arms.kortex.codes import (
    ACTUATOR_KINDS,
    ActuatorFault,
    ArmState,
    BaseFault,
    ControlMode,
    DeviceKind,
    GripperMode,
    ServoingMode,
)
from ndp_ros.arms.kortex.credentials import Credentials
from ndp_ros.arms.kortex.datagrams import DatagramChannel
from ndp_ros.arms.kortex.errors import KortexError, ReplyTimeout, RobotInFault
from ndp_ros.arms.kortex.schema import message
from ndp_ros.arms.kortex.vendor import VendorDatagrams, VendorStream
from ndp_ros.errors import ArmError

log = logging.getLogger(__name__)

Stream = StreamChannel | VendorStream
Datagrams = DatagramChannel | VendorDatagrams

SESSION_TIMEOUT = 60.0
"""Silence after which the arm ends a session [s]."""
CONNECTION_TIMEOUT = 2.0
"""Silence after which the arm stops the motions that a session started [s]."""


@dataclass(frozen=True)
class Device:
    """A device of the arm, as the arm lists it."""

    kind: int
    identifier: int
    """Address of the device in a request."""
    order: int
    """Position among the devices of its kind, from the base to the hand."""


def faults_of(feedback: Any) -> list[str]:
    """Return every fault in a cyclic feedback as ``actuator 2: FOLLOWING_ERROR``."""
    found = []
    base, interconnect = feedback.base, feedback.interconnect
    if base.fault_bank_a or base.fault_bank_b:
        found.append(f"base: {_banks(BaseFault, base)}")
    for i, actuator in enumerate(feedback.actuators):
        if actuator.fault_bank_a or actuator.fault_bank_b:
            found.append(f"actuator {i + 1}: {_banks(ActuatorFault, actuator)}")
    gripper = interconnect.gripper_feedback
    for name, device in (("interconnect", interconnect), ("gripper", gripper)):
        if device.fault_bank_a or device.fault_bank_b:
            found.append(f"{name}: {_banks(None, device)}")
    return found


def _banks(names: type[ActuatorFault] | type[BaseFault] | None, device: Any) -> str:
    """Return the faults in both banks of a device."""
    a, b = device.fault_bank_a, device.fault_bank_b
    found = [_names(names, a) if names else f"bank A {a:#x}"] if a else []
    return "+".join(found + ([f"bank B {b:#x}"] if b else []))


def _channels(driver: str) -> tuple[type[Stream], type[Datagrams]]:
    """Return the classes of the two channels."""
    if driver == "vendor":
        return VendorStream, VendorDatagrams
    return StreamChannel, DatagramChannel


def _names(bank: type[ActuatorFault] | type[BaseFault], value: int) -> str:
    """Return the names of the bits that are set; unnamed bits as a number."""
    known = [fault for fault in bank if value & fault]
    rest = value & ~sum(known)
    return "+".join([fault.name or "" for fault in known] + ([hex(rest)] if rest else []))


class KortexClient:
    """Two sessions with one arm.

    Attributes:
        stream: The TCP channel.
        datagrams: The UDP channel.
        devices: The devices that the arm lists.
        actuators: Its actuators, from the base to the hand.
        has_gripper: Whether a gripper is mounted.
    """

    def __init__(
        self,
        host: str,
        credentials: Credentials,
        port: int = 10000,
        udp_port: int = 10001,
        timeout: float = 3.0,
        driver: str = "builtin",
    ) -> None:
        """Connect, log in on both channels and list the devices.

        There is no default address: nothing is sent to one that was not given. The timeout [s] is
        that of an answer outside the cycle, the driver ``builtin``, or ``vendor`` for Kinova's own
        package.

        Raises:
            ConfigError: If the driver's package cannot be imported.
            Unreachable: If the arm does not answer.
            InvalidPassword: If it refuses the credentials.
            KortexError: If it refuses anything else.
        """
        if not host:
            raise ArmError("robot_ip is empty: give the address of the arm, such as 192.168.1.10")
        self.host = host
        self._closed = False
        open_stream, open_datagrams = _channels(driver)
        self.stream = open_stream(host, port, timeout)
        self._opened: list[Stream | Datagrams] = [self.stream]
        try:
            log.info("logging in at %s:%d as %s", host, port, credentials.username)
            self._log_in(self.stream, credentials)
            self.datagrams = open_datagrams(host, udp_port, timeout)
            self._opened.append(self.datagrams)
            self._log_in(self.datagrams, credentials)
            self.devices = self._read_devices()
            self.actuators = tuple(
                sorted((d for d in self.devices if d.kind in ACTUATOR_KINDS), key=lambda d: d.order)
            )
            self.has_gripper = any(d.kind == DeviceKind.GRIPPER for d in self.devices)
        except BaseException:
            self.close()
            raise
        self.stream.when_idle = self.datagrams.keep_alive

    # State.

    @property
    def arm_state(self) -> int:
        """State of the arm, an ``ArmState``."""
        return int(self.stream.call("Base.GetArmState").active_state)

    @property
    def servoing_mode(self) -> int:
        """The ``ServoingMode``: whether the base or a client closes the loop."""
        return int(self.stream.call("Base.GetServoingMode").servoing_mode)

    def feedback(self) -> Any:
        """Return the cyclic feedback without a command, in any servoing mode."""
        return self.datagrams.call("BaseCyclic.RefreshFeedback")

    def require_no_fault(self, clear: bool = False) -> None:
        """Check that the arm is not in fault.

        Raises:
            RobotInFault: If it is in fault; the message names the faults.
        """
        if clear:
            self.clear_faults()
        state = self.arm_state
        if state == ArmState.IN_FAULT:
            faults = "; ".join(faults_of(self.feedback())) or "cause unknown"
            raise RobotInFault(f"the arm at {self.host} is in fault ({faults})")

    # Requests.

    def clear_faults(self) -> None:
        """Clear the faults of the base and of every actuator."""
        self.stream.call("Base.ClearFaults")
        for actuator in self.actuators:
            self.stream.call("ActuatorConfig.ClearFaults", device=actuator.identifier)

    def set_servoing_mode(self, mode: ServoingMode) -> None:
        """Choose whether the base or this client closes the loop."""
        self.stream.call(
            "Base.SetServoingMode", message("ServoingModeInformation", servoing_mode=mode)
        )

    def set_control_mode(self, actuator: int, mode: ControlMode) -> None:
        """Choose the control mode of an actuator in low-level servoing; actuators count from 0."""
        self.stream.call(
            "ActuatorConfig.SetControlMode",
            message("ControlModeInformation", control_mode=mode),
            self.actuators[actuator].identifier,
        )

    def give_back(self) -> None:
        """Return to the base's servoing; the request is repeated without an answer.

        Raises:
            KortexError: If the arm refuses, or answers none of the requests.
        """
        for _ in range(2):
            with contextlib.suppress(ReplyTimeout):
                return self.set_servoing_mode(ServoingMode.SINGLE_LEVEL)
        return self.set_servoing_mode(ServoingMode.SINGLE_LEVEL)

    def move_gripper(self, closed: float) -> None:
        """Drive the gripper outside low-level servoing; 0 is open, 1 closed."""
        command = message("GripperCommand", mode=GripperMode.POSITION)
        command.gripper.finger.add(finger_identifier=1, value=closed)
        self.stream.call("Base.SendGripperCommand", command)

    # Sessions.

    def _log_in(self, channel: Stream | Datagrams, credentials: Credentials) -> None:
        info = message(
            "CreateSessionInfo",
            username=credentials.username,
            password=credentials.password,
            session_inactivity_timeout=int(SESSION_TIMEOUT * 1000),
            connection_inactivity_timeout=int(CONNECTION_TIMEOUT * 1000),
        )
        if isinstance(channel, Datagrams):
            # Each attempt starts another session: the arm gets time to answer the first.
            channel.call("Session.CreateSession", info, attempts=3)
        else:
            channel.call("Session.CreateSession", info)

    def _read_devices(self) -> tuple[Device, ...]:
        handles = self.stream.call("DeviceManager.ReadAllDevices").device_handle
        return tuple(Device(h.device_type, h.device_identifier, h.order) for h in handles)

    def close(self) -> None:
        """Close both sessions and both connections; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self.stream.when_idle = lambda: None
        for channel in reversed(self._opened):
            if channel.session:
                with contextlib.suppress(KortexError):
                    timeout = 0.6 if isinstance(channel, Datagrams) else 0.5
                    channel.call("Session.CloseSession", timeout=timeout)
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
