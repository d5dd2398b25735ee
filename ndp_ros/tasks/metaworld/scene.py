# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Meta-World's simulations: their construction, goals, sharing, and the memory of their world.

This module uses the benchmark's own interface;
:mod:`ndp_ros.tasks.metaworld.environment` gives it the contract of this package.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from metaworld.types import Task
from numpy.typing import NDArray

from ndp_ros.tasks.contract import Array
from ndp_ros.tasks.metaworld.fast import N_FRAME, fast_class

N_GOALS = 50
"""Goals of a task that the benchmark evaluates on."""

_N_ARM = 7

_FLAGS = ("pickCompleted", "placeCompleted")
"""State of the v1 rewards from step to step."""

_OBJECTS = slice(4, N_FRAME)
_OBJECTS_BEFORE = slice(N_FRAME + 4, 2 * N_FRAME)


def make_simulation(task: str, reward: str, stock: bool = False) -> SawyerXYZEnv:
    """Return a simulation of a task, with the goal in its observation and rewards ``v1`` or ``v2``.

    It is of the benchmark's own class if ``stock``, and of the fast one otherwise.
    """
    name = f"{task}-v3"
    cls: Any = ALL_V3_ENVIRONMENTS[name]
    sim: SawyerXYZEnv = (cls if stock else fast_class(cls))(reward_function_version=reward)
    # The benchmark sets the visibility of the goal with a task; goals are drawn later.
    content = {"env_cls": cls, "rand_vec": None, "partially_observable": False}
    sim.set_task(Task(env_name=name, data=pickle.dumps(content)))
    sim.seeded_rand_vec = True
    return sim


def draw_goal(sim: SawyerXYZEnv, random: np.random.Generator) -> Array:
    """Reset to a goal drawn from the task's whole range; return the observation (39,)."""
    sim._freeze_rand_vec = False
    sim.np_random = random
    obs: Array = sim.reset()[0]
    return obs


def set_goal(sim: SawyerXYZEnv, goal: Array) -> Array:
    """Reset to a goal of :func:`benchmark_goals`; return the observation (39,)."""
    sim._freeze_rand_vec = True
    sim._last_rand_vec = goal.copy()
    obs: Array = sim.reset()[0]
    return obs


@functools.lru_cache(maxsize=256)
def benchmark_goals(task: str, seed: int) -> Array:
    """Return the goals (50, n) that the benchmark's MT1 with this seed trains and tests on.

    A row is a random vector of the benchmark: the positions of objects, then of the goal, as
    far as the task varies them [m].
    """
    sim = make_simulation(task, "v2")
    sim._freeze_rand_vec = False
    # the benchmark draws from numpy's global generator, whose algorithm this is
    sim.np_random = cast(Any, np.random.RandomState(seed))
    goals = []
    for _ in range(N_GOALS):
        sim.reset()
        goals.append(np.array(sim._last_rand_vec))
    sim.close()
    table = np.array(goals)
    table.setflags(write=False)
    return table


