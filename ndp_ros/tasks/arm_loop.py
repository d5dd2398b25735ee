# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The loop of the tasks on an arm: E simulated arms driven side by side through a segment.

A tick is a physics step and some forty operations on seven numbers, which cost more than the
physics. For several environments these operations are done once, on rows, with the same result
for each row as for an arm of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.mujoco import MujocoArm
from ndp_ros.control.limiter import Limiter
from ndp_ros.control.omega import InverseDynamics
from ndp_ros.control.rigid_body import RigidBody
from ndp_ros.errors import ArmError, TaskError
from ndp_ros.tasks.contract import Array, Step, finite_array
from ndp_ros.tasks.vector import VectorTask

if TYPE_CHECKING:
    from ndp_ros.tasks.arm_task import ArmTask


class ArmRows:
    """The simulated arms of E environments, read and driven as rows of arrays.

    Attributes:
        n: Number of the arm's joints; the gripper comes after them.
        position: Measured joints (E, dof) [rad].
        velocity: Their velocities (E, dof) [rad/s].
        command: The next command (E, dof): the arm's torques [N m], then the gripper's
            position [rad].
    """

    def __init__(self, robots: Sequence[MujocoArm], tick: float) -> None:
        """Keep views into the simulations, which cost a tenth of a call of each arm.

        The arms are of one kind, in one scene each; :meth:`step` advances a tick [s].
        """
        first, info = robots[0], robots[0].connect()
        self.n, n = info.n_arm, info.n_arm
        self._joints = np.zeros((2, len(robots), info.dof))
        self.position, self.velocity = self._joints
        self.command = np.zeros((len(robots), info.dof))
        self._steps = round(tick / first.model.opt.timestep)
        self._places = first.joints.all
        places = first.joints
        self._state = np.zeros((2, len(robots), n + places.n_fingers))
        self._views = [
            (
                (robot.model, robot.data),
                (robot.data.ctrl[places.motors], self.command[e, :n]),
                (robot.data.ctrl[places.servos], self.command[e, n:]),
                (self._state[0, e], robot.data.qpos),
                (self._state[1, e], robot.data.qvel),
            )
            for e, robot in enumerate(robots)
        ]

    def read(self) -> None:
        """Fill ``position`` and ``velocity``; the gripper's are the mean of its fingers."""
        n, state, joints = self.n, self._state, self._joints
        q, v = self._places.q, self._places.v
        for _, _, _, (position, qpos), (velocity, qvel) in self._views:
            position[:], velocity[:] = qpos[q], qvel[v]
        joints[:, :, :n] = state[:, :, :n]
        if joints.shape[2] == n:
            return
        grip = joints[:, :, n]
        np.add.reduce(state[:, :, n:], axis=2, out=grip)  # mean() takes four times as long
        grip /= state.shape[2] - n

    def step(self) -> None:
        """Advance the physics by a tick under ``command``, then :meth:`read`.

        Raises:
            ArmError: If a command is not finite.
        """
        command = self.command
        # A sum of squares is finite only if every value is.
        if not math.isfinite(np.vdot(command, command)):
            row = int(np.argmin(np.isfinite(command).all(axis=1)))
            raise ArmError(f"command of environment {row} is not finite: {command[row]}")
        for (model, data), (motors, torque), (fingers, grip), _, _ in self._views:
            motors[:], fingers[:] = torque, grip
            mujoco.mj_step(model, data, self._steps)
        self.read()


class SegmentControl(Protocol):
    """A law that drives arms (E,) through one segment.

    Attributes:
        setpoints: Setpoints of every tick (n_ticks, 3, E, dof), complete when the segment
            has been run.
    """

    setpoints: Array

    def command(self, tick: int, arms: ArmRows) -> NDArray[np.bool_]:
        """Fill ``arms.command`` for a tick; return which arms' torques are clipped (E,)."""

    def shortfall(self, step: int, velocity: Array) -> Array:
        """Return by what share of the velocity limits a control step missed its target (E,).

        Velocities were measured at its ticks (E, ticks, dof) [rad/s].
        """


