# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Chunks of way points over real DDS: a jittery policy, an ideal arm behind a real streamer."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
pytest.importorskip("ndp_interfaces", reason="needs the message package: pip install ./interfaces")

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_support import Ros, ros_system
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from ndp_ros.control.arm import ArmConfig
from ndp_ros.errors import RejectedError
from ndp_ros.nodes import qos
from ndp_ros.nodes.chunks import Chunk, Plans, chunk_from_message, within
from ndp_ros.nodes.messages import duration_of, seconds, stamp_of

pytestmark = pytest.mark.live

ARM = ArmConfig.named("jaco")
HOME, LIMIT = np.array(ARM.home), np.array(ARM.max_acceleration)
RATE = 500.0
EVERY_ONE = QoSProfile(depth=5000, reliability=ReliabilityPolicy.BEST_EFFORT)


def message(points, times, names=ARM.joint_names, stamp=0.0):
    made = JointTrajectory(joint_names=list(names))
    made.header.stamp = stamp_of(stamp)
    for position, t in zip(points, times, strict=True):
        positions = [float(p) for p in np.atleast_1d(position)]
        made.points.append(
            JointTrajectoryPoint(positions=positions, time_from_start=duration_of(t))
        )
    return made


# -- the content of a message ------------------------------------------------------------------

POINTS = np.zeros((3, 2))
BAD = {
    "an unknown joint": ("joint_names", lambda: message(POINTS, [1, 2, 3], ("a", "x"))),
    "a joint twice": ("joint_names", lambda: message(POINTS, [1, 2, 3], ("a", "a"))),
    "no joint": ("joint_names", lambda: message(POINTS, [1, 2, 3], ())),
    "no way point": ("points", lambda: message([], [], ("a", "b"))),
    "a value too few": ("points", lambda: message([[0, 0], [0]], [1, 2], ("a", "b"))),
    "not a number": ("non_finite", lambda: message([[0, np.nan]], [1], ("a", "b"))),
    "times that stand": ("times", lambda: message(POINTS, [1, 1, 2], ("a", "b"))),
    "no times": ("times", lambda: message(POINTS, [0, 0, 0], ("a", "b"))),
    "a negative time": ("times", lambda: message(POINTS, [-1, 1, 2], ("a", "b"))),
}


@pytest.mark.parametrize("case", BAD)
def test_a_message_that_is_no_chunk_is_refused_with_its_reason_in_one_line(case):
    reason, make = BAD[case]
    with pytest.raises(RejectedError) as caught:
        chunk_from_message(make(), ("a", "b", "c"))
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_joints_may_be_some_of_the_arm_in_any_order_and_the_others_go_on():
    names, y, plans = ("a", "b", "c"), np.array([7.0, 8.0, 9.0]), Plans()
    chunk = chunk_from_message(message([[1, 2], [3, 4]], [1, 2], ("c", "a")), names)
    np.testing.assert_array_equal(plans.complete(chunk, 0.0, y), [[2, 8, 1], [4, 8, 3]])
    plans.add(chunk, 0.0)
    gripper = chunk_from_message(message([[5], [6], [7]], [0.5, 1.0, 2.0], ("b",)), names)
    # Half a second later: joints c and a are half a second further in their own chunk.
    np.testing.assert_allclose(plans.complete(gripper, 0.5, y), [[2, 5, 1], [3, 6, 2], [4, 7, 3]])
    # After its end they stay where they are by now.
    np.testing.assert_allclose(plans.complete(gripper, 5.0, y)[0], [7, 5, 9])


def test_a_chunk_that_was_overtaken_is_refused_for_its_own_joints_only():
    plans = Plans()
    plans.add(Chunk((0, 1), np.zeros((1, 2)), np.ones(1), 10.0), 0.0)
    plans.require_new(Chunk((2,), np.zeros((1, 1)), np.ones(1), 9.0))
    plans.require_new(Chunk((0,), np.zeros((1, 1)), np.ones(1), 10.1))
    plans.require_new(Chunk((0,), np.zeros((1, 1)), np.ones(1), 0.0))
    for stamp in (9.0, 10.0):
        with pytest.raises(RejectedError, match="order: it began"):
            plans.require_new(Chunk((1,), np.zeros((1, 1)), np.ones(1), stamp))


