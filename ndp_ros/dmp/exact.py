# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The continuous solution of eq. (1), the solver ``exact``.

One set of parameters is the same function of time at whatever rate it is sampled, so a policy
trained at k control steps a segment can be streamed at 5 kHz.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial.legendre import leggauss

from ndp_ros.dmp.basis import Array, centre_times, forcing_columns, phase
from ndp_ros.dmp.config import DmpConfig

_QUADRATURE: dict[int, tuple[Array, Array]] = {n: leggauss(n) for n in (4, 8)}
"""Nodes and weights on [-1, 1]: eight nodes reach rounding on intervals of 1 / rate, four on the
intervals of a dense grid."""
_DENSE = 0.15
"""Product of interval and rate up to which four nodes suffice."""


def solve(config: DmpConfig, times: Array, stiffness: float, damping: float) -> Array:
    """Return B (3, r, 3 + N) of ydd = stiffness (g - y) - damping yd + f.

    All columns follow from the impulse response h, which is y after yd0 = 1: the start position's
    column is h' + damping h, and the forcing columns are the convolution of h with the forcing
    term.

    Args:
        config: Kernels and phase of the forcing term f.
        times: Normalised times (r,), at least 0.
        stiffness: [1/segment^2], positive.
        damping: [1/segment], at least 0.
    """
    h, hd = (a[:, None] for a in _impulse(times, stiffness, damping))
    B = np.empty((3, len(times), 3 + config.n_basis))
    B[0, :, 0:1], B[0, :, 1:2] = hd + damping * h, h
    B[1, :, 0:1], B[1, :, 1:2] = -stiffness * h, hd
    B[2, :, 0:1], B[2, :, 1:2] = -stiffness * hd, -stiffness * h - damping * hd
    B[:, :, 2] = -B[:, :, 0]
    B[0, :, 2] += 1.0

    rate = _rate(config, stiffness, damping)
    edges = _edges(config, times, rate)
    n_nodes = 8 if np.diff(edges).max() * rate > _DENSE else 4
    y, yd = _convolutions(config, edges, n_nodes, stiffness, damping)
    rows = np.searchsorted(edges, times)
    forcing = forcing_columns(config, phase(config, times))
    B[0, :, 3:], B[1, :, 3:] = y[rows], yd[rows]
    B[2, :, 3:] = forcing - damping * yd[rows] - stiffness * y[rows]
    return B


def size(config: DmpConfig, horizon: float, rows: int, stiffness: float, damping: float) -> float:
    """Return about how many numbers :func:`solve` computes for rows spread over a horizon."""
    intervals = _rate(config, stiffness, damping) * horizon
    n_nodes = 8.0 if intervals > _DENSE * rows else 4.0
    return (rows + intervals + config.n_basis + 2.0) * n_nodes * config.n_basis


def _impulse(t: Array, stiffness: float, damping: float) -> tuple[Array, Array]:
    """Return h(t) and h'(t) of h'' = -stiffness h - damping h' with h(0) = 0, h'(0) = 1."""
    lam = damping / 2.0
    spread = lam * lam - stiffness  # of the roots -lam +- sqrt(spread); 0 if critically damped
    if spread > 0.0:
        omega = spread**0.5
        slow = np.exp(-stiffness / (lam + omega) * t)  # lam - omega without cancellation
        fast = np.exp(-2.0 * omega * t)
        return -slow * np.expm1(-2.0 * omega * t) / (2.0 * omega), slow * (
            0.5 * (1.0 + fast) + 0.5 * lam / omega * np.expm1(-2.0 * omega * t)
        )
    decay = np.exp(-lam * t)
    omega = (-spread) ** 0.5
    h = decay * t * np.sinc(omega * t / np.pi)
    return h, decay * np.cos(omega * t) - lam * h


def _rate(config: DmpConfig, stiffness: float, damping: float) -> float:
    """Return how many integration intervals a segment needs.

    Neighbouring Gaussians hand over within 1 / (2 h |c_i - c_j|) of phase, which runs at a_x; the
    rational kernels' poles lie sqrt(1 / h) from their centres.
    """
    n, a_x = config.n_basis, config.a_x
    hand_over = 2.0 * a_x * (a_x if config.layout == "paper" else n**0.5)
    pole = 3.0 * (a_x * n**0.5 if config.layout == "paper" else a_x**0.5 * n**0.75)
    return float(max(8.0, a_x, hand_over, pole, damping / 2.0, stiffness**0.5))


def _edges(config: DmpConfig, times: Array, rate: float) -> Array:
    """Return the ends of the integration intervals: times, kernel centres and a fine grid."""
    horizon = float(times.max())
    grid = np.linspace(0.0, max(horizon, 1.0 / rate), int(np.ceil(rate * horizon)) + 2)
    kinks = centre_times(config)  # of the linear kernel
    return np.unique(np.concatenate((times, grid, kinks[kinks < horizon])))


def _convolutions(
    config: DmpConfig, edges: Array, n_nodes: int, stiffness: float, damping: float
) -> tuple[Array, Array]:
    """Return y and yd, each (edges, N), of the system driven from rest by the forcing columns.

    Each interval adds a Gauss-Legendre sum to the state that it carries over from its start;
    intervals are joined in pairs, then in pairs of pairs, so that the loop has log2(edges) turns.
    """
    nodes, node_weights = _QUADRATURE[n_nodes]
    length = np.diff(edges)
    ahead = 0.5 * length[:, None] * (1.0 - nodes)  # (intervals, nodes): from node to interval's end
    u = np.asarray(edges[1:, None] - ahead, dtype=np.float64)
    f = forcing_columns(config, phase(config, u.ravel())).reshape(*u.shape, config.n_basis)
    h, hd = _impulse(ahead, stiffness, damping)
    area = 0.5 * length[:, None] * node_weights
    y, yd = np.zeros((2, len(edges), config.n_basis))
    y[1:] = np.matmul((area * h)[:, None, :], f)[:, 0]
    yd[1:] = np.matmul((area * hd)[:, None, :], f)[:, 0]
    span = np.concatenate(([0.0], length))
    stride = 1
    while stride < len(edges):
        h, hd = (a[:, None] for a in _impulse(span[stride:], stiffness, damping))
        before_y, before_yd = y[:-stride], yd[:-stride]
        carried_y = (hd + damping * h) * before_y + h * before_yd
        yd[stride:] += hd * before_yd - stiffness * h * before_y
        y[stride:] += carried_y
        span[stride:] = span[stride:] + span[:-stride]
        stride *= 2
    return y, yd
