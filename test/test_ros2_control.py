"""The ros2_control backend against controllers in a process of their own, over real DDS."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")

import rclpy
from ros_support import PATIENCE, Ros, ros_system
from sensor_msgs.msg import JointState as JointStateMessage
from std_msgs.msg import Float64MultiArray

from ndp_ros.arms.arm import Arm, ArmConfig, Command, JointState
from ndp_ros.arms.ros2_arm import (
    LARGEST,
    STATE,
    Ros2ControlArm,
    in_namespace,
    make,
    refuse_echo,
    resource,
)
from ndp_ros.arms.ros2_control import Bridge, VelocityEstimate, forward
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response
from ndp_ros.errors import ArmError, ConfigError
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
    "joints": NAMES[:N], "gripper_joint": NAMES[N], "gripper_controller": "hand", "timeout": 30.0,
}  # fmt: skip


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


@pytest.fixture
def connect(
    controllers: Controllers, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[Ros2ControlArm, Any]]]:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(controllers.ros.domain))
    made = []

    def connect(mode: str = "position", **options: Any) -> tuple[Ros2ControlArm, Any]:
        arm, omega = make(ARM, task="", command_mode=mode, rate=RATE, seed=0, **(OPTIONS | options))
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
        arm, _ = make(ARM, task="", command_mode=mode, rate=RATE, seed=0, **(OPTIONS | options))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        arm._socket = ours
        made.extend((arm, theirs))
        return arm, theirs

    yield linked
    for each in made:
        each.close()


@pytest.fixture
def bridge(linked, controllers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    """Return a bridge in this process; ``loop`` is the arm at the other end of its socket."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(controllers.ros.domain))
    arm, link = linked()
    rclpy.init()
    bridge = Bridge(link, json.loads(json.dumps(arm._task)))
    bridge.loop = arm
    yield bridge
    bridge.node.destroy_node()
    rclpy.try_shutdown()


def told(position: Any, velocity: Any = np.nan) -> bytes:
    """Return a joint state as the bridge tells it, without efforts."""
    rows = [np.broadcast_to(np.asarray(row, float), (7,)) for row in (position, velocity, np.nan)]
    return STATE + np.concatenate(([time.monotonic()], *rows)).tobytes()


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
    arm, _ = connect(kind=kind)
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
        connect(joints=list("abcdef"), timeout=1.0)
    with pytest.raises(ArmError, match="nobody listens on /sleeping/commands: activate the contr"):
        connect(controller="sleeping", timeout=1.0)
    with pytest.raises(ArmError, match="nobody listens on /asleep/commands"):
        connect(gripper_controller="/asleep", timeout=1.0)
    with pytest.raises(ConfigError, match="joints names 2 joints, gen3 has 6"):
        connect(joints=["a", "b"])
    with pytest.raises(ConfigError, match="trajectory takes no torque"):
        connect("torque", kind="trajectory")


@pytest.mark.parametrize("lost", [range(N), [3]])
def test_arm_joint_that_loses_its_velocity_is_a_fault_and_never_counts_as_at_rest(
    linked, lost
) -> None:
    arm, bridge = linked("torque")
    guard, home = Guard(arm._info, RuntimeConfig.named("hardware")), np.array(ARM.home)
    guard.seat(home)
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
        ArmError, match=r"/bare_states tells no velocity of lab_joint_1, .*state interface velocity"
    ):
        connect("torque", joint_states="/bare_states", timeout=1.0)


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
        sent.append(np.frombuffer(bridge.recv(LARGEST), np.float64, offset=1)[7])
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
    assert np.frombuffer(bridge.recv(LARGEST), np.float64, offset=1)[7] == 0.46
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
        match=r"/bare_states does not tell lab_gripper .*say where it starts \(option grip\)",
    ):
        connect(joint_states="/bare_states", timeout=1.0)
    arm, _ = connect(joint_states="/bare_states", grip=0.3)
    assert arm.read(JointState.zeros(7)).position[-1] == 0.3
    connect(joint_states="/bare_states", dry_run=True)
    with pytest.raises(ConfigError, match=r"grip is 2, the gripper of gen3 takes 0 to 0.81 \[rad"):
        connect(grip=2.0)


def test_joint_state_that_is_no_newer_than_the_last_is_no_news(bridge) -> None:
    def heard(position: float, stamp: int) -> tuple[float, float]:
        message = JointStateMessage(name=NAMES, position=[position] * 7)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        bridge._on_state(message)
        state = bridge.loop.read(JointState.zeros(7))
        return float(state.position[0]), state.time

    now = 1_700_000_000_000_000_000
    first = heard(0.1, now)
    assert first[0] == 0.1
    assert heard(0.2, now) == first, "feedback that is passed on again does not stay young"
    assert heard(0.2, now - 1) == first
    assert heard(0.3, now + 1)[0] == 0.3, "a nanosecond is enough"
    assert heard(0.4, 0)[0] == 0.4, "who stamps nothing is believed"
    assert heard(0.5, 0)[0] == 0.5


