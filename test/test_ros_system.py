# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""One running system as ROS users meet it: description, frames, markers, parameters, names.

All tests share it: an arm in a namespace, with a prefix and a parameter file of the user.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from ros_support import Ros, ros_system
from test_bringup import jaco_checkpoint

from ndp_ros import cli
from ndp_ros.bringup.process import ProcessSpec
from ndp_ros.bringup.system import SimConfig, simulation
from ndp_ros.checkpoint import load
from ndp_ros.control.arm import ArmConfig
from ndp_ros.tasks.bag import read_bag

pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
pytestmark = pytest.mark.ros

ARM = ArmConfig.named("jaco")
JOINTS = [f"left_{name}" for name in ARM.joint_names]
PARAMETERS = """
/**:
  ros__parameters:
    publish_rate: 50.0
    priority: 0  # the test itself needs the processor too
    node_priority: 0
    heartbeat_timeout: 30.0  # without priority, a busy machine delays everything
    parent_timeout: 60.0
/left/description_node:
  ros__parameters:
    path_points: 7
"""


@dataclass
class System:
    """A running system, and what its topics have brought so far."""

    ros: Ros
    folder: Path
    checkpoint: Path
    specs: dict[str, ProcessSpec]
    received: dict[str, list[Any]]

    def newest(self, topic: str, accept: Any = lambda _: True) -> Any:
        """Return the next message on a topic that is accepted."""
        seen = self.received[topic]
        seen.clear()
        return self.ros.until(lambda: next(filter(accept, seen), None), f"message on {topic}")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    from rclpy.qos import QoSProfile
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import JointState
    from std_srvs.srv import SetBool
    from tf2_msgs.msg import TFMessage
    from trajectory_msgs.msg import JointTrajectory
    from visualization_msgs.msg import MarkerArray

    folder = tmp_path_factory.mktemp("system")
    checkpoint = jaco_checkpoint(folder / "good")
    (folder / "mine.yaml").write_text(PARAMETERS)
    config = SimConfig(
        checkpoint=str(checkpoint),
        rate=500.0,
        throws=0,
        namespace="left",
        prefix="left_",
        params_file=str(folder / "mine.yaml"),
        out=str(folder / "out"),
        record="mcap",
        use_sim_time=True,
    )
    with ros_system(folder) as ros:
        specs = simulation(config, load(checkpoint))
        for spec in specs:
            ros.start(f"ndp_ros.nodes.{spec.name}", *spec.command[3:], **spec.environment)
        received = {
            topic: ros.listen(kind, topic, QoSProfile(depth=20))
            for topic, kind in (
                ("/left/joint_states", JointState),
                ("/tf", TFMessage),
                ("/left/ndp/markers", MarkerArray),
                ("/left/ndp/setpoint", JointTrajectory),
                ("/clock", Clock),
            )
        }
        answer = ros.call(SetBool, "/left/integrator_node/follow", SetBool.Request(data=True))
        assert answer.success, answer.message
        by_name = {spec.name: spec for spec in specs}
        yield System(ros, folder, checkpoint, by_name, received)


def latched(system: System, kind: Any, topic: str) -> Any:
    """Return the message that a late subscriber receives."""
    from ndp_ros.nodes import qos

    received = system.ros.listen(kind, topic, qos.LATCHED)
    return system.ros.until(lambda: received and received[-1], f"latched {topic}")


