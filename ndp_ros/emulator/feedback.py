# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Cyclic feedback: the measurements of the emulated arm as a Kortex message."""

from __future__ import annotations

from typing import Any

import numpy as np

from ndp_ros.arms.kortex.codes import StatusFlag
from ndp_ros.arms.kortex.schema import message
from ndp_ros.arms.kortex.units import to_degrees
from ndp_ros.emulator.robot import Robot

# Plain integers: flags of an enumeration are slow, and these are used in every cycle.
_SERVOING = int(StatusFlag.CALIBRATED_TORQUE | StatusFlag.SERVOING)
_MAJOR_FAULT = int(StatusFlag.MAJOR_FAULT)


class Feedback:
    """The feedback message of a robot, one message that is updated in place."""

    def __init__(self, robot: Robot) -> None:
        """Build the message and fill in the constant fields."""
        self._robot = robot
        self._fed: tuple[float, int, int] | None = None
        self._message = feedback = message("Feedback")
        feedback.base.arm_voltage, feedback.base.arm_current = 24.0, 1.5
        feedback.base.temperature_cpu = feedback.base.temperature_ambient = 35.0
        feedback.base.imu_acceleration_z = 9.81
        for _ in range(robot.n):
            feedback.actuators.add(voltage=24.0, temperature_motor=35.0, temperature_core=35.0)
        self._actuators = list(feedback.actuators)
        if robot.arm.gripper:
            feedback.interconnect.voltage = 24.0
            feedback.interconnect.temperature_core = 35.0
            self._motor = feedback.interconnect.gripper_feedback.motor.add()
            self._motor.voltage, self._motor.temperature_motor = 24.0, 35.0

    def reply(self, request: Any) -> Any:
        """Return the message of this moment, stamped with the numbers of a command."""
        feedback = self.now()
        feedback.frame_id = request.frame_id
        for command, actuator in zip(request.actuators, self._actuators, strict=True):
            actuator.command_id = command.command_id
        return feedback

    def now(self) -> Any:
        """Return the message of this moment; the next call overwrites it."""
        robot, feedback = self._robot, self._message
        # A fault may occur between two steps.
        moment = (robot.time, robot.servoing, robot.faults.base)
        if self._fed == moment:
            return feedback
        self._fed = moment
        faults = robot.faults
        rows = zip(
            self._actuators,
            to_degrees(robot.position).tolist(),
            np.degrees(robot.velocity).tolist(),
            robot.servos.torque.tolist(),
            faults.actuators.tolist(),
            faults.warnings.tolist(),
            robot.servos.amperes().tolist(),
            strict=True,
        )
        for actuator, position, velocity, torque, fault, warning, current in rows:
            actuator.position = position
            actuator.velocity = velocity
            # The arm measures torque with the opposite sign of commanded torque.
            actuator.torque = -torque
            actuator.current_motor = current
            actuator.fault_bank_a = fault
            actuator.warning_bank_a = warning
            actuator.status_flags = _SERVOING | (_MAJOR_FAULT if fault else 0)
        base = feedback.base
        base.active_state = robot.state
        base.active_state_connection_identifier = robot.controller
        base.fault_bank_a = faults.base
        point, angles = robot.tool_pose()
        base.tool_pose_x, base.tool_pose_y, base.tool_pose_z = point
        base.tool_pose_theta_x, base.tool_pose_theta_y, base.tool_pose_theta_z = angles
        if robot.arm.gripper:
            self._motor.position = 100.0 * robot.gripper.closed
            self._motor.velocity = 100.0 * robot.gripper.speed
        return feedback
