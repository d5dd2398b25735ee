# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Errors of the system, of parsers and of imports are one line and status 2 in every command."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from ndp_ros import checkpoint
from ndp_ros.cli import main as ndp
from ndp_ros.errors import CheckpointError, ConfigError, TrainingError, describe
from ndp_ros.paths import find_checkpoint
from ndp_ros.training.directory import hold

pytestmark = pytest.mark.live

COMMANDS = [
    ["eval"],
    ["check"],
    ["plot", "-o", "curve.png"],
    ["sim", "--checkpoint"],
    ["run", "--robot-ip", "127.0.0.1", "--checkpoint"],
    ["train", "throw", "--config"],
    ["train", "throw", "--start-from"],
    ["train", "throw", "--resume", "--out"],
    ["export", "-o", "exported"],
    ["collect", "-o", "collected.npz"],
]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def bad_paths(folder: Path) -> dict[str, str]:
    """Return paths by what is wrong with them, made in a folder."""
    os.mkfifo(folder / "pipe")
    (folder / "empty").mkdir()
    (folder / "nested").write_text("[" * 100_000)
    (folder / "bytes").write_bytes(b"a: \xff\xfe")
    (folder / "loop").symlink_to("loop")
    for name, content in (("brackets", b"[" * 100_000), ("truncated", b'{"schema": 1')):
        (folder / name).mkdir()
        (folder / name / "config.json").write_bytes(content)
        (folder / name / "model.safetensors").write_bytes(b"x")
    (folder / "piped").mkdir()
    os.mkfifo(folder / "piped" / "config.json")
    named = {path.name: str(path) for path in folder.iterdir()}
    return {**named, "long": "x" * 300, "deep": f"{'y/' * 200}z" * 12, "none": "nowhere"}


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert said.err.count("\n") == 1, said.err
    return said.err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_unusable_path_is_one_line(command, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for path in bad_paths(tmp_path).values():
        assert ndp([*command, path]) == 2, path
        one_line(capsys)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a while")
@pytest.mark.parametrize("command", [COMMANDS[0], COMMANDS[1], COMMANDS[5]], ids=" ".join)
def test_a_folder_of_another_user_is_one_line(command, tmp_path) -> None:
    if subprocess.run([*NOBODY, sys.executable, "-c", "import ndp_ros"], check=False).returncode:
        pytest.skip("another user cannot reach this interpreter")
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed" / "config.json").write_text("{}")
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    for path in ("closed", "closed/config.json", "closed/x/y"):
        done = subprocess.run(
            [*NOBODY, sys.executable, "-m", "ndp_ros.cli", *command, str(tmp_path / path)],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("output", ["/dev/full", "closed"])
@pytest.mark.parametrize(
    "command", [["--help"], ["eval", "--help"], ["check", "--json", "config/arms/jaco.yaml"]]
)
def test_a_command_whose_output_fails_does_not_succeed(command, output) -> None:
    root = Path(__file__).parent.parent
    to = ">&-" if output == "closed" else f"> {output}"
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m ndp_ros.cli "$@" {to}', sys.executable, *command],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=root,
    )
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if "sound" not in line]
    assert len(lines) == 1, done.stderr


