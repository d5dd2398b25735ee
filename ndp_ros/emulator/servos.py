# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Servo loops of the emulated arm: the torque of each actuator.

In position and velocity mode a servo follows the reference and compensates gravity; in torque and
current mode the actuator exerts the commanded value without compensation.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.kortex.codes import ControlMode
from ndp_ros.control.arm import Array
from ndp_ros.emulator.reference import Reference
from ndp_ros.emulator.request import CyclicCommand

_FREQUENCY = 60.0
"""Bandwidth of the position servo [rad/s]."""
_TORQUE_PER_AMPERE = (11.0, 7.6)
"""Large and small actuators, used in CURRENT mode [N m/A]."""
_STRENGTH = (56.7, 29.4)
"""Largest torque of large and small actuators [N m], from which on the arm's user guide warns. It
exceeds the limits of commands (39 and 9) and is needed for a sudden stop."""

SUPPORTED_MODES = frozenset(
    {ControlMode.POSITION, ControlMode.VELOCITY, ControlMode.TORQUE, ControlMode.CURRENT}
)


class Servos:
    """The n actuators of an arm.

    Attributes:
        torque: Torque of each actuator (n,) [N m].
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, large: NDArray[np.bool_]
    ) -> None:
        """Configure the first n actuators of a model, of which some are large (n,)."""
        self._model, self._data, self._n = model, data, len(large)
        self._damping = model.dof_damping[: self._n].copy()
        self._limit = np.where(large, *_STRENGTH)
        self._per_ampere = np.where(large, *_TORQUE_PER_AMPERE)
        model.actuator_ctrlrange[: self._n] = np.stack([-self._limit, self._limit], axis=1)
        self._wanted = np.zeros(model.nv)
        self._product = np.zeros(model.nv)
        self.torque = np.zeros(self._n)

    def amperes(self) -> Array:
        """Return the motor currents (n,) [A]."""
        return self.torque / self._per_ampere

    def drive(
        self, reference: Reference, command: CyclicCommand | None, modes: Sequence[ControlMode]
    ) -> None:
        """Set the torques of one step, between the two halves of MuJoCo's step.

        There is a command in low-level servoing only.
        """
        n, data = self._n, self._data
        q, v = data.qpos[:n], data.qvel[:n]
        self._wanted[:n] = (
            reference.acceleration
            + 2.0 * _FREQUENCY * (reference.rate - v)
            + _FREQUENCY**2 * (reference.position - q)
        )
        mujoco.mj_mulM(self._model, data, self._product, self._wanted)
        torque = self._product[:n] + data.qfrc_bias[:n] + self._damping * v
        if command is not None:
            for i, mode in enumerate(modes):
                if mode is ControlMode.TORQUE:
                    torque[i] = command.torque[i]
                elif mode is ControlMode.CURRENT:
                    torque[i] = command.current[i] * self._per_ampere[i]
        np.minimum(torque, self._limit, out=torque)
        np.maximum(torque, -self._limit, out=self.torque)
        data.ctrl[:n] = self.torque
