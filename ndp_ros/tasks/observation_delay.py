# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The delay of observations in training.

On a running system the segment of an observation begins later than the observation was made,
by the time that Φ, its messages and the hand-over take. A task draws this delay for every
observation and interpolates between the ticks that it keeps here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ndp_ros.observation import (
    JOINT_FIELDS,
    OBJECT_PREFIX,
    ObservationField,
    field_slice,
    observation_size,
)
from ndp_ros.tasks.contract import Array

_DELAYS = 1
"""Part of the key of the generator that draws delays."""


class ObservationDelay:
    """The last ticks of an episode, from which delayed observations are made.

    Attributes:
        depth: Largest delay in ticks.
    """

    def __init__(
        self,
        latency: float,
        tick: float,
        fields: Sequence[ObservationField],
        dof: int,
        objects: Sequence[str],
    ) -> None:
        """Allocate the ticks of observations that are at most ``latency`` [s] late.

        Raises:
            ConfigError: If a field is neither one of the joints nor of an object.
        """
        self.depth = math.ceil(latency / tick - 1e-9)
        self._latency, self._tick = latency, tick
        by_name = {f.name: f for f in fields}
        seen = [by_name[OBJECT_PREFIX + name] for name in objects]
        kept = [*(ObservationField(name, dof) for name in JOINT_FIELDS), *seen]
        places = np.arange(observation_size(kept))
        self._order = np.concatenate([places[field_slice(kept, f.name)] for f in fields])
        self._joints = np.zeros((1 + self.depth, len(JOINT_FIELDS), dof))
        self._poses = np.zeros((1 + self.depth, observation_size(seen)))
        self._random = np.random.default_rng(0)

    def restart(self, seed: int, joints: Sequence[Array], poses: Array) -> None:
        """Begin an episode as if nothing had moved before; the seed determines all its delays.

        Joints are position, velocity, y and yd (dof,); poses are the values of the objects' fields,
        one after the other.
        """
        self._random = np.random.default_rng([seed, _DELAYS])
        self._joints[:] = joints
        self._poses[:] = poses

    def add_objects(self, poses: Array) -> None:
        """Add the values of the objects' fields after a tick."""
        self._poses[:-1] = self._poses[1:]
        self._poses[-1] = poses

    def add_joints(self, track: Array, setpoints: Array) -> None:
        """Add the joints after each tick of a segment.

        ``track`` (2, n_ticks, dof) has positions and velocities, setpoints are (n_ticks, 3, dof).
        """
        recent = min(len(self._joints), len(setpoints))
        self._joints[:-recent] = self._joints[recent:]
        for row, values in enumerate((track[0], track[1], setpoints[:, 0], setpoints[:, 1])):
            self._joints[-recent:, row] = values[-recent:]

    def observe(self) -> Array:
        """Return an observation (n_obs,) of one instant, at most ``latency`` ago."""
        age = self._latency * self._random.random() / self._tick if self.depth else 0.0
        older = math.ceil(age)
        share = older - age  # 0 at the older one of the ticks around the instant
        old, new = -1 - older, min(-1, -older)
        joints = (1.0 - share) * self._joints[old] + share * self._joints[new]
        poses = (1.0 - share) * self._poses[old] + share * self._poses[new]
        seen: Array = np.concatenate((joints.ravel(), poses))[self._order]
        return seen
