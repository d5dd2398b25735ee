# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A roll-out worker: environments, a copy of the policy and the memory shared with the learner.

A run depends on its seed only. Noise and start states come from generators keyed by (seed,
environment, batch) and (seed, environment, episode), so that a resumed run needs no generator's
state.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, cast

import numpy as np

from ndp_ros.errors import NdpError, TrainingError
from ndp_ros.observation import field_slices, observation_size
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import LOG_STD, Array, Layout, initial_tensors
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.tasks.choice import TaskChoice, described
from ndp_ros.tasks.contract import Explorable, Step
from ndp_ros.tasks.vector import vectorise
from ndp_ros.training.config import RunConfig
from ndp_ros.training.evaluation import Episode, planned, run_episodes
from ndp_ros.training.exploration import WindowNoise

_ALIGNMENT = 64
_NOISE, _START = 1, 2
"""First keys of the generators of noise and of start states."""


@dataclass(frozen=True)
class Plan:
    """Division of the roll-outs between workers: plain data that each of them receives.

    ``windows`` are those of a batch in each environment.
    """

    choice: TaskChoice
    spec: PolicySpec
    seed: int
    environments: int
    windows: int
    workers: int
    noise_correlation: float = 0.0

    @classmethod
    def of(cls, config: RunConfig, spec: PolicySpec, windows: int) -> Plan:
        """Return the plan of a run."""
        environments, workers = config.environments, config.processes
        correlation = config.ppo.noise_correlation
        return cls(config.choice, spec, config.seed, environments, windows, workers, correlation)

    def share(self, worker: int) -> range:
        """Return the numbers of a worker's environments."""
        edges = np.linspace(0, self.environments, self.workers + 1).astype(int)
        return range(edges[worker], edges[worker + 1])


