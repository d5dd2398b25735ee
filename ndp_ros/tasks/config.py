# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Configurations of tasks, and options that change single parameters of one by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from ndp_ros.config import fields_of, from_mapping, param, to_mapping
from ndp_ros.errors import ConfigError, TaskError

Config = TypeVar("Config")

PICTURES = ("camera", "size")
"""Options of the pictures of a task on an arm, which are no parameters of its configuration."""


@dataclass(frozen=True)
class ArmTaskConfig:
    """Times and scales of a task on an arm."""

    control_dt: float = param(0.05, doc="Control step.", unit="s", minimum=0.002, maximum=0.5)
    tick: float = param(0.01, doc="Period of Ω in training.", unit="s", minimum=1e-4, maximum=0.05)
    timestep: float = param(0.005, doc="Physics step.", unit="s", minimum=1e-4, maximum=0.01)
    horizon: float = param(2.0, doc="Length of an episode.", unit="s", minimum=0.1, maximum=60)
    arm_speed: float = param(
        1.5, doc="Setpoint speed of one action unit, arm joints.", unit="rad/s", minimum=0.01
    )
    gripper_speed: float = param(
        3.0, doc="Setpoint speed of one action unit, gripper.", unit="rad/s", minimum=0.01
    )
    limit_share: float = param(
        1.0,
        doc="Share of the velocity and acceleration limits that setpoints are held to.",
        minimum=0.05,
        maximum=1.0,
    )
    latency: float = param(
        0.0,
        doc="Largest age of an observation when its segment begins, drawn for each: the time "
        "that Φ, its messages and the hand-over take on a running system.",
        unit="s",
        minimum=0.0,
        maximum=0.1,
    )
    stale: bool = param(
        False,
        doc="Inside a segment, rewards see the objects as after its first control step, and the "
        "robot as it is (A.2).",
    )

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return a named configuration; here there is only ``default``.

        Raises:
            TaskError: If there is no such preset.
        """
        return preset_of({"default": cls()}, name)


def preset_of(presets: Mapping[str, Config], name: str) -> Config:
    """Return a preset by its name.

    Raises:
        TaskError: If there is no such preset.
    """
    if name not in presets:
        raise TaskError.choice("preset", name, presets)
    return presets[name]


def with_options(config: Config, options: Mapping[str, Any], beside: Sequence[str] = ()) -> Config:
    """Return a configuration with some parameters changed, every value of it checked.

    Options are plain values by name; a number may be a text such as ``2e-2``. ``beside`` names
    options of the task that are no parameters, for the message.

    Raises:
        TaskError: If there is no such parameter, or a value has another type or is out of
            bounds; the message says what is allowed.
    """
    names = [p.name for p in fields_of(type(config))]
    for name in options:
        if name not in names:
            raise TaskError.choice("task option", name, sorted([*names, *beside]))
    try:
        return from_mapping(type(config), {**to_mapping(config), **options}, "task option")
    except ConfigError as error:
        raise TaskError(str(error)) from error
