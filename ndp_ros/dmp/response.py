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

from functools import lru_cache

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import ArrayLike, NDArray

from ndp_ros.dmp.basis import centre_times, forcing_columns, phase
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError

Array = NDArray[np.float64]

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
    if times.size and not (np.isfinite(times).all() and times.min() >= 0.0):
        raise ConfigError(f"response times must be finite and at least 0, got {_extremes(times)}")
    if times.size == 0:
        return np.zeros((3, 0, 3 + config.n_basis))
    return _exact(config, times) if config.solver == "exact" else _euler(config, times)


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


@lru_cache(maxsize=64)
def _cached(config: DmpConfig, times: bytes) -> Array:
    B = response_uncached(config, np.frombuffer(times))
    B.flags.writeable = False
    return B


def _exact(config: DmpConfig, times: Array) -> Array:
    """Return B of the continuous solution.

    alpha^2 - 4 alpha beta = 0, so both roots are -lam = -alpha / 2 and the impulse
    response is t e^{-lam t}. The forcing columns are its convolution with the
    forcing term, by Gauss-Legendre on intervals short against every time scale of the
    integrand.
    """
    lam = config.alpha / 2.0
    t = times[:, None]
    decay = np.exp(-lam * t)
    B = np.empty((3, len(times), 3 + config.n_basis))
    B[0, :, 0:1] = (1.0 + lam * t) * decay
    B[1, :, 0:1] = -(lam**2) * t * decay
    B[2, :, 0:1] = -(lam**2) * (1.0 - lam * t) * decay
    B[0, :, 1:2] = t * decay
    B[1, :, 1:2] = (1.0 - lam * t) * decay
    B[2, :, 1:2] = (lam * t - 2.0) * lam * decay
    B[:, :, 2] = -B[:, :, 0]
    B[0, :, 2] += 1.0

    rate = _rate(config)
    edges = _edges(config, times, rate)
    # Eight nodes reach rounding on intervals of 1 / rate, four on those of a dense grid.
    n_nodes = 8 if np.diff(edges).max() * rate > 0.15 else 4
    J0, J1 = _convolutions(config, edges, n_nodes)
    rows = np.searchsorted(edges, times)
    B[0, :, 3:] = J1[rows]
    B[1, :, 3:] = J0[rows] - lam * J1[rows]
    B[2, :, 3:] = (
        forcing_columns(config, phase(config, times))
        - config.alpha * B[1, :, 3:]
        - config.alpha * config.beta * B[0, :, 3:]
    )
    return B


def _rate(config: DmpConfig) -> float:
    """Return how many integration intervals a segment needs.

    Neighbouring Gaussians hand over within 1 / (2 h |c_i - c_j|) of phase, which runs at a_x; the
    rational kernels' poles lie sqrt(1 / h) from their centres.
    """
    n, a_x = config.n_basis, config.a_x
    hand_over = 2.0 * a_x * (a_x if config.layout == "paper" else n**0.5)
    pole = 3.0 * (a_x * n**0.5 if config.layout == "paper" else a_x**0.5 * n**0.75)
    return float(max(32.0, config.alpha / 2.0, a_x, hand_over, pole))


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


def _convolutions(config: DmpConfig, edges: Array, n_nodes: int) -> tuple[Array, Array]:
    """Return int_0^t e^{-lam (t-u)} f(u) du and int_0^t (t-u) e^{-lam (t-u)} f(u) du.

    Both have shape (edges, N). An interval of length d carries (J0, J1) into
    e^{-lam d} (J0, J1 + d J0) plus its own contribution; intervals are joined in
    pairs, then pairs of pairs, so that the time loop has log2(edges) turns.
    """
    lam, n = config.alpha / 2.0, config.n_basis
    nodes, node_weights = _QUADRATURE[n_nodes]
    start, length = edges[:-1, None], np.diff(edges)[:, None]
    ahead = 0.5 * length * (1.0 - nodes)  # (intervals, nodes): from the node to the interval's end
    u = np.asarray(start + length - ahead, dtype=np.float64)
    f = forcing_columns(config, phase(config, u.ravel())).reshape(*u.shape, n)
    kernel = 0.5 * length * node_weights * np.exp(-lam * ahead)
    J0 = np.zeros((len(edges), n))
    J1 = np.zeros((len(edges), n))
    J0[1:] = np.matmul(kernel[:, None, :], f)[:, 0]
    J1[1:] = np.matmul((kernel * ahead)[:, None, :], f)[:, 0]
    span = np.concatenate((np.zeros((1, 1)), length))
    stride = 1
    while stride < len(edges):
        d = span[stride:]
        decay = np.exp(-lam * d)
        J1[stride:] += decay * (J1[:-stride] + d * J0[:-stride])
        J0[stride:] += decay * J0[:-stride]
        span[stride:] = d + span[:-stride]
        stride *= 2
    return J0, J1


def _euler(config: DmpConfig, times: Array) -> Array:
    """Return B of the m-step unroll, one step beyond the last row for its acceleration."""
    m, dt, n = config.m, 1.0 / config.m, config.n_basis
    rows = np.rint(times * m).astype(np.int64)
    n_steps = int(rows.max()) + 1
    if n_steps > _MAX_STEPS:
        raise ConfigError(f"response times take {n_steps} Euler steps, at most {_MAX_STEPS}")
    stiffness, damping = config.alpha * config.beta, config.alpha
    if config.order == "simultaneous":
        A = np.array([[1.0, dt], [-stiffness * dt, 1.0 - damping * dt]])
        gain = dt  # an acceleration enters the velocity at once
    else:
        A = np.array([[1.0, dt, 0.0], [0.0, 1.0, dt], [-stiffness, -damping, 0.0]])
        gain = 1.0  # and here it becomes a state of its own
    radius = np.abs(np.linalg.eigvals(A)).max()
    if radius > 1.0 or config.a_x >= m:
        raise ConfigError(
            f"{m} {config.order} Euler steps diverge at alpha={config.alpha:g}, "
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


def _extremes(times: Array) -> str:
    return f"values from {times.min():g} to {times.max():g}"
