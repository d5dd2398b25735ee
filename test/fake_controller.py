"""A small stand-in for ros2_control: joint states out, the commands of three controllers in.

    python test/fake_controller.py joint_1 joint_2 ... gripper

Joints are where they were last told to be; an effort changes their speed. What came is told
on ``told`` as counts ``[positions, trajectories, efforts, hands]``. ``bare_states`` has the
positions of the arm's joints, and nothing else.
"""

import contextlib
import sys

import rclpy
from rclpy.executors import ExternalShutdownException
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
        self.position[: self.n] = message.data

    def on_efforts(self, message: Float64MultiArray) -> None:
        self.counts[2] += 1
        self.effort[: self.n] = message.data

    def on_hand(self, message: Float64MultiArray) -> None:
        self.counts[3] += 1
        self.position[-1] = message.data[0]

    def on_trajectory(self, message: JointTrajectory) -> None:
        assert list(message.joint_names) == self.names[: self.n]
        assert 0 < message.points[0].time_from_start.nanosec < 10**9
        self.counts[1] += 1
        self.position[: self.n] = message.points[0].positions

    def tick(self) -> None:
        message = JointState(
            # A broadcaster keeps to an order of its own.
            name=self.names[::-1], position=self.position[::-1], velocity=self.velocity[::-1],
            effort=self.effort[::-1],
        )  # fmt: skip
        message.header.stamp = self.get_clock().now().to_msg()
        self.states.publish(message)
        bare = JointState(name=self.names[: self.n], position=self.position[: self.n])
        bare.header.stamp = message.header.stamp
        self.bare.publish(bare)
        self.told.publish(Float64MultiArray(data=[float(count) for count in self.counts]))


def main() -> None:
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Controllers(sys.argv[1:]))


if __name__ == "__main__":
    main()
