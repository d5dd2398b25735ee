"""Every error that this package raises on purpose, with one root.

A message says what was given, what is allowed and, where it helps, what to do:
the command line prints it as one line and exits with status 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self


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
        listed = ", ".join(str(item) for item in allowed)
        return cls(f"{name}: {value!r} is not one of [{listed}]")


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
