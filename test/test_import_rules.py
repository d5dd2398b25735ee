"""The rules of docs/architecture.md over the imports, read from the source."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "ndp_ros"
MODULES = sorted(ROOT.rglob("*.py"))
STREAMING_SIDE = (
    "streaming/",
    "arms/",
    "control/",
    "dmp/segment.py",
    "dmp/response.py",
    "dmp/basis.py",
)


@functools.cache
def imports(path: Path) -> set[str]:
    """Return every module that a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def users_of(package: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in MODULES
        if any(name == package or name.startswith(package + ".") for name in imports(path))
    }


def test_rclpy_is_imported_in_the_nodes_and_the_bridge_to_ros2_control_alone():
    allowed = {name for name in users_of("rclpy") if name.startswith("nodes/")}
    assert users_of("rclpy") - allowed <= {"arms/ros2_control.py"}


def test_torch_is_never_imported_on_the_streaming_side():
    assert not {name for name in users_of("torch") if name.startswith(STREAMING_SIDE)}


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("dmp", ("arms", "tasks", "policies", "streaming", "nodes", "training", "control")),
        ("control", ("tasks", "policies", "streaming", "nodes", "training")),
        ("arms", ("policies", "tasks", "streaming", "nodes", "training", "checkpoint")),
        ("tasks", ("policies", "streaming", "nodes", "training", "checkpoint")),
        ("nodes", ("training",)),
        ("training", ("nodes",)),
        ("streaming", ("policies", "tasks", "nodes", "training", "checkpoint")),
    ],
)
def test_folder_knows_only_what_stands_above_it(folder, forbidden):
    for other in forbidden:
        guilty = {name for name in users_of(f"ndp_ros.{other}") if name.startswith(folder + "/")}
        assert not guilty, f"{folder} must not know {other}"


def test_control_knows_the_arm_protocol_and_no_arm():
    backends = {"arms." + path.stem for path in (ROOT / "arms").glob("*")} - {
        "arms.arm",
        "arms.__init__",
    }
    for backend in backends:
        assert not {name for name in users_of(f"ndp_ros.{backend}") if name.startswith("control/")}


def test_importing_the_package_needs_neither_ros_nor_torch_nor_mujoco():
    code = (
        "import sys, ndp_ros, ndp_ros.config, ndp_ros.dmp, ndp_ros.cli;"
        "print(sorted({'torch', 'mujoco', 'rclpy', 'pinocchio'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
