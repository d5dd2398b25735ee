"""Parameters of the run time: the loop's rate, its time-outs and what the guard tolerates."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Self

from ndp_ros.config import load, param
from ndp_ros.errors import ConfigError
from ndp_ros.paths import share

POLICIES = ("count", "clamp", "brake", "fault")
"""What follows a violation: nothing but a count; the nearest allowed value; the arm
brakes and holds until the next good segment; the same, latched until it is cleared."""


@dataclass(frozen=True)
class RuntimeConfig:
    """How the streamer runs; ``config/runtime/default.yaml`` and ROS parameters."""

    rate: float = param(
        1000.0, doc="Ticks of the loop per second.", unit="Hz", minimum=50, maximum=10000
    )
    max_parameter_age: float = param(
        0.1, doc="Older observations yield no segment.", unit="s", minimum=0.001, maximum=10
    )
    grace: float = param(
        0.03,
        doc="How long a segment goes on past its horizon before the arm brakes.",
        unit="s",
        minimum=0.0,
        maximum=1.0,
    )
    overdue_after: float = param(
        0.006,
        doc="How long a segment may outlast its duration before the next counts as overdue.",
        unit="s",
        minimum=0.0,
        maximum=1.0,
    )
    max_duration: float = param(
        2.0, doc="Longest segment that fits the shared memory.", unit="s", minimum=0.01, maximum=30
    )
    heartbeat_timeout: float = param(
        0.5,
        doc="Silence of the integrator after which the arm brakes and holds.",
        unit="s",
        minimum=0.02,
        maximum=60,
    )
    parent_timeout: float = param(
        3.0,
        doc="Silence of the integrator after which the streamer stops the arm and ends.",
        unit="s",
        minimum=0.05,
        maximum=600,
    )
    feedback_timeout: float = param(
        0.05, doc="Age of a measurement that counts as lost.", unit="s", minimum=0.002, maximum=5
    )
    stall_timeout: float = param(
        0.05,
        doc="Pause of the loop after which a real arm starts again from where it is measured.",
        unit="s",
        minimum=0.002,
        maximum=5,
    )
    patience: float = param(
        0.0,
        doc="How long the clock of a simulated arm stands still for an overdue segment; 0: it "
        "goes on, as that of a real arm always does.",
        unit="s",
        minimum=0.0,
        maximum=10.0,
    )

    position_margin: float = param(
        0.0, doc="Distance kept from position limits.", unit="rad", minimum=0.0, maximum=1.0
    )
    position_tolerance: float = param(
        0.2,
        doc="A segment further outside the position limits than this is refused.",
        unit="rad",
        minimum=0.0,
        maximum=10.0,
    )
    velocity_margin: float = param(
        1.0, doc="Share of the velocity limits that is used.", minimum=0.05, maximum=1.0
    )
    acceleration_margin: float = param(
        1.0, doc="Share of the acceleration limits that is used.", minimum=0.05, maximum=1.0
    )
    torque_margin: float = param(
        1.0, doc="Share of the torque limits that is used.", minimum=0.05, maximum=1.0
    )
    on_fast_segment: str = param(
        "clamp",
        doc="A segment faster than the velocity limits: clamped on the way, slowed down, refused.",
        choices=("clamp", "stretch", "refuse"),
    )
    max_stretch: float = param(
        3.0,
        doc="Largest factor by which a segment that is too fast is slowed down.",
        minimum=1.0,
        maximum=20.0,
    )
    max_following_error: float = param(
        0.8,
        doc="Largest distance of a measured arm joint from its setpoint.",
        unit="rad",
        minimum=0.001,
        maximum=10,
    )
    max_overspeed: float = param(
        3.0, doc="Measured over allowed joint velocity that is tolerated.", minimum=1.0, maximum=20
    )

    on_position: str = param("clamp", doc="Setpoint beyond a position limit.", choices=POLICIES)
    on_velocity: str = param("clamp", doc="Setpoint beyond a velocity limit.", choices=POLICIES)
    on_acceleration: str = param(
        "clamp", doc="Setpoint beyond an acceleration limit.", choices=POLICIES
    )
    on_torque: str = param("clamp", doc="Command beyond a torque limit.", choices=POLICIES)
    on_torque_rate: str = param(
        "clamp", doc="Command beyond a torque-rate limit.", choices=POLICIES
    )
    on_following_error: str = param("fault", doc="Arm too far from its setpoint.", choices=POLICIES)
    after_following_error: str = param(
        "hold",
        doc="Where an arm rests that was too far from its setpoint: hold keeps the last setpoint; "
        "retreat goes, at a tenth of the speed, to where the arm has been measured at rest for "
        "0.25 s, so that it does not push against what is in its way; a hold, a stop or lost "
        "feedback ends that.",
        choices=("hold", "retreat"),
    )
    on_overspeed: str = param("fault", doc="Arm too fast.", choices=POLICIES)

    record_rate: float = param(
        500.0, doc="Samples per second in the recording ring.", unit="Hz", minimum=1, maximum=10000
    )
    spin: float = param(
        150e-6,
        doc="The sleep before a tick ends this much early; a busy wait does the rest.",
        unit="s",
        minimum=0.0,
        maximum=0.002,
    )
    priority: int = param(
        80, doc="SCHED_FIFO priority where permitted; 0 asks for none.", minimum=0, maximum=98
    )
    cpu: int = param(-1, doc="CPU that the loop is bound to; -1 for any.", minimum=-1, maximum=1023)

    @classmethod
    def named(cls, name: str = "default", **overrides: object) -> Self:
        """Load ``config/runtime/<name>.yaml``.

        Raises:
            ConfigError: If there is no such file, or a value does not fit.
        """
        folder = share("config/runtime")
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        if name not in names:
            raise ConfigError.choice("runtime configuration", name, names)
        return load(cls, folder / f"{name}.yaml", overrides)

    @property
    def period(self) -> float:
        """Time between two ticks [s]."""
        return 1.0 / self.rate

    def rows(self, duration: float) -> int:
        """Return the ticks from the start of a segment to the end of its grace time, both in."""
        return math.ceil((duration + self.grace) * self.rate - 1e-9) + 2

    @property
    def max_rows(self) -> int:
        """Rows of the longest response matrix."""
        return self.rows(self.max_duration)


@dataclass(frozen=True)
class StreamSpec:
    """What a streamer process drives and how: plain data on its command line."""

    hardware: str = param(
        "mujoco", doc="Backend: mujoco, mock, kortex, ros2_control, or <module>:<function>."
    )
    arm: str = param("jaco", doc="Arm, as in config/arms/.")
    task: str = param("throw", doc="Task whose scene a simulated arm stands in; empty for none.")
    command_mode: str = param("torque", doc="What the arm gets.", choices=("position", "torque"))
    seed: int = param(0, doc="Start state of a simulated arm.", minimum=0)
    options: str = param("{}", doc="JSON of what else the backend's factory takes.")
    runtime: RuntimeConfig = param(RuntimeConfig(), doc="The loop's parameters.")


def options_of(text: str, hardware: str = "") -> dict[str, Any]:
    """Return what else a backend's factory takes.

    Args:
        text: A JSON mapping.
        hardware: The backend, where the message should name it.

    Raises:
        ConfigError: If it is none.
    """
    name = f"options of {hardware}" if hardware else "options"
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name} are not JSON: {error}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"{name} are {options!r}, expected a mapping")
    return options