def test_a_deleted_working_directory_is_one_line(tmp_path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    ndp_script = Path(sys.executable).with_name("ndp")
    if not ndp_script.exists():
        pytest.skip("the command ndp is not installed beside this interpreter")
    done = subprocess.run(
        [
            "sh",
            "-c",
            'rmdir "$PWD" && exec "$0" "$@"',
            str(ndp_script),
            "train",
            "throw",
            "--samples",
            "100",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "ndp train: the working directory no longer exists: go to another one\n"


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("mujoco", "ndp_ros[sim]"),
        ("torch", "ndp_ros[train]"),
        ("rclpy", "ndp_ros[wheels]"),
        ("metaworld.envs", "ndp_ros[metaworld]"),
        ("google.protobuf", "ndp_ros[kortex]"),
    ],
)
def test_a_missing_module_is_named_with_the_extra_that_installs_it(module, extra) -> None:
    assert extra in describe(ModuleNotFoundError(f"No module named {module!r}", name=module))


def test_training_without_the_simulator_names_its_extra() -> None:
    code = (
        "import sys; sys.modules['mujoco'] = None; from ndp_ros.cli import main;"
        "sys.exit(main(['train', 'throw']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "ndp_ros[sim]" in done.stderr


def test_an_unknown_name_is_answered_with_the_nearest_names(capsys) -> None:
    assert ndp(["train", "drawer-opne"]) == 2
    line = one_line(capsys)
    assert "did you mean drawer-open" in line
    assert "plate-slide" not in line
    assert len(str(ConfigError.choice("task", "zzz", map(str, range(100))))) < 200


# Checkpoints.


@pytest.fixture
def shipped(tmp_path) -> Path:
    """Return a copy of a checkpoint that ships."""
    folder = tmp_path / "copy"
    saved = checkpoint.load(find_checkpoint("jaco_throw_action"))
    return checkpoint.save(folder, saved.spec, saved.tensors, saved.provenance)


def altered(folder: Path, change) -> Path:
    """Write a checkpoint whose tensors were changed, sound as a file."""
    import hashlib

    tensors = {n: a.copy() for n, a in checkpoint.load(folder).tensors.items()}
    data = change(tensors)
    data = safetensors.numpy.save(tensors) if data is None else data
    (folder / "model.safetensors").write_bytes(data)
    config = json.loads((folder / "config.json").read_text())
    config["model_sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def put(name: str, value: float, dtype=np.float32):
    def change(tensors) -> None:
        tensors[name] = tensors[name].astype(dtype)
        tensors[name].flat[0] = value

    return change


def fill(name: str, value: float):
    def change(tensors) -> None:
        tensors[name][...] = value
        tensors[name.replace("bias", "weight")][...] = value

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (put("normaliser.variance", -1.0), "holds -1, expected 0 or more"),
        (put("actor.0.weight", 1e300, np.float64), "not finite in single precision"),
        (put("log_std", 200.0), "the policy's deviation are not finite"),
        (put("actor.2.weight", 3e38), "are not finite"),
        (fill("critic.2.bias", -3e38), "are not finite"),
    ],
)
def test_a_checkpoint_that_cannot_run_is_refused(shipped, change, why) -> None:
    with pytest.raises(CheckpointError, match=why):
        checkpoint.load(altered(shipped, change))


def test_half_precision_is_read_and_other_types_are_refused_by_name(shipped) -> None:
    whole = checkpoint.load(shipped).tensors

    def halved(tensors) -> None:
        for name in tensors:
            tensors[name] = tensors[name].astype(np.float16)

    loaded = checkpoint.load(altered(shipped, halved)).tensors
    np.testing.assert_allclose(loaded["actor.0.bias"], whole["actor.0.bias"], atol=1e-2)
    torch = pytest.importorskip("torch", reason="writes bfloat16")
    from safetensors.torch import save

    def bfloat16(tensors) -> bytes:
        return save({n: torch.tensor(a).to(torch.bfloat16) for n, a in tensors.items()})

    loaded = checkpoint.load(altered(shipped, bfloat16)).tensors
    np.testing.assert_allclose(loaded["actor.0.bias"], whole["actor.0.bias"], atol=5e-2)

    def integers(tensors) -> None:
        tensors["log_std"] = tensors["log_std"].astype(np.int32)

    with pytest.raises(CheckpointError, match="log_std holds I32, expected one of"):
        checkpoint.load(altered(shipped, integers))


# Runs.


def test_a_second_process_cannot_write_to_a_run_and_names_the_first(tmp_path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ndp_ros.training.directory import hold;"
        "hold(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match=f"is being written by process {holder.pid}"):
            hold(tmp_path)
    finally:
        holder.kill()
        holder.wait()
    os.close(hold(tmp_path))


@pytest.mark.parametrize("way", [[], ["--resume"]])
def test_training_into_a_locked_run_is_one_line(way, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    lock = hold(Path("run"))
    try:
        assert ndp(["train", "throw", "--out", "run", *way]) == 2
        assert f"run is being written by process {os.getpid()}" in one_line(capsys)
    finally:
        os.close(lock)
    assert [path.name for path in Path("run").iterdir()] == [".lock"]


@pytest.mark.parametrize("seconds", [0.4, 1.2, 2.5, 4.0])
def test_an_interrupt_at_any_moment_is_one_line_and_leaves_nothing(seconds, tmp_path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ndp_ros.cli", "train", "throw", "--workers", "2", "--out", "run"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    try:
        said = process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    by_signal = process.returncode == -signal.SIGINT
    if (by_signal and "ndp train" not in said) or said.startswith("Fatal Python error: init_"):
        assert seconds < 4.0, "only before the command has begun"
        return
    # Python ends by the signal if it came in exec() of a string (dataclasses); a shell says 130.
    assert by_signal or process.returncode == 130
    assert "Traceback" not in said
    assert "interrupted" in said.splitlines()[-1]
    deadline = time.monotonic() + 30.0
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:  # those that end with it need a moment
            os.killpg(process.pid, 0)
            time.sleep(0.05)


def test_seeds_are_exact(capsys) -> None:
    from ndp_ros.config import from_mapping
    from ndp_ros.training.config import RunConfig

    seed = 2**53 + 1
    for given in (seed, str(seed)):
        assert from_mapping(RunConfig, {"task": "throw", "seed": given}).seed == seed
    assert from_mapping(RunConfig, {"task": "throw", "samples": "1e6"}).samples == 1_000_000
    for wrong in (2**63, 2**64, -1, 1e300, "1e400", "nan", 2.5, float(2**60)):
        with pytest.raises(ConfigError, match="seed is"):
            from_mapping(RunConfig, {"task": "throw", "seed": wrong})
    assert ndp(["train", "throw", "--init-log-std", "-120"]) == 2
    assert "init_log_std is -120" in one_line(capsys)
