# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The policy node: what it publishes, when it stays silent, which checkpoints it takes."""

import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
pytest.importorskip("ndp_interfaces", reason="needs the message package: pip install ./interfaces")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.srv import ChangeState, GetState
from ndp_interfaces.msg import DmpParameters
from ndp_interfaces.srv import LoadCheckpoint
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters
from ros_support import Ros, ros_system, tiny_checkpoint
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from ndp_ros import checkpoint
from ndp_ros.nodes import policy_node, qos
from ndp_ros.nodes.messages import duration_of, stamp_of
from ndp_ros.observation import arm_observation
from ndp_ros.policies import make_policy

pytestmark = pytest.mark.ros


class World:
    """Publishes what the policy's observation needs, like an integrator would."""

    def __init__(self, ros: Ros) -> None:
        self.ros = ros
        self.joints = ros.node.create_publisher(JointState, "joint_states", qos.STATE)
        self.setpoint = ros.node.create_publisher(JointTrajectory, "ndp/setpoint", qos.STATE)
        self.cube = ros.node.create_publisher(PoseStamped, "objects/cube/pose", qos.STATE)
        self.silent: set[str] = set()
        self.delay = 0.0
        self.clock, self.speed = 100.0, 1.0
        ros.node.create_timer(0.02, self.publish)

    def publish(self) -> None:
        stamp = stamp_of(time.time() - self.delay)
        self.clock += 0.02 * self.speed
        if "joint_states" not in self.silent:
            # The order of the joints is the robot's own, and it may have more of them.
            message = JointState(name=["other", "b", "a"], position=[9.0, 0.2, 0.1])
            message.velocity = [9.0, 0.0, 0.0]
            message.header.stamp = stamp
            self.joints.publish(message)
        if "ndp/setpoint" not in self.silent:
            point = JointTrajectoryPoint(positions=[0.1, 0.2], velocities=[0.0, 0.0])
            point.time_from_start = duration_of(self.clock)
            message = JointTrajectory(joint_names=["a", "b"], points=[point])
            message.header.stamp = stamp
            self.setpoint.publish(message)
        if "objects/cube/pose" not in self.silent:
            message = PoseStamped()
            message.header.stamp, message.header.frame_id = stamp, "base"
            message.pose.position.x = 0.5
            self.cube.publish(message)


def status(messages: list[DiagnosticArray], name: str) -> DiagnosticStatus | None:
    found = [s for message in messages for s in message.status if s.name == name]
    return found[-1] if found else None


def value(s: DiagnosticStatus, key: str) -> str:
    return next((v.value for v in s.values if v.key == key), "")


@dataclass
class System:
    """A policy node that runs on a complete observation, shared by the tests of this file."""

    ros: Ros
    world: World
    folder: Path
    segments: list[DmpParameters]
    diagnostics: list[DiagnosticArray]

    def next_segments(self, n: int) -> list[DmpParameters]:
        self.segments.clear()
        self.ros.until(lambda: len(self.segments) >= n, f"{n} segments")
        return list(self.segments)

    def health(self) -> DiagnosticStatus | None:
        return status(self.diagnostics, "policy_node")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    tmp_path = tmp_path_factory.mktemp("policy")
    with ros_system(tmp_path) as ros:
        folder = tiny_checkpoint(tmp_path / "tiny")
        segments = ros.listen(DmpParameters, "ndp/dmp_parameters", qos.PARAMETERS)
        diagnostics = ros.listen(DiagnosticArray, "/diagnostics")
        running = System(ros, World(ros), folder, segments, diagnostics)
        ros.start_node("policy_node", checkpoint=str(folder))
        ros.until(lambda: segments, "a segment")
        yield running


def test_phi_runs_once_a_segment_on_a_complete_observation(system: System) -> None:
    segments = system.next_segments(12)
    first = segments[0]
    assert list(first.joint_names) == ["a", "b"]
    assert (len(first.goal), len(first.weights), first.n_basis) == (2, 12, 6)
    assert (first.kernel, first.solver, first.start) == ("gaussian", "exact", "desired")
    assert first.duration == pytest.approx(0.1)
    np.testing.assert_array_equal(first.origin, [0.1, 0.2])  # the setpoint that phi saw
    # The depth of one may drop messages on a busy machine, never reorder them.
    sequences = [m.sequence for m in segments]
    assert sequences == sorted(set(sequences))


