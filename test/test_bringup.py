# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Bring-up names a fault in one line before anything starts, and ends all that it started."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from ros_support import claim_domain, die_with_the_test, tiny_checkpoint

from ndp_ros import checkpoint, cli
from ndp_ros.bringup import checks, supervisor
from ndp_ros.bringup.plan import from_text
from ndp_ros.bringup.process import ProcessSpec
from ndp_ros.bringup.supervisor import Supervisor
from ndp_ros.bringup.system import SimConfig, preflight, simulation
from ndp_ros.control.arm import ArmConfig, SimulatedArm
from ndp_ros.errors import ConfigError, StreamError
from ndp_ros.nodes.claims import claim, claim_node, domain_id
from ndp_ros.observation import arm_observation
from ndp_ros.streaming.backends import make as make_arm
from ndp_ros.streaming.config import StreamSpec

pytestmark = pytest.mark.live

JACO = ArmConfig.named("jaco")


def jaco_checkpoint(folder: Path, **changes: object) -> Path:
    """Save an untrained NDP for the simulated Jaco."""
    values = {
        "arm": "jaco",
        "joint_names": JACO.joint_names,
        "control_dt": 0.05,
        "observation": arm_observation(7, ["cube", "bin"]),
        "action_scale": (0.075,) * 6 + (0.15,),
    }
    return tiny_checkpoint(folder, **(values | changes))


NUDGE = """
import gymnasium
from ndp_ros.tasks import ArmTask, ArmTaskConfig

class Nudge(ArmTask):
    task = "nudge"

    def __init__(self, k=5, render_mode=None, preset="default"):
        super().__init__(ArmTaskConfig.preset(preset), "pick", k, render_mode)

    def begin(self):
        start = self.robot.model.joint("cube").qposadr[0]
        self.robot.data.qpos[start : start + 2] = 0.7, 0.1
        __import__("mujoco").mj_forward(self.robot.model, self.robot.data)

    def reward(self, first):
        return 0.0

    def summary(self):
        return {"success": True}

gymnasium.register("Nudge-v0", entry_point="nudge:Nudge")
"""


@pytest.fixture
def free_domain(monkeypatch: pytest.MonkeyPatch) -> object:
    domain, lock = claim_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    # Listening for other nodes takes a second; one test does it.
    monkeypatch.setattr(checks, "_listen", lambda: contextlib.nullcontext(list))
    yield domain
    lock.close()


def sim(folder: Path, tmp_path: Path, **changes: object) -> SimConfig:
    return SimConfig(**({"checkpoint": str(folder), "out": str(tmp_path / "out")} | changes))


# -- preflight --------------------------------------------------------------------------------


def test_a_good_checkpoint_passes(tmp_path: Path, free_domain: int) -> None:
    folder = jaco_checkpoint(tmp_path / "good")
    assert preflight(sim(folder, tmp_path)).spec.arm == "jaco"
    assert (tmp_path / "out").is_dir()