def test_way_points_beyond_the_horizon_are_cut_on_the_line_to_them():
    chunk = Chunk((0,), np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 2.0, 3.0]), 0.0)
    left = within(chunk, age=0.5, horizon=2.0)
    np.testing.assert_allclose(left.times, [1.0, 2.0, 2.5])
    np.testing.assert_allclose(left.points[:, 0], [1.0, 2.0, 3.0])
    assert within(chunk, age=2.5, horizon=2.0).times.tolist() == [3.0]
    with pytest.raises(RejectedError, match=r"past: its last way point was due 0\.100 s ago"):
        within(chunk, age=3.1, horizon=2.0)
    with pytest.raises(RejectedError, match=r"future: it begins in 0\.200 s"):
        within(chunk, age=-0.2, horizon=2.0)


# -- a running system --------------------------------------------------------------------------


@dataclass
class System:
    """An integrator and a chunk node in processes of their own."""

    ros: Ros

    def __post_init__(self) -> None:
        self.diagnostics = self.ros.listen(DiagnosticArray, "/diagnostics")
        self.setpoints = self.ros.listen(JointTrajectory, "ndp/setpoint", EVERY_ONE)
        self.output = self.ros.node.create_publisher(JointTrajectory, "ndp/chunk", qos.PARAMETERS)

    def health(self, node):
        """Return the last values that a node has reported."""
        for array in reversed(self.diagnostics):
            for status in array.status:
                if status.name == node:
                    values = {value.key: value.value for value in status.values}
                    return values | {"message": status.message}
        return {}

    def track(self, start):
        """Return times (n,) and setpoints (n, 3, dof) since the message of number ``start``."""
        heard = self.setpoints[start:]
        points = [m.points[0] for m in heard]
        t = np.array([seconds(p.time_from_start) for p in points])
        values = [(p.positions, p.velocities, p.accelerations) for p in points]
        return t, np.array(values), np.array([seconds(m.header.stamp) for m in heard])

    def clamped(self):
        """Return how many setpoints the guard has changed."""
        values = self.health("integrator_node")
        names = "guard_acceleration", "guard_velocity", "guard_position"
        return sum(int(values.get(name, 0)) for name in names)

    def starved(self):
        """Return how often a segment ran out because no chunk came in time."""
        return int(self.health("integrator_node").get("guard_starved", 0))

    def said(self, start, text):
        """Whether the chunk node has reported a text since a number of reports."""
        return any(
            text in status.message
            for array in self.diagnostics[start:]
            for status in array.status
            if status.name == "chunk_node"
        )

    def refusals(self, reason):
        return int(self.health("chunk_node").get(f"refused_{reason}", 0))


@pytest.fixture(scope="module")
def system(tmp_path_factory) -> Iterator[System]:
    with ros_system(tmp_path_factory.mktemp("ros")) as ros:
        made = System(ros)
        ros.start_node(
            "integrator_node",
            hardware="mock",
            arm="jaco",
            command_mode="position",
            rate=RATE,
            publish_rate=200.0,
            max_parameter_age=1.0,
            grace=0.1,
            heartbeat_timeout=5.0,
            stall_timeout=5.0,
            feedback_timeout=2.0,
        )
        ros.start_node("chunk_node")
        ros.until(lambda: made.setpoints, "setpoint")
        ros.until(lambda: made.output.get_subscription_count(), "chunk node")
        follow = ros.call(SetBool, "integrator_node/follow", SetBool.Request(data=True))
        assert follow.success, follow.message
        yield made


def wave(t):
    """Return a motion (n, dof) of all joints about the home position at system times (n,)."""
    t = np.atleast_1d(t)[:, None]
    size = np.array([0.4, 0.3, 0.3, 0.5, 0.5, 0.5, 0.2])
    shape = np.sin(2.0 * np.pi * 0.5 * t + np.arange(7)) + np.array([0] * 6 + [1.5])
    return HOME + size * shape


