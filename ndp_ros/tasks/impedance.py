"""Tasks whose actions are a goal and the stiffness with which the arm is drawn to it.

:func:`control` puts the action space of VICES around a task: once per ``step`` a policy
chooses how far the goal is from where the arm is, and the stiffness and the damping ratio
of every coordinate; at each tick the law of :mod:`ndp_ros.control.impedance` turns them
into torques. Goal and gains go over from the last choice to the new one during the first
fifth of a step. The environment inside has k control steps a ``step``: one choice holds
for all of them, and its reward is the sum of theirs.

An action (1, m) holds the goal's displacements and the gripper's, then the stiffnesses,
then the damping ratios, all in [-1, 1] but the gripper's.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from ndp_ros.config import from_mapping, param
from ndp_ros.control.impedance import Hand, HandImpedance, Impedance, JointImpedance
from ndp_ros.control.rigid_body import RigidBody
from ndp_ros.errors import TaskError
from ndp_ros.tasks.arm_task import ArmTask
from ndp_ros.tasks.embedding import summed
from ndp_ros.tasks.wrapped import Step, WrappedTask

Array = NDArray[np.float64]

JOINTS, HAND = "joints", "hand"
SPACES = (JOINTS, HAND)
"""Coordinates of the impedance: the arm's joints, or the place of its hand."""


@dataclass(frozen=True)
class ImpedanceConfig:
    """What an action can ask for; one value for all coordinates, or one for each."""

    reach: tuple[float, ...] = param((0.2,), doc="Goal's largest distance.", minimum=1e-4)
    stiffness_low: tuple[float, ...] = param((10.0,), doc="Least kp.", unit="1/s^2", minimum=0.0)
    stiffness_high: tuple[float, ...] = param(
        (100.0,), doc="Greatest kp.", unit="1/s^2", minimum=0.0
    )
    damping_low: tuple[float, ...] = param((0.0,), doc="Least damping ratio.", minimum=0.0)
    damping_high: tuple[float, ...] = param(
        (2.0,), doc="Greatest damping ratio; equal to the least, it is no action.", minimum=0.0
    )
    ramp: float = param(
        0.2, doc="Share of a step in which goal and gains go over.", minimum=0.0, maximum=1.0
    )

    def ranges(self, n: int) -> tuple[Array, Array, Array]:
        """Return reach (n,), stiffness (2, n) and damping (2, n), low and high.

        Raises:
            TaskError: If there are values for another number of coordinates, or a range
                is upside down.
        """
        rows = []
        for f in dataclasses.fields(self)[:-1]:
            given = getattr(self, f.name)
            if len(given) not in (1, n):
                raise TaskError(f"{f.name} has {len(given)} values: allowed are 1 or {n}")
            rows.append(np.broadcast_to(np.array(given), (n,)))
        reach, stiffness, damping = rows[0].copy(), np.stack(rows[1:3]), np.stack(rows[3:5])
        if (stiffness[0] > stiffness[1]).any() or (damping[0] > damping[1]).any():
            raise TaskError("stiffness or damping: the low end of a range is above its high end")
        return reach, stiffness, damping


_OF_ARM: dict[tuple[str, str], ImpedanceConfig] = {
    # The range of stiffness reaches up to the law that tracks the other methods' setpoints
    # (25 rad/s): a throw needs it.
    ("jaco", JOINTS): ImpedanceConfig(stiffness_high=(625.0,)),
    ("jaco", HAND): ImpedanceConfig(reach=(0.05,), stiffness_high=(625.0,)),
    ("gen3", JOINTS): ImpedanceConfig(stiffness_high=(625.0,)),
    ("gen3", HAND): ImpedanceConfig(reach=(0.05,), stiffness_high=(625.0,)),
    ("sawyer", JOINTS): ImpedanceConfig(
        stiffness_low=(10.0, 10.0, 10.0, 10.0, 10.0, 1.0, 1.0),
        stiffness_high=(100.0, 100.0, 100.0, 100.0, 50.0, 30.0, 10.0),
    ),
}
"""Ranges for an arm and a space; the Sawyer's are those of the method's source."""


