# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Policies as torch modules: means of k actions, a deviation for each joint, and values.

They are the readable form of the policies, differentiable by autograd, and run in the policy node.
:mod:`~ndp_ros.policies.array_policy` computes the same in numpy for training.
"""

from __future__ import annotations

import abc
import math

import numpy as np
import torch
from torch import Tensor, nn

from ndp_ros.observation import observation_size
from ndp_ros.policies.layout import Layout, Tensors
from ndp_ros.policies.networks import ImageEncoders, Mlp, Normaliser
from ndp_ros.policies.spec import PolicySpec


class ActorCritic(nn.Module, abc.ABC):
    """A Gaussian over the decision of a forward pass, independent in each of its numbers.

    A decision is k actions, displacements of the setpoint over one control step in units of
    ``spec.action_scale``, or with noise of the segment the curve amounts of an NDP. Observations
    ``obs (batch, n_obs)`` are raw.
    """

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self.spec = spec
        widths = Layout(spec).widths
        self.normaliser = Normaliser(observation_size(spec.observation))
        self.images = ImageEncoders(spec.observation)
        self.actor = Mlp(widths["actor"])
        self.critic = Mlp(widths["critic"])
        self.log_std = nn.Parameter(torch.full((spec.decision[1],), spec.init_log_std))

    def outputs(self, obs: Tensor) -> Tensor:
        """Return the outputs of the actor's network."""
        return torch.as_tensor(self.actor(self.images(self.normaliser(obs))))

    @abc.abstractmethod
    def means(self, obs: Tensor) -> Tensor:
        """Return the mean actions ``(batch, k, dof)``."""

    def decide(self, obs: Tensor) -> Tensor:
        """Return the mean decisions ``(batch, *spec.decision)``: the actions, unless overridden."""
        return self.means(obs)

    def values(self, obs: Tensor) -> Tensor:
        """Return the critic's values ``(batch, spec.decision[0])``, one per row of a decision.

        With a single head all of them share one value.
        """
        values = torch.as_tensor(self.critic(self.images(self.normaliser(obs))))
        return values.expand(-1, self.spec.decision[0])

    def log_prob(self, obs: Tensor, decisions: Tensor) -> Tensor:
        """Return the log-density ``(batch, spec.decision[0])`` of decisions by row, section 3.4."""
        z = (decisions - self.decide(obs)) * torch.exp(-self.log_std)
        return (-0.5 * (z * z + math.log(2.0 * math.pi)) - self.log_std).sum(-1)

    def load_tensors(self, tensors: Tensors) -> None:
        """Copy named arrays, as a checkpoint holds them, into this policy."""
        self.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in tensors.items()})

    def tensors(self) -> Tensors:
        """Return copies of all tensors by name."""
        return {n: t.detach().cpu().numpy().copy() for n, t in self.state_dict().items()}


class ActionPolicy(ActorCritic):
    """Baseline policy: phi predicts the k displacements themselves.

    With k = 1 this is PPO, with k > 1 the paper's PPO-multi.
    """

    def means(self, obs: Tensor) -> Tensor:
        """Return the mean actions ``(batch, k, dof)``."""
        return self.outputs(obs).reshape(-1, self.spec.k, self.spec.dof)


class BoundedPolicy(ActionPolicy):
    """Deterministic actor: phi predicts k displacements of at most one unit."""

    def means(self, obs: Tensor) -> Tensor:
        """Return the mean actions ``(batch, k, dof)``, each in (-1, 1)."""
        return torch.tanh(super().means(obs))
