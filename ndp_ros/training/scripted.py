# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Hand-written policies as experts with one observation per control step.

They are Meta-World's, and that of a task which defines ``expert(obs) -> (dof,)``, such as Reach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, cast

import numpy as np

from ndp_ros.errors import NdpError, TaskError
from ndp_ros.policies.layout import Array
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.tasks.contract import TaskEnvironment
from ndp_ros.tasks.metaworld.registry import MT50, TASKS
from ndp_ros.training.config import RunConfig, make_spec

EXPERT = "expert"
"""Method of a task that returns the action (dof,) of its hand-written policy."""
SCRIPT = "script:"
"""Prefix of the name of a scripted expert; other names are checkpoints."""


class Scripted:
    """An expert that acts by the scripts of a task.

    Attributes:
        spec: Specification of a policy with k = 1.
        std: Standard deviation of its exploration, one unit of ``action_scale``.
    """

    std: Array = np.ones(1)

    def __init__(self, spec: PolicySpec, env: TaskEnvironment) -> None:
        """Take the scripts of an environment of Meta-World, or the ``expert`` of another one."""
        self.spec = spec
        self._script: Callable[[Array], Array]
        if hasattr(env, EXPERT):
            self._script = getattr(env, EXPERT)
        else:
            from ndp_ros.tasks.metaworld.scripts import Script

            self._script = Script(cast(Any, env))

    def means(self, obs: Array) -> Array:
        """Return the actions of the scripts ``(batch, 1, dof)`` for observations."""
        return np.array([np.atleast_2d(self._script(row)) for row in obs])


def scripted(task: str, options: Sequence[str]) -> tuple[Scripted, TaskEnvironment, dict[str, Any]]:
    """Return the scripted expert of a task, its environment and the source to record.

    Raises:
        TaskError: If the task has no script or refuses an option.
    """
    config = RunConfig(task=task, method="ppo", k=1, task_options=tuple(options))
    env = config.choice.make()
    benchmark = env.arm == "sawyer"
    try:
        if not benchmark and not hasattr(env, EXPERT):
            known = [f"a task of your own with {EXPERT}(obs)", "reach", *TASKS, MT50]
            raise TaskError.choice("task with a script", task, known)
        expert = Scripted(make_spec(config, env), env)
    except NdpError:
        env.close()
        raise
    version = {"metaworld": metadata.version("metaworld")} if benchmark else {}
    return expert, env, {"script": task, **version}
