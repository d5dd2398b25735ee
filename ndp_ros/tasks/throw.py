"""Throw: the arm tosses the cube that it holds into a bin out of its reach."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.mujoco import SCENES
from ndp_ros.config import param
from ndp_ros.errors import TaskError
from ndp_ros.tasks.arm_task import ArmTask, ArmTaskConfig
from ndp_ros.tasks.options import PICTURES, with_options

Array = NDArray[np.float64]

THROW_SCENES = ("throw", "throw-gen3")
REWARDS = ("flight", "distance")

_GRAVITY = 9.81
_FARTHEST = 2.5
"""A miss counts as at most this [m]."""
_FREE_AT = 0.08
"""The cube has left the hand when it is this far from the grip [m]."""


@dataclass(frozen=True)
class ThrowConfig(ArmTaskConfig):
    """Throw's own parameters on top of the times and scales."""

    reward: str = param(
        "flight",
        doc="flight: progress of the place where the cube would come down if it were let go "
        "now; distance: nearness of the cube at every step, the paper's.",
        choices=REWARDS,
    )
    progress_gain: float = param(
        30.0, doc="Reward of a place one metre nearer, or of the paper's nearness.", minimum=0.0
    )
    success_gain: float = param(40.0, doc="Reward for a cube in the bin at the end.", minimum=0.0)
    slam_share: float = param(
        0.3,
        doc="Share of it that is left when the cube is released downwards, at 1 m/s and more.",
        minimum=0.0,
        maximum=1.0,
    )
    hold_cost: float = param(20.0, doc="Cost of a cube that never comes down.", minimum=0.0)
    saturation_cost: float = param(1.0, doc="Cost of a step at the torque limit.", minimum=0.0)
    limit_cost: float = param(
        0.0,
        doc="Cost of a step whose setpoints are off what was wanted, because of the limits, by "
        "the whole velocity limit.",
        minimum=0.0,
    )
    moving_bin: bool = param(False, doc="Draw the bin's place for every episode.")

    @classmethod
    def preset(cls, name: str, arm: str = "jaco") -> Self:
        """Return a named configuration for an arm.

        ``default`` is what learns best here. ``paper`` takes the text's 100 Hz, its
        reward and its stale world. ``released`` takes the released code's 50 ms with
        the same reward. A Gen3 is slower, and kept off its limits in all of them.

        Raises:
            TaskError: If there is no such preset.
        """
        paper: dict[str, Any] = {"reward": "distance", "saturation_cost": 0.0, "stale": True}
        presets = {
            "default": cls(control_dt=0.02, horizon=1.7, arm_speed=1.0, gripper_speed=1.5),
            "paper": cls(control_dt=0.01, horizon=1.5, **paper),
            "released": cls(control_dt=0.05, horizon=2.5, **paper),
        }
        if name not in presets:
            raise TaskError.choice("preset", name, presets)
        return dataclasses.replace(presets[name], **_OF_ARM.get(arm, {}))


_OF_ARM: dict[str, dict[str, Any]] = {
    # On a real arm the guard keeps a margin of its own: inside it nothing is changed on the way.
    "gen3": {
        "arm_speed": 0.5, "gripper_speed": 1.0, "horizon": 2.0, "limit_share": 0.85,
        "limit_cost": 0.3,
    },
}  # fmt: skip
"""What an arm changes of every preset."""


