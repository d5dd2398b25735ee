# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Impedance laws whose stiffness and damping are inputs, for the VICES baseline.

A law pulls coordinates x (joint angles, or the position of the hand) towards a goal like a spring
and a damper of unit mass,

    a = kp (goal - x) - kv xd,    kv = 2 zeta sqrt(kp),

and computes the torques that yield this acceleration by the model of the arm:

    joints:  tau = M a + c + g + D v
    hand:    tau = Jx' Lx a + Jr' Lr a_r + c + g + D v,    L = (J M^-1 J')^-1,

with a_r the same law for the hand's rotation, which has its own goal and gains. Damping is
critical at zeta = 1. The goal has no velocity.

D is the arm's viscous damping. A simulator that integrates damping implicitly over steps h moves
an arm of inertia M + h D; ``step`` accounts for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ndp_ros.control.arm import Array
from ndp_ros.errors import ConfigError

if TYPE_CHECKING:
    from ndp_ros.control.rigid_body import RigidBody


_SINGULAR = 2.5e-4
"""Mobility below which a direction of the hand is not controlled [1/kg, 1/(kg m^2)]."""


def acceleration(x: Array, xd: Array, goal: Array, stiffness: Array, damping: Array) -> Array:
    """Compute a = kp (goal - x) - 2 zeta sqrt(kp) xd (n,).

    Args:
        x: Coordinates (n,).
        xd: Their velocities (n,).
        goal: Rest position of the spring (n,).
        stiffness: kp (n,) [1/s^2].
        damping: zeta (n,), the ratio to critical damping.
    """
    a: Array = stiffness * (goal - x) - 2.0 * damping * np.sqrt(stiffness) * xd
    return a


class Impedance(Protocol):
    """An impedance law over some coordinates.

    Attributes:
        saturated: Whether the last torques were clipped.
    """

    saturated: bool

    def coordinates(self, q: Array) -> Array:
        """Compute x at joint positions q (n,)."""
        ...

    def torque(self, q: Array, v: Array, goal: Array, stiffness: Array, damping: Array) -> Array:
        """Compute the torques (n,) [N m], clipped to the limits.

        Args:
            q: Positions (n,) [rad].
            v: Velocities (n,) [rad/s].
            goal: Goal of the coordinates.
            stiffness: kp of each coordinate [1/s^2].
            damping: zeta of each coordinate.
        """
        ...


class JointImpedance:
    """The impedance law over the joints."""

    def __init__(self, model: RigidBody, max_torque: Array, step: float = 0.0) -> None:
        """Prepare the law.

        Args:
            model: Dynamics of the n joints.
            max_torque: Limits (n,) or longer [N m].
            step: Period over which the simulator integrates damping implicitly [s].

        Raises:
            ConfigError: If limits are missing.
        """
        self._model, self._step = model, step
        self._limit = _limits(model, max_torque)
        self.saturated = False

    def coordinates(self, q: Array) -> Array:
        """Return a copy of the joint positions (n,)."""
        return q.copy()

    def torque(self, q: Array, v: Array, goal: Array, stiffness: Array, damping: Array) -> Array:
        """As in :class:`Impedance`."""
        a = acceleration(q, v, goal, stiffness, damping)
        wanted = self._model.inverse_dynamics(q, v, a) + self._model.damping * (v + self._step * a)
        clipped: Array = np.clip(wanted, -self._limit, self._limit)
        self.saturated = bool((clipped != wanted).any())
        return clipped


@dataclass(frozen=True)
class Hand:
    """Pose and Jacobians of the hand.

    Attributes:
        position: (3,) [m].
        rotation: (3, 3).
        linear: Jacobian Jx (3, n) of the position.
        angular: Jacobian Jr (3, n) of the rotation.
    """

    position: Array
    rotation: Array
    linear: Array
    angular: Array


class HandImpedance:
    """The law over the position of the hand; its rotation is held as it was at :meth:`clear`."""

    def __init__(
        self,
        model: RigidBody,
        max_torque: Array,
        hand: Callable[[Array], Hand],
        step: float = 0.0,
        turn_stiffness: float = 150.0,
        turn_damping: float = 1.0,
    ) -> None:
        """Prepare the law.

        Args:
            model: Dynamics of the n joints.
            max_torque: As in :class:`JointImpedance`.
            hand: Computes the hand at joint positions (n,).
            step: As in :class:`JointImpedance`.
            turn_stiffness: kp of the hand's rotation [1/s^2].
            turn_damping: zeta of the hand's rotation.

        Raises:
            ConfigError: If limits are missing.
        """
        self._model, self._hand, self._step = model, hand, step
        self._limit = _limits(model, max_torque)
        self._turn = np.full(3, turn_stiffness), np.full(3, turn_damping)
        self._rotation: Array | None = None
        self.saturated = False

    def clear(self, q: Array) -> None:
        """Hold the hand's rotation at joint positions (n,)."""
        self._rotation = self._hand(q).rotation.copy()

    def coordinates(self, q: Array) -> Array:
        """Return the position of the hand (3,) [m]."""
        return self._hand(q).position.copy()

    def torque(self, q: Array, v: Array, goal: Array, stiffness: Array, damping: Array) -> Array:
        """As in :class:`Impedance`."""
        hand, D = self._hand(q), self._model.damping
        if self._rotation is None:
            self._rotation = hand.rotation.copy()
        inertia = self._model.mass_matrix(q) + self._step * np.diag(D)
        inverse = np.asarray(np.linalg.inv(inertia), np.float64)
        a = acceleration(hand.position, hand.linear @ v, goal, stiffness, damping)
        error = turn_error(self._rotation, hand.rotation)
        b = acceleration(-error, hand.angular @ v, np.zeros(3), *self._turn)
        wanted = (
            hand.linear.T @ (_inertia(hand.linear, inverse) @ a)
            + hand.angular.T @ (_inertia(hand.angular, inverse) @ b)
            + self._model.bias(q, v)
            + D * v
        )
        clipped: Array = np.clip(wanted, -self._limit, self._limit)
        self.saturated = bool((clipped != wanted).any())
        return clipped


def turn_error(wanted: Array, rotation: Array) -> Array:
    """Compute the error (3,) between two rotations (3, 3) from the cross products of their columns.

    For a rotation by theta about a unit axis it is sin(theta) times the axis.
    """
    error: Array = 0.5 * np.cross(rotation.T, wanted.T).sum(axis=0)
    return error


def _inertia(jacobian: Array, inverse: Array) -> Array:
    """Compute (J M^-1 J')^-1 (3, 3), zero in singular directions."""
    values, vectors = np.linalg.eigh(jacobian @ inverse @ jacobian.T)
    usable = values > _SINGULAR
    inverted = np.where(usable, 1.0 / np.where(usable, values, 1.0), 0.0)
    inertia: Array = (vectors * inverted) @ vectors.T
    return inertia


def _limits(model: RigidBody, max_torque: Array) -> Array:
    limit = np.asarray(max_torque, float)[: model.n]
    if limit.shape != (model.n,) or not np.all(limit > 0):
        raise ConfigError(f"max_torque is {max_torque!r}: {model.n} positive values are needed")
    return limit
