"""The gripper of the emulated arm: where its fingers are led, how fast and how hard."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from ndp_ros.arms.kortex.units import GRIPPER_CLOSED


class Gripper:
    """Two fingers that MuJoCo's position actuators behind the arm's n motors drive.

    Attributes:
        connected: Whether it answers.
        fingers: Where the fingers are in ``qpos`` and, as hinges that come before any free
            joint, in ``qvel``.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, n: int, max_velocity: float | None
    ) -> None:
        """Take over the fingers of a model.

        Args:
            model: The arm's model.
            data: Its state.
            n: Number of actuators of the arm, which come first.
            max_velocity: Top speed of the fingers [rad/s]; None for an arm without any.
        """
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
        """How far it is closed, 0 to 1."""
        share = self._data.qpos[self.fingers].mean() / GRIPPER_CLOSED
        return float(np.clip(share, 0.0, 1.0))

    @property
    def speed(self) -> float:
        """How fast it closes, in units of its largest speed."""
        return float(self._data.qvel[self.fingers].mean() / self._top)

    def put(self, position: float) -> None:
        """Lead the fingers to where they already are [rad]."""
        self._target = self._led = position
        self._data.ctrl[self._n :] = position

    def drive(self, position: float, speed: float = 100.0, force: float = 100.0) -> None:
        """Open or close; all three in per cent."""
        if not self.connected or not math.isfinite(position):
            return
        self._target = min(max(position, 0.0), 100.0) / 100.0 * GRIPPER_CLOSED
        self._speed = max(0.1, min(speed, 100.0) / 100.0) * self._top
        share = max(0.1, min(force, 100.0) / 100.0)
        if share != self._force_share:
            self._force_share = share
            self._model.actuator_forcerange[self._n :] = self._force_range * share

    def step(self, dt: float) -> None:
        """Lead the fingers on by a time step [s]."""
        step = self._speed * dt
        self._led += min(max(self._target - self._led, -step), step)
        self._data.ctrl[self._n :] = self._led
