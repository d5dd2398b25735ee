# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Curve amounts: the coordinates in which a segment is explored, r numbers for each joint.

A segment that is linear in its goal and its weights is a sum of curves. The first one is the goal's
and ends at a displacement of one; the others are forcing curves, orthogonal to each other and back
at zero when the segment ends, so that the first amount alone says where it ends. With the curves as
rows of C, from rest::

    y(t) - y0 = unit C(t) a,    g - y0 = unit m_0 a,    w = unit m_1..N a

for amounts a (r,) and the mixing matrix m (1 + N, r). A free forcing term is linear in that way
(``forcing="free"``). The goal's curve needs none: with r = 1 all weights are zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response
from ndp_ros.errors import ConfigError

Array = NDArray[np.float64]

_GRID = 257
"""Times over a segment at which the forcing curves are compared."""
_CUT = 1e-9
"""Forcing curves whose size is below this share of the largest cannot be told apart."""


class Curves:
    """The first r curves of a dynamical system.

    Attributes:
        config: The dynamical system.
        mixing: Goal and weights for each amount (1 + N, r): the first row is g - y0.

    Example:
        >>> curves = Curves(DmpConfig(n_basis=5, forcing="free"), count=3)
        >>> [round(float(end), 9) + 0.0 for end in curves.at([1.0])[0, 0]]
        [1.0, 0.0, 0.0]
    """

    def __init__(self, config: DmpConfig, count: int, size: float = 0.3) -> None:
        """Compute the curves.

        Args:
            config: The dynamical system.
            count: r, the goal's curve and r - 1 forcing curves.
            size: Root mean square of a forcing curve over the segment, in units of that of the
                goal's curve.

        Raises:
            ConfigError: If r is not 1 to N + 1, or forcing curves are asked of a term that is
                scaled by g - y0.
        """
        n = config.n_basis
        if not 1 <= count <= n + 1:
            raise ConfigError(
                f"curves is {count}: with n_basis = {n} there are 1 to {n + 1}, the goal's and "
                f"{n} forcing curves"
            )
        if count > 1 and config.scaled:
            raise ConfigError(
                f"curves is {count} with forcing {config.forcing!r}, whose curves vanish where the "
                "goal is the start: use forcing free, or one curve"
            )
        self.config = config
        grid = response(config, np.linspace(0.0, 1.0, _GRID))[0]
        end = grid[-1, 2:]
        self.mixing: Array = np.zeros((1 + n, count))
        self.mixing[0, 0] = 1.0 / end[0]
        # Each forcing column with as much of the goal's that it ends where it began.
        returning = np.vstack((-end[1:] / end[0], np.eye(n)))
        _, s, vt = np.linalg.svd(grid[:, 2:] @ returning, full_matrices=False)
        if s[max(count - 2, 0)] < _CUT * s[0]:
            raise ConfigError(
                f"curves is {count}: this system has only {1 + int((s >= _CUT * s[0]).sum())}"
            )
        # The size of the goal's curve, and singular values as sizes over the segment.
        goal, sizes = np.sqrt(np.mean((grid[:, 2] / end[0]) ** 2)), s / np.sqrt(_GRID)
        for j in range(1, count):
            self.mixing[:, j] = returning @ vt[j - 1] * (size * goal / sizes[j - 1])
        self.mixing.flags.writeable = False

    def at(self, times: NDArray[np.float64] | list[float]) -> Array:
        """Return the curves (3, n, r) at normalised times: y, yd per segment, ydd per segment^2."""
        return np.asarray(response(self.config, times)[:, :, 2:] @ self.mixing)

    def parameters(self, amounts: Array, unit: Array) -> tuple[Array, Array]:
        """Return the goal's displacement g - y0 (..., dof) [rad] and the weights (..., dof, N).

        Args:
            amounts: Amounts (..., r, dof).
            unit: End displacement of one unit of the first curve (dof,) [rad].
        """
        mixed = np.moveaxis(self.mixing @ (amounts * unit), -2, -1)
        return mixed[..., 0], mixed[..., 1:]

    def amounts(self, displacement: Array, w: Array, unit: Array) -> Array:
        """Return the amounts of curves (..., r, dof) nearest to a displacement and weights.

        The displacement g - y0 is ``(..., dof)``, w ``(..., dof, N)``. The amounts are those of
        :meth:`parameters` if there are as many curves as parameters; otherwise the ones whose curve
        is nearest over the segment.
        """
        grid = response(self.config, np.linspace(0.0, 1.0, _GRID))[0, :, 2:]
        nearest = np.linalg.lstsq(grid @ self.mixing, grid, rcond=None)[0]
        both = np.concatenate((displacement[..., None], w), axis=-1) / unit[:, None]
        return np.moveaxis(both @ nearest.T, -1, -2)
