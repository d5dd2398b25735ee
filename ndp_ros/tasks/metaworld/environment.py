# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Meta-World's 50 tasks and MT50 for policies that act in segments of k control steps.

The state y of the dynamical system is the setpoint of the Sawyer's end effector and its grip,
Ω is the identity (section 4 of the paper), and a control step is one step of the benchmark,
12.5 ms.

**From way points to native actions.** The benchmark's action is a displacement of the mocap body
that drags the hand, at most 0.01 m per axis and step, and an effort of the fingers in [-1, 1]
(-1 opens). The setpoint is therefore ``y = (x, y, z of the mocap body, grip)`` and
``action_scale`` 0.01 on all four: one action unit is one native unit. ``grip`` is the effort times
0.05, so that all coordinates have the same scale and one goal gain fits them; from open to closed
takes ten control steps of one unit, a little less than the fingers need.

The way points of a segment are y0 plus the running sum of its displacements, held to the
workspace. The setpoint moves towards each of them by at most one unit per control step and catches
up within the segment; a rest at its end is dropped. With displacements up to one unit the native
action *is* the action, bit for bit, so that ``k = 1`` is the benchmark itself. NDP, PPO and
PPO-multi, ``step`` and ``execute`` all take this path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from ndp_ros.control.arm import SimulatedArm
from ndp_ros.control.omega import Identity, Omega
from ndp_ros.errors import TaskError
from ndp_ros.observation import ObservationField, assemble, observation_size
from ndp_ros.tasks.camera import Camera
from ndp_ros.tasks.config import with_options
from ndp_ros.tasks.contract import (
    Array,
    Judge,
    Step,
    Uncopyable,
    check_options,
    finite_array,
    frame_rate,
)
from ndp_ros.tasks.metaworld.config import MetaWorldConfig
from ndp_ros.tasks.metaworld.hosted import OUTCOME, SawyerArm, SawyerJudge
from ndp_ros.tasks.metaworld.impedance import SawyerImpedance
from ndp_ros.tasks.metaworld.registry import MT50, TASKS

if TYPE_CHECKING:
    from ndp_ros.tasks.metaworld.scene import Simulation

CONTROL_DT = 0.0125
"""Control step of the benchmark [s]."""
STEP = 0.01
"""Displacement of one native unit [m]."""
GRIP = 0.05
"""Grip coordinate at full effort."""


