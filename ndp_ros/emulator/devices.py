# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The devices of the emulated arm, and the procedures that they offer.

The base has its own procedures in ``services``; here are those of single devices, and the
constant answers on product and firmware.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ndp_ros.arms.kortex.client import Device
from ndp_ros.arms.kortex.codes import DeviceKind
from ndp_ros.arms.kortex.schema import message
from ndp_ros.emulator.request import Caller, Handler
from ndp_ros.emulator.robot import Robot

BASE = 0
"""Device identifier of the base."""
SERIAL = "EMULATED"
_EMPTY = message("Empty")

_CONSTANT: dict[str, tuple[str, dict[str, Any]]] = {
    "Base.GetOperatingMode": ("OperatingModeInformation", {"operating_mode": 6}),
    "Base.GetFirmwareBundleVersions": ("FirmwareBundleVersions", {"main_bundle_version": "2.5.2"}),
    "DeviceConfig.GetRunMode": ("RunMode", {}),
    "DeviceConfig.GetFirmwareVersion": ("FirmwareVersion", {"firmware_version": 0x02050200}),
    "DeviceConfig.GetBootloaderVersion": ("BootloaderVersion", {"bootloader_version": 0x01000000}),
    "DeviceConfig.GetPartNumber": ("PartNumber", {"part_number": SERIAL}),
    "DeviceConfig.GetPartNumberRevision": ("PartNumberRevision", {"part_number_revision": "0"}),
    "DeviceConfig.GetMACAddress": ("MACAddress", {"mac_address": bytes(6)}),
    "DeviceConfig.GetIPv4Settings": (
        "IPv4Settings",
        {"ipv4_address": 0x7F000001, "ipv4_subnet_mask": 0xFF000000},
    ),
    "ControlConfig.GetGravityVector": ("GravityVector", {"z": -9.81}),
    "ControlConfig.GetControlMode": ("ControlModeInformation", {"control_mode": 13}),
}
"""Procedures with a constant answer: its message and fields."""


def _devices(robot: Robot) -> tuple[Device, ...]:
    """Return the devices of an arm in no meaningful order, as the real arm lists them."""
    ids = robot.config.actuator_ids
    kinds = [
        DeviceKind.BIG_ACTUATOR if limit > 20.0 else DeviceKind.SMALL_ACTUATOR
        for limit in robot.arm.max_torque
    ]
    actuators = [Device(kinds[i], number, i) for i, number in enumerate(ids)]
    spare = itertools.filterfalse(ids.__contains__, itertools.count(max(ids) + 1))
    others = [Device(DeviceKind.INTERCONNECT, next(spare), 0)]
    if robot.arm.gripper:
        others.append(Device(DeviceKind.GRIPPER, next(spare), 0))
    return (*others, *reversed(actuators), Device(DeviceKind.BASE, BASE, 0))


def _constant(kind: str, fields: dict[str, Any]) -> Handler:
    """Return a handler whose answer is always the same."""
    return lambda caller, request, device: message(kind, **fields)


class Devices:
    """The devices of one robot.

    Attributes:
        actuators: Index of each actuator by its identifier.
        identifiers: Identifiers of all devices.
    """

    def __init__(self, robot: Robot) -> None:
        """Number the devices as configured."""
        self._robot = robot
        self._devices = _devices(robot)
        ids = robot.config.actuator_ids
        self.actuators = {number: index for index, number in enumerate(ids)}
        self.identifiers = {device.identifier for device in self._devices}

    def handlers(self) -> dict[str, Handler]:
        """Return the procedures of the single devices."""
        return {
            **{name: _constant(*answer) for name, answer in _CONSTANT.items()},
            "DeviceConfig.GetDeviceType": self._device_type,
            "DeviceConfig.GetModelNumber": lambda *_: message(
                "ModelNumber", model_number=self._robot.arm.name
            ),
            "DeviceConfig.GetSerialNumber": lambda caller, request, device: message(
                "SerialNumber", serial_number=f"{SERIAL}-{device}"
            ),
            "DeviceConfig.GetSafetyStatus": self._safety_status,
            "DeviceConfig.ClearAllSafetyStatus": self._clear_device,
            "ActuatorConfig.GetControlMode": self._get_control_mode,
            "ActuatorConfig.SetControlMode": self._set_control_mode,
            "ActuatorConfig.GetCommandMode": self._get_command_mode,
            "ActuatorConfig.SetCommandMode": self._set_command_mode,
            "ActuatorConfig.ClearFaults": self._clear_device,
            "ControlConfig.GetKinematicHardLimits": self._kinematic_limits,
            "DeviceManager.ReadAllDevices": self._read_all_devices,
        }

    def _read_all_devices(self, caller: Caller, request: Any, device: int) -> Any:
        handles = message("DeviceHandles")
        for known in self._devices:
            handles.device_handle.add(
                device_type=known.kind, device_identifier=known.identifier, order=known.order
            )
        return handles

    def _device_type(self, caller: Caller, request: Any, device: int) -> Any:
        kind = next(d.kind for d in self._devices if d.identifier == device)
        return message("DeviceType", device_type=kind)

    def _safety_status(self, caller: Caller, request: Any, device: int) -> Any:
        index = self.actuators.get(device)
        raised = index is not None and self._robot.faults.actuators[index] & request.identifier
        return message("SafetyStatus", value=2 if raised else 3)

    def _clear_device(self, caller: Caller, request: Any, device: int) -> Any:
        if device in self.actuators:
            self._robot.faults.clear_actuator(self.actuators[device])
        return _EMPTY

    def _get_control_mode(self, caller: Caller, request: Any, device: int) -> Any:
        mode = self._robot.control_modes[self.actuators[device]]
        return message("ControlModeInformation", control_mode=mode)

    def _set_control_mode(self, caller: Caller, request: Any, device: int) -> Any:
        self._robot.set_control_mode(self.actuators[device], request.control_mode)
        return _EMPTY

    def _get_command_mode(self, caller: Caller, request: Any, device: int) -> Any:
        mode = self._robot.command_modes[self.actuators[device]]
        return message("CommandModeInformation", command_mode=mode)

    def _set_command_mode(self, caller: Caller, request: Any, device: int) -> Any:
        self._robot.command_modes[self.actuators[device]] = request.command_mode
        return _EMPTY

    def _kinematic_limits(self, caller: Caller, request: Any, device: int) -> Any:
        arm, n = self._robot.arm, self._robot.n
        return message(
            "KinematicLimits",
            twist_linear=0.5,
            twist_angular=50.0,
            joint_speed_limits=np.degrees(arm.max_velocity[:n]).tolist(),
            joint_acceleration_limits=np.degrees(arm.max_acceleration[:n]).tolist(),
        )
