# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Ask a running system from outside of it, once."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.node import Node

from ndp_ros.errors import StreamError
from ndp_ros.nodes.claims import domain_id
from ndp_ros.nodes.integrator_client import IntegratorClient
from ndp_ros.nodes.process import make_executor, ros

_PATIENCE = 10.0
"""Longest time for the service to appear, and for its answer [s]."""


def follow(on: bool, namespace: str, integrator: str) -> None:
    """Let the arm of a system follow its policy, or hold; an empty namespace is none.

    Raises:
        StreamError: If there is no such system, or it refuses.
    """
    with ros(["--ros-args", "--log-level", "error"]) as signals:
        name = f"ndp_follow_{time.monotonic_ns()}"
        node = Node(name, namespace=namespace or None, enable_rosout=False)
        executor = make_executor()
        executor.add_node(node)
        full = node.resolve_service_name(integrator)

        def wait(condition: Callable[[], bool], timeout: float, what: str) -> None:
            patience = min(timeout, _PATIENCE)
            deadline = time.monotonic() + patience
            while not condition():
                if signals.received or time.monotonic() > deadline:
                    raise StreamError(
                        f"waited {patience:g} s for {what}; ~ is {full} in ROS domain "
                        f"{domain_id()}: ndp top shows the systems that run"
                    )
                executor.spin_once(timeout_sec=0.1)

        try:
            IntegratorClient(node, integrator, wait).follow(on)
        finally:
            executor.shutdown()
            node.destroy_node()
