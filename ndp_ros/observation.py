"""What Φ sees: named fields, in one order, wherever they come from.

A training task fills the fields from its simulation, the policy node from ROS
topics. Both go through :func:`assemble`, so a checkpoint sees the same vector.

Fields are named ``position``, ``velocity`` (measured joints), ``setpoint``,
``setpoint_velocity`` (the integrator's own desired state) and
``object/<name>`` (position of an object in the arm's base frame). Tasks that never
run under ROS may add ``world`` (the benchmark's own observation) and ``task`` (a
one-hot of the task).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndp_ros.config import param
from ndp_ros.errors import ConfigError

Array = NDArray[np.float64]

JOINT_FIELDS = ("position", "velocity", "setpoint", "setpoint_velocity")
OBJECT_PREFIX = "object/"


@dataclass(frozen=True)
class ObservationField:
    """One named part of the observation vector."""

    name: str = param(doc="position, velocity, setpoint, setpoint_velocity or object/<name>")
    size: int = param(doc="Number of values.", minimum=1)


def arm_observation(dof: int, objects: Sequence[str]) -> tuple[ObservationField, ...]:
    """Return the fields of a joint-space task: the joints, the setpoint, then the objects."""
    joints = tuple(ObservationField(name, dof) for name in JOINT_FIELDS)
    return joints + tuple(ObservationField(OBJECT_PREFIX + name, 3) for name in objects)


def observation_size(fields: Sequence[ObservationField]) -> int:
    """Return the length of the observation vector."""
    return sum(f.size for f in fields)


def field_slice(fields: Sequence[ObservationField], name: str) -> slice:
    """Return where a field lies in the observation vector.

    Raises:
        ConfigError: If there is no such field; the message lists the fields.
    """
    start = 0
    for f in fields:
        if f.name == name:
            return slice(start, start + f.size)
        start += f.size
    raise ConfigError.choice("observation field", name, [f.name for f in fields])


def assemble(
    fields: Sequence[ObservationField], values: Mapping[str, Array], out: Array | None = None
) -> Array:
    """Return the observation vector (n_obs,) built from named values.

    Args:
        fields: Names and sizes, in order.
        values: For each name an array of its size; SI units.
        out: Array (n_obs,) to write into.

    Raises:
        ConfigError: If a value is missing or has another size.
    """
    out = np.empty(observation_size(fields)) if out is None else out
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
