# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A task small enough for tests: a point follows its setpoint and has to reach a goal.

It has the contract of the real tasks (see ``docs/architecture.md``) and ways to fail on
request: ``break_after`` windows it returns NaN, raises, or kills its process.
"""

import os
import signal
from typing import Any, ClassVar

import gymnasium
import numpy as np

from ndp_ros.observation import arm_observation, assemble, observation_size

DOF = 2


class Toy(gymnasium.Env):
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
        k: int = 5,
        preset: str = "default",
        windows: int = 4,
        noise: float = 0.0,
        break_after: int = -1,
        break_how: str = "",
        break_rank: str = "",
        render_mode: str | None = None,
    ) -> None:
        self.k, self.control_dt, self.tick, self.arm = k, 0.05, 0.01, "toy"
        self.joint_names = ("left", "right")
        self.action_scale = np.array([0.05, 0.1])
        self.fields = arm_observation(DOF, ["goal"])
        self.segment_times = self.tick * np.arange(1, k * 5 + 1)
        self.render_mode = render_mode
        self._horizon, self._noise = windows, noise
        here = os.environ.get("RANK", "") == break_rank or not break_rank
        self._break_after, self._break_how = break_after if here else -1, break_how
        self._windows_run = 0
        n = observation_size(self.fields)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (n,), np.float64)
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (k, DOF), np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self._y = self.np_random.uniform(-0.1, 0.1, DOF)
        self._yd = np.zeros(DOF)
        self._goal = np.array([*self.np_random.uniform(0.2, 0.4, DOF), 0.0])
        self._left = self._horizon
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert action.shape == (self.k, DOF)
        steps = np.clip(action, -2.0, 2.0) * self.action_scale
        points = self._y + np.cumsum(steps, axis=0)
        return self._go(points, steps[-1] / self.control_dt)

    def execute(self, setpoints: Any) -> tuple[Any, float, bool, bool, dict]:
        assert setpoints.shape == (len(self.segment_times), 3, DOF)
        return self._go(setpoints[4::5, 0], setpoints[-1, 1])

    def render(self) -> Any:
        return np.zeros((16, 16, 3), np.uint8) if self.render_mode else None

    def _go(self, points: Any, yd: Any) -> tuple[Any, float, bool, bool, dict]:
        self._windows_run += 1
        broken = 0 <= self._break_after < self._windows_run
        if broken and self._break_how == "raise":
            raise ZeroDivisionError("the toy broke")
        if broken and self._break_how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        rewards = -np.abs(points - self._goal[:2]).sum(axis=1)
        self._y, self._yd = points[-1].copy(), np.array(yd)
        self._left -= 1
        info: dict[str, Any] = {"rewards": rewards}
        if self._left == 0:
            info["outcome"] = {
                "success": bool(np.abs(self._y - self._goal[:2]).max() < 0.05),
                "saturation": 0.0,
                "max_joint_speed": float(np.abs(self._yd).max()),
                "tracking_rms": 0.0,
            }
        obs = self._observe()
        if broken and self._break_how == "nan":
            obs[0] = np.nan
        return obs, float(rewards.sum()), self._left == 0, False, info

    def _observe(self) -> Any:
        measured = self._y + self._noise * self.np_random.standard_normal(DOF)
        return assemble(
            self.fields,
            {
                "position": measured,
                "velocity": self._yd,
                "setpoint": self._y,
                "setpoint_velocity": self._yd,
                "object/goal": self._goal,
            },
        )


gymnasium.register("Toy-v0", entry_point="toy_task:Toy")
