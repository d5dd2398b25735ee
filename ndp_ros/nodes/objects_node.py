# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The objects node: publish poses of objects that no perception sees.

A fixed object is where ``config/surroundings`` says. The held one is at the grip until the fingers
open, and then on the flight of a thrown body until they close again.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.publisher import Publisher
from rclpy.subscription import Subscription
from sensor_msgs.msg import JointState

from ndp_ros.config import param
from ndp_ros.control.arm import ArmConfig, Array
from ndp_ros.errors import ConfigError
from ndp_ros.nodes import diagnostics, lifecycle, parameters, process, qos, scheduling
from ndp_ros.nodes.clocks import StampLine
from ndp_ros.nodes.diagnostics import Health
from ndp_ros.nodes.lifecycle import NdpNode
from ndp_ros.nodes.messages import seconds
from ndp_ros.nodes.observer import JOINT_STATES, pose_topic
from ndp_ros.nodes.surroundings import Surroundings

NAME = "objects_node"

_GRAVITY = 9.81
_SPEED_SPAN = 0.03
"""The hand's velocity is its displacement over this time [s]."""
_STALE = 1.0
"""Time without joint states that is worth a warning [s]."""


@dataclass(frozen=True)
class ObjectsConfig:
    """Parameters of the objects node."""

    arm: str = param(doc="Arm, as in config/arms/.")
    task: str = param(doc="Task whose objects these are, as in config/surroundings/.")
    base_frame: str = param("base", doc="Frame of the arm's base, in which poses are given.")
    prefix: str = lifecycle.prefix_param()
    node_priority: int = scheduling.priority_param(35)
    autostart: bool = lifecycle.autostart_param()


class Held:
    """An object in the hand or in flight, whose position follows from time and joints.

    Attributes:
        free: Whether it has left the hand.
    """

    def __init__(self, arm: ArmConfig, surroundings: Surroundings) -> None:
        """Build the kinematics of the arm.

        Raises:
            ConfigError: If the arm has no gripper, or its model no place named ``grip``.
        """
        if not arm.gripper:
            raise ConfigError(f"{arm.name} has no gripper that could hold {surroundings.held}")
        self.free = False
        self._n = len(arm.joint_names) - 1
        self._surroundings = surroundings
        model = mujoco.MjModel.from_xml_path(str(arm.model_path))
        names = [model.site(i).name for i in range(model.nsite)]
        if "grip" not in names:
            raise ConfigError.choice(f"{arm.model}: site", "grip", names)
        self._model, self._data = model, mujoco.MjData(model)
        self._joints = [int(model.joint(name).qposadr[0]) for name in arm.joint_names[: self._n]]
        self._grip, self._base = names.index("grip"), model.body("base").id
        self._track: deque[tuple[float, Array]] = deque()
        self._left: tuple[float, Array, Array] = (0.0, np.zeros(3), np.zeros(3))

    def __call__(self, time: float, joints: Array) -> Array:
        """Return the position (3,) [m] in the base frame, given joints (dof,) at a time [s]."""
        hand = self._hand(joints)
        if joints[self._n] >= self._surroundings.released:
            self.free = False
        elif not self.free:
            self.free = True
            earlier, place = self._track[0] if self._track else (time, hand)
            velocity = (hand - place) / (time - earlier) if time > earlier else np.zeros(3)
            self._left = time, hand, velocity
        track = self._track
        track.append((time, hand))
        while len(track) > 2 and time - track[1][0] >= _SPEED_SPAN:
            track.popleft()
        return self._flight(time) if self.free else hand

    def _hand(self, joints: Array) -> Array:
        data = self._data
        data.qpos[self._joints] = joints[: self._n]
        mujoco.mj_kinematics(self._model, data)
        frame = data.xmat[self._base].reshape(3, 3)
        place: Array = frame.T @ (data.site_xpos[self._grip] - data.xpos[self._base])
        return place

    def _flight(self, time: float) -> Array:
        """Return the position of a body that has left the hand, in free flight."""
        start, place, velocity = self._left
        floor = min(self._surroundings.floor, float(place[2]))
        rise = velocity[2] ** 2 + 2.0 * _GRAVITY * (place[2] - floor)
        t = min(max(time - start, 0.0), (velocity[2] + float(np.sqrt(rise))) / _GRAVITY)
        flown: Array = place + t * velocity
        flown[2] -= 0.5 * _GRAVITY * t**2
        return flown


