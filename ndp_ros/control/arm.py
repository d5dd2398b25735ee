# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The arm protocol between the streaming loop and every backend, in plain arrays and SI units.

Joints are ordered as in ``ArmInfo.joint_names``: the arm's joints first, then at most one gripper
joint, which is always commanded by position. ``config/arms`` describes the arms that ship; a file
elsewhere describes one of the user's own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ndp_ros.config import load, param
from ndp_ros.errors import ConfigError
from ndp_ros.paths import share

Array = NDArray[np.float64]

COMMAND_MODES = ("position", "torque")
ARMS_VARIABLE = "NDP_ARMS"
"""Environment variable with further folders of arms, searched before those that ship."""
_LIMITS = (
    "lower",
    "upper",
    "max_velocity",
    "max_acceleration",
    "max_torque",
    "max_torque_rate",
)


@dataclass(frozen=True)
class ArmConfig:
    """The description of an arm; ``config/arms/gen3.yaml`` explains every value."""

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
        doc="Torque limits; the gripper's entry is the force of its fingers where the model has no "
        "position actuators for them.",
        unit="N m",
        minimum=0.0,
    )
    max_torque_rate: tuple[float, ...] = param(
        doc="Largest change of torque; the gripper's entry is not used.", unit="N m/s", minimum=0.0
    )
    home: tuple[float, ...] = param(doc="Rest position.", unit="rad")
    model: str = param(
        doc="MJCF or URDF of the arm, relative to the folder of this file or to the share folder."
    )
    fingers: tuple[str, ...] = param(
        (),
        doc="Joints of the model that the gripper drives, all by one value; empty: those named "
        "finger_1, finger_2, ..., or the one that is named as the gripper.",
    )
    hand: str = param(
        "",
        doc="Site or body of the model that is the hand; empty: the site grip, or the body that "
        "the last joint moves.",
    )
    continuous: tuple[str, ...] = param(
        (), doc="Joints that turn without end, for which angles a turn apart are the same."
    )
    natural_frequency: float = param(
        25.0, doc="Gain of the tracking law.", unit="rad/s", minimum=0.1
    )

    def __post_init__(self) -> None:
        """Check that every list has one entry per joint and that limits are ordered."""
        n = len(self.joint_names)
        if n <= int(self.gripper):
            raise ConfigError(f"arm {self.name}: joint_names has no joint of the arm")
        for i, joint in enumerate(self.joint_names):
            if joint in self.joint_names[:i]:
                raise ConfigError(f"arm {self.name}: joint_names has {joint} twice")
        if self.fingers and not self.gripper:
            raise ConfigError(
                f"arm {self.name} has fingers {', '.join(self.fingers)} but no gripper: set "
                "gripper: true and add the gripper at the end of joint_names"
            )
        for name in (*_LIMITS, "home"):
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

    @property
    def n_arm(self) -> int:
        """Number of joints without the gripper."""
        return len(self.joint_names) - int(self.gripper)

    @property
    def model_path(self) -> Path:
        """The arm's MJCF or URDF file."""
        path = Path(self.model)
        if not path.is_absolute():
            return share(self.model)
        if not path.is_file():
            raise ConfigError(f"arm {self.name}: there is no file {path}: correct model")
        return path

    def require_grip(self, grip: float) -> None:
        """Check a position of the gripper [rad].

        Raises:
            ConfigError: If the arm has no gripper, or one that cannot go there.
        """
        if not self.gripper:
            raise ConfigError(f"grip is {grip:g}, and {self.name} has no gripper: leave it out")
        if not self.lower[-1] <= grip <= self.upper[-1]:
            raise ConfigError(
                f"grip is {grip:g}, the gripper of {self.name} takes {self.lower[-1]:g} to "
                f"{self.upper[-1]:g} [rad]"
            )

    @classmethod
    def named(cls, name: str) -> Self:
        """Load an arm by its name or its file.

        Args:
            name: A YAML file, or the stem of one in a folder of ``NDP_ARMS`` or in
                ``config/arms``. A folder ``<name>`` with an ``arm.yaml`` counts as well.

        Raises:
            ConfigError: If there is no such arm; the message lists those there are.
        """
        path = Path(name).expanduser()
        if path.suffix not in (".yaml", ".yml"):
            known = arm_files()
            if name not in known:
                raise ConfigError.choice(
                    "arm", name, [*known, f"a file such as my_arm.yaml (also in ${ARMS_VARIABLE})"]
                )
            path = known[name]
        elif not path.is_file():
            raise ConfigError(f"there is no arm file {path}: name one, such as my_arm.yaml")
        return load(cls, path).beside(path)

    def beside(self, path: Path) -> Self:
        """Return this arm with a model that is found from the folder of its own file."""
        model = path.absolute().parent / Path(self.model).expanduser()
        # A model that ships is named relative to the share folder.
        return replace(self, model=str(model.resolve())) if model.is_file() else self


