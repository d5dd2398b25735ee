# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Meta-World's hand-written policies, one per task, on the setpoint of this package."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from metaworld.policies import ENV_POLICY_MAP

from ndp_ros.errors import TaskError
from ndp_ros.observation import field_slice
from ndp_ros.tasks.contract import Array
from ndp_ros.tasks.metaworld.environment import GRIP, STEP, MetaWorld
from ndp_ros.tasks.metaworld.registry import MT50, TASKS


class Script:
    """The benchmark's own policy of a task; for MT50, of the task in the observation.

    A native action has three displacements and an effort of the fingers. The setpoint's
    fourth coordinate is this effort, to which it moves by one unit per control step.
    """

    def __init__(self, env: MetaWorld) -> None:
        """Take the layout of the observation from an environment.

        Raises:
            TaskError: If it is not one of Meta-World's tasks.
        """
        if not isinstance(env, MetaWorld):
            raise TaskError(f"only Meta-World's tasks have scripts, not {type(env).__name__}")
        made: dict[str, Any] = ENV_POLICY_MAP
        self._scripts = [
            made[f"{name}-v3"]() for name in (TASKS if env.task == MT50 else (env.task,))
        ]
        self._setpoint = field_slice(env.fields, "setpoint")
        self._world = field_slice(env.fields, "world")
        self._task = field_slice(env.fields, "task") if env.task == MT50 else None

    def __call__(self, obs: Array) -> Array:
        """Return the displacement (1, 4) in action units for an observation (n_obs,)."""
        which = 0 if self._task is None else int(np.argmax(obs[self._task]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # actions over one unit are clipped
            native = np.asarray(self._scripts[which].get_action(obs[self._world]), np.float64)
        native = np.clip(native, -1.0, 1.0)
        grip = (GRIP * native[3] - obs[self._setpoint][3]) / STEP
        return np.append(native[:3], grip)[None]
