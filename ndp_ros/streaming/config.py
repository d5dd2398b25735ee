# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Configuration of a stream: rate, time-outs and limits of the loop, and the arm that it drives."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ndp_ros.arms.kortex.config import KortexConfig
from ndp_ros.arms.ros2_control.config import Ros2ControlConfig
from ndp_ros.config import load, load_named, param
from ndp_ros.errors import ConfigError

POLICIES = ("count", "clamp", "brake", "fault")
"""Policies for a violation: only count it; use the nearest allowed value; brake and hold until the
next good segment; the same, latched until the fault is cleared."""


TUNABLE = ("velocity_margin", "torque_margin", "max_following_error", "max_overspeed")
"""Parameters that may change while the loop runs, in the order in which a request carries them.

Margins of position and acceleration may not: by them a moving arm stops before its limits."""


def _seconds(default: float, minimum: float, maximum: float, doc: str) -> Any:
    return param(default, doc=doc, unit="s", minimum=minimum, maximum=maximum)


def _share(limits: str) -> Any:
    return param(1.0, doc=f"Share of the {limits} limits that is used.", minimum=0.05, maximum=1.0)


def _policy(default: str, violation: str) -> Any:
    return param(default, doc=f"Policy for {violation}.", choices=POLICIES)


@dataclass(frozen=True)
class RuntimeConfig:
    """Parameters of the loop; ``config/runtime/default.yaml`` explains when to change each."""

    rate: float = param(
        1000.0, doc="Ticks of the loop per second.", unit="Hz", minimum=50, maximum=10000
    )
    max_parameter_age: float = _seconds(
        0.1, 0.001, 10.0, "Largest age of the observation that a segment was made from."
    )
    grace: float = _seconds(
        0.03, 0.0, 1.0, "Time for which a segment goes on past its horizon before the arm brakes."
    )
    overdue_after: float = _seconds(
        0.006, 0.0, 1.0, "Time past a segment's duration after which its successor is overdue."
    )
    max_duration: float = _seconds(2.0, 0.01, 30.0, "Longest segment that fits the shared memory.")
    heartbeat_timeout: float = _seconds(
        0.5, 0.02, 60.0, "Silence of the integrator after which the arm brakes and holds."
    )
    parent_timeout: float = _seconds(
        3.0,
        0.05,
        600.0,
        "Silence of the integrator after which the streamer stops the arm and ends.",
    )
    feedback_timeout: float = _seconds(
        0.05, 0.002, 5.0, "Age from which on the last measurement counts as lost."
    )
    stall_timeout: float = _seconds(
        0.05, 0.002, 5.0, "Pause of the loop after which a real arm begins again from rest."
    )
    patience: float = _seconds(
        0.0,
        0.0,
        10.0,
        "Longest time for which the clock of a simulated arm stops for an overdue segment; "
        "0: it goes on, as for a real arm.",
    )

    position_margin: float = param(
        0.0, doc="Distance kept from the position limits.", unit="rad", minimum=0.0, maximum=1.0
    )
    position_tolerance: float = param(
        0.2,
        doc="Distance outside the position limits beyond which a segment is refused.",
        unit="rad",
        minimum=0.0,
        maximum=10.0,
    )
    velocity_margin: float = _share("velocity")
    acceleration_margin: float = _share("acceleration")
    torque_margin: float = _share("torque")
    on_fast_segment: str = param(
        "clamp",
        doc="Treatment of a segment faster than the velocity limits: clamp it on the way, stretch "
        "its duration, or refuse it.",
        choices=("clamp", "stretch", "refuse"),
    )
    max_stretch: float = param(
        3.0, doc="Largest factor by which a fast segment is slowed down.", minimum=1.0, maximum=20.0
    )
    max_following_error: float = param(
        0.8,
        doc="Largest distance of a measured arm joint from its setpoint.",
        unit="rad",
        minimum=0.001,
        maximum=10,
    )
    max_overspeed: float = param(
        3.0, doc="Largest measured velocity as a multiple of its limit.", minimum=1.0, maximum=20
    )

    on_position: str = _policy("clamp", "a setpoint beyond a position limit")
    on_velocity: str = _policy("clamp", "a setpoint beyond a velocity limit")
    on_acceleration: str = _policy("clamp", "a setpoint beyond an acceleration limit")
    on_torque: str = _policy("clamp", "a command beyond a torque limit")
    on_torque_rate: str = _policy("clamp", "a command beyond a torque-rate limit")
    on_following_error: str = _policy("fault", "an arm too far from its setpoint")
    after_following_error: str = param(
        "hold",
        doc="Place of rest after a following error: hold keeps the last setpoint; retreat goes, at "
        "a tenth of the speed limits, to where the arm has been measured at rest for 0.25 s, so "
        "that it does not push against an obstacle; a hold, a stop or lost feedback ends that.",
        choices=("hold", "retreat"),
    )
    on_overspeed: str = _policy("fault", "an arm that is too fast")

    record_rate: float = param(
        500.0, doc="Samples per second in the recording ring.", unit="Hz", minimum=1, maximum=10000
    )
    spin: float = _seconds(
        150e-6, 0.0, 0.002, "Time before a tick at which the sleep ends and a busy wait begins."
    )
    priority: int = param(
        80, doc="SCHED_FIFO priority of the loop where permitted; 0: none.", minimum=0, maximum=98
    )
    compiled: bool = param(
        True, doc="Run ticks by compiled code where it was built and nothing is unusual."
    )
    cpu: int = param(-1, doc="CPU that the loop is bound to; -1 for any.", minimum=-1, maximum=1023)

    @classmethod
    def named(cls, name: str = "default", **overrides: object) -> Self:
        """Load ``config/runtime/<name>.yaml``, or a YAML file by its path.

        Raises:
            ConfigError: If there is no such file, or a value does not fit.
        """
        if Path(name).suffix in (".yaml", ".yml"):
            return load(cls, Path(name).expanduser(), overrides)
        return load_named(cls, "runtime", name, "runtime configuration", overrides)

    @property
    def period(self) -> float:
        """Time between two ticks [s]."""
        return 1.0 / self.rate

    def rows(self, duration: float) -> int:
        """Return the number of ticks from the start of a segment to the end of its grace time."""
        return math.ceil((duration + self.grace) * self.rate - 1e-9) + 2

    def horizon(self, duration: float) -> int:
        """Return the number of ticks from the start of a segment to its end."""
        return math.floor(duration * self.rate + 1e-6) + 1

    @property
    def max_rows(self) -> int:
        """Rows of the longest response matrix."""
        return self.rows(self.max_duration)