def matrix(transform: Any) -> np.ndarray:
    out, t, q = np.eye(4), transform.translation, transform.rotation
    w, x, y, z = q.w, q.x, q.y, q.z
    out[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    out[:3, 3] = t.x, t.y, t.z
    return out


def test_a_late_subscriber_gets_the_description_of_the_joints_that_are_published(
    system: System,
) -> None:
    from std_msgs.msg import String

    text = latched(system, String, "/left/robot_description").data
    joints = {j.get("name"): j for j in ElementTree.fromstring(text).iter("joint")}
    state = system.newest("/left/joint_states")
    assert list(state.name) == JOINTS
    assert set(JOINTS) <= set(joints)
    moving = {n for n, j in joints.items() if j.get("type") != "fixed" and j.find("mimic") is None}
    assert moving == set(JOINTS)


def test_frames_lead_from_the_base_to_the_hand_where_the_simulation_has_it(system: System) -> None:
    import mujoco
    from tf2_msgs.msg import TFMessage

    fixed = latched(system, TFMessage, "/tf_static").transforms
    frames_seen, states_seen = (system.received[t] for t in ("/tf", "/left/joint_states"))

    def pair() -> Any:
        """Return frames and the joint states of their stamp."""
        states = {(s.header.stamp.sec, s.header.stamp.nanosec): s for s in states_seen}
        for frames in reversed(frames_seen):
            stamp = frames.transforms[0].header.stamp
            if state := states.get((stamp.sec, stamp.nanosec)):
                return frames.transforms, state
        return None

    moving, state = system.ros.until(pair, "frames of a joint state")
    frames = {t.child_frame_id: t for t in (*fixed, *moving)}
    place, frame = np.eye(4), "left_palm"
    while frame != "left_base":
        place = matrix(frames[frame].transform) @ place
        frame = frames[frame].header.frame_id
    model = mujoco.MjModel.from_xml_path(str(ARM.model_path))
    data = mujoco.MjData(model)
    data.qpos[: ARM.n_arm] = state.position[: ARM.n_arm]
    mujoco.mj_kinematics(model, data)
    np.testing.assert_allclose(place[:3, 3], data.body("palm").xpos, atol=1e-6)


def test_each_segment_plans_a_path_that_begins_at_the_hand(system: System) -> None:
    def markers(message: Any) -> dict[str, Any]:
        return {marker.ns: marker for marker in message.markers}

    planned = system.newest("/left/ndp/markers", lambda m: "planned" in markers(m))
    path = markers(planned)["planned"]
    assert len(path.points) == 7  # of the user's parameter file
    assert path.header.frame_id == "left_base"

    def follows(message: Any) -> bool:
        shown = markers(message)
        return "state" in shown and shown["state"].text.startswith("following")

    scene = markers(system.newest("/left/ndp/markers", follows))
    assert {"cube", "bin", "executed"} <= set(scene)
    first, last = path.points[0], scene["executed"].points[-1]
    assert np.linalg.norm([first.x - last.x, first.y - last.y, first.z - last.z]) < 0.3


def test_parameters_of_the_user_s_file_replace_those_of_the_launch(system: System) -> None:
    from rcl_interfaces.srv import DescribeParameters, GetParameters

    names = ["publish_rate", "rate", "prefix"]
    node = "/left/integrator_node"
    request = GetParameters.Request(names=names)
    values = system.ros.call(GetParameters, f"{node}/get_parameters", request).values
    assert (values[0].double_value, values[1].double_value) == (50.0, 500.0)
    assert values[2].string_value == "left_"
    request = DescribeParameters.Request(names=names)
    described = system.ros.call(DescribeParameters, f"{node}/describe_parameters", request)
    rate = described.descriptors[0]
    assert "[Hz]" in rate.description
    assert rate.floating_point_range[0].to_value == 1000.0


def test_everything_but_the_frames_is_in_the_namespace(system: System) -> None:
    topics = {name for name, _ in system.ros.node.get_topic_names_and_types()}
    ours = {"/tf", "/tf_static", "/diagnostics", "/rosout", "/parameter_events", "/clock"}
    assert {t for t in topics if not t.startswith("/left/")} <= ours
    nodes = system.ros.node.get_node_names_and_namespaces()
    assert {space for name, space in nodes if name != "tester"} == {"/left"}
    assert os.getpid() not in {p.pid for p in system.ros.processes}


def run_policy(system: System, **goal: Any) -> tuple[Any, list[Any]]:
    """Send a goal; return its handle and a list that grows by its feedback."""
    from ndp_interfaces.action import RunPolicy
    from rclpy.action import ActionClient

    ros, feedback = system.ros, []
    client = ActionClient(ros.node, RunPolicy, "/left/run_policy")
    ros.until(client.server_is_ready, "action run_policy")
    sent = client.send_goal_async(
        RunPolicy.Goal(**goal), feedback_callback=lambda m: feedback.append(m.feedback)
    )
    return ros.until(lambda: sent.done() and sent.result(), "answer to the goal"), feedback


def result_of(system: System, handle: Any) -> Any:
    future = handle.get_result_async()
    return system.ros.until(lambda: future.done() and future.result(), "result")


def state_of(system: System) -> str:
    from ndp_interfaces.msg import Status

    return str(latched(system, Status, "/left/ndp/status").state)


def test_a_goal_lasts_as_long_as_it_asks_for_and_the_arm_holds_afterwards(system: System) -> None:
    from action_msgs.msg import GoalStatus

    wrong, _ = run_policy(system, duration=-1.0)
    assert not wrong.accepted
    handle, feedback = run_policy(system, duration=1.0)
    assert handle.accepted
    second, _ = run_policy(system, duration=1.0)
    assert not second.accepted
    answer = result_of(system, handle)
    assert answer.status == GoalStatus.STATUS_SUCCEEDED
    result = answer.result
    assert result.message == "1 s are over" and 1.0 <= result.duration < 3.0
    assert result.checkpoint.startswith("throw-ndp") and result.segments >= 3
    assert 0.0 < result.tracking_error < 0.8
    assert not result.success
    assert [f.segment for f in feedback] == sorted(f.segment for f in feedback)
    assert feedback and all(0.0 <= f.phase <= 1.0 for f in feedback)
    assert state_of(system) == "holding"


def test_a_cancelled_goal_brakes_the_arm_and_holds_it(system: System) -> None:
    from action_msgs.msg import GoalStatus

    handle, feedback = run_policy(system, duration=600.0, checkpoint=str(system.checkpoint))
    system.ros.until(lambda: any(f.segment > 2 for f in feedback), "a motion")
    handle.cancel_goal_async()
    answer = result_of(system, handle)
    assert answer.status == GoalStatus.STATUS_CANCELED
    assert state_of(system) == "holding"


def test_a_goal_with_a_checkpoint_that_is_none_is_aborted_and_says_why(system: System) -> None:
    from action_msgs.msg import GoalStatus

    handle, _ = run_policy(system, duration=1.0, checkpoint="/nowhere")
    answer = result_of(system, handle)
    assert answer.status == GoalStatus.STATUS_ABORTED
    assert "/nowhere" in answer.result.message


def test_rviz_and_foxglove_show_topics_that_are_published(system: System) -> None:
    import json

    import yaml

    from ndp_ros.paths import share

    published = {name for name, _ in system.ros.node.get_topic_names_and_types()}
    displays = yaml.safe_load(share("config/ndp.rviz").read_text())["Visualization Manager"]
    topics = [
        display[key]["Value"]
        for display in displays["Displays"]
        for key in ("Topic", "Description Topic")
        if key in display
    ]
    assert topics == ["robot_description", "ndp/markers"]
    assert {f"/left/{topic}" for topic in topics} <= published
    panels = json.loads(share("config/foxglove.json").read_text())["configById"]
    shown = {*panels["3D!arm"]["topics"], panels["RawMessages!status"]["topicPath"]}
    shown |= {path["value"].partition(".")[0] for path in panels["Plot!joints"]["paths"]}
    assert {f"/left{topic}" for topic in shown} <= published


def test_stamps_are_the_time_of_the_simulated_arm_which_clock_carries(system: System) -> None:
    setpoint = system.newest("/left/ndp/setpoint")
    stamp, on_arm = setpoint.header.stamp, setpoint.points[0].time_from_start
    assert (stamp.sec, stamp.nanosec) == (on_arm.sec, on_arm.nanosec)
    assert system.newest("/clock").clock.sec < 3600


def time_of_arm(system: System) -> float:
    point = system.newest("/left/ndp/setpoint").points[0].time_from_start
    return float(point.sec + point.nanosec * 1e-9)


def test_the_clock_pauses_steps_and_goes_on(system: System) -> None:
    from ndp_interfaces.srv import Step
    from std_srvs.srv import SetBool

    node, ros = "/left/integrator_node", system.ros
    assert not ros.call(Step, f"{node}/step", Step.Request(ticks=1)).success
    assert ros.call(SetBool, f"{node}/follow", SetBool.Request(data=True)).success
    assert ros.call(SetBool, f"{node}/pause", SetBool.Request(data=True)).success
    # Messages of the time before may still wait.
    paused = ros.until(lambda: (now := time_of_arm(system)) == time_of_arm(system) and now, "rest")
    ros.spin(0.3)
    assert time_of_arm(system) == paused
    stepped = ros.call(Step, f"{node}/step", Step.Request(ticks=200))
    assert stepped.success, stepped.message
    assert stepped.time == pytest.approx(paused + 200 / 500.0, abs=1e-6)
    ros.until(lambda: abs(time_of_arm(system) - stepped.time) < 1e-6, "the state after the step")
    assert ros.call(SetBool, f"{node}/pause", SetBool.Request(data=False)).success
    ros.until(lambda: time_of_arm(system) > stepped.time + 0.2, "time that goes on")
    assert state_of(system) == "following"
    assert ros.call(SetBool, f"{node}/follow", SetBool.Request(data=False)).success


def test_an_arm_is_asked_to_follow_and_to_hold_from_the_command_line(system: System) -> None:
    from ndp_interfaces.msg import Status

    from ndp_ros.nodes import qos

    status = system.ros.listen(Status, "/left/ndp/status", qos.LATCHED)

    def ask(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ndp_ros.cli", "follow", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=os.environ | {"ROS_DOMAIN_ID": str(system.ros.domain)},
        )
        return done.stdout

    assert ask("on", "--namespace", "left") == "the arm follows its policy\n"
    system.ros.until(lambda: status and status[-1].state == Status.FOLLOWING, "the arm to follow")
    assert ask("off", "--namespace", "left") == "the arm holds\n"
    system.ros.until(lambda: status[-1].state == Status.HOLDING, "the arm to hold")


def test_to_ask_a_system_that_does_not_run_is_one_line(system: System) -> None:
    code = (
        "import sys; from ndp_ros.nodes import ask; ask._PATIENCE = 0.5\n"
        "from ndp_ros.cli import main; sys.exit(main(['follow', 'on', '--namespace', 'right']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"ROS_DOMAIN_ID": str(system.ros.domain)},
    )
    assert done.returncode == 2
    assert "~ is /right/integrator_node" in done.stderr and done.stderr.count("\n") == 1


def test_top_shows_state_rates_and_nodes(system: System) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "ndp_ros.cli", "top", "--once"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"ROS_DOMAIN_ID": str(system.ros.domain), "COLUMNS": "120"},
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for text in ("/left", "holding", "jaco (mujoco, simulated)", "throw-ndp", "500 Hz", "p99"):
        assert text in shown.stdout
    for node in ("integrator_node", "policy_node", "description_node", "run_policy_node"):
        assert node in shown.stdout


