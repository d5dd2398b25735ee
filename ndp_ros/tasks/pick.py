# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Pick: the arm grasps a cube on a table and lifts it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from ndp_ros.config import param
from ndp_ros.tasks.arm_task import ArmTask
from ndp_ros.tasks.config import PICTURES, ArmTaskConfig, preset_of, with_options

REWARDS = ("shaped", "height")

LIFTED = 0.1
"""Height above its start at which the cube is lifted [m]."""
HELD = 0.1
"""Distance from the grip up to which the cube is held [m]."""
_HIGHEST = 0.25
"""Height up to which lifting is rewarded [m]."""
_TIP_AT = 0.03
"""Distance from the middle of a fingertip to that of a cube in contact [m]."""


@dataclass(frozen=True)
class PickConfig(ArmTaskConfig):
    """Parameters of Pick."""

    reward: str = param(
        "shaped",
        doc="shaped: for reaching, closing from both sides and lifting; height: the height of a "
        "held cube, otherwise nothing.",
        choices=REWARDS,
    )
    reach_gain: float = param(1.0, doc="Reward per step of a grip at the cube.", minimum=0.0)
    tips_gain: float = param(1.0, doc="Reward per step of fingertips at the cube.", minimum=0.0)
    grasp_gain: float = param(
        1.0, doc="Reward per step of a cube touched from both sides.", minimum=0.0
    )
    lift_gain: float = param(40.0, doc="Reward per step and metre of height.", minimum=0.0)
    saturation_cost: float = param(1.0, doc="Cost of a step at the torque limit.", minimum=0.0)

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return a named configuration.

        ``default`` learns best here. ``paper`` has the text's 100 Hz, a stale world and the
        sparse reward of the authors' code, ``released`` the 50 ms of that code with the same
        reward.

        Raises:
            TaskError: If there is no such preset.
        """
        paper: dict[str, Any] = {"reward": "height", "saturation_cost": 0.0, "stale": True}
        presets = {
            "default": cls(control_dt=0.05, horizon=2.0, arm_speed=1.0),
            "paper": cls(control_dt=0.01, horizon=2.0, **paper),
            "released": cls(control_dt=0.05, horizon=2.5, **paper),
        }
        return preset_of(presets, name)


class Pick(ArmTask):
    """``ndp_ros/Pick-v0``: success is a cube lifted in the hand when the episode ends.

    ``ndp_ros/Pick-Sparse-v0`` rewards the height of a lifted cube and nothing else.

    ``info["outcome"]`` adds ``height`` [m], that of the cube above its start, ``highest`` [m],
    the maximum of the episode, and ``gap`` [m], the distance of the cube from the grip.
    """

    task: ClassVar[str] = "pick"
    units: ClassVar[Mapping[str, str]] = {"height": "m", "highest": "m", "gap": "m"}
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

        The preset is ``default``, ``paper`` or ``released``, unused if a whole configuration is
        given. ``changes`` are single parameters of :class:`PickConfig`, or ``camera`` and ``size``
        of :class:`ArmTask`.
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

    def begin(self) -> None:
        """Record the start of the cube."""
        self._ground = float(self.position_of("cube")[2])
        self._highest = 0.0
        self._see_world()

    def _height(self) -> float:
        """Return the height of the cube above its start [m]."""
        return float(self.position_of("cube")[2]) - self._ground

    def _gap(self) -> float:
        """Return the distance of the cube from the middle of the grip [m]."""
        return math.dist(self.position_of("cube"), self.grip)

    def _grasped(self) -> bool:
        """Return whether the hand touches the cube from both sides."""
        # Lists: numpy takes several times as long for so few contacts.
        cube, touching = self._cube_geom, set[int]()
        for one, other in self.robot.data.contact.geom.tolist():
            if one == cube:
                touching.add(other)
            elif other == cube:
                touching.add(one)
        return not (touching.isdisjoint(self._thumb) or touching.isdisjoint(self._others))

    @property
    def success(self) -> bool:
        """Return whether the cube is lifted in the hand."""
        return self._height() > LIFTED and self._gap() < HELD

    def _see_world(self) -> None:
        """Update what rewards see of the cube: its position and its contacts."""
        self._cube, self._touched = self.position_of("cube"), self._grasped()

    def reward(self, first: bool) -> float:
        """Return the reward of a control step, as ``reward`` of the configuration says."""
        config = self.config
        self._highest = max(self._highest, self._height())
        if first or not config.stale:
            self._see_world()
        height = float(self._cube[2]) - self._ground
        gap = math.dist(self._cube, self.grip)
        if config.reward == "height":
            reward = config.lift_gain * height if height > LIFTED and gap < HELD else 0.0
        else:
            apart = (math.dist(at, self._cube) for at in self.robot.data.geom_xpos[self._tips])
            tips = [1.0 - math.tanh(15.0 * max(0.0, gap - _TIP_AT)) for gap in apart]
            lift = min(height, _HIGHEST) if gap < HELD else 0.0
            reward = (
                config.reach_gain * (1.0 - math.tanh(10.0 * gap))
                + config.tips_gain * sum(tips) / len(tips)
                + config.grasp_gain * self._touched
                + config.lift_gain * max(0.0, lift)
            )
        return reward - config.saturation_cost * self.saturated / self.ticks

    def summary(self) -> dict[str, Any]:
        """Return the figures of the cube at the end."""
        return {
            "success": self.success,
            "height": self._height(),
            "highest": self._highest,
            "gap": self._gap(),
        }
