# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Messages: what goes in comes out, and whatever does not fit is rejected with its reason."""

import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
pytest.importorskip("ndp_interfaces", reason="needs the message package: pip install ./interfaces")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, KeyValue
from geometry_msgs.msg import PoseStamped
from ros_support import claim_domain
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from ndp_ros import checkpoint
from ndp_ros.dmp.config import FORCINGS, KERNELS, LAYOUTS, ORDERS, SOLVERS, DmpConfig
from ndp_ros.errors import ConfigError
from ndp_ros.nodes import diagnostics, process, scheduling
from ndp_ros.nodes.diagnostics import Health
from ndp_ros.nodes.lifecycle import NdpNode
from ndp_ros.nodes.messages import (
    CLOCK_TOLERANCE,
    REASONS,
    Parameters,
    RejectedError,
    parameters_from_message,
    parameters_to_message,
    seconds,
    stamp_of,
)
from ndp_ros.nodes.observer import Observer
from ndp_ros.nodes.process import StopSignals
from ndp_ros.observation import ObservationField, arm_observation
from ndp_ros.paths import find_checkpoint

JOINTS = ("a", "b")
NOW = 1_800_000_000.0
finite = st.floats(-1e6, 1e6)

configs = st.builds(
    DmpConfig,
    n_basis=st.integers(1, 12),
    alpha=st.floats(1.0, 100.0),
    a_x=st.floats(0.1, 5.0),
    kernel=st.sampled_from(KERNELS),
    layout=st.sampled_from(LAYOUTS),
    forcing=st.sampled_from(FORCINGS),
    solver=st.sampled_from(SOLVERS),
    m=st.integers(1, 500),
    order=st.sampled_from(ORDERS),
)


def ages(now: float):
    """Return how old a stamp is by a stopped clock."""
    return lambda stamp: now - stamp


def segment(config: DmpConfig | None = None, **changes: object) -> Parameters:
    config = config or DmpConfig()
    values = {
        "joint_names": JOINTS,
        "g": np.array([0.1, -0.2]),
        "w": np.arange(2.0 * config.n_basis).reshape(2, -1),
        "config": config,
        "duration": 0.25,
        "stamp": NOW,
        "session": 77,
        "sequence": 3,
        "checkpoint": "throw-ndp-0123456789ab",
        "origin": np.array([0.05, -0.15]),
    }
    return Parameters(**(values | changes))


@settings(max_examples=60, deadline=None)
@given(config=configs, data=st.data(), duration=st.floats(1e-3, 60.0))
def test_a_segment_survives_the_message_unchanged(config, data, duration):
    numbers = st.lists(finite, min_size=2 * config.n_basis, max_size=2 * config.n_basis)
    w = np.array(data.draw(numbers)).reshape(2, config.n_basis)
    sent = segment(config, w=w, duration=duration)
    got = parameters_from_message(parameters_to_message(sent), JOINTS, 0.01, 0.1)
    assert got.config == sent.config
    np.testing.assert_array_equal(got.g, sent.g)
    np.testing.assert_array_equal(got.w, sent.w)
    np.testing.assert_array_equal(got.origin, sent.origin)
    assert (got.duration, got.sequence, got.checkpoint) == (duration, 3, sent.checkpoint)
    assert got.session == sent.session == 77
    assert got.stamp == pytest.approx(NOW, abs=1e-6)


def test_without_an_origin_the_goal_stands_where_it_is():
    message = parameters_to_message(segment(origin=None))
    assert len(message.origin) == 0
    assert parameters_from_message(message, JOINTS, 0.0, 0.1).origin is None


def spoil(name, value):
    def change(message):
        setattr(message, name, value)

    return change


def put(name, value):
    def change(message):
        getattr(message, name)[-1] = value

    return change


def drop(name):
    def change(message):
        setattr(message, name, list(getattr(message, name))[:-1])

    return change


