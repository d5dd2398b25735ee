"""Every error that this package raises on purpose, with one root.

A message says what was given, what is allowed and, where it helps, what to do:
the command line prints it as one line and exits with status 2.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import Self

_LONG = 24
"""A list of more than so many names is not listed; the nearest are."""
_EXTRAS = {
    "mujoco": "sim", "pinocchio": "sim", "gymnasium": "sim", "imageio": "sim",
    "imageio_ffmpeg": "sim", "OpenGL": "sim", "matplotlib": "sim", "torch": "train",
    "safetensors": "train", "tensorboard": "train", "metaworld": "metaworld",
    "google": "kortex", "submitit": "cluster", "stable_baselines3": "bench",
}  # fmt: skip
"""Which extra of this package brings a module."""
_ROS = ("rclpy", "ndp_interfaces", "std_msgs", "sensor_msgs", "geometry_msgs", "trajectory_msgs",
        "diagnostic_msgs", "lifecycle_msgs", "std_srvs", "rcl_interfaces")  # fmt: skip


class NdpError(Exception):
    """Root of all errors raised by ``ndp_ros``."""

    @classmethod
    def choice(cls, name: str, value: object, allowed: Iterable[object]) -> Self:
        """Return an error for a value outside a closed list.

        Args:
            name: What the value is, as the user knows it.
            value: The value that was given.
            allowed: Every value that would have been accepted.
        """
        names = [str(item) for item in allowed]
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


class ArmError(NdpError):
    """An arm that cannot be reached, refuses a command or reports a fault."""


class TaskError(NdpError):
    """A task that cannot be built, reset or stepped as asked."""


class TrainingError(NdpError):
    """A training run that cannot start, go on or be resumed."""


class StreamError(NdpError):
    """The streaming process or its shared memory is missing, damaged or in use."""


def describe(error: BaseException) -> str:
    """Return what the system, a parser or an import says, in one line with what to do.

    Args:
        error: Anything that is no :class:`NdpError`.
    """
    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").partition(".")[0]
        if module in _ROS:
            return (
                f"needs ROS 2 ({module}): source its setup.bash, or pip install 'ndp_ros[wheels]'"
            )
        if module in _EXTRAS:
            return f"needs the module {module}: pip install 'ndp_ros[{_EXTRAS[module]}]'"
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