def test_segments_keep_to_the_clock_of_the_arm(system: System) -> None:
    world = system.world
    try:
        began, first = world.clock, system.next_segments(1)[0].sequence
        last = system.next_segments(15)[-1].sequence
        assert (last - first) * 0.1 <= world.clock - began + 0.1
        world.speed = 0.0  # a simulation that waits for a segment, which may have been lost
        system.ros.spin(0.3)
        system.next_segments(2)
        world.speed, world.clock = 1.0, 0.0  # and one that was started again
        system.next_segments(2)
    finally:
        world.speed = 1.0


def test_what_is_published_is_what_the_network_says(system: System) -> None:
    loaded = checkpoint.load(system.folder)
    obs = np.array([0.1, 0.2, 0, 0, 0.1, 0.2, 0, 0, 0.5, 0, 0], np.float32)
    policy = make_policy(loaded.spec, loaded.tensors)
    with torch.no_grad():
        g, w = policy.parameters_of(torch.from_numpy(obs)[None])
    message = system.next_segments(1)[0]
    np.testing.assert_allclose(message.goal, g[0].numpy(), rtol=1e-5)
    np.testing.assert_allclose(message.weights, w[0].numpy().ravel(), rtol=1e-4, atol=1e-6)
    assert message.checkpoint == loaded.id


def test_phi_rests_while_a_topic_is_silent_and_diagnostics_name_it(system: System) -> None:
    system.next_segments(1)
    system.world.silent.add("objects/cube/pose")
    try:
        system.ros.until(
            lambda: (
                (s := system.health())
                and s.level == DiagnosticStatus.WARN
                and "objects/cube/pose" in s.message
            ),
            "warning that names the topic",
        )
        system.ros.spin(0.2)
        system.segments.clear()
        system.ros.spin(0.5)
        assert not system.segments
    finally:
        system.world.silent.clear()
    system.next_segments(1)


def test_a_node_without_any_first_message_waits_a_while_before_it_warns(tmp_path: Path) -> None:
    with ros_system(tmp_path) as ros:
        seen = ros.listen(DiagnosticArray, "/diagnostics")
        ros.start_node("policy_node", checkpoint=str(tiny_checkpoint(tmp_path / "tiny")))
        ros.until(
            lambda: (s := status(seen, "policy_node")) and "observation incomplete" in s.message,
            "a warning",
        )
        reports = [s for message in seen for s in message.status if s.name == "policy_node"]
    assert reports[-1].level == DiagnosticStatus.WARN
    waits = [s.level for s in reports if s.message.startswith("waiting for joint_states")]
    assert waits and set(waits) == {DiagnosticStatus.OK}


def test_stale_stamps_do_not_pass_as_fresh(system: System) -> None:
    """A replayed or hung driver sends on, but its stamps are old."""
    system.world.delay = 5.0
    try:
        system.ros.until(
            lambda: (s := system.health()) and re.search(r"5\.\d s old", value(s, "missing")),
            "diagnostics that say how old",
        )
    finally:
        system.world.delay = 0.0
    system.next_segments(1)


def test_parameters_are_described_with_bounds(system: System) -> None:
    answer = system.ros.call(
        DescribeParameters,
        "policy_node/describe_parameters",
        DescribeParameters.Request(names=["checkpoint", "max_observation_age", "base_frame"]),
    )
    _folder, age, _frame = answer.descriptors
    assert age.type == ParameterType.PARAMETER_DOUBLE
    bounds = age.floating_point_range[0]
    assert (bounds.from_value, bounds.to_value) == (0.001, 60.0)
    assert "observation" in age.description


def damage_nan(folder: Path) -> None:
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    next(iter(tensors.values()))[:] = np.nan
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


