# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Plans of launch files: the interpreter that they need, and the work left to the nodes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ndp_ros.bringup import plan
from ndp_ros.bringup.arm import HardwareConfig
from ndp_ros.bringup.checks import require_namespace
from ndp_ros.bringup.process import ProcessSpec
from ndp_ros.bringup.system import SimConfig
from ndp_ros.errors import ConfigError

pytestmark = pytest.mark.live

HEAVY = ("torch", "safetensors", "mujoco", "pinocchio", "gymnasium", "numpy", "matplotlib")


def test_arguments_are_known_without_what_the_nodes_need() -> None:
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}));"
        "from ndp_ros.bringup.plan import config_of; from ndp_ros.config import fields_of;"
        "print(len(fields_of(config_of('sim'))), len(fields_of(config_of('hardware'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(int(n) > 5 for n in done.stdout.split())


def test_an_error_of_the_nodes_interpreter_is_one_line(monkeypatch) -> None:
    # The nodes are started by python3 of the path, and so is this.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    with pytest.raises(ConfigError, match="no checkpoint folder /nowhere") as caught:
        plan.ask(plan.SIM, SimConfig(checkpoint="/nowhere"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="robot_ip is missing"):
        plan.ask(plan.HARDWARE, HardwareConfig(hardware="kortex"))


def test_an_interpreter_without_the_packages_is_named(tmp_path: Path, monkeypatch) -> None:
    fake = tmp_path / "python3"
    fake.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c \"import sys; sys.modules['safetensors'] = None; "
        "import ndp_ros.bringup.plan as p; sys.exit(p.main(['sim']))\"\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ConfigError, match=r"ndp_ros\[train\].*activate its virtual environment"):
        plan.ask(plan.SIM, SimConfig())


def test_what_is_started_survives_the_way_through_the_pipe(monkeypatch, capsys) -> None:
    spec = ProcessSpec(
        "integrator_node",
        {"rate": 500.0},
        environment={"A": "b"},
        remappings=(("joint_states", "ndp/joint_states"),),
        namespace="left",
    )
    monkeypatch.setattr(plan, "plan", lambda config: ([spec], "drives"))
    monkeypatch.setattr(sys.stdin, "read", lambda: "{}", raising=False)
    assert plan.main(["sim"]) == 0
    answer = capsys.readouterr().out
    done = subprocess.CompletedProcess([], 0, answer, "")
    monkeypatch.setattr(plan.subprocess, "run", lambda *_, **__: done)
    assert plan.ask(plan.SIM, SimConfig()) == ([spec], "drives")
    assert "-r __ns:=/left" in " ".join(spec.command)
    assert json.loads(answer)["notice"] == "drives"


@pytest.mark.parametrize("namespace", ["1left", "a b", "left/", "a//b", "é", "-x"])
def test_a_namespace_that_ros_refuses_is_refused(namespace) -> None:
    with pytest.raises(ConfigError, match="namespace is"):
        require_namespace(namespace)


def test_a_namespace_has_parts() -> None:
    for namespace in ("", "left", "/left", "lab/left_2"):
        require_namespace(namespace)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("ros2 launch ndp_ros sim.launch.py rate:=500", True),
        ("ros2 launch --launch-prefix ndp_ros ndp_ros sim.launch.py --debug", True),
        ("ros2 launch ours/sim.launch.py throws:=1", True),
        ("ros2 launch --noninteractive linked.launch.py", True),
        ("ros2 launch theirs/sim.launch.py", False),
        ("ros2 launch my_robot sim.launch.py", False),
        ("ros2 launch my_robot sim.launch.py ndp_ros:=sim.launch.py", False),
        ("ros2 launch ndp_ros jaco_throw.launch.py", False),
        ("launch_test theirs/sim.launch.py", False),
    ],
)
def test_a_launch_file_knows_whether_it_was_launched_or_included(
    command: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sim.launch.py").write_text("")
    ours = tmp_path / "ours" / "sim.launch.py"
    (tmp_path / "linked.launch.py").symlink_to(ours)
    monkeypatch.chdir(tmp_path)
    assert plan.names_launch_file(command.split(), ours) == expected
    # Where a package's launch file of that name is started, the one in this folder is not.
    monkeypatch.chdir(tmp_path / "ours")
    named = plan.names_launch_file(["ros2", "launch", "my_robot", "sim.launch.py"], ours)
    assert not named
