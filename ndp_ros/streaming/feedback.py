# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Measurements of the arm as the loop uses them: read at every tick, confirmed before they count.

The physics of a simulated arm are its state and are taken as they are; readings of a real one
pass a ``Confirmer``, here or in a backend that needs confirmed readings for its own commands.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from ndp_ros.control.arm import Arm, ArmInfo, JointState
from ndp_ros.control.measurement import AGREEING, CONSTANTS, Confirmer
from ndp_ros.control.memory import Interpreted
from ndp_ros.errors import ArmError
from ndp_ros.streaming.compiled import Core
from ndp_ros.streaming.guard import Guard

_AGREE_TIMEOUT = 3.0
"""Time for the first readings of an arm to agree with each other [s]."""


class Feedback:
    """The confirmed state of one arm.

    Attributes:
        state: The last confirmed measurement.
        simulated: Whether the arm is simulated.
    """

    def __init__(self, arm: Arm, info: ArmInfo, guard: Guard, simulated: bool) -> None:
        """Prepare to read a connected arm; the guard counts readings that are not confirmed."""
        self._arm, self._guard, self._n = arm, guard, info.n_arm
        self.simulated = simulated
        self._confirmer = None if simulated or info.confirmed else Confirmer(info)
        self._reading = JointState.zeros(info.dof)
        self.state = self._confirmer.state if self._confirmer else self._reading
        self._rejected, self._newest = 0, -math.inf
        self._core: Core = Interpreted()

    def use(self, core: Core) -> None:
        """Confirm readings by a core where they are usual."""
        self._core = core

    @property
    def memory(self) -> dict[str, Any]:
        """The arrays and numbers that compiled code shares, by its names for them."""
        state = self.state
        own = {"position": state.position, "velocity": state.velocity, "effort": state.effort}
        return own | (self._confirmer.memory if self._confirmer is not None else {})

    @property
    def constants(self) -> dict[str, float]:
        """The constants that compiled code needs, by its names for them."""
        return CONSTANTS

    def read(self) -> bool:
        """Read the arm; return whether the measurement is new and confirmed."""
        self._arm.read(self._reading)
        reading, confirmer = self._reading, self._confirmer
        if confirmer is None:
            confirmed, rejected = reading.time > self._newest, reading.rejected
            self._newest = reading.time
        else:
            vectors = reading.position, reading.velocity, reading.effort
            confirmed = self._core.confirm(*vectors, reading.time) or confirmer.confirm(
                reading, time.monotonic()
            )
            rejected = confirmer.rejected + reading.rejected
        if rejected != self._rejected:
            self._rejected = rejected
            self._guard.count("reading_unconfirmed")
        return confirmed

    def read_again(self) -> bool:
        """Read until a measurement is confirmed, at most as often as confirming a jump takes."""
        return any(self.read() for _ in range(AGREEING))

    def wait_until_complete(self, arm: str) -> None:
        """Read until every joint is confirmed.

        Args:
            arm: Name of the arm, for the message.

        Raises:
            ArmError: If the first readings do not agree with each other in time.
        """
        deadline = time.monotonic() + _AGREE_TIMEOUT
        while not self._complete:
            if time.monotonic() > deadline:
                raise ArmError(
                    f"{arm}: no {AGREEING} readings in a row agree within "
                    f"{_AGREE_TIMEOUT:g} s: {self.unconfirmed or 'nothing new is measured'}"
                )
            if not self.read():
                time.sleep(0.001)

    @property
    def _complete(self) -> bool:
        """Whether every joint has been confirmed."""
        if self._confirmer is not None:
            return self._confirmer.complete
        return self.simulated or self._newest > -math.inf

    @property
    def finite(self) -> bool:
        """Whether the newest reading of the arm's joints was finite."""
        return self._confirmer is None or self._confirmer.finite

    @property
    def unconfirmed(self) -> str:
        """Why the newest reading was not confirmed; empty if it was."""
        reason = self._confirmer.reason if self._confirmer is not None else ""
        return reason or self._reading.unconfirmed

    @property
    def speed(self) -> float:
        """Speed of the fastest joint, the gripper left out [rad/s]."""
        return float(np.abs(self.state.velocity[: self._n]).max())