def control(env: Any, space: str, options: Mapping[str, Any] | None = None) -> VariableImpedance:
    """Return a task driven by variable impedance.

    Args:
        env: A task on the simulated arm, or one of Meta-World's; k control steps a ``step``
            are how long a choice holds.
        space: ``joints`` or ``hand``.
        options: Parameters of :class:`ImpedanceConfig` that differ from the arm's.

    Raises:
        TaskError: If there is no such space, or not for this task.
    """
    if space not in SPACES:
        raise TaskError.choice("impedance", space, SPACES)
    key = (getattr(env, "arm", ""), space)
    if key not in _OF_ARM:
        raise TaskError(
            f"no impedance control of the {space} of {key[0] or env!r}: there is one of "
            + ", ".join(f"the {s} of {arm}" for arm, s in _OF_ARM)
        )
    given = {n: np.atleast_1d(v).tolist() if n != "ramp" else v for n, v in (options or {}).items()}
    values = {**dataclasses.asdict(_OF_ARM[key]), **given}
    config = from_mapping(ImpedanceConfig, values, source="task options")
    if isinstance(env, ArmTask):
        return ArmImpedance(env, space, config)
    from ndp_ros.tasks.metaworld_impedance import SawyerImpedance

    sawyer: VariableImpedance = SawyerImpedance(env, config)
    return sawyer


class Choice:
    """What one action means: goal, stiffness and damping at each tick of a step."""

    def __init__(self, before: Sequence[Array], after: Sequence[Array], ramp: float) -> None:
        """Go over from a goal and gains to others within ``ramp`` ticks."""
        self._before, self._after, self._ramp = tuple(before), tuple(after), ramp

    def at(self, tick: int) -> list[Array]:
        """Return goal, stiffness and damping during a tick."""
        share = min(1.0, (tick + 1) / self._ramp) if self._ramp > 1.0 else 1.0
        pairs = zip(self._before, self._after, strict=True)
        return [after if share == 1.0 else a + share * (after - a) for a, after in pairs]


class VariableImpedance(WrappedTask):
    """A task whose action is a displacement of the goal, and the gains.

    Attributes:
        joint_names: Names of an action's entries.
        action_scale: What one unit of each entry is.
        task: Name of the task.
        config: The task's own configuration.
        impedance: Ranges of the actions.
    """

    _refusal = "variable impedance follows no setpoints"

    def __init__(
        self, env: Any, names: Sequence[str], gripper: str, grip_bound: float, grip_scale: float,
        config: ImpedanceConfig,
    ) -> None:  # fmt: skip
        """Lay out the action.

        Args:
            env: The task.
            names: Coordinates of the impedance.
            gripper: Name of the gripper's entry.
            grip_bound: Its largest action.
            grip_scale: What one unit of it is.
            config: Ranges.
        """
        n = len(names)
        super().__init__(env)
        self.impedance = config
        self._reach, self._stiffness, self._damping = config.ranges(n)
        self._chosen = bool((self._damping[0] < self._damping[1]).any())
        self.task, self.config = env.task, env.config
        self._ramp = config.ramp * len(env.segment_times)
        gains = [f"{name}/stiffness" for name in names]
        spans = [np.maximum(self._stiffness[1] - self._stiffness[0], 1e-9) / 2]
        if self._chosen:
            gains += [f"{name}/damping" for name in names]
            spans.append(np.maximum(self._damping[1] - self._damping[0], 1e-9) / 2)
        self.joint_names = (*names, gripper, *gains)
        self.action_scale = np.concatenate((self._reach, [grip_scale], *spans))
        bound = np.ones((1, len(self.joint_names)))
        bound[0, n] = grip_bound
        self._bound, self._n = bound, n
        self.action_space = gymnasium.spaces.Box(-bound, bound, dtype=np.float64)
        self._goal, self._kp, self._zeta = np.zeros(n), np.zeros(n), np.zeros(n)

    def decode(self, action: Array) -> tuple[Array, float, Array, Array]:
        """Return displacement (n,), gripper's action, stiffness (n,) and damping (n,).

        Args:
            action: (1, m); clipped to its bounds.

        Raises:
            TaskError: If the action has another shape or is not finite.
        """
        action = np.asarray(action, dtype=float)
        if action.shape != self._bound.shape or not np.isfinite(action).all():
            raise TaskError(f"action must be {self._bound.shape} finite values, got {action.shape}")
        u, n = np.clip(action, -self._bound, self._bound)[0], self._n
        stiffness = _between(self._stiffness, u[n + 1 : 2 * n + 1])
        zeta = _between(self._damping, u[2 * n + 1 :] if self._chosen else np.zeros(n))
        return u[:n] * self._reach, float(u[n]), stiffness, zeta

    def _choose(self, goal: Array, stiffness: Array, damping: Array) -> Choice:
        """Return the way from the last choice to a new one, which then is the last."""
        before = self._goal, self._kp, self._zeta
        self._goal, self._kp, self._zeta = after = goal, stiffness, damping
        return Choice(before, after, self._ramp)

    def _forget(self, goal: Array) -> None:
        """Start an episode with a goal and the middle of the gains."""
        self._goal, self._kp, self._zeta = goal, self._stiffness.mean(0), self._damping.mean(0)