def bad_checkpoint(kind: str, folder: Path) -> Path:
    if kind == "missing":
        return folder
    if kind == "empty":
        folder.mkdir()
        return folder
    if kind == "another arm":
        return tiny_checkpoint(folder, arm="planar")
    if kind == "other joints":
        names = (*JACO.joint_names[:-1], "thumb")
        return jaco_checkpoint(folder, joint_names=names)
    if kind == "baseline":
        return jaco_checkpoint(folder, method="ppo", k=1)
    if kind == "another task":
        return jaco_checkpoint(folder, task="digits")
    jaco_checkpoint(folder)
    model = folder / "model.safetensors"
    if kind == "truncated":
        model.write_bytes(model.read_bytes()[:-100])
    elif kind == "NaN":
        tensors = safetensors.numpy.load_file(model)
        next(iter(tensors.values()))[:] = np.nan
        safetensors.numpy.save_file(tensors, model)
    else:
        (folder / "config.json").write_text("{")
    return folder


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "empty",
        "another arm",
        "other joints",
        "baseline",
        "another task",
        "truncated",
        "NaN",
        "no JSON",
    ],
)
def test_a_bad_checkpoint_is_one_line_and_nothing_starts(
    kind: str,
    tmp_path: Path,
    free_domain: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(Supervisor, "run", never)
    folder = bad_checkpoint(kind, tmp_path / "checkpoint")
    arguments = ["--checkpoint", str(folder), "--out", str(tmp_path / "out")]
    assert cli.main(["sim", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("ndp sim: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rate", "0"], ["rate is 0", "100 to 5000"]),
        (["--rate", "fast"], ["rate is 'fast'"]),
        (["--rate", "10000"], ["rate is 10000", "100 to 5000"]),
        (["--throws", "-1"], ["throws is -1"]),
        (["--seed", "1.5"], ["seed is '1.5'"]),
        (["--viewer"], ["viewer needs a screen"]),
        (["--hight", "3"], ["--hight"]),
    ],
)
def test_a_bad_argument_is_one_line_that_says_what_is_allowed(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    free_domain: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = jaco_checkpoint(tmp_path / "good")
    try:
        status = cli.main(["sim", "--checkpoint", str(folder), *arguments])
    except SystemExit as end:
        status = int(end.code or 0)
    assert status == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    for word in words:
        assert word in said


@pytest.mark.parametrize("value", ["-1", "233", "robots", "1.0"])
def test_a_domain_that_is_not_valid_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="ROS_DOMAIN_ID"):
        domain_id({"ROS_DOMAIN_ID": value})


def test_a_domain_in_use_is_refused_until_it_is_free(tmp_path: Path, free_domain: int) -> None:
    config = sim(jaco_checkpoint(tmp_path / "good"), tmp_path)
    held = claim_node("/integrator_node")
    with pytest.raises(ConfigError, match=f"ROS domain {free_domain}: node /integrator_node is in"):
        preflight(config)
    preflight(dataclasses.replace(config, namespace="left"))
    held.close()
    preflight(config)


def test_a_claim_is_this_user_s_alone_and_ends_with_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    code = (
        "import sys, tempfile, time; tempfile.gettempdir = lambda: sys.argv[1];"
        "from ndp_ros.nodes.claims import claim; held = claim('the arm');"
        "print('held', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"the arm is in use by process {other.pid}"):
            claim("the arm")
    finally:
        other.kill()
        other.wait()
    claim("the arm").close()
    folder = tmp_path / f"ndp_ros-{os.geteuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="not a folder of this user's alone"):
        claim("the arm")


def test_a_claim_waits_for_no_pipe_and_follows_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / f"ndp_ros-{os.geteuid()}").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="not a folder of this user's alone"):
        claim("the arm")


