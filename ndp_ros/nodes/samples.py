# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Join the messages of one instant, as the integrator node publishes them, into samples.

The episode node records samples: with the arm of one instant and the cube of another, the cube
would seem to have left the hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from ndp_ros.control.arm import Array
from ndp_ros.nodes import qos
from ndp_ros.nodes.messages import pose_array, seconds
from ndp_ros.nodes.observer import JOINT_STATES, SETPOINT, pose_topic, signal_topic

_MOST = 1000
"""Incomplete samples that are kept; a clock that is set back leaves some behind."""


@dataclass(frozen=True)
class Sample:
    """State of the arm and of all objects at one instant."""

    stamp: float
    """System time [s]."""
    clock: float
    """Time on the arm's clock [s]."""
    position: Array
    """Measured joints (dof,) [rad]."""
    setpoint: Array
    """Planned joints (dof,) [rad]."""
    poses: dict[str, Array]
    """Pose (7,) of each object in the arm's base frame: position [m], quaternion (w, x, y, z)."""
    signals: dict[str, Array]
    """Further values of the simulation by name."""


class Sampler:
    """Subscriptions to joint states, setpoints and poses that yield samples."""

    def __init__(
        self,
        node: Node,
        joint_names: Sequence[str],
        objects: Sequence[str],
        signals: Sequence[str],
        take: Callable[[Sample], None],
        profile: QoSProfile = qos.RECORD,
    ) -> None:
        """Subscribe; call ``take`` with each complete sample of these joints, in this order."""
        self._joint_names = tuple(joint_names)
        self._signals = tuple(signals)
        self._complete = 2 + len(objects) + len(signals)
        self._take = take
        self._parts: dict[float, dict[str, Array]] = {}
        self._node = node
        self._inputs: list[Subscription[Any]] = [
            node.create_subscription(JointState, JOINT_STATES, self.on_joint_states, profile),
            node.create_subscription(JointTrajectory, SETPOINT, self.on_setpoint, profile),
        ]
        for name in objects:
            callback = partial(self.on_pose, name)
            self._inputs.append(
                node.create_subscription(PoseStamped, pose_topic(name), callback, profile)
            )
        for name in signals:
            take_signal = partial(self.on_signal, name)
            self._inputs.append(
                node.create_subscription(JointState, signal_topic(name), take_signal, profile)
            )

    def close(self) -> None:
        """End the subscriptions."""
        for subscription in self._inputs:
            self._node.destroy_subscription(subscription)
        self._inputs.clear()

    @property
    def incomplete(self) -> int:
        """Number of samples of which a part is still missing."""
        return len(self._parts)

    def on_joint_states(self, message: JointState) -> None:
        """Take measured joints."""
        if self._is_ours(message.name, message.position):
            self._gather(message.header.stamp, JOINT_STATES, np.array(message.position))

    def on_setpoint(self, message: JointTrajectory) -> None:
        """Take planned joints and the arm's clock."""
        for point in message.points[:1]:
            if self._is_ours(message.joint_names, point.positions):
                value = np.array([seconds(point.time_from_start), *point.positions])
                self._gather(message.header.stamp, SETPOINT, value)

    def on_pose(self, name: str, message: PoseStamped) -> None:
        """Take the pose of an object."""
        self._gather(message.header.stamp, name, pose_array(message))

    def on_signal(self, name: str, message: JointState) -> None:
        """Take a further value of the simulation."""
        self._gather(message.header.stamp, name, np.array(message.position))

    def _is_ours(self, names: Sequence[str], position: Sequence[float]) -> bool:
        return tuple(names) == self._joint_names and len(position) == len(names)

    def _gather(self, at: Time, name: str, value: Array) -> None:
        stamp = seconds(at)
        parts = self._parts.setdefault(stamp, {})
        parts[name] = value
        if len(parts) == self._complete:
            self._parts = {later: p for later, p in self._parts.items() if later > stamp}
            position, setpoint = parts.pop(JOINT_STATES), parts.pop(SETPOINT)
            signals = {name: parts.pop(name) for name in self._signals}
            clock = float(setpoint[0])
            self._take(Sample(stamp, clock, position, setpoint[1:], parts, signals))
        elif len(self._parts) > _MOST:
            self._parts.pop(next(iter(self._parts)))
