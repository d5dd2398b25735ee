# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A small stand-in for ros2_control: joint states out, the commands of three controllers in.

    python test/fake_controller.py joint_1 joint_2 ... gripper

Joints are where they were last told to be; an effort changes their speed. What came is told
on ``told`` as counts ``[positions, trajectories, efforts, hands]``. ``bare_states`` has the
positions of the arm's joints, and nothing else.
"""

import contextlib
import sys

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

DT = 0.005


class Controllers(Node):
    """Takes every command at once, whatever controller it is for."""

    def __init__(self, names: list[str]) -> None:
        super().__init__("controller_manager")
        self.names = names
        # A controller has its joints in an order of its own, and tells it as a parameter.
        self.order = names[:-1][::-1]
        self.n = len(names) - 1
        self.position, self.velocity = [0.1] * len(names), [0.0] * len(names)
        self.effort = [0.0] * len(names)
        self.counts = [0, 0, 0, 0]
        for topic, kind, callback in (
            ("forward_position_controller/commands", Float64MultiArray, self.on_positions),
            ("forward_effort_controller/commands", Float64MultiArray, self.on_efforts),
            ("hand/commands", Float64MultiArray, self.on_hand),
            ("joint_trajectory_controller/joint_trajectory", JointTrajectory, self.on_trajectory),
        ):
            self.create_subscription(kind, topic, callback, 1)
        self.states = self.create_publisher(JointState, "joint_states", 1)
        self.bare = self.create_publisher(JointState, "bare_states", 1)
        self.told = self.create_publisher(Float64MultiArray, "told", 1)
        self.create_timer(DT, self.tick)

    def on_positions(self, message: Float64MultiArray) -> None:
        self.counts[0] += 1
        for name, value in zip(self.order, message.data, strict=True):
            self.position[self.names.index(name)] = value

    def on_efforts(self, message: Float64MultiArray) -> None:
        self.counts[2] += 1
        self.effort[: self.n] = message.data

    def on_hand(self, message: Float64MultiArray) -> None:
        self.counts[3] += 1
        self.position[-1] = message.data[0]

    def on_trajectory(self, message: JointTrajectory) -> None:
        """Take a trajectory as a joint trajectory controller does with its default settings."""
        assert sorted(message.joint_names) == sorted(self.names[: self.n])
        if max(map(abs, message.points[-1].velocities)) > 1e-7:
            return  # allow_nonzero_velocity_at_trajectory_end is false
        times = [p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in message.points]
        assert times == sorted(set(times)) and times[0] > 0.0
        self.counts[1] += 1
        self.position[: self.n] = message.points[0].positions

    def tick(self) -> None:
        message = JointState(
            # A broadcaster keeps to an order of its own.
            name=self.names[::-1],
            position=self.position[::-1],
            velocity=self.velocity[::-1],
            effort=self.effort[::-1],
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self.states.publish(message)
        bare = JointState(name=self.names[: self.n], position=self.position[: self.n])
        bare.header.stamp = message.header.stamp
        self.bare.publish(bare)
        self.told.publish(Float64MultiArray(data=[float(count) for count in self.counts]))


def main() -> None:
    rclpy.init()
    names = sys.argv[1:]
    executor = SingleThreadedExecutor()
    executor.add_node(Controllers(names))
    for controller, joints, interface in (
        ("forward_position_controller", names[:-1][::-1], "position"),
        ("forward_effort_controller", names[:-1], "effort"),
        ("other_controller", names[1:-1], ""),
    ):
        node = Node(controller)
        node.declare_parameter("joints", joints)
        if interface:
            node.declare_parameter("interface_name", interface)
        node.create_subscription(Float64MultiArray, f"{controller}/commands", lambda _: None, 1)
        executor.add_node(node)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.spin()


if __name__ == "__main__":
    main()
