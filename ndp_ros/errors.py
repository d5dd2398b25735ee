# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Errors of this package, with one root.

A message names the offending value, the allowed ones and, where it helps, the remedy; the command
line prints it as one line and exits with status 2.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Self

_LONG = 24
"""Longest list of names in a message; of a longer one only the nearest are named."""
_EXTRAS = {
    "sim": (
        *("mujoco", "pinocchio", "gymnasium"),
        *("imageio", "imageio_ffmpeg", "OpenGL", "matplotlib"),
    ),
    "train": ("torch", "safetensors", "tensorboard", "scipy"),
    "metaworld": ("metaworld",),
    "kortex": ("google",),
    "cluster": ("submitit",),
    "bench": ("stable_baselines3", "mp_pytorch", "movement_primitives", "psutil"),
    "bag": ("rosbags",),
    "track": ("wandb",),
    "sweep": ("optuna",),
    "hub": ("huggingface_hub",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "lerobot": ("pyarrow",),
}
"""Modules that each extra of this package installs."""
_ROS = re.compile(r"rclpy|ndp_interfaces|rcl_interfaces|\w+_msgs|std_srvs")
"""Modules of a ROS 2 installation."""


class NdpError(Exception):
    """Root of all errors raised by ``ndp_ros``."""

    @classmethod
    def choice(cls, name: str, value: object, allowed: Iterable[object]) -> Self:
        """Return an error for a value outside a closed list; it names all of it, or the nearest."""
        names = [str(item) or "''" for item in allowed]
        near = difflib.get_close_matches(str(value), names, 3)
        meant = f": did you mean {' or '.join(near)}?" if near else ""
        if len(names) <= _LONG:
            return cls(f"{name}: {value!r} is not one of [{', '.join(names)}]{meant}")
        some = ", ".join(names[:_LONG])
        rest = f"{some} and {len(names) - _LONG} more"
        return cls(f"{name}: {value!r} is not one of {len(names)}{meant or f' ({rest})'}")


class ConfigError(NdpError):
    """A parameter, YAML file or command-line value that does not fit its schema."""


class CheckpointError(NdpError):
    """A checkpoint folder that is missing, damaged or made for something else."""


class SegmentError(NdpError):
    """DMP parameters that cannot become a segment for this arm."""


class RejectedError(SegmentError):
    """A message that does not fit; ``reason`` is one of ``REASONS`` of ``nodes/messages.py``."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason


class ArmError(NdpError):
    """An arm that cannot be reached, refuses a command or reports a fault."""


class TaskError(NdpError):
    """A task that cannot be built, reset or stepped as asked."""


class TrainingError(NdpError):
    """A training run that cannot start, go on or be resumed."""


class LockedError(NdpError):
    """A file that another process has locked.

    Attributes:
        holder: Number of that process, or ``unknown``.
    """

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is locked by process {holder}")
        self.holder = holder


class StreamError(NdpError):
    """The streaming process or its shared memory is missing, damaged or in use."""


def describe(error: BaseException) -> str:
    """Return any error but an :class:`NdpError` in one line, with its remedy."""
    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").partition(".")[0]
        if _ROS.fullmatch(module):
            return (
                f"needs ROS 2 ({module}): source its setup.bash, or pip install 'ndp_ros[wheels]'"
            )
        for extra, modules in _EXTRAS.items():
            if module in modules:
                return f"needs the module {module}: pip install 'ndp_ros[{extra}]'"
        return f"needs the Python module {error.name}, which is not installed"
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        names = [_short(str(name)) for name in (error.filename, error.filename2) if name]
        if names:
            return f"{' and '.join(names)}: {reason}"
        if error.errno == errno.ENOENT:
            return "the working directory no longer exists: go to another one"
        return f"cannot write: {reason}" if error.errno == errno.ENOSPC else reason
    if isinstance(error, RecursionError):
        return "a file is nested too deeply"
    if isinstance(error, UnicodeError):
        return f"what was given is no valid text ({error})"
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"{type(error).__name__}: {error}"


def _short(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:60]}...{name[-20:]} ({len(name)} characters)"
