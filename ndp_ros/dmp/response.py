"""The response B of a DMP: [y; yd; ydd] = B [y0; yd0; g; w (g - y0)].

With alpha, beta and the phase fixed, eq. (1) is linear in its start state, its
goal and its scaled weights, so a roll-out is one matrix product. This module
builds that matrix in float64, once per configuration and set of times.

``exact`` is the continuous solution: the same parameters are the same function of
time at whatever rate it is sampled. ``euler`` is the m-step unroll of section 3.2,
for parity. The readings that the paper leaves open are decided as follows.

* A segment starts with x_0 = 1; in step i -> i + 1 the phase moves first and the
  forcing term is f(x_{i+1}), as in eq. (14) and in the released code.
* ``simultaneous`` (eqs. 18, 23, 29 and the released code) advances velocity by the
  acceleration of the state before the step. ``lagged`` (eqs. 4, 5 as printed)
  advances it by the acceleration one step older still, with ydd_0 = 0.
* Row i of ``euler`` is the state at time i / m and the acceleration that acts from
  there on: y_{i+1} = y_i + yd_i / m and yd_{i+1} = yd_i + ydd_i / m. The released code returns yd
  and ydd one step late (its row i + 1 is ours i) and the start velocity as its first
  acceleration; neither is fit for inverse dynamics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import ArrayLike, NDArray

from ndp_ros.dmp.basis import centre_times, forcing_columns, phase
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError

Array = NDArray[np.float64]

Respond = Callable[[DmpConfig, Array], Array]
"""Normalised times (r,) to B (3, r, 3 + N): what a structure is to those who use it."""

_QUADRATURE: dict[int, tuple[Array, Array]] = {n: leggauss(n) for n in (4, 8)}
_MAX_STEPS = 1 << 20


def response(config: DmpConfig, times: ArrayLike) -> Array:
    """Return B, shape (3, r, 3 + N), read-only: rows for y, yd, ydd at the given times.

    Columns are [y0, yd0, g, w_1 (g - y0), ..., w_N (g - y0)]; velocities are per
    segment and accelerations per segment squared, since the segment lasts 1.

    Args:
        config: The dynamical system.
        times: Normalised times (r,), at least 0, in any order; beyond 1 the system goes
            on. ``euler`` rounds them to its grid of m steps a segment.

    Raises:
        ConfigError: If the times are not finite, negative or too long, or if Euler diverges.
    """
    times = np.ascontiguousarray(times, dtype=np.float64)
    if times.ndim != 1:
        raise ConfigError(f"response times have shape {times.shape}, expected (r,)")
    return _cached(config, times.tobytes())


def response_uncached(config: DmpConfig, times: Array) -> Array:
    """Return what :func:`response` returns, leaving nothing behind; for times used once."""
    return linear_response(config, times, config.alpha * config.beta, config.alpha)


def size(config: DmpConfig, times: Array) -> float:
    """Return about how many numbers :func:`response` is made from.

    Its memory and its time grow with them: on a small machine half a million take a tenth
    of a second.

    Args:
        config: The dynamical system.
        times: Normalised times (r,), spread evenly.
    """
    horizon = float(times.max(initial=0.0))
    if config.solver == "euler":
        return (horizon * config.m + 2.0) * 3.0 * (3 + config.n_basis)
    intervals = max(_rate(config), config.alpha / 2.0) * horizon
    n_nodes = 8.0 if intervals > 0.15 * len(times) else 4.0
    return (len(times) + intervals + config.n_basis + 2.0) * n_nodes * config.n_basis


def linear_response(config: DmpConfig, times: Array, stiffness: float, damping: float) -> Array:
    """Return B of ydd = stiffness (g - y) - damping yd + f, shape (3, r, 3 + N).

    The forcing term, the phase and the solver are those of the configuration; eq. (1) is
    stiffness = alpha beta and damping = alpha.

    Args:
        config: The dynamical system but for its spring and damper.
        times: Normalised times (r,).
        stiffness: In 1 / segment^2, positive.
        damping: In 1 / segment, at least 0.

    Raises:
        ConfigError: As in :func:`response`.
    """
    if times.size and not (np.isfinite(times).all() and times.min() >= 0.0):
        raise ConfigError(
            "response times must be finite and at least 0, "
            f"got values from {times.min():g} to {times.max():g}"
        )
    if times.size == 0:
        return np.zeros((3, 0, 3 + config.n_basis))
    solve = _exact if config.solver == "exact" else _euler
    return solve(config, times, stiffness, damping)


def whitening(config: DmpConfig, cut: float = 1e-3) -> Array:
    """Return M (N, r) that turns r numbers of order one into weights w = M v.

    The weight columns of B are tiny and nearly dependent (condition 3e2 at N = 6,
    5e9 at N = 30). With w = M v the trajectory's shape is a sum of r orthogonal
    curves with a root mean square of |g - y0| each over the segment.

    Args:
        config: The dynamical system.
        cut: Directions whose singular value is below this share of the largest are
            dropped: they need weights so large that float32 cannot add them up.
    """
    columns = response(config, np.linspace(0.0, 1.0, 257))[0, :, 3:]
    _, s, vt = np.linalg.svd(columns, full_matrices=False)
    kept = s > cut * s[0]
    return np.asarray(vt[kept].T / s[kept] * np.sqrt(len(columns)))


def alpha_series(
    config: DmpConfig,
    times: Array,
    orders: int,
    alpha_range: tuple[float, float],
    precision: float,
    respond: Respond = response_uncached,
) -> Array:
    """Return B's Chebyshev coefficients over alpha, shape (n, orders * r * (3 + N)).

    With alpha = low + (high - low) (1 + cos(angle)) / 2, B is the sum of cos(n angle) times
    the n-th. Nodes are doubled until the series has converged; then what lies below the
    precision, relative to the largest coefficient, is cut off.

    Args:
        config: The dynamical system; its alpha does not matter.
        times: Normalised times (r,).
        orders: 1 for y alone, 3 for y, yd, ydd.
        alpha_range: Lowest and highest alpha.
        precision: Relative size of what is left out.
        respond: The structure.

    Raises:
        ConfigError: If 256 nodes are not enough, or if Euler diverges inside the range.
    """
    low, high = alpha_range
    n_nodes = 16
    while n_nodes <= 256:
        angles = (np.arange(n_nodes) + 0.5) * np.pi / n_nodes
        alphas = 0.5 * (low + high) + 0.5 * (high - low) * np.cos(angles)
        systems = [replace(config, alpha=float(alpha)) for alpha in alphas]
        B = np.stack([respond(system, times)[:orders].ravel() for system in systems])
        series = 2.0 / n_nodes * np.cos(np.arange(n_nodes)[:, None] * angles) @ B
        series[0] *= 0.5
        size = np.abs(series).max(axis=1)
        above = np.flatnonzero(size > precision * size.max())
        if above[-1] < n_nodes - 2:
            return np.asarray(series[: above[-1] + 1])
        n_nodes *= 2
    raise ConfigError(
        f"alpha_range {low:g} to {high:g} is too wide for times up to {times.max():g}"
    )


def alpha_of(angle: Array, alpha_range: tuple[float, float]) -> Array:
    """Return the alpha that stands at an angle of :func:`alpha_series`."""
    low, high = alpha_range
    return 0.5 * (low + high) + 0.5 * (high - low) * np.cos(angle)


@lru_cache(maxsize=64)
def _cached(config: DmpConfig, times: bytes) -> Array:
    B = response_uncached(config, np.frombuffer(times))
    B.flags.writeable = False
    return B


def _exact(config: DmpConfig, times: Array, stiffness: float, damping: float) -> Array:
    """Return B of the continuous solution.

    All of it follows from the impulse response h, that is y after yd0 = 1: the start
    position's column is h' + damping h, and the forcing columns are the convolution of h
    with the forcing term.
    """
    h, hd = (a[:, None] for a in _impulse(times, stiffness, damping))
    B = np.empty((3, len(times), 3 + config.n_basis))
    B[0, :, 0:1], B[0, :, 1:2] = hd + damping * h, h
    B[1, :, 0:1], B[1, :, 1:2] = -stiffness * h, hd
    B[2, :, 0:1], B[2, :, 1:2] = -stiffness * hd, -stiffness * h - damping * hd
    B[:, :, 2] = -B[:, :, 0]
    B[0, :, 2] += 1.0

    rate = max(_rate(config), damping / 2.0, stiffness**0.5)
    edges = _edges(config, times, rate)
    # Eight nodes reach rounding on intervals of 1 / rate, four on those of a dense grid.
    n_nodes = 8 if np.diff(edges).max() * rate > 0.15 else 4
    y, yd = _convolutions(config, edges, n_nodes, stiffness, damping)
    rows = np.searchsorted(edges, times)
    forcing = forcing_columns(config, phase(config, times))
    B[0, :, 3:], B[1, :, 3:] = y[rows], yd[rows]
    B[2, :, 3:] = forcing - damping * yd[rows] - stiffness * y[rows]
    return B


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


def _rate(config: DmpConfig) -> float:
    """Return how many integration intervals a segment needs.

    Neighbouring Gaussians hand over within 1 / (2 h |c_i - c_j|) of phase, which runs at a_x; the
    rational kernels' poles lie sqrt(1 / h) from their centres.
    """
    n, a_x = config.n_basis, config.a_x
    hand_over = 2.0 * a_x * (a_x if config.layout == "paper" else n**0.5)
    pole = 3.0 * (a_x * n**0.5 if config.layout == "paper" else a_x**0.5 * n**0.75)
    return float(max(8.0, a_x, hand_over, pole))


def _edges(config: DmpConfig, times: Array, rate: float) -> Array:
    """Return the integration intervals' ends: the times, the kernels' centres, a fine grid."""
    horizon = float(times.max())
    if rate * horizon > _MAX_STEPS:
        raise ConfigError(
            f"response times reach {horizon:g} segments: "
            f"at most {_MAX_STEPS / rate:g} with this system"
        )
    grid = np.linspace(0.0, max(horizon, 1.0 / rate), int(np.ceil(rate * horizon)) + 2)
    kinks = centre_times(config)  # of the linear kernel
    return np.unique(np.concatenate((times, grid, kinks[kinks < horizon])))


def _convolutions(
    config: DmpConfig, edges: Array, n_nodes: int, stiffness: float, damping: float
) -> tuple[Array, Array]:
    """Return y and yd, each (edges, N), of the system at rest driven by the forcing columns.

    Each interval contributes a Gauss-Legendre sum and carries what came before it; intervals
    are joined in pairs, then pairs of pairs, so that the time loop has log2(edges) turns.
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


