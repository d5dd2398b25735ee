"""What Meta-World leaves open, as the parameters of its tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ndp_ros.config import param
from ndp_ros.errors import TaskError

REWARDS = ("v1", "v2")
GOALS = ("random", "benchmark")

HORIZON = 500
"""Length of an episode in control steps, the benchmark's."""


@dataclass(frozen=True)
class MetaWorldConfig:
    """What the benchmark leaves open."""

    reward: str = param("v2", doc="Version of the reward functions.", choices=REWARDS)
    stale: bool = param(
        True, doc="Rewards inside a segment see the world as after its first control step (A.2)."
    )
    goals: str = param(
        "random",
        doc="random: every episode draws from the task's whole range; benchmark: the 50 of MT1.",
        choices=GOALS,
    )
    goal_seed: int = param(0, doc="Seed of the benchmark's 50 goals.", minimum=0)
    stop_on_success: bool = param(False, doc="End the episode with the segment that succeeds.")
    horizon: int = param(
        HORIZON, doc="Length of an episode in control steps; the benchmark's is 500.", minimum=1,
        maximum=HORIZON,
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the choices, which plain construction does not."""
        if self.reward not in REWARDS:
            raise TaskError.choice("reward", self.reward, REWARDS)
        if self.goals not in GOALS:
            raise TaskError.choice("goals", self.goals, GOALS)
        if not 1 <= self.horizon <= HORIZON:
            raise TaskError(f"horizon is {self.horizon}: allowed is 1 to {HORIZON}")

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return a named configuration.

        ``default`` uses the v2 rewards, with which the tasks can be learned; ``paper``
        the v1 rewards of its time; ``evaluation`` the benchmark's rule: its 50 goals, an
        episode that has succeeded ends.

        Raises:
            TaskError: If there is no such preset.
        """
        presets = {
            "default": cls(),
            "paper": cls(reward="v1"),
            "evaluation": cls(goals="benchmark", stop_on_success=True),
        }
        if name not in presets:
            raise TaskError.choice("preset", name, presets)
        return presets[name]
