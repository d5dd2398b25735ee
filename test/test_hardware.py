# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""How a real arm is brought up: what is checked first, what is never said, what is started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kortex_support import ARM, HOST, PATIENT, N, emulator, shared_emulator
from ros_support import PATIENCE, claim_domain, die_with_the_test, ros_system
from test_bringup import jaco_checkpoint

from ndp_ros import cli
from ndp_ros.arms.kortex.credentials import PASSWORD_VARIABLE, USERNAME_VARIABLE
from ndp_ros.arms.mujoco import MujocoArm
from ndp_ros.bringup import arm as hardware
from ndp_ros.bringup import checks
from ndp_ros.bringup.arm import HardwareConfig
from ndp_ros.bringup.process import ProcessSpec
from ndp_ros.commands import run
from ndp_ros.commands.arguments import OneLineParser
from ndp_ros.config import from_arguments, from_mapping, nest
from ndp_ros.control.arm import ArmConfig, JointState
from ndp_ros.emulator.process import EmulatorProcess
from ndp_ros.errors import ConfigError
from ndp_ros.nodes.surroundings import Surroundings
from ndp_ros.streaming.config import RuntimeConfig, StreamSpec
from ndp_ros.tasks.throw import ThrowConfig

pytestmark = pytest.mark.live

__all__ = ["emulator", "shared_emulator"]


@pytest.fixture
def free_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    domain, lock = claim_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.delenv(USERNAME_VARIABLE, raising=False)
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    monkeypatch.setattr(checks, "_listen", lambda: contextlib.nullcontext(list))
    yield domain
    lock.close()


@pytest.fixture(scope="module")
def gen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jaco_checkpoint(
        tmp_path_factory.mktemp("gen3") / "gen3",
        arm="gen3",
        task="throw-gen3",
        joint_names=ARM.joint_names,
        control_dt=0.02,
        action_scale=(0.01,) * 7,
    )


def config(checkpoint: Path, process: EmulatorProcess | None = None, **changes) -> HardwareConfig:
    where = (
        {}
        if process is None
        else {
            "robot_ip": HOST,
            "port": process.port,
            "udp_port": process.udp_port,
        }
    )
    values = {"checkpoint": str(checkpoint)} | where | changes
    return from_mapping(HardwareConfig, nest(HardwareConfig, values))


def by_name(found: list[ProcessSpec]) -> dict[str, ProcessSpec]:
    return {spec.name: spec for spec in found}


# What is driven.


def test_without_an_address_the_simulated_arm_is_driven_and_it_says_so(
    tmp_path, free_domain
) -> None:
    bare = config(jaco_checkpoint(tmp_path / "jaco"), out=str(tmp_path / "out"))
    assert "no robot_ip: the simulated arm" in hardware.notice(bare)
    found = by_name(hardware.processes(bare))
    assert found["integrator_node"].parameters["hardware"] == "mujoco"
    assert "episode_node" in found


def test_nobody_is_addressed_who_was_not_named(gen3, free_domain) -> None:
    with pytest.raises(ConfigError, match="robot_ip is missing"):
        hardware.processes(config(gen3, hardware="kortex"))
    with pytest.raises(ConfigError, match="robot_ip is for hardware:=kortex"):
        hardware.processes(config(gen3, hardware="mock", robot_ip="192.0.2.1"))


def test_an_arm_gets_its_address_the_strict_runtime_and_objects_that_nobody_sees(
    gen3, free_domain, emulator
) -> None:
    found = by_name(hardware.processes(config(gen3, emulator, rate=500.0)))
    nodes = ["integrator_node", "policy_node", "objects_node"]
    assert list(found) == [*nodes, "run_policy_node", "description_node"]
    values = found["integrator_node"].parameters
    assert values["robot_ip"] == HOST and values["udp_port"] == emulator.udp_port
    assert values["grip"] == Surroundings.named("throw-gen3").grip
    assert (values["hardware"], values["arm"], values["task"]) == ("kortex", "gen3", "")
    assert (values["command_mode"], values["rate"]) == ("position", 500.0)
    assert values["velocity_margin"] < 1.0 and values["max_following_error"] < 0.1
    # It was looked at, not taken.
    emulator.wait_for(lambda state: state["sessions"] == 0)
    assert emulator.control.do("record")["frames"] == 0


