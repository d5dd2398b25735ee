"""NDPs and plain policies trained off-policy: soft actor-critic over windows.

Section 3.4 leaves this open. A window of k actions is one action of the learner: its reward
is the discounted sum of the window's rewards and the next value is discounted k times. The
actor is the same policy that PPO trains, with one deviation a joint; its samples are
squashed around the means into the task's bounds,

    a = bound tanh(artanh(mean / bound) + sigma / bound noise),

so that without noise they are the means themselves, clipped. Roll-outs act with the same
means and deviations, clipped instead of squashed, which an off-policy learner may ignore.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ndp_ros.policies import make_policy
from ndp_ros.policies.actor_critic import ActorCritic
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import initial_tensors
from ndp_ros.policies.networks import Mlp
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.descent import descend
from ndp_ros.training.directory import RunDirectory, State
from ndp_ros.training.experiment import RunConfig
from ndp_ros.training.logs import Row
from ndp_ros.training.rollouts import Block, Plan, Rollouts
from ndp_ros.training.trainer import AnyRollouts, Collector

Array = NDArray[Any]

ACTION_BOUND = 3.0
"""Largest action that the squashed policy takes, in units of ``action_scale``."""

_INSIDE = 0.999
_LOG_STD_RANGE = (-4.0, 1.0)
_LEARN = 6
"""Key of the generators that draw from the memory."""


class Memory:
    """The last windows, each with what it led to; old ones are overwritten."""

    def __init__(self, size: int, n_obs: int, k: int, dof: int) -> None:
        self.arrays: dict[str, Array] = {
            "obs": np.zeros((size, n_obs), np.float32),
            "next_obs": np.zeros((size, n_obs), np.float32),
            "actions": np.zeros((size, k, dof), np.float32),
            "rewards": np.zeros(size, np.float32),
            "going_on": np.zeros(size, np.float32),
        }
        self.size = size
        self.added = 0
        """Windows ever added."""

    @property
    def used(self) -> int:
        """Windows that are there."""
        return min(self.size, self.added)

    def add(self, block: Block, gamma: float) -> None:
        """Take over all windows of a batch."""
        k = block.rewards.shape[-1]
        rows = {
            "obs": block.obs,
            "next_obs": block.next_obs,
            "actions": block.actions,
            "rewards": block.rewards @ gamma ** np.arange(k),
            "going_on": 1.0 - block.terminated,
        }
        n = block.terminated.size
        where = (self.added + np.arange(n)) % self.size
        for name, values in rows.items():
            self.arrays[name][where] = values.reshape(n, *self.arrays[name].shape[1:])
        self.added += n

    def restore(self, arrays: dict[str, Array], added: int) -> None:
        """Take back the windows in use, of as many as were ever added."""
        self.added = added
        for name, array in arrays.items():
            self.arrays[name][: self.used] = array

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        """Return n windows drawn with replacement."""
        index = rng.integers(self.used, size=n)
        return {name: torch.from_numpy(array[index]) for name, array in self.arrays.items()}


class SoftActorCritic(nn.Module):
    """An actor, two critics, their targets and the temperature."""

    def __init__(self, spec: PolicySpec, config: RunConfig) -> None:
        super().__init__()
        sac = config.sac
        self.actor = make_policy(spec, seed=config.seed)
        size = self.actor.normaliser.mean.numel() + spec.k * spec.dof
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.critics = nn.ModuleList(Mlp((size, *sac.critic_hidden, 1)) for _ in range(2))
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(-4.0))
        self._target_entropy = sac.entropy_per_action * spec.k * spec.dof
        self._gamma_k = config.ppo.gamma**spec.k
        self._target_rate = sac.target_rate
        phi = [*self.actor.actor.parameters(), self.actor.log_std]
        self.optimisers = {
            "actor": torch.optim.Adam(phi, lr=sac.actor_rate, fused=True),
            "critics": torch.optim.Adam(self.critics.parameters(), lr=sac.critic_rate, fused=True),
            "temperature": torch.optim.Adam([self.log_temperature], lr=sac.actor_rate),
        }

    def sample(self, obs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return squashed actions ``(b, k, dof)`` and their log-densities ``(b,)``.

        Densities are those of the actions in units of the bound.
        """
        centre = torch.atanh((self.actor.means(obs) / ACTION_BOUND).clamp(-_INSIDE, _INSIDE))
        noise = torch.randn(centre.shape, generator=generator)
        log_std = self.actor.log_std - math.log(ACTION_BOUND)
        raw = centre + log_std.exp() * noise
        squashed = torch.tanh(raw)
        log_normal = -0.5 * (noise**2 + math.log(2.0 * math.pi)) - log_std
        # log(1 - tanh(u)^2) without cancellation
        slope = 2.0 * (math.log(2.0) - raw - nn.functional.softplus(-2.0 * raw))
        return ACTION_BOUND * squashed, (log_normal - slope).sum((1, 2))

    def values(self, critics: nn.ModuleList, obs: Tensor, actions: Tensor) -> Tensor:
        """Return both critics' values ``(2, b)``."""
        x = torch.cat((self.actor.normaliser(obs), actions.flatten(1) / ACTION_BOUND), dim=1)
        return torch.stack([critic(x)[:, 0] for critic in critics])

    def learn(
        self, batch: dict[str, Tensor], scale: float, generator: torch.Generator
    ) -> dict[str, float]:
        """Take one gradient step of everything.

        Args:
            batch: Windows of the memory.
            scale: What rewards are divided by.
            generator: Source of the actor's noise.

        Raises:
            TrainingError: If a loss is not finite.
        """
        temperature = self.log_temperature.exp().detach()
        with torch.no_grad():
            following, log_density = self.sample(batch["next_obs"], generator)
            ahead = self.values(self.targets, batch["next_obs"], following).amin(0)
            soft = ahead - temperature * log_density
            goal = batch["rewards"] / scale + self._gamma_k * batch["going_on"] * soft
        bounded = batch["actions"].clamp(-ACTION_BOUND, ACTION_BOUND)
        critic_loss = ((self.values(self.critics, batch["obs"], bounded) - goal) ** 2).mean()
        descend(self.optimisers["critics"], critic_loss, "critics", "critic_rate")

        actions, log_density = self.sample(batch["obs"], generator)
        worst = self.values(self.critics, batch["obs"], actions).amin(0)
        actor_loss = (temperature * log_density - worst).mean()
        descend(self.optimisers["actor"], actor_loss, "actor", "actor_rate")
        with torch.no_grad():
            self.actor.log_std.clamp_(*_LOG_STD_RANGE)

        surprise = (log_density.detach() + self._target_entropy).mean()
        temperature_loss = -self.log_temperature * surprise
        descend(self.optimisers["temperature"], temperature_loss, "temperature", "actor_rate")
        with torch.no_grad():
            for target, critic in zip(
                self.targets.parameters(), self.critics.parameters(), strict=True
            ):
                target.lerp_(critic, self._target_rate)
        return {
            "policy_loss": actor_loss.item(),
            "value_loss": critic_loss.item(),
            "entropy": -log_density.mean().item(),
        }


