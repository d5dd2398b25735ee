# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The ros2_control backend against controllers in a process of their own, over real DDS."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")

import rclpy
from rclpy.parameter import Parameter as RosParameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_support import PATIENCE, Ros, ros_system
from sensor_msgs.msg import JointState as JointStateMessage
from std_msgs.msg import Float64MultiArray, String

from ndp_ros.arms.ros2_control import make, progress
from ndp_ros.arms.ros2_control.arm import Ros2ControlArm
from ndp_ros.arms.ros2_control.bridge import forward
from ndp_ros.arms.ros2_control.config import Ros2ControlConfig
from ndp_ros.arms.ros2_control.joint_states import JointStateReader, VelocityEstimate
from ndp_ros.arms.ros2_control.limits import limits_of, tightened
from ndp_ros.arms.ros2_control.packets import LARGEST, STATE, Numbers
from ndp_ros.config import from_mapping
from ndp_ros.control.arm import Arm, ArmConfig, ArmInfo, Command, JointState
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response
from ndp_ros.errors import ArmError, ConfigError
from ndp_ros.nodes import parameters
from ndp_ros.nodes.messages import stamp_of
from ndp_ros.streaming.config import RuntimeConfig, StreamSpec
from ndp_ros.streaming.guard import FAULT, Guard
from ndp_ros.streaming.mailbox import Mailbox, MailboxLayout
from ndp_ros.streaming.process import start
from ndp_ros.streaming.streamer import DONE

pytestmark = pytest.mark.ros

ARM = ArmConfig.named("gen3")
N, RATE = 6, 200.0
HOME = np.array(ARM.home)
NAMES = [f"lab_{name}" for name in ARM.joint_names]
OPTIONS: dict[str, Any] = {
    "joints": NAMES[:N],
    "gripper_joint": NAMES[N],
    "gripper_controller": "hand",
    "controller_timeout": 30.0,
}


class Controllers:
    """The stand-in for ros2_control, and what it was told."""

    def __init__(self, ros: Ros) -> None:
        self.ros = ros
        self.told = ros.listen(Float64MultiArray, "told")
        self.process = ros.start("fake_controller", *NAMES, PYTHONPATH=str(Path(__file__).parent))
        ros.until(lambda: self.told, "controllers")

    def count(self, place: int) -> float:
        return float(self.told[-1].data[place])

    def count_now(self, place: int) -> float:
        """Return a count that is no older than this call, whatever waits in the queue."""
        last = len(self.told) + 20
        self.ros.until(lambda: len(self.told) > last, "counts")
        return self.count(place)


@pytest.fixture(scope="module")
def controllers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controllers]:
    with ros_system(tmp_path_factory.mktemp("control")) as ros:
        yield Controllers(ros)


def built(mode: str, options: dict[str, Any]) -> tuple[Ros2ControlArm, Any]:
    settings = from_mapping(Ros2ControlConfig, OPTIONS | options)
    return make(ARM, task="", command_mode=mode, rate=RATE, seed=0, settings=settings)


@pytest.fixture
def connect(
    controllers: Controllers, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[Ros2ControlArm, Any]]]:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(controllers.ros.domain))
    made = []

    def connect(mode: str = "position", **options: Any) -> tuple[Ros2ControlArm, Any]:
        arm, omega = built(mode, options)
        made.append(arm)
        arm.connect()
        return arm, omega

    yield connect
    for arm in made:
        arm.close()


@pytest.fixture
def linked() -> Iterator[Callable[..., tuple[Ros2ControlArm, socket.socket]]]:
    """Return arms whose bridge is this test: what it sends is what the arm says."""
    made: list[Any] = []

    def linked(mode: str = "position", **options: Any) -> tuple[Ros2ControlArm, socket.socket]:
        arm, _ = built(mode, options)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        arm.attach(ours)
        made.extend((arm, theirs))
        return arm, theirs

    yield linked
    for each in made:
        each.close()


@pytest.fixture
def reader() -> JointStateReader:
    info = ArmInfo.from_config(ARM, ("position",))
    return JointStateReader(NAMES, info, estimate_velocities=True)


