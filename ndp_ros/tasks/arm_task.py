# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Tasks on a simulated arm: k control steps a ``step``, tracked by Ω.

The policy sees the world once per segment of k control steps. An action is k displacements of
the setpoint; its way points are joined by a C1 cubic, so that position and velocity of the
setpoint are continuous, also from segment to segment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.mujoco import MujocoArm
from ndp_ros.arms.scenes import SCENES, Scene, scene_of
from ndp_ros.control.arm import ArmConfig, ArmInfo, JointState
from ndp_ros.errors import TaskError
from ndp_ros.observation import arm_observation, observation_size
from ndp_ros.tasks.actions.arm_impedance import ArmImpedance
from ndp_ros.tasks.arm_loop import SegmentControl, SegmentFigures, VectorArmTask
from ndp_ros.tasks.camera import Camera
from ndp_ros.tasks.config import ArmTaskConfig, with_options
from ndp_ros.tasks.contract import (
    Array,
    Step,
    Uncopyable,
    check_options,
    finite_array,
    frame_rate,
)
from ndp_ros.tasks.hosted import Hostable
from ndp_ros.tasks.objects import SeenObjects
from ndp_ros.tasks.observation_delay import ObservationDelay
from ndp_ros.tasks.way_points import WayPoints, whole_multiple


@dataclass
class _Figures:
    """Figures of an episode up to now."""

    ticks: int = 0
    saturated: int = 0
    squared_error: float = 0.0
    squared_jerk: float = 0.0
    max_speed: float = 0.0


