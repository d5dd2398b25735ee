"""The policies in numpy with hand-written gradients: what training runs.

Training an NDP takes hundreds of thousands of passes over a dozen windows each. At
that size autograd spends its time on bookkeeping, so this module computes what
``actor_critic`` and ``ndp`` define with one flat parameter vector and buffers made
once. Arrays are feature-major, ``(features, batch)``, because small matrix products
are fastest that way round; actor and critic run through their hidden layers as one
batched product.

A pass yields *relative* means: without the part that the start velocity contributes,
which no parameter touches. :meth:`ArrayPolicy.drift` is that part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import alpha_of, alpha_series, response
from ndp_ros.observation import field_slice
from ndp_ros.policies.layout import (
    MEAN,
    OBSERVATION_CLIP,
    VARIANCE,
    VARIANCE_FLOOR,
    Layout,
    Tensors,
    weight_mixing,
)
from ndp_ros.policies.spec import ALPHA_RANGE, PolicySpec

Array = NDArray[Any]


class ArrayPolicy:
    """Φ, the dynamical system and the critic on arrays.

    Attributes:
        spec: Shape and scales.
        layout: Where each parameter lies.
        flat: All parameters ``(size,)``; writing to it changes the policy.
        mean: Mean of the observations ``(n_obs,)``.
        variance: Variance of the observations ``(n_obs,)``.
    """

    def __init__(
        self, spec: PolicySpec, tensors: Tensors, flat: Array | None = None, dtype: Any = np.float32
    ) -> None:
        """Take a copy of the named arrays.

        Args:
            spec: Shape and scales.
            tensors: Every tensor by name.
            flat: Memory ``(size,)`` to hold the parameters, such as a shared block.
            dtype: float32 to train, float64 to check gradients.
        """
        self.spec = spec
        self.layout = Layout(spec)
        self.flat = np.empty(self.layout.size, dtype) if flat is None else flat
        self.flat[:] = self.layout.flatten(tensors, self.flat.dtype)
        self.parameters = self.layout.views(self.flat)
        self.mean: Array = np.array(tensors[MEAN], np.float64)
        self.variance: Array = np.array(tensors[VARIANCE], np.float64)
        self._passes: dict[int, Pass] = {}
        if spec.method == "ndp":
            self._y0 = field_slice(spec.observation, "setpoint")
            self._yd0 = field_slice(spec.observation, "setpoint_velocity")

    @property
    def dtype(self) -> Any:
        """Type of every number in a pass."""
        return self.flat.dtype

    def tensors(self) -> dict[str, Array]:
        """Return copies of all tensors by name, as a checkpoint holds them."""
        return {
            **{name: view.copy() for name, view in self.parameters.items()},
            MEAN: self.mean.astype(self.dtype),
            VARIANCE: self.variance.astype(self.dtype),
        }

    def normalise(self, obs: Array) -> Array:
        """Return normalised observations ``(n_obs, batch)`` for raw ones ``(batch, n_obs)``."""
        scaled = (obs - self.mean) / np.sqrt(self.variance + VARIANCE_FLOOR)
        np.clip(scaled, -OBSERVATION_CLIP, OBSERVATION_CLIP, out=scaled)
        return np.ascontiguousarray(scaled.T, dtype=self.dtype)

    def drift(self, obs: Array) -> Array:
        """Return what the start velocity adds to the means, ``(k, dof, batch)``.

        Args:
            obs: Raw observations ``(batch, n_obs)``.
        """
        if self.spec.method != "ndp" or self.spec.learned_alpha:
            return np.zeros((self.spec.k, self.spec.dof, len(obs)), self.dtype)
        yd0 = obs[:, self._yd0] * (self.spec.segment_duration / np.array(self.spec.action_scale))
        column = displacement_rows(self.spec)[:, 0]
        return (column[:, None, None] * yd0.T).astype(self.dtype)

    def means(self, obs: Array) -> Array:
        """Return the mean actions ``(batch, k, dof)`` for raw observations ``(batch, n_obs)``."""
        relative = self.run(len(obs)).actor(self.normalise(obs))
        return np.ascontiguousarray((relative + self.drift(obs)).transpose(2, 0, 1))

    def values(self, obs: Array) -> Array:
        """Return the critic's values ``(batch, k)``; a single head serves all sub-steps."""
        _, values = self.run(len(obs)).forward(self.normalise(obs))
        return np.repeat(values.T, self.spec.k // len(values), axis=1)

    def parameters_of(self, obs: Array) -> tuple[Array, Array]:
        """Return an NDP's goal ``g (batch, dof)`` [rad] and weights ``w (batch, dof, N)``.

        Args:
            obs: Raw observations ``(batch, n_obs)``.
        """
        step = self.run(len(obs))
        step.actor(self.normalise(obs))
        outputs = step.u[:-1] if self.spec.learned_alpha else step.u
        out = outputs.reshape(-1, self.spec.dof, len(obs))
        g = obs[:, self._y0] + self.spec.goal_gain * out[0].T
        if self.spec.weights == "raw":
            return g, self.spec.weight_gain * out[1:].transpose(2, 1, 0)
        return g, out[1:].transpose(2, 1, 0) @ weight_mixing(self.spec).T

    def systems_of(self, obs: Array) -> Sequence[DmpConfig]:
        """Return the dynamical system of each segment; one for all unless alpha is learned.

        Args:
            obs: Raw observations ``(batch, n_obs)``.
        """
        dmp = self.spec.dmp
        if not self.spec.learned_alpha:
            return [dmp] * len(obs)
        step = self.run(len(obs))
        step.actor(self.normalise(obs))
        alphas = alpha_of(_angle(step.u[-1].astype(np.float64), dmp.alpha), ALPHA_RANGE)
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
            the entries of ``log_std`` are left alone.
    """

    def __init__(self, policy: ArrayPolicy, batch: int) -> None:
        layout, spec, dtype = policy.layout, policy.spec, policy.dtype
        self.gradient = np.zeros(layout.size, dtype)
        self.slopes = layout.views(self.gradient)
        self._weights = [_layer(layout, policy.flat, i) for i in range(len(spec.hidden))]
        self._slopes = [_layer(layout, self.gradient, i) for i in range(len(spec.hidden))]
        last = len(spec.hidden)
        ends = [f"{network}.{last}" for network in ("actor", "critic")]
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
        self._head: Head
        if spec.method == "bounded":
            self._head = BoundedHead(spec, batch, dtype)
        elif spec.method != "ndp":
            self._head = PlainHead(spec, batch)
        elif spec.learned_alpha:
            self._head = AlphaHead(policy, batch, dtype)
        else:
            self._head = DynamicHead(spec, batch, dtype)

    def actor(self, x: Array) -> Array:
        """Return the relative means ``(k, dof, batch)`` alone; no backward pass follows."""
        below = x
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

        Both are buffers that the next pass overwrites.

        Args:
            x: Normalised observations ``(n_obs, batch)``.
        """
        self._x = x
        below = x
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

        Args:
            d_means: Gradient of the relative means ``(k, dof, batch)``.
            d_values: Gradient of the values ``(heads, batch)``.
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
        return self.gradient


class Head(Protocol):
    """What turns the actor's output into means, and gradients back."""

    def forward(self, u: Array, x: Array) -> Array:
        """Return the relative means ``(k, dof, batch)``.

        Args:
            u: Outputs of the actor ``(outputs, batch)``.
            x: What it saw, normalised ``(n_obs, batch)``.
        """
        ...

    def backward(self, d_means: Array) -> Array:
        """Return the gradient of the outputs of the last forward pass."""
        ...


class PlainHead:
    """The output is the means: PPO and PPO-multi."""

    def __init__(self, spec: PolicySpec, batch: int) -> None:
        self._means = (spec.k, spec.dof, batch)
        self._outputs = (spec.k * spec.dof, batch)

    def forward(self, u: Array, x: Array) -> Array:
        """Return the outputs, reshaped."""
        return u.reshape(self._means)

    def backward(self, d_means: Array) -> Array:
        """Return the gradient, reshaped."""
        return d_means.reshape(self._outputs)


class BoundedHead:
    """The means are the outputs squashed into (-1, 1)."""

    def __init__(self, spec: PolicySpec, batch: int, dtype: Any) -> None:
        self._means = np.empty((spec.k, spec.dof, batch), dtype)

    def forward(self, u: Array, x: Array) -> Array:
        """Return the squashed outputs."""
        return np.tanh(u.reshape(self._means.shape), out=self._means)

    def backward(self, d_means: Array) -> Array:
        """Return the gradient times the slope of the squashing."""
        d: Array = d_means * (1.0 - self._means * self._means)
        return d.reshape(-1, d.shape[-1])


class DynamicHead:
    """The output is goal and weights, the means are the DMP's displacements.

    With s = g - y0 the displacements are A [s; w s]: the rows of the response, one
    subtracted from the next.
    """

    def __init__(self, spec: PolicySpec, batch: int, dtype: Any) -> None:
        rows = mixed_rows(spec, displacement_rows(spec))[:, 1:]
        self._A = rows.astype(dtype)
        self._unit = (spec.goal_gain / np.array(spec.action_scale))[:, None].astype(dtype)
        size = (rows.shape[1], spec.dof, batch)
        self._u = np.empty(size, dtype)
        self._C = np.empty(size, dtype)
        self._dC = np.empty(size, dtype)
        self._du = np.empty(size, dtype)
        self._means = np.empty((spec.k, spec.dof, batch), dtype)

    def forward(self, u: Array, x: Array) -> Array:
        """Return the relative means ``(k, dof, batch)``."""
        self._u = u.reshape(self._C.shape)
        np.multiply(self._u[0], self._unit, out=self._C[0])
        np.multiply(self._u[1:], self._C[0], out=self._C[1:])
        np.matmul(self._A, self._C.reshape(len(self._C), -1), out=_flat(self._means))
        return self._means

    def backward(self, d_means: Array) -> Array:
        """Return the gradient of the outputs ``(outputs, batch)``."""
        np.matmul(self._A.T, _flat(d_means), out=_flat(self._dC))
        np.multiply(self._dC[1:], self._C[0], out=self._du[1:])
        self._dC[1:] *= self._u[1:]
        np.add.reduce(self._dC, axis=0, out=self._du[0])
        self._du[0] *= self._unit
        return self._du.reshape(-1, self._du.shape[-1])


class AlphaHead:
    """As :class:`DynamicHead`, with an alpha for each segment from the last output.

    A is then a Chebyshev series over alpha, and the start velocity's column moves with it: it
    is part of the means here, taken from the normalised observation.
    """

    def __init__(self, policy: ArrayPolicy, batch: int, dtype: Any) -> None:
        spec = policy.spec
        self._policy, self._alpha = policy, spec.dmp.alpha
        times = np.arange(spec.k + 1) / spec.k
        precision = max(float(np.finfo(dtype).eps), 1e-14)
        series = alpha_series(spec.dmp, times, 1, ALPHA_RANGE, precision)
        rows = np.diff(series.reshape(len(series), len(times), -1)[..., 1:], axis=1)
        self._S = np.stack([mixed_rows(spec, r) for r in rows]).astype(dtype)
        self._n = np.arange(len(series), dtype=dtype)[:, None]
        scale = np.array(spec.action_scale)[:, None]
        self._unit = (spec.goal_gain / scale).astype(dtype)
        self._duration = spec.segment_duration / scale
        self._where = field_slice(spec.observation, "setpoint_velocity")
        self._C = np.empty((self._S.shape[2], spec.dof, batch), dtype)

    def forward(self, u: Array, x: Array) -> Array:
        """Return the means ``(k, dof, batch)``, all of them."""
        C, policy, here = self._C, self._policy, self._where
        spread = np.sqrt(policy.variance[here] + VARIANCE_FLOOR)[:, None]
        C[0] = (x[here] * spread + policy.mean[here][:, None]) * self._duration
        self._u = u[:-1].reshape(len(C) - 1, *C.shape[1:])
        np.multiply(self._u[0], self._unit, out=C[1])
        np.multiply(self._u[1:], C[1], out=C[2:])
        self._raw = u[-1]
        self._angles = self._n * _angle(self._raw, self._alpha)
        self._T = np.cos(self._angles)
        terms = self._S.reshape(-1, len(C)) @ _flat(C)
        self._P = terms.reshape(*self._S.shape[:2], *C.shape[1:])
        means: Array = np.einsum("nb,nkdb->kdb", self._T, self._P)
        return means

    def backward(self, d_means: Array) -> Array:
        """Return the gradient of the outputs ``(outputs, batch)``."""
        d_P = self._T[:, None, None] * d_means
        d_C = (self._S.reshape(-1, len(self._C)).T @ d_P.reshape(-1, d_P[0, 0].size)).reshape(
            self._C.shape
        )
        d_T = np.einsum("nkdb,kdb->nb", self._P, d_means)
        share = _angle(self._raw, self._alpha) / np.pi
        slope = np.sum(d_T * self._n * np.sin(self._angles), axis=0)
        d_u = np.empty((self._u.size // d_means.shape[-1] + 1, d_means.shape[-1]), d_means.dtype)
        d_parts = d_u[:-1].reshape(self._u.shape)
        np.multiply(d_C[2:], self._C[1], out=d_parts[1:])
        d_parts[0] = (d_C[1] + np.sum(d_C[2:] * self._u[1:], axis=0)) * self._unit
        d_u[-1] = slope * np.pi * share * (1.0 - share)
        return d_u


def _angle(raw: Array, start: float) -> Array:
    """Return the angle in (0, pi) of an output, 0 standing for the alpha to start from."""
    low, high = ALPHA_RANGE
    first = np.arccos((2.0 * start - low - high) / (high - low)) / np.pi
    offset = raw.dtype.type(np.log((1.0 - first) / first))
    angle: Array = np.pi / (1.0 + np.exp(raw + offset))
    return angle


def mixed_rows(spec: PolicySpec, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows ``(k, 2 + r)`` for an NDP's outputs instead of ``(k, 2 + N)`` for w s."""
    return np.hstack((rows[:, :2], rows[:, 2:] @ weight_mixing(spec)))


def displacement_rows(spec: PolicySpec) -> NDArray[np.float64]:
    """Return A ``(k, 2 + N)``: displacements over each of the k control steps.

    Columns are those of the response for yd0 per segment, s = g - y0 and w s. There is
    none for y0: the response's columns for y0 and g add up to one at all times.
    """
    rows = response(spec.dmp, np.arange(spec.k + 1) / spec.k)[0]
    return np.diff(rows[:, 1:], axis=0)


def _layer(layout: Layout, flat: Array, index: int) -> tuple[Array, Array]:
    weight, bias = (layout.pair(flat, index, kind) for kind in ("weight", "bias"))
    return weight, bias[..., None]


def _flat(array: Array) -> Array:
    return array.reshape(len(array), -1)
