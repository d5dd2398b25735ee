"""Meta-World's 50 tasks and MT50 for policies that act in segments of k control steps.

The state y of the dynamical system is the setpoint of the Sawyer's end effector and
its grip, Ω is the identity (section 4 of the paper), and a control step is one step of
the benchmark, 12.5 ms.

**From way points to native actions.** The benchmark's action is a displacement of the
mocap body that drags the hand, at most 0.01 m an axis and step, and an effort of the
fingers in [-1, 1] (-1 opens). The setpoint is therefore
``y = (x, y, z of the mocap body, grip)`` and ``action_scale`` 0.01 on all four: one
action unit is one native unit. ``grip`` is the effort times 0.05, so that all
coordinates have the same scale and one goal gain fits them; from open to closed takes
ten control steps of one unit, a little less than the fingers need.

The way points of a segment are y0 plus the running sum of its displacements, held to
the workspace. The setpoint goes to each of them as far as one unit a control step
allows and catches up within the segment; what is left at its end is dropped. With
displacements up to one unit the native action *is* the action, bit for bit, so that
``k = 1`` is the benchmark itself. NDP, PPO and PPO-multi, ``step`` and ``execute`` all
take this path.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from ndp_ros.errors import TaskError
from ndp_ros.observation import ObservationField, assemble, observation_size
from ndp_ros.tasks.camera import Camera
from ndp_ros.tasks.contract import OneOfAKind, check_options, pictures_per_second
from ndp_ros.tasks.metaworld_config import MetaWorldConfig
from ndp_ros.tasks.metaworld_registry import MT50, TASKS
from ndp_ros.tasks.options import with_options

if TYPE_CHECKING:
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

Array = NDArray[np.float64]

CONTROL_DT = 0.0125

STEP = 0.01  # [m], displacement of one native unit
GRIP = 0.05  # grip coordinate at full effort
_N_ARM = 7


class MetaWorld(OneOfAKind, gymnasium.Env[Array, Array]):
    """``ndp_ros/Push-v0``, ``ndp_ros/Faucet-Open-v0``, ... and ``ndp_ros/MT50-v0``.

    Success is the benchmark's: its flag, set at any control step of an episode of 500.
    ``info["outcome"]`` adds ``success_at_end``, ``success_time`` [s] (infinite if
    never), ``task_index`` (in ``TASKS``) and ``reward_version``; ``tracking_rms`` is
    that of the hand behind the setpoint [m], ``saturation`` the share of displacements
    over one unit.

    Attributes:
        fields: What the observation holds: ``setpoint`` and ``setpoint_velocity`` (4),
            ``world`` (39), the benchmark's own observation, and for MT50 ``task`` (50),
            the one-hot.
        joint_names: Coordinates of the setpoint.
        action_scale: Displacement (4,) of one action unit over a control step.
        control_dt: Control step [s].
        k: Control steps per ``step``.
        tick: Period of the setpoints given to :meth:`execute`: a control step [s].
        segment_times: When those setpoints are due, from the segment's start (k,) [s].
        arm: Name of the arm.
        task: Name of the task, or ``mt50``.
        config: What the benchmark leaves open.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    arm = "sawyer"
    joint_names = ("x", "y", "z", "grip")
    control_dt = tick = CONTROL_DT

    def __init__(
        self,
        task: str = "push",
        preset: str = "default",
        k: int = 5,
        render_mode: str | None = None,
        config: MetaWorldConfig | None = None,
        camera: str = "corner2",
        size: tuple[int, int] = (640, 480),
        **changes: Any,
    ) -> None:
        """Build the task.

        Args:
            task: A name of ``TASKS``, or ``mt50``.
            preset: ``default``, ``paper`` or ``evaluation``; unused if config is given.
            k: Control steps per ``step``; an episode ends with the last whole segment.
            render_mode: ``"rgb_array"`` or None.
            config: A whole configuration.
            camera: Camera of the benchmark's scenes for pictures.
            size: Width and height of pictures [px].
            **changes: Single parameters of :class:`MetaWorldConfig`.

        Raises:
            TaskError: If something is not among what is allowed, or Meta-World is not
                installed.
        """
        if task not in (*TASKS, MT50):
            raise TaskError.choice("task", task, (*TASKS, MT50))
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise TaskError.choice("render_mode", render_mode, self.metadata["render_modes"])
        self.config = with_options(config or MetaWorldConfig.preset(preset), changes)
        try:
            from ndp_ros.tasks import metaworld_scene
        except ImportError as error:
            raise TaskError(
                f"task {task} needs Meta-World ({error}): pip install 'ndp_ros[metaworld]'"
            ) from error
        self._scene = metaworld_scene
        if k != int(k) or not 1 <= k <= self.config.horizon:
            raise TaskError(f"k is {k!r}: allowed is 1 to {self.config.horizon}")
        self.task, self.k = task, int(k)
        self.render_mode, self._camera = render_mode, Camera(camera, size)
        self.metadata = {**self.metadata, "render_fps": pictures_per_second(k * CONTROL_DT)}
        self._names = TASKS if task == MT50 else (task,)
        self.action_scale = np.full(4, STEP)
        self.segment_times = self.tick * np.arange(1, self.k + 1)
        fields = [ObservationField("setpoint", 4), ObservationField("setpoint_velocity", 4)]
        fields.append(ObservationField("world", 39))
        if task == MT50:
            fields.append(ObservationField("task", len(TASKS)))
        self.fields = tuple(fields)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.k, 4), np.float64)
        n_obs = observation_size(self.fields)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (n_obs,), np.float64)

        self._windows_left = 0
        self._y, self._yd = np.zeros(4), np.zeros(4)
        self._native = np.zeros(4, np.float32)
        self._sim: SawyerXYZEnv | None = None
        self._playing = ""
        metaworld_scene.POOL.join()
        self._open = True
        model = self._play(self._names[0]).model
        cameras = [model.camera(i).name for i in range(model.ncam)]
        if camera not in cameras:
            self.close()
            raise TaskError.choice("camera", camera, cameras)

    # Gymnasium.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Decides the episode's start alone. MT50 plays task ``seed % 50``; with
                the benchmark's goals consecutive seeds go through all of them.
            options: ``task`` (name) and ``goal`` (index of the benchmark's goals) to play.

        Raises:
            TaskError: If there is no such task or goal.
        """
        super().reset(seed=seed)
        check_options(options, ("task", "goal"))
        options = options or {}
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        name = options.get("task", self._names[number % len(self._names)])
        if name not in self._names:
            raise TaskError.choice("task", name, self._names)
        goal = options.get("goal")
        n_goals = self._scene.N_GOALS
        if goal is None and self.config.goals == "benchmark":
            goal = number // len(self._names) % n_goals
        if goal is not None and not (isinstance(goal, int | np.integer) and 0 <= goal < n_goals):
            raise TaskError(f"goal is {goal!r}: allowed is 0 to {n_goals - 1}")

        sim = self._play(name)
        if goal is None:
            self._obs = self._scene.draw_goal(sim, self.np_random)
        else:
            goals = self._scene.benchmark_goals(name, self.config.goal_seed)
            self._obs = self._scene.set_goal(sim, goals[goal])
        self._y[:3], self._y[3] = sim.data.mocap_pos[0], -GRIP
        self._yd[:] = 0.0
        self._windows_left = self.config.horizon // self.k
        self._steps, self._success_step, self._success_now = 0, -1, False
        self._saturated, self._max_speed, self._squared_error = 0, 0.0, 0.0
        return self._observe(), {"task": name}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Run k control steps through the way points of an action.

        Args:
            action: (k, 4) displacements of the setpoint in units of ``action_scale``.

        Returns:
            Observation, sum of the k rewards, terminated, truncated, info;
            ``info["rewards"]`` (k,) are the rewards of the control steps,
            ``info["success"]`` whether the episode has succeeded.

        Raises:
            TaskError: If the action has another shape or is not finite.
        """
        action = np.asarray(action, dtype=float)
        if action.shape != (self.k, 4) or not np.isfinite(action).all():
            raise TaskError(f"action must be {(self.k, 4)} finite values, got {action.shape}")
        return self._run(action, None)

    def execute(self, setpoints: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Run k control steps along given setpoints, such as those of an NDP's segment.

        Args:
            setpoints: (k, 3, 4): y, yd, ydd due at ``segment_times``. The positions are
                the way points; the last velocity is where the next segment starts from.

        Returns:
            As :meth:`step`.

        Raises:
            TaskError: If the setpoints have another shape or are not finite.
        """
        setpoints = np.asarray(setpoints, dtype=float)
        if setpoints.shape != (self.k, 3, 4) or not np.isfinite(setpoints).all():
            raise TaskError(
                f"setpoints must be {(self.k, 3, 4)} finite values, got {setpoints.shape}"
            )
        steps = np.diff(setpoints[:, 0], axis=0, prepend=self._y[None])
        return self._run(steps / self.action_scale, setpoints[-1, 1])

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Return a picture (height, width, 3), or None without a render mode.

        Raises:
            TaskError: If this machine cannot draw.
        """
        if self.render_mode is None or self._sim is None:
            return None
        model, data = self._sim.model, self._sim.data
        # a reward may have been looking at a stale world; these leave the dynamics alone
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        picture = self._camera.picture(model, data)
        up = data.camera(self._camera.name).xmat[7]
        return picture if up > 0 else picture[::-1, ::-1]  # the corner cameras hang head down

    def close(self) -> None:
        """Release the simulation; may be called twice."""
        self._let_go()
        if self._open:
            self._open = False
            self._scene.POOL.leave()

    # The loop.

    def _run(
        self, units: Array, velocity: Array | None
    ) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Run k control steps.

        Args:
            units: (k, 4) displacements from way point to way point, in action units.
            velocity: (4,) of the setpoint at the last way point; None to take it from
                the displacements.
        """
        if self._windows_left <= 0 or self._sim is None:
            raise TaskError("the episode is over: call reset() before step()")
        sim, native, world = self._sim, self._native, self._world
        stale = self.config.stale
        rewards, path = np.zeros(self.k), [self._y.tolist()]
        late = [0.0] * 4
        for j, wanted in enumerate(units.tolist()):
            # on single numbers, which numpy would take ten times as long for
            grip, y = 0.0, path[-1]
            for i, (low, high) in enumerate(self._bounds):
                unit = wanted[i] + late[i]
                move = min(max(unit, -1.0), 1.0)
                free = y[i] + move * STEP
                grip = held = min(max(free, low), high)
                late[i] = unit - move if held == free else unit - (held - y[i]) / STEP
                self._saturated += move != unit
                native[i] = move
            native[3] = grip / GRIP
            obs, reward, _, _, flags = sim.step(native)
            at = self._mocap.tolist()
            path.append([*at, grip])
            self._steps += 1
            self._success_now = bool(flags["success"])
            if self._success_now and self._success_step < 0:
                self._success_step = self._steps
            if stale and j > 0:
                with world.shown(obs) as remembered:
                    reward, _ = sim.evaluate_state(remembered, native)
            elif stale and self.k > 1:
                world.keep(obs)
            rewards[j] = reward
            self._squared_error += math.dist(self._hand.tolist(), at) ** 2
            self._max_speed = max(self._max_speed, *map(abs, self._speeds.tolist()))
        self._obs = obs
        self._y[:] = path[-1]
        self._yd = self._end_velocity(np.diff(np.array(path), axis=0), velocity)
        self._windows_left -= 1
        succeeded = self._success_step >= 0
        terminated = succeeded and self.config.stop_on_success
        truncated = self._windows_left == 0 and not terminated
        info: dict[str, Any] = {"rewards": rewards, "success": succeeded}
        if terminated or truncated:
            self._windows_left = 0
            info["outcome"] = self._summary()
        return self._observe(), float(rewards.sum()), terminated, truncated, info

    def _end_velocity(self, steps: Array, velocity: Array | None) -> Array:
        """Return the setpoint's velocity (4,) at the end of a segment, inside the limits.

        Args:
            steps: (k, 4) displacements that were executed.
            velocity: (4,) that was asked for; None to extrapolate from the steps.
        """
        if velocity is None:
            end = steps[-1] if self.k == 1 else 1.5 * steps[-1] - 0.5 * steps[-2]
            velocity = end / CONTROL_DT
        limit = self.action_scale / CONTROL_DT
        yd = np.clip(velocity, -limit, limit)
        yd[((self._y >= self._high) & (yd > 0)) | ((self._y <= self._low) & (yd < 0))] = 0.0
        return yd

    def _summary(self) -> dict[str, Any]:
        succeeded = self._success_step >= 0
        return {
            "success": succeeded,
            "success_at_end": self._success_now,
            "success_time": self._success_step * CONTROL_DT if succeeded else math.inf,
            "saturation": self._saturated / (4 * self._steps),
            "max_joint_speed": self._max_speed,
            "tracking_rms": math.sqrt(self._squared_error / self._steps),
            "task_index": TASKS.index(self._playing),
            "reward_version": int(self.config.reward[1:]),
        }

    def _observe(self) -> Array:
        values = {"setpoint": self._y, "setpoint_velocity": self._yd, "world": self._obs}
        if self.task == MT50:
            values["task"] = self._one_hot
        return assemble(self.fields, values)

    # Which simulation.

    def _play(self, name: str) -> SawyerXYZEnv:
        """Return the simulation of a task, from now on this environment's."""
        if self._sim is not None and name == self._playing:
            return self._sim
        self._let_go()
        self._sim = self._scene.POOL.take(name, self.config.reward)
        self._playing = name
        self._world = self._scene.WorldMemory(self._sim)
        self._low = np.append(self._sim.mocap_low, -GRIP)
        self._high = np.append(self._sim.mocap_high, GRIP)
        self._bounds = list(zip(self._low.tolist(), self._high.tolist(), strict=True))
        data = self._sim.data
        self._mocap, self._hand = data.mocap_pos[0], data.body("hand").xpos
        self._speeds = data.qvel[:_N_ARM]
        self._one_hot = np.zeros(len(TASKS))
        self._one_hot[TASKS.index(name)] = 1.0
        return self._sim

    def _let_go(self) -> None:
        self._camera.close()
        if self._sim is not None:
            self._scene.POOL.give(self._playing, self.config.reward, self._sim)
            self._sim = None
