# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp doctor``: say what works on this machine, what does not, and what to do."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from ndp_ros import __version__
from ndp_ros.commands.arguments import paint
from ndp_ros.errors import NdpError, describe

_EPILOG = """\
Each line says what was found; an arrow says what to do. The exit status is 1 if something that
`ndp sim` needs is broken, 0 otherwise.

examples:
  ndp doctor
  ndp doctor --json
"""

OK, WARNING, BROKEN = "ok", "warning", "broken"
_MARKS = {OK: ("✓", "green"), WARNING: ("!", "yellow"), BROKEN: ("✗", "red")}
_PYTHON = ((3, 11), (3, 13))
_OPTIONAL = {
    "track": "wandb",
    "sweep": "optuna",
    "hub": "huggingface_hub",
    "onnx": "onnxruntime",
    "lerobot": "pyarrow",
    "bag": "rosbags",
    "bench": "stable_baselines3",
    "cluster": "submitit",
}
"""A module of each extra that single commands need."""
_LEAST_CORES, _LEAST_SHARED = 2, 64 << 20


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        name: What was looked at.
        state: ``ok``, ``warning`` or ``broken``.
        text: What was found.
        advice: What to do; empty if nothing is wrong.
    """

    name: str
    state: str
    text: str
    advice: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Look at everything and print it."""
    found: list[Finding] = []
    for check in CHECKS:
        for finding in check():
            found.append(finding)
            if not args.json:
                _show(finding)
    broken = [one.name for one in found if one.state == BROKEN]
    if args.json:
        sys.stdout.write(
            json.dumps({"broken": broken, "checks": [asdict(f) for f in found]}) + "\n"
        )
    else:
        sys.stdout.write(
            f"broken: {', '.join(broken)}\n" if broken else "everything needed works\n"
        )
    return 1 if broken else 0


def _show(one: Finding) -> None:
    mark, colour = _MARKS[one.state]
    sys.stdout.write(f"{paint(mark, colour, sys.stdout)} {one.name:<18} {one.text}\n")
    if one.advice:
        sys.stdout.write(f"  {'':<18} → {one.advice}\n")
    sys.stdout.flush()


def _python() -> Iterator[Finding]:
    low, high = _PYTHON
    fits = low <= sys.version_info[:2] <= high
    text = f"{platform.python_version()} at {sys.executable}"
    advice = "" if fits else f"use Python {low[0]}.{low[1]} to {high[0]}.{high[1]}"
    yield Finding("python", OK if fits else WARNING, text, advice)
    yield Finding("ndp_ros", OK, f"{__version__} at {Path(__file__).resolve().parents[1]}")


def _packages() -> Iterator[Finding]:
    """Check the modules of each extra; without those of `sim` and `train` nothing runs."""
    for extra, modules, needed in (
        ("sim", ("mujoco", "pinocchio", "gymnasium", "imageio_ffmpeg", "matplotlib"), True),
        ("train", ("torch", "safetensors", "tensorboard", "scipy"), True),
        ("metaworld", ("metaworld",), False),
        ("kortex", ("google.protobuf",), False),
    ):
        missing = [name for name in modules if not has_module(name)]
        if missing:
            advice = f"pip install 'ndp_ros[{extra}]'"
            state = BROKEN if needed else WARNING
            yield Finding(f"extra {extra}", state, f"without {', '.join(missing)}", advice)
        else:
            versions = ", ".join(_version(name) for name in modules[:2])
            yield Finding(f"extra {extra}", OK, versions)
    there = [extra for extra, module in _OPTIONAL.items() if has_module(module)]
    absent = [extra for extra in _OPTIONAL if extra not in there]
    ways = f"; pip install 'ndp_ros[...]' for {', '.join(absent)}" if absent else ""
    yield Finding("optional extras", OK, f"{', '.join(there) or 'none'}{ways}")


def has_module(module: str) -> bool:
    """Return whether a module is installed, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _version(module: str) -> str:
    """Return a module with its version, as its distribution gives it."""
    names = {"pinocchio": "pin", "google.protobuf": "protobuf", "rclpy": "ros-rclpy"}
    for distribution in (names.get(module, module), module):
        try:
            return f"{module} {metadata.version(distribution)}"
        except metadata.PackageNotFoundError:
            continue
    return module


def _ros() -> Iterator[Finding]:
    """Import ROS 2 and this package's messages, as the nodes do."""
    try:
        importlib.import_module("rclpy")
    except (ImportError, OSError) as error:
        yield Finding("ros", BROKEN, "rclpy cannot be imported", describe(error))
        return
    distribution = os.environ.get("ROS_DISTRO", "wheels")
    yield Finding("ros", OK, f"{_version('rclpy')} ({distribution})")
    try:
        importlib.import_module("ndp_interfaces.msg")
    except (ImportError, OSError) as error:
        text = f"ndp_interfaces cannot be imported ({describe(error)})"
        yield Finding("messages", BROKEN, text, "pip install ./interfaces, or colcon build")
        return
    yield Finding("messages", OK, "ndp_interfaces")
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST, set by ndp")
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    yield Finding("discovery", OK, f"domain {domain}, range {reach}")


def _drawing() -> Iterator[Finding]:
    """Draw one picture in a child process, as films do."""
    try:
        import mujoco

        from ndp_ros.tasks.camera import Camera
    except ImportError as error:
        yield Finding("drawing", WARNING, "not tried", describe(error))
        return
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><camera name='c' pos='0 0 1'/></worldbody></mujoco>"
    )
    camera = Camera("c", (16, 16))
    try:
        camera.picture(model, mujoco.MjData(model))
    except NdpError as error:
        yield Finding("drawing", WARNING, "no films and pictures of scenes", str(error))
        return
    finally:
        camera.close()
    chosen = os.environ.get("MUJOCO_GL") or ("screen" if os.environ.get("DISPLAY") else "software")
    yield Finding("drawing", OK, f"MuJoCo draws ({chosen})")


def _real_time() -> Iterator[Finding]:
    """Look whether the loop may have a real-time priority, as its process asks for one."""
    pid = os.fork()
    if pid == 0:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except OSError:
            os._exit(1)
        os._exit(0)
    allowed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    if allowed:
        yield Finding("real time", OK, "SCHED_FIFO is allowed")
    else:
        limit = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
        yield Finding(
            "real time",
            WARNING,
            f"no SCHED_FIFO (rtprio limit {limit}): ticks are late on a busy machine",
            "add '@realtime - rtprio 99' to /etc/security/limits.d/ and yourself to that group",
        )


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    busy = os.getloadavg()[0]
    state = OK if cores >= _LEAST_CORES and busy < cores else WARNING
    advice = "" if state == OK else "end other work before you measure times"
    yield Finding("cores", state, f"{cores}, load {busy:.1f}", advice)
    free = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0
    enough = free >= _LEAST_SHARED
    advice = "" if enough else "give the container more: --shm-size 256m"
    text = f"{free / (1 << 20):.0f} MiB free in /dev/shm"
    yield Finding("shared memory", OK if enough else BROKEN, text, advice)


def _loop() -> Iterator[Finding]:
    """Look whether the control loop would run compiled or in Python."""
    from ndp_ros.streaming.compiled import loop_of

    loop = loop_of(True)
    compiled = loop == "compiled"
    advice = "" if compiled else "install again, with a C compiler: pip install -e ."
    yield Finding("control loop", OK if compiled else WARNING, loop, advice)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _ros,
    _drawing,
    _real_time,
    _machine,
    _loop,
)
"""Checks in the order in which they are shown."""
