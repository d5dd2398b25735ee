# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Parameters of Meta-World's tasks, for choices that the benchmark leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ndp_ros.config import param
from ndp_ros.tasks.config import preset_of

REWARDS = ("v1", "v2")
GOALS = ("random", "benchmark")

HORIZON = 500
"""Length of an episode of the benchmark in control steps."""


@dataclass(frozen=True)
class MetaWorldConfig:
    """Choices that the benchmark leaves open."""

    reward: str = param("v2", doc="Version of the reward functions.", choices=REWARDS)
    stale: bool = param(
        True, doc="Inside a segment, rewards see the world as after its first control step (A.2)."
    )
    goals: str = param(
        "random",
        doc="random: a goal from the task's whole range for every episode; benchmark: the 50 "
        "goals of MT1.",
        choices=GOALS,
    )
    goal_seed: int = param(0, doc="Seed of the benchmark's 50 goals.", minimum=0)
    stop_on_success: bool = param(False, doc="End the episode with the segment that succeeds.")
    horizon: int = param(
        HORIZON, doc="Length of an episode in control steps.", minimum=1, maximum=HORIZON
    )

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return a named configuration.

        ``default`` has the v2 rewards, with which the tasks can be learned, ``paper`` the v1
        rewards of its time, and ``evaluation`` the benchmark's rule: its 50 goals, and an episode
        ends with its success.

        Raises:
            TaskError: If there is no such preset.
        """
        presets = {
            "default": cls(),
            "paper": cls(reward="v1"),
            "evaluation": cls(goals="benchmark", stop_on_success=True),
        }
        return preset_of(presets, name)