BAD = {
    "one joint more": ("joint_names", spoil("joint_names", ["a", "b", "c"])),
    "joints in another order": ("joint_names", lambda m: m.joint_names.reverse()),
    "no joints": ("joint_names", spoil("joint_names", [])),
    "short goal": ("sizes", drop("goal")),
    "no weights": ("sizes", spoil("weights", [])),
    "a weight too many": ("sizes", lambda m: m.weights.append(0.0)),
    "more basis functions than weights": ("sizes", spoil("n_basis", 7)),
    "an origin of another length": ("sizes", drop("origin")),
    "NaN origin": ("non_finite", put("origin", math.nan)),
    "NaN goal": ("non_finite", put("goal", math.nan)),
    "infinite weight": ("non_finite", put("weights", math.inf)),
    "unknown kernel": ("dynamics", spoil("kernel", "triangular")),
    "unknown solver": ("dynamics", spoil("solver", "")),
    "negative alpha": ("dynamics", spoil("alpha", -1.0)),
    "NaN alpha": ("dynamics", spoil("alpha", math.nan)),
    "no basis functions": ("dynamics", spoil("n_basis", 0)),
    "huge number of basis functions": ("dynamics", spoil("n_basis", 2**32 - 1)),
    "no duration": ("duration", spoil("duration", 0.0)),
    "NaN duration": ("duration", spoil("duration", math.nan)),
    "endless duration": ("duration", spoil("duration", 1e9)),
    "another start": ("start", spoil("start", "measured")),
    "old": ("stale", spoil("header", None)),
    "from the future": ("future", spoil("header", None)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_rejected_with_its_reason(name):
    reason, change = BAD[name]
    message = parameters_to_message(segment())
    age = {"stale": 1.0, "future": -1.0}.get(reason, 0.0)
    if not age:
        change(message)
    with pytest.raises(RejectedError) as caught:
        parameters_from_message(message, JOINTS, age, 0.1)
    assert caught.value.reason == reason
    assert reason in REASONS
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_every_reason_has_a_case():
    assert {reason for reason, _ in BAD.values()} == set(REASONS)


@given(st.floats(0.0, 4e9))
def test_stamps_keep_microseconds(time):
    assert seconds(stamp_of(time)) == pytest.approx(time, abs=1e-6)


def observer() -> Observer:
    return Observer(arm_observation(2, ["cube"]), JOINTS, "base")


def joint_state(names, position, velocity, stamp=NOW) -> JointState:
    message = JointState(name=names, position=position, velocity=velocity)
    message.header.stamp = stamp_of(stamp)
    return message


def setpoint_at(stamp: float, positions=(5.0, 6.0), velocities=(7.0, 8.0)) -> JointTrajectory:
    point = JointTrajectoryPoint(positions=positions, velocities=velocities)
    message = JointTrajectory(joint_names=list(JOINTS), points=[point])
    message.header.stamp = stamp_of(stamp)
    return message


def complete(o: Observer, stamp: float = NOW) -> Observer:
    o.on_joint_states(joint_state(["b", "x", "a"], [2.0, 9.0, 1.0], [4.0, 9.0, 3.0], stamp))
    o.on_setpoint(setpoint_at(stamp))
    pose = PoseStamped()
    pose.header.frame_id, pose.header.stamp = "base", stamp_of(stamp + 0.02)
    pose.pose.position.x, pose.pose.position.z = 0.5, 0.7
    o.on_pose("cube", pose)
    return o


def test_joints_are_found_by_name_whatever_their_order():
    obs, stamp = complete(observer()).observe()
    np.testing.assert_array_equal(obs, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 0, 0.7])
    assert stamp == pytest.approx(NOW)  # the oldest part


def test_joints_of_one_time_and_setpoints_of_another_are_no_observation():
    o = observer()

    def hear(joints: float, setpoint: float) -> bool:
        o.on_joint_states(joint_state(["a", "b"], [1.0, 2.0], [3.0, 4.0], NOW + joints))
        o.on_setpoint(setpoint_at(NOW + setpoint))
        return o.of_one_instant()

    assert hear(0.0, 0.0)
    assert not hear(0.0, 0.05)
    assert hear(0.055, 0.055)
    # Joint states that come from elsewhere from now on, with times of their own.
    assert [hear(0.06 + i / 100, 0.063 + i / 100) for i in range(8)] == [False] * 5 + [True] * 3


def test_every_missing_topic_is_named():
    o = observer()
    assert [phrase.split()[0] for phrase in o.missing(ages(NOW), 0.1)] == [
        "joint_states",
        "ndp/setpoint",
        "objects/cube/pose",
    ]
    assert complete(o).missing(ages(NOW + 0.05), 0.1) == []
    assert len(o.missing(ages(NOW + 1.0), 0.1)) == 3


def pose(stamp: float, x: float) -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id, message.header.stamp = "base", stamp_of(stamp)
    message.pose.position.x = x
    return message


def test_a_clock_that_is_ahead_does_not_keep_an_observation_fresh():
    o = complete(observer())
    o.on_pose("cube", pose(NOW + 10.0, 0.5))
    assert o.missing(ages(NOW), 0.1) == ["objects/cube/pose (10.0 s in the future)"]
    o.on_pose("cube", pose(NOW, 0.5))  # set right again
    assert o.missing(ages(NOW), 0.1) == []
    o.on_pose("cube", pose(NOW + 0.9 * CLOCK_TOLERANCE, 0.5))
    assert o.missing(ages(NOW), 0.1) == []


def test_an_older_message_does_not_replace_a_newer_one_unless_the_clock_was_set_back():
    o = complete(observer())

    def seen(stamp: float, x: float) -> float:
        o.on_pose("cube", pose(stamp, x))
        return float(o.observe()[0][8])

    assert seen(NOW + 1.0, 1.0) == 1.0
    assert seen(NOW + 0.95, 2.0) == 1.0
    assert seen(NOW + 1.0, 3.0) == 3.0
    assert seen(NOW - 0.5, 4.0) == 4.0


@pytest.mark.parametrize(
    ("message", "phrase"),
    [
        (joint_state(["a"], [1.0], [1.0]), "without b"),
        (joint_state(["a", "b"], [1.0], [1.0, 1.0]), "1 values of position for 2 joints"),
        (joint_state(["a", "b"], [1.0, 2.0], []), "0 values of velocity for 2 joints"),
        (joint_state(["a", "b"], [1.0, math.nan], [1.0, 1.0]), "NaN"),
    ],
)
def test_joint_states_that_cannot_be_used_say_why(message, phrase):
    o = complete(observer())
    o.on_joint_states(message)
    o.on_setpoint(setpoint_at(NOW))
    assert phrase in o.missing(ages(NOW), 0.1)[0]
    complete(o)
    assert o.missing(ages(NOW), 0.1) == []


@pytest.mark.parametrize(
    "fields",
    [
        (ObservationField("temperature", 1),),
        (ObservationField("position", 3),),
        (ObservationField("object/cube", 7),),
    ],
)
def test_fields_that_no_topic_brings_are_refused(fields):
    with pytest.raises(ConfigError):
        Observer(fields, JOINTS, "base")


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    """A ROS domain for nodes inside this process."""
    claimed, lock = claim_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(claimed))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    yield claimed
    rclpy.try_shutdown()
    lock.close()