def change_tensor(folder: Path, name: str, value: float) -> None:
    """Give a tensor another value, in a checkpoint that is sound as a file."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors[name].flat[0] = value
    data = safetensors.numpy.save(tensors)
    (folder / "model.safetensors").write_bytes(data)
    config = json.loads((folder / "config.json").read_text())
    config["model_sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


def load_by_service(ros: Ros, path: str) -> tuple[bool, str]:
    request = LoadCheckpoint.Request(path=path)
    answer = ros.call(LoadCheckpoint, "policy_node/load_checkpoint", request)
    return answer.success, answer.message


def load_by_parameter(ros: Ros, path: str) -> tuple[bool, str]:
    string = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=path)
    request = SetParameters.Request(parameters=[Parameter(name="checkpoint", value=string)])
    answer = ros.call(SetParameters, "policy_node/set_parameters", request)
    return answer.results[0].successful, answer.results[0].reason


@pytest.mark.parametrize("load", [load_by_service, load_by_parameter])
def test_a_checkpoint_that_does_not_fit_is_refused_and_the_old_one_goes_on(
    system: System, tmp_path: Path, load: Callable[[Ros, str], tuple[bool, str]]
) -> None:
    old = system.next_segments(1)[0].checkpoint
    three = {"joint_names": ("a", "b", "c"), "observation": arm_observation(3, ["cube"])}
    bad = {
        "missing": tmp_path / "nowhere",
        "another arm": tiny_checkpoint(tmp_path / "arm", **three, action_scale=(0.1, 0.1, 0.1)),
        "baseline": tiny_checkpoint(tmp_path / "ppo", method="ppo", k=1),
        "NaN": tiny_checkpoint(tmp_path / "nan"),
        "truncated": tiny_checkpoint(tmp_path / "cut"),
    }
    damage_nan(bad["NaN"])
    model = bad["truncated"] / "model.safetensors"
    model.write_bytes(model.read_bytes()[:200])

    for name in ("pipe", "nested"):
        bad[name] = tmp_path / name
        bad[name].mkdir()
        (bad[name] / "model.safetensors").write_bytes(b"x")
    os.mkfifo(bad["pipe"] / "config.json")
    (bad["nested"] / "config.json").write_text("[" * 100_000)
    bad["long"] = Path("x" * 300)
    bad["variance"] = tiny_checkpoint(tmp_path / "variance")
    change_tensor(bad["variance"], "normaliser.variance", -1.0)
    for name, path in bad.items():
        success, reason = load(system.ros, str(path))
        assert not success, name
        assert reason, name
        assert "\n" not in reason, name
    assert {m.checkpoint for m in system.next_segments(3)} == {old}


def test_a_refusal_names_the_fields_that_differ(system: System, tmp_path: Path) -> None:
    seen = arm_observation(3, ["cube", "lamp"])
    changes = {"joint_names": ("a", "b", "c"), "action_scale": (0.1,) * 3, "observation": seen}
    other = tiny_checkpoint(tmp_path / "other", arm="snake", **changes)
    _, reason = load_by_service(system.ros, str(other))
    assert "arm is snake, here planar" in reason
    assert "joint_names is (a, b, c), here (a, b)" in reason
    assert "object/lamp comes from objects/lamp/pose, which nobody publishes" in reason
    assert "cube" not in reason.partition("does not fit")[2]


@pytest.mark.parametrize("load", [load_by_service, load_by_parameter])
def test_a_checkpoint_is_swapped_without_a_restart(
    system: System, tmp_path: Path, load: Callable[[Ros, str], tuple[bool, str]]
) -> None:
    old = system.next_segments(1)[0].checkpoint
    other = tiny_checkpoint(tmp_path / "other", seed=2 if load is load_by_service else 3)
    new = checkpoint.load(other).id
    assert new != old
    system.segments.clear()
    success, reason = load(system.ros, str(other))
    assert success, reason
    segments = system.segments
    system.ros.until(lambda: segments and segments[-1].checkpoint == new, "a segment of the new")
    ids = [m.checkpoint for m in segments]
    assert ids == sorted(ids, key=lambda i: i != old)  # never back and forth


BAD_PARAMETERS = [
    ({}, "needs the parameter checkpoint"),
    ({"checkpoint": "/nowhere"}, "no checkpoint folder /nowhere"),
    ({"checkpiont": "x"}, "'checkpiont' is not one of"),
    ({"checkpoint": "x", "max_observation_age": -1.0}, "max_observation_age is -1"),
    ({"checkpoint": "x", "max_observation_age": "soon"}, "max_observation_age is 'soon'"),
]


@pytest.mark.parametrize(("values", "line"), BAD_PARAMETERS)
def test_bad_parameters_are_one_line_and_status_2(
    capfd: pytest.CaptureFixture[str],
    values: dict[str, object],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    arguments = [a for k, v in values.items() for a in ("-p", f"{k}:={json.dumps(v)}")]
    # rcl remembers the names of the process' earlier nodes.
    name = f"policy_{BAD_PARAMETERS.index((values, line))}"
    assert policy_node.main(["--ros-args", "-r", f"__node:={name}", *arguments]) == 2
    said = capfd.readouterr().err
    assert line in said
    assert len(said.strip().splitlines()) == 1


def test_a_node_that_cannot_start_ends_its_process_with_status_2(ros: Ros) -> None:
    node = ros.start_node("policy_node", checkpoint="/nowhere")
    assert ros.wait_exit(node) == 2
    assert "no checkpoint folder /nowhere" in ros.said(node)
    assert len(ros.output[node.pid]) == 1


def test_a_pose_in_another_frame_is_not_used(ros: Ros, tmp_path: Path) -> None:
    World(ros)
    diagnostics = ros.listen(DiagnosticArray, "/diagnostics")
    folder = tiny_checkpoint(tmp_path / "tiny")
    ros.start_node("policy_node", checkpoint=str(folder), base_frame="world")
    ros.until(
        lambda: (
            (s := status(diagnostics, "policy_node"))
            and "in frame 'base', not 'world'" in value(s, "missing")
        ),
        "diagnostics that name both frames",
    )


def test_life_cycle_can_be_driven_by_hand(ros: Ros, tmp_path: Path) -> None:
    World(ros)
    received = ros.listen(DmpParameters, "ndp/dmp_parameters", qos.PARAMETERS)
    folder = str(tiny_checkpoint(tmp_path / "tiny"))
    node = ros.start_node("policy_node", checkpoint=folder, autostart=False)

    def state() -> str:
        return ros.call(GetState, "policy_node/get_state").current_state.label

    def change(label: str) -> bool:
        request = ChangeState.Request()
        request.transition.label = label
        return ros.call(ChangeState, "policy_node/change_state", request).success

    assert state() == "unconfigured"
    assert change("configure")
    assert state() == "inactive"
    ros.spin(0.4)
    assert not received
    assert change("activate")
    ros.until(lambda: received, "a segment")
    assert change("deactivate")
    ros.spin(0.3)
    received.clear()
    ros.spin(0.4)
    assert not received
    assert change("cleanup")
    assert state() == "unconfigured"
    node.send_signal(signal.SIGINT)
    assert ros.wait_exit(node) == 0


def test_whoever_presses_ctrl_c_again_and_again_still_gets_a_clean_end(
    ros: Ros, tmp_path: Path
) -> None:
    World(ros)
    received = ros.listen(DmpParameters, "ndp/dmp_parameters", qos.PARAMETERS)
    node = ros.start_node("policy_node", checkpoint=str(tiny_checkpoint(tmp_path / "tiny")))
    ros.until(lambda: received, "a segment")
    while node.poll() is None:
        node.send_signal(signal.SIGINT)
        time.sleep(0.002)
    assert ros.wait_exit(node) == 0
    assert "Traceback" not in ros.said(node)


SLOW = """
import sys, time
from ndp_ros.nodes import process
from ndp_ros.nodes.policy_node import PolicyNode

class Slow(PolicyNode):
    def configure(self):
        print("loading", flush=True)
        for _ in range(6000):
            time.sleep(0.1)

sys.exit(process.run(Slow, ["--ros-args", "-p", "checkpoint:=any"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_that_drives_no_arm_ends_at_once_while_it_starts(ros: Ros, tmp_path, number) -> None:
    (tmp_path / "slow_start.py").write_text(SLOW)
    node = ros.start("slow_start", PYTHONPATH=str(tmp_path))
    ros.until(lambda: "loading" in ros.said(node), "start of the node")
    node.send_signal(number)
    assert ros.wait_exit(node) == 0
    assert "Traceback" not in ros.said(node)
