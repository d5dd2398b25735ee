# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The launch files, with the real ``ros2 launch`` where it is installed."""

import importlib.util
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ros_support import claim_domain
from test_bringup import gone, jaco_checkpoint

from ndp_ros.bringup.arm import HardwareConfig
from ndp_ros.bringup.system import SimConfig
from ndp_ros.config import leaves
from ndp_ros.control.arm import ArmConfig

GEN3 = ArmConfig.named("gen3")
ROOT = Path(__file__).resolve().parent.parent
SIM, ARM = (ROOT / "launch" / f"{name}.launch.py" for name in ("sim", "jaco_throw"))


def _absent() -> str:
    """Return what is missing; the folder ``launch`` of this project is no package."""
    for module in ("launch.actions", "launch_ros.actions"):
        try:
            if importlib.util.find_spec(module) is None:
                return module
        except ModuleNotFoundError:
            return module
    return "" if shutil.which("ros2") else "ros2"


pytestmark = pytest.mark.skipif(
    bool(_absent()), reason="launch and ros2cli are part of a ROS 2 installation only"
)


def launch(
    *arguments: str, file: Path = SIM, timeout: float = 200.0
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["ros2", "launch", str(file), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    domain, lock = claim_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    yield domain
    lock.close()


@pytest.mark.parametrize(("file", "config"), [(SIM, SimConfig), (ARM, HardwareConfig)])
def test_every_argument_is_documented(file: Path, config: type) -> None:
    run = launch("--show-args", file=file)
    assert run.returncode == 0, run.stderr
    for p in leaves(config):
        assert f"'{p.name}':" in run.stdout
        assert p.doc in run.stdout


@pytest.mark.parametrize(
    ("argument", "words"), [("rate:=0", "rate is 0"), ("checkpoint:=/nowhere", "/nowhere")]
)
def test_a_bad_argument_starts_nothing(
    argument: str, words: str, tmp_path: Path, domain: int
) -> None:
    folder = jaco_checkpoint(tmp_path / "good")
    run = launch(f"checkpoint:={folder}", argument)
    assert run.returncode != 0
    assert words in run.stdout + run.stderr
    assert "process started" not in run.stdout + run.stderr


@pytest.mark.ros
def test_throws_are_made_and_the_launch_ends_by_itself(tmp_path: Path, domain: int) -> None:
    folder = jaco_checkpoint(tmp_path / "good")
    run = launch(
        f"checkpoint:={folder}", "throws:=1", "rate:=500", "record:=none", f"out:={tmp_path}/out"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "throw  1/1" in run.stdout
    assert (tmp_path / "out" / "episodes.json").exists()


def test_an_arm_that_does_not_answer_is_one_line_and_nothing_starts(
    tmp_path: Path, domain: int
) -> None:
    folder = jaco_checkpoint(
        tmp_path / "gen3", arm="gen3", task="throw-gen3", joint_names=GEN3.joint_names
    )
    arguments = ("robot_ip:=127.0.0.1", "port:=1", "password:=sesame", f"checkpoint:={folder}")
    run = launch(*arguments, file=ARM)
    said = run.stdout + run.stderr
    assert run.returncode != 0
    assert "no arm at 127.0.0.1:1" in said and "check that the arm is on" in said
    assert "process started" not in said
    logs = "".join(p.read_text() for p in (tmp_path / "log").rglob("*") if p.is_file())
    assert "sesame" not in said + logs


@pytest.mark.ros
def test_a_parameter_that_a_node_refuses_ends_the_launch(tmp_path: Path, domain: int) -> None:
    folder, file = jaco_checkpoint(tmp_path / "good"), tmp_path / "p.yaml"
    file.write_text("policy_node: {ros__parameters: {max_observation_aeg: 0.3}}")
    run = launch(f"checkpoint:={folder}", "throws:=0", f"params_file:={file}")
    said = run.stdout + run.stderr
    assert run.returncode != 0
    assert said.count("did you mean max_observation_age?") == 1
    assert "policy_node has ended with status 2" in said


INCLUDES = """
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, TimerAction, LogInfo
from launch.launch_description_sources import PythonLaunchDescriptionSource

def generate_launch_description():
    return LaunchDescription([
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource({file!r}), launch_arguments={arguments!r}.items()
        ),
        TimerAction(period=1000.0, actions=[LogInfo(msg="never")]),
    ])
"""


@pytest.mark.ros
def test_a_launch_file_of_the_same_name_that_includes_ours_goes_on_without_it(
    tmp_path: Path, domain: int
) -> None:
    folder = jaco_checkpoint(tmp_path / "good")
    arguments = {
        "checkpoint": str(folder),
        "throws": "1",
        "rate": "500",
        "record": "none",
        "out": str(tmp_path / "out"),
    }
    file, said, text = tmp_path / SIM.name, tmp_path / "said", ""
    file.write_text(INCLUDES.format(file=str(SIM), arguments=arguments))
    with said.open("w") as log:
        process = subprocess.Popen(
            ["ros2", "launch", str(file)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        end = time.monotonic() + 200.0
        while text.count("process has finished cleanly") < 3:
            assert time.monotonic() < end, text
            assert process.poll() is None, text
            time.sleep(0.1)
            text = said.read_text()
        assert "all is done: its system is shut down" in text
        time.sleep(1.0)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, said.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.ros
def test_the_bare_command_throws_with_the_simulated_arm_and_says_so(
    tmp_path: Path, domain: int
) -> None:
    folder = jaco_checkpoint(tmp_path / "good")
    run = launch(f"checkpoint:={folder}", "throws:=1", f"out:={tmp_path}/out", file=ARM)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "no robot_ip: the simulated arm (MuJoCo) is driven" in run.stdout + run.stderr
    assert "throw  1/1" in run.stdout


@pytest.mark.ros
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_node_outlives_the_launch(tmp_path: Path, domain: int, number: signal.Signals) -> None:
    folder = jaco_checkpoint(tmp_path / "good")
    said, text = tmp_path / "said", ""
    with said.open("w") as log:
        process = subprocess.Popen(
            ["ros2", "launch", str(SIM), f"checkpoint:={folder}", "throws:=0"],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 60.0
        while "1000 Hz" not in text or "a segment every" not in text:
            assert time.monotonic() < end and process.poll() is None, text
            time.sleep(0.1)
            text = said.read_text()
        nodes = [int(pid) for pid in re.findall(r"process started with pid \[(\d+)\]", text)]
        assert len(nodes) == 4
        process.send_signal(number)
        process.wait(60)
        assert all(gone(pid) for pid in nodes)
    finally:
        process.kill()
        process.wait()
