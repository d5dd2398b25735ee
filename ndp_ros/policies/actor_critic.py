"""What every trained policy has: means of k actions, one deviation a joint, and values.

This is the readable form of the policies, the one that autograd understands and the
policy node runs. ``array_policy`` computes the same in numpy for training.
"""

from __future__ import annotations

import abc
import math

import numpy as np
import torch
from torch import Tensor, nn

from ndp_ros.observation import observation_size
from ndp_ros.policies.layout import Layout, Tensors
from ndp_ros.policies.networks import Mlp, Normaliser
from ndp_ros.policies.spec import PolicySpec


class ActorCritic(nn.Module, abc.ABC):
    """A Gaussian over k actions a forward pass, independent per sub-step and joint.

    Actions are displacements of the setpoint over one control step in units of
    ``spec.action_scale``.
    """

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self.spec = spec
        widths = Layout(spec).widths
        self.normaliser = Normaliser(observation_size(spec.observation))
        self.actor = Mlp(widths["actor"])
        self.critic = Mlp(widths["critic"])
        self.log_std = nn.Parameter(torch.full((spec.dof,), spec.init_log_std))

    @abc.abstractmethod
    def means(self, obs: Tensor) -> Tensor:
        """Return the mean actions ``(batch, k, dof)`` for raw observations ``(batch, n_obs)``."""

    def values(self, obs: Tensor) -> Tensor:
        """Return the critic's values ``(batch, k)``, one per sub-step.

        With a single head all sub-steps share one value.
        """
        return torch.as_tensor(self.critic(self.normaliser(obs))).expand(-1, self.spec.k)

    def log_prob(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Return the log-density ``(batch, k)`` of each sub-step's action, section 3.4.

        Args:
            obs: Raw observations ``(batch, n_obs)``.
            actions: Actions ``(batch, k, dof)``.
        """
        z = (actions - self.means(obs)) * torch.exp(-self.log_std)
        return (-0.5 * (z * z + math.log(2.0 * math.pi)) - self.log_std).sum(-1)

    def act(
        self, obs: Tensor, generator: torch.Generator | None = None, deterministic: bool = False
    ) -> Tensor:
        """Return actions ``(batch, k, dof)``: the means, or a sample around them."""
        means = self.means(obs)
        if deterministic:
            return means
        noise = torch.randn(means.shape, generator=generator, dtype=means.dtype)
        return means + torch.exp(self.log_std) * noise

    def load_tensors(self, tensors: Tensors) -> None:
        """Copy named arrays, as a checkpoint holds them, into this policy."""
        self.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in tensors.items()})

    def tensors(self) -> Tensors:
        """Return copies of all tensors by name."""
        return {n: t.detach().cpu().numpy().copy() for n, t in self.state_dict().items()}


class ActionPolicy(ActorCritic):
    """The baselines: phi predicts the k displacements themselves.

    With k = 1 this is PPO, with k > 1 the paper's PPO-multi.
    """

    def means(self, obs: Tensor) -> Tensor:
        """Return the mean actions ``(batch, k, dof)``."""
        out: Tensor = self.actor(self.normaliser(obs))
        return out.reshape(-1, self.spec.k, self.spec.dof)


class BoundedPolicy(ActionPolicy):
    """Deterministic actors: phi predicts k displacements of at most one unit."""

    def means(self, obs: Tensor) -> Tensor:
        """Return the mean actions ``(batch, k, dof)``, each in (-1, 1)."""
        return torch.tanh(super().means(obs))
