# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The Neural Dynamic Policy, section 3: phi yields w and g, the dynamical system the actions.

It is the policy that runs on an arm; trained in the form of
:class:`~ndp_ros.policies.array_policy.ArrayPolicy`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ndp_ros.dmp.layer import DmpLayer
from ndp_ros.errors import ConfigError
from ndp_ros.observation import field_slice
from ndp_ros.policies.actor_critic import ActorCritic
from ndp_ros.policies.layout import curves_of, weight_mixing
from ndp_ros.policies.spec import ALPHA_RANGE, PolicySpec


class NdpPolicy(ActorCritic):
    """Policy of phi, the DMP and the differences of its trajectory, Algorithm 1 of the paper.

    The system starts from the integrator's own desired state, which is part of the
    observation as ``setpoint`` and ``setpoint_velocity`` (raw, not normalised), so that
    consecutive segments are continuous in position and velocity.
    """

    scale: Tensor

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__(spec)
        self.dmp = DmpLayer(spec.dmp, spec.k, ALPHA_RANGE if spec.learned_alpha else None)
        self._mixing = torch.from_numpy(weight_mixing(spec).copy())
        self._raw_alpha = self.dmp.raw_alpha(spec.dmp.alpha) if spec.learned_alpha else 0.0
        self.register_buffer("scale", torch.tensor(spec.action_scale), persistent=False)
        if spec.noise == "segment":
            curves, unit = curves_of(spec)
            self._curves = torch.from_numpy(curves.mixing.copy())
            self._unit = torch.from_numpy(unit.copy())
        self._y0 = field_slice(spec.observation, "setpoint")
        self._yd0 = field_slice(spec.observation, "setpoint_velocity")

    def parameters_of(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Return goal ``g (batch, dof)`` [rad] and weights ``w (batch, dof, N)``.

        Raises:
            ConfigError: If alpha is learned, since the parameters mean nothing without it.
        """
        if self.spec.learned_alpha:
            raise ConfigError("this policy learned its alpha, an ablation for training only")
        return self._outputs(obs)[:2]

    def decide(self, obs: Tensor) -> Tensor:
        """Return the mean decisions ``(batch, *spec.decision)``: curve amounts, or the actions."""
        if self.spec.noise != "segment":
            return self.means(obs)
        out = self.outputs(obs)
        return (torch.tanh(out) if self.spec.squashed else out).view(-1, *self.spec.decision)

    def _outputs(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.spec.noise == "segment":
            amounts = self.decide(obs).view(-1, self.spec.curves, self.spec.dof)
            mixed = (self._curves.to(amounts) @ (amounts * self._unit.to(amounts))).mT
            return obs[:, self._y0] + mixed[..., 0], mixed[..., 1:], None
        out = self.outputs(obs)
        raw_alpha = None
        if self.spec.learned_alpha:
            out, raw_alpha = out[:, :-1], out[:, -1] + self._raw_alpha
        out = out.reshape(obs.shape[0], -1, self.spec.dof)  # len() would fix it for export
        g = obs[:, self._y0] + self.spec.goal_gain * out[:, 0]
        if self.spec.weights == "raw":
            return g, self.spec.weight_gain * out[:, 1:].transpose(1, 2), raw_alpha
        return g, out[:, 1:].transpose(1, 2) @ self._mixing.T.to(out), raw_alpha

    def means(self, obs: Tensor) -> Tensor:
        """Return the mean actions ``(batch, k, dof)``: way points' differences over the scale."""
        g, w, raw_alpha = self._outputs(obs)
        y0 = obs[:, self._y0]
        yd0 = obs[:, self._yd0] * self.spec.segment_duration
        y: Tensor = self.dmp(y0, yd0, g, w, raw_alpha)
        return torch.diff(y, dim=1, prepend=y0[:, None]) / self.scale