def test_a_bag_is_read_by_independent_readers_and_drawn(system: System) -> None:
    mcap = pytest.importorskip("mcap.reader")
    decoders = pytest.importorskip("mcap_ros2.decoder")
    highlevel = pytest.importorskip("rosbags.highlevel")

    recorder = next(p for p in system.ros.processes if "ndp_ros.nodes.record_node" in p.args)
    bag = Path(system.specs["record_node"].parameters["bag"])
    system.ros.until(lambda: list(bag.glob("*.mcap")), "bag")
    recorder.terminate()
    assert system.ros.wait_exit(recorder) == 0
    (file,) = bag.glob("*.mcap")
    topics: dict[str, list[Any]] = {}
    with file.open("rb") as stream:
        reader = mcap.make_reader(stream, decoder_factories=[decoders.DecoderFactory()])
        for _, channel, _, message in reader.iter_decoded_messages():
            topics.setdefault(channel.topic, []).append(message)
    needed = {"joint_states", "ndp/setpoint", "ndp/dmp_parameters", "ndp/status", "ndp/markers"}
    assert {f"/left/{topic}" for topic in needed} | {"/tf", "/diagnostics", "/clock"} <= set(topics)
    segment = topics["/left/ndp/dmp_parameters"][-1]
    assert list(segment.joint_names) == JOINTS and len(segment.goal) == len(JOINTS)
    with highlevel.AnyReader([bag]) as rosbag:
        counts = {c.topic: c.msgcount for c in rosbag.connections if c.msgcount}
    assert counts == {topic: len(messages) for topic, messages in topics.items()}
    assert cli.main(["plot", str(bag), "-o", str(system.folder / "joints.png")]) == 0
    assert (system.folder / "joints-left.png").stat().st_size > 10_000
    recording = read_bag(file)["/left"]
    assert recording.joint_names == tuple(JOINTS)
    assert len(recording.times) > 50 and recording.times[-1] > 1.0