class Tracking:
    """Segments tracked by inverse dynamics, with setpoints held to the arm's limits."""

    def __init__(
        self, robots: Sequence[MujocoArm], tick: float, ticks: int, limit_share: float
    ) -> None:
        """Prepare the law and the limiter for arms (E,) of one kind.

        A setpoint is due every ``tick`` [s], of which a control step has ``ticks``; ``limit_share``
        is the share of the velocity and acceleration limits that is used.
        """
        first, info, E = robots[0], robots[0].connect(), len(robots)
        self._n, self._tick, self._ticks = info.n_arm, tick, ticks
        self._max_velocity = info.max_velocity[: info.n_arm]
        body = RigidBody(first.model, info.joint_names[: info.n_arm])
        self._law = InverseDynamics(body, first.config.natural_frequency, info.max_torque, arms=E)
        # Joints are limited independently, so the joints of all arms are those of one long arm.
        speed, acceleration = limit_share * info.max_velocity, limit_share * info.max_acceleration
        limits = (info.lower, info.upper, speed, acceleration)
        low, high, speeds, accelerations = (np.tile(limit, E) for limit in limits)
        self._limiter = Limiter(low, high, speeds, accelerations, tick)
        self.setpoints = np.zeros((0, 3, E, info.dof))

    def start(self, wanted: Array, y: Array, yd: Array) -> None:
        """Begin a segment at positions y [rad] with velocities yd [rad/s], (E, dof) each.

        The limits may change the wanted setpoints (E, n_ticks, 3, dof).
        """
        n, (E, n_ticks, _, dof) = self._n, wanted.shape
        asked = wanted.transpose(1, 2, 0, 3)
        self.setpoints = setpoints = np.empty((n_ticks, 3, E, dof))
        current = np.zeros((3, E * dof))
        current[0], current[1] = y.ravel(), yd.ravel()
        rows = zip(asked.reshape(n_ticks, 3, -1), setpoints.reshape(n_ticks, 3, -1), strict=True)
        for one, held in rows:
            self._limiter.follow(current, one)
            held[:] = current
        # Position and velocity of a tick are those at its start; the acceleration joins one
        # velocity to the next.
        self._y = np.concatenate((y[None], setpoints[:-1, 0]))
        yds = np.concatenate((yd[None], setpoints[:, 1]))
        self._yd, self._ydd = yds[:-1, :, :n], (np.diff(yds, axis=0) / self._tick)[:, :, :n]
        missing = np.abs(asked[:, 1, :, :n] - setpoints[:, 1, :, :n]) / self._max_velocity
        self._missing = missing.max(axis=-1).T.reshape(E, -1, self._ticks).mean(axis=-1)

    def command(self, tick: int, arms: ArmRows) -> NDArray[np.bool_]:
        """As in :class:`SegmentControl`."""
        n, y = self._n, self._y[tick]
        arms.command[:, :n] = self._law.torque(
            y[:, :n], self._yd[tick], self._ydd[tick], arms.position[:, :n], arms.velocity[:, :n]
        )
        arms.command[:, n:] = y[:, n:]
        return self._law.saturated

    def shortfall(self, step: int, velocity: Array) -> Array:
        """Return how far the limits kept the velocities of setpoints from the wanted ones."""
        missing: Array = self._missing[:, step]
        return missing


class SegmentFigures(NamedTuple):
    """Figures of the arm's joints over the ticks of a segment.

    Attributes:
        squared_error: Sum of the squared distances from the setpoints [rad^2].
        squared_jerk: Sum of the squared changes of the setpoints' acceleration per second, from
            the first tick on [rad^2/s^6].
        max_speed: Largest measured speed of a joint [rad/s].
    """

    squared_error: float
    squared_jerk: float
    max_speed: float


def _figures(setpoints: Array, track: Array, n: int, tick: float) -> list[SegmentFigures]:
    """Return the figures of segments (E, n_ticks, 3, dof), tracked (E, 2, n_ticks, dof)."""
    E = len(setpoints)
    error = (track[:, 0, :, :n] - setpoints[:, :, 0, :n]).reshape(E, -1)
    ydd = setpoints[:, :, 2, :n]
    jerk = ((ydd[:, 1:] - ydd[:, :-1]) / tick).reshape(E, -1)
    # Sums along rows: those of a row are the same in any number of rows.
    squares = [(a * a).sum(axis=1).tolist() for a in (error, jerk)]
    speed = np.abs(track[:, 1, :, :n]).max(axis=(1, 2)).tolist()
    return [SegmentFigures(*row) for row in zip(*squares, speed, strict=True)]


