# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Kinova's Kortex arms (the Gen3 family): messages, wire format, client and arm backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ndp_ros.arms.kortex.config import KortexConfig
    from ndp_ros.control.arm import Arm, ArmConfig
    from ndp_ros.control.omega import Omega


def make(
    config: ArmConfig,
    *,
    task: str,
    command_mode: str,
    rate: float,
    seed: int,
    settings: KortexConfig,
) -> tuple[Arm, Omega]:
    """Build a Kortex arm, not yet connected, and the Ω that drives it.

    Args:
        config: The arm.
        task: Not used: a real arm's surroundings are what they are.
        command_mode: ``"position"``, or ``"torque"`` with Ω as inverse dynamics.
        rate: Ticks of the loop per second [Hz].
        seed: Not used.
        settings: Where the arm is and how to drive it.

    Raises:
        ConfigError: If the settings do not fit the arm or the command mode.
    """
    import numpy as np

    from ndp_ros.arms.kortex.arm import KortexArm
    from ndp_ros.control.arm import COMMAND_MODES
    from ndp_ros.control.omega import Identity, InverseDynamics
    from ndp_ros.control.rigid_body import RigidBody
    from ndp_ros.errors import ConfigError

    if command_mode not in COMMAND_MODES:
        raise ConfigError.choice("command_mode", command_mode, COMMAND_MODES)
    arm = KortexArm(config, settings, rate)
    body = RigidBody.of_arm(config)
    if command_mode == "position":
        return arm, Identity(body)
    return arm, InverseDynamics(body, config.natural_frequency, np.array(config.max_torque))
