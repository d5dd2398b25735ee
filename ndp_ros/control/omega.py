# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Ω, the tracking law: a setpoint (y, yd, ydd) becomes a command for the arm.

Every Ω fills a command in place and allocates almost nothing, because it runs in the real-time
loop at up to 5 kHz.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_ros.control.arm import Array
from ndp_ros.control.memory import Interpreted, TickCore
from ndp_ros.errors import ConfigError

if TYPE_CHECKING:
    from ndp_ros.control.arm import Command, JointState
    from ndp_ros.control.rigid_body import RigidBody


# Below this speed the compensation of dry friction is proportional, so that its sign does not
# chatter when the arm is at rest [rad/s].
_FRICTION_SPEED = 0.02


class Omega(Protocol):
    """A tracking law. ``mode`` is the command mode that it needs from the arm.

    ``torque_of`` computes the torques (r, n) of setpoints (dof, 3, r); None without a model.
    """

    mode: str

    @property
    def torque_of(self) -> Callable[[Array], Array] | None:
        """The torques of setpoints by the model, if there is one."""
        ...

    def __call__(
        self, y: Array, yd: Array, ydd: Array, measured: JointState, command: Command
    ) -> None:
        """Fill ``command`` so that the arm follows the setpoint.

        Args:
            y: Desired positions (dof,) [rad].
            yd: Desired velocities (dof,) [rad/s].
            ydd: Desired accelerations (dof,) [rad/s^2].
            measured: The newest measurement.
            command: Overwritten; its ``mode`` must be that of this Ω.
        """
        ...


class Identity:
    """Ω of an arm that tracks positions itself: the command is the setpoint."""

    mode = "position"

    def __init__(self, model: RigidBody | None = None) -> None:
        """Keep the arm's model, where there is one, for the torques of setpoints."""
        self._model = model

    @property
    def torque_of(self) -> Callable[[Array], Array] | None:
        """As in :class:`Omega`."""
        return None if self._model is None else self._model.torques

    def __call__(
        self, y: Array, yd: Array, ydd: Array, measured: JointState, command: Command
    ) -> None:
        """Pass position and velocity on."""
        command.position[:] = y
        command.velocity[:] = yd


class InverseDynamics:
    """Computed torque: the arm's error obeys e" + 2 wn e' + wn^2 e = 0.

    tau = RNEA(q, qd, ydd + 2 wn (yd - qd) + wn^2 (y - q)) + damping qd + dry friction,
    clipped to the torque limits. Joints beyond those of the model (the gripper) are
    commanded by position.
    """

    mode = "torque"

    def __init__(
        self,
        model: RigidBody,
        natural_frequency: float = 25.0,
        max_torque: Array | None = None,
        arms: int | None = None,
    ) -> None:
        """Prepare the law.

        Args:
            model: Dynamics of the first ``model.n`` joints.
            natural_frequency: wn [rad/s]; damping is critical.
            max_torque: Torque limits (n,) or longer [N m]; none unless given.
            arms: Number of arms of this model that :meth:`torque` serves at once, one a row;
                one arm, and no rows, unless given.

        Raises:
            ConfigError: If the frequency is not positive or limits are missing.
        """
        if not natural_frequency > 0:
            raise ConfigError(f"natural_frequency is {natural_frequency!r}, must be > 0 [rad/s]")
        n = model.n
        limit = np.full(n, np.inf) if max_torque is None else np.asarray(max_torque, float)[:n]
        if limit.shape != (n,) or not np.all(limit > 0):
            raise ConfigError(f"max_torque is {max_torque!r}: {n} positive values [N m] are needed")
        self._model = model
        self._n, self._arms = n, arms
        self._stiffness = natural_frequency**2
        self._damping = 2.0 * natural_frequency
        self._viscous = model.damping.copy()
        self._friction = model.friction.copy() if np.any(model.friction) else None
        self._upper, self._lower = limit, -limit
        shape = (n,) if arms is None else (arms, n)
        self._a, self._demand, self._clipped = (np.zeros(shape) for _ in range(3))
        self._tau = np.zeros(shape)
        self._unsaturated = np.zeros(shape[:-1], bool)
        self._core: TickCore = Interpreted()

    @property
    def memory(self) -> dict[str, Any]:
        """The arrays that compiled code shares, by its names for them.

        They are those of one arm without dry friction, whose tanh has other bits in C.
        """
        if self._arms is not None or self._friction is not None:
            return {}
        return {
            "gains": np.array([self._stiffness, self._damping]),
            "viscous": self._viscous,
            "demanded": self._a,
            "unclipped": self._demand,
            "clipped": self._clipped,
            "torque_low": self._lower,
            "torque_high": self._upper,
        }

    def use(self, core: TickCore) -> None:
        """Leave all but the inverse dynamics of usual ticks to a core."""
        self._core = core

    @property
    def torque_of(self) -> Callable[[Array], Array] | None:
        """As in :class:`Omega`."""
        return self._model.torques

    @property
    def saturated(self) -> NDArray[np.bool_]:
        """Whether the last torques were clipped in any joint, () or (arms,)."""
        # Comparing bytes is several times as fast as all().
        if self._clipped.tobytes() == self._demand.tobytes():
            return self._unsaturated
        clipped: NDArray[np.bool_] = np.asarray((self._clipped != self._demand).any(axis=-1))
        return clipped

    def torque(self, y: Array, yd: Array, ydd: Array, q: Array, v: Array) -> Array:
        """Return the torques (n,) or (arms, n) of the model's joints [N m].

        The result is overwritten by the next call.

        Args:
            y: Desired positions, of the result's shape like all arguments [rad].
            yd: Desired velocities [rad/s].
            ydd: Desired accelerations [rad/s^2].
            q: Measured positions [rad].
            v: Measured velocities [rad/s].
        """
        a, e, clipped = self._a, self._demand, self._clipped
        np.subtract(y, q, out=a)
        a *= self._stiffness
        np.subtract(yd, v, out=e)
        e *= self._damping
        a += e
        a += ydd
        if self._arms is None:
            tau = self._model.inverse_dynamics(q, v, a)
        else:
            tau = self._tau
            for arm in range(self._arms):
                tau[arm] = self._model.inverse_dynamics(q[arm], v[arm], a[arm])
        np.multiply(self._viscous, v, out=e)
        e += tau
        if self._friction is not None:
            e += self._friction * np.tanh(yd / _FRICTION_SPEED)
        np.minimum(e, self._upper, out=clipped)
        np.maximum(clipped, self._lower, out=clipped)
        return clipped

    def __call__(
        self, y: Array, yd: Array, ydd: Array, measured: JointState, command: Command
    ) -> None:
        """Fill torques (all joints of the model) and pass position and velocity on."""
        n, q, v, core = self._n, measured.position, measured.velocity, self._core
        if core.demand() and core.torque(self._model.inverse_dynamics(q[:n], v[:n], self._a)):
            return
        command.torque[:n] = self.torque(y[:n], yd[:n], ydd[:n], q[:n], v[:n])
        command.position[:] = y
        command.velocity[:] = yd
