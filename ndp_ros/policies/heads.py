# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Heads: mean actions from the outputs of an actor, and gradients back, on arrays.

There is a head for each kind of policy: the outputs themselves (PPO, and the curve amounts of an
NDP with noise of the segment), squashed into bounds (off-policy), or goal and weights of a
dynamical system whose solution is linear in them (NDP, section 3.1). Arrays are feature-major,
``(features, batch)``; means are *relative*, without the part that the start velocity contributes,
except where alpha is learned.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_ros.dmp.learned_alpha import alpha_series
from ndp_ros.dmp.response import response
from ndp_ros.observation import field_slice
from ndp_ros.policies.layout import VARIANCE_FLOOR, Array, actor_outputs, weight_mixing
from ndp_ros.policies.spec import ALPHA_RANGE, PolicySpec


def make_head(spec: PolicySpec, batch: int, dtype: Any, mean: Array, variance: Array) -> Head:
    """Return the head of a policy for a fixed number of observations.

    It reads the statistics ``(n_obs,)`` by which observations are normalised at each pass, so they
    are changed in place.
    """
    if spec.bounded:
        return BoundedHead(spec, batch, dtype)
    if spec.method != "ndp" or spec.noise == "segment":
        return PlainHead(spec, batch)
    if spec.learned_alpha:
        return AlphaHead(spec, batch, dtype, mean, variance)
    return DynamicHead(spec, batch, dtype)


class Head(Protocol):
    """The last part of an actor: outputs to means, and their gradients back."""

    def forward(self, u: Array, x: Array) -> Array:
        """Return the relative means ``(*spec.decision, batch)``.

        ``u (outputs, batch)`` is what the actor yields for normalised ``x (n_obs, batch)``.
        """

    def backward(self, d_means: Array) -> Array:
        """Return the gradient of the outputs of the last forward pass."""


class PlainHead:
    """A head whose outputs are the means: PPO, PPO-multi and curve amounts."""

    def __init__(self, spec: PolicySpec, batch: int) -> None:
        self._means = (*spec.decision, batch)
        self._outputs = (actor_outputs(spec), batch)

    def forward(self, u: Array, x: Array) -> Array:
        """Return the outputs, reshaped."""
        return u.reshape(self._means)

    def backward(self, d_means: Array) -> Array:
        """Return the gradient, reshaped."""
        return d_means.reshape(self._outputs)


class BoundedHead:
    """A head whose means are the outputs squashed into (-1, 1)."""

    def __init__(self, spec: PolicySpec, batch: int, dtype: Any) -> None:
        self._means = np.empty((*spec.decision, batch), dtype)

    def forward(self, u: Array, x: Array) -> Array:
        """Return the squashed outputs."""
        return np.tanh(u.reshape(self._means.shape), out=self._means)

    def backward(self, d_means: Array) -> Array:
        """Return the gradient times the slope of the squashing."""
        d: Array = d_means * (1.0 - self._means * self._means)
        return d.reshape(-1, d.shape[-1])


class DynamicHead:
    """A head whose outputs are goal and weights, and whose means are the DMP's displacements.

    With s = g - y0 the displacements are A [s; w s], or A [s; w] for a free forcing term: the rows
    of the response, one subtracted from the next.
    """

    def __init__(self, spec: PolicySpec, batch: int, dtype: Any) -> None:
        self._scaled = spec.dmp.scaled
        self._per_action = (1.0 / np.array(spec.action_scale))[:, None].astype(dtype)
        rows = mixed_rows(spec, displacement_rows(spec))[:, 1:]
        self._A = rows.astype(dtype)
        self._unit = (spec.goal_gain / np.array(spec.action_scale))[:, None].astype(dtype)
        size = (rows.shape[1], spec.dof, batch)
        self._u, self._C, self._dC, self._du = (np.empty(size, dtype) for _ in range(4))
        self._means = np.empty((spec.k, spec.dof, batch), dtype)

    def forward(self, u: Array, x: Array) -> Array:
        """Return the relative means ``(k, dof, batch)``."""
        self._u = u.reshape(self._C.shape)
        np.multiply(self._u[0], self._unit, out=self._C[0])
        factor = self._C[0] if self._scaled else self._per_action
        np.multiply(self._u[1:], factor, out=self._C[1:])
        np.matmul(self._A, self._C.reshape(len(self._C), -1), out=_flat(self._means))
        return self._means

    def backward(self, d_means: Array) -> Array:
        """Return the gradient of the outputs ``(outputs, batch)``."""
        np.matmul(self._A.T, _flat(d_means), out=_flat(self._dC))
        if self._scaled:
            np.multiply(self._dC[1:], self._C[0], out=self._du[1:])
            self._dC[1:] *= self._u[1:]
            np.add.reduce(self._dC, axis=0, out=self._du[0])
        else:
            np.multiply(self._dC[1:], self._per_action, out=self._du[1:])
            self._du[0] = self._dC[0]
        self._du[0] *= self._unit
        return self._du.reshape(-1, self._du.shape[-1])


