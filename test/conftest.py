# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Fixtures shared by several test files."""

import os
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path

import pytest
from hypothesis import settings
from ros_support import Ros, ros_system

settings.register_profile("suite", max_examples=60, deadline=None)
settings.register_profile("fuzz", max_examples=int(os.environ.get("NDP_FUZZ", "60")), deadline=None)
settings.load_profile("fuzz" if "NDP_FUZZ" in os.environ else "suite")

draws = pytest.mark.skipif(
    not (os.environ.get("DISPLAY") or find_library("OSMesa") or find_library("EGL")),
    reason="no screen, libOSMesa or libEGL to render with",
)

TRIES_AGAIN = 2
"""How often a test that runs against the clock is tried again on a machine that was too busy."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests of real processes fail only if they fail each time; the summary lists retries."""
    for item in items:
        if item.get_closest_marker("live") or item.get_closest_marker("ros"):
            item.add_marker(pytest.mark.flaky(reruns=TRIES_AGAIN, reruns_delay=1))


@pytest.fixture
def ros(tmp_path: Path) -> Iterator[Ros]:
    """Return a ROS domain for one test; all of its processes end with the test."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
    with ros_system(tmp_path) as system:
        yield system
