# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The base of wrappers that put another action space before a task."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np

from ndp_ros.errors import TaskError
from ndp_ros.observation import ObservationField
from ndp_ros.tasks.contract import Array, Step, Uncopyable


class WrappedTask(Uncopyable, gymnasium.Wrapper[Array, Array, Array, Array]):
    """A task that takes one action for all k control steps of a ``step``.

    It has the attributes of :class:`TaskEnvironment`, with ``k`` = 1, and the task inside as
    ``env``.
    """

    env: Any
    k = 1
    _refusal: ClassVar[str]
    """Why there is no :meth:`execute`."""

    def __init__(self, env: Any) -> None:
        """Take over everything that does not depend on the actions."""
        super().__init__(env)
        self.fields: tuple[ObservationField, ...] = env.fields
        self.arm: str = env.arm
        self.control_dt: float = env.k * env.control_dt
        self.tick: float = env.tick
        self.segment_times: Array = env.segment_times

    @property
    def spec(self) -> None:  # type: ignore[override]
        """No specification, because gymnasium.make cannot make this wrapper."""

    def execute(self, setpoints: Array) -> Step:
        """Refuse setpoints, which are no actions of this task.

        Raises:
            TaskError: Always.
        """
        raise TaskError(f"{self._refusal}: use step()")


def summed(step: Step) -> Step:
    """Return a step of k rewards as one of a single action, with the sum of its rewards."""
    obs, reward, terminated, truncated, info = step
    return obs, reward, terminated, truncated, {**info, "rewards": np.array([reward])}
