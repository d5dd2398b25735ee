"""Fixtures shared by several test files."""

import os
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path

import pytest
from hypothesis import settings
from ros_support import Ros, ros_system

settings.register_profile("suite", max_examples=60)
settings.register_profile("fuzz", max_examples=int(os.environ.get("NDP_FUZZ", "60")))
settings.load_profile("fuzz" if "NDP_FUZZ" in os.environ else "suite")

draws = pytest.mark.skipif(
    not (os.environ.get("DISPLAY") or find_library("OSMesa") or find_library("EGL")),
    reason="no screen, libOSMesa or libEGL to render with",
)


@pytest.fixture
def ros(tmp_path: Path) -> Iterator[Ros]:
    """Return a ROS domain for one test; all of its processes end with the test."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
    with ros_system(tmp_path) as system:
        yield system
