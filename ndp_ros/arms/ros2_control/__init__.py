# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""An arm behind ros2_control: commands to a controller's topic, measurements from joint_states.

rclpy runs in a process of its own, the bridge, because its threads would delay the streaming
loop. A socket joins the two and carries one packet of plain numbers per tick each way; when one
side ends, the other sees the end of the socket.

    loop ──command──► bridge ──► <controller>/commands or <controller>/joint_trajectory
         ◄──state────        ◄── joint_states

In position mode the controller holds its last command when commands stop. An effort controller
repeats its last effort: set its command time-out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ndp_ros.arms.ros2_control.arm import Ros2ControlArm
    from ndp_ros.arms.ros2_control.config import Ros2ControlConfig
    from ndp_ros.control.arm import ArmConfig
    from ndp_ros.control.omega import Omega


def make(
    config: ArmConfig,
    *,
    task: str,
    command_mode: str,
    rate: float,
    seed: int,
    settings: Ros2ControlConfig,
) -> tuple[Ros2ControlArm, Omega]:
    """Build an arm behind ros2_control, not yet connected, and the Ω that drives it.

    Args:
        config: The arm.
        task: Not used.
        command_mode: ``"position"``, or ``"torque"`` with Ω as inverse dynamics.
        rate: Not used.
        seed: Not used.
        settings: Its controllers and topics.

    Raises:
        ConfigError: If the settings do not fit the arm or the command mode.
    """
    from ndp_ros.arms.ros2_control.arm import Ros2ControlArm
    from ndp_ros.control.omega import Identity, InverseDynamics

    arm = Ros2ControlArm(config, settings, command_mode)
    if command_mode == "position":
        return arm, Identity()
    import numpy as np

    from ndp_ros.control.rigid_body import RigidBody

    limits = np.array(config.max_torque)
    return arm, InverseDynamics(RigidBody.of_arm(config), config.natural_frequency, limits)
