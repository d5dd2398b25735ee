# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Demonstrations: observations and actions of an expert, in one file in safetensors format.

Reading a file executes nothing. It holds n windows of m episodes::

    observations   (n, n_obs)   float64   raw, at the start of each window
    actions        (n, k, dof)  float64   displacements in units of action_scale
    starts         (m + 1,)     int64     first window of each episode, then n
    returns        (m,)         float64
    success        (m,)         uint8
    seeds          (m,)         int64     start states

Its metadata holds ``schema`` and, as JSON, ``spec`` (the expert's ``PolicySpec``) and
``source`` (the expert's checkpoint id and the noise it acted with).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.numpy
from safetensors import SafetensorError

from ndp_ros.config import from_mapping, to_mapping
from ndp_ros.errors import ConfigError, TrainingError
from ndp_ros.files import write_output
from ndp_ros.observation import observation_size
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import Array
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.tasks.contract import Step, TaskEnvironment
from ndp_ros.training.evaluation import Actor, Episode, make_actor, run_episode

SCHEMA = "1"


@dataclass(frozen=True)
class Demonstrations:
    """Episodes of an expert; arrays have the shapes of the file.

    Attributes:
        spec: Specification of the expert's policy.
        source: Record of the expert: its checkpoint or script, and its noise.
    """

    spec: PolicySpec
    source: dict[str, Any]
    observations: Array
    actions: Array
    starts: Array
    returns: Array
    success: Array
    seeds: Array

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.returns)

    def windows(self, episodes: Iterable[int]) -> Array:
        """Return the indices of the windows of the given episodes."""
        parts = [np.arange(self.starts[e], self.starts[e + 1]) for e in episodes]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def save(self, path: Path) -> None:
        """Write the file.

        Raises:
            TrainingError: If it cannot be written.
        """
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _SHAPES}
        metadata = {
            "schema": SCHEMA,
            "spec": json.dumps(to_mapping(self.spec)),
            "source": json.dumps(self.source),
        }
        try:
            write_output(path, safetensors.numpy.save(tensors, metadata))
        except OSError as error:
            raise TrainingError(f"cannot write {path}: {error.strerror}") from error


_SHAPES: dict[str, Callable[[int, int, PolicySpec], tuple[int, ...]]] = {
    "observations": lambda n, m, s: (n, observation_size(s.observation)),
    "actions": lambda n, m, s: (n, s.k, s.dof),
    "starts": lambda n, m, s: (m + 1,),
    "returns": lambda n, m, s: (m,),
    "success": lambda n, m, s: (m,),
    "seeds": lambda n, m, s: (m,),
}


def load(path: Path) -> Demonstrations:
    """Read and check a file.

    Raises:
        TrainingError: If it is missing, damaged, of another schema, or inconsistent.
    """
    if not path.is_file():
        raise TrainingError(f"no file of demonstrations {path}")
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise TrainingError(f"{path} is truncated or damaged: {problem}") from error
    if metadata.get("schema") != SCHEMA:
        raise TrainingError(f"{path} has schema {metadata.get('schema')!r}, this reads {SCHEMA}")
    try:
        spec = from_mapping(PolicySpec, json.loads(metadata["spec"]), source=str(path))
        source = json.loads(metadata["source"])
    except (KeyError, ValueError, ConfigError) as error:
        raise TrainingError(f"{path}: its description is damaged: {error}") from error
    if set(arrays) != set(_SHAPES):
        raise TrainingError(f"{path} holds {sorted(arrays)}, expected {sorted(_SHAPES)}")
    n, m = len(arrays["observations"]), len(arrays["returns"])
    for name, shape in _SHAPES.items():
        if arrays[name].shape != shape(n, m, spec):
            raise TrainingError(
                f"{path}: {name} has shape {arrays[name].shape}, expected {shape(n, m, spec)}"
            )
        if not np.isfinite(arrays[name]).all():
            raise TrainingError(f"{path}: {name} has values that are not finite")
    starts = arrays["starts"]
    if starts[0] != 0 or starts[-1] != n or (np.diff(starts) <= 0).any():
        raise TrainingError(f"{path}: starts do not increase from 0 to the number of windows")
    return Demonstrations(spec, source, **arrays)


