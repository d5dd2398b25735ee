# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Detection of a controller that accepts commands and does not execute them."""

from __future__ import annotations

import math
import time

import numpy as np

from ndp_ros.control.arm import Array, Command, JointState
from ndp_ros.errors import ArmError

_COMMANDED, _MOVED, _PATIENCE = 0.02, 0.002, 0.5
"""An arm commanded this far [rad] that moves less than this [rad] in this time [s] has a
controller that takes no commands."""


class Progress:
    """Whether an arm has ever followed its controller's commands.

    An inactive controller, or one that rejects its input, receives commands without any sign of
    it. The arm then does not move from the start although it is commanded to.
    """

    def __init__(self, controller: str, n: int) -> None:
        """Start before the first command."""
        self._controller, self._n = controller, n
        self._start = np.full(n, math.nan)
        self._commanded = np.zeros(n)
        self._since = math.inf
        self._follows = False

    def commanded(self, command: Command) -> None:
        """Note a position command that was sent."""
        if self._follows or command.mode != "position":
            return
        self._commanded[:] = command.position[: self._n]
        if np.isfinite(self._start).all() and self._gap().max() > _COMMANDED:
            self._since = min(self._since, time.monotonic())

    def measured(self, state: JointState) -> None:
        """Note a measurement.

        Raises:
            ArmError: If the arm has not moved although it has been commanded to for a while.
        """
        if self._follows or not np.isfinite(state.position[: self._n]).all():
            return
        if np.isnan(self._start).any():
            self._start[:] = state.position[: self._n]
        if np.abs(state.position[: self._n] - self._start).max() > _MOVED:
            self._follows = True
        elif time.monotonic() - self._since > _PATIENCE:
            raise ArmError(
                f"{self._controller} takes no commands: the arm has not moved for "
                f"{_PATIENCE:g} s although it was commanded by {self._gap().max():.2g} rad. Is the "
                "controller active? Its own log says why it rejects commands"
            )

    def _gap(self) -> Array:
        gap: Array = np.abs(self._commanded - self._start)
        return gap
