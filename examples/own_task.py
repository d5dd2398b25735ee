# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Train on a task of your own: the hand of the Jaco hovers above the cube of Pick.

A task is a scene, a reward and a criterion of success; `docs/own_task.md` explains each part. This
file trains for a moment only; 200,000 control steps, a minute, make every episode succeed.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium
import numpy as np

from ndp_ros import DmpConfig, RunConfig, evaluate, train
from ndp_ros.tasks import ArmTask, ArmTaskConfig, with_options

ABOVE = np.array([0.0, 0.0, 0.1])  # [m]


class Hover(ArmTask):
    """The hand moves to 10 cm above the cube and stays there."""

    task = "hover"

    def __init__(
        self, preset: str = "default", k: int = 5, render_mode: str | None = None, **changes: Any
    ) -> None:
        options = {"control_dt": 0.05, "horizon": 2.0, "arm_speed": 1.0, **changes}
        config = with_options(ArmTaskConfig.preset(preset), options)
        super().__init__(config, "pick", k, render_mode, camera="near")

    def gap(self) -> float:
        """Return the distance of the hand from its place above the cube [m]."""
        return float(np.linalg.norm(self.grip - self.position_of("cube") - ABOVE))

    def reward(self, first: bool) -> float:
        """Return the reward of a control step."""
        return float(1.0 - np.tanh(15.0 * self.gap()))

    def summary(self) -> dict[str, Any]:
        """Return the figures of an episode."""
        return {"success": self.gap() < 0.03, "gap": self.gap()}


def main() -> None:
    """Train, evaluate and print both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=8192, help="control steps (default: 8192)")
    parser.add_argument("--out", default="runs/hover", help="run directory, new or empty")
    args = parser.parse_args()

    config = RunConfig(
        task="own_task:Hover-v0",  # module:id; workers import it, so this file is on the path
        method="ndp",
        samples=args.samples,
        workers=1,
        evaluation_episodes=4,
        goal_gain=0.2,
        init_log_std=-0.5,
        final_log_std=-1.6,
        dmp=DmpConfig(alpha=5.0),
    )
    last = train(config, args.out, quiet=True, watch=lambda row: print(row["samples"], "steps"))
    report = evaluate(last, episodes=4)
    print(f"success {report['success_rate']:.2f}, return {report['return']:.2f}, in {last}")


if __name__ == "__main__":
    main()
elif __name__ == "own_task":
    gymnasium.register("Hover-v0", entry_point="own_task:Hover")
