# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The contract between tasks and trainers, and helpers that keep it.

A task is a gymnasium environment whose ``step`` runs k control steps, with the attributes of
:class:`TaskEnvironment`. The tasks of this package also share the helpers below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ndp_ros.control.arm import SimulatedArm
from ndp_ros.control.omega import Omega
from ndp_ros.errors import TaskError
from ndp_ros.observation import ObservationField

Array = NDArray[np.float64]
Step = tuple[Array, float, bool, bool, dict[str, Any]]
"""Observation, sum of the rewards, terminated, truncated, info."""


class TaskEnvironment(Protocol):
    """A task as a trainer sees it.

    Attributes:
        fields: What the observation holds, in order.
        joint_names: Joints of an action, or other coordinates of the setpoint.
        action_scale: Displacement (dof,) of one action unit over a control step [rad].
        control_dt: Control step [s].
        k: Control steps per ``step``.
        tick: Period of Ω [s].
        segment_times: When the setpoints given to ``execute`` are due (n_ticks,) [s].
        arm: Name of the arm.
    """

    fields: tuple[ObservationField, ...]
    joint_names: tuple[str, ...]
    action_scale: Array
    control_dt: float
    k: int
    tick: float
    segment_times: Array
    arm: str

    def reset(self, *, seed: int | None = None) -> tuple[Array, dict[str, Any]]:
        """Start an episode; the seed determines its start state."""

    def step(self, action: Array) -> Step:
        """Run k control steps along an action (k, dof)."""

    def execute(self, setpoints: Array) -> Step:
        """Run k control steps along setpoints (n_ticks, 3, dof)."""

    def render(self) -> NDArray[np.uint8] | None:
        """Return a picture (height, width, 3)."""

    def close(self) -> None:
        """Release everything."""


@runtime_checkable
class Explorable(Protocol):
    """A task with a setpoint of its own, whose ticks are shorter than its control steps."""

    @property
    def setpoint(self) -> tuple[Array, Array]:
        """Return position and velocity (dof,) that the next segment starts from.

        They may be newer than those of the observation.
        """

    def deviation(self, action: Array) -> Array:
        """Return what displacements (k, dof) add to setpoints (n_ticks, 3, dof)."""


class Judge(Protocol):
    """The judge of an episode that runs elsewhere, by what topics report of it.

    Attributes:
        over: Whether the episode has ended: with a segment, as in training.
    """

    over: bool

    def begin(self, seed: int) -> None:
        """Start a new episode from the start state of a seed."""

    def feed(self, time: float, position: Array, world: Mapping[str, Array]) -> None:
        """Judge a sample at a time since the first segment [s].

        Joints (dof,) [rad] are measured; the world has the pose (7,) of each object in the base
        frame, and further values, by name.
        """

    def summary(self) -> dict[str, Any]:
        """Return the task's figures of the episode as plain data; infinite ones as None."""


@runtime_checkable
class SimulatedTask(Protocol):
    """A task whose arm the nodes can drive in simulation.

    Attributes:
        arm: Name of the arm.
        joint_names: Its joints, in order.
        objects: Names of the objects whose poses are published.
        units: Units of the figures of its summary that have one.
        command_mode: Kind of its commands, ``torque`` or ``position``.
    """

    arm: str
    joint_names: tuple[str, ...]
    objects: tuple[str, ...]
    units: Mapping[str, str]
    command_mode: str

    @property
    def arm_file(self) -> str:
        """Return the name or file of the arm."""

    @property
    def duration(self) -> float:
        """Return the length of the longest episode [s]."""

    @property
    def signals(self) -> Mapping[str, int]:
        """Return the further values that are published: their number by name."""

    def simulated(self, rate: float) -> tuple[SimulatedArm, Omega]:
        """Return the arm, which takes this task over, and its Ω, for a rate [Hz]."""

    def judge(self) -> Judge:
        """Return a judge, which takes this task over."""

    def close(self) -> None:
        """Release everything."""


def require_simulated(env: Any, task: str) -> SimulatedTask:
    """Return a task whose arm the nodes can drive.

    Raises:
        TaskError: If it is none.
    """
    if not isinstance(env, SimulatedTask):
        raise TaskError(
            f"task {task} has no simulated arm: ROS runs tasks on an arm (ArmTask) and Meta-World's"
        )
    return env


class Uncopyable:
    """A base that refuses copies, because a copy would share or lose the simulation."""

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TaskError(
            f"{type(self).__name__} cannot be copied or pickled: make another one, such as by "
            "gymnasium.make, and reset it with the same seed"
        )


def finite_array(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Return an action or setpoints as an array of float64.

    Raises:
        TaskError: If the value is not numeric, has another shape or is not finite.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise TaskError(f"{name} must be {shape} finite values: {error}") from error
    if array.dtype.kind not in "biuf":
        raise TaskError(f"{name} must be {shape} finite values, got values of {array.dtype}")
    if array.shape != shape:
        raise TaskError(f"{name} must be {shape} finite values, got {array.shape}")
    array = array.astype(np.float64, copy=False)
    finite = np.isfinite(array)
    if not finite.all():
        raise TaskError(f"{name} must be {shape} finite values, got {array[~finite][0]}")
    return array


def check_options(options: Mapping[str, Any] | None, allowed: tuple[str, ...] = ()) -> None:
    """Refuse options of ``reset`` that the task does not have.

    Raises:
        TaskError: If an option is not among those that are allowed.
    """
    for name in options or {}:
        if name not in allowed:
            raise TaskError(
                f"reset: {name!r} is no option of this task: "
                + (f"there are {', '.join(allowed)}" if allowed else "it has none")
            )


def plain(value: Any) -> Any:
    """Return figures as JSON can hold them; values that are not finite become null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def frame_rate(period: float) -> float:
    """Return the pictures per second of a video with one picture per period [s]."""
    rate = 1.0 / period
    return round(rate) if abs(rate - round(rate)) < 1e-6 * rate else rate
