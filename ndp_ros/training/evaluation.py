"""How good a policy is: deterministic episodes, with intervals.

An NDP is judged by what runs on the arm: its segment, sampled at every tick of Ω from
the integrator's own setpoint. Other policies act through their mean actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.segment import Segment
from ndp_ros.errors import TaskError
from ndp_ros.observation import field_slice
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.environment import Crowd, Explorable, Step, TaskEnvironment

Array = NDArray[Any]
Episode = dict[str, Any]
Actor = Callable[[TaskEnvironment, NDArray[np.float64]], Step]

EVALUATION_SEED = 1 << 30
"""First start state of evaluations; training draws others with near certainty."""

EPISODE_FIGURES = ("return", "saturation", "max_joint_speed", "tracking_rms")
"""What every task says of an episode, besides its success."""

_Z95 = 1.959963984540054


def make_actor(policy: ArrayPolicy) -> Actor:
    """Return what advances an environment by one window, deterministically."""
    spec = policy.spec
    if spec.method != "ndp":
        return lambda env, obs: env.step(policy.means(obs[None])[0].astype(np.float64))

    def follow(env: TaskEnvironment, obs: NDArray[np.float64]) -> Step:
        (setpoints,) = planned(policy, [env], obs[None])
        return env.execute(setpoints)

    return follow


def planned(policy: ArrayPolicy, envs: Sequence[TaskEnvironment], obs: Array) -> list[Array]:
    """Return an NDP's setpoints (n_ticks, 3, dof) for every environment.

    Args:
        policy: The NDP.
        envs: The environments, which have the ticks.
        obs: What each observes (n, n_obs).
    """
    g, w = policy.parameters_of(obs)
    each = zip(envs, obs, g, w, policy.systems_of(obs), strict=True)
    return [segment_setpoints(policy.spec, *parts) for parts in each]


def segment_setpoints(
    spec: PolicySpec, env: TaskEnvironment, obs: Array, g: Array, w: Array,
    dmp: DmpConfig | None = None,
) -> Array:  # fmt: skip
    """Return the setpoints (n_ticks, 3, dof) of a segment from the present setpoint.

    Where that has moved on since the observation, the goal moves along: what counts is the
    way from the start, as in the streamer.

    Args:
        spec: The policy's specification.
        env: Environment that has the ticks.
        obs: Observation (n_obs,).
        g: Goal (dof,) [rad].
        w: Weights (dof, N).
        dmp: The segment's own dynamical system, where it is not the policy's.
    """
    y = origin = obs[field_slice(spec.observation, "setpoint")]
    yd = obs[field_slice(spec.observation, "setpoint_velocity")]
    if isinstance(env, Explorable):
        y, yd = env.setpoint
    segment = Segment(dmp or spec.dmp, g + (y - origin), w, spec.segment_duration)
    return segment.bind(y, yd).setpoints(env.segment_times)


def run_episode(
    env: TaskEnvironment, actor: Actor, seed: int, watch: Callable[[], None] | None = None
) -> Episode:
    """Return the figures of one episode.

    Args:
        env: The environment.
        actor: What advances it.
        seed: Start state.
        watch: Called after the reset and after every window, for a video.

    Raises:
        TaskError: If an observation is not finite.
    """
    return _go_on(env, actor, seed, env.reset(seed=seed)[0], 0.0, 0, watch)


def _go_on(
    env: TaskEnvironment, actor: Actor, seed: int, obs: NDArray[np.float64], total: float,
    windows: int, watch: Callable[[], None] | None = None,
) -> Episode:  # fmt: skip
    """Return the figures of an episode that is under way."""
    while True:
        _require_finite(seed, obs)
        if watch is not None:
            watch()
        obs, reward, terminated, truncated, info = actor(env, obs)
        total += reward
        windows += 1
        if terminated or truncated:
            break
    if watch is not None:
        watch()
    return _episode(seed, info, total, windows)


def _episode(seed: int, info: dict[str, Any], total: float, windows: int) -> Episode:
    return {"seed": seed, **info["outcome"], "return": float(total), "windows": windows}


def _require_finite(seed: int, obs: NDArray[np.float64]) -> None:
    if not np.isfinite(obs).all():
        raise TaskError(f"episode with seed {seed}: an observation is not finite")


def run_episodes(
    envs: Sequence[TaskEnvironment], together: Crowd, policy: ArrayPolicy, seeds: Sequence[int]
) -> list[Episode]:
    """Return the figures of deterministic episodes, the same as of :func:`run_episode`.

    Args:
        envs: Environments of one kind.
        together: The same ones as a crowd.
        policy: Who acts.
        seeds: Start states, one an episode.

    Raises:
        TaskError: If an observation is not finite.
    """
    actor, spec = make_actor(policy), policy.spec
    many = len(seeds) // len(envs) * len(envs)
    done: list[Episode] = []
    for first in range(0, many, len(envs)):
        part = [int(seed) for seed in seeds[first : first + len(envs)]]
        observed = [env.reset(seed=seed)[0] for env, seed in zip(envs, part, strict=True)]
        totals, windows = np.zeros(len(envs)), 0
        ended: list[Episode | None] = [None] * len(envs)
        while not any(ended):
            for seed, obs in zip(part, observed, strict=True):
                _require_finite(seed, obs)
            if spec.method == "ndp":
                each = zip(envs, observed, strict=True)
                steps = together.execute([
                    planned(policy, [env], obs[None])[0] for env, obs in each
                ])  # fmt: skip
            else:
                steps = together.step([
                    policy.means(obs[None])[0].astype(np.float64) for obs in observed
                ])  # fmt: skip
            windows += 1
            for e, (obs, reward, terminated, truncated, info) in enumerate(steps):
                observed[e] = obs
                totals[e] += reward
                if terminated or truncated:
                    ended[e] = _episode(part[e], info, totals[e], windows)
        # Where one ends before the others, these go on alone.
        for e, env in enumerate(envs):
            done.append(ended[e] or _go_on(env, actor, part[e], observed[e], totals[e], windows))
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
    """Return the figures of many episodes: success with its interval, means of the rest."""
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


def plain(value: Any) -> Any:
    """Return figures as JSON can hold them; what is not finite becomes null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