@pytest.mark.ros
def test_a_short_chunk_of_one_joint_ends_at_rest_and_holds_the_others(system):
    ros = system.ros
    # A chunk beyond the horizon, at the end of which the arm stays.
    system.output.publish(message(np.tile(HOME, (40, 1)), 0.05 * np.arange(1, 41)))
    ros.until(lambda: int(system.health("chunk_node").get("segments", 0)) > 0, "segment")
    ros.until(lambda: not system.track(-1)[1][0, 1].any(), "arm at rest")
    before = system.track(-1)[1][0, 0]
    assert before == pytest.approx(HOME, abs=5e-3)
    name = ARM.joint_names[2]
    system.output.publish(
        message(before[2] + np.linspace(0.02, 0.2, 10), 0.04 * np.arange(1, 11), (name,))
    )
    ros.until(lambda: system.track(-1)[1][0, 0, 2] > before[2] + 0.19, "way of the joint")
    ros.until(lambda: not system.track(-1)[1][0, 1].any(), "arm at rest")
    after = system.track(-1)[1][0, 0]
    expected = before + 0.2 * (np.arange(7) == 2)
    assert after == pytest.approx(expected, abs=5e-3)


@pytest.mark.ros
def test_chunks_at_20_hz_with_80_ms_jitter_make_no_velocity_step(system):
    ros, rng = system.ros, np.random.default_rng(0)
    due = 0.05 * np.arange(1, 17)
    began = time.time()
    # A policy observes, computes for 60 ms and up to 80 ms more: chunks overtake each other.
    sends = sorted((t + 0.06 + 0.08 * rng.random(), t) for t in began + 0.05 * np.arange(160))
    first = clamped = starved = 0
    for at, stamp in sends:
        ros.spin(at - time.time())
        if not first and at > began + 1.5:  # it began far from the wave
            first = len(system.setpoints)
            clamped, starved = system.clamped(), system.starved()
        system.output.publish(message(wave(stamp + due), due, stamp=stamp))
    in_time, unchanged = system.starved() == starved, system.clamped() == clamped
    last = sends[-1][0]
    ros.until(lambda: seconds(system.setpoints[-1].header.stamp) > last, "the last setpoints")
    t, setpoints, stamps = system.track(first)
    # Messages may have waited in the queue of this test.
    t, setpoints, stamps = (
        values[(stamps > began + 1.5) & (stamps <= last)] for values in (t, setpoints, stamps)
    )
    assert len(t) > 150
    y, yd, ydd = np.moveaxis(setpoints, 1, 0)
    step = np.diff(t)
    assert step.min() >= 0.5 / RATE
    # Between ticks velocity changes as the accelerations say, which stay below the limit; a tick
    # that is late, but not missed, has a time that is off by up to a period.
    assert (np.abs(np.diff(yd, axis=0)) <= LIMIT * (step[:, None] + 1.0 / RATE)).all()
    assert (np.abs(ydd[:, :6]) <= LIMIT[:6]).all()
    ros.until(lambda: system.refusals("order") > 0, "chunk that was overtaken")
    # Where the machine stalls for longer than a chunk lasts, the arm brakes and starts again.
    if in_time:
        assert unchanged
        assert np.sqrt(np.mean((y - wave(stamps)) ** 2)) < 0.03


@pytest.mark.ros
def test_garbage_is_refused_while_the_last_good_chunk_goes_on(system):
    ros, due = system.ros, 0.05 * np.arange(1, 41)
    target, began = HOME + 0.1, time.time()
    system.output.publish(message(np.tile(target, (40, 1)), due, stamp=began))
    names, many = ARM.joint_names, np.tile(target, (3, 1))
    garbage = {
        "joint_names": lambda: message(np.zeros((3, 1)), [1, 2, 3], ("elbow",)),
        "points": lambda: message([], []),
        "non_finite": lambda: message([[np.inf] * 7], [1.0]),
        "times": lambda: message(many, [0.3, 0.2, 0.1]),
        "past": lambda: message(many, [0.1, 0.2, 0.3], names, time.time() - 5.0),
        "future": lambda: message(many, [0.1, 0.2, 0.3], names, time.time() + 5.0),
        "order": lambda: message(many, [10.0, 20.0, 30.0], names, began - 0.5),
    }
    for reason, bad in garbage.items():
        before, start = system.refusals(reason), len(system.diagnostics)
        system.output.publish(bad())
        ros.until(lambda r=reason, n=before: system.refusals(r) > n, f"refusal for {reason}")
        ros.until(lambda r=reason, n=start: system.said(n, r), f"report of {reason}")
    ros.until(lambda: np.abs(system.track(-1)[1][0, 0] - target).max() < 2e-3, "arm at the target")
