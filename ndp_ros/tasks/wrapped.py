"""A task behind another space of actions: what such tasks share."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ndp_ros.errors import TaskError
from ndp_ros.observation import ObservationField
from ndp_ros.tasks.contract import OneOfAKind

Array = NDArray[np.float64]
Step = tuple[Array, float, bool, bool, dict[str, Any]]


class WrappedTask(OneOfAKind, gymnasium.Env[Array, Array]):
    """A task that is acted in once every k of its control steps.

    Attributes:
        fields: What the observation holds.
        arm: Name of the arm.
        k: One: a step takes one action.
        control_dt: Time of a step [s].
        tick: Time between two of the task's setpoints [s].
        segment_times: End of each tick of a step [s].
    """

    k = 1
    _refusal: ClassVar[str]

    def __init__(self, env: Any) -> None:
        """Take over what does not depend on the actions."""
        self._env = env
        self.metadata, self.render_mode = env.metadata, env.render_mode
        self.fields: tuple[ObservationField, ...] = env.fields
        self.arm: str = env.arm
        self.control_dt: float = env.k * env.control_dt
        self.tick: float = env.tick
        self.segment_times = env.segment_times
        self.observation_space = env.observation_space

    def execute(self, setpoints: Array) -> Step:
        """Refuse: actions of these tasks are no setpoints.

        Raises:
            TaskError: Always.
        """
        raise TaskError(f"{self._refusal}: use step()")

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Return the task's picture."""
        picture: NDArray[np.uint8] | None = self._env.render()
        return picture

    def close(self) -> None:
        """Close the task."""
        self._env.close()
