# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Variable impedance of a simulated arm: a law of its joints or of its hand at every tick."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.joints import ArmJoints
from ndp_ros.control.impedance import Hand, HandImpedance, Impedance, JointImpedance
from ndp_ros.control.rigid_body import RigidBody
from ndp_ros.tasks.actions.impedance import HAND, JOINTS, Choice, ImpedanceConfig, VariableImpedance
from ndp_ros.tasks.actions.wrapped import summed
from ndp_ros.tasks.contract import Array, Step

if TYPE_CHECKING:
    from ndp_ros.tasks.arm_loop import ArmRows
    from ndp_ros.tasks.arm_task import ArmTask


class ArmImpedance(VariableImpedance):
    """A task on a simulated arm, driven by variable impedance.

    It is the law (``SegmentControl``) of its own steps. The observation is the task's: its
    ``setpoint`` is the joints' goal, or with the hand's impedance the joints' position, and its
    velocity zero. ``tracking_rms`` is the distance of the arm from its goal. The task's cost of
    setpoints beyond the limits becomes a cost of joints that are faster than their limits, to
    which nothing else holds them.
    """

    # The range of stiffness reaches up to the law that tracks the other methods' setpoints
    # (25 rad/s): a throw needs it.
    spaces: ClassVar[Mapping[str, ImpedanceConfig]] = {
        JOINTS: ImpedanceConfig(stiffness_high=(625.0,)),
        HAND: ImpedanceConfig(reach=(0.05,), stiffness_high=(625.0,)),
    }
    env: ArmTask

    def __init__(self, env: ArmTask, space: str, config: ImpedanceConfig) -> None:
        """Put impedance control of the ``joints`` or of the ``hand`` around a task."""
        super().__init__(env, space, config)
        robot = env.robot
        self._info = info = robot.connect()
        model = RigidBody(robot.model, info.joint_names[: info.n_arm])
        h = float(robot.model.opt.timestep)
        self._hand: HandImpedance | None = None
        self._law: Impedance
        if space == JOINTS:
            self._law = JointImpedance(model, info.max_torque, h)
        else:
            find = functools.partial(hand_of, robot.model, robot.data, robot.joints)
            self._law = self._hand = HandImpedance(model, info.max_torque, find, h)
        self._choice = Choice((), (), 0.0)
        self.setpoints = np.zeros((len(env.segment_times), 3, 1, info.dof))

    def _coordinates(self, space: str) -> tuple[Sequence[str], str, float, float]:
        """As in :class:`VariableImpedance`."""
        env, n = self.env, self.env.robot.connect().n_arm
        names = env.joint_names[:n] if space == JOINTS else ("x", "y", "z")
        bound = float(env.action_space.high[0, n])  # type: ignore[attr-defined]
        return names, env.joint_names[n], bound, float(env.action_scale[n]) * env.k

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start an episode with the same start state as the task's own."""
        obs, info = self.env.reset(seed=seed, options=options)
        q = self._joints()
        self._forget(self._law.coordinates(q))
        if self._hand is not None:
            self._hand.clear(q)
        return obs, info

    def step(self, action: Array) -> Step:
        """Hold one choice (1, m) of goal and gains for a step.

        Raises:
            TaskError: If the action has another shape or is not finite.
        """
        env, info, n = self.env, self._info, self._info.n_arm
        displacement, grip, stiffness, zeta = self.decode(action)
        env.require_running()
        goal = self._law.coordinates(self._joints()) + displacement
        if self._hand is None:
            goal = np.clip(goal, info.lower[:n], info.upper[:n])
        self._choice = self._choose(goal, stiffness, zeta)
        start = env.setpoint[0][n]
        end = np.clip(start + grip * self.action_scale[self._n], info.lower[n], info.upper[n])
        y, yd, _ = self.setpoints.swapaxes(0, 1)
        y[:, 0, n] = np.linspace(start, end, len(y) + 1)[1:]
        yd[:, 0, n] = (end - start) / (len(y) * env.tick)
        return summed(env.run(self))

    def command(self, tick: int, arms: ArmRows) -> NDArray[np.bool_]:
        """Fill the arm's command for a tick; return whether its torques are clipped (1,)."""
        n, y = arms.n, self.setpoints[tick, 0]
        q, v = arms.position[0, :n], arms.velocity[0, :n]
        goal, stiffness, zeta = self._choice.at(tick)
        arms.command[0, :n] = self._law.torque(q, v, goal, stiffness, zeta)
        arms.command[:, n:] = y[:, n:]
        y[0, :n] = goal if self._hand is None else q
        return np.array([self._law.saturated])

    def shortfall(self, step: int, velocity: Array) -> Array:
        """Return how far the joints' speeds were beyond their limits in a control step (1,)."""
        n = self._info.n_arm
        share = np.abs(velocity[:, :, :n]) / self._info.max_velocity[:n]
        mean: Array = np.maximum(share - 1.0, 0.0).max(axis=-1).mean(axis=-1)
        return mean

    def _joints(self) -> Array:
        """Return the measured positions of the arm's joints (n,) [rad]."""
        q: Array = self.env.robot.data.qpos[self.env.robot.joints.arm.q].copy()
        return q


def hand_of(model: mujoco.MjModel, data: mujoco.MjData, joints: ArmJoints, q: Array) -> Hand:
    """Return the hand at the joint positions q (n,) [rad], which ``data`` has.

    Poses in ``data`` are brought up to date.
    """
    site, v = joints.grip, joints.arm.v
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    mujoco.mj_jacSite(model, data, linear, angular, site)
    position, rotation = data.site_xpos[site].copy(), data.site_xmat[site].reshape(3, 3).copy()
    return Hand(position, rotation, linear[:, v], angular[:, v])
