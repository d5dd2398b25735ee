# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Read chunks of way points from messages, and refuse those that are none.

The chunk node fits a segment to what passes here; none of a message's content is trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from trajectory_msgs.msg import JointTrajectory

from ndp_ros.control.arm import Array
from ndp_ros.errors import RejectedError
from ndp_ros.nodes.messages import CLOCK_TOLERANCE, seconds, short_list

MOST_POINTS = 2000
"""Most way points of a chunk."""


@dataclass(frozen=True)
class Chunk:
    """Way points of some or all joints of an arm."""

    joints: tuple[int, ...]
    """Place of each of its joints among those of the arm."""
    points: Array
    """Positions (k, joints) [rad]."""
    times: Array
    """When they are due since the chunk began (k,) [s]."""
    stamp: float
    """System time at which the chunk began [s]; 0 for the time at which it arrives."""


class Plans:
    """The newest chunk of each joint, to complete chunks of the other joints.

    Arm and gripper may have policies of their own, whose chunks come in turn.
    """

    def __init__(self) -> None:
        self._newest: dict[int, tuple[float, Chunk]] = {}

    def require_new(self, chunk: Chunk) -> None:
        """Refuse a chunk that began no later than the newest one of its joints.

        Raises:
            RejectedError: If it did.
        """
        stamps = [self._newest[j][1].stamp for j in chunk.joints if j in self._newest]
        if chunk.stamp and chunk.stamp <= (newest := max(stamps, default=0.0)):
            raise RejectedError(
                "order", f"it began {newest - chunk.stamp:.3f} s before one that has come"
            )

    def add(self, chunk: Chunk, began: float) -> None:
        """Take the newest chunk of its joints, which began at a time on any clock [s]."""
        self._newest |= dict.fromkeys(chunk.joints, (began, chunk))

    def complete(self, chunk: Chunk, began: float, y: Array) -> Array:
        """Return way points (k, dof) of the whole arm at the times of a chunk.

        Its joints follow it, others their own chunk; without one, or after its end, they stay at
        the setpoint y (dof,) [rad]. ``began`` is a time as for :meth:`add`.
        """
        points = np.repeat(y[None], len(chunk.points), axis=0)
        for joint, (start, other) in self._newest.items():
            due = other.times + (start - began)
            if due[-1] > chunk.times[0]:
                points[:, joint] = np.interp(
                    chunk.times, due, other.points[:, other.joints.index(joint)]
                )
        points[:, list(chunk.joints)] = chunk.points
        return points


def chunk_from_message(message: JointTrajectory, joint_names: Sequence[str]) -> Chunk:
    """Return the chunk in a message, whose joints are some or all of an arm's, in any order.

    Raises:
        RejectedError: With the reason and the values that would be accepted.
    """
    names = list(message.joint_names)
    unknown = [name for name in names if name not in joint_names]
    if unknown or not names or len(set(names)) != len(names):
        raise RejectedError(
            "joint_names",
            f"{short_list(names)}, expected some or all of {short_list(joint_names)}, each once",
        )
    k = len(message.points)
    if not 0 < k <= MOST_POINTS:
        raise RejectedError("points", f"{k} way points, expected 1 to {MOST_POINTS}")
    for number, point in enumerate(message.points):
        if len(point.positions) != len(names):
            raise RejectedError(
                "points",
                f"way point {number} has {len(point.positions)} positions for {len(names)} joints",
            )
    points = np.array([point.positions for point in message.points], np.float64)
    if not np.isfinite(points).all():
        number, joint = np.argwhere(~np.isfinite(points))[0]
        raise RejectedError(
            "non_finite", f"way point {number} of {names[joint]} is {points[number, joint]}"
        )
    times = np.array([seconds(point.time_from_start) for point in message.points])
    if times[0] < 0.0 or (np.diff(times) <= 0.0).any():
        raise RejectedError(
            "times", "time_from_start must increase from way point to way point, from 0 s or more"
        )
    places = tuple(list(joint_names).index(name) for name in names)
    return Chunk(places, points, times, seconds(message.header.stamp))


def within(chunk: Chunk, age: float, horizon: float) -> Chunk:
    """Return what is left of a chunk at an age [s] and within a horizon from then on [s].

    A way point at the horizon itself, on the line between its neighbours, stands for those beyond.

    Raises:
        RejectedError: If it is over, or lies in the future.
    """
    if age < -CLOCK_TOLERANCE:
        raise RejectedError("future", f"it begins in {-age:.3f} s; stamp 0 means: on arrival")
    if chunk.times[-1] <= age:
        raise RejectedError("past", f"its last way point was due {age - chunk.times[-1]:.3f} s ago")
    end = age + horizon
    near = (chunk.times > age) & (chunk.times < end)
    times, points = chunk.times[near], chunk.points[near]
    if chunk.times[-1] >= end:
        at_end = [np.interp(end, chunk.times, column) for column in chunk.points.T]
        times, points = np.append(times, end), np.vstack((points, at_end))
    return replace(chunk, times=times, points=points)
