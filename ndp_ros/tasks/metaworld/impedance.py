# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Meta-World's Sawyer driven by the torques of a joint impedance.

The benchmark's model has no motors at the arm's joints: a mocap body drags the hand, held
to it by a weld. Here the weld is released after each reset, and the torques of the law act on
the seven joints as applied forces, computed anew at each physics step (2.5 ms). Fingers, objects,
rewards, success and the length of an episode are the benchmark's. The mocap body follows the
hand, so that rewards which look at it see where the hand is.

Unlike under the weld, the hand can turn freely, and only the joints' ranges keep it inside the
workspace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import mujoco
import numpy as np
from gymnasium.spaces import Box

from ndp_ros.control.impedance import JointImpedance
from ndp_ros.control.rigid_body import RigidBody
from ndp_ros.errors import TaskError
from ndp_ros.observation import ObservationField, assemble, field_slice, observation_size
from ndp_ros.tasks.actions.impedance import JOINTS, Choice, ImpedanceConfig, VariableImpedance
from ndp_ros.tasks.actions.wrapped import summed
from ndp_ros.tasks.contract import Array, Step

if TYPE_CHECKING:
    from ndp_ros.tasks.metaworld.environment import MetaWorld

ARM_JOINTS = tuple(f"right_j{i}" for i in range(7))

_N = len(ARM_JOINTS)
_EFFORT = np.array([80.0, 80.0, 40.0, 40.0, 9.0, 9.0, 9.0])
"""Torque limits of a Sawyer [N m]."""
_SPEED = np.array([1.74, 1.33, 1.96, 1.96, 3.49, 3.49, 4.55])
"""Its velocity limits [rad/s]."""


class SawyerImpedance(VariableImpedance):
    """One of Meta-World's tasks, driven by variable impedance of the arm's joints.

    The observation is ``position`` and ``velocity`` (7) of the joints, ``setpoint`` (8),
    their goal and the grip, ``world`` (39) and what else the task has. ``saturation`` is
    the share of physics steps at a torque limit, ``tracking_rms`` the distance of the joints
    from their goal [rad].
    """

    # The ranges of the method's source.
    spaces: ClassVar[Mapping[str, ImpedanceConfig]] = {
        JOINTS: ImpedanceConfig(
            stiffness_low=(10.0, 10.0, 10.0, 10.0, 10.0, 1.0, 1.0),
            stiffness_high=(100.0, 100.0, 100.0, 100.0, 50.0, 30.0, 10.0),
        ),
    }
    env: MetaWorld

    def __init__(self, env: MetaWorld, space: str, config: ImpedanceConfig) -> None:
        """Put impedance control of the ``joints`` around a task."""
        super().__init__(env, space, config)
        joints = [ObservationField(name, _N) for name in ("position", "velocity")]
        self._others = [f for f in env.fields if not f.name.startswith("setpoint")]
        self.fields = (*joints, ObservationField("setpoint", _N + 1), *self._others)
        n_obs = observation_size(self.fields)
        self.observation_space = Box(-np.inf, np.inf, (n_obs,), np.float64)
        self._grip = field_slice(env.fields, "setpoint").start + 3
        self._sim: Any = None
        self._choice = Choice((), (), 0.0)
        self._tick = self._ticks = self._saturated = 0
        self._squared_error = 0.0

    def _coordinates(self, space: str) -> tuple[Sequence[str], str, float, float]:
        """As in :class:`VariableImpedance`."""
        return ARM_JOINTS, "grip", 1.0, float(self.env.action_scale[3]) * self.env.k

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start an episode with the same start state as the task's own."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._bind()
        self._forget(self._data.qpos[self._rows].copy())
        self._ticks = self._saturated = 0
        self._squared_error = 0.0
        return self._observe(obs), info

    def step(self, action: Array) -> Step:
        """Hold one choice (1, m) of goal and gains for a step.

        Raises:
            TaskError: If the action has another shape or is not finite.
        """
        env, sim = self.env, self._sim
        displacement, grip, stiffness, zeta = self.decode(action)
        if sim is None or env.simulation is None or env.simulation.sim is not sim:
            raise TaskError("no episode: call reset() before step()")
        goal = np.clip(self._data.qpos[self._rows] + displacement, *self._range)
        self._choice, self._tick = self._choose(goal, stiffness, zeta), 0
        units = np.zeros((env.k, 4))
        units[:, 3] = grip
        sim.advance = self._advance
        try:
            obs, reward, terminated, truncated, info = env.step(units)
        finally:
            # The simulation is handed on to others when this environment is done with it.
            sim.advance = None
        if "outcome" in info:
            info["outcome"]["saturation"] = self._saturated / self._ticks
            info["outcome"]["tracking_rms"] = float(np.sqrt(self._squared_error / self._ticks / _N))
        return summed((self._observe(obs), reward, terminated, truncated, info))

    def _bind(self) -> None:
        """Release the weld, and find the joints of the simulation that is played."""
        assert self.env.simulation is not None  # the task has been reset
        sim: Any = self.env.simulation.sim
        model, data = sim.model, sim.data
        if sim is not self._sim:
            self._sim, self._model, self._data = sim, model, data
            body = RigidBody(model, ARM_JOINTS, locked=data.qpos)
            limit = _EFFORT + body.damping * _SPEED  # the model's damping is not the arm's
            self._law = JointImpedance(body, limit, float(model.opt.timestep))
            first = model.joint(ARM_JOINTS[0])
            self._rows = slice(int(first.qposadr[0]), int(first.qposadr[0]) + _N)
            self._dofs = slice(int(first.dofadr[0]), int(first.dofadr[0]) + _N)
            self._range = np.array([model.joint(name).range for name in ARM_JOINTS]).T
            self._hand = model.body("hand").id
        mocap = {b for b in range(model.nbody) if model.body_mocapid[b] >= 0}
        for e in range(model.neq):
            if {int(model.eq_obj1id[e]), int(model.eq_obj2id[e])} & mocap:
                data.eq_active[e] = 0

    def _advance(self, ctrl: Any, n_frames: int) -> None:
        """Run physics steps under the law's torques, in place of the benchmark's own."""
        model, data, law = self._model, self._data, self._law
        data.ctrl[:] = ctrl
        q, v, applied = data.qpos[self._rows], data.qvel[self._dofs], data.qfrc_applied[self._dofs]
        goal, stiffness, zeta = self._choice.at(self._tick)
        for _ in range(n_frames):
            applied[:] = law.torque(q, v, goal, stiffness, zeta)
            mujoco.mj_step(model, data)
            self._saturated += law.saturated
            error = goal - q
            self._squared_error += float(error @ error)
        self._ticks += n_frames
        self._tick += 1
        data.mocap_pos[0] = data.xpos[self._hand]

    def _observe(self, obs: Array) -> Array:
        data = self._data
        values = {f.name: obs[field_slice(self.env.fields, f.name)] for f in self._others}
        values["position"], values["velocity"] = data.qpos[self._rows], data.qvel[self._dofs]
        values["setpoint"] = np.append(self._goal, obs[self._grip])
        return assemble(self.fields, values)
