# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Backends by name: each builds an arm and its tracking law Ω, and is imported when it is used.

A new backend is a row of :data:`BACKENDS`, or any ``module:function`` given as ``hardware``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ndp_ros.config import fields_of
from ndp_ros.control.arm import Arm, ArmConfig
from ndp_ros.control.omega import Identity, Omega
from ndp_ros.errors import ArmError, ConfigError
from ndp_ros.streaming.config import StreamSpec, options_of

Maker = Callable[..., tuple[Arm, Omega]]
"""``make(config: ArmConfig, *, task, command_mode, rate, seed, **options) -> (arm, omega)``.

It only builds: no connection is opened before ``arm.connect()``.
"""

BACKENDS = {
    "mujoco": "ndp_ros.tasks.hosted:make",
    "mock": "ndp_ros.streaming.backends:make_mock",
    "kortex": "ndp_ros.arms.kortex:make",
    "ros2_control": "ndp_ros.arms.ros2_control:make",
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
    options = _options(spec)
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


def _options(spec: StreamSpec) -> dict[str, Any]:
    """Return the arguments of a backend's factory that not all factories have.

    Raises:
        ConfigError: If options are no JSON mapping, or belong to a backend that takes settings.
    """
    if spec.hardware == "mujoco":
        return {"task_options": spec.task_options, **options_of(spec.options, spec.hardware)}
    settings = {"kortex": spec.kortex, "ros2_control": spec.ros2_control}.get(spec.hardware)
    if settings is None:
        return options_of(spec.options, spec.hardware)
    if spec.options != "{}":
        names = ", ".join(p.name for p in fields_of(type(settings)))
        raise ConfigError(f"{spec.hardware} takes no options; it has parameters ({names})")
    return {"settings": settings}


def make_mock(
    config: ArmConfig, *, task: str, command_mode: str, rate: float, seed: int, **options: Any
) -> tuple[Arm, Omega]:
    """Return an ideal arm without physics, driven by position."""
    from ndp_ros.arms.mock import MockArm

    if command_mode != "position":
        raise ArmError.choice("command_mode of the mock arm", command_mode, ("position",))
    return MockArm(config, **options), Identity()
