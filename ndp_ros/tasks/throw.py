# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Throw: the arm tosses a cube from its hand into a bin out of its reach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from ndp_ros.arms.scenes import SCENES
from ndp_ros.config import param
from ndp_ros.errors import TaskError
from ndp_ros.tasks.arm_task import ArmTask
from ndp_ros.tasks.config import PICTURES, ArmTaskConfig, preset_of, with_options

THROW_SCENES = ("throw", "throw-gen3")
REWARDS = ("flight", "distance")

_GRAVITY = 9.81
_FARTHEST = 2.5
"""Largest miss in the reward [m]."""
_FREE_AT = 0.08
"""Distance from the grip at which the cube has left the hand [m]."""
_AT_REST = 0.3
"""Speed below which the cube is at rest [m/s]."""


@dataclass(frozen=True)
class ThrowConfig(ArmTaskConfig):
    """Parameters of Throw."""

    reward: str = param(
        "flight",
        doc="flight: progress of the place where the cube would come down if it were released "
        "now; distance: nearness of the cube to the bin at every step (paper).",
        choices=REWARDS,
    )
    progress_gain: float = param(
        30.0, doc="Reward of a place one metre nearer, or of the paper's nearness.", minimum=0.0
    )
    success_gain: float = param(40.0, doc="Reward for a cube in the bin at the end.", minimum=0.0)
    slam_share: float = param(
        0.3,
        doc="Share of this reward for a cube that is released downwards at 1 m/s or faster.",
        minimum=0.0,
        maximum=1.0,
    )
    hold_cost: float = param(20.0, doc="Cost of an episode without a landing.", minimum=0.0)
    saturation_cost: float = param(1.0, doc="Cost of a step at the torque limit.", minimum=0.0)
    limit_cost: float = param(
        0.0,
        doc="Cost of a step whose setpoints are off the wanted ones by the whole velocity "
        "limit, because of the limits.",
        minimum=0.0,
    )
    moving_bin: bool = param(False, doc="Draw a new place of the bin for every episode.")
    wall: bool = param(
        False, doc="Put a wall between arm and bin that only an arc passes; for the Jaco."
    )

    @classmethod
    def preset(cls, name: str, arm: str = "jaco") -> Self:
        """Return a named configuration for an arm.

        ``default`` learns best here. ``paper`` has the text's 100 Hz, its reward and its stale
        world, ``released`` the 50 ms of the authors' code with the same reward. In all of them a
        Gen3 is slower and keeps a distance from its limits.

        Raises:
            TaskError: If there is no such preset.
        """
        paper: dict[str, Any] = {"reward": "distance", "saturation_cost": 0.0, "stale": True}
        presets = {
            "default": cls(control_dt=0.02, horizon=1.7, arm_speed=1.0, gripper_speed=1.5),
            "paper": cls(control_dt=0.01, horizon=1.5, **paper),
            "released": cls(control_dt=0.05, horizon=2.5, **paper),
        }
        return replace(preset_of(presets, name), **(_GEN3 if arm == "gen3" else {}))


# The guard of a real arm keeps a margin to the limits. Setpoints inside it pass unchanged.
_GEN3: dict[str, Any] = {
    "arm_speed": 0.5,
    "gripper_speed": 1.0,
    "horizon": 2.0,
    "limit_share": 0.85,
    "limit_cost": 0.3,
}


