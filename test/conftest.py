"""Fixtures that more than one file uses."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ros_support import Ros, ros_system

import ndp_ros.tasks  # noqa: F401  (chooses how MuJoCo draws, before a test imports it)


@pytest.fixture
def ros(tmp_path: Path) -> Iterator[Ros]:
    """Return a ROS domain of this test's own; everything in it ends with the test."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
    with ros_system(tmp_path) as system:
        yield system