def test_joints_of_another_arm_and_empty_trajectories_are_ignored_by_those_who_watch(domain):
    pytest.importorskip("mujoco", reason="needs MuJoCo")
    from ndp_ros.nodes.episode_node import EpisodeNode
    from ndp_ros.nodes.viewer_node import ViewerNode

    rclpy.init(args=["--ros-args", "-p", "checkpoint:=jaco_throw"])
    episodes, viewer = EpisodeNode(StopSignals()), ViewerNode()
    names = list(viewer.replay.task.joint_names)
    point = JointTrajectoryPoint(positions=[0.0, 0.0])
    try:
        for node in (episodes.sampler, viewer):
            node.on_joint_states(joint_state(["a", "b"], [1.0, 2.0], []))
            node.on_joint_states(joint_state(names, [1.0, 2.0], []))
            node.on_joint_states(joint_state(names, [], []))
        viewer.show()
        episodes.sampler.on_setpoint(JointTrajectory())
        episodes.sampler.on_setpoint(JointTrajectory(joint_names=["a", "b"], points=[point]))
        episodes.sampler.on_setpoint(JointTrajectory(joint_names=names, points=[point]))
        assert viewer.position is None
        assert not episodes.sampler.incomplete
        for node in (episodes.sampler, viewer):
            node.on_joint_states(joint_state(names, [0.1] * len(names), []))
        viewer.show()
        assert len(viewer.position) == len(names)
        assert episodes.sampler.incomplete == 1
        # And others hear that it lives, so that they can name it when it is killed.
        heard: list[DiagnosticArray] = []
        episodes.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
        deadline = time.monotonic() + 60.0
        while not heard and time.monotonic() < deadline:
            episodes.executor.spin_once(timeout_sec=0.1)
        assert KeyValue(key="state", value="active") in heard[0].status[0].values
    finally:
        episodes.destroy_node()
        viewer.destroy_node()


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("before the start", []),
        ("while it configures", ["configure", "cleanup"]),
        ("once active", ["configure", "activate", "deactivate", "cleanup"]),
    ],
)
def test_a_node_that_drives_an_arm_and_is_ended_before_it_is_active_takes_nothing(
    domain: int, monkeypatch: pytest.MonkeyPatch, moment: str, expected: list[str]
) -> None:
    done = []

    class Node(NdpNode):
        def configure(self) -> None:
            done.append("configure")
            if moment == "while it configures":
                os.kill(os.getpid(), signal.SIGTERM)

        def activate(self) -> None:
            done.append("activate")
            os.kill(os.getpid(), signal.SIGTERM)

        def deactivate(self) -> None:
            done.append("deactivate")

        def cleanup(self) -> None:
            done.append("cleanup")

        def health(self) -> Health:
            return Health(diagnostics.OK, self.state)

    monkeypatch.setattr(process, "terminate_with_parent", lambda: moment == "before the start")
    assert process.run(lambda: Node("short_lived"), [], drives_arm=True) == 0
    assert done == expected