class Block:
    """Named arrays of a batch in one block of shared memory.

    The block has no name and disappears with the last process that uses it.

    Attributes:
        flat: Parameters of the policy ``(size,)``.
        mean: Mean of the observations ``(n_obs,)``.
        variance: Variance of the observations ``(n_obs,)``.
        obs: Observations at the start of each window ``(windows, environments, n_obs)``.
        next_obs: Observations at its end, of the same shape.
        actions: Actions, or curve amounts, ``(windows, environments, *spec.decision)``.
        rewards: Rewards ``(windows, environments, k)``.
        terminated: Whether the window ended in a terminal state ``(windows, environments)``.
        ended: Whether the episode ended with the window, of the same shape.
        episodes: Number of the next episode ``(environments,)``.
    """

    def __init__(self, plan: Plan, memory: Any = None) -> None:
        """Lay out the arrays in the given memory or in new memory."""
        T, E = plan.windows, plan.environments
        n_obs, k = observation_size(plan.spec.observation), plan.spec.k
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "flat": ((Layout(plan.spec).size,), np.float32),
            "mean": ((n_obs,), np.float64),
            "variance": ((n_obs,), np.float64),
            "obs": ((T, E, n_obs), np.float64),
            "next_obs": ((T, E, n_obs), np.float64),
            "actions": ((T, E, *plan.spec.decision), np.float32),
            "rewards": ((T, E, k), np.float64),
            "terminated": ((T, E), np.bool_),
            "ended": ((T, E), np.bool_),
            "episodes": ((E,), np.int64),
        }
        starts, size = {}, 0
        for name, (shape, kind) in shapes.items():
            starts[name] = size
            size += -(-int(np.prod(shape)) * np.dtype(kind).itemsize // _ALIGNMENT) * _ALIGNMENT
        context = multiprocessing.get_context("spawn")
        self.memory = context.RawArray(ctypes.c_byte, size) if memory is None else memory
        view = memoryview(self.memory)
        arrays: dict[str, Array] = {
            name: np.frombuffer(view, kind, int(np.prod(shape)), starts[name]).reshape(shape)
            for name, (shape, kind) in shapes.items()
        }
        self.flat, self.mean, self.variance = arrays["flat"], arrays["mean"], arrays["variance"]
        self.obs, self.next_obs = arrays["obs"], arrays["next_obs"]
        self.actions, self.rewards = arrays["actions"], arrays["rewards"]
        self.terminated, self.ended = arrays["terminated"], arrays["ended"]
        self.episodes = arrays["episodes"]


def work(plan: Plan, index: int, memory: Any, pipe: Connection) -> None:
    """Run a worker process until the learner closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        try:
            worker = Worker(plan, index, memory)
            pipe.send(("ready", []))
            while True:
                verb, argument = pipe.recv()
                if verb == "collect":
                    pipe.send(("episodes", worker.collect(*argument)))
                else:
                    pipe.send(("episodes", worker.evaluate(argument)))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except NdpError as error:
            pipe.send(("error", str(error)))
        except Exception as error:
            text = described(error, plan.choice.task)
            pipe.send(("error", f"roll-out worker {index}: {text}"))


class Worker:
    """Some of a run's environments and a copy of the policy."""

    def __init__(self, plan: Plan, index: int, memory: Any) -> None:
        self._plan = plan
        self._block = Block(plan, memory)
        self._mine = plan.share(index)
        self._vector = vectorise([plan.choice.make() for _ in self._mine])
        self._obs = np.zeros((len(self._mine), observation_size(plan.spec.observation)))
        self._returns = np.zeros(len(self._mine))
        self._policy = ArrayPolicy(plan.spec, initial_tensors(plan.spec, 0))
        self._noise = WindowNoise(plan.spec.decision[0], plan.noise_correlation)

    def collect(self, batch: int, fresh: bool) -> list[Episode]:
        """Write the windows of one batch to the block and return the episodes that ended.

        If ``fresh``, all environments start a new episode first.
        """
        plan, block, mine = self._plan, self._block, self._mine
        rows = slice(mine.start, mine.stop)
        self._update_policy()
        if fresh:
            for i in range(len(mine)):
                self._reset(i)
        shape = (plan.windows, *plan.spec.decision)
        keys = ([plan.seed, _NOISE, e, batch] for e in mine)
        drawn = [np.random.default_rng(key).standard_normal(shape, np.float32) for key in keys]
        noise = np.stack(drawn, axis=1)
        noise = np.moveaxis(self._noise.colour(np.moveaxis(noise, 2, 0)), 0, 2)
        noise *= np.exp(self._policy.parameters[LOG_STD])
        episodes: list[Episode] = []
        for t in range(plan.windows):
            block.obs[t, rows] = self._obs
            decisions = self._policy.decide(self._obs) + noise[t]
            if plan.spec.bounded:
                np.clip(decisions, -1.0, 1.0, out=decisions)
            block.actions[t, rows] = decisions
            steps = self._explore(block.actions[t, rows], noise[t])
            for (i, e), step in zip(enumerate(mine), steps, strict=True):
                obs, reward, terminated, truncated, info = step
                self._check(obs, info["rewards"], e)
                self._returns[i] += reward
                ended = terminated or truncated
                block.next_obs[t, e] = self._obs[i] = obs
                block.rewards[t, e] = info["rewards"]
                block.terminated[t, e] = terminated
                block.ended[t, e] = ended
                if ended:
                    episodes.append({**info["outcome"], "return": self._returns[i]})
                    self._reset(i)
        return episodes

    def _explore(self, decisions: Array, noise: Array) -> list[Step]:
        """Advance every environment by a window of noisy decisions ``(environments, *decision)``.

        An NDP's window is its segment, the function of time that the streamer executes. Noise of
        the segment changes which one; noise of the actions is added to it, since way points that
        were joined in another way would have other velocities.
        """
        spec, environments = self._plan.spec, self._vector.envs
        if spec.noise == "segment":
            return self._vector.execute(
                list(planned(self._policy, environments, self._obs, decisions))
            )
        if spec.method != "ndp" or not isinstance(environments[0], Explorable):
            return self._vector.step(list(decisions.astype(np.float64)))
        segments = planned(self._policy, environments, self._obs)
        deviations = (
            cast(Explorable, env).deviation(part)
            for env, part in zip(environments, noise, strict=True)
        )
        return self._vector.execute([s + d for s, d in zip(segments, deviations, strict=True)])

    def evaluate(self, seeds: Sequence[int]) -> list[Episode]:
        """Run one deterministic episode per seed."""
        self._update_policy()
        return run_episodes(self._vector, self._policy, seeds)

    def _update_policy(self) -> None:
        self._policy.flat[:] = self._block.flat
        self._policy.mean[:] = self._block.mean
        self._policy.variance[:] = self._block.variance

    def _reset(self, i: int) -> None:
        e = self._mine[i]
        number = int(self._block.episodes[e])
        self._block.episodes[e] += 1
        key = np.random.SeedSequence([self._plan.seed, _START, e, number])
        obs, _ = self._vector.envs[i].reset(seed=int(key.generate_state(1)[0]) >> 1)
        self._check(obs, np.zeros(1), e)
        self._obs[i] = obs
        self._returns[i] = 0.0

    def _check(self, obs: Array, rewards: Array, environment: int) -> None:
        if np.isfinite(obs).all() and np.isfinite(rewards).all():
            return
        fields = field_slices(self._plan.spec.observation)
        names = [f.name for f, where in fields if not np.isfinite(obs[where]).all()]
        what = f"observation {', '.join(names)}" if names else "reward"
        raise TrainingError(f"environment {environment}: {what} is not finite")
