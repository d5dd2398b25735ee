# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Vectorised environments: several environments of one task that step together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ndp_ros.tasks.contract import Array, Step, TaskEnvironment


class VectorTask:
    """Environments (E,) of any task, stepped one after the other.

    A task whose environments step faster together has an attribute ``vector``, which makes a
    subclass of this one.

    Attributes:
        envs: The environments; each is reset on its own.
    """

    def __init__(self, envs: Sequence[Any]) -> None:
        self.envs: tuple[Any, ...] = tuple(envs)

    def step(self, actions: Sequence[Array]) -> list[Step]:
        """Run ``step`` of every environment; actions (E, k, dof)."""
        return [env.step(action) for env, action in zip(self.envs, actions, strict=True)]

    def execute(self, setpoints: Sequence[Array]) -> list[Step]:
        """Run ``execute`` of every environment; setpoints (E, n_ticks, 3, dof)."""
        return [env.execute(s) for env, s in zip(self.envs, setpoints, strict=True)]


def vectorise(envs: Sequence[TaskEnvironment]) -> VectorTask:
    """Return environments of one task as a vectorised environment, the fastest there is."""
    made: VectorTask = getattr(type(envs[0]), "vector", VectorTask)(envs)
    return made
