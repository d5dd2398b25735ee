# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The policies in numpy with hand-written gradients, which training runs.

Training an NDP takes hundreds of thousands of passes over a dozen windows each. At that size
autograd spends its time on bookkeeping, so this module computes the policies of ``actor_critic``
and ``ndp`` with one flat parameter vector and reused buffers. Arrays are feature-major,
``(features, batch)``, the faster order for small matrix products; actor and critic run through
their hidden layers as one batched product.

A pass returns *relative* means, without the contribution of the start velocity, which depends on no
parameter; :meth:`ArrayPolicy.drift` is that contribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.learned_alpha import alpha_of
from ndp_ros.observation import field_slice, field_slices
from ndp_ros.policies.heads import alpha_angle, displacement_rows, make_head
from ndp_ros.policies.layout import (
    LOG_STD,
    MEAN,
    OBSERVATION_CLIP,
    PIXEL_VARIANCE,
    VARIANCE,
    VARIANCE_FLOOR,
    Array,
    Layout,
    Tensors,
    curves_of,
    images_of,
    weight_mixing,
)
from ndp_ros.policies.spec import ALPHA_RANGE, PolicySpec

if TYPE_CHECKING:
    from ndp_ros.policies.images import ArrayEncoders


class ArrayPolicy:
    """Actor and critic on arrays: Φ with its dynamical system, and the values.

    Observations ``obs (batch, n_obs)`` are raw.

    Attributes:
        spec: Shape and scales.
        layout: Where each parameter lies.
        flat: All parameters ``(size,)``; writing to it changes the policy.
        mean: Mean of the observations ``(n_obs,)``.
        variance: Variance of the observations ``(n_obs,)``.
        images: Encoders of the observation's images, which need torch; None without images.
    """

    def __init__(
        self,
        spec: PolicySpec,
        tensors: Tensors,
        flat: Array | None = None,
        dtype: Any = np.float32,
        device: str = "cpu",
    ) -> None:
        """Take a copy of the named arrays.

        Args:
            spec: Shape and scales.
            tensors: Every tensor by name.
            flat: Memory ``(size,)`` to hold the parameters, such as a shared block.
            dtype: float32 to train, float64 to check gradients.
            device: Where images are encoded, a name of ``ndp_ros.policies.devices.DEVICES``.
        """
        self.spec = spec
        self.layout = Layout(spec)
        self.flat = np.empty(self.layout.size, dtype) if flat is None else flat
        self.flat[:] = self.layout.flatten(tensors, self.flat.dtype)
        self.parameters = self.layout.views(self.flat)
        self.mean: Array = np.array(tensors[MEAN], np.float64)
        self.variance: Array = np.array(tensors[VARIANCE], np.float64)
        self.images: ArrayEncoders | None = None
        if images_of(spec.observation):
            from ndp_ros.policies.images import ArrayEncoders

            self.images = ArrayEncoders(spec, self.parameters, device)
        self._passes: dict[int, Pass] = {}
        if spec.method == "ndp":
            self._y0 = field_slice(spec.observation, "setpoint")
            self._yd0 = field_slice(spec.observation, "setpoint_velocity")

    @property
    def dtype(self) -> Any:
        """Type of every number in a pass."""
        return self.flat.dtype

    @property
    def std(self) -> Array:
        """Standard deviation of the actions, in their shape or one that broadcasts to it."""
        return np.exp(self.parameters[LOG_STD].astype(np.float64))

    @property
    def draws_segments(self) -> bool:
        """Whether decisions are curve amounts, drawn once a segment."""
        return self.spec.noise == "segment"

    def tensors(self) -> dict[str, Array]:
        """Return copies of all tensors by name, as a checkpoint holds them."""
        return {
            **{name: view.copy() for name, view in self.parameters.items()},
            MEAN: self.mean.astype(self.dtype),
            VARIANCE: self.variance.astype(self.dtype),
        }

    def set_statistics(self, mean: Array, variance: Array) -> None:
        """Normalise by the mean and variance ``(n_obs,)`` of observations from now on.

        All pixels of an image are divided by one deviation: a pixel that hardly ever changed would
        count for too much once it does.
        """
        self.mean[:], self.variance[:] = mean, variance
        for f, where in field_slices(self.spec.observation):
            if f.image:
                self.variance[where] = max(PIXEL_VARIANCE, float(variance[where].mean()))

    def normalise(self, obs: Array) -> Array:
        """Return normalised observations ``(n_obs, batch)`` for raw ones ``(batch, n_obs)``."""
        scaled = (obs - self.mean) / np.sqrt(self.variance + VARIANCE_FLOOR)
        np.clip(scaled, -OBSERVATION_CLIP, OBSERVATION_CLIP, out=scaled)
        return np.ascontiguousarray(scaled.T, dtype=self.dtype)

    def drift(self, obs: Array) -> Array:
        """Return the part of mean decisions ``(*decision, batch)`` that the start velocity adds."""
        if self.spec.method != "ndp" or self.spec.learned_alpha or self.draws_segments:
            return np.zeros((*self.spec.decision, len(obs)), self.dtype)
        return self._coasting(obs)

    def _coasting(self, obs: Array) -> Array:
        """Return an NDP's displacements ``(k, dof, batch)`` by its start velocity."""
        yd0 = obs[:, self._yd0] * (self.spec.segment_duration / np.array(self.spec.action_scale))
        column = displacement_rows(self.spec)[:, 0]
        return (column[:, None, None] * yd0.T).astype(self.dtype)

    def decide(self, obs: Array) -> Array:
        """Return the mean decisions ``(batch, *spec.decision)``; exploration adds noise to them."""
        relative = self.run(len(obs)).actor(self.normalise(obs))
        return np.ascontiguousarray((relative + self.drift(obs)).transpose(2, 0, 1))

    def means(self, obs: Array) -> Array:
        """Return the mean actions ``(batch, k, dof)``."""
        if not self.draws_segments:
            return self.decide(obs)
        amounts = self.decide(obs).reshape(len(obs), self.spec.curves, self.spec.dof)
        curves, _ = curves_of(self.spec)
        # Columns for s and w turn into columns for amounts in units of k actions.
        rows = displacement_rows(self.spec)[:, 1:] @ curves.mixing * (self.spec.reach * self.spec.k)
        moved: Array = rows.astype(self.dtype) @ amounts
        return moved + self._coasting(obs).transpose(2, 0, 1)

    def values(self, obs: Array) -> Array:
        """Return the critic's values ``(batch, spec.decision[0])``; a single head serves all."""
        _, values = self.run(len(obs)).forward(self.normalise(obs))
        return np.repeat(values.T, self.spec.decision[0] // len(values), axis=1)

    def parameters_of(self, obs: Array, amounts: Array | None = None) -> tuple[Array, Array]:
        """Return an NDP's goal ``g (batch, dof)`` [rad] and weights ``w (batch, dof, N)``.

        Curve amounts ``(batch, *spec.decision)`` may be given instead of the mean ones.
        """
        if self.draws_segments:
            chosen = self.decide(obs) if amounts is None else amounts
            curves, unit = curves_of(self.spec)
            shape = len(obs), self.spec.curves, self.spec.dof
            ahead, w = curves.parameters(chosen.reshape(shape), unit)
            return obs[:, self._y0] + ahead, w
        step = self.run(len(obs))
        step.actor(self.normalise(obs))
        outputs = step.u[:-1] if self.spec.learned_alpha else step.u
        out = outputs.reshape(-1, self.spec.dof, len(obs))
        g = obs[:, self._y0] + self.spec.goal_gain * out[0].T
        if self.spec.weights == "raw":
            return g, self.spec.weight_gain * out[1:].transpose(2, 1, 0)
        return g, out[1:].transpose(2, 1, 0) @ weight_mixing(self.spec).T

    def systems_of(self, obs: Array) -> Sequence[DmpConfig]:
        """Return the dynamical system of each segment; one for all unless alpha is learned."""
        dmp = self.spec.dmp
        if not self.spec.learned_alpha:
            return [dmp] * len(obs)
        step = self.run(len(obs))
        step.actor(self.normalise(obs))
        alphas = alpha_of(alpha_angle(step.u[-1].astype(np.float64), dmp.alpha), ALPHA_RANGE)
        return [replace(dmp, alpha=float(alpha)) for alpha in alphas]

    def run(self, batch: int) -> Pass:
        """Return the buffers of a pass over ``batch`` observations, made once per size."""
        if batch not in self._passes:
            self._passes[batch] = Pass(self, batch)
        return self._passes[batch]


class Pass:
    """A forward and a backward pass over a fixed number of observations.

    Attributes:
        u: Output of the actor's network ``(outputs, batch)``.
        gradient: Gradient of the flat vector ``(size,)``, written by :meth:`backward`;
            the entries of ``log_std`` are not touched.
    """

    def __init__(self, policy: ArrayPolicy, batch: int) -> None:
        layout, spec, dtype = policy.layout, policy.spec, policy.dtype
        self.gradient = np.zeros(layout.size, dtype)
        self.slopes = layout.views(self.gradient)
        self._weights = [_layer(layout, policy.flat, i) for i in range(len(spec.hidden))]
        self._slopes = [_layer(layout, self.gradient, i) for i in range(len(spec.hidden))]
        ends = [f"{network}.{len(spec.hidden)}" for network in ("actor", "critic")]
        self._ends = [
            (policy.parameters[f"{e}.weight"], policy.parameters[f"{e}.bias"][:, None])
            for e in ends
        ]
        self._end_slopes = [(self.slopes[f"{e}.weight"], self.slopes[f"{e}.bias"]) for e in ends]
        self._hidden = [np.empty((2, width, batch), dtype) for width in spec.hidden]
        self._slack = [np.empty_like(h) for h in self._hidden]
        self._back = [np.empty_like(h) for h in self._hidden]
        self.u = np.empty((layout.widths["actor"][-1], batch), dtype)
        self._v = np.empty((layout.widths["critic"][-1], batch), dtype)
        self._x = np.empty((layout.widths["actor"][0], batch), dtype)
        self._images = policy.images
        self._head = make_head(spec, batch, dtype, policy.mean, policy.variance)

    def actor(self, x: Array) -> Array:
        """Return the relative means ``(k, dof, batch)``, for a pass without a backward pass."""
        below = x if self._images is None else self._images.encode(x)
        for (weight, bias), h in zip(self._weights, self._hidden, strict=True):
            np.matmul(weight[0], below, out=h[0])
            h[0] += bias[0]
            below = np.tanh(h[0], out=h[0])
        weight, bias = self._ends[0]
        np.matmul(weight, below, out=self.u)
        self.u += bias
        return self._head.forward(self.u, x)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Return relative means ``(k, dof, batch)`` and values ``(heads, batch)``.

        Both are buffers that the next pass overwrites. ``x (n_obs, batch)`` is normalised.
        """
        below = x
        if self._images is not None:
            below, self._made = self._images.forward(x)
        self._x = below
        for (weight, bias), h in zip(self._weights, self._hidden, strict=True):
            np.matmul(weight, below, out=h)
            h += bias
            below = np.tanh(h, out=h)
        for (weight, bias), h, out in zip(self._ends, below, (self.u, self._v), strict=True):
            np.matmul(weight, h, out=out)
            out += bias
        return self._head.forward(self.u, x), self._v

    def backward(self, d_means: Array, d_values: Array) -> Array:
        """Write the gradient of a loss into ``gradient`` and return it.

        ``d_means (k, dof, batch)`` and ``d_values (heads, batch)`` are those of the relative means
        and of the values.
        """
        top, d_top = self._hidden[-1], self._back[-1]
        ends = zip(self._ends, self._end_slopes, strict=True)
        for i, ((weight, _), (d_weight, d_bias)) in enumerate(ends):
            d_out = self._head.backward(d_means) if i == 0 else d_values
            np.matmul(d_out, top[i].T, out=d_weight)
            np.add.reduce(d_out, axis=1, out=d_bias)
            np.matmul(weight.T, d_out, out=d_top[i])
        for i in range(len(self._hidden) - 1, -1, -1):
            h, slack, d = self._hidden[i], self._slack[i], self._back[i]
            np.multiply(h, h, out=slack)
            np.subtract(1.0, slack, out=slack)
            d *= slack
            d_weight, d_bias = self._slopes[i]
            below = self._hidden[i - 1].transpose(0, 2, 1) if i else self._x.T
            np.matmul(d, below, out=d_weight)
            np.add.reduce(d, axis=2, out=d_bias[..., 0])
            if i:
                np.matmul(self._weights[i][0].transpose(0, 2, 1), d, out=self._back[i - 1])
        if self._images is not None:
            first, _ = self._weights[0]
            d_inputs = np.matmul(first.transpose(0, 2, 1), self._back[0]).sum(axis=0)
            self._images.backward(self._made, d_inputs, self.slopes)
        return self.gradient


def _layer(layout: Layout, flat: Array, index: int) -> tuple[Array, Array]:
    weight, bias = (layout.pair(flat, index, kind) for kind in ("weight", "bias"))
    return weight, bias[..., None]
