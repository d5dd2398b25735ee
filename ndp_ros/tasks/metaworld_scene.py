"""Meta-World's simulations as the tasks use them: made, shared, given goals, held still.

Everything here speaks the benchmark's own interface; the environment contract of
this package is in :mod:`ndp_ros.tasks.metaworld`.
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

from ndp_ros.tasks.metaworld_fast import N_FRAME, fast_class

Array = NDArray[np.float64]

N_GOALS = 50
"""Goals of a task that the benchmark evaluates on."""

_FLAGS = ("pickCompleted", "placeCompleted")
"""What v1 rewards remember from step to step."""

_OBJECTS = slice(4, N_FRAME)
_OBJECTS_BEFORE = slice(N_FRAME + 4, 2 * N_FRAME)


def make_simulation(task: str, reward: str, stock: bool = False) -> SawyerXYZEnv:
    """Return a simulation of a task whose observation shows the goal.

    Args:
        task: Name without the benchmark's version suffix, such as ``push``.
        reward: ``v1`` or ``v2``.
        stock: Whether to return the benchmark's own class instead of the fast one.
    """
    name = f"{task}-v3"
    cls: Any = ALL_V3_ENVIRONMENTS[name]
    sim: SawyerXYZEnv = (cls if stock else fast_class(cls))(reward_function_version=reward)
    # The benchmark's way to say that the goal is visible; drawing goals comes after.
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

    A row is what the benchmark calls a random vector: object positions, then the
    goal's, as far as the task varies them [m].
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


class SimulationPool:
    """Simulations of this process that nobody uses at the moment.

    One takes 25 MB and 0.2 s to build, a multi-task environment visits fifty: the
    environments of a process hand them on. An episode depends on its seed alone, not
    on what a simulation did before.
    """

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str], list[SawyerXYZEnv]] = {}
        self._users = 0

    def join(self) -> None:
        """Count one environment that uses the pool."""
        self._users += 1

    def leave(self) -> None:
        """Count one less; the last one to leave frees the memory."""
        self._users -= 1
        if self._users == 0:
            for sims in self._idle.values():
                for sim in sims:
                    sim.close()
            self._idle.clear()

    def take(self, task: str, reward: str) -> SawyerXYZEnv:
        """Return a simulation that is the caller's until it is given back."""
        idle = self._idle.get((task, reward))
        return idle.pop() if idle else make_simulation(task, reward)

    def give(self, task: str, reward: str, sim: SawyerXYZEnv) -> None:
        """Take a simulation back."""
        self._idle.setdefault((task, reward), []).append(sim)


POOL = SimulationPool()


class WorldMemory:
    """Everything that moves and is not the robot, as it was at one moment.

    A.2 of the paper: inside a segment the robot knows its own position, but sees the
    world as after the segment's first control step. Contact forces are no part of it:
    whether the fingers feel the object is always known.
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
        # these follow from the state, and the next step computes them anew
        poses = (
            (data.xpos, bodies), (data.xquat, bodies), (data.xmat, bodies),
            (data.geom_xpos, geoms), (data.geom_xmat, geoms),
            (data.site_xpos, sites), (data.site_xmat, sites),
        )  # fmt: skip
        self._all = [*self._state, *poses]
        self._kept: list[Array] = []
        self._objects = np.zeros(N_FRAME - 4)
        self._flags: dict[str, Any] = {}

    def keep(self, obs: Array) -> None:
        """Remember the world as it is now, and as a native observation (39,) shows it."""
        self._kept = [array[rows].copy() for array, rows in self._all]
        self._objects = obs[_OBJECTS].copy()
        self._flags = self._read_flags()

    @contextmanager
    def shown(self, obs: Array) -> Iterator[Array]:
        """Show the remembered world inside the block.

        Args:
            obs: Native observation (39,) of now.

        Yields:
            The observation (39,) with the robot of now in the remembered world.
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


def _rows(mask: NDArray[np.bool_]) -> Any:
    """Return the marked rows as a slice where they are neighbours, which is faster."""
    rows = np.flatnonzero(mask)
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
