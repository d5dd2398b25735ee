# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The objects of a task on an arm, as its observation holds them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ndp_ros.arms.mujoco import MujocoArm
from ndp_ros.errors import TaskError
from ndp_ros.observation import FRAME, POSITION, object_values
from ndp_ros.tasks.contract import Array


class SeenObjects:
    """Bodies of a scene that are part of an observation."""

    def __init__(self, robot: MujocoArm, names: Sequence[str], frames: Sequence[str]) -> None:
        """Find the bodies by name, of which those in ``frames`` are observed with their axes.

        Raises:
            TaskError: If one is not in the scene.
        """
        model, data, base = robot.model, robot.data, robot.joints.base
        known = {model.body(b).name: b for b in range(model.nbody)}
        for name in names:
            if name not in known:
                raise TaskError.choice("object of the task", name, filter(None, known))
        self._robot = robot
        self.bodies = {name: known[name] for name in names}
        self._rows = np.array(list(self.bodies.values()), dtype=np.intp)
        self._sizes = [FRAME if name in frames else POSITION for name in names]
        at_origin = not data.xpos[base].any() and np.array_equal(data.xquat[base], (1, 0, 0, 0))
        self._plain = (at_origin and not frames) or not names
        """Whether positions in the world are those that an observation holds."""

    def values(self) -> Array:
        """Return the values of all fields, one after the other, in the frame of the arm's base."""
        if self._plain:
            positions: Array = self._robot.data.xpos[self._rows].ravel()
            return positions
        poses = [self._robot.pose(body) for body in self._rows]
        each = zip(poses, self._sizes, strict=True)
        return np.concatenate([object_values(p[:3], p[3:], size) for p, size in each])
