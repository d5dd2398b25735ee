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

from ndp_ros.arms.arm import ArmConfig, ArmInfo, JointState
from ndp_ros.arms.ros2_arm import (
    LARGEST,
    PROBLEM,
    READY,
    STATE,
    Ros2ControlConfig,
    resolved,
)
from ndp_ros.config import from_mapping
from ndp_ros.control.measurement import Confirmer

Array = NDArray[np.float64]

_PRIORITY = 60
"""SCHED_FIFO priority, where permitted: below the loop, above the nodes."""
_LEAP = 500_000_000
"""Difference between the stamps and the arrivals of joint states from which on their clock was
set [ns]."""
_DEAF = 0.5
"""Time for which nobody may listen to commands [s]."""
_BRAKING = 0.1
"""Shortest time in which a trajectory comes to rest after its setpoint [s]."""
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
        from rcl_interfaces.srv import GetParameters
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import JointState as JointStateMessage
        from std_msgs.msg import Float64MultiArray
        from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

        self._link, self._joints, self._n = link, tuple(task["joints"]), int(task["n"])
        self._mode = task["mode"]
        self._settings = settings = from_mapping(Ros2ControlConfig, task["settings"])
        self._array, self._trajectory = Float64MultiArray, JointTrajectory
        self._point = JointTrajectoryPoint
        space = "/" + settings.namespace.strip("/")
        # Its parent's arguments, remaps among them, are not its own.
        self.node = rclpy.create_node(
            "ndp_ros2_control", namespace=space, enable_rosout=False, use_global_arguments=False
        )
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        fresh = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._controller = name = resolved(space, str(task["controller"]))
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
        self._stamp = self._arrival = self._line = 0
        self._estimate = VelocityEstimate(len(self._joints))
        arm = from_mapping(ArmConfig, task["arm"])
        info = ArmInfo.from_config(arm, ("position",))
        self._max_acceleration = info.max_acceleration[: self._n]
        self._confirmer, self._reading = Confirmer(info), JointState.zeros(info.dof)
        self._velocity = np.zeros(info.dof)
        self._order: list[int] | None = None if group else list(range(self._n))
        self._refusal = ""
        self._ask: Any = self.node.create_client(GetParameters, f"{name}/get_parameters")
        # One by one: who does not know a name answers nothing at all.
        self._questions = [
            GetParameters.Request(names=[name]) for name in ("joints", "interface_name")
        ]
        self._answers: list[Any] = []
        self._unheard_since = math.inf
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
        if problem := self._order_problem():
            return problem
        blind = self._fingers is not None and math.isnan(self._numbers[len(self._joints)])
        if blind and self._settings.grip is None:
            return (
                f"{self._settings.joint_states} does not tell {self._joints[-1]} beside the arm's "
                "joints, and a gripper commanded from nowhere drops what it holds: name it (option "
                "gripper_joint), or say where it starts (option grip)"
            )
        return ""

    def _order_problem(self) -> str:
        """Ask a group controller which joint each of its numbers is for; return what is wrong."""
        if self._order is not None or self._refusal:
            return self._refusal
        if not self._answers:
            if self._ask.service_is_ready():
                self._answers = [self._ask.call_async(q) for q in self._questions]
            elif self._settings.trust_order:
                self._order = list(range(self._n))
                return ""
            return (
                f"{self._controller} does not answer {self._controller}/get_parameters, and the "
                "order of its joints is not known: start it, or confirm that it is "
                f"{', '.join(self._joints[: self._n])} (option trust_order)"
            )
        if not all(answer.done() for answer in self._answers):
            return f"{self._controller} does not answer"
        joints, interfaces = (answer.result().values for answer in self._answers)
        names = list(joints[0].string_array_value) if joints else []
        interface = interfaces[0].string_value if interfaces else ""
        wanted = {"position": "position", "torque": "effort"}[self._mode]
        if sorted(names) != sorted(self._joints[: self._n]):
            self._refusal = (
                f"{self._controller} drives {', '.join(names) or 'no joints'}, not "
                f"{', '.join(self._joints[: self._n])}: name the right controller or joints"
            )
        elif interface and interface != wanted:
            self._refusal = f"{self._controller} takes {interface}, not {wanted}: name another one"
        else:
            self._order = [self._joints.index(name) for name in names]
        return self._refusal

    def deaf(self) -> str:
        """Return which controller has stopped listening, half a second after it has."""
        if self._settings.dry_run or self._commands.get_subscription_count():
            self._unheard_since = math.inf
            return ""
        self._unheard_since = min(self._unheard_since, time.monotonic())
        if time.monotonic() - self._unheard_since < _DEAF:
            return ""
        return f"nobody listens on {self._commands.topic_name} any more: {self._controller} is gone"

    def _without_velocity(self) -> list[str]:
        """Return the arm's joints whose velocity the last joint state did not tell."""
        told = self._numbers[1 + len(self._joints) :][: self._n]
        return [name for name, value in zip(self._joints, told, strict=False) if value != value]

    def _on_state(self, message: Any) -> None:
        places = {name: i for i, name in enumerate(message.name)}
        if not all(name in places for name in self._joints[: self._n]):
            return
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        arrival = time.monotonic_ns()
        if not self._is_news(stamp, arrival):
            return
        dof, numbers = len(self._joints), self._numbers
        numbers[:] = math.nan
        numbers[0] = arrival * 1e-9
        rows = (message.position, message.velocity, message.effort)
        for row, values in enumerate(rows):
            for joint, name in enumerate(self._joints):
                place = places.get(name, -1)
                if 0 <= place < len(values):
                    numbers[1 + row * dof + joint] = values[place]
        if self._mode == "position":
            velocity = numbers[1 + dof : 1 + 2 * dof]
            self._estimate_velocities(numbers[1 : 1 + dof], self._line * 1e-9)
            np.copyto(velocity, self._velocity, where=np.isnan(velocity))
        self.heard = True
        with contextlib.suppress(BlockingIOError):
            self._link.send(STATE + numbers.tobytes(), socket.MSG_DONTWAIT)

    def _is_news(self, stamp: int, arrival: int) -> bool:
        """Whether a joint state is newer than the last; move the time line on if it is.

        What stamps nothing is believed. A relay or a source that repeats itself would keep
        feedback alive for ever. A stamp that leaps is no reason to go deaf: its clock was set.

        Args:
            stamp: Of the message [ns]; 0 for none.
            arrival: When it came, on the monotonic clock [ns].
        """
        elapsed, since = stamp - self._stamp, arrival - self._arrival
        if stamp and not elapsed:
            return False
        if not stamp or abs(elapsed - since) > _LEAP:
            elapsed = since
        if elapsed <= 0:
            return False
        self._stamp, self._arrival = stamp, arrival
        self._line += elapsed
        return True

    def _estimate_velocities(self, position: Array, at: float) -> None:
        """Estimate velocities from positions; one that has jumped, or turned over, is no speed."""
        reading = self._reading
        reading.position[:], reading.time = position, at
        nobody = np.isnan(position)
        reading.position[nobody] = 0.0
        if self._confirmer.confirm(reading):
            confirmed = self._confirmer.state.position.copy()
            confirmed[nobody] = math.nan
            self._velocity = self._estimate.update(confirmed, at)

    def publish(self, packet: bytes) -> None:
        """Pass one command on."""
        numbers = np.frombuffer(packet, np.float64, offset=1)
        dof, n = len(self._joints), self._n
        position, velocity = numbers[1 : 1 + n], numbers[1 + dof : 1 + dof + n]
        if self._settings.kind == "group":
            values = position if self._mode == "position" else numbers[1 + 2 * dof :][:n]
            self._commands.publish(self._array(data=values[self._order].tolist()))
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + 1.0 / self._settings.trajectory_rate
            names = list(self._joints[:n])
            points = self._to_rest(position, velocity)
            self._commands.publish(self._trajectory(joint_names=names, points=points))
        grip = float(numbers[dof])
        if self._fingers is not None and math.isfinite(grip) and grip != self._grip:
            self._grip = grip
            self._fingers.publish(self._array(data=[self._grip]))

    def _to_rest(self, position: Array, velocity: Array) -> list[Any]:
        """Return the setpoint, and where the arm would come to rest after it.

        A joint trajectory controller rejects, as it comes, a trajectory that ends in motion. The
        next one replaces this one before its end; should none come, the arm stops there.
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
            if problem := bridge.deaf():
                link.send(PROBLEM + problem.encode())
                break
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
