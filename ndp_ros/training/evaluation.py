# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Evaluation of a policy over deterministic episodes, with confidence intervals.

An NDP is executed as on the arm: its segment is sampled at every tick of Ω from the integrator's
setpoint. Other policies act by their mean actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ndp_ros.dmp.segment import Segment, kept_response
from ndp_ros.errors import TaskError
from ndp_ros.observation import field_slice
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import Array
from ndp_ros.tasks.contract import Explorable, Step, TaskEnvironment
from ndp_ros.tasks.vector import VectorTask

Episode = dict[str, Any]
Actor = Callable[[TaskEnvironment, NDArray[np.float64]], Step]

EVALUATION_SEED = 1 << 30
"""First seed of evaluations; training draws other seeds with near certainty."""

EPISODE_FIGURES = ("return", "saturation", "max_joint_speed", "tracking_rms")
"""Figures of an episode besides its success; all but the return need joints."""

_Z95 = 1.959963984540054


def make_actor(policy: ArrayPolicy) -> Actor:
    """Return a function that advances an environment by one window, without noise."""
    spec = policy.spec
    if spec.method != "ndp":
        return lambda env, obs: env.step(policy.means(obs[None])[0].astype(np.float64))

    def follow(env: TaskEnvironment, obs: NDArray[np.float64]) -> Step:
        return env.execute(planned(policy, [env], obs[None])[0])

    return follow


def planned(
    policy: ArrayPolicy, envs: Sequence[TaskEnvironment], obs: Array, amounts: Array | None = None
) -> Array:
    """Return an NDP's setpoints ``(n, n_ticks, 3, dof)`` of one window for every environment.

    A segment starts at the environment's setpoint. If that has moved since its observation
    ``(n_obs,)`` was made, the goal moves with it: a segment is relative to its start, as in the
    streamer. Curve amounts ``(n, *decision)`` may be given instead of the mean ones. All segments
    of one dynamical system are one product with its response.
    """
    spec = policy.spec
    y = origin = obs[:, field_slice(spec.observation, "setpoint")]
    yd = obs[:, field_slice(spec.observation, "setpoint_velocity")]
    if isinstance(envs[0], Explorable):
        starts = [cast(Explorable, env).setpoint for env in envs]
        y, yd = (np.stack(rows) for rows in zip(*starts, strict=True))
    g, w = policy.parameters_of(obs, amounts)
    g = g + (y - origin)
    times, T = envs[0].segment_times, spec.segment_duration
    if spec.learned_alpha:
        each = zip(policy.systems_of(obs), g, w, y, yd, strict=True)
        return np.stack(
            [Segment(dmp, g, w, T).bind(y, yd).setpoints(times) for dmp, g, w, y, yd in each]
        )
    columns = np.empty((3 + spec.dmp.n_basis, *g.shape))
    columns[0], columns[1], columns[2] = y, yd * T, g
    columns[3:] = np.moveaxis(w, 2, 0)
    if spec.dmp.scaled:
        columns[3:] *= g - y
    B = kept_response(spec.dmp, (times / T).tobytes())
    rows = B.reshape(-1, len(columns)) @ columns.reshape(len(columns), -1)
    setpoints = rows.reshape(*B.shape[:2], *g.shape)
    setpoints *= np.array([1.0, 1.0 / T, 1.0 / T**2])[:, None, None, None]
    return setpoints.transpose(2, 1, 0, 3)


class Watcher(Protocol):
    """Somebody who looks on at episodes, such as a video recorder."""

    def begin(self, seed: int) -> None:
        """Look at the start state of an episode."""

    def window(self) -> None:
        """Look at the state after a window."""

    def end(self, outcome: Episode) -> None:
        """Take the figures of an episode that is over."""


class _Running:
    """An episode in progress; ``figures`` are there once it has ended."""

    def __init__(self, env: TaskEnvironment, seed: int) -> None:
        self.seed = seed
        self.obs, _ = env.reset(seed=seed)
        self.figures: Episode | None = None
        self._total, self._windows = 0.0, 0
        self._require_finite()

    def add(self, step: Step) -> None:
        """Take over one window."""
        self.obs, reward, terminated, truncated, info = step
        self._total += reward
        self._windows += 1
        if terminated or truncated:
            totals = {"return": float(self._total), "windows": self._windows}
            self.figures = {"seed": self.seed, **info["outcome"], **totals}
        else:
            self._require_finite()

    def finish(self, env: TaskEnvironment, actor: Actor, watcher: Watcher | None = None) -> Episode:
        """Run the rest of the episode and return its figures."""
        if watcher is not None:
            watcher.begin(self.seed)
        while self.figures is None:
            self.add(actor(env, self.obs))
            if watcher is not None:
                watcher.window()
        if watcher is not None:
            watcher.end(self.figures)
        return self.figures

    def _require_finite(self) -> None:
        if not np.isfinite(self.obs).all():
            raise TaskError(f"episode with seed {self.seed}: an observation is not finite")


def run_episode(
    env: TaskEnvironment, actor: Actor, seed: int, watcher: Watcher | None = None
) -> Episode:
    """Return the figures of one episode, at which a watcher may look on.

    Raises:
        TaskError: If an observation is not finite.
    """
    return _Running(env, seed).finish(env, actor, watcher)


def run_episodes(vector: VectorTask, policy: ArrayPolicy, seeds: Sequence[int]) -> list[Episode]:
    """Return the figures of deterministic episodes of one task, as :func:`run_episode` would.

    Raises:
        TaskError: If an observation is not finite.
    """
    actor, envs = make_actor(policy), vector.envs
    many = len(seeds) // len(envs) * len(envs)
    done: list[Episode] = []
    for first in range(0, many, len(envs)):
        part = seeds[first : first + len(envs)]
        episodes = [_Running(env, int(seed)) for env, seed in zip(envs, part, strict=True)]
        while not any(episode.figures for episode in episodes):
            # One observation at a time: a pass over several has other last bits.
            observed = [episode.obs[None] for episode in episodes]
            if policy.spec.method == "ndp":
                pairs = zip(envs, observed, strict=True)
                steps = vector.execute([planned(policy, [env], obs)[0] for env, obs in pairs])
            else:
                steps = vector.step([policy.means(o)[0].astype(np.float64) for o in observed])
            for episode, step in zip(episodes, steps, strict=True):
                episode.add(step)
        # After the first end the others continue one by one.
        done += [e.finish(env, actor) for e, env in zip(episodes, envs, strict=True)]
    return done + [run_episode(envs[0], actor, int(seed)) for seed in seeds[many:]]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, _Z95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def summarise(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Return the success rate with its interval, and means of the other figures.

    Of a figure whose name starts with ``max_`` it is the largest value.
    """
    n = len(episodes)
    successes = sum(bool(e["success"]) for e in episodes)
    summary: dict[str, Any] = {
        "episodes": n,
        "success_rate": successes / n if n else 0.0,
        "ci95": list(wilson(successes, n)),
    }
    for name in episodes[0] if episodes else ():
        values = [e[name] for e in episodes]
        if name in ("success", "seed") or not all(np.ndim(v) == 0 for v in values):
            continue
        finite = [float(v) for v in values if math.isfinite(float(v))]
        worst = name.startswith("max_")
        if finite:
            summary[name] = max(finite) if worst else sum(finite) / len(finite)
    return summary