class Throw(ArmTask):
    """``ndp_ros/Throw-v0``; on a Gen3 ``ndp_ros/Throw-Gen3-v0``; with a wall, ``Throw-Wall-v0``.

    Success is a cube at rest in the bin when the episode ends.

    ``info["outcome"]`` adds ``landed``, ``landing`` (x, y) [m], the point at which the cube came
    down through the height of the rim, ``miss`` [m] from the bin's middle,
    ``release_velocity`` (3,) [m/s] and ``apex`` [m], the cube's greatest height after
    release above the point of release.
    """

    task: ClassVar[str] = "throw"
    objects: ClassVar[tuple[str, ...]] = ("cube", "bin")
    units: ClassVar[Mapping[str, str]] = {
        "landing": "m",
        "miss": "m",
        "release_velocity": "m/s",
        "apex": "m",
    }
    config: ThrowConfig

    def __init__(
        self,
        preset: str = "default",
        k: int = 5,
        render_mode: str | None = None,
        config: ThrowConfig | None = None,
        scene: str = "throw",
        **changes: Any,
    ) -> None:
        """Build the task.

        The preset is ``default``, ``paper`` or ``released``, unused if a whole configuration is
        given. ``changes`` are single parameters of :class:`ThrowConfig`, or ``camera`` and ``size``
        of :class:`ArmTask`. The scene, ``throw`` or ``throw-gen3``, determines the arm.
        """
        if scene not in THROW_SCENES:
            raise TaskError.choice("scene", scene, THROW_SCENES)
        pictures = {name: changes.pop(name) for name in PICTURES if name in changes}
        config = config or ThrowConfig.preset(preset, SCENES[scene].arm)
        config = with_options(config, changes, PICTURES)
        around = SCENES[scene + ("-moving" if config.moving_bin else "")]
        if config.wall:
            if around.arm != "jaco":
                raise TaskError(f"wall is true, which is for the jaco, not for the {around.arm}")
            around = replace(around, model="models/throw_wall.xml")
        super().__init__(config, around, k, render_mode, **pictures)
        model = self.robot.model
        self._wall = _extent(model.geom("wall")) if config.wall else None
        # Views into the simulation: a tick looks at it through no function of the base.
        data, at = self.robot.data, int(model.joint("cube").qposadr[0])
        self._cube_place = data.qpos[at : at + 3]
        self._cube_at = data.xpos[self._objects.bodies["cube"]]
        velocity = int(model.joint("cube").dofadr[0])
        self._cube_velocity = data.qvel[velocity : velocity + 3]
        self._grip_at = data.site_xpos[self.robot.joints.grip]
        front = model.geom("bin_front")
        self._rim = _extent(front)[1]
        self._half = float(-front.pos[0] - front.size[0])

    def begin(self) -> None:
        """Start a throw, with the cube in the hand."""
        self._bin_at = self.position_of("bin")
        self._rim_height = float(self._bin_at[2]) + self._rim
        self._start_distance = self._distance()
        self._released = self._landed = False
        self._release_velocity = np.zeros(3)
        self._release_height = self._apex = 0.0
        self._landing, self._miss = np.zeros(2), math.inf  # [m]
        self._shown_reward = 0.0
        self._last_miss = self._predicted_miss()

    def watch(self) -> None:
        """Record the release of the cube, its apex and the point of its landing."""
        if self._landed:
            return
        z = float(self._cube_place[2])
        if self._released:
            self._apex = max(self._apex, z)
        else:
            gap = self._cube_at - self._grip_at
            if float(gap @ gap) <= _FREE_AT**2:
                return
            self._released = True
            self._release_velocity = self._cube_velocity.copy()
            self._release_height = self._apex = z
        if z <= self._rim_height:
            self._landed = True
            self._landing = self._cube_place[:2].copy()
            self._miss = float(np.hypot(*(self._landing - self._bin_at[:2])))

    def _distance(self) -> float:
        """Return the horizontal distance from the cube to the bin's middle [m]."""
        gap = self.position_of("cube") - self._bin_at
        return float(np.hypot(gap[0], gap[1]))

    def _inside(self) -> bool:
        """Return whether the cube is between the walls and below the rim."""
        x, y, z = self.position_of("cube") - self._bin_at
        return bool(abs(x) < self._half and abs(y) < self._half and -0.01 < z < self._rim)

    @property
    def success(self) -> bool:
        """Return whether the cube rests in the bin."""
        v = self._cube_velocity
        return self._inside() and float(v @ v) < _AT_REST**2

    def reward(self, first: bool) -> float:
        """Return the reward of a control step, as ``reward`` of the configuration says."""
        config = self.config
        if first or not config.stale:
            if config.reward == "flight":
                # A potential: the sum over an episode is the whole progress, by any path.
                miss = self._predicted_miss()
                self._shown_reward = config.progress_gain * (self._last_miss - miss)
                self._last_miss = miss
            else:
                near = 1.0 - min(1.0, self._distance() / self._start_distance)
                self._shown_reward = config.progress_gain * (1.0 if self._inside() else near)
        elif config.reward == "flight":
            self._shown_reward = 0.0
        return (
            self._shown_reward
            - config.saturation_cost * self.saturated / self.ticks
            - config.limit_cost * self.shortfall
        )

    def _predicted_miss(self) -> float:
        """Return the miss of a cube that is released now [m]."""
        if self._landed:
            return self._miss
        at, v = self._cube_at.tolist(), self._cube_velocity.tolist()
        rise = v[2] ** 2 + 2.0 * _GRAVITY * (at[2] - self._rim_height)
        flight = max(0.0, (v[2] + math.sqrt(rise)) / _GRAVITY) if rise > 0.0 else 0.0
        below = 0.0
        if self._wall is not None:
            flight, below = self._stopped_by(self._wall, at, v, flight)
        x, y = (at[i] + flight * v[i] - float(self._bin_at[i]) for i in range(2))
        return min(_FARTHEST, math.hypot(x, y) + below)

    @staticmethod
    def _stopped_by(
        wall: tuple[float, float], at: Sequence[float], v: Sequence[float], flight: float
    ) -> tuple[float, float]:
        """Return the time [s] after which a flight ends, and how far below a wall's top it is [m].

        The wall has a distance and the height of its top [m]; the cube is at a position (3,) [m]
        with a velocity (3,) [m/s], and would fly so long without the wall [s].
        """
        place, top = wall
        if not at[0] < place < at[0] + flight * v[0]:
            return flight, 0.0
        time = (place - at[0]) / v[0]
        below = top - (at[2] + time * (v[2] - 0.5 * _GRAVITY * time))
        return (time, below) if below > 0.0 else (flight, 0.0)

    def final_reward(self) -> float:
        """Return the reward of a success, or the cost of an episode without a landing."""
        config = self.config
        if config.reward != "flight":
            return 0.0
        if not self._landed:
            return -config.hold_cost
        upwards = min(0.0, max(-1.0, float(self._release_velocity[2])))
        return config.success_gain * self.success * (1.0 + upwards * (1.0 - config.slam_share))

    def summary(self) -> dict[str, Any]:
        """Return the figures of the throw."""
        return {
            "success": self.success,
            "landed": self._landed,
            "landing": self._landing.copy(),
            "miss": self._miss,
            "release_velocity": self._release_velocity.copy(),
            "apex": self._apex - self._release_height,
        }


def _extent(box: Any) -> tuple[float, float]:
    """Return the distance of a box's near side and the height of its top, in its body [m]."""
    return float(box.pos[0] - box.size[0]), float(box.pos[2] + box.size[2])
