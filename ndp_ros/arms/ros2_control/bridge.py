# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The bridge: the process with rclpy between the streaming loop and ros2_control.

:class:`~ndp_ros.arms.ros2_control.arm.Ros2ControlArm` starts it; it ends with the loop.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ndp_ros.arms.ros2_control.config import Ros2ControlConfig
from ndp_ros.arms.ros2_control.joint_states import JointStateReader
from ndp_ros.arms.ros2_control.limits import Limits, limits_of
from ndp_ros.arms.ros2_control.packets import LARGEST, PROBLEM, READY, STATE, Numbers
from ndp_ros.config import from_mapping
from ndp_ros.control.arm import ArmConfig, ArmInfo, Array

_PRIORITY = 60
"""SCHED_FIFO priority, where permitted: below the loop, above the nodes."""
_UNHEARD = 0.5
"""Time without a subscriber of commands after which the controller counts as gone [s]."""
_LISTEN = 1_000_000_000
"""Time for which a topic with two publishers is heard before the start [ns]: one of them may
publish other joints."""
_DESCRIPTION = 1.0
"""Time that a robot description which is published may take to arrive [s]."""
_BRAKING = 0.1
"""Shortest time in which a trajectory comes to rest after its setpoint [s]."""
_WARNING_PERIOD = 5.0
"""Shortest time between two warnings of a second publisher [s]."""


