# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""An arm without physics that is always at its last command."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from ndp_ros.control.arm import ArmConfig, ArmInfo, Array, Command, JointState
from ndp_ros.errors import ArmError


class MockArm:
    """An arm that tracks position commands ideally: ``read`` returns the last ``write``."""

    def __init__(self, config: ArmConfig, start: Sequence[float] | None = None) -> None:
        """Start at a position (dof,) [rad], the arm's home unless given.

        Raises:
            ArmError: If the start has another length or lies outside the limits.
        """
        self._info = ArmInfo.from_config(config, ("position",))
        position = np.array(config.home if start is None else start, dtype=float)
        inside = position.shape == (self._info.dof,) and np.all(
            (position >= self._info.lower) & (position <= self._info.upper)
        )
        if not inside:
            raise ArmError(
                f"start of {config.name} is {position.tolist()}: {self._info.dof} positions "
                f"from {self._info.lower.tolist()} to {self._info.upper.tolist()} [rad] are needed"
            )
        self._position = position
        self._velocity = np.zeros(self._info.dof)

    @property
    def loopback(self) -> tuple[Array, Array]:
        """Position and velocity of the last command; a compiled loop copies commands to it."""
        return self._position, self._velocity

    def connect(self) -> ArmInfo:
        """Return joints and limits; a mock can always be reached."""
        return self._info

    def read(self, out: JointState) -> JointState:
        """Return the last command as a measurement of this moment, without effort."""
        out.position[:] = self._position
        out.velocity[:] = self._velocity
        out.effort[:] = 0.0
        out.time = time.monotonic()
        return out

    def write(self, command: Command) -> None:
        """Jump to the commanded position.

        Raises:
            ArmError: If the command is not a position, or is not finite.
        """
        if command.mode != "position":
            raise ArmError.choice("command mode", command.mode, self._info.command_modes)
        if not (np.isfinite(command.position).all() and np.isfinite(command.velocity).all()):
            raise ArmError(f"command is not finite: {command.position}, {command.velocity}")
        self._position[:] = command.position
        self._velocity[:] = command.velocity

    def stop(self) -> None:
        """Set the velocity to zero."""
        self._velocity[:] = 0.0

    def close(self) -> None:
        """Release nothing."""
