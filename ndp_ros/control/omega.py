"""Ω: what turns a setpoint (y, yd, ydd) into a command for the arm.

Every Ω fills a command in place and allocates next to nothing: it runs in the
real-time loop, up to 5 kHz.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_ros.errors import ConfigError

if TYPE_CHECKING:
    from ndp_ros.arms.arm import Command, JointState
    from ndp_ros.control.rigid_body import RigidBody

Array = NDArray[np.float64]

# Below this speed dry friction is compensated in proportion, so that its sign
# cannot chatter when the arm stands still [rad/s].
_FRICTION_SPEED = 0.02


class Omega(Protocol):
    """The tracking law. ``mode`` is the command mode that it needs from the arm.

    ``torque_of`` tells the torques (r, n) that setpoints (dof, 3, r) take, None where no
    model of the arm does.
    """

    mode: str

    @property
    def torque_of(self) -> Callable[[Array], Array] | None:
        """The model's answer, if there is a model."""
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
    """For an arm that tracks positions itself: the command is the setpoint."""

    mode = "position"

    def __init__(self, model: RigidBody | None = None) -> None:
        """Take the arm's model, where there is one, to know the torques behind setpoints."""
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

    Attributes:
        ticks: Calls since the last :meth:`clear`.
        saturated: How many of them clipped the torque of at least one joint.
    """

    mode = "torque"

    def __init__(
        self, model: RigidBody, natural_frequency: float = 25.0, max_torque: Array | None = None
    ) -> None:
        """Prepare the law.

        Args:
            model: Dynamics of the first ``model.n`` joints.
            natural_frequency: wn [rad/s]; damping is critical.
            max_torque: Torque limits (n,) or longer [N m]; none unless given.

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
        self._n = n
        self._stiffness = natural_frequency**2
        self._damping = 2.0 * natural_frequency
        self._viscous = model.damping.copy()
        self._friction = model.friction.copy() if np.any(model.friction) else None
        self._upper, self._lower = limit, -limit
        self._a, self._e, self._clipped = np.zeros(n), np.zeros(n), np.zeros(n)
        self.ticks = 0
        self.saturated = 0

    @property
    def torque_of(self) -> Callable[[Array], Array] | None:
        """As in :class:`Omega`."""
        return self._model.torques

    def clear(self) -> None:
        """Start counting ticks anew."""
        self.ticks = self.saturated = 0

    def __call__(
        self, y: Array, yd: Array, ydd: Array, measured: JointState, command: Command
    ) -> None:
        """Fill torques (all joints of the model) and pass position and velocity on."""
        n, a, e = self._n, self._a, self._e
        q, v = measured.position[:n], measured.velocity[:n]
        np.subtract(y[:n], q, out=a)
        a *= self._stiffness
        np.subtract(yd[:n], v, out=e)
        e *= self._damping
        a += e
        a += ydd[:n]
        tau = self._model.inverse_dynamics(q, v, a)
        np.multiply(self._viscous, v, out=e)
        e += tau
        if self._friction is not None:
            e += self._friction * np.tanh(yd[:n] / _FRICTION_SPEED)
        clipped = self._clipped
        np.minimum(e, self._upper, out=clipped)
        np.maximum(clipped, self._lower, out=clipped)
        self.ticks += 1
        # Comparing bytes is several times as fast as all().
        if clipped.tobytes() != e.tobytes():
            self.saturated += 1
        command.torque[:n] = clipped
        command.position[:] = y
        command.velocity[:] = yd


class InverseDynamicsOfMany:
    """The tracking laws of several arms of one kind at once, number for number the same.

    It counts ticks and saturation in the laws it is made of.
    """

    def __init__(self, laws: Sequence[InverseDynamics]) -> None:
        """Join laws (E,), which must have the same gains and limits.

        Raises:
            ConfigError: If there are none or they differ.
        """
        if not laws:
            raise ConfigError("no laws to join")
        first = laws[0]
        for law in laws:
            same = law._stiffness == first._stiffness and np.array_equal(law._upper, first._upper)
            if not same or law._friction is not None or law._n != first._n:
                raise ConfigError("laws of arms with other gains or limits, or with dry friction")
        self._laws, self._first, self._n = tuple(laws), first, first._n
        shape = (len(laws), first._n)
        self._a, self._e, self._clipped = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._tau = np.zeros(shape)

    def __call__(
        self, y: Array, yd: Array, ydd: Array, position: Array, velocity: Array, torque: Array
    ) -> None:
        """Fill the torques (E, dof) of the model's joints.

        Args:
            y: Desired positions (E, dof) [rad].
            yd: Desired velocities (E, dof) [rad/s].
            ydd: Desired accelerations (E, dof) [rad/s^2].
            position: Measured (E, dof) [rad].
            velocity: Measured (E, dof) [rad/s].
            torque: Overwritten [N m].
        """
        n, a, e, one = self._n, self._a, self._e, self._first
        q, v = position[:, :n], velocity[:, :n]
        np.subtract(y[:, :n], q, out=a)
        a *= one._stiffness
        np.subtract(yd[:, :n], v, out=e)
        e *= one._damping
        a += e
        a += ydd[:, :n]
        for i, law in enumerate(self._laws):
            self._tau[i] = law._model.inverse_dynamics(q[i], v[i], a[i])
            law.ticks += 1
        np.multiply(one._viscous, v, out=e)
        e += self._tau
        clipped = self._clipped
        np.minimum(e, one._upper, out=clipped)
        np.maximum(clipped, one._lower, out=clipped)
        if clipped.tobytes() != e.tobytes():
            for row in np.flatnonzero((clipped != e).any(axis=1)):
                self._laws[row].saturated += 1
        torque[:, :n] = clipped
