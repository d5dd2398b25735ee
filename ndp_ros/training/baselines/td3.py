# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Twin delayed deterministic policy gradients (TD3) over windows.

A window is one action of the learner: its reward is the discounted sum of the window's rewards, and
the next value is discounted k times. Actions are the outputs of the actor's network squashed into
(-1, 1), whatever they mean: points of an embedding (Dyn-E) or the amounts of a segment's curves
(NDP). The paper leaves off-policy training open (section 3.4).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ndp_ros.policies import make_policy
from ndp_ros.policies.devices import torch_device
from ndp_ros.policies.layout import Layout
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.config import RunConfig


class TwinCritics(nn.Module):
    """Two critics with ReLU between their layers, computed side by side.

    Attributes:
        weights: One tensor ``(2, inputs, outputs)`` a layer.
        biases: One tensor ``(2, 1, outputs)`` a layer.
    """

    def __init__(self, widths: Sequence[int], norm: bool) -> None:
        """Draw the weights as ``nn.Linear`` does, for layer widths of which the last is 1.

        With ``norm`` each hidden layer is normalised over its units before its bias.
        """
        super().__init__()
        self._norm = norm
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(widths):
            bound = inputs**-0.5
            self.weights.append(torch.empty(2, inputs, outputs).uniform_(-bound, bound))
            self.biases.append(torch.empty(2, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Return both values ``(2, b)`` of inputs ``(b, inputs)``."""
        return self._run(x.expand(2, -1, -1), list(self.weights), list(self.biases))

    def first(self, x: Tensor) -> Tensor:
        """Return the first critic's values ``(b,)``; gradients reach the inputs only."""
        weights, biases = ([p[:1].detach() for p in part] for part in (self.weights, self.biases))
        return self._run(x[None], weights, biases)[0]

    def _run(self, h: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
        last = len(weights) - 1
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            if self._norm and i < last:
                h = layer_norm(torch.bmm(h, weight), weight.shape[-1:]) + bias
            else:
                h = torch.baddbmm(bias, h, weight)
            if i < last:
                h = h.relu()
        return h[..., 0]


class TwinDelayed(nn.Module):
    """An actor, two critics and the targets of all three.

    Batches and generators are on its ``device``.
    """

    steps: Tensor

    def __init__(self, spec: PolicySpec, config: RunConfig) -> None:
        super().__init__()
        td3 = config.td3
        self.device = torch_device(config.device)
        self.actor = make_policy(spec, seed=config.seed)
        n_obs = self.actor.normaliser.mean.numel()
        n_actions = Layout(spec).widths["actor"][-1]
        self._repeat = max(1, n_obs // 2 // n_actions)
        widths = (n_obs + self._repeat * n_actions, *td3.critic_hidden, 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.critics = TwinCritics(widths, td3.critic_norm)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.target_actor = copy.deepcopy(self.actor.actor).requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.to(self.device)
        self._config, self._gamma_k = td3, config.ppo.gamma**config.k
        self._parameters_of = {
            "actor": list(self.actor.actor.parameters()),
            "critics": list(self.critics.parameters()),
        }
        self._followers = [*self.target_actor.parameters(), *self.targets.parameters()]
        self._leaders = [p for part in self._parameters_of.values() for p in part]
        rates = {"actor": td3.actor_rate, "critics": td3.critic_rate}
        self.optimisers = {
            name: torch.optim.Adam(part, lr=rates[name], fused=True)
            for name, part in self._parameters_of.items()
        }

    def actions(self, network: nn.Module, x: Tensor) -> Tensor:
        """Return the actions ``(b, n)`` of an actor's network for normalised observations."""
        return torch.tanh(network(x))

    def following(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the target actor's noisy actions ``(b, n)`` for normalised ``x (b, n_obs)``."""
        actions = self.actions(self.target_actor, x)
        noise = self._config.target_noise * torch.randn(
            actions.shape, generator=generator, device=self.device
        )
        clip = self._config.target_clip
        return (actions + noise.clamp(-clip, clip)).clamp(-1.0, 1.0)

    def inputs(self, x: Tensor, actions: Tensor) -> Tensor:
        """Return the critics' inputs; actions are repeated to weigh as much as states."""
        return torch.cat((x, *[actions] * self._repeat), dim=1)

    def goal(self, batch: dict[str, Tensor], scale: float, generator: torch.Generator) -> Tensor:
        """Return the critics' goal ``(b,)``: the lesser of both targets after the window.

        Rewards are divided by ``scale``; the generator draws the noise of the target actor.
        """
        x = self.actor.normaliser(batch["next_obs"])
        ahead = self.targets(self.inputs(x, self.following(x, generator))).amin(0)
        goal: Tensor = batch["rewards"] / scale + self._gamma_k * batch["going_on"] * ahead
        return goal

    def learn(
        self, batch: dict[str, Tensor], scale: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Take one gradient step of the critics and, every few steps, one of the actor.

        Arguments are those of :meth:`goal`. Return the losses of the critics and, if it was
        trained, of the actor.
        """
        with torch.no_grad():
            goal = self.goal(batch, scale, generator)
            x = self.actor.normaliser(batch["obs"])
            inputs = self.inputs(x, batch["actions"].flatten(1))
        critic_loss = ((self.critics(inputs) - goal) ** 2).mean(1).sum()
        self._descend("critics", critic_loss)
        figures = {"value_loss": critic_loss.detach()}
        if int(self.steps) % self._config.actor_every == 0:
            chosen = self.actions(self.actor.actor, x)
            actor_loss = -self.critics.first(self.inputs(x, chosen)).mean()
            self._descend("actor", actor_loss)
            figures["policy_loss"] = actor_loss.detach()
            self._follow()
        self.steps += 1
        return figures

    def _descend(self, name: str, loss: Tensor) -> None:
        """Take one gradient step on the parameters of an optimiser; no others get a gradient."""
        parameters = self._parameters_of[name]
        for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = gradient
        self.optimisers[name].step()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the targets towards their models by the target rate."""
        for target, model in zip(self._followers, self._leaders, strict=True):
            target.lerp_(model, self._config.target_rate)
