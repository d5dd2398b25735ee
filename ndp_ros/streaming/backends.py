"""From a name to an arm and its Ω: the table of backends, each imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ndp_ros.arms.arm import Arm, ArmConfig
from ndp_ros.control.omega import Identity, InverseDynamics, Omega
from ndp_ros.errors import ArmError, ConfigError
from ndp_ros.streaming.config import StreamSpec, options_of

Maker = Callable[..., tuple[Arm, Omega]]
"""``make(config: ArmConfig, *, task, command_mode, rate, seed, **options) -> (arm, omega)``.

Builds without reaching out: only ``arm.connect()`` may open a connection.
"""

BACKENDS = {
    "mujoco": "ndp_ros.streaming.backends:make_mujoco",
    "mock": "ndp_ros.streaming.backends:make_mock",
    "kortex": "ndp_ros.arms.kortex:make",
    "ros2_control": "ndp_ros.arms.ros2_arm:make",
}


def make(spec: StreamSpec) -> tuple[Arm, Omega]:
    """Build the arm that a specification names, and the Ω that drives it.

    ``spec.hardware`` is a name of :data:`BACKENDS`, or ``module:function`` of any
    other :data:`Maker`.

    Raises:
        ConfigError: If there is no such backend or its options are no JSON mapping.
        ArmError: If the arm cannot be built as asked.
    """
    path = BACKENDS.get(spec.hardware, spec.hardware)
    module_name, _, function = path.partition(":")
    if not function:
        raise ConfigError.choice("hardware", spec.hardware, [*BACKENDS, "<module>:<function>"])
    options = options_of(spec.options, spec.hardware)
    try:
        maker: Maker = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"hardware {spec.hardware} is not available here: {error}") from error
    return maker(
        ArmConfig.named(spec.arm),
        task=spec.task,
        command_mode=spec.command_mode,
        rate=spec.runtime.rate,
        seed=spec.seed,
        **options,
    )


def make_mujoco(
    config: ArmConfig, *, task: str, command_mode: str, rate: float, seed: int
) -> tuple[Arm, Omega]:
    """Return the simulated arm in a task's scene, driven by computed torque."""
    from ndp_ros.arms.mujoco import MujocoArm, physics_timestep
    from ndp_ros.control.rigid_body import RigidBody

    if command_mode != "torque":
        raise ArmError.choice("command_mode of the simulated arm", command_mode, ("torque",))
    arm = MujocoArm(config, task, physics_timestep(1.0 / rate))
    info = arm.connect()
    body = RigidBody(arm.model, info.joint_names[: info.n_arm])
    return arm, InverseDynamics(body, config.natural_frequency, info.max_torque)


def make_mock(
    config: ArmConfig, *, task: str, command_mode: str, rate: float, seed: int, **options: Any
) -> tuple[Arm, Omega]:
    """Return an ideal arm without physics, driven by position."""
    from ndp_ros.arms.mock import MockArm

    if command_mode != "position":
        raise ArmError.choice("command_mode of the mock arm", command_mode, ("position",))
    return MockArm(config, **options), Identity()
