# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The observation of Φ: named fields in a fixed order.

A training task fills the fields from its simulation, the policy node from ROS topics; both build
the vector by :func:`assemble`.

Fields are ``position`` and ``velocity`` (measured joints), ``setpoint`` and ``setpoint_velocity``
(the integrator's desired state), ``object/<name>`` (an object in the arm's base frame: its
position, or position, x axis and y axis), and those of a benchmark: ``world`` (its own observation)
and ``task`` (a one-hot of the task).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndp_ros.config import param
from ndp_ros.errors import ConfigError

Array = NDArray[np.float64]

JOINT_FIELDS = ("position", "velocity", "setpoint", "setpoint_velocity")
OBJECT_PREFIX = "object/"
SIGNAL_FIELDS = ("world", "task")
"""Fields of a benchmark's tasks: its own observation, and a one-hot of the task."""
POSITION, FRAME = 3, 9
"""Sizes of an object's field: its position, or its position and two axes of its frame."""


@dataclass(frozen=True)
class ObservationField:
    """One named part of the observation vector."""

    name: str = param(doc="position, velocity, setpoint, setpoint_velocity or object/<name>")
    size: int = param(doc="Number of values.", minimum=1)
    image: tuple[int, ...] = param(
        (),
        doc="Channels, height and width of an image of that size; empty for a vector.",
        minimum=1,
    )

    def __post_init__(self) -> None:
        """Check that an image has three axes and the size of the field."""
        if self.image and (len(self.image) != 3 or math.prod(self.image) != self.size):
            raise ConfigError(f"observation {self.name} has {self.size} values, image {self.image}")


def arm_observation(
    dof: int, objects: Sequence[str], frames: Sequence[str] = ()
) -> tuple[ObservationField, ...]:
    """Return the fields of a joint-space task: joints, setpoint, objects (``frames`` with axes)."""
    joints = tuple(ObservationField(name, dof) for name in JOINT_FIELDS)
    return joints + tuple(
        ObservationField(OBJECT_PREFIX + name, FRAME if name in frames else POSITION)
        for name in objects
    )


def object_values(position: Array, quaternion: Array, size: int) -> Array:
    """Return the values of an object's field.

    Args:
        position: In the arm's base frame (3,) [m].
        quaternion: Rotation there (w, x, y, z).
        size: ``POSITION`` or ``FRAME``.
    """
    if size == POSITION:
        return position
    w, x, y, z = quaternion / (np.linalg.norm(quaternion) or np.nan)
    return np.array(
        [
            *position,
            *(1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y)),
            *(2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x)),
        ]
    )


def observation_size(fields: Sequence[ObservationField]) -> int:
    """Return the length of the observation vector."""
    return sum(f.size for f in fields)


def field_slice(fields: Sequence[ObservationField], name: str) -> slice:
    """Return the slice of a field in the observation vector.

    Raises:
        ConfigError: If there is no such field; the message lists the fields.
    """
    for f, where in field_slices(fields):
        if f.name == name:
            return where
    raise ConfigError.choice("observation field", name, [f.name for f in fields])


def field_slices(fields: Sequence[ObservationField]) -> list[tuple[ObservationField, slice]]:
    """Return every field with its slice in the observation vector."""
    ends = np.cumsum([0, *(f.size for f in fields)]).tolist()
    return [(f, slice(a, b)) for f, a, b in zip(fields, ends, ends[1:], strict=False)]


def assemble(fields: Sequence[ObservationField], values: Mapping[str, Array]) -> Array:
    """Return the observation vector (n_obs,) built from named values in SI units.

    Raises:
        ConfigError: If a value is missing or has another size.
    """
    out = np.empty(observation_size(fields))
    start = 0
    for f in fields:
        if f.name not in values:
            raise ConfigError.choice("observation needs a field that is absent", f.name, values)
        value = values[f.name]
        if value.shape != (f.size,):
            raise ConfigError(f"observation {f.name} has shape {value.shape}, expected ({f.size},)")
        out[start : start + f.size] = value
        start += f.size
    return out
