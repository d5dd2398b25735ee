# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Train in a gymnasium environment that knows nothing of this package: a pen moves to a mark.

One action of the environment is a place for the pen; a segment of the policy is k places on one
smooth path. This file trains for a moment only; 60,000 control steps, half a minute, make every
episode succeed. In the folder of this file the command line takes the environment as well:

    ndp train own_environment:Pen-v0 --method ndp --samples 60000 --film-every 1
    ndp eval runs/Pen-v0-ndp-0 --episodes 50 --video pen.mp4
    ndp export runs/Pen-v0-ndp-0 -o pen --onnx
"""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ndp_ros import RunConfig, evaluate, train

Array = NDArray[np.float32]


class Pen(gymnasium.Env[Array, Array]):
    """A slow pen on a table has to reach a mark within two seconds."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Put the pen in the middle and draw a mark."""
        super().reset(seed=seed)
        self.pen = np.zeros(2, np.float32)
        self.mark = self.np_random.uniform(-0.8, 0.8, 2).astype(np.float32)
        return np.concatenate((self.pen, self.mark)), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Move the pen half of the way to a place."""
        self.pen += 0.5 * (action - self.pen)
        gap = float(np.linalg.norm(self.pen - self.mark))
        observation = np.concatenate((self.pen, self.mark))
        return observation, -gap, False, False, {"success": gap < 0.1}

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """Return a picture of the pen (red) and the mark (green)."""
        picture = np.full((360, 360, 3), 255, np.uint8)
        for place, colour in ((self.mark, (0, 150, 0)), (self.pen, (200, 0, 0))):
            column, row = ((1.0 + place * (1, -1)) * 175).astype(int)
            picture[max(row - 6, 0) : row + 6, max(column - 6, 0) : column + 6] = colour
        return picture


def main() -> None:
    """Train, evaluate and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=8192, help="control steps (default: 8192)")
    parser.add_argument("--out", default="runs/pen", help="run directory, new or empty")
    args = parser.parse_args()

    config = RunConfig(
        task="own_environment:Pen-v0",  # module:id; workers import it from the folder of this file
        method="ndp",
        samples=args.samples,
        workers=1,
        evaluation_episodes=4,
    )
    last = train(config, args.out, quiet=True, watch=lambda row: print(row["samples"], "steps"))
    report = evaluate(last, episodes=4)
    print(f"success {report['success_rate']:.2f}, return {report['return']:.2f}, in {last}")


if __name__ == "__main__":
    main()
elif __name__ == "own_environment":
    gymnasium.register("Pen-v0", entry_point="own_environment:Pen", max_episode_steps=40)