def test_a_dry_run_commands_nothing_and_minds_no_following_error(
    gen3, free_domain, emulator
) -> None:
    found = by_name(hardware.processes(config(gen3, emulator, dry_run=True)))
    values = found["integrator_node"].parameters
    assert values["dry_run"] is True
    assert values["on_following_error"] == "count"
    with pytest.raises(ConfigError, match="dry_run is for a real arm"):
        hardware.processes(config(gen3, hardware="mock", dry_run=True))


def test_joint_states_of_ros2_control_are_not_mixed_with_ours(gen3, free_domain) -> None:
    found = hardware.processes(config(gen3, hardware="ros2_control"))
    for spec in found:
        assert ("joint_states", "ndp/joint_states") in spec.remappings
        assert "joint_states:=ndp/joint_states" in spec.command


def test_ros2_control_starts_from_the_grip_of_what_the_task_holds(gen3, free_domain) -> None:
    def grip(**changes) -> object:
        found = by_name(hardware.processes(config(gen3, hardware="ros2_control", **changes)))
        return found["integrator_node"].parameters.get("grip")

    assert grip() == Surroundings.named("throw-gen3").grip
    assert grip(grip=0.5) == 0.5
    assert grip(close_gripper=False) is None
    assert grip(objects="topics") is None


def test_a_throw_is_held_to_the_same_limits_as_in_training() -> None:
    trained = ThrowConfig.preset("default", "gen3").limit_share
    for name in ("throw", "emulator"):
        runtime = RuntimeConfig.named(name)
        assert runtime.on_fast_segment == "clamp"
        assert runtime.velocity_margin == runtime.acceleration_margin == trained


# What is wrong is said in one line.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": 2000.0}, "a Kortex arm takes 1000"),
        ({"runtime": "warp"}, "runtime configuration"),
        ({"credentials_file": "/nowhere.yaml"}, "/nowhere.yaml"),
    ],
)
def test_arguments_that_do_not_fit_are_named(gen3, free_domain, emulator, changes, words) -> None:
    with pytest.raises(ConfigError, match=words):
        hardware.processes(config(gen3, emulator, **changes))


@pytest.mark.parametrize(
    ("backend", "options", "words"),
    [
        ("kortex", {"reply_timeout": "soon"}, "reply_timeout is 'soon'"),
        ("kortex", {"unreachable_after": 60.0}, "unreachable_after is 60"),
        ("kortex", {"trust_order": True}, "trust_order is for hardware:=ros2_control, not for k"),
        ("ros2_control", {"lockstep": True}, "lockstep is for hardware:=kortex, not for ros2_con"),
        ("ros2_control", {"controller_kind": "x"}, "controller_kind: 'x' is not one of"),
        ("mock", {"gripper_force": 50.0}, "gripper_force is for hardware:=kortex, not for mock"),
        ("mock", {"password": "sesame"}, "password is for hardware:=kortex"),
    ],
)
def test_argument_that_does_not_fit_the_backend_is_refused_before_anything_starts(
    gen3, free_domain, emulator, backend, options, words
) -> None:
    where = emulator if backend == "kortex" else None
    with pytest.raises(ConfigError, match=words) as caught:
        hardware.processes(config(gen3, where, hardware=backend, **options))
    assert "sesame" not in str(caught.value)


