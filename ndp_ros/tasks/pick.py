"""Pick: the arm takes a cube from a table and lifts it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ndp_ros.config import param
from ndp_ros.errors import TaskError
from ndp_ros.tasks.arm_task import ArmTask, ArmTaskConfig
from ndp_ros.tasks.options import PICTURES, with_options

Array = NDArray[np.float64]

REWARDS = ("shaped", "height")

LIFTED = 0.1
"""Success is a cube this far above where it stood [m] ..."""
HELD = 0.1
"""... and this near to the grip [m]."""
_HIGHEST = 0.25
"""Lifting pays up to this height [m]."""
_TIP_AT = 0.03
"""A fingertip's middle is this far from the middle of a cube that it touches [m]."""


@dataclass(frozen=True)
class PickConfig(ArmTaskConfig):
    """Pick's own parameters on top of the times and scales."""

    reward: str = param(
        "shaped",
        doc="shaped: reach, close from both sides, lift; height: the height of a cube that is "
        "held, else nothing.",
        choices=REWARDS,
    )
    reach_gain: float = param(1.0, doc="Reward a step of a grip at the cube.", minimum=0.0)
    tips_gain: float = param(1.0, doc="Reward a step of fingertips at the cube.", minimum=0.0)
    grasp_gain: float = param(
        1.0, doc="Reward a step of a cube touched from both sides.", minimum=0.0
    )
    lift_gain: float = param(40.0, doc="Reward a step and metre of height.", minimum=0.0)
    saturation_cost: float = param(1.0, doc="Cost of a step at the torque limit.", minimum=0.0)

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return a named configuration.

        ``default`` is what learns best here. ``paper`` takes the text's 100 Hz, the
        sparse reward of the released code and a stale world. ``released`` takes the
        released code's 50 ms with the same reward.

        Raises:
            TaskError: If there is no such preset.
        """
        paper: dict[str, Any] = {"reward": "height", "saturation_cost": 0.0, "stale": True}
        presets = {
            "default": cls(control_dt=0.05, horizon=2.0, arm_speed=1.0),
            "paper": cls(control_dt=0.01, horizon=2.0, **paper),
            "released": cls(control_dt=0.05, horizon=2.5, **paper),
        }
        if name not in presets:
            raise TaskError.choice("preset", name, presets)
        return presets[name]


class Pick(ArmTask):
    """``ndp_ros/Pick-v0``: success is a cube that hangs in the hand when the episode ends.

    ``info["outcome"]`` adds ``height`` [m], how far the cube is above where it stood,
    ``highest`` [m], and ``gap`` [m] from the grip, all of the last control step but
    ``highest``.
    """

    task: ClassVar[str] = "pick"
    config: PickConfig

    def __init__(
        self,
        preset: str = "default",
        k: int = 5,
        render_mode: str | None = None,
        config: PickConfig | None = None,
        camera: str = "near",
        **changes: Any,
    ) -> None:
        """Build the task.

        Args:
            preset: ``default``, ``paper`` or ``released``; unused if config is given.
            k: Control steps per ``step``.
            render_mode: ``"rgb_array"`` or None.
            config: A whole configuration.
            camera: Camera of the scene for pictures.
            **changes: Single parameters of :class:`PickConfig`, or ``size`` of
                :class:`ArmTask`.
        """
        pictures = {name: changes.pop(name) for name in PICTURES if name in changes}
        config = with_options(config or PickConfig.preset(preset), changes, PICTURES)
        super().__init__(config, "pick", k, render_mode, camera=camera, **pictures)
        model = self.robot.model
        self._cube_geom = model.geom("cube").id
        self._tips = np.array([model.geom(f"tip_{i}").id for i in (1, 2, 3)])
        # Finger 1 opposes fingers 2 and 3.
        self._thumb = {model.geom(name).id for name in ("tip_1", "knuckle_1")}
        self._others = {
            model.geom(name).id for name in ("tip_2", "knuckle_2", "tip_3", "knuckle_3")
        }

    def _begin(self) -> None:
        self._ground = float(self.position_of("cube")[2])
        self._highest = 0.0
        self._see_world()

    def _height(self) -> float:
        """Return how far the cube is above where it stood [m]."""
        return float(self.position_of("cube")[2]) - self._ground

    def _gap(self) -> float:
        """Return how far the cube is from the middle of the grip [m]."""
        return float(np.linalg.norm(self.position_of("cube") - self.grip))

    def _grasped(self) -> bool:
        """Whether the cube is touched from both sides of the hand."""
        pairs = self.robot.data.contact.geom
        touching = set(pairs[(pairs == self._cube_geom).any(axis=1)].ravel().tolist())
        return bool(touching & self._thumb and touching & self._others)

    @property
    def success(self) -> bool:
        """Whether the cube hangs in the hand."""
        return self._height() > LIFTED and self._gap() < HELD

    def _see_world(self) -> None:
        """Take the cube as it is for what rewards see of it: where it is, what touches it."""
        self._cube, self._touched = self.position_of("cube"), self._grasped()

    def _reward(self, first: bool) -> float:
        config = self.config
        self._highest = max(self._highest, self._height())
        if first or not config.stale:
            self._see_world()
        height = float(self._cube[2]) - self._ground
        gap = float(np.linalg.norm(self._cube - self.grip))
        if config.reward == "height":
            reward = config.lift_gain * height if height > LIFTED and gap < HELD else 0.0
        else:
            gaps = np.linalg.norm(self.robot.data.geom_xpos[self._tips] - self._cube, axis=1)
            tips = 1.0 - np.tanh(15.0 * np.maximum(0.0, gaps - _TIP_AT))
            lift = min(height, _HIGHEST) if gap < HELD else 0.0
            reward = (
                config.reach_gain * (1.0 - math.tanh(10.0 * gap))
                + config.tips_gain * float(tips.mean())
                + config.grasp_gain * self._touched
                + config.lift_gain * max(0.0, lift)
            )
        saturated = self._omega.saturated - self._saturated_before
        return reward - config.saturation_cost * saturated / self._ticks

    def _summary(self) -> dict[str, Any]:
        return {
            "success": self.success,
            "height": self._height(),
            "highest": self._highest,
            "gap": self._gap(),
        }