class WorldMemory:
    """The state of everything that moves and is not the robot, at one moment.

    Inside a segment, rewards see the robot as it is and the world as after the segment's first
    control step (A.2 of the paper). Contact forces are not part of this memory: whether the
    fingers feel the object is always known.
    """

    def __init__(self, sim: SawyerXYZEnv) -> None:
        model, data = sim.model, sim.data
        self._sim = sim
        robot = model.body_rootid[model.body("hand").id]
        moves = (model.body_weldid != 0) & (model.body_rootid != robot) & (model.body_mocapid < 0)
        bodies = _rows(moves)
        geoms, sites = _rows(moves[model.geom_bodyid]), _rows(moves[model.site_bodyid])
        dofs = _rows(moves[model.dof_bodyid])
        positions = np.zeros(model.nq, bool)
        for joint in np.flatnonzero(moves[model.jnt_bodyid]):
            width = {mujoco.mjtJoint.mjJNT_FREE: 7, mujoco.mjtJoint.mjJNT_BALL: 4}
            start = model.jnt_qposadr[joint]
            positions[start : start + width.get(mujoco.mjtJoint(model.jnt_type[joint]), 1)] = True
        self._state = [(data.qpos, _rows(positions)), (data.qvel, dofs)]
        # These follow from the state, and the next step computes them again.
        poses = [(array, bodies) for array in (data.xpos, data.xquat, data.xmat)]
        poses += [(array, geoms) for array in (data.geom_xpos, data.geom_xmat)]
        poses += [(array, sites) for array in (data.site_xpos, data.site_xmat)]
        self._all = [*self._state, *poses]
        self._kept: list[Array] = []
        self._objects = np.zeros(N_FRAME - 4)
        self._flags: dict[str, Any] = {}

    def keep(self, obs: Array) -> None:
        """Remember the present world, and the objects in a native observation (39,) of it."""
        self._kept = [array[rows].copy() for array, rows in self._all]
        self._objects = obs[_OBJECTS].copy()
        self._flags = self._read_flags()

    @contextmanager
    def shown(self, obs: Array) -> Iterator[Array]:
        """Show the remembered world inside the block.

        Yield the native observation (39,) of the present robot, as in ``obs``, in that world.
        """
        now = [array[rows].copy() for array, rows in self._state]
        for (array, rows), kept in zip(self._all, self._kept, strict=True):
            array[rows] = kept
        mixed = obs.copy()
        mixed[_OBJECTS] = mixed[_OBJECTS_BEFORE] = self._objects
        vars(self._sim).update(self._flags)
        try:
            yield mixed
        finally:
            self._flags = self._read_flags()
            for (array, rows), value in zip(self._state, now, strict=True):
                array[rows] = value

    def _read_flags(self) -> dict[str, Any]:
        attributes = vars(self._sim)
        return {name: attributes[name] for name in _FLAGS if name in attributes}


class Simulation:
    """A simulation of a task with views into its state.

    Attributes:
        task: Name of the task.
        sim: The benchmark's environment.
        world: Memory of everything but the robot.
        mocap: Position of the mocap body that drags the hand (3,) [m].
        hand: Position of the hand (3,) [m].
        speeds: Velocities of the arm's joints (7,) [rad/s].
    """

    def __init__(self, task: str, reward: str) -> None:
        """Make a simulation, as :func:`make_simulation` does."""
        self.task = task
        self.sim: Any = make_simulation(task, reward)
        self.world, data = WorldMemory(self.sim), self.sim.data
        self.mocap, self.hand = data.mocap_pos[0], data.body("hand").xpos
        self.speeds = data.qvel[:_N_ARM]


class SimulationPool:
    """Idle simulations of this process.

    A simulation takes 25 MB and 0.2 s to build, and a multi-task environment needs fifty, so
    the environments of a process share them. An episode depends on its seed and not on the
    earlier use of its simulation.
    """

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str], list[Simulation]] = {}
        self._users = 0

    def join(self) -> None:
        """Count one environment that uses the pool."""
        self._users += 1

    def leave(self) -> None:
        """Count one environment less; the last one to leave frees the memory."""
        self._users -= 1
        if self._users == 0:
            for simulations in self._idle.values():
                for simulation in simulations:
                    simulation.sim.close()
            self._idle.clear()

    def take(self, task: str, reward: str) -> Simulation:
        """Return a simulation for the caller's use until it is given back."""
        idle = self._idle.get((task, reward))
        return idle.pop() if idle else Simulation(task, reward)

    def give(self, simulation: Simulation, reward: str) -> None:
        """Take a simulation back."""
        self._idle.setdefault((simulation.task, reward), []).append(simulation)


POOL = SimulationPool()


def _rows(mask: NDArray[np.bool_]) -> Any:
    """Return the indices of marked rows, as a slice if they are neighbours, which is faster."""
    rows = np.flatnonzero(mask)
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
