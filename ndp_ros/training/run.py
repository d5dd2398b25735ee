"""A training run and its directory.

::

    <run>/config.yaml        what was asked for
    <run>/provenance.json    commit, versions, machine, command
    <run>/progress.csv       one row a batch
    <run>/tensorboard/       the same for TensorBoard
    <run>/checkpoints/<samples>/   a checkpoint and, in the newest, the trainer's state
    <run>/checkpoints/last, best   links to two of them

A checkpoint is written every so many batches, and the environments start new episodes
after it. Nothing but counters, parameters and statistics crosses that boundary, so a
resumed run computes the same numbers as one that was never interrupted.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import yaml
from safetensors import SafetensorError

from ndp_ros import checkpoint
from ndp_ros.config import from_mapping, read_yaml, to_mapping
from ndp_ros.errors import CheckpointError, TrainingError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import LOG_STD, initial_tensors
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.evaluation import Episode, plain, summarise
from ndp_ros.training.experiment import RunConfig, differences, make_spec, provenance
from ndp_ros.training.logs import ProgressLine, RunLog
from ndp_ros.training.ppo import Learner, make_batch
from ndp_ros.training.rollouts import Plan, Rollouts
from ndp_ros.training.statistics import Moments, RewardScale

CONFIG = "config.yaml"
PROVENANCE = "provenance.json"
CHECKPOINTS = "checkpoints"
LAST, BEST = "last", "best"
STATE, COUNTERS = "training.safetensors", "training.json"

_EVALUATION_SEED = 1 << 30
"""First start state of evaluations; training draws others with near certainty."""

_SHUFFLE = 3
"""Key of the generator that orders minibatches."""


def train(
    config: RunConfig, folder: Path, resume: bool = False, command: str = "", quiet: bool = False
) -> Path:
    """Train a policy and return the folder of the last checkpoint.

    Args:
        config: What to train. When resuming, it must equal the run's own except for
            ``samples`` and ``workers``.
        folder: The run directory; new or empty unless resuming.
        resume: Go on from the last checkpoint.
        command: What the user typed, for the record.
        quiet: Show no progress.

    Raises:
        TrainingError: If the directory cannot be used, a worker dies, a number is not
            finite or the disk refuses; the last checkpoint is intact.
    """
    run = Run(config, Path(folder), resume, command)
    try:
        run.go(quiet)
    except OSError as error:
        raise TrainingError(
            f"cannot write to {folder}: {error.strerror}; the last checkpoint is intact"
        ) from error
    return run.checkpoints / LAST


class Run:
    """The state of a run between two batches."""

    def __init__(self, config: RunConfig, folder: Path, resume: bool, command: str) -> None:
        self.config = config
        self.folder = folder
        self.checkpoints = folder / CHECKPOINTS
        self.batch = 0
        self.episodes = 0
        self.best = -1.0
        self._seconds = 0.0
        self._command = command
        env = config.choice.make()
        try:
            self.spec: PolicySpec = make_spec(config, env)
        finally:
            env.close()
        self._prepare(resume)
        self.policy = ArrayPolicy(self.spec, initial_tensors(self.spec, config.seed))
        self.learner = Learner(self.policy, config.ppo)
        self.moments = Moments(len(self.policy.mean))
        self.reward_scale = RewardScale(config.environments, config.ppo.gamma)
        self.episode_numbers: Any = np.zeros(config.environments, np.int64)
        if resume:
            self._restore()

    @property
    def samples(self) -> int:
        """Control steps taken so far."""
        return self.batch * self.config.samples_per_batch

    def go(self, quiet: bool = False) -> None:
        """Run to the end."""
        config = self.config
        plan = Plan(
            config.choice, self.spec, config.seed, config.environments, config.windows,
            config.processes,
        )  # fmt: skip
        total = config.batches * config.samples_per_batch
        title = f"{config.task} {config.method} seed {config.seed}"
        with (
            contextlib.closing(RunLog(self.folder, self.samples)) as log,
            Rollouts(plan) as rollouts,
            ProgressLine(title, total, self.samples, quiet) as line,
        ):
            rollouts.block.episodes[:] = self.episode_numbers
            while self.batch < config.batches:
                start = time.monotonic()
                row = self._one_batch(rollouts)
                due = self.batch % config.checkpoint_every == 0 or self.batch == config.batches
                if due:
                    row |= self._evaluate(rollouts)
                spent = time.monotonic() - start
                self._seconds += spent
                row |= {
                    "seconds": self._seconds,
                    "samples_per_second": config.samples_per_batch / spent,
                }
                log.write(row)
                if due:
                    self.episode_numbers = rollouts.block.episodes.copy()
                    self._save(row)
                line.show(self.samples, _figures(row))

    def _one_batch(self, rollouts: Rollouts) -> dict[str, Any]:
        """Collect, learn and return the row of the log."""
        config, policy, block = self.config, self.policy, rollouts.block
        fresh = self.batch % config.checkpoint_every == 0
        if fresh:
            self.reward_scale.cut()
        rollouts.publish(policy)
        episodes = rollouts.collect(self.batch, fresh)
        rewards = block.rewards
        if config.ppo.normalise_returns:
            rewards = self.reward_scale(block.rewards, block.ended)
        shape = block.rewards.shape
        flat_obs = block.obs.reshape(-1, block.obs.shape[-1])
        values = policy.values(flat_obs).reshape(shape).astype(np.float64)
        ahead = policy.values(block.next_obs.reshape(flat_obs.shape))[:, 0]
        batch = make_batch(
            policy, block.obs, block.actions, rewards, values, ahead.reshape(shape[:2]),
            block.terminated, block.ended, config.ppo,
        )  # fmt: skip
        row: dict[str, Any] = {"explained_variance": _explained(batch.values, batch.returns)}
        learns = self.batch > 0 or not config.ppo.normalise_observations
        if learns:
            rng = np.random.default_rng([config.seed, _SHUFFLE, self.batch])
            row |= self.learner.update(batch, rng, self.batch / config.batches)
        if config.ppo.normalise_observations:
            self.moments.update(flat_obs)
            policy.mean[:], policy.variance[:] = self.moments.mean, self.moments.variance
        self.batch += 1
        self.episodes += len(episodes)
        means = summarise(episodes) if episodes else {}
        return row | {
            "samples": self.samples,
            "observed": self.samples // self.spec.k,
            "episodes": self.episodes,
            "success": means.get("success_rate"),
            **{n: means.get(n) for n in ("return", *_EPISODE_FIGURES)},
            "std": float(np.exp(policy.parameters[LOG_STD]).mean()),
        }

    def _evaluate(self, rollouts: Rollouts) -> dict[str, Any]:
        n = self.config.evaluation_episodes
        if n == 0:
            return {}
        rollouts.publish(self.policy)
        episodes: list[Episode] = rollouts.evaluate(range(_EVALUATION_SEED, _EVALUATION_SEED + n))
        means = summarise(episodes)
        self._evaluation = means
        names = ("return", *_EPISODE_FIGURES)
        return {"eval_success": means["success_rate"], **{f"eval_{n}": means.get(n) for n in names}}

    # The directory.

    def _prepare(self, resume: bool) -> None:
        """Check or make the run directory."""
        if resume:
            try:
                saved = from_mapping(RunConfig, read_yaml(self.folder / CONFIG), str(self.folder))
            except Exception as error:
                raise TrainingError(f"cannot resume {self.folder}: {error}") from error
            changed = [
                n for n in differences(saved, self.config) if n not in ("samples", "workers")
            ]
            if changed:
                raise TrainingError(
                    f"{self.folder} was started with another {', '.join(changed)}: "
                    "resume with the same configuration, or start a new run with --out"
                )
            return
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise TrainingError(f"{self.folder} exists: add --resume, or name another with --out")
        origin = {**provenance(), "command": self._command, "started": _now()}
        try:
            self.checkpoints.mkdir(parents=True)
            (self.folder / PROVENANCE).write_text(json.dumps(origin, indent=1) + "\n")
            text = yaml.safe_dump(to_mapping(self.config), sort_keys=False)
            (self.folder / CONFIG).write_text(text)
        except OSError as error:
            raise TrainingError(f"cannot write to {self.folder}: {error.strerror}") from error

    def _save(self, row: dict[str, Any]) -> None:
        """Write a checkpoint with the trainer's state and move the links to it."""
        name = f"{self.samples:09d}"
        state = {
            "adam.m": self.learner.adam.m,
            "adam.v": self.learner.adam.v,
            "flat": self.policy.flat,
            "episode_numbers": self.episode_numbers,
            **{f"moments.{n}": a for n, a in self.moments.state().items()},
            **{f"reward_scale.{n}": a for n, a in self.reward_scale.state().items()},
        }
        success = row.get("eval_success")
        better = success is None or success >= self.best
        self.best = max(self.best, -1.0 if success is None else success)
        counters = {
            "batch": self.batch,
            "episodes": self.episodes,
            "adam_steps": self.learner.adam.steps,
            "best": self.best,
            "seconds": self._seconds,
        }
        origin = {
            **provenance(),
            "command": self._command,
            "config": to_mapping(self.config),
            "seed": self.config.seed,
            "samples": self.samples,
            "evaluation": plain(getattr(self, "_evaluation", None)),
        }
        folder = self.checkpoints / name
        checkpoint.save(
            folder, self.spec, self.policy.tensors(), origin,
            extra={
                STATE: safetensors.numpy.save(
                    {n: np.ascontiguousarray(a) for n, a in state.items()}
                ),
                COUNTERS: json.dumps(counters).encode(),
            },
        )  # fmt: skip
        if better:
            _link(self.checkpoints / BEST, name)
        _link(self.checkpoints / LAST, name)
        self._prune()

    def _prune(self) -> None:
        """Keep what a link points to; nothing else is needed."""
        kept = {p.readlink().name for p in self.checkpoints.iterdir() if p.is_symlink()}
        for path in self.checkpoints.iterdir():
            if path.is_dir() and not path.is_symlink() and path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _restore(self) -> None:
        """Take up the last checkpoint; a run without one starts from the beginning."""
        last = self.checkpoints / LAST
        if not last.is_symlink():
            return
        saved = checkpoint.load(last)
        if saved.spec != self.spec:
            raise TrainingError(f"{last} was made for another policy than this configuration's")
        try:
            state = safetensors.numpy.load_file(last / STATE)
            counters = json.loads((last / COUNTERS).read_text())
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"{last}: the trainer's state is damaged: {error}") from error
        self.policy.flat[:] = state["flat"]
        self.learner.adam.m[:], self.learner.adam.v[:] = state["adam.m"], state["adam.v"]
        self.learner.adam.steps = counters["adam_steps"]
        for part, target in (("moments", self.moments), ("reward_scale", self.reward_scale)):
            names = {n.partition(".")[2]: a for n, a in state.items() if n.startswith(part + ".")}
            target.restore(names)
        if self.config.ppo.normalise_observations:
            self.policy.mean[:] = self.moments.mean
            self.policy.variance[:] = self.moments.variance
        self.episode_numbers = state["episode_numbers"]
        self.batch, self.episodes = counters["batch"], counters["episodes"]
        self.best, self._seconds = counters["best"], counters["seconds"]


_EPISODE_FIGURES = ("saturation", "max_joint_speed", "tracking_rms")


def _explained(values: Any, returns: Any) -> float:
    """Return the part of the returns' variance that the critic explains."""
    spread = float(np.var(returns))
    return 1.0 - float(np.var(returns - values)) / spread if spread > 0.0 else 0.0


def _figures(row: dict[str, Any]) -> list[tuple[str, str]]:
    shown = [("success", row.get("success")), ("eval", row.get("eval_success"))]
    figures = [(name, f"{value:.2f}") for name, value in shown if value is not None]
    return [*figures, ("samples/s", f"{row['samples_per_second']:.0f}")]


def _link(path: Path, target: str) -> None:
    """Point a relative link elsewhere in one step."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target)
    scratch.replace(path)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