class Learner(Protocol):
    """A torch module that learns from windows: an actor and what judges it.

    Attributes:
        actor: The policy that acts.
        optimisers: By name.
    """

    actor: ActorCritic
    optimisers: dict[str, torch.optim.Adam]

    def learn(
        self, batch: dict[str, Tensor], scale: float, generator: torch.Generator
    ) -> dict[str, float]:
        """Take one gradient step and return its figures; not all steps have all."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all tensors by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take all tensors back."""
        ...


class SacRun(Collector):
    """A run of soft actor-critic; one batch is one round of collecting and learning."""

    def __init__(
        self, config: RunConfig, spec: PolicySpec, directory: RunDirectory, resume: bool
    ) -> None:
        torch.set_num_threads(1)
        super().__init__(config, spec, directory, resume)
        self._choice = config.choice
        self._learner = self._make_learner()
        self.policy = ArrayPolicy(spec, initial_tensors(spec, config.seed))
        self._memory = Memory(config.sac.memory, len(self.policy.mean), spec.k, spec.dof)
        k = config.choice.k
        self._windows = max(1, config.sac.collect // (config.environments * k))
        self.samples_per_batch = self._windows * config.environments * k
        self.batches = -(-config.samples // self.samples_per_batch)
        self.batches_per_checkpoint = max(
            1, config.checkpoint_every * config.samples_per_batch // self.samples_per_batch
        )
        self._take_up()

    def _make_learner(self) -> Learner:
        """Return what learns; the configuration and the specification are there."""
        return SoftActorCritic(self.spec, self.config)

    def _rollouts(self) -> Rollouts:
        config = self.config
        return Rollouts(
            Plan(
                self._choice, self.spec, config.seed, config.environments, self._windows,
                config.processes,
            )
        )  # fmt: skip

    @property
    def _warming_up(self) -> bool:
        """Whether there is too little in memory to learn from."""
        return self._memory.added * self.config.choice.k < self.config.sac.warm_up

    def _learn(self, block: Block) -> Row:
        self._memory.add(block, self.config.ppo.gamma)
        self._reward_scale(block.rewards, block.ended)
        self._moments.update(block.obs.reshape(-1, block.obs.shape[-1]))
        row: Row = {} if self._warming_up else self._descend()
        return row | {"std": self._learner.actor.log_std.detach().exp().mean().item()}

    def _descend(self) -> Row:
        """Take the gradient steps of a batch; return the means of their figures."""
        sac = self.config.sac
        self._set_statistics()
        rng = np.random.default_rng([self.config.seed, _LEARN, self.batch + 1])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        steps = max(1, round(sac.steps_per_window * self._windows * self.config.environments))
        figures = [
            self._learner.learn(
                self._memory.draw(rng, sac.replay_batch), self._reward_scale.scale, generator
            )
            for _ in range(steps)
        ]
        names = dict.fromkeys(name for f in figures for name in f)
        return {name: fmean(f[name] for f in figures if name in f) for name in names}

    def _set_statistics(self) -> None:
        if self.config.ppo.normalise_observations:
            normaliser = self._learner.actor.normaliser
            normaliser.mean.copy_(torch.from_numpy(self._moments.mean))
            normaliser.variance.copy_(torch.from_numpy(self._moments.variance))

    def _publish(self, rollouts: AnyRollouts) -> None:
        tensors, acting = self._tensors(), self.policy
        acting.flat[:] = acting.layout.flatten(tensors)
        acting.mean[:] = tensors["normaliser.mean"]
        acting.variance[:] = tensors["normaliser.variance"]
        rollouts.publish(acting)

    def _tensors(self) -> dict[str, Array]:
        return dict(self._learner.actor.tensors())

    def _state(self) -> State:
        state = super()._state()
        arrays = state.arrays
        arrays |= {f"memory.{n}": a[: self._memory.used] for n, a in self._memory.arrays.items()}
        arrays |= {f"learner.{n}": t.numpy() for n, t in self._learner.state_dict().items()}
        for name, optimiser in self._learner.optimisers.items():
            for i, parameter in optimiser.state_dict()["state"].items():
                for part, value in parameter.items():
                    arrays[f"optimiser.{name}.{i}.{part}"] = value.numpy()
        return state

    def _restore(self, state: State) -> None:
        super()._restore(state)
        learner = {n: torch.from_numpy(a.copy()) for n, a in state.part("learner").items()}
        self._learner.load_state_dict(learner)
        for name, optimiser in self._learner.optimisers.items():
            parts: dict[int, dict[str, Tensor]] = {}
            for key, array in state.part(f"optimiser.{name}").items():
                index, _, part = key.partition(".")
                parts.setdefault(int(index), {})[part] = torch.from_numpy(array.copy())
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": parts, "param_groups": groups})
        self._memory.restore(
            state.part("memory"), self.batch * self._windows * self.config.environments
        )