@dataclass(frozen=True)
class StreamSpec:
    """Specification of a streamer process: its arm, its backend and its loop."""

    hardware: str = param(
        "mujoco", doc="Backend: mujoco, mock, kortex, ros2_control, or <module>:<function>."
    )
    arm: str = param("jaco", doc="Arm, as in config/arms/, or its file.")
    task: str = param(
        "throw", doc="Task that surrounds a simulated arm, or module:id; empty for none."
    )
    task_options: tuple[str, ...] = param((), doc="Options of this task, name=value each.")
    command_mode: str = param("torque", doc="Kind of the commands.", choices=("position", "torque"))
    seed: int = param(0, doc="Start state of a simulated arm.", minimum=0)
    options: str = param(
        "{}", doc="Further arguments of the factory of the mock arm or another backend, as JSON."
    )
    kortex: KortexConfig = param(KortexConfig(), doc="A Kortex arm.")
    ros2_control: Ros2ControlConfig = param(Ros2ControlConfig(), doc="An arm of ros2_control.")
    runtime: RuntimeConfig = param(RuntimeConfig(), doc="The loop's parameters.")


def options_of(text: str, hardware: str = "") -> dict[str, Any]:
    """Return the further arguments of a backend's factory.

    Args:
        text: A JSON mapping.
        hardware: Name of the backend for the message; may be empty.

    Raises:
        ConfigError: If the text is no JSON mapping.
    """
    name = f"options of {hardware}" if hardware else "options"
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name} are not JSON: {error}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"{name} are {options!r}, expected a mapping")
    return options