def test_joint_states_are_news_though_the_clock_of_their_stamps_is_set(bridge) -> None:
    message = JointStateMessage(name=list(bridge._joints))
    position, ahead = np.array(HOME), {40: 3600.0, 60: 3600.0, 61: -20.0}
    for n in range(120):
        position[0] += 0.5 * 0.005
        message.position = position.tolist()
        steps = ahead.get(n, -20.0 if n > 61 else 0.0)
        message.header.stamp = stamp_of(1_700_000_000.0 + 0.005 * n + steps)
        time.sleep(0.005)
        bridge._on_state(message)
        state = bridge.loop.read(JointState.zeros(7))
        assert state.position[0] == pytest.approx(position[0])
        assert 0.0 <= time.monotonic() - state.time < 60.0
        if n > 40:
            assert bridge._velocity[0] == pytest.approx(0.5, abs=0.3)


@pytest.mark.parametrize("topic", ["/joint_states", "joint_states"])
def test_topic_where_the_caller_publishes_itself_is_refused(topic) -> None:
    options = {"joint_states": topic}
    with pytest.raises(ConfigError, match=r"-r joint_states:=ndp/joint_states \(ndp run"):
        refuse_echo(options, "/joint_states")
    refuse_echo(options, "/ndp/joint_states")
    refuse_echo(options, "/lab/joint_states")


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
    forward(bridge, lambda packet: sent.append(np.frombuffer(packet, offset=1)[1]), ended)
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
    assert arm._bridge is not None
    os.kill(arm._bridge.pid, signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    with pytest.raises(ArmError, match="the bridge to ROS 2 has ended"):
        while time.monotonic() < end:
            arm.read(JointState.zeros(7))


def test_streamer_drives_the_controllers_and_no_bridge_outlives_it(controllers, connect) -> None:
    spec = StreamSpec(
        hardware="ros2_control", arm="gen3", task="", command_mode="position",
        options=json.dumps(OPTIONS),
        runtime=RuntimeConfig(
            rate=RATE, priority=0, heartbeat_timeout=30.0, parent_timeout=60.0,
            max_parameter_age=5.0, feedback_timeout=5.0, stall_timeout=5.0,
        ),
    )  # fmt: skip
    box = Mailbox.create(MailboxLayout(7, max_rows=spec.runtime.max_rows, max_basis=4))
    process = start(spec, box)
    try:

        def until(condition: Callable[[], Any]) -> None:
            end = time.monotonic() + PATIENCE
            while not condition():
                assert time.monotonic() < end and process.poll() is None, box.report()
                box.beat()
                time.sleep(0.01)

        until(lambda: box.hello() is not None)
        box.wait(box.request("follow"), PATIENCE)
        box.state.load()
        home = np.array(box.state["position"])
        times = np.arange(spec.runtime.rows(0.5)) / (RATE * 0.5)
        dmp = DmpConfig(n_basis=3)
        handle = box.send_response(response(dmp, times), 0.5)
        goal = home + np.array([0.2] * N + [0.0])
        box.send_segment(goal, np.zeros((7, 3)), time.monotonic(), 1, handle)

        def moved() -> bool:
            box.state.load()
            return bool(np.abs(box.state["position"] - home)[:N].min() > 0.05)

        until(moved)
        children = subprocess.run(
            ["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True,
            check=True,
        ).stdout.split()  # fmt: skip
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
        connect(**options, timeout=2.0)


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


def test_velocities_are_estimated_past_a_turn_and_a_wrong_position(bridge) -> None:
    message = JointStateMessage(name=list(bridge._joints))
    for n in range(200):
        angle = 3.0 + 0.5 * 0.005 * n
        position = list(HOME)
        position[0] = (angle + np.pi) % (2 * np.pi) - np.pi
        if n == 100:
            position[2] += 2.5
        message.position = position
        message.header.stamp = stamp_of(1000.0 + 0.005 * n)
        bridge._on_state(message)
        if n > 60:
            assert bridge._velocity[0] == pytest.approx(0.5, abs=0.05)
            assert np.abs(bridge._velocity[1:]).max() < 1e-6


def test_names_belong_to_the_namespace_unless_they_are_absolute() -> None:
    for namespace, options, expected in (
        ("/", {}, "/forward_position_controller"),
        ("/left", {}, "/left/forward_position_controller"),
        ("/left", {"controller": "/c"}, "/c"),
        ("/left", {"namespace": "right", "kind": "trajectory"},
         "/right/joint_trajectory_controller"),
    ):  # fmt: skip
        assert resource(in_namespace(options, namespace), "position") == expected
