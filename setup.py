# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Build ndp_ros, for colcon (ament_python) and for pip."""

import re
import zlib
from pathlib import Path

from setuptools import Extension, find_packages, setup

NAME = "ndp_ros"
CORE = f"{NAME}/streaming/core.c"
ROOT = Path(__file__).resolve().parent
"""Not the present folder: `colcon build --symlink-install` runs a link to this file elsewhere."""

EXTRAS = {
    "sim": [
        "mujoco~=3.3.0",
        "pin~=4.1",
        "gymnasium~=1.4",
        "PyOpenGL",
        "imageio",
        "imageio-ffmpeg",
        "matplotlib",
    ],
    # Meshes for the Jaco's appearance; its dependency labmaze has no wheel for Python 3.13.
    "looks": ["dm_control~=1.0.28; python_version < '3.13'"],
    "train": ["torch~=2.13", "safetensors", "gymnasium~=1.4", "tensorboard", "matplotlib", "scipy"],
    "metaworld": ["metaworld~=3.1"],
    "kortex": ["protobuf~=7.35"],
    "cluster": ["submitit~=1.5"],
    # For machines without a ROS 2 installation: wheels of Jazzy or Kilted. The messages are
    # `pip install ./interfaces ./interfaces/wheels/tf2_msgs`.
    "wheels": [
        "ros-rclpy>=7.1,<10",
        "ros-rmw-fastrtps-cpp",
        "ros-rmw-implementation",
        "ros-std-msgs",
        "ros-sensor-msgs",
        "ros-geometry-msgs",
        "ros-trajectory-msgs",
        "ros-diagnostic-msgs",
        "ros-std-srvs",
        "ros-lifecycle-msgs",
        "ros-rcl-interfaces",
        "ros-rosgraph-msgs",
        "ros-visualization-msgs",
    ],
    # Recordings of `record:=mcap`.
    "bag": ["rosbags~=0.11.9"],
    "docs": ["sphinx~=9.0", "myst-parser~=5.2", "furo", "sphinx-copybutton", "latex2mathml~=3.81"],
    # For the memory of `ndp bench train`, and contestants of it and of `ndp bench dmp`; of these
    # the missing ones are left out. movement-primitives needs pytransform3d and does not say so.
    "bench": [
        "psutil",
        "stable-baselines3~=2.9",
        "mp-pytorch~=0.1",
        "movement-primitives~=0.9",
        "pytransform3d~=3.17",
    ],
    "track": ["wandb~=0.31"],
    "sweep": ["optuna~=5.0"],
    "hub": ["huggingface_hub~=2.4"],
    "onnx": ["onnx~=1.23", "onnxscript~=0.7", "onnxruntime~=1.32"],
    "lerobot": ["pyarrow>=26"],
    "test": [
        "stable-baselines3~=2.9",
        "mcap",
        "mcap-ros2-support",
        "moviepy",
        "pytest",
        "pytest-rerunfailures",
        "pytest-timeout",
        "pytest-xdist",
        "hypothesis",
        "psutil",
    ],
    "lint": ["ruff", "mypy", "types-PyYAML", "types-protobuf"],
}
_APART = ("wheels", "test", "lint", "docs")
"""Extras that `all` leaves out: an alternative to an installed ROS, and tools."""
EXTRAS["all"] = sorted({r for name, rs in EXTRAS.items() if name not in _APART for r in rs})


def shared(*folders: str) -> list[tuple[str, list[str]]]:
    """Return every file under the folders, grouped by its destination in the share folder."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found.setdefault(f"share/{NAME}/{path.parent}", []).append(str(path))
    return list(found.items())


setup(
    name=NAME,
    version=re.findall(r'^__version__ = "(.+)"$', Path(NAME, "__init__.py").read_text(), re.M)[0],
    description="Neural Dynamic Policies on a robot arm under ROS 2.",
    long_description=Path(ROOT, "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the ndp_ros authors",
    project_urls={"Paper": "https://shikharbahl.github.io/neural-dynamic-policies/"},
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    keywords=["robotics", "reinforcement learning", "dynamic movement primitives", "ROS 2"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed"]},
    # Without a compiler the loop runs in Python, to the same bits.
    ext_modules=[
        Extension(
            f"{NAME}.streaming._core",
            [CORE],
            define_macros=[("SOURCE", f"{zlib.crc32(Path(CORE).read_bytes())}u")],
            extra_compile_args=["-O2", "-std=c11", "-D_GNU_SOURCE", "-ffp-contract=off"],
            optional=True,
        )
    ],
    python_requires=">=3.11,<3.14",
    install_requires=["setuptools", "numpy", "PyYAML", "rich", "shtab"],
    extras_require=EXTRAS,
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml", "LICENSE"]),
        # pip installs console scripts into bin/ only, where `ros2 run` does not look.
        (f"lib/{NAME}", sorted(str(path) for path in Path("scripts").iterdir() if path.is_file())),
        *shared("launch", "config", "models"),
    ],
    entry_points={
        "console_scripts": [
            "ndp = ndp_ros.cli:main",
            "chunk_node = ndp_ros.nodes.chunk_node:main",
            "policy_node = ndp_ros.nodes.policy_node:main",
            "integrator_node = ndp_ros.nodes.integrator_node:main",
            "objects_node = ndp_ros.nodes.objects_node:main",
            "description_node = ndp_ros.nodes.description_node:main",
            "episode_node = ndp_ros.nodes.episode_node:main",
            "record_node = ndp_ros.nodes.record_node:main",
            "run_policy_node = ndp_ros.nodes.run_policy_node:main",
            "viewer_node = ndp_ros.nodes.viewer_node:main",
        ],
        "ament_copyright.license": ["bsd_3_clause_spdx = ndp_ros.license:LICENSE"],
    },
    zip_safe=False,
)
