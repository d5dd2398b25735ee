# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Reach: the hand of any arm goes to a pose and stays there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import mujoco
import numpy as np

from ndp_ros.arms.scenes import Scene
from ndp_ros.config import param
from ndp_ros.control.arm_model import GRIP
from ndp_ros.tasks.arm_task import ArmTask
from ndp_ros.tasks.config import PICTURES, ArmTaskConfig, preset_of, with_options
from ndp_ros.tasks.contract import Array

GOAL = "goal"
"""Body that shows the pose."""
_APPROACH = 0.5
"""Share of the way to the goal that the expert goes in a control step."""


@dataclass(frozen=True)
class ReachConfig(ArmTaskConfig):
    """Parameters of Reach."""

    near: float = param(
        0.02, doc="Distance from the goal up to which it is reached.", unit="m", minimum=0.001
    )
    aligned: float = param(
        0.1, doc="Angle from the goal up to which it is reached.", unit="rad", minimum=0.001
    )
    goal_range: float = param(
        0.4,
        doc="Half-width of the range of every joint around the rest position, from which the "
        "posture is drawn whose hand is the goal.",
        unit="rad",
        minimum=0.01,
        maximum=3.2,
    )
    arm_noise: float = param(
        0.05,
        doc="Half-width of the uniform noise on every joint at the start.",
        unit="rad",
        minimum=0.0,
        maximum=1.0,
    )
    turn_gain: float = param(
        0.2, doc="Distance that counts as much as an angle of one.", unit="m/rad", minimum=0.0
    )
    progress_gain: float = param(
        5.0, doc="Reward of an error that becomes smaller by the factor e.", minimum=0.0
    )
    near_gain: float = param(0.5, doc="Reward of a step at the goal.", minimum=0.0)
    saturation_cost: float = param(1.0, doc="Cost of a step at the torque limit.", minimum=0.0)

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return a named configuration; here there is only ``default``.

        Raises:
            TaskError: If there is no such preset.
        """
        default = cls(control_dt=0.1, tick=0.02, horizon=2.0, arm_speed=1.0)
        return preset_of({"default": default}, name)


class Reach(ArmTask):
    """``ndp_ros/Reach-v0``: success is a hand at the goal's pose when the episode ends.

    It takes any arm, by name or file (option ``arm``). The goal is the pose that the hand has in a
    random posture of the arm, so that it can be reached.

    ``info["outcome"]`` adds ``distance`` [m] and ``angle`` [rad] of the hand from the goal.
    """

    task: ClassVar[str] = "reach"
    # The hand's pose follows from the joints, but not for a small network.
    objects: ClassVar[tuple[str, ...]] = (GOAL, GRIP)
    frames: ClassVar[tuple[str, ...]] = (GOAL, GRIP)
    units: ClassVar[Mapping[str, str]] = {"distance": "m", "angle": "rad"}
    config: ReachConfig

    def __init__(
        self,
        preset: str = "default",
        k: int = 5,
        render_mode: str | None = None,
        config: ReachConfig | None = None,
        arm: str = "jaco",
        **changes: Any,
    ) -> None:
        """Build the task for an arm, by name or file.

        The preset is ``default``, unused if a whole configuration is given. ``changes`` are single
        parameters of :class:`ReachConfig`, or ``camera`` and ``size`` of :class:`ArmTask`.
        """
        pictures = {name: changes.pop(name) for name in PICTURES if name in changes}
        beside = (*PICTURES, "arm")
        config = with_options(config or ReachConfig.preset(preset), changes, beside)
        scene = Scene(arm, noise=config.arm_noise, goal=GOAL, goal_range=config.goal_range)
        super().__init__(config, scene, k, render_mode, **pictures)
        self._goal = self.robot.model.body(GOAL).id

    def begin(self) -> None:
        """Record the distance from the goal at the start."""
        self._last = self._error()

    def distance(self) -> float:
        """Return the distance of the hand from the goal [m]."""
        return float(np.linalg.norm(self.grip - self.position_of(GOAL)))

    def angle(self) -> float:
        """Return the angle between the hand and the goal [rad]."""
        turn = np.empty(4)
        mujoco.mju_mat2Quat(turn, self.robot.joints.hand_pose(self.robot.data)[1])
        share = abs(float(turn @ self.robot.data.xquat[self._goal]))
        return 2.0 * math.acos(min(1.0, share))

    @property
    def success(self) -> bool:
        """Return whether the hand is at the goal's pose."""
        return self.distance() < self.config.near and self.angle() < self.config.aligned

    def _error(self) -> float:
        """Return distance and angle as one distance [m]."""
        return self.distance() + self.config.turn_gain * self.angle()

    def reward(self, first: bool) -> float:
        """Return the reward of progress and of a hand at the goal."""
        config, error = self.config, self._error()
        scale = config.near + config.turn_gain * config.aligned
        # On a logarithmic scale the last centimetres count as much as the first decimetres.
        progress = math.log((self._last + 0.5 * scale) / (error + 0.5 * scale))
        self._last = error
        return (
            config.progress_gain * progress
            + config.near_gain * math.exp(-((error / scale) ** 2))
            - config.saturation_cost * self.saturated / self.ticks
        )

    def expert(self, obs: Array) -> Array:
        """Return the action (dof,) of a control step that leads to the goal's posture.

        It knows this posture, which no observation holds (``ndp collect script:reach``).
        """
        y, _ = self.setpoint
        target = np.concatenate((self.robot.goal_posture, y[self._n :]))
        return np.clip(_APPROACH * (target - y) / self.action_scale, -1.0, 1.0)

    def summary(self) -> dict[str, Any]:
        """Return the figures of the hand at the end."""
        return {"success": self.success, "distance": self.distance(), "angle": self.angle()}
