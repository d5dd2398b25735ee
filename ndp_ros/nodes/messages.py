# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Convert DmpParameters messages to plain values and back, and reject those that do not fit.

The policy node packs its output here; the integrator node checks what arrives.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import PoseStamped
from ndp_interfaces.msg import DmpParameters

from ndp_ros.config import from_mapping
from ndp_ros.control.arm import Array
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError, RejectedError

REASONS = ("joint_names", "sizes", "non_finite", "dynamics", "duration", "start", "stale", "future")
"""Reasons of :func:`parameters_from_message`; diagnostics count rejections by reason."""

MAX_DURATION = 60.0
"""Longest accepted segment [s]."""
CLOCK_TOLERANCE = 0.05
"""Largest accepted lead of a sender's clock [s]."""
_CLOCKS_DIFFER = 60.0
"""Age or lead from which the clocks must differ [s]; no delay is as long."""

_DYNAMICS = tuple(f.name for f in dataclasses.fields(DmpConfig))


@dataclass(frozen=True)
class Parameters:
    """The content of a DmpParameters message that has passed every check."""

    joint_names: tuple[str, ...]
    g: Array
    """Goal (dof,) [rad]."""
    w: Array
    """Weights (dof, N)."""
    config: DmpConfig
    duration: float
    """tau [s]."""
    stamp: float
    """System time at which the observation was taken [s]."""
    sequence: int
    checkpoint: str
    origin: Array | None = None
    """Setpoint (dof,) that Φ observed [rad], relative to which the goal holds; None: absolute."""
    session: int = 0
    """Random number of the publisher's process; 0 if it has none."""


def parameters_to_message(parameters: Parameters) -> DmpParameters:
    """Return the message for one segment."""
    message = DmpParameters(
        session=parameters.session,
        sequence=parameters.sequence,
        checkpoint=parameters.checkpoint,
        joint_names=list(parameters.joint_names),
        goal=np.asarray(parameters.g, np.float64),
        origin=[] if parameters.origin is None else np.asarray(parameters.origin, np.float64),
        weights=np.asarray(parameters.w, np.float64).ravel(),
        duration=float(parameters.duration),
        start=DmpParameters.START_DESIRED,
        **{name: getattr(parameters.config, name) for name in _DYNAMICS},
    )
    message.header.stamp = stamp_of(parameters.stamp)
    return message


def parameters_from_message(
    message: DmpParameters, joint_names: tuple[str, ...], age: float, max_age: float
) -> Parameters:
    """Return a message's content, of which none is trusted, for an arm with these joints.

    ``age`` is that of its stamp [s], negative for one from the future.

    Raises:
        RejectedError: With the reason and the values that would be accepted.
    """
    if tuple(message.joint_names) != joint_names:
        raise RejectedError(
            "joint_names", f"{short_list(message.joint_names)}, expected {short_list(joint_names)}"
        )
    if message.start != DmpParameters.START_DESIRED:
        raise RejectedError(
            "start", f"{message.start[:40]!r}, expected {DmpParameters.START_DESIRED!r}"
        )
    dof = len(joint_names)
    try:
        config = _config_of(*(getattr(message, name) for name in _DYNAMICS))
    except ConfigError as error:
        raise RejectedError("dynamics", str(error)) from error
    sizes = len(message.goal), len(message.weights), len(message.origin)
    if sizes[:2] != (dof, dof * config.n_basis) or sizes[2] not in (0, dof):
        raise RejectedError(
            "sizes",
            f"goal, weights and origin have {sizes[0]}, {sizes[1]} and {sizes[2]} values, expected "
            f"{dof}, {dof} x {config.n_basis} = {dof * config.n_basis} and {dof} or none",
        )
    g, w = np.array(message.goal, np.float64), np.array(message.weights, np.float64)
    origin = np.array(message.origin, np.float64) if sizes[2] else None
    if not all(np.isfinite(a).all() for a in (g, w, origin) if a is not None):
        raise RejectedError("non_finite", "goal, weights or origin hold NaN or infinity")
    if not 0.0 < message.duration <= MAX_DURATION:
        raise RejectedError(
            "duration", f"{message.duration:g} s, expected more than 0 and at most {MAX_DURATION} s"
        )
    _require_recent(age, max_age)
    return Parameters(
        joint_names=joint_names,
        g=g,
        w=w.reshape(dof, config.n_basis),
        origin=origin,
        config=config,
        duration=float(message.duration),
        stamp=seconds(message.header.stamp),
        sequence=int(message.sequence),
        checkpoint=str(message.checkpoint),
        session=int(message.session),
    )


@functools.lru_cache(maxsize=32)
def _config_of(*values: object) -> DmpConfig:
    """Return the system of these values, checked once: segments of one policy share theirs."""
    return from_mapping(DmpConfig, dict(zip(_DYNAMICS, values, strict=True)))


def _require_recent(age: float, max_age: float) -> None:
    """Reject an observation that is too old, or from the future.

    Raises:
        RejectedError: If it is.
    """
    # With clocks that differ there is no age.
    hint = ": set the clocks to the same time" if abs(age) > _CLOCKS_DIFFER else ""
    if not age <= max_age:
        raise RejectedError(
            "stale", f"the observation is {age:.3f} s old, at most {max_age:g} s allowed{hint}"
        )
    if age < -CLOCK_TOLERANCE:
        raise RejectedError("future", f"the observation is {-age:.3f} s in the future{hint}")


def pose_array(message: PoseStamped) -> Array:
    """Return a pose as (7,): position [m], then the quaternion (w, x, y, z)."""
    p, q = message.pose.position, message.pose.orientation
    return np.array([p.x, p.y, p.z, q.w, q.x, q.y, q.z])


def seconds(stamp: Time | Duration) -> float:
    """Return a ROS time stamp, or a duration, in seconds."""
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9


def stamp_of(time: float) -> Time:
    """Return seconds as a ROS time stamp."""
    nanoseconds = round(time * 1e9)
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def duration_of(time: float) -> Duration:
    """Return seconds as a ROS duration."""
    nanoseconds = round(time * 1e9)
    return Duration(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def short_list(names: Sequence[str]) -> str:
    """Return names for a message, in one line of bounded length."""
    text = ", ".join(names)
    return f"[{text[:120]}{'...' if len(text) > 120 else ''}]"
