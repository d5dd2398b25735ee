"""The contract between the streaming loop and whatever moves: one protocol, plain arrays.

Joints are ordered as in ``ArmInfo.joint_names``: the arm's joints first, then at
most one gripper joint, which is always commanded by position. SI units throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ndp_ros.config import load, param
from ndp_ros.errors import ConfigError
from ndp_ros.paths import share

Array = NDArray[np.float64]

COMMAND_MODES = ("position", "torque")


@dataclass(frozen=True)
class ArmConfig:
    """An arm as ``config/arms/<name>.yaml`` describes it."""

    name: str = param(doc="Name of the arm.")
    joint_names: tuple[str, ...] = param(doc="Arm joints, then the gripper joint if there is one.")
    gripper: bool = param(doc="Whether the last joint is the gripper.")
    lower: tuple[float, ...] = param(doc="Lower position limits.", unit="rad")
    upper: tuple[float, ...] = param(doc="Upper position limits.", unit="rad")
    max_velocity: tuple[float, ...] = param(doc="Velocity limits.", unit="rad/s", minimum=0.01)
    max_acceleration: tuple[float, ...] = param(
        doc="Acceleration limits, used for braking and checks.", unit="rad/s^2", minimum=0.01
    )
    max_torque: tuple[float, ...] = param(
        doc="Torque limits; the gripper's entry is not used.", unit="N m", minimum=0.0
    )
    max_torque_rate: tuple[float, ...] = param(
        doc="Largest change of torque; the gripper's entry is not used.", unit="N m/s", minimum=0.0
    )
    home: tuple[float, ...] = param(doc="Rest position.", unit="rad")
    model: str = param(doc="MJCF of the arm, relative to the share folder.")
    continuous: tuple[str, ...] = param(
        (), doc="Joints that turn without end: an angle and the angle a turn further are the same."
    )
    natural_frequency: float = param(
        25.0, doc="Gain of the tracking law.", unit="rad/s", minimum=0.1
    )

    def __post_init__(self) -> None:
        """Check that every list has one entry per joint and that limits are ordered."""
        n = len(self.joint_names)
        vectors = ("lower", "upper", "max_velocity", "max_acceleration", "max_torque",
                   "max_torque_rate", "home")  # fmt: skip
        for name in vectors:
            if len(getattr(self, name)) != n:
                raise ConfigError(
                    f"arm {self.name}: {name} has {len(getattr(self, name))} values for {n} joints"
                )
        for joint in self.continuous:
            if joint not in self.joint_names:
                raise ConfigError.choice(f"arm {self.name}: continuous", joint, self.joint_names)
        for joint, low, high in zip(self.joint_names, self.lower, self.upper, strict=True):
            if not low < high:
                raise ConfigError(f"arm {self.name}: {joint} has limits {low} to {high} [rad]")

    @classmethod
    def named(cls, name: str) -> Self:
        """Load ``config/arms/<name>.yaml``.

        Raises:
            ConfigError: If there is no such arm; the message lists those there are.
        """
        folder = share("config/arms")
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        if name not in names:
            raise ConfigError.choice("arm", name, names)
        return load(cls, folder / f"{name}.yaml")


@dataclass(frozen=True)
class ArmInfo:
    """What an arm says of itself once connected; arrays are (dof,)."""

    joint_names: tuple[str, ...]
    gripper: bool
    lower: Array
    upper: Array
    max_velocity: Array
    max_acceleration: Array
    max_torque: Array
    max_torque_rate: Array
    command_modes: tuple[str, ...]
    continuous: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    """Joints that turn without end (dof,); none unless given."""

    def __post_init__(self) -> None:
        """Fill in that no joint turns without end."""
        if not len(self.continuous):
            object.__setattr__(self, "continuous", np.zeros(self.dof, bool))

    @property
    def dof(self) -> int:
        """Number of joints, the gripper counted."""
        return len(self.joint_names)

    @property
    def n_arm(self) -> int:
        """Number of joints without the gripper."""
        return self.dof - int(self.gripper)

    @classmethod
    def from_config(cls, config: ArmConfig, command_modes: tuple[str, ...]) -> Self:
        """Return the limits of a configured arm as arrays."""
        return cls(
            joint_names=config.joint_names,
            gripper=config.gripper,
            lower=np.array(config.lower),
            upper=np.array(config.upper),
            max_velocity=np.array(config.max_velocity),
            max_acceleration=np.array(config.max_acceleration),
            max_torque=np.array(config.max_torque),
            max_torque_rate=np.array(config.max_torque_rate),
            command_modes=command_modes,
            continuous=np.array([name in config.continuous for name in config.joint_names]),
        )


@dataclass
class JointState:
    """Measured joints at one instant; arrays (dof,) that ``read`` overwrites in place."""

    position: Array
    velocity: Array
    effort: Array
    time: float = 0.0
    """CLOCK_MONOTONIC [s], or simulated time for a simulated arm."""
    rejected: int = 0
    """Readings so far that a backend which confirms its own did not confirm."""

    @classmethod
    def zeros(cls, dof: int) -> Self:
        """Return a state to be filled by ``Arm.read``."""
        return cls(np.zeros(dof), np.zeros(dof), np.zeros(dof))


@dataclass
class Command:
    """What Ω sends at one tick; arrays (dof,). In torque mode the gripper follows ``position``."""

    mode: str
    position: Array
    velocity: Array
    torque: Array = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def zeros(cls, dof: int, mode: str) -> Self:
        """Return a command to be filled in place.

        Raises:
            ConfigError: If the mode is neither position nor torque.
        """
        if mode not in COMMAND_MODES:
            raise ConfigError.choice("command mode", mode, COMMAND_MODES)
        return cls(mode, np.zeros(dof), np.zeros(dof), np.zeros(dof))


@runtime_checkable
class Arm(Protocol):
    """A robot arm, real or simulated. Every backend passes the same contract test."""

    def connect(self) -> ArmInfo:
        """Reach the arm and return what it is; raises ArmError when it cannot be reached."""
        ...

    def read(self, out: JointState) -> JointState:
        """Write the newest measurement into ``out`` and return it."""
        ...

    def write(self, command: Command) -> None:
        """Send one command; raises ArmError in a mode that the arm does not support."""
        ...

    def stop(self) -> None:
        """Bring the arm to rest by the backend's own means; may be called twice."""
        ...

    def close(self) -> None:
        """Release everything; may be called twice."""
        ...


@runtime_checkable
class SimulatedArm(Arm, Protocol):
    """An arm whose physics the streaming loop steps."""

    def step(self, duration: float) -> None:
        """Advance the physics by ``duration`` [s] under the last command."""
        ...

    def reset(self, seed: int) -> Array:
        """Put arm and objects into a start state drawn from ``seed``.

        Returns:
            The setpoint (dof,) that holds this state; a closed gripper's is its grip.
        """
        ...

    def objects(self) -> dict[str, Array]:
        """Return the pose (7,) of each object: position [m], quaternion (w, x, y, z)."""
        ...


def arm_scene(config: ArmConfig) -> Path:
    """Return the path of the arm's MJCF file."""
    return share(config.model)