def test_flag_of_the_arm_reaches_the_arm_by_its_name_and_needs_no_other_declaration(
    gen3, free_domain, emulator
) -> None:
    parser = OneLineParser()
    run.configure(parser)
    arguments = [
        "--robot-ip",
        HOST,
        "--port",
        str(emulator.port),
        "--udp-port",
        str(emulator.udp_port),
        "--checkpoint",
        str(gen3),
        "--gripper-force",
        "40",
        "--no-close-gripper",
    ]
    given = from_arguments(HardwareConfig, parser.parse_args(arguments))
    values = by_name(hardware.processes(given))["integrator_node"].parameters
    assert values["gripper_force"] == 40.0 and "grip" not in values
    spec = from_mapping(StreamSpec, nest(StreamSpec, values))
    assert spec.kortex == replace(given.kortex, unreachable_after=spec.kortex.unreachable_after)


def test_an_argument_without_effect_on_the_simulated_arm_is_refused_not_ignored(
    tmp_path, free_domain
) -> None:
    folder = jaco_checkpoint(tmp_path / "jaco")
    without = {
        "runtime": "nix",
        "objects": "topics",
        "follow_for": 9.0,
        "port": 10300,
        "udp_port": 10301,
        "clear_faults": True,
        "username": "lab",
        "password": "sesame",
        "credentials_file": "/nowhere.yaml",
    }
    for name, value in without.items():
        with pytest.raises(ConfigError, match=f"^{name} (has no effect|is for hardware)") as caught:
            hardware.processes(config(folder, out=str(tmp_path / "out"), **{name: value}))
        assert "sesame" not in str(caught.value)