class Bridge:
    """The ROS side of the socket."""

    def __init__(self, link: socket.socket, task: dict[str, Any]) -> None:
        """Create the node; the task is arm, settings, joints and command mode as plain values."""
        import rclpy
        from rcl_interfaces.srv import GetParameters
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import JointState as JointStateMessage
        from std_msgs.msg import Float64MultiArray
        from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

        self._link, self._joints, self._mode = link, tuple(task["joints"]), task["mode"]
        self._settings = settings = from_mapping(Ros2ControlConfig, task["settings"])
        info = ArmInfo.from_config(from_mapping(ArmConfig, task["arm"]), (self._mode,))
        self._n = n = info.n_arm
        self._max_acceleration = info.max_acceleration[:n]
        self._array, self._trajectory = Float64MultiArray, JointTrajectory
        self._point = JointTrajectoryPoint
        # The parent's arguments, among them remappings, are not for this node.
        self.node = rclpy.create_node(
            "ndp_ros2_control",
            namespace=settings.resolve(""),
            enable_rosout=False,
            use_global_arguments=False,
        )
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        fresh = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._controller = name = settings.controller_for(self._mode)
        group = settings.controller_kind == "group"
        self._commands = self.node.create_publisher(
            Float64MultiArray if group else JointTrajectory,
            f"{name}/{'commands' if group else 'joint_trajectory'}",
            newest,
        )
        self._fingers: Any = None
        if settings.gripper_controller and info.gripper:
            topic = f"{settings.gripper_controller.rstrip('/')}/commands"
            self._fingers = self.node.create_publisher(Float64MultiArray, topic, newest)
        self._reader = JointStateReader(
            self._joints, info, estimate_velocities=self._mode == "position"
        )
        self._warned = -math.inf
        self._order: list[int] | None = None if group else list(range(n))
        self._refusal = ""
        self._ask: Any = self.node.create_client(GetParameters, f"{name}/get_parameters")
        # One request each: a node that does not know one of several names returns none.
        self._questions = [
            GetParameters.Request(names=[name]) for name in ("joints", "interface_name")
        ]
        self._answers: list[Any] = []
        self._unheard_since = math.inf
        self._command = Numbers(info.dof)
        self._next = 0.0
        self._grip = math.nan
        self._states = self.node.create_subscription(
            JointStateMessage, settings.joint_states, self._on_state, fresh
        )

    # Before the start.

    def listen_to_description(self) -> None:
        """Subscribe to the robot description."""
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from std_msgs.msg import String

        self._descriptions: list[Any] = []
        if topic := self._settings.robot_description:
            latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self.node.create_subscription(String, topic, self._descriptions.append, latched)

    def missing(self) -> str:
        """Return what the start still waits for, and what to do; empty when all is there."""
        return self._feedback_problem() or (
            "" if self._settings.dry_run else self._controller_problem()
        )

    def limits(self) -> Limits:
        """Return the limits of the arm's joints in the robot description, if there is one."""
        text = self._descriptions[-1].data if self._descriptions else ""
        return limits_of(text, self._joints[: self._n])

    def awaits_description(self) -> bool:
        """Return whether somebody publishes a robot description that has not arrived."""
        topic = self._settings.robot_description
        return not self._descriptions and bool(topic) and self.node.count_publishers(topic) > 0

    def _feedback_problem(self) -> str:
        """Return why the arm is not measured, or not by one publisher."""
        reader, topic = self._reader, self._states.topic_name
        arm_joints = self._joints[: self._n]
        if not reader.heard_at:
            return (
                f"no joint state with {', '.join(arm_joints)} on {topic}: is "
                "joint_state_broadcaster active, and are the names right (option joints)?"
            )
        publishers, now = sorted(self._publishers().values()), time.monotonic_ns()
        several = len(publishers) > 1
        listened = now - reader.heard_at > (_LISTEN if several else _LISTEN // 4)
        if several and not (listened and reader.publisher and not reader.contested(now)):
            return (
                f"{' and '.join(publishers)} publish joint states on {topic}: end all but one, or "
                "name another topic (option joint_states)"
            )
        if not listened:
            return f"{topic} has been heard for less than {_LISTEN // 4 * 1e-9:g} s"
        without = reader.without_velocity()
        if self._mode == "torque" and without:
            return (
                f"{topic} has no velocity of {', '.join(without)}, and torques need one of each "
                "joint: give them the state interface velocity, or choose command_mode position"
            )
        return ""

    def _controller_problem(self) -> str:
        """Return why commands would not reach the arm as intended."""
        for publisher in (self._commands, self._fingers):
            if publisher is not None and publisher.get_subscription_count() == 0:
                return (
                    f"nobody listens on {publisher.topic_name}: activate the controller, as by "
                    "`ros2 control switch_controllers --activate`"
                )
        if problem := self._order_problem():
            return problem
        unmeasured = self._fingers is not None and math.isnan(self._reader.numbers.position[-1])
        if unmeasured and self._settings.grip is None:
            return (
                f"{self._states.topic_name} does not report {self._joints[-1]} beside the arm's "
                "joints, and a gripper commanded from an unknown position drops what it holds: "
                "name its joint (option gripper_joint), or where it starts (option grip)"
            )
        return ""

    def _order_problem(self) -> str:
        """Ask a group controller for the order of its joints; return what is wrong with it."""
        if self._order is not None or self._refusal:
            return self._refusal
        if not self._answers:
            if self._ask.service_is_ready():
                self._answers = [self._ask.call_async(q) for q in self._questions]
            elif self._settings.trust_order:
                self._order = list(range(self._n))
                return ""
            return (
                f"{self._controller} does not answer {self._controller}/get_parameters, so the "
                "order of its joints is unknown: start it, or confirm that it is "
                f"{', '.join(self._joints[: self._n])} (option trust_order)"
            )
        if not all(answer.done() for answer in self._answers):
            return f"{self._controller} does not answer"
        joints, interfaces = (answer.result().values for answer in self._answers)
        names = list(joints[0].string_array_value) if joints else []
        interface = interfaces[0].string_value if interfaces else ""
        expected = {"position": "position", "torque": "effort"}[self._mode]
        if sorted(names) != sorted(self._joints[: self._n]):
            self._refusal = (
                f"{self._controller} drives {', '.join(names) or 'no joints'}, not "
                f"{', '.join(self._joints[: self._n])}: name the right controller or joints"
            )
        elif interface and interface != expected:
            self._refusal = (
                f"{self._controller} takes {interface}, not {expected}: name another one"
            )
        else:
            self._order = [self._joints.index(name) for name in names]
        return self._refusal

    # While the loop runs.

    def lost_controller(self) -> str:
        """Return which controller stopped listening, half a second after it did."""
        if self._settings.dry_run or self._commands.get_subscription_count():
            self._unheard_since = math.inf
            return ""
        self._unheard_since = min(self._unheard_since, time.monotonic())
        if time.monotonic() - self._unheard_since < _UNHEARD:
            return ""
        return f"nobody listens on {self._commands.topic_name} any more: {self._controller} is gone"

    def _on_state(self, message: Any, info: Any) -> None:
        """Pass a joint state to the loop if it is a new measurement by the publisher that counts.

        rclpy before 9 does not identify publishers; all of them count as one then.
        """
        reader, now = self._reader, time.monotonic_ns()
        gid = info.get("publisher_gid") or {}
        before = reader.publisher
        if reader.take(message, bytes(gid.get("data", b"")), now):
            with contextlib.suppress(BlockingIOError):
                self._link.send(reader.numbers.encode(STATE), socket.MSG_DONTWAIT)
        if before and reader.publisher != before:
            self._warn(f"measures the arm now, as {self._name(before)} is silent", reader.publisher)
        elif reader.contested(now) and time.monotonic() - self._warned > _WARNING_PERIOD:
            ignored = f"publishes the arm's joints beside {self._name(before)} and is ignored"
            self._warn(ignored, reader.rival)

    def _warn(self, what: str, publisher: bytes) -> None:
        self._warned = time.monotonic()
        self.node.get_logger().warning(f"{self._states.topic_name}: {self._name(publisher)} {what}")

    def _publishers(self) -> dict[bytes, str]:
        """Return the names of the nodes that publish joint states, by identifier."""
        return {
            bytes(info.endpoint_gid): f"{info.node_namespace.rstrip('/')}/{info.node_name}"
            for info in self.node.get_publishers_info_by_topic(self._states.topic_name)
        }

    def _name(self, publisher: bytes) -> str:
        """Return the name of a publisher's node, as far as it is known."""
        return self._publishers().get(publisher, "another node")

    def publish(self, packet: bytes) -> None:
        """Publish one command of the loop."""
        command, n = self._command, self._n
        command.decode(packet)
        position, velocity = command.position[:n], command.velocity[:n]
        if self._settings.controller_kind == "group":
            values = position if self._mode == "position" else command.effort[:n]
            self._commands.publish(self._array(data=values[self._order].tolist()))
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + 1.0 / self._settings.trajectory_rate
            names, points = list(self._joints[:n]), self._to_rest(position, velocity)
            self._commands.publish(self._trajectory(joint_names=names, points=points))
        grip = float(command.position[-1])
        if self._fingers is not None and math.isfinite(grip) and grip != self._grip:
            self._grip = grip
            self._fingers.publish(self._array(data=[self._grip]))

    def _to_rest(self, position: Array, velocity: Array) -> list[Any]:
        """Return the setpoint, and the point at which the arm would come to rest after it.

        A joint trajectory controller rejects, by default, a trajectory that ends in motion. The
        next trajectory replaces this one before its end; without one, the arm stops there.
        """
        braking = max(float((np.abs(velocity) / self._max_acceleration).max()) * 1.5, _BRAKING)
        rest = position + 0.5 * braking * velocity
        rows = (
            (self._settings.lookahead, position, velocity),
            (self._settings.lookahead + braking, rest, np.zeros_like(velocity)),
        )
        points = []
        for seconds, p, v in rows:
            point = self._point(positions=p.tolist(), velocities=v.tolist())
            point.time_from_start.sec = int(seconds)
            point.time_from_start.nanosec = int(seconds % 1.0 * 1e9)
            points.append(point)
        return points


def newest(link: socket.socket) -> bytes:
    """Wait for commands and return the last one queued; empty once the loop has ended."""
    packet = b""
    with contextlib.suppress(OSError):
        packet = link.recv(LARGEST)
        while packet and (later := link.recv(LARGEST, socket.MSG_DONTWAIT)):
            packet = later
    return packet


def forward(link: socket.socket, publish: Callable[[bytes], None], ended: threading.Event) -> None:
    """Publish commands until the loop ends, of several queued ones only the newest.

    A bridge that was held up would otherwise replay outdated commands, a stop last of all.
    """
    try:
        while packet := newest(link):
            publish(packet)
    finally:
        # However this thread ends, the loop must notice: measurements would look like a bridge.
        ended.set()


def run(bridge: Bridge, link: socket.socket, executor: Any, timeout: float) -> int:
    """Wait until the timeout [s] for measurements and controllers, then exchange until the end.

    Returns:
        The exit status.
    """
    ended = threading.Event()
    thread = threading.Thread(target=forward, args=(link, bridge.publish, ended), name="commands")
    try:
        end = time.monotonic() + timeout
        while problem := bridge.missing():
            if time.monotonic() > end:
                link.send(PROBLEM + problem.encode())
                return 2
            executor.spin_once(timeout_sec=0.05)
        # A publisher that does not keep its description for later subscribers is not waited for.
        end = time.monotonic() + _DESCRIPTION
        while bridge.awaits_description() and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)
        link.send(READY + json.dumps(bridge.limits()).encode())
        thread.start()
        while not ended.is_set():
            executor.spin_once(timeout_sec=0.05)
            if problem := bridge.lost_controller():
                link.send(PROBLEM + problem.encode())
                break
    except OSError:
        pass  # the loop has ended
    finally:
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
        if thread.ident is not None:
            thread.join()
    return 0


def main(descriptor: int) -> int:
    """Run the bridge until the loop's end of the socket is closed."""
    # Ctrl-C is for the loop, which still needs the bridge to bring the arm to rest.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    link = socket.socket(fileno=descriptor)
    task = json.loads(link.recv(LARGEST))
    try:
        import rclpy
    except ImportError as error:
        link.send(PROBLEM + f"ROS 2 is not installed ({error}): source its setup.bash".encode())
        return 2
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    bridge = Bridge(link, task)
    bridge.listen_to_description()
    executor = SingleThreadedExecutor()
    executor.add_node(bridge.node)
    try:
        return run(bridge, link, executor, float(task["settings"]["controller_timeout"]))
    finally:
        executor.shutdown()
        bridge.node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
