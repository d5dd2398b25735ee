"""What every task on the simulated arm shares: k control steps a ``step``, tracked by Ω.

The policy sees the world once per segment of k control steps. An action is k
displacements of the setpoint; the way points are joined by a C1 cubic, so that
position and velocity of the setpoint are continuous, also from segment to segment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.arm import ArmConfig, Command, JointState
from ndp_ros.arms.mujoco import MujocoArm
from ndp_ros.config import param
from ndp_ros.control.limiter import Limiter
from ndp_ros.control.omega import InverseDynamics
from ndp_ros.control.rigid_body import RigidBody
from ndp_ros.errors import TaskError
from ndp_ros.observation import arm_observation, observation_size
from ndp_ros.tasks.camera import Camera
from ndp_ros.tasks.contract import OneOfAKind, check_options, pictures_per_second
from ndp_ros.tasks.options import with_options
from ndp_ros.tasks.past import Past
from ndp_ros.tasks.way_points import WayPoints, whole_multiple

if TYPE_CHECKING:
    from ndp_ros.tasks.together import Together

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ArmTaskConfig:
    """Times and scales that tasks on the arm share."""

    control_dt: float = param(0.05, doc="Control step.", unit="s", minimum=0.002, maximum=0.5)
    tick: float = param(0.01, doc="Period of Ω in training.", unit="s", minimum=1e-4, maximum=0.05)
    timestep: float = param(0.005, doc="Physics step.", unit="s", minimum=1e-4, maximum=0.01)
    horizon: float = param(2.0, doc="Length of an episode.", unit="s", minimum=0.1, maximum=60)
    arm_speed: float = param(
        1.5, doc="Setpoint speed of one action unit, arm joints.", unit="rad/s", minimum=0.01
    )
    gripper_speed: float = param(
        3.0, doc="Setpoint speed of one action unit, gripper.", unit="rad/s", minimum=0.01
    )
    limit_share: float = param(
        1.0,
        doc="Share of the velocity and acceleration limits that setpoints are held to.",
        minimum=0.05,
        maximum=1.0,
    )
    latency: float = param(
        0.0,
        doc="Largest age of an observation when its segment begins, drawn anew for each: the "
        "time that Φ, its messages and the take-over need on a running system.",
        unit="s",
        minimum=0.0,
        maximum=0.1,
    )
    stale: bool = param(
        False,
        doc="Rewards inside a segment see the objects as after its first control step, and the "
        "robot as it is (A.2).",
    )

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return a named configuration: here only ``default``; a task may have others.

        Raises:
            TaskError: If there is no such preset.
        """
        if name != "default":
            raise TaskError.choice("preset", name, ["default"])
        return cls()


