"""Every command that arrived, so that a test can say what never left a client."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.kortex.units import DEGREE, JointUnits

_WINDOW = 0.05
"""Time over which the speed of commanded positions is measured [s]: arrival times jitter."""
_CAPACITY = 200_000


class CommandRecord:
    """Counts and extremes of the cyclic commands since :meth:`clear`.

    Positions are continuous [rad], speeds [rad/s], torques [N m]; every extreme is
    one value per joint.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        n = self._n
        self.frames = 0
        """Commands that were taken."""
        self.rejected = 0
        """Commands that came after a newer one."""
        self.not_finite = 0
        """Commands with a value that is no number."""
        self.refused = 0
        """Commands answered by an error."""
        self.max_step = np.zeros(n)
        """Largest change of position from one cycle to the next."""
        self.max_speed = np.zeros(n)
        """Largest speed of commanded positions, over 50 ms."""
        self.max_velocity = np.zeros(n)
        """Largest commanded velocity."""
        self.max_torque = np.zeros(n)
        """Largest commanded torque, of actuators in torque mode."""
        self.min_position = np.full(n, np.inf)
        self.max_position = np.full(n, -np.inf)
        self.rows: deque[tuple[float, int, tuple[float, ...], tuple[float, ...]]] = deque(
            maxlen=_CAPACITY
        )
        """Time [s], frame number, positions and torques of the newest commands."""
        self._units: JointUnits | None = None
        self._previous: NDArray[np.float64] | None = None
        self._previous_frame = 0
        self._window: deque[tuple[float, NDArray[np.float64]]] = deque()

    def restart(self) -> None:
        """Begin a new stretch of servoing: its first command is no step from the last."""
        self._units = self._previous = None
        self._window.clear()

    def add(
        self,
        time: float,
        frame: int,
        degrees: NDArray[np.float64],
        velocity: NDArray[np.float64],
        torque: NDArray[np.float64] | None,
    ) -> None:
        """Record one command that was taken.

        Args:
            time: Emulator's clock [s].
            frame: Number of the cycle.
            degrees: Commanded positions (n,) [deg].
            velocity: Commanded velocities (n,) [deg/s].
            torque: Commanded torques (n,) [N m], None unless in torque mode.
        """
        self.frames += 1
        if self._units is None:
            self._units = JointUnits(degrees)
        position = self._units.update(degrees).copy()
        if self._previous is not None:
            cycles = max(1, (frame - self._previous_frame) % 65536)
            np.maximum(self.max_step, abs(position - self._previous) / cycles, out=self.max_step)
        self._previous, self._previous_frame = position, frame
        np.maximum(self.max_velocity, abs(velocity) * DEGREE, out=self.max_velocity)
        if torque is not None:
            np.maximum(self.max_torque, abs(torque), out=self.max_torque)
        np.minimum(self.min_position, position, out=self.min_position)
        np.maximum(self.max_position, position, out=self.max_position)
        self._window.append((time, position))
        while time - self._window[0][0] > _WINDOW:
            then, old = self._window.popleft()
            speed = abs(position - old) / (time - then)
            np.maximum(self.max_speed, speed, out=self.max_speed)
        torques = () if torque is None else tuple(torque.tolist())
        self.rows.append((time, frame, tuple(position.tolist()), torques))

    def summary(self) -> dict[str, Any]:
        """Return all counts and extremes as plain values."""
        seen = self.frames > 0
        return {
            "frames": self.frames,
            "rejected": self.rejected,
            "refused": self.refused,
            "not_finite": self.not_finite,
            "max_step": self.max_step.tolist(),
            "max_speed": self.max_speed.tolist(),
            "max_velocity": self.max_velocity.tolist(),
            "max_torque": self.max_torque.tolist(),
            "min_position": self.min_position.tolist() if seen else None,
            "max_position": self.max_position.tolist() if seen else None,
        }
