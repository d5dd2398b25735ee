"""Environments of one task that run side by side, tick by tick.

Per environment a tick is a physics step and some forty operations on seven numbers each,
which cost more than the physics. Side by side the operations are done once for all
environments. Every number is the one that an environment on its own computes.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.arm import Command, JointState
from ndp_ros.control.limiter import Limiter
from ndp_ros.control.omega import InverseDynamicsOfMany
from ndp_ros.errors import TaskError
from ndp_ros.tasks.arm_task import ArmTask
from ndp_ros.tasks.wrapped import Step

Array = NDArray[np.float64]


class Together:
    """Environments (E,) with one configuration; each may be reset on its own.

    From here on they keep what they measure and command in rows of shared arrays; they can
    still be stepped one at a time.
    """

    def __init__(self, envs: Sequence[ArmTask]) -> None:
        """Join environments.

        Raises:
            TaskError: If there are none, or they differ in class, k or configuration.
        """
        if not envs:
            raise TaskError("no environments to run together")
        first = envs[0]
        for env in envs:
            if (type(env), env.k, env.config) != (type(first), first.k, first.config):
                raise TaskError("environments that run together must be of one configuration")
        self.envs = tuple(envs)
        E, dof = len(envs), first._dof
        self._dof, self._n, self._k, self._ticks = dof, first._n, first.k, first._ticks
        self._tick, self._aged = first.tick, first._past.depth
        self._n_steps = round(first.tick / first.robot.model.opt.timestep)
        self._position, self._velocity = np.zeros((E, dof)), np.zeros((E, dof))
        self._torque, self._target = np.zeros((E, dof)), np.zeros((E, dof))
        for e, env in enumerate(self.envs):
            env._measured = JointState(self._position[e], self._velocity[e], np.zeros(dof))
            env._command = Command("torque", self._target[e], np.zeros(dof), self._torque[e])
            env.robot.read(env._measured)
        one = first._limiter
        # Every joint is limited on its own: those of all environments are one long arm's.
        lower, upper, max_velocity, max_acceleration = (
            np.tile(limit, E)
            for limit in (
                first._limits.lower, first._limits.upper, one.max_velocity, one.max_acceleration,
            )
        )  # fmt: skip
        self._limiter = Limiter(lower, upper, max_velocity, max_acceleration, one.period)
        self._omega = InverseDynamicsOfMany([env._omega for env in self.envs])
        # Views into the states: a copy costs a tenth of asking the arm.
        hand = first.robot.fingers
        self._n_fingers = hand.stop - hand.start
        self._state = np.zeros((2, E, hand.stop))
        self._views = [
            (
                env.robot.model, env.robot.data, env.robot.data.ctrl, env._watch,
                env.robot.data.qpos[: hand.stop], env.robot.data.qvel[: hand.stop],
                *self._state[:, e], self._torque[e, : self._n],
            )
            for e, env in enumerate(self.envs)
        ]  # fmt: skip

    def step(self, actions: Sequence[Array]) -> list[Step]:
        """Run :meth:`ArmTask.step` of every environment; actions (E, k, dof)."""
        return self._run([env.join(a) for env, a in zip(self.envs, actions, strict=True)])

    def execute(self, setpoints: Sequence[Array]) -> list[Step]:
        """Run :meth:`ArmTask.execute` of every environment; setpoints (E, n_ticks, 3, dof)."""
        return self._run([e._checked(s) for e, s in zip(self.envs, setpoints, strict=True)])

    def _run(self, wanted_of: list[Array]) -> list[Step]:
        for env in self.envs:
            env._require_running()
        envs, omega = self.envs, self._omega
        E, n_ticks, dof = len(envs), self._k * self._ticks, self._dof
        wanted = np.stack(wanted_of, axis=1)  # (n_ticks, E, 3, dof)
        current = np.zeros((3, E, dof))
        current[0], current[1] = [env._y for env in envs], [env._yd for env in envs]
        # y, yd, ydd that hold during each tick: position and velocity are those at its start.
        y, yd = np.empty((n_ticks + 1, E, dof)), np.empty((n_ticks + 1, E, dof))
        y[0], yd[0] = current[0], current[1]
        setpoints = np.empty((n_ticks, 3, E, dof))
        flat, limiter = current.reshape(3, E * dof), self._limiter
        for i, many in enumerate(wanted.transpose(0, 2, 1, 3)):
            limiter.follow(flat, many.reshape(3, E * dof))
            setpoints[i] = current
        y[1:], yd[1:] = setpoints[:, 0], setpoints[:, 1]
        ydd = np.diff(yd, axis=0) / self._tick
        own = [np.ascontiguousarray(setpoints[:, :, e]) for e in range(E)]
        missing = [env._shortfall(wanted_of[e], own[e]) for e, env in enumerate(envs)]

        track = np.empty((E, 2, n_ticks, dof))
        rewards = np.zeros((E, self._k))
        position, velocity, torque = self._position, self._velocity, self._torque
        i = 0
        for j in range(self._k):
            for e, env in enumerate(envs):
                env._saturated_before = env._omega.saturated
                env._missing = float(missing[e][j])
            for _ in range(self._ticks):
                omega(y[i], yd[i], ydd[i], position, velocity, torque)
                self._step(y[i], first=i == 0)
                track[:, 0, i], track[:, 1, i] = position, velocity
                if i + 1 + self._aged >= n_ticks:
                    for env in envs:
                        env._see(i)
                i += 1
            for e, env in enumerate(envs):
                rewards[e, j] = env._reward(first=j == 0)
        return [env._finish(rewards[e], own[e], track[e]) for e, env in enumerate(envs)]

    def _step(self, y: Array, first: bool) -> None:
        """Run a tick of physics under the torques and read the joints, as the arm does both."""
        n, target = self._n, self._target
        target[:] = y
        if first or not np.isfinite(self._torque).all():
            for env in self.envs:
                env.robot.write(env._command)
        grips, n_steps = y[:, n].tolist(), self._n_steps
        for grip, view in zip(grips, self._views, strict=True):
            model, data, ctrl, watch, qpos, qvel, position, velocity, torque = view
            ctrl[:n], ctrl[n:] = torque, grip
            mujoco.mj_step(model, data, n_steps)
            position[:], velocity[:] = qpos, qvel
            watch()
        for state, out in zip(self._state, (self._position, self._velocity), strict=True):
            out[:, :n] = state[:, :n]
            total = state[:, n]
            for finger in range(n + 1, n + self._n_fingers):
                total = total + state[:, finger]
            np.divide(total, self._n_fingers, out=out[:, n])
