# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The gripper of the emulated arm: position, speed and force of its fingers."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from ndp_ros.arms.kortex.units import GRIPPER_CLOSED


class Gripper:
    """Two fingers, driven by the position actuators that follow the arm's n motors in the model.

    Attributes:
        connected: Whether it answers.
        fingers: Indices of the fingers in ``qpos`` and ``qvel``: hinges before any free joint.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, n: int, max_velocity: float | None
    ) -> None:
        """Find the fingers behind n actuators of an arm; without a top speed it has none."""
        self._model, self._data, self._n = model, data, n
        self._top = max_velocity or 0.0
        self._speed = self._top
        self._force_range = model.actuator_forcerange[n:].copy()
        self._force_share = 1.0
        self._target = self._led = 0.0
        self.connected = max_velocity is not None
        names = [model.joint(j).name for j in range(model.njnt)]
        self.fingers = np.array(
            [model.joint(name).qposadr[0] for name in names if name.startswith("finger_")],
            dtype=np.intp,
        )

    @property
    def closed(self) -> float:
        """Position, from 0 (open) to 1 (closed)."""
        share = self._data.qpos[self.fingers].mean() / GRIPPER_CLOSED
        return float(np.clip(share, 0.0, 1.0))

    @property
    def speed(self) -> float:
        """Closing speed in units of the top speed."""
        return float(self._data.qvel[self.fingers].mean() / self._top)

    def put(self, position: float) -> None:
        """Set the reference of the fingers to their position [rad]."""
        self._target = self._led = position
        self._data.ctrl[self._n :] = position

    def drive(self, position: float, speed: float = 100.0, force: float = 100.0) -> None:
        """Open or close to a position, at a speed and with a force in per cent."""
        if not self.connected or not math.isfinite(position):
            return
        self._target = min(max(position, 0.0), 100.0) / 100.0 * GRIPPER_CLOSED
        self._speed = max(0.1, min(speed, 100.0) / 100.0) * self._top
        share = max(0.1, min(force, 100.0) / 100.0)
        if share != self._force_share:
            self._force_share = share
            self._model.actuator_forcerange[self._n :] = self._force_range * share

    def step(self, dt: float) -> None:
        """Advance the reference of the fingers by a time step [s]."""
        step = self._speed * dt
        self._led += min(max(self._target - self._led, -step), step)
        self._data.ctrl[self._n :] = self._led