class VectorArmTask(VectorTask):
    """Environments (E,) of one configuration on an arm, advanced tick by tick side by side.

    A single environment steps through one of these with E = 1; both can be used in turn.
    """

    envs: tuple[ArmTask, ...]

    def __init__(self, envs: Sequence[ArmTask]) -> None:
        """Join environments.

        Raises:
            TaskError: If there are none, or they differ in class, arm, k or configuration.
        """
        if not envs:
            raise TaskError("no environments to run together")
        first = envs[0]
        for env in envs:
            if _kind(env) != _kind(first):
                raise TaskError("environments that run together must be of one configuration")
        super().__init__(envs)
        robots = [env.robot for env in envs]
        self._arms = ArmRows(robots, first.tick)
        self._tracking = Tracking(robots, first.tick, first.ticks, first.config.limit_share)

    def step(self, actions: Sequence[Array]) -> list[Step]:
        """Run :meth:`ArmTask.step` of every environment; actions (E, k, dof)."""
        first = self.envs[0]
        shape = first.k, len(first.joint_names)
        each = zip(self.envs, actions, strict=True)
        moves = np.stack([finite_array("action", a, shape) for _, a in each]) * first.action_scale
        y, yd = self._start()
        return self._track(first.way_points.join(y, yd, moves), y, yd)

    def execute(self, setpoints: Sequence[Array]) -> list[Step]:
        """Run :meth:`ArmTask.execute` of every environment; setpoints (E, n_ticks, 3, dof)."""
        first = self.envs[0]
        shape = len(first.segment_times), 3, len(first.joint_names)
        each = zip(self.envs, setpoints, strict=True)
        wanted = np.stack([finite_array("setpoints", s, shape) for _, s in each])
        return self._track(wanted, *self._start())

    def _start(self) -> tuple[Array, Array]:
        """Return the positions and velocities (E, dof) that the next segments start from."""
        y, yd = zip(*(env.setpoint for env in self.envs), strict=True)
        return np.stack(y), np.stack(yd)

    def _track(self, wanted: Array, y: Array, yd: Array) -> list[Step]:
        """Run segments (E, n_ticks, 3, dof) by inverse dynamics."""
        self._tracking.start(wanted, y, yd)
        return self.run(self._tracking)

    def run(self, control: SegmentControl) -> list[Step]:
        """Run k control steps of every environment under a law.

        Raises:
            TaskError: If an episode is over.
        """
        envs, arms, first = self.envs, self._arms, self.envs[0]
        for env in envs:
            env.require_running()
        k, ticks, n_ticks = first.k, first.ticks, len(first.segment_times)
        track = np.empty((len(envs), 2, n_ticks, len(first.joint_names)))
        rewards = np.empty((len(envs), k))
        arms.read()
        for j in range(k):
            saturated = np.zeros(len(envs), int)
            for i in range(j * ticks, (j + 1) * ticks):
                saturated += control.command(i, arms)
                arms.step()
                track[:, 0, i], track[:, 1, i] = arms.position, arms.velocity
                for env in envs:
                    env.end_tick(n_ticks - 1 - i)
            missing = control.shortfall(j, track[:, 1, j * ticks : (j + 1) * ticks])
            for e, env in enumerate(envs):
                rewards[e, j] = env.end_control_step(j == 0, int(saturated[e]), float(missing[e]))
        setpoints = np.ascontiguousarray(np.moveaxis(control.setpoints, 2, 0))
        moved = _figures(setpoints, track, arms.n, first.tick)
        parts = zip(envs, rewards, setpoints, track, moved, strict=True)
        return [env.end_segment(*part) for env, *part in parts]


def _kind(env: ArmTask) -> tuple[Any, ...]:
    """Return the properties that environments of one vector share."""
    return type(env), env.arm, env.k, env.config