class Expert(Protocol):
    """A policy or script that can be recorded."""

    spec: PolicySpec

    @property
    def std(self) -> Array:
        """Standard deviation of its exploration, in units of ``action_scale``."""
        ...

    def means(self, obs: Array) -> Array:
        """Return the mean actions ``(batch, k, dof)`` for raw observations."""
        ...


def collect(
    policy: Expert,
    env: TaskEnvironment,
    seeds: Iterable[int],
    source: dict[str, Any],
    noise: float = 0.0,
    watch: Callable[[Episode], None] = lambda episode: None,
) -> Demonstrations:
    """Record episodes of an expert, one from each seed.

    With noise the expert acts with that part of its standard deviation while its mean actions are
    recorded, so that the demonstrations show how to recover from deviations. ``watch`` is called
    with the figures of each episode.

    Raises:
        TrainingError: If there are no seeds.
    """
    recorder = _Recorder(policy, noise)
    starts, episodes = [0], []
    for seed in seeds:
        recorder.rng = np.random.default_rng([seed, 7])
        episodes.append(run_episode(env, recorder, seed))
        starts.append(len(recorder.observations))
        watch(episodes[-1])
    if not episodes:
        raise TrainingError("no episode to collect")
    return Demonstrations(
        spec=policy.spec,
        source={**source, "noise": noise},
        observations=np.array(recorder.observations),
        actions=np.array(recorder.actions, np.float64),
        starts=np.array(starts, np.int64),
        returns=np.array([e["return"] for e in episodes]),
        success=np.array([bool(e["success"]) for e in episodes], np.uint8),
        seeds=np.array([e["seed"] for e in episodes], np.int64),
    )


def require_windows(spec: PolicySpec, k: int, every: int) -> None:
    """Check that demonstrations of an expert can be regrouped, as by :func:`regroup`.

    Raises:
        TrainingError: If the expert's windows are longer than one control step.
    """
    if spec.k == 1 or (spec.k, every or k) == (k, k):
        return
    if spec.k == k:
        raise TrainingError(f"every is {every}, but the expert sees one step in {k}: leave it out")
    raise TrainingError(f"k is {k}, but the expert's windows have k = {spec.k}: leave it out")


def regroup(data: Demonstrations, k: int, every: int = 0) -> Demonstrations:
    """Return demonstrations in windows of k control steps, from an expert with k = 1.

    A window has the observation of its first control step and the actions of all k. One starts
    ``every`` so many control steps; with 0 they do not overlap. Control steps at the end of an
    episode that fill no window are dropped.

    Raises:
        TrainingError: If the expert's windows are longer, or an episode is shorter than k.
    """
    every = every or k
    if (data.spec.k, every) == (k, k):
        return data
    require_windows(data.spec, k, every)
    lengths = (np.diff(data.starts) - k) // every + 1
    if (lengths < 1).any():
        raise TrainingError(f"an episode has fewer than k = {k} control steps")
    spans = zip(data.starts, lengths, strict=False)
    first = np.concatenate([start + every * np.arange(n) for start, n in spans])
    return replace(
        data,
        spec=replace(data.spec, method="ppo-multi", k=k),
        observations=data.observations[first],
        actions=data.actions[first[:, None] + np.arange(k), 0],
        starts=np.concatenate(([0], np.cumsum(lengths))),
    )


class _Recorder:
    """An actor that records observations and mean actions of an expert."""

    def __init__(self, policy: Expert, noise: float) -> None:
        self.observations: list[Array] = []
        self.actions: list[Array] = []
        self.rng = np.random.default_rng(0)
        self._policy = policy
        self._std = noise * policy.std
        self._actor: Actor | None = None
        if isinstance(policy, ArrayPolicy) and not self._std.any():
            self._actor = make_actor(policy)  # an NDP acts by its segment

    def __call__(self, env: TaskEnvironment, obs: Array) -> Step:
        means = self._policy.means(obs[None])[0].astype(np.float64)
        self.observations.append(obs.copy())
        self.actions.append(means)
        if self._actor is not None:
            return self._actor(env, obs)
        return env.step(means + self._std * self.rng.standard_normal(means.shape))