class ArmTask(OneOfAKind, gymnasium.Env[Array, Array]):
    """Base of the arm's tasks; a task adds its reward and its success.

    A subclass names itself (``task``) and defines ``_begin``, ``_reward`` and ``_summary``;
    ``_watch``, ``_over`` and ``_final_reward`` if it needs them. ``docs/own_task.md`` shows one.

    Attributes:
        fields: What the observation holds, in order.
        joint_names: Joints of an action, the gripper last.
        action_scale: Displacement (dof,) of one action unit over a control step [rad].
        control_dt: Control step [s].
        k: Control steps per ``step``.
        tick: Period of Ω [s].
        segment_times: When the setpoints given to :meth:`execute` are due, from the
            segment's start (n_ticks,) [s]: the end of each tick.
        arm: Name of the arm.
        task: Name of the task.
        robot: The simulated arm and its scene.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    task: ClassVar[str]
    objects: ClassVar[tuple[str, ...]] = ("cube",)

    def __init__(
        self,
        config: ArmTaskConfig,
        scene: str,
        k: int,
        render_mode: str | None = None,
        arm: str = "jaco",
        camera: str = "side",
        size: tuple[int, int] = (640, 480),
    ) -> None:
        """Build the scene.

        Args:
            config: Times, scales and rewards.
            scene: A name of ``ndp_ros.arms.mujoco.SCENES``.
            k: Control steps per ``step``.
            render_mode: ``"rgb_array"`` or None.
            arm: Name of the arm's configuration.
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
        self.config = config = with_options(config, {})
        self.arm, self.k = arm, int(k)
        self.control_dt, self.tick = config.control_dt, config.tick
        self.render_mode, self._camera = render_mode, Camera(camera, size)
        rate = pictures_per_second(self.k * self.control_dt)
        self.metadata = {**self.metadata, "render_fps": rate}
        self._ticks = whole_multiple(config.control_dt, config.tick, "control_dt", "tick")
        whole_multiple(config.tick, config.timestep, "tick", "timestep")

        arm_config = ArmConfig.named(arm)
        self.robot = MujocoArm(arm_config, scene, config.timestep, meshes=render_mode is not None)
        info = self.robot.connect()
        self._dof, self._n = info.dof, info.n_arm
        self.joint_names = info.joint_names
        self._limits = info
        max_velocity = config.limit_share * info.max_velocity
        self._max_step = max_velocity * self.control_dt
        speeds = np.full(self._dof, config.arm_speed)
        speeds[self._n :] = config.gripper_speed
        self.action_scale = speeds * self.control_dt
        self.fields = arm_observation(self._dof, self.objects)
        self.segment_times = self.tick * np.arange(1, self.k * self._ticks + 1)

        body = RigidBody(self.robot.model, info.joint_names[: self._n])
        self._omega = InverseDynamics(body, arm_config.natural_frequency, info.max_torque)
        self._measured = JointState.zeros(self._dof)
        self._command = Command.zeros(self._dof, "torque")
        self._y, self._yd = np.zeros(self._dof), np.zeros(self._dof)
        self._current = np.zeros((3, self._dof))
        max_acceleration = config.limit_share * info.max_acceleration
        self._way_points = WayPoints(
            self.k, self._ticks, self.control_dt, info.lower, info.upper, self._max_step
        )
        self._limiter = Limiter(info.lower, info.upper, max_velocity, max_acceleration, self.tick)
        self._track = np.zeros((2, len(self.segment_times), self._dof))
        self._past = Past(config.latency, config.tick, self.fields, self._dof, self.objects)
        self._windows_left = 0
        self._windows = max(1, round(config.horizon / (self.k * self.control_dt)))
        self._body_ids = {name: self.robot.model.body(name).id for name in self.objects}
        self._bodies = np.array(list(self._body_ids.values()))
        self._grip = self.robot.model.site("grip").id

        bound = self._max_step / self.action_scale
        high = np.broadcast_to(bound, (self.k, self._dof)).astype(np.float64)
        self.action_space = gymnasium.spaces.Box(-high, high, dtype=np.float64)
        n_obs = observation_size(self.fields)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (n_obs,), np.float64)

    @property
    def setpoint(self) -> tuple[Array, Array]:
        """Return the desired position and velocity (dof,) that the next segment starts from."""
        return self._y.copy(), self._yd.copy()

    @property
    def grip(self) -> Array:
        """Return the middle of the hand's grip (3,), in the scene [m]."""
        at: Array = self.robot.data.site_xpos[self._grip].copy()
        return at

    def position_of(self, name: str) -> Array:
        """Return the middle of one of ``objects`` (3,), in the scene [m]."""
        at: Array = self.robot.data.xpos[self._body_ids[name]].copy()
        return at

    # Gymnasium.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start an episode; ``reset(seed=n)`` gives the start state that the arm has for n.

        Raises:
            TaskError: If options are given: there are none.
        """
        super().reset(seed=seed)
        check_options(options)
        start = int(self.np_random.integers(2**31)) if seed is None else seed
        self._y = self.robot.reset(start)
        self._yd = np.zeros(self._dof)
        self._windows_left = self._windows
        self._omega.clear()
        self._max_speed, self._squared_error, self._n_errors = 0.0, 0.0, 0
        self.robot.read(self._measured)
        self._begin()
        joints = self._measured.position, self._measured.velocity, self._y, self._yd
        self._past.restart(start, joints, self.robot.data.xpos[self._bodies])
        return self._past.observe(), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
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
        return self._run(self.join(action))

    def execute(self, setpoints: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Run k control steps along given setpoints, such as those of an NDP's segment.

        Args:
            setpoints: (n_ticks, 3, dof): y, yd, ydd due at ``segment_times``, held to the
                limits of position, velocity and acceleration as the streamer does it.

        Returns:
            As :meth:`step`.

        Raises:
            TaskError: If the setpoints have another shape or are not finite.
        """
        return self._run(self._checked(setpoints))

    def join(self, action: Array) -> Array:
        """Return the setpoints (n_ticks, 3, dof) that :meth:`step` runs for an action (k, dof).

        Raises:
            TaskError: If the action has another shape or is not finite.
        """
        action = np.asarray(action, dtype=float)
        if action.shape != (self.k, self._dof) or not np.isfinite(action).all():
            raise TaskError(
                f"action must be {(self.k, self._dof)} finite values, got {action.shape}"
            )
        return self._way_points.join(self._y, self._yd, action * self.action_scale)

    def deviation(self, action: Array) -> Array:
        """Return what an action's displacements add to setpoints (n_ticks, 3, dof).

        A C1 cubic that starts and ends at rest: exploration around a segment shifts its
        way points and leaves the velocity with which the next one begins alone.

        Args:
            action: (k, dof) displacements in units of ``action_scale``.
        """
        return self._way_points.deviation(action * self.action_scale)

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Return a picture (height, width, 3), or None without a render mode.

        Raises:
            TaskError: If this machine cannot draw.
        """
        if self.render_mode is None:
            return None
        return self._camera.picture(self.robot.model, self.robot.data)

    def close(self) -> None:
        """Release the renderer; may be called twice."""
        self._camera.close()
        self.robot.close()

    @staticmethod
    def together(envs: Sequence[ArmTask]) -> Together:
        """Return environments of one configuration as one that advances them side by side."""
        from ndp_ros.tasks.together import Together

        return Together(envs)

    # What a task adds.

    def _begin(self) -> None:
        """Start an episode's own bookkeeping; the scene has been reset."""
        raise NotImplementedError

    def _watch(self) -> None:
        """Look at the world after a tick."""

    def _reward(self, first: bool) -> float:
        """Return the reward of a control step that has just ended.

        Args:
            first: Whether it is the first of its segment.
        """
        raise NotImplementedError

    def _over(self) -> bool:
        """Whether the episode ends with this segment, before its time is up."""
        return False

    def _final_reward(self) -> float:
        """Return what the last control step of an episode earns on top."""
        return 0.0

    def _summary(self) -> dict[str, Any]:
        """Return the task's part of ``info["outcome"]``; ``success`` must be in it."""
        raise NotImplementedError

    # The loop.

    def _checked(self, setpoints: Array) -> Array:
        """Return setpoints as an array, or say what is wrong with them."""
        setpoints = np.asarray(setpoints, dtype=float)
        shape = (len(self.segment_times), 3, self._dof)
        if setpoints.shape != shape or not np.isfinite(setpoints).all():
            raise TaskError(f"setpoints must be {shape} finite values, got {setpoints.shape}")
        return setpoints

    def _run(self, wanted: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Track setpoints (n_ticks, 3, dof) and collect the rewards of k control steps."""
        self._require_running()
        omega, measured, command = self._omega, self._measured, self._command
        setpoints = self._limit(wanted)
        missing = self._shortfall(wanted, setpoints)
        # Within a tick the acceleration is what joins one yd to the next.
        accelerations = np.diff(setpoints[:, 1], axis=0, prepend=self._yd[None]) / self.tick
        # The position and velocity that hold during each tick are those at its start.
        y = np.concatenate((self._y[None], setpoints[:-1, 0]))
        yd = np.concatenate((self._yd[None], setpoints[:-1, 1]))

        def track(i: int) -> None:
            omega(y[i], yd[i], accelerations[i], measured, command)

        return self._advance(track, setpoints, lambda j: float(missing[j]))

    def _advance(
        self, fill: Callable[[int], None], setpoints: Array, missing: Callable[[int], float]
    ) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Run k control steps under the commands that ``fill`` makes at each tick.

        Args:
            fill: Given a tick, fills the command from the measured state.
            setpoints: (n_ticks, 3, dof), of which each tick's must be there after its ``fill``.
            missing: Given a control step that has been run, the share of the velocity limits
                by which it was off what was wanted.
        """
        robot, measured, track = self.robot, self._measured, self._track
        rewards = np.zeros(self.k)
        i = 0
        for j in range(self.k):
            self._saturated_before = self._omega.saturated
            for _ in range(self._ticks):
                fill(i)
                robot.write(self._command)
                robot.step(self.tick)
                robot.read(measured)
                track[0, i], track[1, i] = measured.position, measured.velocity
                self._watch()
                self._see(i)
                i += 1
            self._missing = missing(j)
            rewards[j] = self._reward(first=j == 0)
        return self._finish(rewards, setpoints, track)

    def _see(self, i: int) -> None:
        """Keep the objects as they are after tick i, if an observation may need them."""
        if i + 1 + self._past.depth >= len(self.segment_times):
            self._past.see(self.robot.data.xpos[self._bodies])

    def _require_running(self) -> None:
        """Refuse to go on with an episode that is over."""
        if self._windows_left <= 0:
            raise TaskError("the episode is over: call reset() before step()")

    def _shortfall(self, wanted: Array, setpoints: Array) -> Array:
        """Return by what share of the velocity limits each control step (k,) falls short."""
        n = self._n
        missing = np.abs(wanted[:, 1, :n] - setpoints[:, 1, :n]) / self._limits.max_velocity[:n]
        shares: Array = missing.max(axis=1).reshape(self.k, -1).mean(axis=1)
        return shares

    def _finish(
        self, rewards: Array, setpoints: Array, track: Array
    ) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Close a segment whose ticks have been run.

        Args:
            rewards: (k,).
            setpoints: What was tracked (n_ticks, 3, dof).
            track: Measured positions and velocities (2, n_ticks, dof).
        """
        n, omega = self._n, self._omega
        error = track[0, :, :n] - setpoints[:, 0, :n]
        self._squared_error += float(np.vdot(error, error))
        self._n_errors += error.size
        self._max_speed = max(self._max_speed, float(np.abs(track[1, :, :n]).max()))
        self._y, self._yd = setpoints[-1, 0].copy(), setpoints[-1, 1].copy()
        self._windows_left -= 1
        self._past.add(track, setpoints)
        if self._over():
            self._windows_left = 0
        over = self._windows_left == 0
        info: dict[str, Any] = {"rewards": rewards}
        if over:
            rewards[-1] += self._final_reward()
            summary = self._summary()
            if "success" not in summary:
                raise TaskError(
                    f"{type(self).__name__}._summary() has {list(summary)}: success must be in it"
                )
            info["outcome"] = {
                "saturation": omega.saturated / max(1, omega.ticks),
                "max_joint_speed": self._max_speed,
                "tracking_rms": float(np.sqrt(self._squared_error / max(1, self._n_errors))),
                **summary,
            }
        # The horizon is part of the task: a throw must be over by then.
        return self._past.observe(), float(rewards.sum()), over, False, info

    def _limit(self, wanted: Array) -> Array:
        """Return setpoints (n_ticks, 3, dof) as near to the wanted ones as the limits allow."""
        current = self._current
        current[0], current[1] = self._y, self._yd
        setpoints = np.empty_like(wanted)
        for i, setpoint in enumerate(wanted):
            self._limiter.follow(current, setpoint)
            setpoints[i] = current
        return setpoints
