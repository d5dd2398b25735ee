"""A run of a study: trained from wherever it stopped, and its checkpoints measured afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ndp_ros import checkpoint
from ndp_ros.errors import TrainingError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.training.directory import CONFIG, acting_choice
from ndp_ros.training.environment import crowd
from ndp_ros.training.evaluation import run_episodes, summarise
from ndp_ros.training.experiment import RunConfig
from ndp_ros.training.run import train

FIRST_SEED = 1000
"""First start state of the episodes after the end of a run."""

_SIDE_BY_SIDE = 10


@dataclass(frozen=True)
class Probe:
    """A finished run's last checkpoint under other conditions."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task on top of the run's."""
    m: int | None = None
    """Euler steps a segment, for a system that runs on a finer grid than it was trained on."""
    episodes: int | None = None
    first_seed: int = FIRST_SEED


def go_on(config: RunConfig, run: Path, command: str, say: Callable[[str], None]) -> Path:
    """Train in a run directory, from wherever an earlier attempt stopped; return it."""

    def watch(row: dict[str, Any]) -> None:
        success = row.get("success")
        shown = "" if success is None else f", success {success:.2f}"
        say(f"{row['samples']} of {row['total']} samples{shown}")

    if run.exists() and not (run / CONFIG).exists():
        shutil.rmtree(run)
    train(config, run, (run / CONFIG).exists(), command, quiet=True, watch=watch)
    return run


def measure(
    config: RunConfig,
    folder: Path,
    episodes: int,
    first_seed: int = FIRST_SEED,
    options: Mapping[str, Any] | None = None,
    m: int | None = None,
) -> dict[str, Any]:
    """Return the figures of a checkpoint over start states of their own.

    Args:
        config: The run.
        folder: The checkpoint.
        episodes: Number of episodes.
        first_seed: First start state.
        options: Options of the task on top of the run's.
        m: Euler steps a segment instead of the checkpoint's.
    """
    saved = checkpoint.load(folder)
    spec = saved.spec if m is None else replace(saved.spec, dmp=replace(saved.spec.dmp, m=m))
    if episodes < 1:
        raise TrainingError(f"episodes is {episodes}, expected at least 1")
    choice = acting_choice(config, folder)
    envs = [choice.make(**(options or {})) for _ in range(min(_SIDE_BY_SIDE, episodes))]
    try:
        policy = ArrayPolicy(spec, saved.tensors)
        done = run_episodes(envs, crowd(envs), policy, range(first_seed, first_seed + episodes))
    finally:
        for env in envs:
            env.close()
    return {"checkpoint": saved.id, "at": saved.provenance.get("samples"), **summarise(done)}
