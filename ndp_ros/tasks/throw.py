"""Throw: the arm tosses the cube that it holds into a bin out of its reach."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ndp_ros.config import param
from ndp_ros.errors import TaskError
from ndp_ros.tasks.arm_task import ArmTask, ArmTaskConfig

Array = NDArray[np.float64]

REWARDS = ("land", "distance")

_FREE_AT = 0.08
"""The cube has left the hand when it is this far from the grip [m]."""


@dataclass(frozen=True)
class ThrowConfig(ArmTaskConfig):
    """Throw's own parameters on top of the times and scales."""

    reward: str = param(
        "land",
        doc="land: once, where the cube comes down; distance: at every step, the paper's.",
        choices=REWARDS,
    )
    landing_gain: float = param(40.0, doc="Reward of a perfect landing.", minimum=0.0)
    success_gain: float = param(40.0, doc="Reward for a cube in the bin at the end.", minimum=0.0)
    arc_gain: float = param(
        10.0, doc="Reward of a release at 1 m/s upwards, if the cube lands near.", minimum=0.0
    )
    acceleration_cost: float = param(
        0.1, doc="Cost a step of setpoint acceleration, relative to the limits.", minimum=0.0
    )
    saturation_cost: float = param(0.2, doc="Cost of a step at the torque limit.", minimum=0.0)
    settle: float = param(
        0.3, doc="Time from landing to the end; 0 for the whole horizon.", unit="s", minimum=0.0
    )
    moving_bin: bool = param(False, doc="Draw the bin's place for every episode.")

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return a named configuration.

        ``default`` is what learns best here. ``paper`` takes the text's 100 Hz, its
        reward and its stale world. ``released`` takes the released code's 50 ms with
        the same reward.

        Raises:
            TaskError: If there is no such preset.
        """
        paper: dict[str, Any] = {
            "reward": "distance", "arc_gain": 0.0, "acceleration_cost": 0.0,
            "saturation_cost": 0.0, "settle": 0.0, "stale": True,
        }  # fmt: skip
        presets = {
            "default": cls(),
            "paper": cls(control_dt=0.01, horizon=1.5, **paper),
            "released": cls(control_dt=0.05, horizon=2.5, **paper),
        }
        if name not in presets:
            raise TaskError.choice("preset", name, presets)
        return presets[name]


class Throw(ArmTask):
    """``ndp_ros/Throw-v0``: success is a cube at rest in the bin when the episode ends.

    ``info["episode"]`` adds ``landed``, ``landing`` (x, y) [m] where the cube came
    down through the height of the rim, ``miss`` [m] from the bin's middle,
    ``release_velocity`` (3,) [m/s] and ``apex`` [m], the cube's greatest height after
    release above the point of release.
    """

    task: ClassVar[str] = "throw"
    objects: ClassVar[tuple[str, ...]] = ("cube", "bin")
    config: ThrowConfig

    def __init__(
        self,
        preset: str = "default",
        k: int = 5,
        render_mode: str | None = None,
        config: ThrowConfig | None = None,
        **changes: Any,
    ) -> None:
        """Build the task.

        Args:
            preset: ``default``, ``paper`` or ``released``; unused if config is given.
            k: Control steps per ``step``.
            render_mode: ``"rgb_array"`` or None.
            config: A whole configuration.
            **changes: Single parameters of :class:`ThrowConfig`, or ``arm``,
                ``camera``, ``size`` of :class:`ArmTask`.
        """
        names = {f.name for f in dataclasses.fields(ThrowConfig)}
        fields = {name: changes.pop(name) for name in list(changes) if name in names}
        config = dataclasses.replace(config or ThrowConfig.preset(preset), **fields)
        if config.reward not in REWARDS:
            raise TaskError.choice("reward", config.reward, REWARDS)
        scene = "throw-moving" if config.moving_bin else "throw"
        super().__init__(config, scene, k, render_mode, **changes)
        model = self.robot.model
        self._cube, self._bin = self._body_ids["cube"], self._body_ids["bin"]
        self._cube_z = int(model.joint("cube").qposadr[0]) + 2
        self._cube_v = int(model.joint("cube").dofadr[0])
        wall = model.geom("bin_front")
        self._rim = float(wall.pos[2] + wall.size[2])
        self._half = float(-wall.pos[0] - wall.size[0])
        self._acceleration_scale = 1.0 / self._limits.max_acceleration[: self._n]

    def _begin(self) -> None:
        data = self.robot.data
        self._bin_at = data.xpos[self._bin].copy()
        self._rim_height = float(self._bin_at[2]) + self._rim
        self._start_distance = self._distance()
        self._released = self._landed = False
        self._release_velocity = np.zeros(3)
        self._release_height = self._apex = 0.0
        self._landing = np.zeros(2)
        self._since_landing = 0
        self._landing_paid = False
        self._stale_reward = 0.0

    def _watch(self) -> None:
        data = self.robot.data
        z = float(data.qpos[self._cube_z])
        if not self._released:
            gap = data.xpos[self._cube] - data.site_xpos[self._grip]
            if float(gap @ gap) > _FREE_AT**2:
                self._released = True
                self._release_velocity = data.qvel[self._cube_v : self._cube_v + 3].copy()
                self._release_height = self._apex = z
        elif not self._landed:
            self._apex = max(self._apex, z)
        if self._released and not self._landed and z <= self._rim_height:
            self._landed = True
            self._landing = data.qpos[self._cube_z - 2 : self._cube_z].copy()
        if self._landed:
            self._since_landing += 1

    def _distance(self) -> float:
        """Return the horizontal distance from the cube to the bin's middle [m]."""
        gap = self.robot.data.xpos[self._cube] - self._bin_at
        return float(np.hypot(gap[0], gap[1]))

    def _inside(self) -> bool:
        """Whether the cube is between the walls and below the rim."""
        x, y, z = self.robot.data.xpos[self._cube] - self._bin_at
        return bool(abs(x) < self._half and abs(y) < self._half and -0.01 < z < self._rim)

    @property
    def success(self) -> bool:
        """Whether the cube rests in the bin."""
        v = self.robot.data.qvel[self._cube_v : self._cube_v + 3]
        return self._inside() and float(v @ v) < 0.3**2

    def _reward(self, first: bool) -> float:
        config = self.config
        if config.reward == "distance":
            if first or not config.stale:
                near = 1.0 - min(1.0, self._distance() / self._start_distance)
                self._stale_reward = config.landing_gain * (1.0 if self._inside() else near)
            reward = self._stale_reward
        else:
            reward = 0.0
            if self._landed and not self._landing_paid and (first or not config.stale):
                self._landing_paid = True
                near = 1.0 - min(1.0, self._miss() / self._start_distance)
                arc = min(1.0, max(0.0, float(self._release_velocity[2])))
                reward = near * (config.landing_gain + config.arc_gain * arc)
        if config.acceleration_cost:
            ticks = slice(self._tick_index, self._tick_index + self._ticks)
            a = self._accelerations[ticks, : self._n] * self._acceleration_scale
            reward -= config.acceleration_cost * float(np.einsum("ij,ij->", a, a)) / a.size
        if config.saturation_cost:
            saturated = self._omega.saturated - self._saturated_before
            reward -= config.saturation_cost * saturated / self._ticks
        return reward

    def _miss(self) -> float:
        return float(np.hypot(*(self._landing - self._bin_at[:2])))

    def _over(self) -> bool:
        settle = self.config.settle
        return settle > 0 and self._since_landing * self.tick >= settle

    def _final_reward(self) -> float:
        if self.config.reward == "land" and self.success:
            return self.config.success_gain
        return 0.0

    def _summary(self) -> dict[str, Any]:
        return {
            "success": self.success,
            "landed": self._landed,
            "landing": self._landing.copy(),
            "miss": self._miss() if self._landed else float("inf"),
            "release_velocity": self._release_velocity.copy(),
            "apex": self._apex - self._release_height,
        }
