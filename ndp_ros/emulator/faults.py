# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Fault banks of the emulated arm, and the thresholds that trip an actuator.

The banks are the firmware's, one per actuator and one of the base. Thresholds are not published
and chosen here, except for the speeds of the arm's user guide.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.kortex.codes import ActuatorFault, BaseFault, SubCode
from ndp_ros.emulator.request import Refusal

_LIMIT_MARGIN = 0.01
"""Distance beyond a joint limit that trips an actuator [rad]."""
_TOO_FAST = (math.radians(120.0), math.radians(200.0))
"""Measured speed that trips large and small actuators [rad/s], after the arm's user guide."""


class FaultBanks:
    """The present faults and warnings.

    Attributes:
        actuators: Fault bank A of each actuator (n,).
        warnings: Warning bank A of each actuator (n,).
        base: Fault bank A of the base.
    """

    def __init__(self, n: int) -> None:
        self.actuators = np.zeros(n, np.uint32)
        self.warnings = np.zeros(n, np.uint32)
        self.base = 0

    def any(self) -> bool:
        """Return whether faults keep the arm from moving."""
        return bool(self.base) or bool(self.actuators.any())

    def trip(self, index: int, fault: ActuatorFault) -> None:
        """Raise a fault of an actuator, and with it the base's."""
        self.actuators[index] |= fault
        self.base |= BaseFault.JOINT_FAULT

    def stop(self) -> None:
        """Raise the emergency stop."""
        self.base |= BaseFault.EMERGENCY_STOP_ACTIVATED

    def warn(self, fault: ActuatorFault) -> None:
        """Raise a warning of every actuator."""
        self.warnings[:] |= np.uint32(fault)

    def clear(self) -> None:
        """Clear all faults and warnings."""
        self.actuators[:] = 0
        self.warnings[:] = 0
        self.base = 0

    def clear_actuator(self, index: int) -> None:
        """Clear the faults of one actuator."""
        self.actuators[index] = self.warnings[index] = 0
        if not self.actuators.any():
            self.base &= ~int(BaseFault.JOINT_FAULT)

    def refuse(self) -> None:
        """Refuse a request that an arm in fault does not carry out.

        Raises:
            Refusal: In fault.
        """
        if self.base & BaseFault.EMERGENCY_STOP_ACTIVATED:
            raise Refusal(SubCode.ROBOT_IN_EMERGENCY_STOP, "The emergency stop is active")
        if self.any():
            raise Refusal(SubCode.ROBOT_IN_FAULT, "The robot is in fault")


class Thresholds:
    """Limits of each actuator in low-level servoing."""

    def __init__(
        self,
        limits: tuple[list[float], list[float]],
        large: NDArray[np.bool_],
        following_error: float,
        overspeed: float,
    ) -> None:
        """Set limits of joints (n,) and the following error [rad], and scale the guide's speeds."""
        self._lower, self._upper = limits
        self._following_error = following_error
        self._too_fast = (overspeed * np.where(large, *_TOO_FAST)).tolist()

    def crossed(
        self, target: list[float], q: list[float], v: list[float]
    ) -> list[tuple[int, ActuatorFault]]:
        """Return the violations by commands (n,) [rad] and measured state [rad], [rad/s]."""
        found: list[tuple[int, ActuatorFault]] = []
        for i, wanted in enumerate(target):
            error = wanted - q[i]
            error -= round(error / math.tau) * math.tau
            if abs(error) > self._following_error:
                found.append((i, ActuatorFault.FOLLOWING_ERROR))
            if abs(v[i]) > self._too_fast[i]:
                found.append((i, ActuatorFault.MAXIMUM_VELOCITY))
            if max(q[i], wanted) > self._upper[i] + _LIMIT_MARGIN:
                found.append((i, ActuatorFault.JOINT_LIMIT_HIGH))
            if min(q[i], wanted) < self._lower[i] - _LIMIT_MARGIN:
                found.append((i, ActuatorFault.JOINT_LIMIT_LOW))
        return found
