# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Tasks whose actions are a goal and the stiffness with which the arm is pulled to it: VICES.

Once per ``step`` a policy chooses how far the goal is from where the arm is, and the stiffness
and the damping ratio of every coordinate; at each tick a law of :mod:`ndp_ros.control.impedance`
turns them into torques. During the first fifth of a step, goal and gains move from the last
choice to the new one. The task inside has k control steps a ``step``: one choice holds for all
of them, and its reward is the sum of theirs.

An action (1, m) holds the goal's displacements and the gripper's, then the stiffnesses,
then the damping ratios, all in [-1, 1] but the gripper's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np

from ndp_ros.config import from_mapping, param
from ndp_ros.errors import TaskError
from ndp_ros.tasks.actions.wrapped import WrappedTask
from ndp_ros.tasks.contract import Array, finite_array

JOINTS, HAND = "joints", "hand"
"""Coordinates of the impedance: the arm's joints, or the position of its hand."""


@dataclass(frozen=True)
class ImpedanceConfig:
    """Ranges of the actions: one value for all coordinates, or one for each."""

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
        0.2, doc="Share of a step in which goal and gains change.", minimum=0.0, maximum=1.0
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


def with_impedance(
    env: Any, space: str, options: Mapping[str, Any] | None = None
) -> VariableImpedance:
    """Return a task driven by variable impedance of its ``joints`` or its ``hand``.

    The task has an ``impedance_wrapper``, a subclass of :class:`VariableImpedance`; its k control
    steps a ``step`` are how long a choice holds. Options are parameters of :class:`ImpedanceConfig`
    that differ from the wrapper's.

    Raises:
        TaskError: If there is no such space, or not for this task.
    """
    wrapper: type[VariableImpedance] | None = getattr(env, "impedance_wrapper", None)
    if wrapper is None:
        raise TaskError(
            f"no impedance control of {env}: the tasks of this package on an arm have it, and "
            "Meta-World's; other methods than vices take any task"
        )
    if space not in wrapper.spaces:
        raise TaskError.choice(f"impedance of {env.arm}", space, wrapper.spaces)
    given = {n: np.atleast_1d(v).tolist() if n != "ramp" else v for n, v in (options or {}).items()}
    values = {**dataclasses.asdict(wrapper.spaces[space]), **given}
    return wrapper(env, space, from_mapping(ImpedanceConfig, values, source="task options"))


@dataclass(frozen=True)
class Choice:
    """Goal, stiffness and damping at each tick of a step, as one action chooses them.

    They change from ``before`` to ``after`` within ``ramp`` ticks.
    """

    before: Sequence[Array]
    after: Sequence[Array]
    ramp: float

    def at(self, tick: int) -> list[Array]:
        """Return goal, stiffness and damping during a tick."""
        share = min(1.0, (tick + 1) / self.ramp) if self.ramp > 1.0 else 1.0
        pairs = zip(self.before, self.after, strict=True)
        return [after if share == 1.0 else a + share * (after - a) for a, after in pairs]


class VariableImpedance(WrappedTask):
    """A task whose action is a displacement of the goal, and the gains.

    A subclass runs the choice on one kind of task.

    Attributes:
        spaces: The coordinates that there are, with the ranges of their actions.
        joint_names: Names of an action's entries.
        action_scale: Size of one unit of each entry.
    """

    spaces: ClassVar[Mapping[str, ImpedanceConfig]]
    _refusal = "variable impedance follows no setpoints"

    def __init__(self, env: Any, space: str, config: ImpedanceConfig) -> None:
        """Lay out the action in one of ``spaces``."""
        super().__init__(env)
        self.impedance = config
        names, gripper, grip_bound, grip_scale = self._coordinates(space)
        n = len(names)
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

    def _coordinates(self, space: str) -> tuple[Sequence[str], str, float, float]:
        """Return the names of the coordinates, and of the gripper with its bound and scale."""
        raise NotImplementedError

    def decode(self, action: Array) -> tuple[Array, float, Array, Array]:
        """Return displacement (n,), gripper's action, stiffness (n,) and damping (n,).

        The action (1, m) is clipped to its bounds.

        Raises:
            TaskError: If the action has another shape or is not finite.
        """
        action = finite_array("action", action, self._bound.shape)
        u, n = np.clip(action, -self._bound, self._bound)[0], self._n
        stiffness = _between(self._stiffness, u[n + 1 : 2 * n + 1])
        zeta = _between(self._damping, u[2 * n + 1 :] if self._chosen else np.zeros(n))
        return u[:n] * self._reach, float(u[n]), stiffness, zeta

    def _choose(self, goal: Array, stiffness: Array, damping: Array) -> Choice:
        """Return the change from the last choice to a new one, which then is the last."""
        before = self._goal, self._kp, self._zeta
        self._goal, self._kp, self._zeta = after = goal, stiffness, damping
        return Choice(before, after, self._ramp)

    def _forget(self, goal: Array) -> None:
        """Start an episode with a goal and the middle of the gains."""
        self._goal, self._kp, self._zeta = goal, self._stiffness.mean(0), self._damping.mean(0)


def _between(ends: Array, u: Array) -> Array:
    """Return values (n,) between the ends (2, n) for u (n,) in [-1, 1]."""
    values: Array = ends.mean(axis=0) + 0.5 * (ends[1] - ends[0]) * u
    return values
