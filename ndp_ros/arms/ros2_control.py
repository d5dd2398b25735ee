"""The bridge: the process with rclpy between the streaming loop and ros2_control.

``ros2_arm`` starts it and says what goes through the socket. It ends with the loop.
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
from numpy.typing import NDArray

from ndp_ros.arms.ros2_arm import (
    LARGEST,
    PROBLEM,
    READY,
    STATE,
    Ros2ControlConfig,
)
from ndp_ros.config import from_mapping

Array = NDArray[np.float64]

_PRIORITY = 60
"""SCHED_FIFO priority, where permitted: below the loop, above the nodes."""
_SMOOTHING = 0.02
"""Time constant of an estimated velocity [s]: some periods of any joint_state_broadcaster."""


class VelocityEstimate:
    """Velocities of joints whose positions alone are told.

    The difference to the positions that follow with a lag of one time constant: exact at
    constant speed whatever the time between two measurements, and never a division by it,
    which two that come in one burst would make enormous.
    """

    def __init__(self, dof: int) -> None:
        """Begin with joints that have never been measured."""
        self._lagging = np.full(dof, math.nan)
        self._at = math.nan

    def update(self, position: Array, at: float) -> Array:
        """Return the velocities (dof,) [rad/s]; 0 at a joint's first position.

        Args:
            position: Measured (dof,) [rad]; NaN where nothing is told.
            at: When [s], on a clock of any origin.
        """
        elapsed = max(at - self._at, 0.0) if math.isfinite(self._at) else 0.0
        self._at = at
        fresh = np.isnan(self._lagging)
        self._lagging[fresh] = position[fresh]
        self._lagging += elapsed / (_SMOOTHING + elapsed) * (position - self._lagging)
        estimate: Array = (position - self._lagging) / _SMOOTHING
        return estimate


class Bridge:
    """The other end of the socket, in the process that has rclpy."""

    def __init__(self, link: socket.socket, task: dict[str, Any]) -> None:
        import rclpy
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import JointState as JointStateMessage
        from std_msgs.msg import Float64MultiArray
        from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

        self._link, self._joints, self._n = link, tuple(task["joints"]), int(task["n"])
        self._mode = task["mode"]
        self._settings = settings = from_mapping(Ros2ControlConfig, task["settings"])
        self._array, self._trajectory = Float64MultiArray, JointTrajectory
        self._point = JointTrajectoryPoint
        self.node = rclpy.create_node("ndp_ros2_control", enable_rosout=False)
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        fresh = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        name = str(task["controller"]).rstrip("/")
        group = settings.kind == "group"
        topic = f"{name}/{'commands' if group else 'joint_trajectory'}"
        self._commands = self.node.create_publisher(
            Float64MultiArray if group else JointTrajectory, topic, newest
        )
        self._fingers: Any = None
        if settings.gripper_controller and len(self._joints) > self._n:
            topic = f"{settings.gripper_controller.rstrip('/')}/commands"
            self._fingers = self.node.create_publisher(Float64MultiArray, topic, newest)
        self.heard = False
        self._stamp = 0
        self._estimate = VelocityEstimate(len(self._joints))
        self._numbers = np.full(1 + 3 * len(self._joints), math.nan)
        self._next = 0.0
        self._grip = math.nan
        self.node.create_subscription(
            JointStateMessage, settings.joint_states, self._on_state, fresh
        )

    def missing(self) -> str:
        """Return who does not show himself, and what to do; empty when all are there."""
        if not self.heard:
            return (
                f"no joint state with {', '.join(self._joints[: self._n])} on "
                f"{self._settings.joint_states}: is joint_state_broadcaster active, and are the "
                "names right (option joints)?"
            )
        still = self._without_velocity()
        if self._mode == "torque" and still:
            return (
                f"{self._settings.joint_states} tells no velocity of {', '.join(still)}, and "
                "torques need one of each joint: give them the state interface velocity, or "
                "choose command_mode position"
            )
        if self._settings.dry_run:
            return ""
        for publisher in (self._commands, self._fingers):
            if publisher is not None and publisher.get_subscription_count() == 0:
                return (
                    f"nobody listens on {publisher.topic_name}: activate the controller, as by "
                    "`ros2 control switch_controllers --activate`"
                )
        blind = self._fingers is not None and math.isnan(self._numbers[len(self._joints)])
        if blind and self._settings.grip is None:
            return (
                f"{self._settings.joint_states} does not tell {self._joints[-1]} beside the arm's "
                "joints, and a gripper commanded from nowhere drops what it holds: name it (option "
                "gripper_joint), or say where it starts (option grip)"
            )
        return ""

    def _without_velocity(self) -> list[str]:
        """Return the arm's joints whose velocity the last joint state did not tell."""
        told = self._numbers[1 + len(self._joints) :][: self._n]
        return [name for name, value in zip(self._joints, told, strict=False) if value != value]

    def _on_state(self, message: Any) -> None:
        places = {name: i for i, name in enumerate(message.name)}
        if not all(name in places for name in self._joints[: self._n]):
            return
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        # Who stamps nothing is believed. Else only what is newer than the last is news: a relay
        # or a source that stands still would keep feedback alive for ever.
        if 0 < stamp <= self._stamp:
            return
        self._stamp = max(stamp, self._stamp)
        dof, numbers = len(self._joints), self._numbers
        numbers[:] = math.nan
        numbers[0] = time.monotonic()
        rows = (message.position, message.velocity, message.effort)
        for row, values in enumerate(rows):
            for joint, name in enumerate(self._joints):
                place = places.get(name, -1)
                if 0 <= place < len(values):
                    numbers[1 + row * dof + joint] = values[place]
        if self._mode == "position":
            velocity = numbers[1 + dof : 1 + 2 * dof]
            at = stamp * 1e-9 if stamp else float(numbers[0])
            estimate = self._estimate.update(numbers[1 : 1 + dof], at)
            np.copyto(velocity, estimate, where=np.isnan(velocity))
        self.heard = True
        with contextlib.suppress(BlockingIOError):
            self._link.send(STATE + numbers.tobytes(), socket.MSG_DONTWAIT)

    def publish(self, packet: bytes) -> None:
        """Pass one command on."""
        numbers = np.frombuffer(packet, np.float64, offset=1)
        dof, n = len(self._joints), self._n
        position, velocity = numbers[1 : 1 + n], numbers[1 + dof : 1 + dof + n]
        if self._settings.kind == "group":
            values = position if self._mode == "position" else numbers[1 + 2 * dof :][:n]
            self._commands.publish(self._array(data=values.tolist()))
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + 1.0 / self._settings.trajectory_rate
            point = self._point(positions=position.tolist(), velocities=velocity.tolist())
            point.time_from_start.nanosec = int(self._settings.lookahead * 1e9)
            names = list(self._joints[:n])
            self._commands.publish(self._trajectory(joint_names=names, points=[point]))
        grip = float(numbers[dof])
        if self._fingers is not None and math.isfinite(grip) and grip != self._grip:
            self._grip = grip
            self._fingers.publish(self._array(data=[self._grip]))