@pytest.mark.ros
def test_a_node_of_another_machine_is_found_by_its_name(
    free_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclpy = pytest.importorskip("rclpy")
    monkeypatch.undo()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(free_domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    checks.require_free_domain()
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=free_domain)
    node = rclpy.create_node("policy_node", context=context)
    try:
        for attempt in range(5):  # a busy machine may not show a node within a second
            try:
                checks.require_free_domain()
            except ConfigError as error:
                assert "/policy_node run there already" in str(error)
                break
            assert attempt < 4, "the node was not found"
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def test_an_output_folder_that_cannot_be_made_is_refused(tmp_path: Path, free_domain: int) -> None:
    (tmp_path / "out").write_text("a file")
    config = sim(jaco_checkpoint(tmp_path / "good"), tmp_path)
    with pytest.raises(ConfigError, match="out"):
        preflight(config)


# -- the description --------------------------------------------------------------------------


def specs(tmp_path: Path, **changes: object) -> dict[str, ProcessSpec]:
    config = sim(jaco_checkpoint(tmp_path / "good"), tmp_path, **changes)
    found = simulation(config, checkpoint.load(config.checkpoint))
    return {spec.name: spec for spec in found}


def test_one_rate_and_one_checkpoint_reach_every_process(tmp_path: Path) -> None:
    found = specs(tmp_path, rate=5000.0, throws=3, seed=7)
    assert list(found) == ["integrator_node", "policy_node", "description_node", "episode_node"]
    assert found["integrator_node"].parameters["rate"] == 5000.0
    folder = str(tmp_path / "good")
    assert found["policy_node"].parameters["checkpoint"] == folder
    assert found["episode_node"].parameters["checkpoint"] == folder
    assert found["episode_node"].parameters["seed"] == 7
    assert found["episode_node"].ends_system
    assert found["policy_node"].respawn


def test_no_throws_bring_the_system_up_alone(tmp_path: Path) -> None:
    found = specs(tmp_path, throws=0, describe=False)
    assert list(found) == ["integrator_node", "policy_node", "run_policy_node"]


def test_chunks_drive_the_arm_in_the_place_of_a_checkpoint_and_without_episodes(
    tmp_path: Path,
) -> None:
    found = specs(tmp_path, policy="chunks", describe=False)
    assert list(found) == ["integrator_node", "chunk_node", "run_policy_node"]


def test_the_task_is_the_one_that_the_checkpoint_was_trained_on(tmp_path: Path) -> None:
    config = {"preset": "default", "task_options": ["moving_bin=true", "horizon=1.5"]}
    folder = jaco_checkpoint(tmp_path / "good")
    saved = checkpoint.load(folder)
    saved.provenance["config"] = config
    record = saved.trained_on()
    assert (record.task, record.preset) == ("throw", "default")
    assert (record.option("moving_bin"), record.option("horizon")) == (True, 1.5)
    assert record.option("latency") is None
    found = simulation(sim(folder, tmp_path), saved)
    values = found[0].parameters
    assert (values["task"], values["command_mode"]) == ("throw", "torque")
    assert values["task_options"] == ["k=5", "preset=default", "moving_bin=true", "horizon=1.5"]
    assert values["objects"] == ["cube", "bin"]


def test_a_task_of_the_user_runs_with_its_own_objects_and_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nudge.py").write_text(NUDGE)
    folder = jaco_checkpoint(tmp_path / "good", task="nudge:Nudge-v0")
    values = simulation(sim(folder, tmp_path), checkpoint.load(folder))[0].parameters
    assert (values["task"], values["objects"]) == ("nudge:Nudge-v0", ["cube"])
    options = tuple(values["task_options"])
    arm, omega = make_arm(StreamSpec(arm="jaco", task=values["task"], task_options=options))
    assert omega.mode == "torque"
    assert isinstance(arm, SimulatedArm)
    # What a task does at the start of an episode happens under ROS too.
    arm.reset(3)
    assert arm.objects()["cube"][:2] == pytest.approx([0.7, 0.1], abs=1e-6)


def test_launch_arguments_are_the_fields_of_the_configuration() -> None:
    text = {"rate": "2000", "viewer": "False", "record": "video", "throws": "3", "checkpoint": "12"}
    config = from_text(SimConfig, text)
    assert config == SimConfig(checkpoint="12", rate=2000.0, throws=3, viewer=False, record="video")
    with pytest.raises(ConfigError, match="rate is 'fast'"):
        from_text(SimConfig, {"rate": "fast"})


# -- the supervisor ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Script(ProcessSpec):
    """A process that runs a piece of Python instead of a node."""

    code: str = ""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-S", "-c", self.code]


SLEEP = "import time; time.sleep(600)"


def write_pid(path: Path, then: str = SLEEP) -> str:
    write = f"open({str(path)!r}, 'a').write(f'{{os.getpid()}}\\n')"
    return f"import os; from ndp_ros.processes import *; terminate_with_parent(); {write}; {then}"


def pids(path: Path, n: int = 1) -> list[int]:
    deadline = time.monotonic() + 30
    while True:
        found = path.read_text().split() if path.exists() else []
        if len(found) >= n or time.monotonic() > deadline:
            return [int(pid) for pid in found]
        time.sleep(0.02)


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def script(name: str, code: str, **changes: bool) -> Script:
    return Script(name, {}, code=code, **changes)


@pytest.mark.parametrize("status", [0, 3])
def test_the_process_that_ends_the_system_decides_its_status(tmp_path: Path, status: int) -> None:
    other = tmp_path / "other"
    wait = f"import os, time\nwhile not os.path.exists({str(other)!r}): time.sleep(0.01)"
    system = [
        script("other", write_pid(other)),
        script("last", f"{wait}\nraise SystemExit({status})", ends_system=True),
    ]
    assert Supervisor(system).run() == status
    assert all(gone(pid) for pid in pids(other))


def test_a_process_that_must_not_end_ends_everything(tmp_path: Path) -> None:
    other = tmp_path / "other"
    wait = f"import os, time\nwhile not os.path.exists({str(other)!r}): time.sleep(0.01)"
    system = [script("other", write_pid(other)), script("fragile", f"{wait}\nraise SystemExit(4)")]
    with pytest.raises(StreamError, match="fragile has ended \\(status 4\\)"):
        Supervisor(system).run()
    assert all(gone(pid) for pid in pids(other))


def test_a_killed_policy_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervisor, "_RESPAWN_DELAY", 0.01)
    seen = tmp_path / "policy"
    suicide = "os.kill(os.getpid(), 9) if len(open({!r}).read().split()) < 3 else None; {}"
    twice = f"import time, os\nwhile not (os.path.exists({str(seen)!r}) and len(open({str(seen)!r}).read().split()) >= 3): time.sleep(0.01)"  # noqa: E501
    system = [
        script("policy", write_pid(seen, suicide.format(str(seen), SLEEP)), respawn=True),
        script("last", twice, ends_system=True),
    ]
    assert Supervisor(system).run() == 0
    assert all(gone(pid) for pid in pids(seen, 3))
    assert "policy has ended (signal 9); it is started again" in capsys.readouterr().err


