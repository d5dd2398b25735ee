# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Publish the state of the arm as the streamer reports it: joints, object poses, setpoint.

All messages of one publication carry one stamp, the time at which the joints were measured; the
policy's observer tells by it which messages belong together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from ndp_ros.nodes import qos
from ndp_ros.nodes.messages import duration_of, stamp_of
from ndp_ros.nodes.observer import JOINT_STATES, SETPOINT, pose_topic, signal_topic
from ndp_ros.streaming.handle import StreamerHandle


class ArmStatePublisher:
    """Publishers of ``joint_states``, ``ndp/setpoint`` and the poses of simulated objects."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._joints = self._publisher(JointState, JOINT_STATES)
        self._setpoint = self._publisher(JointTrajectory, SETPOINT)
        self._poses: dict[str, Publisher[PoseStamped]] = {}
        self._signals: dict[str, Publisher[JointState]] = {}

    @property
    def joint_states_topic(self) -> str:
        """Full name of the topic of the joint states."""
        return str(self._joints.topic_name)

    def open(self, objects: Sequence[str], signals: Sequence[str] = ()) -> None:
        """Make a publisher for the pose of each object, and for each further value."""
        make = self._node.create_publisher
        for name in objects:
            self._poses[name] = make(PoseStamped, pose_topic(name), qos.STATE_OUT)
        for name in signals:
            self._signals[name] = make(JointState, signal_topic(name), qos.STATE_OUT)

    def close(self) -> None:
        """Destroy the publishers of poses and further values."""
        for publisher in (*self._poses.values(), *self._signals.values()):
            self._node.destroy_publisher(publisher)
        self._poses.clear()
        self._signals.clear()

    def publish(
        self, stream: StreamerHandle, names: Sequence[str], frame: str, measured_at: float
    ) -> None:
        """Publish the state loaded last; ``measured_at`` is on the clock of stamps [s]."""
        state = stream.mailbox.state
        stamp = stamp_of(measured_at)
        joints = JointState(
            name=names,
            position=state["position"],
            velocity=state["velocity"],
            effort=state["effort"],
        )
        joints.header.stamp = stamp
        self._joints.publish(joints)
        for name, place in stream.objects.items():
            pose = state["poses"][place]
            if not math.isfinite(pose[0]):
                continue
            message = PoseStamped()
            message.header.stamp, message.header.frame_id = stamp, frame
            p, q = message.pose.position, message.pose.orientation
            p.x, p.y, p.z, q.w, q.x, q.y, q.z = map(float, pose)
            self._poses[name].publish(message)
        for name, values in stream.signals.items():
            signal = JointState(position=state["signals"][values])
            signal.header.stamp = stamp
            self._signals[name].publish(signal)
        point = JointTrajectoryPoint(
            positions=state["y"],
            velocities=state["yd"],
            accelerations=state["ydd"],
            time_from_start=duration_of(stream.arm_clock()),
        )
        setpoint = JointTrajectory(joint_names=names, points=[point])
        setpoint.header.stamp = stamp
        # Last: the policy runs on it, and by then the rest of this instant is there.
        self._setpoint.publish(setpoint)

    def _publisher(self, kind: Any, topic: str) -> Any:
        """Return a publisher whose quality of service may be overridden."""
        overriding = QoSOverridingOptions.with_default_policies()
        return self._node.create_publisher(
            kind, topic, qos.STATE_OUT, qos_overriding_options=overriding
        )
