# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The workspace as ROS engineers build it, with the real colcon where it is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("colcon_core", reason="needs colcon: tools/add_colcon.sh VENV installs it")

ROOT = Path(__file__).resolve().parent.parent
PATHS = ("--base-paths", str(ROOT), str(ROOT / "interfaces"))


def colcon(*arguments: str, folder: Path) -> str:
    prefix = sys.prefix
    run = subprocess.run(
        [f"{prefix}/bin/colcon", "--log-base", str(folder / "log"), *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=folder,
        env=os.environ
        | {
            "AMENT_PREFIX_PATH": prefix,
            "CMAKE_PREFIX_PATH": prefix,
            "PATH": f"{prefix}/bin:{os.environ['PATH']}",
        },
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_both_packages_are_found_by_the_documented_base_paths(tmp_path: Path) -> None:
    listed = colcon("list", *PATHS, folder=tmp_path).splitlines()
    kinds = {line.split("\t")[0]: line.split("\t")[2] for line in listed}
    assert kinds == {"ndp_ros": "(ros.ament_python)", "ndp_interfaces": "(ros.ament_cmake)"}
    order = colcon("list", "--topological-order", "--names-only", *PATHS, folder=tmp_path)
    assert order.split() == ["ndp_interfaces", "ndp_ros"]


def test_a_workspace_of_links_is_built_and_runs_the_sources(tmp_path: Path) -> None:
    colcon("build", "--symlink-install", "--base-paths", str(ROOT), folder=tmp_path)
    assert (tmp_path / "build/ndp_ros/ndp_ros").resolve() == ROOT / "ndp_ros"
    assert (tmp_path / "install/ndp_ros/share/ndp_ros/launch/sim.launch.py").is_file()
    assert (tmp_path / "install/ndp_ros/lib/ndp_ros/policy_node").stat().st_mode & 0o111


def test_what_colcon_has_built_is_imported_from_its_install_folder(tmp_path: Path) -> None:
    build = ("build", *PATHS, "--event-handlers", "console_direct-")
    hook = f"-DCMAKE_PROJECT_INCLUDE={ROOT / 'interfaces/cmake/wheels.cmake'}"
    python = f"-DPython3_EXECUTABLE={sys.executable}"
    colcon(*build, "--cmake-args", hook, python, folder=tmp_path)
    code = "import ndp_interfaces.action, ndp_ros; print(ndp_interfaces.__file__, ndp_ros.__file__)"
    shown = subprocess.run(
        ["bash", "-c", f". install/setup.bash && {sys.executable} -c '{code}'"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert shown.returncode == 0, shown.stderr
    assert all(path.startswith(str(tmp_path / "install")) for path in shown.stdout.split())
    assert (tmp_path / "install/ndp_ros/share/ndp_ros/config/ndp.rviz").is_file()
    assert (tmp_path / "install/ndp_ros/lib/ndp_ros/run_policy_node").stat().st_mode & 0o111