def _euler(config: DmpConfig, times: Array, stiffness: float, damping: float) -> Array:
    """Return B of the m-step unroll, one step beyond the last row for its acceleration."""
    m, dt, n = config.m, 1.0 / config.m, config.n_basis
    rows = np.rint(times * m).astype(np.int64)
    n_steps = int(rows.max()) + 1
    if n_steps > _MAX_STEPS:
        raise ConfigError(f"response times take {n_steps} Euler steps, at most {_MAX_STEPS}")
    if config.order == "simultaneous":
        A = np.array([[1.0, dt], [-stiffness * dt, 1.0 - damping * dt]])
        gain = dt  # an acceleration enters the velocity at once
    else:
        A = np.array([[1.0, dt, 0.0], [0.0, 1.0, dt], [-stiffness, -damping, 0.0]])
        gain = 1.0  # and here it becomes a state of its own
    radius = np.abs(np.linalg.eigvals(A)).max()
    if radius > 1.0 or config.a_x >= m:
        raise ConfigError(
            f"{m} {config.order} Euler steps diverge at alpha={damping:g}, "
            f"a_x={config.a_x:g}: raise m, or use solver=exact"
        )
    x = np.power(1.0 - config.a_x * dt, np.arange(1, n_steps + 1, dtype=np.float64))
    states = np.zeros((n_steps + 1, len(A), 3 + n))
    states[0, 0, 0] = states[0, 1, 1] = 1.0
    states[1:, -1, 2] = gain * stiffness
    states[1:, -1, 3:] = gain * forcing_columns(config, x)
    # states[i+1] = A states[i] + input[i], joined in pairs, then in pairs of pairs.
    power, stride = A, 1
    while stride <= n_steps:
        states[stride:] += np.matmul(power, states[:-stride])
        power, stride = power @ power, 2 * stride
    y, yd = states[:, 0], states[:, 1]
    ydd = states[:, 2] if config.order == "lagged" else np.diff(yd, axis=0) / dt
    return np.stack((y[rows], yd[rows], ydd[rows]))
