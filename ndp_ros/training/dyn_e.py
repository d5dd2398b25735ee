"""Dyn-E: twin delayed deterministic policy gradients (TD3) in an embedding of actions.

The embedding is learnt once, before everything else, from random motion
(:mod:`ndp_ros.training.embedding`); then each action of the learner is a point of it that
decodes to the k displacements of a window. Random motion counts as samples.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ndp_ros.errors import TrainingError
from ndp_ros.policies import make_policy
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import LOG_STD, initial_tensors
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.tasks.embedding import PREFIX
from ndp_ros.training.descent import descend
from ndp_ros.training.directory import RunDirectory, State
from ndp_ros.training.embedding import learn_embedding, load_decoder, save_decoder
from ndp_ros.training.experiment import DynEConfig, RunConfig
from ndp_ros.training.logs import ProgressLine, Watch
from ndp_ros.training.off_policy import Learner, SacRun
from ndp_ros.training.rollouts import Plan, Rollouts
from ndp_ros.training.trainer import AnyRollouts

Array = NDArray[Any]

EMBEDDING = "embedding.safetensors"
"""The decoder's file in a run's directory."""

_UNIFORM = 1.0 / math.sqrt(3.0)
"""Deviation of the uniform distribution over [-1, 1]."""


class TwinDelayed(nn.Module):
    """An actor, two critics and the targets of all three.

    Attributes:
        largest: Largest embedded action, which is one unit of an action.
    """

    def __init__(self, spec: PolicySpec, config: RunConfig, dyne: DynEConfig) -> None:
        super().__init__()
        sac = config.sac
        self.actor = make_policy(spec, seed=config.seed)
        n_obs = self.actor.normaliser.mean.numel()
        self._repeat = max(1, n_obs // 2 // spec.dof)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.critics = nn.ModuleList(
                _critic(n_obs + self._repeat * spec.dof, sac.critic_hidden) for _ in range(2)
            )
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.target_actor = copy.deepcopy(self.actor.actor).requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.largest = 1.0
        self._config, self._k = dyne, config.k
        self._gamma_k = config.ppo.gamma**config.k
        self._target_rate = sac.target_rate
        self.optimisers = {
            "actor": torch.optim.Adam(self.actor.actor.parameters(), lr=sac.actor_rate, fused=True),
            "critics": torch.optim.Adam(self.critics.parameters(), lr=sac.critic_rate, fused=True),
        }

    steps: Tensor

    def values(self, critics: Iterable[nn.Module], obs: Tensor, actions: Tensor) -> Tensor:
        """Return critics' values ``(n, b)``; actions repeat until they weigh as states do."""
        x = torch.cat((self.actor.normaliser(obs), actions.repeat(1, self._repeat)), dim=1)
        return torch.stack([critic(x)[:, 0] for critic in critics])

    def following(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """Return the target actor's actions ``(b, m)`` with clipped noise on them."""
        actions = torch.tanh(self.target_actor(self.actor.normaliser(obs)))
        clip = self._config.target_clip / self.largest
        noise = (
            self._config.target_noise / self._k * torch.randn(actions.shape, generator=generator)
        )
        return (actions + noise.clamp(-clip, clip)).clamp(-1.0, 1.0)

    def learn(
        self, batch: dict[str, Tensor], scale: float, generator: torch.Generator
    ) -> dict[str, float]:
        """Take one gradient step of the critics, and every so often one of the actor.

        Args:
            batch: Windows of the memory.
            scale: What rewards are divided by.
            generator: Source of the target actor's noise.

        Returns:
            Losses: of the critics, and of the actor when it is due.

        Raises:
            TrainingError: If a loss is not finite.
        """
        obs, next_obs = batch["obs"], batch["next_obs"]
        with torch.no_grad():
            ahead = self.values(self.targets, next_obs, self.following(next_obs, generator))
            goal = batch["rewards"] / scale + self._gamma_k * batch["going_on"] * ahead.amin(0)
        actions = batch["actions"].flatten(1).clamp(-1.0, 1.0)
        critic_loss = ((self.values(self.critics, obs, actions) - goal) ** 2).mean(1).sum()
        descend(self.optimisers["critics"], critic_loss, "critics", "critic_rate")

        figures = {"value_loss": critic_loss.item()}
        if int(self.steps) % self._config.actor_every == 0:
            chosen = self.actor.means(obs).flatten(1)
            actor_loss = -self.values(self.critics[:1], obs, chosen).mean()
            descend(self.optimisers["actor"], actor_loss, "actor", "actor_rate")
            figures["policy_loss"] = actor_loss.item()
            self._follow()
        self.steps += 1
        return figures

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the targets a little towards what they are targets of."""
        for targets, models in (
            (self.targets, self.critics),
            (self.target_actor, self.actor.actor),
        ):
            for target, model in zip(targets.parameters(), models.parameters(), strict=True):
                target.lerp_(model, self._target_rate)


class DynERun(SacRun):
    """A run of Dyn-E: the embedding first, then TD3 in place of soft actor-critic.

    The policy's specification is that of the embedding: one action a window.
    """

    _learner: TwinDelayed

    def __init__(
        self, config: RunConfig, spec: PolicySpec, directory: RunDirectory, resume: bool
    ) -> None:
        k = config.choice.k
        windows = -(-config.dyne.random_steps // (k * config.environments))
        before = windows * config.environments * k
        if config.samples <= before:
            raise TrainingError(
                f"samples is {config.samples}, and random motion alone takes {before}: "
                "allowed is more than that; raise --samples or lower --random-steps"
            )
        self._outer = dataclasses.replace(spec, method="ppo-multi")
        super().__init__(config, embedded(spec, config.dyne), directory, resume)
        self._random_windows, self.before = windows, before
        self.batches = -(-(config.samples - before) // self.samples_per_batch)
        self._file = directory.folder / EMBEDDING
        self._decoder: dict[str, Array] = {}

    def go(self, quiet: bool = False, watch: Watch | None = None) -> None:
        """Learn the embedding if there is none yet, then run to the end."""
        if not self._file.exists():
            save_decoder(self._file, self._embed(quiet))
        self._decoder = load_decoder(self._file)
        self._learner.largest = float(self._decoder["largest"][0])
        self._choice = dataclasses.replace(self._choice, embedding=str(self._file))
        super().go(quiet, watch)

    def _make_learner(self) -> Learner:
        return TwinDelayed(self.spec, self.config, self.config.dyne)

    def _embed(self, quiet: bool) -> dict[str, Array]:
        """Move at random and learn an embedding from it."""
        config, dyne = self.config, self.config.dyne
        bound = action_bound(config)
        spec = dataclasses.replace(self._outer, k=config.choice.k)
        tensors = initial_tensors(spec, config.seed)
        idle = {name: np.zeros_like(tensor) for name, tensor in tensors.items()}
        idle["normaliser.variance"] += 1.0
        idle[LOG_STD] += np.log(_UNIFORM * bound[0]).astype(np.float32)
        plan = Plan(
            config.choice, spec, config.seed, config.environments, self._random_windows,
            config.processes,
        )  # fmt: skip
        steps = dyne.embedding_steps + dyne.decoder_steps
        title = f"{config.task} {config.method} seed {config.seed}: embedding"
        with ProgressLine(title, steps, quiet=quiet, unit="steps") as line:
            line.show(0, [("random control steps", str(self.before))])
            with Rollouts(plan) as rollouts:
                rollouts.publish(ArrayPolicy(spec, idle))
                rollouts.collect(0, fresh=True)
                block = rollouts.block
                # A window that ends its episode shows the end, not the next start.
                obs, next_obs = (
                    a.reshape(-1, a.shape[-1]).copy() for a in (block.obs, block.next_obs)
                )
                actions = block.actions.reshape(-1, *block.actions.shape[2:]).copy()
            return learn_embedding(
                obs, actions, next_obs, bound, dyne, config.seed,
                lambda done, what: line.show(done, [(what.rpartition(" ")[0], what.split()[-1])]),
            )  # fmt: skip

    def _publish(self, rollouts: AnyRollouts) -> None:
        """Give the workers the actor, with a deviation as wide as chance while warming up."""
        deviation = _UNIFORM if self._warming_up else self.config.dyne.exploration
        self._learner.actor.log_std.data.fill_(math.log(deviation))
        super()._publish(rollouts)

    def _state(self) -> State:
        """Add the decoder, so that a checkpoint can be evaluated wherever it is."""
        state = super()._state()
        state.arrays.update({PREFIX + name: tensor for name, tensor in self._decoder.items()})
        return state


def embedded(spec: PolicySpec, dyne: DynEConfig) -> PolicySpec:
    """Return the specification of an actor in the embedding for a task's own specification."""
    size = dyne.embedding_size or spec.dof
    return dataclasses.replace(
        spec,
        method="bounded",
        joint_names=tuple(f"embedding_{i}" for i in range(size)),
        action_scale=(1.0,) * size,
        control_dt=spec.k * spec.control_dt,
        k=1,
        init_log_std=math.log(dyne.exploration),
    )


def action_bound(config: RunConfig) -> Array:
    """Return the largest displacements (k, dof) of a task's action space, 1 where it has none."""
    env: Any = config.choice.make()
    high = np.asarray(env.action_space.high, np.float64)
    env.close()
    return np.where(np.isfinite(high), high, 1.0)


def _critic(inputs: int, hidden: tuple[int, ...]) -> nn.Sequential:
    """Return a critic with ReLU between its layers."""
    layers: list[nn.Module] = []
    for a, b in zip((inputs, *hidden), hidden, strict=False):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 1))
