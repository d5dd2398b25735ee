# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Dyn-E: twin delayed deterministic policy gradients (TD3) in an embedding of actions.

The embedding is learnt first, from random motion (:mod:`ndp_ros.training.baselines.embedding`).
Each action of the learner is a point in it, which decodes to the k displacements of a window. The
control steps of random motion count as samples.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ndp_ros.errors import TrainingError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import LOG_STD, Array, initial_tensors
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.tasks.actions.embedding import PREFIX
from ndp_ros.training.baselines.embedding import learn_embedding, load_decoder, save_decoder
from ndp_ros.training.baselines.off_policy import UNIFORM, Td3Run
from ndp_ros.training.config import DynEConfig, RunConfig
from ndp_ros.training.directory import RunDirectory, State
from ndp_ros.training.logs import ProgressLine, Watch
from ndp_ros.training.rollouts import Rollouts
from ndp_ros.training.worker import Plan

EMBEDDING = "embedding.safetensors"
"""File of the decoder in a run directory."""


class DynERun(Td3Run):
    """A run of Dyn-E: the embedding first, then TD3 in it.

    The policy's specification is that of an actor in the embedding, with one action per window.
    """

    def __init__(
        self, config: RunConfig, spec: PolicySpec, directory: RunDirectory, resume: bool
    ) -> None:
        k = config.choice.k
        windows = -(-config.dyne.random_steps // (k * config.environments))
        before = windows * config.environments * k
        if config.samples <= before:
            raise TrainingError(
                f"samples is {config.samples}, and random motion takes {before} of them: "
                "raise --samples or lower --random-steps"
            )
        self._outer = dataclasses.replace(spec, method="ppo-multi")
        super().__init__(config, embedded(spec, config.dyne), directory, resume)
        self._random_windows, self.samples_before = windows, before
        self.batches = -(-(config.samples - before) // self.samples_per_batch)
        self._file = directory.folder / EMBEDDING
        self._decoder: dict[str, Array] = {}

    def run(self, quiet: bool = False, watch: Watch | None = None) -> None:
        """Learn the embedding unless the run has one, then train to the end."""
        if not self._file.exists():
            save_decoder(self._file, self._embed(quiet))
        self._decoder = load_decoder(self._file)
        self._choice = dataclasses.replace(self._choice, embedding=str(self._file))
        super().run(quiet, watch)

    def _embed(self, quiet: bool) -> dict[str, Array]:
        """Learn an embedding from random motion."""
        config, dyne = self.config, self.config.dyne
        bound = action_bound(config)
        spec = dataclasses.replace(self._outer, k=config.choice.k)
        tensors = initial_tensors(spec, config.seed)
        idle = {name: np.zeros_like(tensor) for name, tensor in tensors.items()}
        idle["normaliser.variance"] += 1.0
        idle[LOG_STD] += np.log(UNIFORM * bound[0]).astype(np.float32)
        plan = Plan.of(config, spec, self._random_windows)
        steps = dyne.embedding_steps + dyne.decoder_steps
        title = f"{config.task} {config.method} seed {config.seed}: embedding"
        with ProgressLine(title, steps, quiet=quiet, unit="steps") as line:
            line.show(0, [("random control steps", str(self.samples_before))])
            with Rollouts(plan) as rollouts:
                rollouts.publish(ArrayPolicy(spec, idle))
                rollouts.collect(0, fresh=True)
                block = rollouts.block
                # next_obs of a window that ends its episode is the end, not the next start.
                obs, next_obs = (
                    a.reshape(-1, a.shape[-1]).copy() for a in (block.obs, block.next_obs)
                )
                actions = block.actions.reshape(-1, *block.actions.shape[2:]).copy()

            def progress(done: int, name: str, error: float) -> None:
                line.show(done, [(name, f"{error:.3f}")])

            return learn_embedding(
                obs, actions, next_obs, bound, dyne, config.seed, progress, config.device
            )

    def _state(self) -> State:
        """Add the decoder, so that a checkpoint can be evaluated without its run."""
        state = super()._state()
        state.arrays.update({PREFIX + name: tensor for name, tensor in self._decoder.items()})
        return state


def embedded(spec: PolicySpec, dyne: DynEConfig) -> PolicySpec:
    """Return the specification of an actor in the embedding of a task's windows."""
    size = dyne.embedding_size or spec.dof
    return dataclasses.replace(
        spec,
        method="bounded",
        joint_names=tuple(f"embedding_{i}" for i in range(size)),
        action_scale=(1.0,) * size,
        control_dt=spec.k * spec.control_dt,
        k=1,
    )


def action_bound(config: RunConfig) -> Array:
    """Return the largest displacements ``(k, dof)`` of an action space, 1 where unbounded."""
    env: Any = config.choice.make()
    high = np.asarray(env.action_space.high, np.float64)
    env.close()
    return np.where(np.isfinite(high), high, 1.0)