class ArmImpedance(VariableImpedance):
    """A task on the simulated arm, driven by variable impedance.

    The observation is the task's: its ``setpoint`` is the joints' goal, or with the hand's
    impedance where the joints are, and its velocity zero. ``tracking_rms`` tells how far the
    arm is from its goal. What the task charges for setpoints that its limits do not allow
    is charged for joints faster than their limits, which nothing else holds them to.
    """

    _env: ArmTask

    def __init__(self, env: ArmTask, space: str, config: ImpedanceConfig) -> None:
        """Put impedance control around a task.

        Args:
            env: The task.
            space: ``joints`` or ``hand``.
            config: Ranges.
        """
        n = env._n
        names = env.joint_names[:n] if space == JOINTS else ("x", "y", "z")
        scale = float(env.action_scale[n]) * env.k
        bound = float(env._max_step[n] / env.action_scale[n])
        super().__init__(env, names, env.joint_names[n], bound, scale, config)
        model = RigidBody(env.robot.model, env.joint_names[:n])
        limit, h = env._limits.max_torque, float(env.robot.model.opt.timestep)
        self._hand: HandImpedance | None = None
        self._law: Impedance
        if space == JOINTS:
            self._law = JointImpedance(model, limit, h)
        else:
            find = functools.partial(hand_of, env.robot.model, env.robot.data, env._grip, n)
            self._law = self._hand = HandImpedance(model, limit, find, h)
        self._grip_goal = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start an episode; the same starts as the task's own."""
        obs, info = self._env.reset(seed=seed, options=options)
        q = self._env._measured.position[: self._env._n]
        self._forget(self._law.coordinates(q))
        if self._hand is not None:
            self._hand.clear(q)
        return obs, info

    def step(self, action: Array) -> Step:
        """Hold one choice (1, m) of goal and gains for a step.

        Raises:
            TaskError: If the action has another shape or is not finite.
        """
        env, law = self._env, self._law
        displacement, grip, stiffness, zeta = self.decode(action)
        env._require_running()
        n, measured, command, limits = env._n, env._measured, env._command, env._limits
        goal = law.coordinates(measured.position[:n]) + displacement
        if self._hand is None:
            goal = np.clip(goal, limits.lower[:n], limits.upper[:n])
        choice = self._choose(goal, stiffness, zeta)
        ticks = len(env.segment_times)
        closed = np.clip(
            env._y[n] + grip * self.action_scale[self._n], limits.lower[n], limits.upper[n]
        )
        setpoints = np.zeros((ticks, 3, env._dof))
        setpoints[:, 0, n] = np.linspace(env._y[n], closed, ticks + 1)[1:]
        setpoints[:, 1, n] = (closed - env._y[n]) / (ticks * env.tick)

        def pull(i: int) -> None:
            q, v = measured.position[:n], measured.velocity[:n]
            at, kp, damping = choice.at(i)
            command.torque[:n] = law.torque(q, v, at, kp, damping)
            env._omega.ticks += 1
            env._omega.saturated += law.saturated
            setpoints[i, 0, :n] = at if self._hand is None else q
            command.position[:] = setpoints[i, 0]

        def too_fast(j: int) -> float:
            here = slice(j * env._ticks, (j + 1) * env._ticks)
            share = np.abs(env._track[1, here, :n]) / limits.max_velocity[:n]
            return float(np.maximum(share - 1.0, 0.0).max(axis=1).mean())

        return summed(env._advance(pull, setpoints, too_fast))


def hand_of(model: mujoco.MjModel, data: mujoco.MjData, site: int, n: int, q: Array) -> Hand:
    """Return the hand, a site, at the joint positions that ``data`` has.

    Args:
        model: The scene.
        data: Its state, whose first n positions are q; poses are brought up to date.
        site: Index of the site.
        n: Number of joints of the arm.
        q: Their positions (n,) [rad].
    """
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    mujoco.mj_jacSite(model, data, linear, angular, site)
    return Hand(
        data.site_xpos[site].copy(), data.site_xmat[site].reshape(3, 3).copy(),
        linear[:, :n], angular[:, :n],
    )  # fmt: skip


def _between(ends: Array, u: Array) -> Array:
    """Return values (n,) between the ends (2, n) for u (n,) in [-1, 1]."""
    values: Array = ends.mean(axis=0) + 0.5 * (ends[1] - ends[0]) * u
    return values
