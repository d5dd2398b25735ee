# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Segments as the actions of any gymnasium environment.

:class:`NdpWrapper` makes an environment a task of this package: ``step`` takes k displacements of a
setpoint, ``execute`` the setpoints of a segment, and a tracker turns each setpoint into the
environment's own action. The setpoint is that of the joints where they are known (MuJoCo), and the
environment's action itself otherwise.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np

from ndp_ros.errors import TaskError
from ndp_ros.observation import ObservationField, assemble, observation_size
from ndp_ros.tasks.contract import Array, Step, Uncopyable, finite_array, frame_rate
from ndp_ros.tasks.spaces import fields_of, values_of

CONTROLS = ("auto", "torque", "position", "action")
"""Ways from a setpoint to an action: computed torque, a servo's target, or the action itself."""

_STIFFNESS = 0.3
"""Natural frequency of the tracker times the control step: a higher one would overshoot."""
_SPEED = 5.0
"""Displacement of an action unit in a second: joints [rad/s], or half the range of an action."""
_CONTROL_DT = 0.05
"""Control step of an environment that has no time [s]."""


class NdpWrapper(
    Uncopyable,
    gymnasium.Wrapper[Array, Array, Any, Any],
    gymnasium.utils.RecordConstructorArgs,
):
    """A task made of any environment with a ``Box`` of actions and observations that are numbers.

    Observations are vectors: ``setpoint`` and ``setpoint_velocity``, then the environment's own,
    flattened; entries of a dictionary are fields of their own, and images are fields that know
    their shape (:mod:`ndp_ros.tasks.spaces`). An episode ends as the environment
    says, and ``info["outcome"]`` then has ``success``: the environment's flag (``success`` or
    ``is_success``), set at any control step, or a return of at least ``success_return``, by default
    the ``reward_threshold`` under which the environment is registered. Where joints are driven it
    also has ``saturation`` (part of the commands at a limit), ``max_joint_speed`` [rad/s] and
    ``tracking_rms`` [rad].

    Attributes: those of :class:`ndp_ros.tasks.contract.TaskEnvironment`, and
        control: Way from a setpoint to an action, a name of ``CONTROLS``.

    Example:
        >>> import gymnasium
        >>> env = NdpWrapper(gymnasium.make("Reacher-v5"), k=5)
        >>> observation, info = env.reset(seed=0)
        >>> env.control, env.action_space.shape, observation.shape
        ('torque', (5, 2), (14,))
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        k: int = 5,
        control: str = "auto",
        speed: float = _SPEED,
        success_return: float | None = None,
    ) -> None:
        """Find out how the environment is driven.

        Args:
            env: The environment, with its time limit.
            k: Control steps, which are steps of the environment, per ``step``.
            control: A name of ``CONTROLS``; ``auto`` is torque or position for MuJoCo's motors or
                servos of joints, and action otherwise.
            speed: Displacement of an action unit in a second: of joints [rad/s], or in half the
                range of the environment's actions.
            success_return: Return from which on an episode counts as a success; None for the
                environment's ``reward_threshold``, if it has one.

        Raises:
            TaskError: If actions or observations are of another kind, or an argument is not
                allowed.
        """
        gymnasium.utils.RecordConstructorArgs.__init__(
            self, k=k, control=control, speed=speed, success_return=success_return
        )
        gymnasium.Wrapper.__init__(self, env)
        if k != int(k) or not 1 <= k <= 1000:
            raise TaskError(f"k is {k!r}: allowed is 1 to 1000")
        if control not in CONTROLS:
            raise TaskError.choice("control", control, CONTROLS)
        if not (math.isfinite(speed) and speed > 0.0):
            raise TaskError(f"speed is {speed!r}, expected a positive number")
        box = env.action_space
        if not (isinstance(box, gymnasium.spaces.Box) and len(box.shape) == 1):
            raise TaskError(f"actions are {box}: segments drive a Box with one axis")
        self.k, self._box = int(k), box
        known = env.spec.reward_threshold if env.spec is not None else None
        self._success_return = known if success_return is None else success_return
        base: Any = env.unwrapped
        self.control_dt = self.tick = float(getattr(base, "dt", _CONTROL_DT))
        self.segment_times = self.tick * np.arange(1, self.k + 1)
        self.metadata = {**env.metadata, "render_fps": frame_rate(self.k * self.control_dt)}
        joints = _Joints.of(base, box.shape[0])
        found = joints.kind if joints is not None else "action"
        self.control = found if control == "auto" else control
        if self.control != "action" and joints is None:
            raise TaskError(f"control is {control!r}, but the joints of {env} are not known")
        self._joints = joints if self.control != "action" else None
        self._define_spaces(speed)
        self.arm = env.spec.id if env.spec is not None else type(base).__name__
        self._y, self._yd = np.zeros((2, len(self.joint_names)))
        self._obs: Any = None
        self._over = True

    def _define_spaces(self, speed: float) -> None:
        box = self._box
        if self._joints is not None:
            self.joint_names = self._joints.names
            self._low, self._high = self._joints.low, self._joints.high
            unit = np.full(len(self.joint_names), speed)
        else:
            if not box.is_bounded():
                raise TaskError(f"actions are {box}: an action as setpoint needs bounds")
            self.joint_names = tuple(f"action_{i}" for i in range(box.shape[0]))
            self._low, self._high = box.low.astype(np.float64), box.high.astype(np.float64)
            unit = speed * 0.5 * (self._high - self._low)
        self.action_scale = unit * self.control_dt
        dof = len(self.joint_names)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.k, dof), np.float64)
        self.fields = (
            ObservationField("setpoint", dof),
            ObservationField("setpoint_velocity", dof),
            *fields_of(self.env.observation_space),
        )
        n_obs = observation_size(self.fields)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (n_obs,), np.float64)

    # Gymnasium.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start an episode; the setpoint starts where the joints are."""
        self._obs, info = self.env.reset(seed=seed, options=options)
        start = self._joints.position if self._joints else 0.5 * (self._low + self._high)
        self._y, self._yd = np.clip(start, self._low, self._high), np.zeros(len(start))
        self._over, self._succeeded, self._return = False, False, 0.0
        self._steps, self._saturated, self._squared_error, self._max_speed = 0, 0, 0.0, 0.0
        return self._observe(), info

    def step(self, action: Array) -> Step:
        """Run k control steps along displacements (k, dof) in units of ``action_scale``.

        Displacements of more than one unit are clipped.

        Returns:
            Observation, sum of the k rewards, terminated, truncated, info; ``info["rewards"]``
            (k,) are the rewards of the control steps, zero after the end of the episode.

        Raises:
            TaskError: If the action has another shape or is not finite.
        """
        action = finite_array("action", action, (self.k, len(self.joint_names)))
        steps = np.clip(action, -1.0, 1.0) * self.action_scale
        y = self._y + np.cumsum(steps, axis=0)
        yd = steps / self.control_dt
        if self.k > 1:
            yd[-1] = (1.5 * steps[-1] - 0.5 * steps[-2]) / self.control_dt
        return self._run(np.stack((y, yd, np.zeros_like(y)), axis=1))

    def execute(self, setpoints: Array) -> Step:
        """Run k control steps along setpoints (k, 3, dof): y, yd, ydd due at ``segment_times``.

        Raises:
            TaskError: If the setpoints have another shape or are not finite.
        """
        return self._run(
            finite_array("setpoints", setpoints, (self.k, 3, len(self.joint_names))).copy()
        )

    def _run(self, setpoints: Array) -> Step:
        if self._over:
            raise TaskError("the episode is over: call reset() before step()")
        np.clip(setpoints[:, 0], self._low, self._high, out=setpoints[:, 0])
        rewards, terminated, truncated = np.zeros(self.k), False, False
        info: dict[str, Any] = {}
        for j, (y, yd, ydd) in enumerate(setpoints):
            wanted = y if self._joints is None else self._command(self._joints, y, yd, ydd)
            native = np.clip(wanted, self._box.low, self._box.high)
            self._saturated += int((native != wanted).sum())
            made = self.env.step(native.astype(self._box.dtype))
            self._obs, rewards[j], terminated, truncated, info = made  # type: ignore[assignment]
            self._steps += 1
            self._succeeded |= bool(info.get("success", info.get("is_success", False)))
            if self._joints is not None:
                self._squared_error += float(np.sum((y - self._joints.position) ** 2))
                self._max_speed = max(self._max_speed, float(np.abs(self._joints.velocity).max()))
            if terminated or truncated:
                break
        self._y, self._yd = setpoints[j, 0].copy(), setpoints[j, 1].copy()
        self._return += float(rewards.sum())
        self._over = terminated or truncated
        info = {**info, "rewards": rewards}
        if self._over:
            info["outcome"] = self._outcome()
        return self._observe(), float(rewards.sum()), terminated, truncated, info

    def _command(self, joints: _Joints, y: Array, yd: Array, ydd: Array) -> Array:
        if self.control == "position":
            return y / joints.gear
        wn = _STIFFNESS / self.control_dt
        return joints.torque(
            ydd + 2.0 * wn * (yd - joints.velocity) + wn**2 * (y - joints.position)
        )

    def _outcome(self) -> dict[str, Any]:
        """Return the figures of an episode: success and, where joints are driven, their own."""
        values = self._steps * len(self.joint_names)
        reached = self._success_return is not None and self._return >= self._success_return
        success = {"success": self._succeeded or reached}
        if self._joints is None:
            return success
        return success | {
            "saturation": self._saturated / values,
            "max_joint_speed": self._max_speed,
            "tracking_rms": math.sqrt(self._squared_error / values),
        }

    def _observe(self) -> Array:
        values = {"setpoint": self._y, "setpoint_velocity": self._yd}
        return assemble(self.fields, values | values_of(self.env.observation_space, self._obs))


