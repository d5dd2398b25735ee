"""Kinova's Kortex arms (the Gen3 family): schema, wire, client, arm backend and emulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ndp_ros.arms.arm import Arm, ArmConfig
    from ndp_ros.control.omega import Omega


def make(
    config: ArmConfig, *, task: str, command_mode: str, rate: float, seed: int, **options: Any
) -> tuple[Arm, Omega]:
    """Return a Kortex arm, not yet connected, and the Ω that drives it.

    Args:
        config: The arm.
        task: Not used: a real arm's surroundings are what they are.
        command_mode: ``"position"``, or ``"torque"`` with Ω as inverse dynamics.
        rate: Ticks of the loop per second [Hz].
        seed: Not used.
        **options: Parameters of :class:`~ndp_ros.arms.kortex.arm.KortexConfig`;
            ``robot_ip`` must be among them.

    Raises:
        ConfigError: On an unknown or missing parameter.
    """
    from ndp_ros.arms.kortex.arm import KortexArm
    from ndp_ros.arms.kortex.config import KortexConfig
    from ndp_ros.config import from_mapping
    from ndp_ros.control.omega import Identity, InverseDynamics
    from ndp_ros.errors import ConfigError

    settings = from_mapping(KortexConfig, options, source="kortex")
    arm = KortexArm(config, settings, rate)
    if command_mode not in ("position", "torque"):
        raise ConfigError.choice("command_mode", command_mode, ("position", "torque"))
    import mujoco
    import numpy as np

    from ndp_ros.arms.arm import arm_scene
    from ndp_ros.control.rigid_body import RigidBody

    n = len(config.joint_names) - int(config.gripper)
    model = mujoco.MjModel.from_xml_path(str(arm_scene(config)))
    body = RigidBody(model, config.joint_names[:n])
    if command_mode == "position":
        return arm, Identity(body)
    return arm, InverseDynamics(body, config.natural_frequency, np.array(config.max_torque[:n]))