def take(reader: JointStateReader, message: JointStateMessage, publisher: bytes = b"one") -> bool:
    return reader.take(message, publisher, time.monotonic_ns())


def children_of(parent: int, module: str) -> list[int]:
    """Return the children of a process that run a module."""
    listed = subprocess.run(
        ["ps", "--ppid", str(parent), "-o", "pid=,args="],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [int(line.split()[0]) for line in listed if module in line]


def told(position: Any, velocity: Any = np.nan) -> bytes:
    """Return a joint state as the bridge tells it, without efforts."""
    numbers = Numbers(7)
    numbers.data[0] = time.monotonic()
    numbers.position[:], numbers.velocity[:] = position, velocity
    return numbers.encode(STATE)


def decoded(packet: bytes) -> Numbers:
    numbers = Numbers(7)
    numbers.decode(packet)
    return numbers


def drive(arm: Ros2ControlArm, goal: np.ndarray, mode: str = "position") -> JointState:
    """Command a posture until the arm is there."""
    command, state = Command.zeros(7, mode), JointState.zeros(7)
    # A loop begins where the arm is.
    command.position[:] = arm.read(state).position
    arm.write(command)
    command.position[:] = goal
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        arm.write(command)
        time.sleep(1.0 / RATE)
        if np.abs(arm.read(state).position - goal).max() < 1e-6:
            return state
    raise AssertionError(f"the arm is at {state.position}, not at {goal}")


@pytest.mark.parametrize(("kind", "place"), [("group", 0), ("trajectory", 1)])
def test_position_controller_gets_setpoints_and_joint_states_come_back(
    connect, controllers, kind, place
) -> None:
    before = controllers.count(place)
    arm, _ = connect(controller_kind=kind)
    assert isinstance(arm, Arm)
    assert arm.connect().joint_names == ARM.joint_names
    state = arm.read(JointState.zeros(7))
    assert abs(time.monotonic() - state.time) < PATIENCE
    goal = np.array([0.3, -0.2, -1.0, 0.1, 0.4, 1.0, 0.5 + 0.1 * place])
    state = drive(arm, goal)
    assert state.time <= time.monotonic()
    controllers.ros.until(lambda: controllers.count(place) > before, "commands")
    arm.stop()
    arm.stop()
    arm.close()
    arm.close()


def test_effort_controller_gets_torques(connect, controllers) -> None:
    before = controllers.count(2)
    arm, omega = connect("torque")
    assert omega.mode == "torque"
    command, state = Command.zeros(7, "torque"), JointState.zeros(7)
    command.torque[:N] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    end = time.monotonic() + PATIENCE
    while not np.allclose(state.effort[:N], command.torque[:N]) and time.monotonic() < end:
        arm.write(command)
        time.sleep(0.01)
        arm.read(state)
    np.testing.assert_allclose(state.effort[:N], command.torque[:N])
    controllers.ros.until(lambda: controllers.count(2) > before, "efforts")


def test_arm_in_dry_run_is_not_judged_for_standing_still(linked, monkeypatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    arm, link = linked(dry_run=True)
    command, state = Command.zeros(7, "position"), JointState.zeros(7)
    link.send(told(HOME))
    command.position[:] = arm.read(state).position + 0.05
    for _ in range(5):
        arm.write(command)
        time.sleep(0.001)
        arm.read(state)
    with pytest.raises(BlockingIOError):
        link.recv(LARGEST)


def test_dry_run_reads_and_never_commands(connect, controllers) -> None:
    before = controllers.count(0)
    arm, _ = connect(dry_run=True)
    command = Command.zeros(7, "position")
    for _ in range(20):
        arm.write(command)
        time.sleep(0.01)
    controllers.ros.spin(0.2)
    assert controllers.count(0) == before


def test_who_is_missing_is_named_with_what_to_do(connect) -> None:
    with pytest.raises(ArmError, match=r"no joint state with a, b, .* is joint_state_broadcaster"):
        connect(joints=list("abcdef"), controller_timeout=1.5)
    with pytest.raises(ArmError, match="nobody listens on /sleeping/commands: activate the contr"):
        connect(controller="sleeping", controller_timeout=1.5)
    with pytest.raises(ArmError, match="nobody listens on /asleep/commands"):
        connect(gripper_controller="/asleep", controller_timeout=1.5)
    with pytest.raises(ConfigError, match="joints names 2 joints, gen3 has 6"):
        connect(joints=["a", "b"])
    with pytest.raises(ConfigError, match="trajectory takes no torque"):
        connect("torque", controller_kind="trajectory")


@pytest.mark.parametrize("lost", [range(N), [3]])
def test_arm_joint_that_loses_its_velocity_is_a_fault_and_never_counts_as_at_rest(
    linked, lost
) -> None:
    arm, bridge = linked("torque")
    guard, home = (
        Guard(ArmInfo.from_config(ARM, ("torque",)), RuntimeConfig.named("hardware")),
        np.array(ARM.home),
    )
    guard.rest_at(home)
    velocity = np.zeros(7)
    velocity[-1] = np.nan  # the gripper is driven by position
    bridge.send(told(home, velocity))
    state = arm.read(JointState.zeros(7))
    assert guard.measured(home, state, 0.0) != FAULT
    velocity[list(lost)] = np.nan
    bridge.send(told(home, velocity))
    assert guard.measured(home, arm.read(state), 0.0) == FAULT
    assert guard.fault == "feedback_not_finite"


def test_torques_are_refused_where_velocities_are_not_told(connect) -> None:
    with pytest.raises(
        ArmError, match=r"/bare_states has no velocity of lab_joint_1, .*state interface velocity"
    ):
        connect("torque", joint_states="/bare_states", controller_timeout=1.5)


def test_position_mode_estimates_velocities_that_are_not_told(connect) -> None:
    arm, _ = connect(joint_states="/bare_states", gripper_controller="")
    command, state = Command.zeros(7, "position"), JointState.zeros(7)
    end = time.monotonic() + PATIENCE
    while not state.velocity[:N].all():
        assert time.monotonic() < end
        command.position[:N] += 0.01
        arm.write(command)
        time.sleep(1.0 / RATE)
        assert np.isfinite(arm.read(state).velocity).all()


@pytest.mark.parametrize("origin", [0.0, 1.7e9])
def test_estimated_velocity_is_exact_at_constant_speed_however_measurements_come(origin) -> None:
    estimate, speed = VelocityEstimate(2), np.array([0.7, -1.3])
    rng, at, highest = np.random.default_rng(0), 0.0, 0.0
    assert not estimate.update(np.array([0.2, 0.3]), origin).any()
    for _ in range(1000):
        at += float(rng.choice([1e-6, 1e-3, 5e-3, 0.1]))
        velocity = estimate.update(np.array([0.2, 0.3]) + speed * at, origin + at)
        highest = max(highest, float(np.abs(velocity / speed).max()))
    np.testing.assert_allclose(velocity, speed, rtol=1e-4)
    assert highest < 1.001, "no short time between two of them is a peak of speed"


def test_joint_that_is_measured_late_or_again_has_a_velocity_from_then_on() -> None:
    estimate, nan = VelocityEstimate(2), np.nan
    steps = ([0.0, nan], [0.0, 0.4], [nan, 0.4], [0.5, 0.4], [0.5, 0.5])
    found = [estimate.update(np.array(p), 0.01 * i) for i, p in enumerate(steps)]
    assert np.isnan(found[0][1]) and np.isnan(found[2][0])
    assert found[1][1] == 0.0 and found[3][0] == 0.0
    assert found[4][1] > 0.0


def test_gripper_gets_no_command_until_its_setpoint_changes(linked) -> None:
    arm, bridge = linked()
    start = np.append(ARM.home[:N], 0.36)  # on an object: it was told to close further
    bridge.send(told(start))
    command = Command.zeros(7, "position")
    command.position[:] = arm.read(JointState.zeros(7)).position
    sent = []
    for grip in (0.36, 0.36, 0.3605, 0.37, 0.36):
        command.position[-1] = grip
        arm.write(command)
        sent.append(decoded(bridge.recv(LARGEST)).position[-1])
    np.testing.assert_array_equal(sent, [np.nan, np.nan, np.nan, 0.37, 0.36])


def test_gripper_that_was_given_a_grip_starts_there_and_presses(linked) -> None:
    arm, bridge = linked(grip=0.46)
    for measured in (0.36, np.nan):
        bridge.send(told(np.append(ARM.home[:N], measured)))
        state = arm.read(JointState.zeros(7))
        assert state.position[-1] == 0.46
    command = Command.zeros(7, "position")
    command.position[:] = state.position
    arm.write(command)
    assert decoded(bridge.recv(LARGEST)).position[-1] == 0.46
    bridge.send(told(np.append(ARM.home[:N], 0.36)))
    assert arm.read(state).position[-1] == 0.36


def test_controller_of_the_gripper_hears_nothing_before_it_is_to_move(connect, controllers) -> None:
    arm, _ = connect()
    before, state = controllers.count_now(3), arm.read(JointState.zeros(7))
    goal = state.position + np.array([0.05] * N + [0.0])
    drive(arm, goal)
    goal[-1] = 0.2 if goal[-1] > 0.4 else 0.7
    drive(arm, goal)
    assert controllers.count_now(3) == before + 1


def test_gripper_that_nobody_measures_is_commanded_from_a_given_grip_alone(connect) -> None:
    with pytest.raises(
        ArmError,
        match=r"/bare_states does not report lab_gripper .*where it starts \(option grip\)",
    ):
        connect(joint_states="/bare_states", controller_timeout=1.5)
    arm, _ = connect(joint_states="/bare_states", grip=0.3)
    assert arm.read(JointState.zeros(7)).position[-1] == 0.3
    connect(joint_states="/bare_states", dry_run=True)
    with pytest.raises(ConfigError, match=r"grip is 2, the gripper of gen3 takes 0 to 0.81 \[rad"):
        connect(grip=2.0)


def test_joint_state_that_is_no_newer_than_the_last_is_ignored(reader) -> None:
    def heard(position: float, stamp: int) -> tuple[float, float]:
        message = JointStateMessage(name=NAMES, position=[position] * 7)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        take(reader, message)
        return float(reader.numbers.position[0]), reader.numbers.time

    now = 1_700_000_000_000_000_000
    first = heard(0.1, now)
    assert first[0] == 0.1
    assert heard(0.2, now) == first, "repeated feedback grows old"
    assert heard(0.2, now - 1) == first
    assert heard(0.3, now + 1)[0] == 0.3, "a nanosecond is enough"
    assert heard(0.4, 0)[0] == 0.4, "a message without a stamp counts"
    assert heard(0.5, 0)[0] == 0.5


def test_joint_states_count_although_the_clock_of_their_stamps_is_set(reader) -> None:
    message = JointStateMessage(name=NAMES)
    position, ahead = np.array(HOME), {40: 3600.0, 60: 3600.0, 61: -20.0}
    for n in range(120):
        position[0] += 0.5 * 0.005
        message.position = position.tolist()
        steps = ahead.get(n, -20.0 if n > 61 else 0.0)
        message.header.stamp = stamp_of(1_700_000_000.0 + 0.005 * n + steps)
        time.sleep(0.005)
        assert take(reader, message)
        assert reader.numbers.position[0] == pytest.approx(position[0])
        assert 0.0 <= time.monotonic() - reader.numbers.time < 60.0
        if n > 40:
            assert reader.numbers.velocity[0] == pytest.approx(0.5, abs=0.3)


def test_joint_states_of_a_second_publisher_are_counted_and_never_mixed_in(reader) -> None:
    message = JointStateMessage(name=NAMES)
    for n in range(21):
        publisher, position = (b"one", HOME + 0.001 * n) if n % 2 == 0 else (b"two", HOME + 2.0)
        message.position = position.tolist()
        message.header.stamp = stamp_of(1000.0 + 0.005 * n)
        assert take(reader, message, publisher) == (publisher == b"one")
        np.testing.assert_allclose(reader.numbers.position, HOME + 0.001 * (n - n % 2))
    assert reader.numbers.ignored == 10
    assert reader.rival == b"two" and reader.contested(time.monotonic_ns())


def test_second_publisher_takes_over_once_the_first_is_silent(reader) -> None:
    message = JointStateMessage(name=NAMES, position=HOME.tolist())
    assert reader.take(message, b"one", 10 * 10**9)
    message.position = (HOME + 0.1).tolist()
    assert not reader.take(message, b"two", 10 * 10**9 + 900_000_000)
    assert reader.take(message, b"two", 11 * 10**9)
    assert reader.publisher == b"two"
    np.testing.assert_allclose(reader.numbers.position, HOME + 0.1)


def test_readings_ignored_by_the_bridge_are_counted_as_rejected(linked) -> None:
    arm, link = linked()
    numbers = Numbers(7)
    numbers.data[:2] = time.monotonic(), 3
    numbers.position[:] = HOME
    link.send(numbers.encode(STATE))
    assert arm.read(JointState.zeros(7)).rejected == 3


@contextmanager
def second_publisher(ros: Ros) -> Iterator[None]:
    """Publish other positions of the arm's joints on bare_states meanwhile."""
    rival = ros.node.create_publisher(JointStateMessage, "bare_states", 1)
    message = JointStateMessage(name=NAMES[:N], position=[0.5] * N)
    timer = ros.node.create_timer(0.005, lambda: rival.publish(message))
    ended = threading.Event()

    def spin() -> None:
        while not ended.wait(0.001):
            ros.spin(0.02)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        ros.node.destroy_timer(timer)
        ros.node.destroy_publisher(rival)


def test_start_is_refused_while_two_nodes_publish_the_joints_of_the_arm(
    connect, controllers
) -> None:
    refusal = r"/controller_manager.* publish joint states on /bare"
    with second_publisher(controllers.ros), pytest.raises(ArmError, match=refusal):
        connect(joint_states="/bare_states", gripper_controller="", controller_timeout=3.0)


def test_publisher_that_joins_later_is_named_and_ignored(connect, controllers, capfd) -> None:
    arm, _ = connect(joint_states="/bare_states", gripper_controller="")
    before = arm.read(JointState.zeros(7)).position[:N].copy()
    state, end = JointState.zeros(7), time.monotonic() + PATIENCE
    with second_publisher(controllers.ros):
        while arm.read(state).rejected < 5:
            assert time.monotonic() < end
            np.testing.assert_allclose(state.position[:N], before)
            time.sleep(0.01)
    assert "beside /controller_manager and is ignored" in capfd.readouterr().err


@pytest.mark.parametrize("topic", ["/joint_states", "joint_states"])
def test_topic_where_the_caller_publishes_itself_is_refused(topic) -> None:
    settings = Ros2ControlConfig(joint_states=topic)
    with pytest.raises(ConfigError, match=r"-r joint_states:=ndp/joint_states \(ndp run"):
        settings.refuse_echo("/joint_states")
    settings.refuse_echo("/ndp/joint_states")
    settings.refuse_echo("/lab/joint_states")


def test_integrator_that_would_hear_its_own_echo_does_not_start(ros) -> None:
    node = ros.start_node(
        "integrator_node", hardware="ros2_control", arm="gen3", task="", command_mode="position"
    )
    assert ros.wait_exit(node) == 2
    assert "joint_states is /joint_states, where this node publishes its own" in ros.said(node)


def test_bridge_that_was_held_up_skips_to_the_newest_command(linked) -> None:
    arm, bridge = linked()
    bridge.send(told(ARM.home))
    command, sent = Command.zeros(7, "position"), []
    command.position[:] = arm.read(JointState.zeros(7)).position
    for tick in range(50):
        command.position[0] = 0.01 * tick
        arm.write(command)
    arm.close()
    ended = threading.Event()
    bridge.setblocking(True)
    forward(bridge, lambda packet: sent.append(decoded(packet).position[0]), ended)
    assert sent == [0.01 * 49]
    assert ended.is_set()


def test_bridge_that_cannot_publish_ends_instead_of_telling_states_alone(linked) -> None:
    arm, bridge = linked()
    bridge.send(told(ARM.home))
    command = Command.zeros(7, "position")
    command.position[:] = arm.read(JointState.zeros(7)).position
    arm.write(command)
    ended = threading.Event()

    def publish(packet: bytes) -> None:
        raise RuntimeError("a publisher that is gone")

    with pytest.raises(RuntimeError, match="a publisher that is gone"):
        forward(bridge, publish, ended)
    assert ended.is_set()


def test_command_that_is_no_number_is_refused_and_another_mode_too(connect) -> None:
    arm, _ = connect()
    command = Command.zeros(7, "position")
    command.position[2] = np.nan
    with pytest.raises(ArmError, match="not finite"):
        arm.write(command)
    with pytest.raises(ArmError, match="torque"):
        arm.write(Command.zeros(7, "torque"))


def test_bridge_that_dies_is_noticed(connect) -> None:
    arm, _ = connect()
    (child,) = children_of(os.getpid(), "ndp_ros.arms.ros2_control.bridge")
    os.kill(child, signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    with pytest.raises(ArmError, match="the bridge to ROS 2 has ended"):
        while time.monotonic() < end:
            arm.read(JointState.zeros(7))


def test_streamer_drives_the_controllers_and_no_bridge_outlives_it(controllers, connect) -> None:
    spec = StreamSpec(
        hardware="ros2_control",
        arm="gen3",
        task="",
        command_mode="position",
        ros2_control=from_mapping(Ros2ControlConfig, OPTIONS),
        runtime=RuntimeConfig(
            rate=RATE,
            priority=0,
            heartbeat_timeout=30.0,
            parent_timeout=60.0,
            max_parameter_age=5.0,
            feedback_timeout=5.0,
            stall_timeout=5.0,
        ),
    )
    box = Mailbox.create(MailboxLayout(7, max_rows=spec.runtime.max_rows, max_basis=4))
    process = start(spec, box)
    try:

        def until(condition: Callable[[], Any]) -> None:
            end = time.monotonic() + PATIENCE
            while not condition():
                if time.monotonic() > end or process.poll() is not None:
                    raise AssertionError(f"status {process.poll()}: {box.report()}")
                box.beat()
                time.sleep(0.01)

        until(lambda: box.handshake() is not None)
        box.requests.wait(box.requests.ask("follow"), PATIENCE)
        box.state.load()
        home = np.array(box.state["position"])
        times = np.arange(spec.runtime.rows(0.5)) / (RATE * 0.5)
        dmp = DmpConfig(n_basis=3)
        handle = box.send_response(response(dmp, times), 0.5)
        # Other tests may have left a joint at its limit: move each towards its middle.
        goal = home + np.array([*np.where(home[:N] > 0.0, -0.2, 0.2), 0.0])
        box.send_segment(goal, np.zeros((7, 3)), time.monotonic(), 1, handle)

        def moved() -> bool:
            box.state.load()
            return bool(np.abs(box.state["position"] - home)[:N].min() > 0.05)

        until(moved)
        children = subprocess.run(
            ["ps", "--ppid", str(process.pid), "-o", "pid="],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert len(children) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == DONE
        assert not Path(f"/proc/{children[0]}").exists()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        box.close()


def test_commands_are_in_the_order_of_the_controller_whatever_that_is(connect, controllers) -> None:
    arm, _ = connect()
    goal = arm.read(JointState.zeros(7)).position.copy()
    goal[:N] = np.linspace(-0.2, 0.3, N)
    state = drive(arm, goal)
    np.testing.assert_allclose(state.position, goal, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"controller": "other_controller"}, "other_controller drives lab_joint_2, lab_joint_3"),
        ({"controller": "forward_effort_controller"}, "takes effort, not position"),
        ({"controller": "nobody"}, "nobody listens on /nobody/commands"),
    ],
)
def test_a_controller_of_other_joints_is_refused(connect, options, why) -> None:
    with pytest.raises(ArmError, match=why):
        connect(**options, controller_timeout=2.0)


def test_a_controller_that_takes_nothing_is_named(linked) -> None:
    arm, link = linked()
    command, state = Command.zeros(7, "position"), JointState.zeros(7)
    link.send(told(HOME))
    command.position[:] = arm.read(state).position
    command.position[:N] += 0.05
    with pytest.raises(ArmError, match=r"takes no commands: the arm has not moved for 0\.5 s"):
        for _ in range(2000):
            link.send(told(HOME))
            arm.write(command)
            arm.read(state)
            time.sleep(0.001)


def test_an_arm_that_has_followed_once_may_be_held_up(linked) -> None:
    arm, link = linked()
    command, state = Command.zeros(7, "position"), JointState.zeros(7)
    link.send(told(HOME))
    command.position[:] = arm.read(state).position
    arm.write(command)
    link.send(told(HOME + 0.01))
    arm.read(state)
    command.position[:N] += 0.5
    for _ in range(800):
        link.send(told(HOME + 0.01))
        arm.write(command)
        arm.read(state)
        time.sleep(0.001)


def test_velocities_are_estimated_past_a_turn_and_a_wrong_position(reader) -> None:
    message = JointStateMessage(name=NAMES)
    for n in range(200):
        angle = 3.0 + 0.5 * 0.005 * n
        position = list(HOME)
        position[0] = (angle + np.pi) % (2 * np.pi) - np.pi
        if n == 100:
            position[2] += 2.5
        message.position = position
        message.header.stamp = stamp_of(1000.0 + 0.005 * n)
        take(reader, message)
        if n > 60:
            assert reader.numbers.velocity[0] == pytest.approx(0.5, abs=0.05)
            assert np.abs(reader.numbers.velocity[1:]).max() < 1e-6


def test_names_belong_to_the_namespace_unless_they_are_absolute() -> None:
    for namespace, options, expected in (
        ("/", {}, "/forward_position_controller"),
        ("/left", {}, "/left/forward_position_controller"),
        ("/left", {"controller": "/c"}, "/c"),
        ("right", {"controller_kind": "trajectory"}, "/right/joint_trajectory_controller"),
    ):
        settings = Ros2ControlConfig(controller_namespace=namespace, **options)
        assert settings.controller_for("position") == expected


@pytest.mark.parametrize(("given", "grip"), [(None, None), (0.3, 0.3), (1, 1.0)])
def test_parameter_that_may_be_absent_is_a_number_or_empty_and_sets_every_backend(
    given, grip
) -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    overrides = [] if given is None else [RosParameter("grip", value=given)]
    node = rclpy.create_node("grip", context=context, parameter_overrides=overrides)
    try:
        parameters.declare(node, StreamSpec)
        spec = parameters.read(node, StreamSpec)
        assert spec.ros2_control.grip == spec.kortex.grip == grip
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def urdf(**limits: str) -> str:
    joints = "".join(
        f'<joint name="{name}" type="revolute"><limit {limit}/></joint>'
        for name, limit in limits.items()
    )
    return f'<robot name="r">{joints}</robot>'


def test_limits_of_a_robot_description_count_where_they_are_tighter(connect, controllers) -> None:
    first, second = NAMES[:2]
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = controllers.ros.node.create_publisher(String, "described", latched)
    one = 'lower="-0.5" upper="99" velocity="0.25" effort="0"'
    publisher.publish(String(data=urdf(**{first: one, second: 'velocity="1e9"', "other": one})))
    own = ArmInfo.from_config(ARM, ("position",))
    arm, _ = connect(robot_description="/described")
    info = arm.connect()
    assert (info.lower[0], info.upper[0]) == (-0.5, own.upper[0])
    assert (info.max_velocity[0], info.max_torque[0]) == (0.25, own.max_torque[0])
    for name in ("lower", "upper", "max_velocity", "max_torque"):
        np.testing.assert_array_equal(getattr(info, name)[1:], getattr(own, name)[1:])
    controllers.ros.node.destroy_publisher(publisher)


def test_a_description_that_leaves_a_joint_no_range_is_refused_and_what_is_none_ignored() -> None:
    info = ArmInfo.from_config(ARM, ("position",))
    nothing = urdf(**{NAMES[0]: 'lower="1e3" upper="1e4" velocity="nan"'})
    with pytest.raises(ArmError, match=f"leave {ARM.joint_names[0]} no range"):
        tightened(info, limits_of(nothing, NAMES))
    assert limits_of("<robot", NAMES) == limits_of("", NAMES) == {}
    endless = urdf(**{NAMES[0]: 'lower="0" upper="0"'}).replace("revolute", "continuous")
    assert limits_of(endless, NAMES) == {}