def arm_reference(name: str) -> str:
    """Return the name of an arm as it is, and its file by its absolute path."""
    is_file = Path(name).suffix in (".yaml", ".yml")
    return str(Path(name).expanduser().absolute()) if is_file else name


def arm_files() -> dict[str, Path]:
    """Return the file of every arm that can be named, those of ``NDP_ARMS`` before the others."""
    folders = [Path(f) for f in os.environ.get(ARMS_VARIABLE, "").split(os.pathsep) if f]
    found: dict[str, Path] = {}
    for folder in (*folders, share("config/arms")):
        inner = {path.parent.name: path for path in sorted(folder.glob("*/arm.yaml"))}
        for name, path in {**inner, **{p.stem: p for p in sorted(folder.glob("*.yaml"))}}.items():
            found.setdefault(name, path)
    return found


@dataclass(frozen=True)
class ArmInfo:
    """Joints, limits and command modes of a connected arm; arrays are (dof,)."""

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
    """Whether each joint turns without end (dof,); none unless given."""
    confirmed: bool = False
    """Whether the backend confirms its own readings (``control.measurement``)."""

    def __post_init__(self) -> None:
        """Default to joints with an end."""
        if not len(self.continuous):
            object.__setattr__(self, "continuous", np.zeros(self.dof, bool))

    @property
    def dof(self) -> int:
        """Number of joints with the gripper."""
        return len(self.joint_names)

    @property
    def n_arm(self) -> int:
        """Number of joints without the gripper."""
        return self.dof - int(self.gripper)

    @classmethod
    def from_config(
        cls, config: ArmConfig, command_modes: tuple[str, ...], confirmed: bool = False
    ) -> Self:
        """Return the limits of a configured arm as arrays."""
        return cls(
            joint_names=config.joint_names,
            gripper=config.gripper,
            **{name: np.array(getattr(config, name)) for name in _LIMITS},
            command_modes=command_modes,
            continuous=np.array([name in config.continuous for name in config.joint_names]),
            confirmed=confirmed,
        )


@dataclass
class JointState:
    """Measured joints at one instant: arrays (dof,) that ``read`` overwrites in place."""

    position: Array
    velocity: Array
    effort: Array
    time: float = 0.0
    """Time of the measurement: CLOCK_MONOTONIC, or the time of a simulated arm [s]."""
    rejected: int = 0
    """Readings so far that the backend itself did not accept."""
    unconfirmed: str = ""
    """Why such a backend did not confirm the newest reading; empty if it did."""

    @classmethod
    def zeros(cls, dof: int) -> Self:
        """Return a state to be filled by ``Arm.read``."""
        return cls(np.zeros(dof), np.zeros(dof), np.zeros(dof))


@dataclass
class Command:
    """Command of Ω at one tick: arrays (dof,). In torque mode the gripper follows ``position``."""

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
    """A real or simulated robot arm. Every backend passes the same contract test."""

    def connect(self) -> ArmInfo:
        """Reach the arm and return its joints and limits; raise ArmError if that fails."""
        ...

    def read(self, out: JointState) -> JointState:
        """Write the newest measurement into ``out`` and return it."""
        ...

    def write(self, command: Command) -> None:
        """Send one command; raise ArmError in a mode that the arm does not support."""
        ...

    def stop(self) -> None:
        """Bring the arm to rest; may be called twice."""
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
        """Reset arm and objects to a start state drawn from ``seed``.

        Returns:
            The setpoint (dof,) that holds this state, with the grip of a closed gripper.
        """
        ...

    def objects(self) -> dict[str, Array]:
        """Return the pose (7,) of each object: position [m], quaternion (w, x, y, z)."""
        ...

    def signals(self) -> dict[str, Array]:
        """Return further values of the simulation by name, such as a benchmark's observation."""
        ...
