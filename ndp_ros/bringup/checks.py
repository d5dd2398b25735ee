# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Check before anything starts that a system can run: checkpoint, modules, ROS domain, folder."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_ros.bringup.process import CHUNKS, EPISODE, INTEGRATOR, POLICY, environment
from ndp_ros.errors import CheckpointError, ConfigError
from ndp_ros.files import read_yaml
from ndp_ros.nodes.claims import claim_node, domain_id
from ndp_ros.paths import find_checkpoint

if TYPE_CHECKING:
    from ndp_ros.checkpoint import Checkpoint

_INSTALL = "run `make setup`, or pip install 'ndp_ros[sim,train]'"
_PROBE_TIMEOUT = 60.0
_NAMESPACE = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)


def require_checkpoint(name: str) -> Checkpoint:
    """Return a checkpoint that a policy node can run.

    Raises:
        CheckpointError: If it is missing, damaged or no NDP.
    """
    from ndp_ros import checkpoint

    saved = checkpoint.load(find_checkpoint(name))
    if saved.spec.method != "ndp":
        raise CheckpointError(
            f"{name} holds method {saved.spec.method!r}: only 'ndp' yields DMP parameters"
        )
    return saved


def find_arm(given: str, saved: Checkpoint) -> str:
    """Return the name or file of an arm, that of the checkpoint unless given.

    Raises:
        ConfigError: If there is no such arm.
        CheckpointError: If the checkpoint was made for another one.
    """
    from ndp_ros.control.arm import ArmConfig, arm_reference

    reference = arm_reference(given or saved.trained_on().option("arm") or saved.spec.arm)
    arm = ArmConfig.named(reference)
    saved.require_arm(arm.name, arm.joint_names)
    return reference


def require_modules(*more: tuple[str, str]) -> None:
    """Check that all modules that the processes import, and more with a remedy, are installed.

    Raises:
        ConfigError: If one is missing; the message names the remedy.
    """
    for module, remedy in (
        ("rclpy", "install ROS 2 and source its setup.bash, or run `make setup`"),
        (
            "ndp_interfaces",
            "colcon build --base-paths src src/ndp_ros/interfaces, or pip install ./interfaces",
        ),
        ("mujoco", _INSTALL),
        ("pinocchio", _INSTALL),
        ("torch", _INSTALL),
        *more,
    ):
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f"the Python module {module} is missing: {remedy}")


def require_free_domain(namespace: str = "") -> None:
    """Check that no other system of this package runs in a namespace of this ROS domain.

    Raises:
        ConfigError: If one does, or if ``ROS_DOMAIN_ID`` is not valid.
    """
    with listening(namespace) as require_free:
        require_free()


@contextlib.contextmanager
def listening(namespace: str = "") -> Iterator[Callable[[], None]]:
    """Listen for other systems in this ROS domain while the caller checks other things.

    Yields:
        A function that waits for the outcome, and raises ConfigError if the domain is in use.

    Raises:
        ConfigError: If a system of this user runs here, or ``ROS_DOMAIN_ID`` is not valid.
    """
    domain, space = domain_id(), f"/{namespace.strip('/')}".rstrip("/")
    claim_node(f"{space}/{INTEGRATOR}").close()
    # A node on another machine of the domain holds no claim here.
    ours = {f"{space}/{name}" for name in (INTEGRATOR, POLICY, CHUNKS, EPISODE)}

    with _listen() as heard:

        def require_free() -> None:
            running = sorted(set(heard()) & ours)
            if running:
                raise ConfigError(
                    f"ROS domain {domain} is in use: {', '.join(running)} run there already; end "
                    "them, give this system a namespace, or set ROS_DOMAIN_ID to another number"
                )

        yield require_free


def require_namespace(namespace: str) -> None:
    """Check that ROS accepts a namespace.

    Raises:
        ConfigError: If it does not.
    """
    if namespace and not _NAMESPACE.fullmatch(namespace):
        raise ConfigError(
            f"namespace is {namespace!r}: expected letters, digits and _ that do not begin with a "
            "digit, parts divided by /, such as left or lab/left"
        )


def require_prefix(prefix: str) -> None:
    """Check that a prefix can begin the name of a joint.

    Raises:
        ConfigError: If it cannot.
    """
    if prefix and not re.fullmatch(r"[A-Za-z]\w*", prefix, re.ASCII):
        raise ConfigError(
            f"prefix is {prefix!r}: expected letters, digits and _ that begin with a letter, such "
            "as left_"
        )


def require_params_file(file: Path) -> None:
    """Check that a file holds parameters of nodes.

    Raises:
        ConfigError: If it does not.
    """
    content = read_yaml(file)
    sections = content.values() if isinstance(content, dict) else ()
    if not sections or not all(isinstance(section, dict) for section in sections):
        raise ConfigError(
            f"{file} holds no parameters of nodes: expected sections such as /** or policy_node, "
            "each with ros__parameters"
        )


def require_program(name: str, remedy: str) -> None:
    """Check that a program is installed.

    Raises:
        ConfigError: If it is not; the message names the remedy.
    """
    if shutil.which(name) is None:
        raise ConfigError(f"the program {name} is missing: {remedy}")


@contextlib.contextmanager
def _listen() -> Iterator[Callable[[], list[str]]]:
    """Listen in a process of its own; yield what waits for the names of the nodes in this domain.

    The process discovers them for 1.5 s, and is killed if nobody waits for it any more.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "ndp_ros.nodes.probe"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), **os.environ},
    ) as probe:

        def heard() -> list[str]:
            out, problems = probe.communicate(timeout=_PROBE_TIMEOUT)
            if probe.returncode != 0:
                problem = (problems.strip().splitlines() or ["no output"])[-1]
                raise ConfigError(f"ROS 2 does not start here: {problem}")
            names: list[str] = json.loads(out)
            return names

        try:
            yield heard
        finally:
            probe.kill()


def require_writable(folder: Path) -> None:
    """Make a folder for results, and check that it can be written.

    Raises:
        ConfigError: If it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out: cannot make the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"out: the folder {folder} cannot be written")


def require_screen(option: str) -> None:
    """Check that there is a screen for the window of an option.

    Raises:
        ConfigError: If there is none.
    """
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ConfigError(f"{option} needs a screen: neither DISPLAY nor WAYLAND_DISPLAY is set")
