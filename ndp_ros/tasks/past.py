"""The last ticks of an arm's task: an observation is of an instant that is already over.

Between the instant that Φ sees and the moment when its segment begins lies what Φ, its
messages and the take-over need on a running system.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ndp_ros.observation import OBJECT_PREFIX, ObservationField, assemble

Array = NDArray[np.float64]

_DELAYS = 1
"""Part of the key of the generator that draws latencies."""


class Past:
    """What was measured and set after each of the last ticks.

    Attributes:
        depth: Ticks by which an observation may be late, at most.
    """

    def __init__(
        self,
        latency: float,
        tick: float,
        fields: Sequence[ObservationField],
        dof: int,
        objects: Sequence[str],
    ) -> None:
        """Make room.

        Args:
            latency: Largest age of an observation [s].
            tick: Time between two ticks [s].
            fields: What an observation holds, in order.
            dof: Number of joints.
            objects: Names of the objects.
        """
        self.depth = math.ceil(latency / tick - 1e-9)
        self._latency, self._tick = latency, tick
        self._fields, self._objects = fields, objects
        # Position, velocity, y and yd; and the objects.
        self._joints = np.zeros((1 + self.depth, 4, dof))
        self._poses = np.zeros((1 + self.depth, len(objects), 3))
        self._delays = np.random.default_rng(0)

    def restart(self, seed: int, joints: Sequence[Array], poses: Array) -> None:
        """Begin an episode as if nothing had moved before.

        Args:
            seed: Of the start state; what is drawn depends on nothing else.
            joints: Position, velocity, y and yd (dof,).
            poses: Positions of the objects (n, 3) [m].
        """
        self._delays = np.random.default_rng([seed, _DELAYS])
        self._joints[:] = joints
        self._poses[:] = poses

    def see(self, poses: Array) -> None:
        """Add the objects' positions (n, 3) [m] after a tick; the last ``depth + 1`` matter."""
        self._poses[:-1] = self._poses[1:]
        self._poses[-1] = poses

    def add(self, track: Array, setpoints: Array) -> None:
        """Add the joints after each tick of a segment.

        Args:
            track: Positions and velocities (2, n_ticks, dof).
            setpoints: (n_ticks, 3, dof).
        """
        recent = min(len(self._joints), len(setpoints))
        self._joints[:-recent] = self._joints[recent:]
        for row, values in enumerate((track[0], track[1], setpoints[:, 0], setpoints[:, 1])):
            self._joints[-recent:, row] = values[-recent:]

    def observe(self) -> Array:
        """Return what Φ sees (n_obs,): the world of some instant, at most ``latency`` ago."""
        age = self._latency * self._delays.random() / self._tick if self.depth else 0.0
        older = math.ceil(age)
        share = older - age  # 0 at the older one of the ticks around the instant
        old, new = -1 - older, min(-1, -older)
        joints = (1.0 - share) * self._joints[old] + share * self._joints[new]
        poses = (1.0 - share) * self._poses[old] + share * self._poses[new]
        names = ("position", "velocity", "setpoint", "setpoint_velocity")
        values: dict[str, Array] = dict(zip(names, joints, strict=True))
        for name, pose in zip(self._objects, poses, strict=True):
            values[OBJECT_PREFIX + name] = pose
        return assemble(self._fields, values)