class AlphaHead:
    """A :class:`DynamicHead` with an alpha for each segment from the last output.

    A is then a Chebyshev series over alpha, and the start velocity's column moves with it: it
    is part of the means here, taken from the normalised observation.
    """

    def __init__(
        self, spec: PolicySpec, batch: int, dtype: Any, mean: Array, variance: Array
    ) -> None:
        self._mean, self._variance, self._alpha = mean, variance, spec.dmp.alpha
        times = np.arange(spec.k + 1) / spec.k
        precision = max(float(np.finfo(dtype).eps), 1e-14)
        series = alpha_series(spec.dmp, times, 1, ALPHA_RANGE, precision)
        rows = np.diff(series.reshape(len(series), len(times), -1)[..., 1:], axis=1)
        self._S = np.stack([mixed_rows(spec, r) for r in rows]).astype(dtype)
        self._n = np.arange(len(series), dtype=dtype)[:, None]
        scale = np.array(spec.action_scale)[:, None]
        self._scaled, self._per_action = spec.dmp.scaled, (1.0 / scale).astype(dtype)
        self._unit = (spec.goal_gain / scale).astype(dtype)
        self._duration = spec.segment_duration / scale
        self._where = field_slice(spec.observation, "setpoint_velocity")
        self._C = np.empty((self._S.shape[2], spec.dof, batch), dtype)

    def forward(self, u: Array, x: Array) -> Array:
        """Return the means ``(k, dof, batch)``, the part of the start velocity included."""
        C, here = self._C, self._where
        spread = np.sqrt(self._variance[here] + VARIANCE_FLOOR)[:, None]
        C[0] = (x[here] * spread + self._mean[here][:, None]) * self._duration
        self._u = u[:-1].reshape(len(C) - 1, *C.shape[1:])
        np.multiply(self._u[0], self._unit, out=C[1])
        np.multiply(self._u[1:], C[1] if self._scaled else self._per_action, out=C[2:])
        self._raw = u[-1]
        self._angles = self._n * alpha_angle(self._raw, self._alpha)
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
        share = alpha_angle(self._raw, self._alpha) / np.pi
        slope = np.sum(d_T * self._n * np.sin(self._angles), axis=0)
        d_u = np.empty((self._u.size // d_means.shape[-1] + 1, d_means.shape[-1]), d_means.dtype)
        d_parts = d_u[:-1].reshape(self._u.shape)
        np.multiply(d_C[2:], self._C[1] if self._scaled else self._per_action, out=d_parts[1:])
        through_weights = np.sum(d_C[2:] * self._u[1:], axis=0) if self._scaled else 0.0
        d_parts[0] = (d_C[1] + through_weights) * self._unit
        d_u[-1] = slope * np.pi * share * (1.0 - share)
        return d_u


def alpha_angle(raw: Array, start: float) -> Array:
    """Return the angle in (0, pi) of an output, 0 standing for the alpha to start from."""
    low, high = ALPHA_RANGE
    first = np.arccos((2.0 * start - low - high) / (high - low)) / np.pi
    offset = raw.dtype.type(np.log((1.0 - first) / first))
    angle: Array = np.pi / (1.0 + np.exp(raw + offset))
    return angle


def mixed_rows(spec: PolicySpec, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows ``(k, 2 + r)`` for an NDP's outputs instead of its weights ``(k, 2 + N)``."""
    return np.hstack((rows[:, :2], rows[:, 2:] @ weight_mixing(spec)))


@lru_cache(maxsize=16)
def displacement_rows(spec: PolicySpec) -> NDArray[np.float64]:
    """Return A ``(k, 2 + N)``: displacements over each of the k control steps.

    Columns are those of the response for yd0 per segment, s = g - y0 and w s (or w). There is
    none for y0: the response's columns for y0 and g add up to one at all times.
    """
    rows = response(spec.dmp, np.arange(spec.k + 1) / spec.k)[0]
    return np.diff(rows[:, 1:], axis=0)


def _flat(array: Array) -> Array:
    return array.reshape(len(array), -1)