def newest(link: socket.socket) -> bytes:
    """Wait for commands and return the last of those there are; empty once the loop has ended."""
    packet = b""
    with contextlib.suppress(OSError):
        packet = link.recv(LARGEST)
        while packet and (later := link.recv(LARGEST, socket.MSG_DONTWAIT)):
            packet = later
    return packet


def forward(link: socket.socket, publish: Callable[[bytes], None], ended: threading.Event) -> None:
    """Pass commands on until the loop ends, of those that wait the newest alone.

    A bridge that was held up would else replay what is over, a stop last of all.
    """
    try:
        while packet := newest(link):
            publish(packet)
    finally:
        # However this ends, the loop is to notice: states alone would look like a bridge.
        ended.set()


def main(descriptor: int) -> int:
    """Run the bridge until the loop's end of the socket is closed."""
    # Ctrl-C is for the loop: it still needs the bridge to bring the arm to rest.
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
    executor = SingleThreadedExecutor()
    executor.add_node(bridge.node)
    ended = threading.Event()

    thread = threading.Thread(target=forward, args=(link, bridge.publish, ended), name="commands")
    try:
        end = time.monotonic() + float(task["settings"]["timeout"])
        while problem := bridge.missing():
            if time.monotonic() > end:
                link.send(PROBLEM + problem.encode())
                return 2
            executor.spin_once(timeout_sec=0.05)
        link.send(READY)
        thread.start()
        while not ended.is_set():
            executor.spin_once(timeout_sec=0.05)
    except OSError:
        pass  # the loop has ended
    finally:
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
        if thread.ident is not None:
            thread.join()
        executor.shutdown()
        bridge.node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