class MetaWorld(Uncopyable, gymnasium.Env[Array, Array]):
    """``ndp_ros/Push-v0``, ``ndp_ros/Faucet-Open-v0``, ... and ``ndp_ros/MT50-v0``.

    Success is the benchmark's: its flag, set at any control step of an episode of 500.
    ``info["outcome"]`` adds ``success_at_end``, ``success_time`` [s] (infinite if
    never), ``task_index`` (in ``TASKS``) and ``reward_version``; ``tracking_rms`` is
    that of the hand behind the setpoint [m], ``saturation`` the share of displacements
    over one unit.

    The observation has the fields ``setpoint`` and ``setpoint_velocity`` (4), ``world`` (39), the
    benchmark's own observation, and for MT50 ``task`` (50), a one-hot. A tick is a control step.

    Attributes beside those of :class:`TaskEnvironment`:
        task: Name of the task, or ``mt50``.
        config: Choices that the benchmark leaves open.
        simulation: The simulation that is played; None once the task is closed.
        bounds: Lowest and highest value of each coordinate of the setpoint.
        impedance_wrapper: Class that drives the task by variable impedance.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    arm = "sawyer"
    joint_names = ("x", "y", "z", "grip")
    control_dt = tick = CONTROL_DT
    impedance_wrapper = SawyerImpedance
    objects: tuple[str, ...] = ()
    units: Mapping[str, str] = {"success_time": "s"}
    arm_file, command_mode = arm, "position"

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
            TaskError: If an argument is not among the allowed ones, or Meta-World is not
                installed.
        """
        if task not in (*TASKS, MT50):
            raise TaskError.choice("task", task, (*TASKS, MT50))
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise TaskError.choice("render_mode", render_mode, self.metadata["render_modes"])
        self.config = with_options(config or MetaWorldConfig.preset(preset), changes)
        if k != int(k) or not 1 <= k <= self.config.horizon:
            raise TaskError(f"k is {k!r}: allowed is 1 to {self.config.horizon}")
        self.task, self.k = task, int(k)
        self.segment_times = self.tick * np.arange(1, self.k + 1)
        self.render_mode, self._camera = render_mode, Camera(camera, size)
        self.metadata = {**self.metadata, "render_fps": frame_rate(k * CONTROL_DT)}
        self._names = TASKS if task == MT50 else (task,)
        self._define_spaces()
        self._segments_left = 0
        self._y, self._yd = np.zeros(4), np.zeros(4)
        self._native = np.zeros(4, np.float32)
        self.on_tick: Callable[[], None] | None = None
        try:
            from ndp_ros.tasks.metaworld import scene  # needs the benchmark, an optional package
        except ImportError as error:
            raise TaskError(
                f"task {task} needs Meta-World ({error}): pip install 'ndp_ros[metaworld]'"
            ) from error
        self._scene = scene
        self.simulation: Simulation | None = None
        scene.POOL.join()
        self._open = True
        model = self._play(self._names[0]).sim.model
        cameras = [model.camera(i).name for i in range(model.ncam)]
        if camera not in cameras:
            self.close()
            raise TaskError.choice("camera", camera, cameras)

    def _define_spaces(self) -> None:
        """Define the actions and observations."""
        sizes = {"setpoint": 4, "setpoint_velocity": 4, "world": 39}
        if self.task == MT50:
            sizes["task"] = len(TASKS)
        self.fields = tuple(ObservationField(name, size) for name, size in sizes.items())
        self.action_scale = np.full(4, STEP)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.k, 4), np.float64)
        n_obs = observation_size(self.fields)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (n_obs,), np.float64)

    # Gymnasium.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Determines the start of the episode. MT50 plays task ``seed % 50``; with
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

        sim = self._play(name).sim
        if goal is None:
            self._obs = self._scene.draw_goal(sim, self.np_random)
        else:
            goals = self._scene.benchmark_goals(name, self.config.goal_seed)
            self._obs = self._scene.set_goal(sim, goals[goal])
        self._y[:3], self._y[3] = sim.data.mocap_pos[0], -GRIP
        self._yd[:] = 0.0
        self._segments_left = self.config.horizon // self.k
        self._steps, self._success_step, self._success_now = 0, -1, False
        self._saturated, self._max_speed, self._squared_error = 0, 0.0, 0.0
        return self._observe(), {"task": name}

    def step(self, action: Array) -> Step:
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
        return self._run(finite_array("action", action, (self.k, 4)), None)

    def execute(self, setpoints: Array) -> Step:
        """Run k control steps along given setpoints, such as those of an NDP's segment.

        Args:
            setpoints: (k, 3, 4): y, yd, ydd due at ``segment_times``. The positions are
                the way points; the next segment starts with the last velocity.

        Returns:
            As :meth:`step`.

        Raises:
            TaskError: If the setpoints have another shape or are not finite.
        """
        setpoints = finite_array("setpoints", setpoints, (self.k, 3, 4))
        steps = np.diff(setpoints[:, 0], axis=0, prepend=self._y[None])
        return self._run(steps / self.action_scale, setpoints[-1, 1])

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Return a picture (height, width, 3), or None without a render mode.

        Raises:
            TaskError: If this machine cannot draw.
        """
        if self.render_mode is None or self.simulation is None:
            return None
        model, data = self.simulation.sim.model, self.simulation.sim.data
        # A reward may have been computed in a stale world. These calls update the poses and leave
        # the dynamics unchanged.
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        picture = self._camera.picture(model, data)
        up = data.camera(self._camera.name).xmat[7]
        return picture if up > 0 else picture[::-1, ::-1]  # the corner cameras are upside down

    def close(self) -> None:
        """Release the simulation; may be called twice."""
        self._let_go()
        if self._open:
            self._open = False
            self._scene.POOL.leave()

    # The task under ROS.

    @property
    def duration(self) -> float:
        """Return the length of the longest episode [s]."""
        return self.config.horizon // self.k * self.k * CONTROL_DT

    @property
    def signals(self) -> dict[str, int]:
        """Return the further values of the simulated arm: their number by name."""
        sizes = {f.name: f.size for f in self.fields if f.name in ("world", "task")}
        return sizes | {OUTCOME: 2}

    def simulated(self, rate: float) -> tuple[SimulatedArm, Omega]:
        """Return the arm, which takes this task over, and its Ω; every rate [Hz] will do."""
        return SawyerArm(self), Identity()

    def judge(self) -> Judge:
        """Return a judge, which takes this task over."""
        return SawyerJudge(self)

    # The loop.

    def _run(self, units: Array, velocity: Array | None) -> Step:
        """Run k control steps along displacements (k, 4) between way points, in action units.

        ``velocity`` (4,) is the setpoint's at the last way point, taken from the displacements if
        None.
        """
        if self._segments_left <= 0 or self.simulation is None:
            raise TaskError("the episode is over: call reset() before step()")
        played, native = self.simulation, self._native
        stale = self.config.stale
        rewards, path = np.zeros(self.k), [self._y.tolist()]
        late = [0.0] * 4
        for j, wanted in enumerate(units.tolist()):
            # On single numbers, for which numpy would take ten times as long.
            grip, y = 0.0, path[-1]
            for i, (low, high) in enumerate(self.bounds):
                unit = wanted[i] + late[i]
                move = min(max(unit, -1.0), 1.0)
                free = y[i] + move * STEP
                grip = held = min(max(free, low), high)
                late[i] = unit - move if held == free else unit - (held - y[i]) / STEP
                self._saturated += move != unit
                native[i] = move
            native[3] = grip / GRIP
            obs, reward, _, _, flags = played.sim.step(native)
            at = played.mocap.tolist()
            path.append([*at, grip])
            self._steps += 1
            self._success_now = bool(flags["success"])
            if self._success_now and self._success_step < 0:
                self._success_step = self._steps
            if stale and j > 0:
                with played.world.shown(obs) as remembered:
                    reward, _ = played.sim.evaluate_state(remembered, native)
            elif stale and self.k > 1:
                played.world.keep(obs)
            rewards[j] = reward
            self._squared_error += math.dist(played.hand.tolist(), at) ** 2
            self._max_speed = max(self._max_speed, *map(abs, played.speeds.tolist()))
            if self.on_tick is not None:
                self.on_tick()
        self._obs = obs
        self._y[:] = path[-1]
        self._yd = self._end_velocity(np.diff(np.array(path), axis=0), velocity)
        self._segments_left -= 1
        succeeded = self._success_step >= 0
        terminated = succeeded and self.config.stop_on_success
        truncated = self._segments_left == 0 and not terminated
        info: dict[str, Any] = {"rewards": rewards, "success": succeeded}
        if terminated or truncated:
            self._segments_left = 0
            info["outcome"] = self._outcome(played.task)
        return self._observe(), float(rewards.sum()), terminated, truncated, info

    def _end_velocity(self, steps: Array, velocity: Array | None) -> Array:
        """Return the setpoint's velocity (4,) at the end of a segment, inside the limits.

        It is the one that was asked for or, if None, extrapolated from the executed steps (k, 4).
        """
        if velocity is None:
            end = steps[-1] if self.k == 1 else 1.5 * steps[-1] - 0.5 * steps[-2]
            velocity = end / CONTROL_DT
        limit = self.action_scale / CONTROL_DT
        yd = np.clip(velocity, -limit, limit)
        low, high = np.array(self.bounds).T
        yd[((self._y >= high) & (yd > 0)) | ((self._y <= low) & (yd < 0))] = 0.0
        return yd

    def _outcome(self, task: str) -> dict[str, Any]:
        """Return the figures of an episode of a task."""
        succeeded = self._success_step >= 0
        return {
            "success": succeeded,
            "success_at_end": self._success_now,
            "success_time": self._success_step * CONTROL_DT if succeeded else math.inf,
            "saturation": self._saturated / (4 * self._steps),
            "max_joint_speed": self._max_speed,
            "tracking_rms": math.sqrt(self._squared_error / self._steps),
            "task_index": TASKS.index(task),
            "reward_version": int(self.config.reward[1:]),
        }

    def _observe(self) -> Array:
        """Return the observation (n_obs,)."""
        values = {"setpoint": self._y, "setpoint_velocity": self._yd, "world": self._obs}
        if self.task == MT50:
            values["task"] = self._one_hot
        return assemble(self.fields, values)

    # The simulation.

    def _play(self, name: str) -> Simulation:
        """Return the simulation of a task, which this environment plays from now on."""
        if self.simulation is not None and name == self.simulation.task:
            return self.simulation
        self._let_go()
        self.simulation = played = self._scene.POOL.take(name, self.config.reward)
        low, high = played.sim.mocap_low.tolist(), played.sim.mocap_high.tolist()
        self.bounds = [*zip(low, high, strict=True), (-GRIP, GRIP)]
        self._one_hot = np.zeros(len(TASKS))
        self._one_hot[TASKS.index(name)] = 1.0
        return played

    def _let_go(self) -> None:
        """Give the simulation back."""
        self._camera.close()
        if self.simulation is not None:
            self._scene.POOL.give(self.simulation, self.config.reward)
            self.simulation = None