def test_the_system_goes_on_without_what_is_optional(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    wait = f"import os, time\nwhile not os.path.exists({str(seen)!r}): time.sleep(0.01)"
    system = [
        script("viewer", write_pid(seen, "pass"), optional=True),
        script("last", f"{wait}\ntime.sleep(0.3)", ends_system=True),
    ]
    assert Supervisor(system).run() == 0


def test_a_refusal_is_not_tried_again() -> None:
    system = [script("policy", "raise SystemExit(2)", respawn=True)]
    with pytest.raises(StreamError, match="status 2"):
        Supervisor(system).run()


AT_THE_GATE = """
import signal, time
from ndp_ros.processes import may_start
signal.signal(signal.SIGTERM, lambda *_: None)
open({waits!r}, "a").write("x")
if not may_start():
    raise SystemExit(0)
open({runs!r}, "a").write("x")
"""


def gated(tmp_path: Path, name: str, **changes: bool) -> Script:
    """Return a process that leaves a file when it waits at the gate, and another behind it."""
    files = {"waits": str(tmp_path / f"{name}_waits"), "runs": str(tmp_path / f"{name}_runs")}
    return script(name, AT_THE_GATE.format(**files), **changes)


def until_all_wait(tmp_path: Path) -> None:
    while len(list(tmp_path.glob("*_waits"))) < 2:
        time.sleep(0.01)
    time.sleep(0.1)
    assert not list(tmp_path.glob("*_runs"))


def test_processes_start_together_once_the_system_is_admitted(tmp_path: Path) -> None:
    system = [gated(tmp_path, "a", optional=True), gated(tmp_path, "b", optional=True)]
    both = f"import time\nfrom pathlib import Path\nwhile len(list(Path({str(tmp_path)!r}).glob('*_runs'))) < 2: time.sleep(0.01)"  # noqa: E501
    system.append(script("last", both, ends_system=True))
    assert Supervisor(system, admit=lambda: until_all_wait(tmp_path)).run() == 0


def test_no_process_of_a_system_that_is_not_admitted_gets_beyond_its_gate(tmp_path: Path) -> None:
    def admit() -> None:
        until_all_wait(tmp_path)
        raise ConfigError("another system is here")

    began = time.monotonic()
    with pytest.raises(ConfigError, match="another system"):
        Supervisor([gated(tmp_path, "a"), gated(tmp_path, "b")], admit=admit).run()
    assert not list(tmp_path.glob("*_runs"))
    assert time.monotonic() - began < supervisor._GRACE, "none had to be killed"  # noqa: SLF001


def test_an_interrupted_system_is_not_started_any_more(tmp_path: Path) -> None:
    def admit() -> None:
        until_all_wait(tmp_path)
        os.kill(os.getpid(), signal.SIGINT)

    status = Supervisor([gated(tmp_path, "a"), gated(tmp_path, "b")], admit=admit).run()
    assert status == 128 + signal.SIGINT
    assert not list(tmp_path.glob("*_runs"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_supervisor(tmp_path: Path, number: signal.Signals) -> None:
    seen = tmp_path / "seen"
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_bringup import *\n"
        "seen = Path(sys.argv[2])\n"
        "system = [script('a', write_pid(seen)), script('b', write_pid(seen))]\n"
        "sys.exit(Supervisor(system).run())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(seen)],
        start_new_session=True,
    )
    children = pids(seen, 2)
    assert len(children) == 2
    parent.send_signal(number)
    assert parent.wait(30) == (-9 if number == signal.SIGKILL else 128 + number)
    assert all(gone(pid) for pid in children)


# -- all of it --------------------------------------------------------------------------------


@pytest.mark.ros
def test_ndp_sim_throws_and_reports(tmp_path: Path, free_domain: int) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
    pytest.importorskip("ndp_interfaces", reason="needs the message package")
    folder = jaco_checkpoint(tmp_path / "good")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "ndp_ros.cli",
            "sim",
            "--checkpoint",
            str(folder),
            "--throws",
            "2",
            "--rate",
            "500",
            "--seed",
            "3",
            "--out",
            str(tmp_path / "out"),
            "--record",
            "none",
            "--no-describe",
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env=os.environ | {"ROS_LOG_DIR": str(tmp_path / "log")},
    )
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    result = json.loads(line)
    assert result["episodes"] == len(result["each"]) == 2
    assert [t["seed"] for t in result["each"]] == [3, 4]
    assert result["successes"] == 0  # it has never trained
    assert result["rate_hz"] == 500.0
    assert result["ticks"] > 500
    assert 0.0 <= result["lateness_us"]["p50"] <= result["lateness_us"]["p99"]
    assert result["lateness_us"]["p99"] <= result["lateness_us"]["max"]
    assert result["segments"]["accepted"] > 2
    assert "throw  1/2" in run.stderr
    assert json.loads((tmp_path / "out" / "episodes.json").read_text()) == result


@pytest.mark.ros
def test_throws_that_were_made_before_an_interruption_are_reported_and_written(
    tmp_path: Path, free_domain: int
) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
    pytest.importorskip("ndp_interfaces", reason="needs the message package")
    folder = jaco_checkpoint(tmp_path / "good")
    run = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ndp_ros.cli",
            "sim",
            "--checkpoint",
            str(folder),
            "--throws",
            "1000",
            "--no-describe",
            "--rate",
            "500",
            "--out",
            str(tmp_path / "out"),
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_the_test,
        env=os.environ | {"ROS_LOG_DIR": str(tmp_path / "log")},
    )
    try:
        assert run.stderr is not None
        seen = []
        while not (seen and seen[-1].startswith("throw  1/1000")):
            line = run.stderr.readline()
            assert line, "".join(seen)
            seen.append(line)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 128 + signal.SIGINT, err
    (line,) = out.splitlines()
    result = json.loads(line)
    assert 1 <= result["episodes"] == len(result["each"]) < 1000
    assert json.loads((tmp_path / "out" / "episodes.json").read_text()) == result
    assert f"{result['successes']} of {result['episodes']} succeeded" in err
    assert err.splitlines()[-1] == "ndp sim: interrupted"