class Throw(ArmTask):
    """``ndp_ros/Throw-v0`` and, on a Gen3, ``ndp_ros/Throw-Gen3-v0``.

    Success is a cube at rest in the bin when the episode ends.

    ``info["outcome"]`` adds ``landed``, ``landing`` (x, y) [m] where the cube came
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
        scene: str = "throw",
        **changes: Any,
    ) -> None:
        """Build the task.

        Args:
            preset: ``default``, ``paper`` or ``released``; unused if config is given.
            k: Control steps per ``step``.
            render_mode: ``"rgb_array"`` or None.
            config: A whole configuration.
            scene: ``throw`` or ``throw-gen3``; it says which arm throws.
            **changes: Single parameters of :class:`ThrowConfig`, or
                ``camera`` and ``size`` of :class:`ArmTask`.
        """
        if scene not in THROW_SCENES:
            raise TaskError.choice("scene", scene, THROW_SCENES)
        arm = SCENES[scene].arm
        pictures = {name: changes.pop(name) for name in PICTURES if name in changes}
        config = with_options(config or ThrowConfig.preset(preset, arm), changes, PICTURES)
        if config.moving_bin:
            scene = f"{scene}-moving"
        super().__init__(config, scene, k, render_mode, arm=arm, **pictures)
        model = self.robot.model
        self._cube_z = int(model.joint("cube").qposadr[0]) + 2
        self._cube_v = int(model.joint("cube").dofadr[0])
        wall = model.geom("bin_front")
        self._rim = float(wall.pos[2] + wall.size[2])
        self._half = float(-wall.pos[0] - wall.size[0])

    def _begin(self) -> None:
        self._bin_at = self.position_of("bin")
        self._rim_height = float(self._bin_at[2]) + self._rim
        self._start_distance = self._distance()
        self._released = self._landed = False
        self._release_velocity = np.zeros(3)
        self._release_height = self._apex = 0.0
        self._landing = np.zeros(2)
        self._shown_reward = 0.0
        self._last_miss = self._predicted_miss()

    def _watch(self) -> None:
        data = self.robot.data
        z = float(data.qpos[self._cube_z])
        if not self._released:
            gap = self.position_of("cube") - self.grip
            if float(gap @ gap) > _FREE_AT**2:
                self._released = True
                self._release_velocity = data.qvel[self._cube_v : self._cube_v + 3].copy()
                self._release_height = self._apex = z
        elif not self._landed:
            self._apex = max(self._apex, z)
        if self._released and not self._landed and z <= self._rim_height:
            self._landed = True
            self._landing = data.qpos[self._cube_z - 2 : self._cube_z].copy()

    def _distance(self) -> float:
        """Return the horizontal distance from the cube to the bin's middle [m]."""
        gap = self.position_of("cube") - self._bin_at
        return float(np.hypot(gap[0], gap[1]))

    def _inside(self) -> bool:
        """Whether the cube is between the walls and below the rim."""
        x, y, z = self.position_of("cube") - self._bin_at
        return bool(abs(x) < self._half and abs(y) < self._half and -0.01 < z < self._rim)

    @property
    def success(self) -> bool:
        """Whether the cube rests in the bin."""
        v = self.robot.data.qvel[self._cube_v : self._cube_v + 3]
        return self._inside() and float(v @ v) < 0.3**2

    def _reward(self, first: bool) -> float:
        config = self.config
        if first or not config.stale:
            if config.reward == "flight":
                # A potential: the sum over an episode is the whole progress, however it is made.
                miss = self._predicted_miss()
                self._shown_reward = config.progress_gain * (self._last_miss - miss)
                self._last_miss = miss
            else:
                near = 1.0 - min(1.0, self._distance() / self._start_distance)
                self._shown_reward = config.progress_gain * (1.0 if self._inside() else near)
        elif config.reward == "flight":
            self._shown_reward = 0.0
        saturated = self._omega.saturated - self._saturated_before
        return (
            self._shown_reward
            - config.saturation_cost * saturated / self._ticks
            - config.limit_cost * self._missing
        )

    def _predicted_miss(self) -> float:
        """Return how far from the bin's middle the cube would come down if let go now [m]."""
        if self._landed:
            return self._miss()
        data = self.robot.data
        at = self.position_of("cube")
        v = data.qvel[self._cube_v : self._cube_v + 3]
        rise = v[2] ** 2 + 2.0 * _GRAVITY * (at[2] - self._rim_height)
        flight = max(0.0, (v[2] + math.sqrt(rise)) / _GRAVITY) if rise > 0.0 else 0.0
        gap = at[:2] + flight * v[:2] - self._bin_at[:2]
        return min(_FARTHEST, float(np.hypot(gap[0], gap[1])))

    def _miss(self) -> float:
        return float(np.hypot(*(self._landing - self._bin_at[:2])))

    def _final_reward(self) -> float:
        config = self.config
        if config.reward != "flight":
            return 0.0
        if not self._landed:
            return -config.hold_cost
        upwards = min(0.0, max(-1.0, float(self._release_velocity[2])))
        return config.success_gain * self.success * (1.0 + upwards * (1.0 - config.slam_share))

    def _summary(self) -> dict[str, Any]:
        return {
            "success": self.success,
            "landed": self._landed,
            "landing": self._landing.copy(),
            "miss": self._miss() if self._landed else float("inf"),
            "release_velocity": self._release_velocity.copy(),
            "apex": self._apex - self._release_height,
        }