class ObjectsNode(NdpNode):
    """Publisher of a pose for each object with each joint state."""

    def __init__(self, **options: Any) -> None:
        super().__init__(NAME, ObjectsConfig, **options)
        self._surroundings = Surroundings()
        self._names: tuple[str, ...] = ()
        self._held: Held | None = None
        self._joints: Subscription[JointState] | None = None
        self._poses: dict[str, Publisher[PoseStamped]] = {}
        self._heard = -math.inf
        self._line = StampLine()
        self._scheduler = ""

    def configure(self) -> None:
        """Load the file and the arm's kinematics."""
        self._config = parameters.read(self, ObjectsConfig)
        arm = ArmConfig.named(self._config.arm)
        self._surroundings = surroundings = Surroundings.named(self._config.task)
        self._names = tuple(self._config.prefix + name for name in arm.joint_names)
        self._held = Held(arm, surroundings) if surroundings.held else None

    def activate(self) -> None:
        """Publish poses from the next joint state on."""
        self._scheduler = scheduling.set_realtime_priority(self._config.node_priority)
        surroundings = self._surroundings
        for name in (*surroundings.fixed, *([surroundings.held] if self._held else [])):
            self._poses[name] = self.create_publisher(PoseStamped, pose_topic(name), qos.STATE_OUT)
        self._joints = self.create_subscription(
            JointState, JOINT_STATES, self._on_joint_states, qos.STATE
        )

    def deactivate(self) -> None:
        """Publish no more poses."""
        if self._joints is not None:
            self.destroy_subscription(self._joints)
            self._joints = None
        for publisher in self._poses.values():
            self.destroy_publisher(publisher)
        self._poses.clear()

    def _on_joint_states(self, message: JointState) -> None:
        order = {name: place for place, name in enumerate(message.name)}
        if not all(name in order for name in self._names):
            return
        if len(message.position) != len(message.name):
            return
        joints = np.array([message.position[order[name]] for name in self._names])
        if not np.isfinite(joints).all():
            return
        self._heard = time.monotonic()
        surroundings, at = self._surroundings, self._line(seconds(message.header.stamp))
        for name, place in zip(surroundings.fixed, surroundings.positions, strict=True):
            self._publish(name, message, np.array(place))
        if self._held is not None:
            self._publish(surroundings.held, message, self._held(at, joints))

    def _publish(self, name: str, heard: JointState, place: Array) -> None:
        message = PoseStamped()
        # The stamp of the joints from which the pose follows.
        message.header.stamp, message.header.frame_id = heard.header.stamp, self._config.base_frame
        p = message.pose.position
        p.x, p.y, p.z = map(float, place)
        message.pose.orientation.w = 1.0
        self._poses[name].publish(message)

    def health(self) -> Health:
        """Return the objects, and whether joint states come."""
        values: dict[str, object] = {
            "fixed": ", ".join(self._surroundings.fixed),
            "node_scheduler": self._scheduler,
        }
        if self._held is not None:
            values[self._surroundings.held] = "thrown" if self._held.free else "in the hand"
        if self.state == "active" and time.monotonic() - self._heard > _STALE:
            return Health(diagnostics.WARN, f"no {JOINT_STATES}: no poses", values)
        return Health(diagnostics.OK, self.state, values)


def main(argv: list[str] | None = None) -> int:
    """Run the objects node."""
    return process.run(ObjectsNode, argv)


if __name__ == "__main__":
    sys.exit(main())