def test_a_policy_for_another_arm_is_refused(tmp_path, free_domain, emulator) -> None:
    with pytest.raises(ConfigError, match="trained for the arm jaco"):
        hardware.processes(config(jaco_checkpoint(tmp_path / "jaco"), emulator))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("unreachable", "check that the arm is on"),
        ("password", "check username and password"),
        ("fault", "clear its faults (clear_faults:=true)"),
    ],
)
def test_an_arm_that_cannot_be_driven_is_one_line_that_says_what_to_do(
    gen3, free_domain, emulator, capsys, what, words
) -> None:
    port = 1 if what == "unreachable" else emulator.port
    arguments = [
        "--robot-ip",
        HOST,
        "--port",
        str(port),
        "--udp-port",
        str(emulator.udp_port),
        "--checkpoint",
        str(gen3),
    ]
    if what == "password":
        arguments += ["--password", "sesame"]
    if what == "fault":
        emulator.control.do("fault", actuator=1, name="MAXIMUM_TORQUE")
    assert cli.main(["run", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("ndp run: ") and said.err.count("\n") == 1
    assert words in said.err
    assert "sesame" not in said.err
    if what == "fault":
        assert "actuator 2: MAXIMUM_TORQUE" in said.err


# Credentials.


def test_a_password_stands_in_the_environment_of_one_process_and_nowhere_else(
    gen3, free_domain, tmp_path
) -> None:
    import dataclasses

    file = tmp_path / "kortex.yaml"
    file.write_text("username: lab\npassword: open-sesame\n")
    file.chmod(0o600)
    secret = dataclasses.replace(PATIENT, username="lab", password="open-sesame")
    with EmulatorProcess(secret) as process:
        found = hardware.processes(config(gen3, process, credentials_file=str(file)))
    assert "open-sesame" not in repr(found)
    for spec in found:
        assert not any("open-sesame" in part for part in spec.command)
    held = [spec.name for spec in found if "open-sesame" in spec.environment.values()]
    assert held == ["integrator_node"]


# Surroundings.


@pytest.mark.parametrize(("arm", "scene"), [("gen3", "throw-gen3"), ("jaco", "throw")])
def test_surroundings_are_those_of_the_training(arm, scene) -> None:
    surroundings = Surroundings.named(scene)
    robot = MujocoArm(ArmConfig.named(arm), scene, 0.002)
    state = JointState.zeros(7)
    for seed in range(8):
        assert robot.reset(seed)[-1] == surroundings.grip
        assert surroundings.released < robot.read(state).position[-1] - 0.01
    place = surroundings.positions[surroundings.fixed.index("bin")]
    np.testing.assert_allclose(place, robot.objects()["bin"][:3], atol=1e-9)


def test_held_object_is_in_the_hand_until_it_opens_and_flies_from_there() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
    from ndp_ros.nodes.objects_node import Held

    surroundings = Surroundings.named("throw-gen3")
    robot = MujocoArm(ARM, "throw-gen3", 0.002)
    held, state = Held(ARM, surroundings), JointState.zeros(7)
    for seed in range(4):
        robot.reset(seed)
        joints = robot.read(state).position
        np.testing.assert_allclose(held(0.0, joints), robot.objects()["cube"][:3], atol=0.01)
    # The arm turns about its base at 1 rad/s and opens its hand at 0.1 s.
    joints = joints.copy()
    turn, places = joints[0], []
    for t in np.arange(0.0, 0.5, 0.005):
        joints[0] = turn + t
        joints[N] = 0.4 if t < 0.1 else 0.2
        places.append(held(1.0 + t, joints))
    assert held.free
    places = np.array(places)
    radius = np.hypot(*places[20, :2])
    speed = np.linalg.norm(np.diff(places[22:24, :2], axis=0)) / 0.005
    assert speed == pytest.approx(radius * 1.0, rel=0.02)
    fall = np.diff(places[22:30, 2], 2) / 0.005**2
    np.testing.assert_allclose(fall, -9.81, rtol=1e-3)
    assert places[-1, 2] == pytest.approx(surroundings.floor)
    joints[N] = 0.4
    held(2.0, joints)
    assert not held.free


# All of it.


@pytest.mark.ros
def test_ndp_run_takes_an_arm_moves_it_for_a_while_and_gives_it_back(
    tmp_path, free_domain, emulator
) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
    pytest.importorskip("ndp_interfaces", reason="needs the message package")
    from ndp_interfaces.msg import Status
    from std_srvs.srv import SetBool
    from test_kortex_system import RUNTIME, swaying_checkpoint

    from ndp_ros.nodes import qos

    runtime = tmp_path / "patient.yaml"
    runtime.write_text(json.dumps(RUNTIME | {"feedback_timeout": 5.0, "stall_timeout": 5.0}))
    checkpoint = swaying_checkpoint(tmp_path / "sway", 0.4)
    with ros_system(tmp_path) as ros:
        status = ros.listen(Status, "ndp/status", qos.LATCHED)
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "ndp_ros.cli",
                "run",
                "--robot-ip",
                HOST,
                "--port",
                str(emulator.port),
                "--udp-port",
                str(emulator.udp_port),
                "--rate",
                "500",
                "--checkpoint",
                str(checkpoint),
                "--runtime",
                str(runtime),
                "--follow-for",
                "0.5",
                "--reply-timeout",
                "0.1",
                "--unreachable-after",
                "10.0",
            ],
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_the_test,
            env=os.environ | {"ROS_DOMAIN_ID": str(ros.domain)},
        )
        try:
            ros.until(lambda: status and status[-1].state == "holding", "an arm that holds")
            follow = SetBool.Request(data=True)
            assert ros.call(SetBool, "integrator_node/follow", follow).success
            ros.until(lambda: any(s.state == "following" for s in status), "motion")
            # Nobody tells it to stop.
            ros.until(lambda: status[-1].state == "holding", "the end of the motion")
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 128 + signal.SIGINT
        finally:
            if process.poll() is None:
                process.terminate()
            said = process.communicate(timeout=PATIENCE)[1]
            print(said)
    assert f"a real arm at {HOST}:{emulator.port} is driven by position at 500 Hz" in said
    state = emulator.wait_for(lambda state: state["servoing"] == "SINGLE_LEVEL")
    assert state["sessions"] == 0
    assert emulator.control.do("record")["frames"] > 100
