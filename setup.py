"""Builds ndp_ros for colcon (ament_python) and for pip alike."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.develop import develop
from setuptools.command.install import install

NAME = "ndp_ros"
MESSAGES = "ndp_interfaces"

EXTRAS = {
    "sim": [
        "mujoco~=3.3.0", "pin~=4.1", "gymnasium~=1.4",
        "PyOpenGL", "imageio", "imageio-ffmpeg", "matplotlib",
    ],
    # Meshes for the Jaco's looks. Not to be had for Python 3.13: labmaze has no wheel there.
    "looks": ["dm_control~=1.0.28; python_version < '3.13'"],
    "train": ["torch~=2.13", "safetensors", "gymnasium~=1.4", "tensorboard", "matplotlib"],
    "metaworld": ["metaworld~=3.1"],
    "kortex": ["protobuf~=7.35"],
    "cluster": ["submitit~=1.5"],
    # For machines without a ROS 2 installation; the messages are `pip install ./interfaces`.
    "wheels": [
        "ros-rclpy~=9.1", "ros-rmw-fastrtps-cpp", "ros-rmw-implementation", "ros-std-msgs",
        "ros-sensor-msgs", "ros-geometry-msgs", "ros-trajectory-msgs", "ros-diagnostic-msgs",
        "ros-std-srvs", "ros-lifecycle-msgs", "ros-rcl-interfaces",
    ],
    # What `ndp bench train` measures beside.
    "bench": ["stable-baselines3~=2.9"],
    "test": [
        "stable-baselines3~=2.9", "moviepy", "pytest", "pytest-timeout", "pytest-xdist",
        "hypothesis", "psutil", "ruff", "mypy", "types-PyYAML", "types-protobuf",
    ],
}  # fmt: skip
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})


def shared(*folders: str) -> list[tuple[str, list[str]]]:
    """Return every file under the folders with its place in the share folder."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found.setdefault(f"share/{NAME}/{path.parent}", []).append(str(path))
    return list(found.items())


def build_messages(prefix: str | None) -> None:
    """Build ``interfaces/`` into the same prefix when colcon builds this package.

    colcon looks for no package inside another one, so it never sees the messages' folder.
    Nothing is done for pip, nor where the messages come from another prefix.
    """
    if "COLCON" not in os.environ or prefix is None:
        return
    own = Path(prefix).resolve()
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if p]
    others = {Path(p).resolve() for p in prefixes}
    index = Path("share/ament_index/resource_index/packages") / MESSAGES
    if any((other / index).exists() for other in others - {own}):
        return
    source = Path(__file__).resolve().parent / "interfaces"
    build = own.parent.parent / "build" / NAME / "messages"
    configure = [
        "cmake", "-S", str(source), "-B", str(build), f"-DCMAKE_INSTALL_PREFIX={own}",
        "-DCMAKE_BUILD_TYPE=Release", f"-DPython3_EXECUTABLE={sys.executable}",
        *shlex.split(os.environ.get("CMAKE_ARGS", "")),
    ]  # fmt: skip
    # ROS names its prefixes for ament alone; handing them to CMake is what colcon does.
    known = os.environ.get("CMAKE_PREFIX_PATH")
    env = os.environ | {"CMAKE_PREFIX_PATH": ":".join(prefixes + ([known] if known else []))}
    for command in configure, ["cmake", "--build", str(build), "-j2", "--target", "install"]:
        subprocess.run(command, check=True, env=env)


class Install(install):  # type: ignore[misc]
    """Installs the messages as well, under colcon."""

    def run(self) -> None:
        """Run the command."""
        build_messages(self.prefix)
        super().run()


class Develop(develop):  # type: ignore[misc]
    """Installs the messages as well, under ``colcon build --symlink-install``."""

    def run(self) -> None:
        """Run the command."""
        # colcon says where by way of sys.prefix here.
        build_messages(self.prefix or sys.prefix)
        super().run()


setup(
    name=NAME,
    version="0.1.0",
    description="Neural Dynamic Policies on a robot arm under ROS 2.",
    author="the ndp_ros authors",
    license="BSD-3-Clause",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed"]},
    python_requires=">=3.11",
    install_requires=["setuptools", "numpy", "PyYAML", "rich"],
    extras_require=EXTRAS,
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        # pip installs console scripts into bin/ alone, where `ros2 run` does not look.
        (f"lib/{NAME}", sorted(str(path) for path in Path("scripts").iterdir() if path.is_file())),
        *shared("launch", "config", "models"),
    ],
    entry_points={
        "console_scripts": [
            "ndp = ndp_ros.cli:main",
            "policy_node = ndp_ros.nodes.policy_node:main",
            "integrator_node = ndp_ros.nodes.integrator_node:main",
            "objects_node = ndp_ros.nodes.objects_node:main",
            "throw_node = ndp_ros.nodes.throw_node:main",
            "viewer_node = ndp_ros.nodes.viewer_node:main",
        ]
    },
    cmdclass={"install": Install, "develop": Develop},
    zip_safe=False,
)