def test_threads_are_preferred_while_it_matters_and_not_afterwards():
    def policies():
        threads = [int(t.name) for t in Path("/proc/self/task").iterdir()]
        return {os.sched_getscheduler(t) & ~os.SCHED_RESET_ON_FORK for t in threads}

    granted = scheduling.set_realtime_priority(5)
    try:
        if granted == "SCHED_FIFO 5":
            assert policies() == {os.SCHED_FIFO}
        else:
            assert "refused" in granted
    finally:
        scheduling.clear_realtime_priority()
    assert policies() == {os.SCHED_OTHER}


def joints_at(stamp: float, position: float, names=None) -> JointState:
    names = list(JOINTS) if names is None else names
    message = JointState(name=names, position=[position] * len(names))
    message.velocity = [0.0] * len(names)
    message.header.stamp = stamp_of(stamp)
    return message


STRANGERS = {
    "another arm of the same names": joint_state(JOINTS, [9.0, 9.0], [0.0, 0.0]),
    "a gripper": joint_state(["gripper_left", "gripper_right"], [0.8, 0.8], [0.0, 0.0]),
    "a part of the arm": joint_state(["a"], [9.0], [0.0]),
    "NaN": joint_state(JOINTS, [math.nan, 9.0], [0.0, 0.0]),
    "fewer values than joints": joint_state(JOINTS, [9.0], [0.0, 0.0]),
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("since", [0, 10])
def test_joint_states_of_others_neither_flicker_nor_get_in(stranger, since):
    fields = [ObservationField("position", len(JOINTS)), ObservationField("setpoint", len(JOINTS))]
    o = Observer(fields, JOINTS, "base")
    theirs = STRANGERS[stranger]
    for n in range(60):
        at = NOW + 0.005 * n
        for offset in (0.001, 0.002) if n >= since else ():
            theirs.header.stamp = stamp_of(at - offset)
            o.on_joint_states(theirs)
        o.on_joint_states(joint_state(JOINTS, [0.1, 0.1], [0.0, 0.0], at))
        o.on_setpoint(setpoint_at(at))
        assert o.missing(ages(at), 0.1) == []
        assert o.of_one_instant()
        assert o.observe()[0][: len(JOINTS)].tolist() == [0.1] * len(JOINTS)
        theirs.header.stamp = stamp_of(at + 0.001)
        if n >= since:
            o.on_joint_states(theirs)
        assert o.missing(ages(at), 0.1) == []
    assert o.foreign > 40 or stranger == "a gripper"


def test_a_clock_that_was_set_back_a_little_blinds_for_some_messages_alone():
    o = Observer([ObservationField("position", len(JOINTS))], JOINTS, "base")
    o.on_joint_states(joints_at(NOW, 0.1))
    for n in range(10):
        o.on_joint_states(joints_at(NOW - 0.5 + 0.005 * n, 0.2))
    assert o.observe()[0].tolist() == [0.2] * len(JOINTS)


def test_the_line_of_a_throw_gives_its_figures_with_their_units(tmp_path, capsys):
    pytest.importorskip("mujoco", reason="needs MuJoCo")
    from ndp_ros.nodes.episode_report import EpisodeReport
    from ndp_ros.tasks.throw import Throw

    report = EpisodeReport(checkpoint.load(find_checkpoint("jaco_throw")), tmp_path, Throw.units)
    loop = {"success": True, "worst_late_us": 40.0, "missed_ticks": 0, "problem": ""}
    report.add({"landed": True, "landing": [1.25, 0.014], "miss": 0.05, **loop}, 10)
    report.add({"landed": False, "landing": [0.0, 0.0], "miss": None, **loop}, 10)
    first, second = capsys.readouterr().out.splitlines()
    assert "landed yes, landing (1.25, 0.014) m, miss 0.05 m " in first
    assert "miss none " in second
