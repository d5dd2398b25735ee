# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A task of images, small enough for tests: bring the setpoint to a dot that only a picture shows.

An environment of gymnasium's own kind, so that it comes in an ``NdpWrapper``.
"""

from typing import Any

import gymnasium
import numpy as np

SIDE = 12
_STEPS = 10


class Dot(gymnasium.Env):
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    observation_space = gymnasium.spaces.Dict(
        {"camera": gymnasium.spaces.Box(0, 255, (SIDE, SIDE, 1), np.uint8)}
    )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.dot = self.np_random.uniform(-0.7, 0.7, 2)
        self._left = _STEPS
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        gap = float(np.abs(action - self.dot).max())
        self._left -= 1
        return self._observe(), -gap, False, self._left == 0, {"success": gap < 0.2}

    def _observe(self) -> dict[str, Any]:
        # A dot of 3 x 3 pixels, whose edges are as bright as they are covered.
        at = (self.dot + 1.0) * 0.5 * (SIDE - 1)
        cover = [np.clip(2.0 - np.abs(np.arange(SIDE) - c), 0.0, 1.0) for c in at]
        picture = 255.0 * np.outer(cover[1], cover[0])
        return {"camera": picture.astype(np.uint8)[..., None]}


gymnasium.register("Dot-v0", entry_point="dot_task:Dot")
