"""Meta-World's hand-written policies as experts that see every control step."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ndp_ros.errors import NdpError, TaskError
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.tasks.metaworld_registry import MT50, TASKS
from ndp_ros.training.environment import TaskEnvironment
from ndp_ros.training.experiment import RunConfig, make_spec

Array = NDArray[Any]

SCRIPT = "script:"
"""What an expert's name begins with that is no checkpoint."""


class Scripted:
    """The scripts of a task.

    Attributes:
        spec: As of a policy with k = 1.
        std: One unit of ``action_scale``.
    """

    std: Array = np.ones(1)

    def __init__(self, spec: PolicySpec, env: TaskEnvironment) -> None:
        """Take the scripts of a task.

        Args:
            spec: Of a policy with k = 1 for that environment.
            env: The environment, one of Meta-World's.
        """
        from ndp_ros.tasks.metaworld_scripts import Script

        self.spec = spec
        self._script = Script(cast(Any, env))

    def means(self, obs: Array) -> Array:
        """Return what the scripts mean to do ``(batch, 1, 4)`` for observations."""
        return np.array([self._script(row) for row in obs])


def scripted(task: str, options: Sequence[str]) -> tuple[Scripted, TaskEnvironment, dict[str, Any]]:
    """Return the scripts of a task, its environment and how demonstrations name them.

    Args:
        task: Short name of one of Meta-World's tasks.
        options: ``name=value`` each, for the task.

    Raises:
        TaskError: If there is no script for that task, or an option is refused.
    """
    if task not in (*TASKS, MT50):
        raise TaskError.choice("task with a script", task, (*TASKS, MT50))
    config = RunConfig(task=task, method="ppo", k=1, task_options=tuple(options))
    env = config.choice.make()
    try:
        expert = Scripted(make_spec(config, env), env)
    except NdpError:
        env.close()
        raise
    return expert, env, {"script": task, "metaworld": metadata.version("metaworld")}
