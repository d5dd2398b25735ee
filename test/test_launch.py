"""The launch files, with the real ``ros2 launch`` where it is installed."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest
from ros_support import claim_domain
from test_bringup import jaco_checkpoint

from ndp_ros.bringup import SimConfig
from ndp_ros.config import parameters

ROOT = Path(__file__).resolve().parent.parent
SIM = ROOT / "launch" / "sim.launch.py"


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


def launch(*arguments: str, timeout: float = 200.0) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["ros2", "launch", str(SIM), *arguments], capture_output=True, text=True, timeout=timeout,
        check=False,
    )  # fmt: skip


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    domain, lock = claim_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    yield domain
    lock.close()


def test_every_argument_is_documented() -> None:
    run = launch("--show-args")
    assert run.returncode == 0, run.stderr
    for p in parameters(SimConfig):
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
        f"checkpoint:={folder}", "throws:=1", "rate:=500", "record:=false", f"out:={tmp_path}/out"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "throw  1/1" in run.stdout
    assert (tmp_path / "out" / "throws.json").exists()