class _Joints:
    """The joints of a MuJoCo environment that its actions drive, one actuator each."""

    def __init__(self, model: Any, data: Any, ids: Array, kind: str) -> None:
        self.kind = kind
        self._model, self._data = model, data
        self._q, self._v = model.jnt_qposadr[ids], model.jnt_dofadr[ids]
        self.names = tuple(model.joint(i).name or f"joint_{i}" for i in ids)
        self.gear: Array = np.array(model.actuator_gear[:, 0] * model.actuator_gainprm[:, 0])
        if kind == "position":
            self.gear = np.array(model.actuator_gear[:, 0])
        limited = model.jnt_limited[ids].astype(bool)
        self.low = np.where(limited, model.jnt_range[ids, 0], -np.inf)
        self.high = np.where(limited, model.jnt_range[ids, 1], np.inf)
        self._mass = np.zeros((model.nv, model.nv))

    @classmethod
    def of(cls, env: Any, n_actions: int) -> _Joints | None:
        """Return the joints of an environment; None if it is not driven joint by joint."""
        model, data = getattr(env, "model", None), getattr(env, "data", None)
        if not isinstance(model, mujoco.MjModel) or model.nu != n_actions:
            return None
        if (model.actuator_trntype != mujoco.mjtTrn.mjTRN_JOINT).any():
            return None
        ids = model.actuator_trnid[:, 0]
        single = np.isin(
            model.jnt_type[ids], (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
        )
        if not single.all() or len(set(ids.tolist())) != len(ids):
            return None
        servo = model.actuator_biasprm[:, 1] != 0.0
        if servo.all():
            return cls(model, data, ids, "position")
        return None if servo.any() else cls(model, data, ids, "torque")

    @property
    def position(self) -> Array:
        """Measured positions (dof,)."""
        return np.array(self._data.qpos[self._q])

    @property
    def velocity(self) -> Array:
        """Measured velocities (dof,)."""
        return np.array(self._data.qvel[self._v])

    def torque(self, acceleration: Array) -> Array:
        """Return the controls (dof,) whose torques accelerate the joints (dof,) so."""
        model, data, v = self._model, self._data, self._v
        mujoco.mj_fullM(model, self._mass, data.qM)
        load = data.qfrc_bias[v] - data.qfrc_passive[v]
        made: Array = (self._mass[np.ix_(v, v)] @ acceleration + load) / self.gear
        return made


def wrapper_options(creator: Callable[..., Any]) -> tuple[str, ...] | None:
    """Return the names of the options of :class:`NdpWrapper`; None for a task that needs none.

    What makes the environment is a task's if it has ``execute``, or takes ``k``.
    """
    if hasattr(creator, "execute"):
        return None
    taken = inspect.signature(creator).parameters
    return None if "k" in taken else ("control", "speed", "success_return")