class ArmTask(Hostable, Uncopyable, gymnasium.Env[Array, Array]):
    """Base of the tasks on an arm; a subclass adds its reward and its success.

    A subclass has a name (``task``) and defines ``reward`` and ``summary``, and ``begin``,
    ``watch``, ``over`` and ``final_reward`` if it needs them. ``docs/own_task.md`` shows one.

    Attributes beside those of :class:`TaskEnvironment`:
        config: Times and scales.
        ticks: Ticks of a control step.
        task: Name of the task.
        objects: Names of the bodies in the observation.
        units: Units of the figures of ``summary`` that have one.
        frames: Those of them whose axes are part of it, beside their position.
        impedance_wrapper: Class that drives the task by variable impedance.
        robot: The simulated arm and its scene.
        saturated: Ticks of the last control step at which a torque was clipped.
        shortfall: Share of the velocity limits by which the setpoints of the last control
            step were off the wanted ones, because of the limits.
        tracked: Setpoints (n_ticks, 3, dof) of the last segment, as the limits allowed them.
        on_tick: Called after every tick, by which a recorder looks on; None for nobody.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    task: ClassVar[str]
    objects: ClassVar[tuple[str, ...]] = ("cube",)
    units: ClassVar[Mapping[str, str]] = {}
    frames: ClassVar[tuple[str, ...]] = ()
    impedance_wrapper = ArmImpedance

    def __init__(
        self,
        config: ArmTaskConfig,
        scene: str | Scene,
        k: int,
        render_mode: str | None = None,
        camera: str = "side",
        size: tuple[int, int] = (640, 480),
    ) -> None:
        """Build the scene.

        Args:
            config: Times, scales and rewards.
            scene: The arm's surroundings, or their name in ``ndp_ros.arms.scenes.SCENES``.
            k: Control steps per ``step``.
            render_mode: ``"rgb_array"`` or None.
            camera: Camera of the scene for pictures.
            size: Width and height of pictures [px].

        Raises:
            TaskError: If k is no positive number, a value of the configuration is not
                allowed, periods do not divide one another, or there is no such render mode.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise TaskError.choice("render_mode", render_mode, self.metadata["render_modes"])
        if not 1 <= k <= 1000 or k != int(k):
            raise TaskError(f"k is {k!r}: allowed is 1 to 1000")
        if isinstance(scene, str) and scene not in SCENES:
            raise TaskError.choice("scene", scene, SCENES)
        scene = scene_of(scene)
        self.config = config = with_options(config, {})
        self.k = int(k)
        self.control_dt, self.tick = config.control_dt, config.tick
        self.ticks = whole_multiple(config.control_dt, config.tick, "control_dt", "tick")
        whole_multiple(config.tick, config.timestep, "tick", "timestep")
        self.segment_times = self.tick * np.arange(1, self.k * self.ticks + 1)
        self._segments = max(1, round(config.horizon / (self.k * self.control_dt)))
        self.render_mode, self._camera = render_mode, Camera(camera, size)
        self.metadata = {**self.metadata, "render_fps": frame_rate(self.k * self.control_dt)}
        described = ArmConfig.named(scene.arm)
        self.arm = described.name
        self.robot = MujocoArm(described, scene, config.timestep, meshes=render_mode is not None)
        info = self.robot.connect()
        self.joint_names, self._n = info.joint_names, info.n_arm
        self._objects = SeenObjects(self.robot, self.objects, self.frames)
        self._define_spaces(info)
        self._y, self._yd, self._ydd = np.zeros(info.dof), np.zeros(info.dof), np.zeros(self._n)
        self._delay = ObservationDelay(
            config.latency, config.tick, self.fields, info.dof, self.objects
        )
        self._figures = _Figures()
        self._segments_left, self.saturated, self.shortfall = 0, 0, 0.0
        self.tracked = np.zeros((0, 3, info.dof))
        self.on_tick: Callable[[], None] | None = None
        self._loop = VectorArmTask([self])

    def _define_spaces(self, info: ArmInfo) -> None:
        """Define the actions and observations for an arm."""
        speeds = np.full(info.dof, self.config.arm_speed)
        speeds[self._n :] = self.config.gripper_speed
        self.action_scale = speeds * self.control_dt
        max_step = self.config.limit_share * info.max_velocity * self.control_dt
        self.way_points = WayPoints(
            self.k, self.ticks, self.control_dt, info.lower, info.upper, max_step
        )
        high = np.broadcast_to(max_step / self.action_scale, (self.k, info.dof)).astype(np.float64)
        self.action_space = gymnasium.spaces.Box(-high, high, dtype=np.float64)
        self.fields = arm_observation(info.dof, self.objects, self.frames)
        n_obs = observation_size(self.fields)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (n_obs,), np.float64)

    @property
    def setpoint(self) -> tuple[Array, Array]:
        """Return the desired position and velocity (dof,) that the next segment starts from."""
        return self._y.copy(), self._yd.copy()

    @property
    def camera(self) -> str:
        """Return the name of the camera that draws the pictures."""
        return self._camera.name

    @property
    def grip(self) -> Array:
        """Return the point between the fingers (3,), in the scene [m]."""
        at: Array = self.robot.data.site_xpos[self.robot.joints.grip].copy()
        return at

    def position_of(self, name: str) -> Array:
        """Return the middle of one of ``objects`` (3,), in the scene [m]."""
        at: Array = self.robot.data.xpos[self._objects.bodies[name]].copy()
        return at

    # Gymnasium.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start an episode; a seed gives the start state that the arm has for it under ROS.

        Raises:
            TaskError: If options are given: there are none.
        """
        super().reset(seed=seed)
        check_options(options)
        start = int(self.np_random.integers(2**31)) if seed is None else seed
        self._y = self.robot.reset(start)
        self._yd, self._ydd = np.zeros_like(self._y), np.zeros(self._n)
        self._segments_left = self._segments
        self._figures = _Figures()
        self.begin()
        measured = self.robot.read(JointState.zeros(len(self._y)))
        joints = measured.position, measured.velocity, self._y, self._yd
        self._delay.restart(start, joints, self._objects.values())
        return self._delay.observe(), {}

    def step(self, action: Array) -> Step:
        """Run k control steps along a C1 cubic through the way points of an action.

        Args:
            action: (k, dof) displacements of the setpoint in units of
                ``action_scale``; clipped to the velocity and position limits.

        Returns:
            Observation, sum of the k rewards, terminated, truncated, info;
            ``info["rewards"]`` (k,) are the rewards of the control steps.

        Raises:
            TaskError: If the action has another shape or is not finite.
        """
        return self._loop.step([action])[0]

    def execute(self, setpoints: Array) -> Step:
        """Run k control steps along given setpoints, such as those of an NDP's segment.

        Args:
            setpoints: (n_ticks, 3, dof): y, yd, ydd due at ``segment_times``, held to the
                limits of position, velocity and acceleration as the streamer does it.

        Returns:
            As :meth:`step`.

        Raises:
            TaskError: If the setpoints have another shape or are not finite.
        """
        return self._loop.execute([setpoints])[0]

    def run(self, control: SegmentControl) -> Step:
        """Run k control steps under another law than inverse dynamics; return as :meth:`step`."""
        return self._loop.run(control)[0]

    def join(self, action: Array) -> Array:
        """Return the setpoints (n_ticks, 3, dof) that :meth:`step` runs for an action (k, dof).

        Raises:
            TaskError: If the action has another shape or is not finite.
        """
        action = finite_array("action", action, (self.k, len(self.joint_names)))
        y, yd = self._y[None], self._yd[None]
        curve: Array = self.way_points.join(y, yd, action[None] * self.action_scale)[0]
        return curve

    def deviation(self, action: Array) -> Array:
        """Return the addition of an action's displacements (k, dof) to setpoints (n_ticks, 3, dof).

        It is a C1 cubic from rest to rest: exploration around a segment shifts its way points and
        leaves the velocity unchanged with which the next segment begins.
        """
        curve: Array = self.way_points.deviation(action[None] * self.action_scale)[0]
        return curve

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Return a picture (height, width, 3), or None without a render mode.

        Raises:
            TaskError: If this machine cannot draw.
        """
        if self.render_mode is None:
            return None
        return self._camera.picture(self.robot.model, self.robot.data)

    def resize(self, size: tuple[int, int]) -> None:
        """Draw pictures of another width and height [px]."""
        self._camera.resize(size)

    def close(self) -> None:
        """Release the renderer; may be called twice."""
        self._camera.close()
        self.robot.close()

    @staticmethod
    def vector(envs: Sequence[ArmTask]) -> VectorArmTask:
        """Return environments of one configuration as a vectorised environment."""
        return VectorArmTask(envs)

    # The task's own part.

    def begin(self) -> None:
        """Start the task's own bookkeeping of an episode; the scene has been reset."""

    def watch(self) -> None:
        """Look at the scene after a tick."""

    def reward(self, first: bool) -> float:
        """Return the reward of the control step that has just ended.

        ``first`` says whether it is the first of its segment.
        """
        raise NotImplementedError(f"{type(self).__name__} has no reward()")

    def over(self) -> bool:
        """Return whether the episode ends with this segment, before its time is up."""
        return False

    def final_reward(self) -> float:
        """Return an additional reward of the last control step of an episode."""
        return 0.0

    def summary(self) -> dict[str, Any]:
        """Return the task's part of ``info["outcome"]``; ``success`` must be in it."""
        raise NotImplementedError(f"{type(self).__name__} has no summary()")

    # The loop's side.

    def require_running(self) -> None:
        """Check that an episode has begun and is not over.

        Raises:
            TaskError: If the episode is over or has not begun.
        """
        if self._segments_left <= 0:
            raise TaskError("the episode is over: call reset() before step()")

    def end_tick(self, left: int) -> None:
        """Process a tick, after which ``left`` ticks remain of the segment."""
        self.watch()
        if self.on_tick is not None:
            self.on_tick()
        if left <= self._delay.depth:
            self._delay.add_objects(self._objects.values())

    def end_control_step(self, first: bool, saturated: int, shortfall: float) -> float:
        """Return the reward of a control step that has been run, after taking its figures over."""
        self.saturated, self.shortfall = saturated, shortfall
        self._figures.saturated += saturated
        return self.reward(first)

    def end_segment(
        self, rewards: Array, setpoints: Array, track: Array, moved: SegmentFigures
    ) -> Step:
        """Return the step of a segment that has been run.

        Rewards are (k,), the tracked setpoints (n_ticks, 3, dof), measured positions and velocities
        ``track`` (2, n_ticks, dof).

        Raises:
            TaskError: If the task's summary lacks ``success``.
        """
        n, figures = self._n, self._figures
        figures.squared_error += moved.squared_error
        figures.squared_jerk += moved.squared_jerk
        # Between segments too, where a new motion may begin with another acceleration.
        change = (setpoints[0, 2, :n] - self._ydd) / self.tick
        figures.squared_jerk += float(change @ change)
        self._ydd = setpoints[-1, 2, :n].copy()
        figures.ticks += len(setpoints)
        figures.max_speed = max(figures.max_speed, moved.max_speed)
        self._y, self._yd = setpoints[-1, 0].copy(), setpoints[-1, 1].copy()
        self.tracked = setpoints
        self._delay.add_joints(track, setpoints)
        self._segments_left = 0 if self.over() else self._segments_left - 1
        ended = self._segments_left == 0
        info: dict[str, Any] = {"rewards": rewards}
        if ended:
            rewards[-1] += self.final_reward()
            info["outcome"] = self._outcome()
        # The horizon is part of the task: a throw must be over by then.
        return self._delay.observe(), float(rewards.sum()), ended, False, info

    def _outcome(self) -> dict[str, Any]:
        """Return the figures of an episode."""
        summary = self.summary()
        if "success" not in summary:
            raise TaskError(
                f"{type(self).__name__}.summary() has {list(summary)}: success must be in it"
            )
        figures = self._figures
        return {
            "saturation": figures.saturated / figures.ticks,
            "max_joint_speed": figures.max_speed,
            "tracking_rms": float(np.sqrt(figures.squared_error / (figures.ticks * self._n))),
            "jerk": float(np.sqrt(figures.squared_jerk / (figures.ticks * self._n))),
            **summary,
        }
