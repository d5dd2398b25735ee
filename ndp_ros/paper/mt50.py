# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Train one policy on all fifty tasks of Meta-World: clones of the benchmark's scripts, and PPO.

The paper trains MT50 by PPO alone and reports it in a figure without numbers. PPO needs more
control steps for it than the short scale has, so the policy that ships clones the benchmark's
hand-written policies: fifty experts, one Φ that receives the task as a one-hot vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ndp_ros.config import param
from ndp_ros.paper.claims import NOT_BELOW, Claim
from ndp_ros.paper.imitation import DemonstrationConfig, Imitation
from ndp_ros.paper.queue import Job, Log
from ndp_ros.paper.rows import SMOKE, Row, Scale
from ndp_ros.tasks.metaworld.registry import MT50 as TASK
from ndp_ros.training.config import RunConfig
from ndp_ros.training.scripted import scripted


@dataclass(frozen=True, kw_only=True)
class ScriptConfig(DemonstrationConfig):
    """Demonstrations by the benchmark's scripts, in windows from every control step on."""

    task_options: tuple[str, ...] = param((), doc="The task's options, name=value each.")
    every: int = param(1, doc="Control steps between the starts of windows.", minimum=1)

    def demonstrate(self, experts: Sequence[Path], folder: Path, log: Log) -> None:
        """Record the scripts; there are no ``experts``."""
        expert, env, source = scripted(self.task, self.task_options)
        self._write(expert, env, source, {"expert": "the scripts"}, folder, log)


class ScriptImitation(Imitation):
    """Clones of scripts, and learners that see no demonstrations."""

    def _recording(
        self, learner: RunConfig, episodes: int, experts: Sequence[Job]
    ) -> DemonstrationConfig:
        return ScriptConfig(
            task=learner.task, task_options=learner.task_options, k=learner.k, episodes=episodes
        )

    def notes(self, record: Any) -> list[str]:
        """Return how the table is made."""
        return [
            "Success of the last checkpoint over all fifty tasks, mean ± deviation over seeds, by "
            f"{self.scales[record['scale']].episodes} episodes a seed, as many of each task. The "
            "demonstrations' row says how often the benchmark's scripts succeed with noise on "
            "their actions; clones learn from the successful episodes."
        ]


_CLONE: dict[str, Any] = {
    "hidden": [400, 400],
    "evaluation_episodes": 100,
    "checkpoint_every": 10,
    "bc": {"passes": 40, "windows_per_step": 128, "decay": True},
}

MT50 = ScriptImitation(
    "mt50",
    {
        "mt50-nn": Row(TASK, "bc-nn", "MT50", "NN clone", changes=_CLONE),
        "mt50-ndp": Row(TASK, "bc-ndp", "MT50", "NDP clone", changes=_CLONE),
        "mt50-ppo": Row(
            TASK, "ndp", "MT50", "NDP by PPO", stage=1, at={"short": {"samples": 2_000_000}}
        ),
    },
    {
        "smoke": replace(
            SMOKE,
            changes={
                **SMOKE.changes,
                "evaluation_episodes": 2,
                "bc": {"passes": 2, "only_successful": False},
            },
        ),
        "short": Scale(
            "1500 demonstrations, 2 seeds; PPO 2,000,000 control steps instead of 5,000,000",
            2,
            episodes=500,
        ),
        "full": Scale("1500 demonstrations, 5 seeds; PPO 5,000,000 control steps", 5, episodes=500),
    },
    {"smoke": 3, "short": 1500, "full": 1500},
    claims=[
        Claim(
            "NDP is as good a clone of fifty experts as NN",
            (("mt50-ndp", "mt50-nn"),),
            NOT_BELOW,
            "last",
        )
    ],
)
