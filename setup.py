"""Builds ndp_ros for colcon (ament_python) and for pip alike."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "ndp_ros"

EXTRAS = {
    "sim": [
        "mujoco~=3.3.0", "dm_control~=1.0.28", "pin~=4.1", "gymnasium~=1.4",
        "PyOpenGL", "imageio", "imageio-ffmpeg", "matplotlib",
    ],
    "train": ["torch~=2.13", "safetensors", "gymnasium~=1.4", "tensorboard", "matplotlib"],
    "metaworld": ["metaworld~=3.1"],
    "kortex": ["protobuf~=7.35"],
    # For machines without a ROS 2 installation; the messages are `pip install ./interfaces`.
    "wheels": [
        "ros-rclpy~=9.1", "ros-rmw-fastrtps-cpp", "ros-rmw-implementation", "ros-std-msgs",
        "ros-sensor-msgs", "ros-geometry-msgs", "ros-trajectory-msgs", "ros-diagnostic-msgs",
        "ros-std-srvs", "ros-lifecycle-msgs", "ros-rcl-interfaces",
    ],
    "test": [
        "pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "psutil", "ruff", "mypy",
        "types-PyYAML", "types-protobuf",
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
    zip_safe=False,
)
