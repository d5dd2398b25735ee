# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Meta-World's Sawyer as the simulated arm of the nodes, and the judge of its episodes.

The setpoint of the loop is the benchmark's own state: every 12.5 ms the native action is the
displacement to where the setpoint is. The benchmark's clock begins with the first motion: until
then its world stays as it was reset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ndp_ros.control.arm import ArmConfig, ArmInfo, Array, Command, JointState
from ndp_ros.errors import ArmError
from ndp_ros.observation import field_slice
from ndp_ros.tasks.contract import plain

if TYPE_CHECKING:
    from ndp_ros.tasks.metaworld.environment import MetaWorld
    from ndp_ros.tasks.metaworld.scene import Simulation

OUTCOME = "outcome"
"""Further value of the arm: success now, and the time of the first [s] (-1: none)."""

_TOLERANCE = 1e-9
"""Tolerance of the time at which a control step is due [s]."""


class SawyerArm:
    """The end effector, driven by position; it fulfils ``control.arm.SimulatedArm``."""

    def __init__(self, task: MetaWorld) -> None:
        """Take a task over; nothing else may step it."""
        self._task, self._config = task, ArmConfig.named(task.arm)
        self._world, self._one_hot = np.zeros(0), np.zeros(0)
        self._y, self._yd, self._wanted = np.zeros(4), np.zeros(4), np.zeros(4)
        self._time = self._due = 0.0
        self._steps, self._success, self._first = 0, False, -1.0
        self._moved = False
        self.reset(0)

    def connect(self) -> ArmInfo:
        """Return joints and limits; those of a single task's positions are its own."""
        info = ArmInfo.from_config(self._config, ("position",))
        if "task" in self._task.signals:
            return info
        low, high = np.array(self._task.bounds).T
        return replace(info, lower=low, upper=high)

    def read(self, out: JointState) -> JointState:
        """Write the place to which the last control step has gone into ``out``."""
        out.position[:], out.velocity[:], out.effort[:] = self._y, self._yd, 0.0
        out.time = self._time
        return out

    def write(self, command: Command) -> None:
        """Set the position.

        Raises:
            ArmError: If the command is no position, or is not finite.
        """
        if command.mode != "position":
            raise ArmError.choice("command mode", command.mode, ("position",))
        if not math.isfinite(command.position @ command.position):
            raise ArmError(f"command is not finite: {command.position}")
        self._moved = self._moved or not np.array_equal(command.position, self._y)
        self._wanted[:] = command.position

    def stop(self) -> None:
        """Stay where the arm is."""
        self._wanted[:] = self._y

    def close(self) -> None:
        """Release the task."""
        self._task.close()

    def step(self, duration: float) -> None:
        """Advance the benchmark by the control steps that become due within ``duration`` [s]."""
        self._time += duration
        if not self._moved:
            return
        self._due += duration
        control_dt = self._task.control_dt
        # At the nearest tick, so that the last control step of a segment is not left to the next.
        while self._due >= control_dt - 0.5 * duration - _TOLERANCE:
            self._due -= control_dt
            self._control_step()

    def _control_step(self) -> None:
        """Take the native action that leads to the wanted position."""
        task, played = self._task, self._played
        units = np.clip((self._wanted - self._y) / task.action_scale, -1.0, 1.0)
        at = np.clip(self._y + units * task.action_scale, *np.array(task.bounds).T)
        native = units.astype(np.float32)
        native[3] = at[3] / task.bounds[3][1]
        played.sim.curr_path_length = 0  # the nodes decide on the length of an episode
        obs, _, _, _, flags = played.sim.step(native)
        at[:3] = played.mocap
        self._yd = (at - self._y) / task.control_dt
        self._y, self._world = at, obs
        self._steps += 1
        self._success = bool(flags["success"])
        if self._success and self._first < 0.0:
            self._first = self._steps * task.control_dt

    def reset(self, seed: int) -> Array:
        """Begin the episode of a seed; return the setpoint (4,) that holds its start state."""
        task = self._task
        obs, _ = task.reset(seed=seed)
        self._y = obs[field_slice(task.fields, "setpoint")].copy()
        self._wanted, self._yd, self._due = self._y.copy(), np.zeros(4), 0.0
        self._world = obs[field_slice(task.fields, "world")]
        if "task" in self._task.signals:
            self._one_hot = obs[field_slice(task.fields, "task")]
        self._steps, self._success, self._first, self._moved = 0, False, -1.0, False
        return self._y.copy()

    @property
    def _played(self) -> Simulation:
        """The simulation of the task that is played."""
        assert self._task.simulation is not None
        return self._task.simulation

    def objects(self) -> dict[str, Array]:
        """Return no poses: the observation of the benchmark holds them."""
        return {}

    def signals(self) -> dict[str, Array]:
        """Return the benchmark's observation, and the outcome so far."""
        values = {"world": self._world, "task": self._one_hot}
        values[OUTCOME] = np.array([float(self._success), self._first])
        return {name: values[name] for name in self._task.signals}


class SawyerJudge:
    """The judge of episodes of a benchmark's task, by the flags of the simulation that runs."""

    def __init__(self, task: MetaWorld) -> None:
        """Take a task over; nothing else may step it."""
        self._task = task
        self.over = False
        self._success, self._first = False, -1.0

    def begin(self, seed: int) -> None:
        """Start a new episode from the start state of a seed."""
        self._task.reset(seed=seed)
        self.over, self._success, self._first = False, False, -1.0

    def feed(self, time: float, position: Array, world: Mapping[str, Array]) -> None:
        """Note the flags of a sample; the first success counts, as in the benchmark."""
        task, (now, first) = self._task, world[OUTCOME]
        self._success = bool(now)
        self._first = float(first) if self._first < 0.0 else self._first
        stopped = task.config.stop_on_success and self._first >= 0.0
        self.over = self.over or stopped or time >= task.duration - 0.5 * task.control_dt

    def summary(self) -> dict[str, Any]:
        """Return the figures of the episode; a time of no success is None."""
        succeeded = self._first >= 0.0
        figures: dict[str, Any] = plain(
            {
                "success": succeeded,
                "success_at_end": self._success,
                "success_time": self._first if succeeded else math.inf,
            }
        )
        return figures
