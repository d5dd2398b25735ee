"""DmpParameters to and from plain values, and the reasons for which one is rejected."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from ndp_interfaces.msg import DmpParameters
from numpy.typing import NDArray

from ndp_ros.config import from_mapping
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError, SegmentError

Array = NDArray[np.float64]

REASONS = (
    "joint_names", "sizes", "non_finite", "dynamics", "duration", "start", "stale", "future",
)  # fmt: skip
"""Every reason that :func:`parameters_from_message` rejects for; diagnostics count by them."""

MAX_DURATION = 60.0
"""Longest segment that is accepted [s]."""
CLOCK_TOLERANCE = 0.05
"""How far a sender's clock may be ahead [s]."""
_CLOCKS_DIFFER = 60.0
"""An age, or an advance, from which on the clocks are to blame and not a delay [s]."""

_DYNAMICS = tuple(f.name for f in dataclasses.fields(DmpConfig))


class RejectedError(SegmentError):
    """A message that does not fit; ``reason`` is one of REASONS."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason


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
    """Setpoint (dof,) that Φ saw [rad], from which the goal is meant; None if it is absolute."""
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
    """Return a message's content for an arm with these joints.

    Args:
        message: What arrived; nothing about it is trusted.
        joint_names: Joints of the receiver's arm, in order.
        age: Age of its stamp [s], negative for one from the future.
        max_age: Age of the observation from which on the segment is stale [s].

    Raises:
        RejectedError: With the reason and what would have been accepted.
    """
    if tuple(message.joint_names) != joint_names:
        raise RejectedError(
            "joint_names", f"{_short(message.joint_names)}, expected {_short(joint_names)}"
        )
    if message.start != DmpParameters.START_DESIRED:
        raise RejectedError(
            "start", f"{message.start[:40]!r}, expected {DmpParameters.START_DESIRED!r}"
        )
    dof = len(joint_names)
    try:
        config = from_mapping(DmpConfig, {name: getattr(message, name) for name in _DYNAMICS})
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
    # By a clock that is wrong, or set to another time, no age can be told at all.
    hint = ": set the clocks to the same time" if abs(age) > _CLOCKS_DIFFER else ""
    if not age <= max_age:
        raise RejectedError(
            "stale", f"the observation is {age:.3f} s old, at most {max_age:g} s allowed{hint}"
        )
    if age < -CLOCK_TOLERANCE:
        raise RejectedError("future", f"the observation is {-age:.3f} s in the future{hint}")
    return Parameters(
        joint_names=joint_names, g=g, w=w.reshape(dof, config.n_basis), origin=origin,
        config=config, duration=float(message.duration),
        stamp=seconds(message.header.stamp), sequence=int(message.sequence),
        checkpoint=str(message.checkpoint), session=int(message.session),
    )  # fmt: skip


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


def _short(names: Any) -> str:
    text = ", ".join(names)
    return f"[{text[:120]}{'...' if len(text) > 120 else ''}]"
