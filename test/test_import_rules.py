# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The rules of docs/architecture.md on layers and sizes, read from the source."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ndp_ros.errors import describe

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parent.parent / "ndp_ros"
MODULES = sorted(ROOT.rglob("*.py"))
STREAMING_SIDE = (
    "streaming/",
    "arms/",
    "control/",
    "dmp/basis.py",
    "dmp/euler.py",
    "dmp/exact.py",
    "dmp/response.py",
    "dmp/segment.py",
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


def module_name(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def imports_at_start(path: Path) -> set[str]:
    """Return the modules of this package that importing a file imports: not inside functions."""
    names = {module_name(p) for p in MODULES}
    found: set[str] = set()

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found.update(inner & names or {node.module} & names)
            elif isinstance(node, ast.Import):
                found.update({alias.name for alias in node.names} & names)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                visit(node.orelse)
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for field in ("body", "orelse", "finalbody"):
                    visit(getattr(node, field, []))
                for handler in getattr(node, "handlers", []):
                    visit(handler.body)

    visit(ast.parse(path.read_text()).body)
    return found - {module_name(path)}


def functions(path: Path) -> dict[str, int]:
    """Return the length in lines of every function of a file, by its qualified name."""
    found = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            name = f"{prefix}.{child.name}" if named else prefix
            if named and not isinstance(child, ast.ClassDef):
                found[name] = child.end_lineno - child.lineno + 1
            visit(child, name)

    visit(ast.parse(path.read_text()), path.stem)
    return found


def users_of(package: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in MODULES
        if any(name == package or name.startswith(package + ".") for name in imports(path))
    }


def test_rclpy_is_imported_in_the_nodes_and_the_bridge_to_ros2_control_alone():
    allowed = {name for name in users_of("rclpy") if name.startswith("nodes/")}
    assert users_of("rclpy") - allowed <= {"arms/ros2_control/bridge.py"}


def test_torch_is_never_imported_on_the_streaming_side():
    assert not {name for name in users_of("torch") if name.startswith(STREAMING_SIDE)}


LAYERS: dict[str, set[str]] = {
    "dmp": set(),
    "control": set(),
    "pictures": set(),
    "policies": {"dmp", "observation"},
    "checkpoint": {"policies", "observation"},
    "arms": {"control"},
    "streaming": {"dmp", "control", "arms", "processes"},
    "nodes": {
        "dmp",
        "control",
        "arms",
        "streaming",
        "policies",
        "checkpoint",
        "observation",
        "tasks",
        "processes",
    },
    "bringup": {"control", "arms", "streaming", "nodes", "checkpoint", "processes"},
    "tasks": {"control", "arms", "observation", "pictures"},
    "training": {"dmp", "policies", "checkpoint", "observation", "pictures", "tasks", "processes"},
    "paper": {
        "dmp",
        "policies",
        "checkpoint",
        "observation",
        "pictures",
        "tasks",
        "training",
        "processes",
    },
    "emulator": {"control", "arms"},
    "license": set(),
}
"""Parts that each part of the package may import, beside itself and the foundation."""
FOUNDATION = {"config", "errors", "files", "paths"}


@pytest.mark.parametrize("part", LAYERS)
def test_part_imports_only_what_its_layer_allows(part):
    files = [p for p in MODULES if p.relative_to(ROOT).parts[0].removesuffix(".py") == part]
    assert files
    allowed = LAYERS[part] | FOUNDATION | {part, "__version__"}
    for path in files:
        others = {name.split(".")[1] for name in imports(path) if name.startswith("ndp_ros.")}
        assert others <= allowed, f"{path.relative_to(ROOT)} must not import {others - allowed}"


def test_the_studies_are_used_by_their_command_and_where_digits_are_checked_or_drawn():
    users = {name for name in users_of("ndp_ros.paper") if not name.startswith("paper/")}
    assert users == {"commands/reproduce.py", "commands/check.py", "commands/plot.py"}


def test_control_knows_no_arm():
    assert not {name for name in users_of("ndp_ros.arms") if name.startswith("control/")}


def test_no_file_has_more_than_400_lines():
    long = {p.name: n for p in MODULES if (n := len(p.read_text().splitlines())) > 400}
    assert not long, long


def test_no_function_has_more_than_60_lines():
    long = {name: n for p in MODULES for name, n in functions(p).items() if n > 60}
    assert not long, long


TABLES = {
    "ndp_ros/control/limiter.py",
    "ndp_ros/paper/table1.py",
    "ndp_ros/streaming/motion.py",
    "ndp_ros/tasks/way_points.py",
    "test/test_gen3.py",
    "test/test_mailbox.py",
}
"""Files with a numeric table that is laid out by hand."""


def test_only_numeric_tables_are_exempt_from_formatting():
    files = [*MODULES, *sorted(Path(__file__).parent.glob("*.py"))]
    mark = "# fmt" + ": "
    marked = {str(p.relative_to(ROOT.parent)) for p in files if mark in p.read_text()}
    assert marked <= TABLES, marked - TABLES


def test_modules_import_each_other_in_no_circle():
    sorter = graphlib.TopologicalSorter({module_name(p): imports_at_start(p) for p in MODULES})
    sorter.prepare()


def test_at_most_eight_modules_stand_beside_the_folders():
    beside = sorted(path.stem for path in ROOT.glob("*.py") if path.stem != "__init__")
    assert len(beside) <= 8, beside


def test_importing_the_package_needs_neither_ros_nor_torch_nor_mujoco():
    code = (
        "import sys, ndp_ros, ndp_ros.config, ndp_ros.dmp, ndp_ros.cli;"
        "print(sorted({'torch', 'mujoco', 'rclpy', 'pinocchio'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


OTHER_NAMES = {
    "google": "protobuf",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "movement_primitives": "movement-primitives",
    "mp_pytorch": "mp-pytorch",
    "OpenGL": "PyOpenGL",
    "pinocchio": "pin",
    "stable_baselines3": "stable-baselines3",
}
"""Packages as pip calls them, by module, where that is another name."""
ALWAYS = {"numpy", "rich", "setuptools", "shtab", "yaml", "PIL"}  # Pillow comes with imageio
LAUNCH = {"launch", "launch_ros", "builtin_interfaces"}


def extras() -> dict[str, list[str]]:
    """Return the packages of each extra of ``setup.py``."""
    tree = ast.parse((ROOT.parent / "setup.py").read_text())
    (found,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXTRAS"
    )
    made: dict[str, list[str]] = ast.literal_eval(found)
    return made


def test_each_package_that_is_imported_comes_with_an_extra_that_an_error_names() -> None:
    used = {name.partition(".")[0] for path in MODULES for name in imports(path)}
    for module in used - set(sys.stdlib_module_names) - {"ndp_ros"} - ALWAYS - LAUNCH:
        text = describe(ModuleNotFoundError(name=module))
        named = re.search(r"ndp_ros\[(\w+)\]", text)
        assert named, f"{module}: {text}"
        if named[1] != "wheels":  # of ROS, which is installed by other means too
            packages = {re.split(r"[~><=;! ]", package)[0] for package in extras()[named[1]]}
            assert OTHER_NAMES.get(module, module) in packages, f"{module}: {text}"
