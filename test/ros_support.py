# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Real nodes in real processes over DDS on loopback, for the tests that need them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60.0
"""How long a test waits for what must happen [s]; two busy cores are slow."""


def claim_domain() -> tuple[int, socket.socket]:
    """Return a ROS domain that no other test uses, for as long as the socket lives."""
    for domain in range(20, 100):
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0ndp_ros.test.domain.{domain}")
        except OSError:
            lock.close()
            continue
        return domain, lock
    raise RuntimeError("every ROS domain from 20 to 99 is in use by a test")


def die_with_the_test() -> None:
    """Let the kernel end this process when a killed test run cannot."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Ros:
    """A domain of its own, a node inside the test, and processes that end with it."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.domain, self._lock = claim_domain()
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.node = rclpy.create_node("tester", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.processes: list[subprocess.Popen[str]] = []
        self.output: dict[int, list[str]] = {}

    def start(self, module: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start ``python -m module`` in this domain."""
        env = (
            os.environ
            | {
                "ROS_DOMAIN_ID": str(self.domain),
                "OMP_NUM_THREADS": "1",
                "PYTHONUNBUFFERED": "1",
                "RCUTILS_LOGGING_USE_STDOUT": "0",
                "ROS_PYTHON_CHECK_FIELDS": "1",
            }
            | environment
        )
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_the_test,
        )
        lines = self.output[process.pid] = []

        def drain() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())

        threading.Thread(target=drain, daemon=True).start()
        self.processes.append(process)
        return process

    def start_node(self, name: str, **values: Any) -> subprocess.Popen[str]:
        """Start one of the nodes with parameters."""
        import json

        arguments = ["--ros-args"]
        for key, value in values.items():
            arguments += ["-p", f"{key.replace('__', '.')}:={json.dumps(value)}"]
        return self.start(f"ndp_ros.nodes.{name}", *arguments)

    def said(self, process: subprocess.Popen[str]) -> str:
        return "\n".join(self.output[process.pid])

    def until(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
        """Spin until a condition holds and return its value; fail with all output otherwise."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > deadline:
                outputs = "\n---\n".join(self.said(p) for p in self.processes)
                pytest.fail(f"within {timeout:g} s there was no {what}; output:\n{outputs}")
            if any(
                "Traceback" in line or "[FATAL]" in line
                for p in self.processes
                for line in self.output[p.pid]
            ):
                deadline = time.monotonic()
            self._executor.spin_once(timeout_sec=0.05)
        return value

    def spin(self, duration: float) -> None:
        deadline = time.monotonic() + duration
        while time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.02)

    def listen(self, kind: Any, topic: str, profile: Any = 10) -> list[Any]:
        """Return a list that grows by every message on a topic, for as long as the test runs."""
        received: list[Any] = []
        self.node.create_subscription(kind, topic, received.append, profile)
        return received

    def call(self, kind: Any, name: str, request: Any = None) -> Any:
        """Call a service and return its response."""
        client = self.node.create_client(kind, name)
        self.until(client.service_is_ready, f"service {name}")
        future = client.call_async(request if request is not None else kind.Request())
        self.until(future.done, f"answer from {name}")
        self.node.destroy_client(client)
        return future.result()

    def wait_exit(self, process: subprocess.Popen[str], timeout: float = PATIENCE) -> int:
        self.until(lambda: process.poll() is not None, "end of the process", timeout)
        assert process.returncode is not None
        time.sleep(0.05)  # the last lines of its output
        return process.returncode

    def close(self) -> None:
        import rclpy

        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)
        self._lock.close()


@contextlib.contextmanager
def ros_system(folder: Path) -> Iterator[Ros]:
    """Yield a ROS domain of its own; everything in it ends with the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        patch.setenv("ROS_LOG_DIR", str(folder / "log"))
        system = Ros()
        try:
            yield system
        finally:
            system.close()


def tiny_checkpoint(folder: Path, seed: int = 1, **changes: Any) -> Path:
    """Save an untrained NDP for a two-joint arm and return its folder."""
    from ndp_ros import checkpoint
    from ndp_ros.observation import arm_observation
    from ndp_ros.policies import PolicySpec, initial_tensors

    values: dict[str, Any] = {
        "method": "ndp",
        "task": "throw",
        "arm": "planar",
        "joint_names": ("a", "b"),
        "observation": arm_observation(2, ["cube"]),
        "control_dt": 0.02,
        "k": 5,
        "action_scale": (0.05, 0.15),
        "hidden": (8, 8),
    }
    spec = PolicySpec(**(values | changes))
    return checkpoint.save(folder, spec, initial_tensors(spec, seed), {"seed": seed})
