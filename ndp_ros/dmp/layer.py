"""The DMP as a torch layer: a roll-out is one matrix product, and so is its gradient.

    Y = B C,   C = [y0; yd0; g; w^T s],   s = g - y0

with one column of C per sample and joint. The backward pass is dC = B^T dY; the
product rule through s gives the gradients of w, g and y0. They equal the recursions
(23) and (29) of the paper without running them, so cost grows with the
number of rows asked for, not with the m steps of an integrator.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import Respond, alpha_series, response_uncached
from ndp_ros.errors import ConfigError

_TIME_MAJOR_ROWS = 32
"""Up to this many rows B C is computed as written, beyond as C^T B^T: BLAS is several
times slower on a tall matrix times a narrow one than on the transposed product."""


class DmpLayer(nn.Module):
    """w, g → y at the k control steps of a segment, or y, yd, ydd at any times.

    Time is normalised: velocities are per segment, accelerations per segment squared. The
    layer has no parameters of its own and follows the dtype and device of its inputs.
    """

    def __init__(
        self,
        config: DmpConfig,
        k: int,
        alpha_range: tuple[float, float] = (0.5, 30.0),
        respond: Respond = response_uncached,
    ) -> None:
        """Prepare a layer.

        Args:
            config: The dynamical system.
            k: Actions a segment.
            alpha_range: What a learned alpha may become (section 5.3); unused without one.
            respond: Another linear structure than the DMP, see :mod:`ndp_ros.dmp.structures`.

        Raises:
            ConfigError: If k is not positive or the range is not positive and increasing.
        """
        super().__init__()
        if k < 1:
            raise ConfigError(f"k is {k!r}, expected at least 1")
        if not 0.0 < alpha_range[0] < alpha_range[1] < math.inf:
            raise ConfigError(f"alpha_range is {alpha_range!r}, expected 0 < low < high")
        self.config = config
        self.k = k
        self.alpha_range = alpha_range
        self.respond = respond
        self._times = np.arange(1, k + 1) / k
        self._matrices: dict[tuple[object, ...], Tensor] = {}

    def forward(
        self, y0: Tensor, yd0: Tensor, g: Tensor, w: Tensor, raw_alpha: Tensor | None = None
    ) -> Tensor:
        """Return y (batch, k, dof) at times 1/k ... 1 [rad].

        Args:
            y0: Start position (batch, dof) [rad].
            yd0: Start velocity (batch, dof) [rad/segment].
            g: Goal (batch, dof) [rad].
            w: Weights (batch, dof, N).
            raw_alpha: For a learned alpha, any real number per sample (batch,), which
                :meth:`alpha` maps into ``alpha_range``; without it ``config.alpha`` holds.
        """
        return self._roll_out(y0, yd0, g, w, raw_alpha, self._times, orders=1)

    def rollout(
        self,
        y0: Tensor,
        yd0: Tensor,
        g: Tensor,
        w: Tensor,
        times: ArrayLike,
        raw_alpha: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return y, yd, ydd (batch, r, dof) at normalised times (r,), differentiable.

        Arguments are those of :meth:`forward`. Units are rad, rad/segment and rad/segment^2.

        Raises:
            ConfigError: If a time is negative or not finite.
        """
        y, yd, ydd = self._roll_out(
            y0, yd0, g, w, raw_alpha, np.asarray(times, dtype=np.float64), orders=3
        ).chunk(3, dim=1)
        return y, yd, ydd

    def alpha(self, raw_alpha: Tensor) -> Tensor:
        """Return the alpha in ``alpha_range`` that a raw network output stands for.

        The map is smooth and increasing and its gradient is nowhere cut to zero; beta = alpha / 4
        follows.
        """
        low, high = self.alpha_range
        return 0.5 * (low + high) + 0.5 * (high - low) * torch.cos(_angle(raw_alpha))

    def raw_alpha(self, alpha: float) -> float:
        """Return the raw output that stands for an alpha; the start value of a head.

        Raises:
            ConfigError: If alpha is not inside ``alpha_range``.
        """
        low, high = self.alpha_range
        if not low < alpha < high:
            raise ConfigError(f"alpha is {alpha:g}, expected inside {low:g} to {high:g}")
        share = 1.0 - math.acos((2.0 * alpha - low - high) / (high - low)) / math.pi
        return math.log(share / (1.0 - share))

    def extra_repr(self) -> str:
        """Return what ``print`` shows of the layer."""
        return f"{self.config}, k={self.k}"

    def _roll_out(
        self,
        y0: Tensor,
        yd0: Tensor,
        g: Tensor,
        w: Tensor,
        raw_alpha: Tensor | None,
        times: NDArray[np.float64],
        orders: int,
    ) -> Tensor:
        if raw_alpha is None:
            B = self._matrix(times, orders, w)
            return cast(Tensor, _Response.apply(B, y0, yd0, g, w))
        # Every entry of B is a smooth function of alpha, so a Chebyshev series gives it per sample;
        # with alpha on a cosine the polynomials are T_n = cos(n angle).
        series = self._series(times, orders, w)
        n = torch.arange(len(series), dtype=w.dtype, device=w.device)
        T = torch.cos(n * _angle(raw_alpha)[:, None])
        B = (T @ series).view(len(w), -1, 3 + self.config.n_basis)
        C = torch.cat((torch.stack((y0, yd0, g), 1), (w * (g - y0)[..., None]).mT), 1)
        return torch.bmm(B, C)

    def _matrix(self, times: NDArray[np.float64], orders: int, like: Tensor) -> Tensor:
        """Return B (orders * r, 3 + N) in the type and on the device of a tensor."""
        key = ("B", times.tobytes(), orders, like.dtype, like.device)
        if key not in self._matrices:
            B = self.respond(self.config, times)[:orders].reshape(-1, 3 + self.config.n_basis)
            self._remember(key, B, like)
        return self._matrices[key]

    def _series(self, times: NDArray[np.float64], orders: int, like: Tensor) -> Tensor:
        """Return the Chebyshev coefficients (n, orders * r * (3 + N)) of B over alpha."""
        key = ("series", times.tobytes(), orders, like.dtype, like.device)
        if key not in self._matrices:
            precision = max(torch.finfo(like.dtype).eps, 1e-14)
            series = alpha_series(
                self.config, times, orders, self.alpha_range, precision, self.respond
            )
            self._remember(key, series, like)
        return self._matrices[key]

    def _remember(self, key: tuple[object, ...], value: NDArray[np.float64], like: Tensor) -> None:
        if len(self._matrices) >= 16:  # sets of times in use at once, with room to spare
            self._matrices.pop(next(iter(self._matrices)))
        # What inference mode makes could never be trained with; this outlives the call.
        with torch.inference_mode(False):
            self._matrices[key] = torch.tensor(value, dtype=like.dtype, device=like.device)


class _Response(torch.autograd.Function):
    """Y = B C, saving only w^T and s = g - y0.

    B is split by columns, Y = (B_w w^T) s + B_0 [y0; yd0; g]: scaling the product's few
    rows by s costs less than scaling and transposing the weights to build C.
    """

    @staticmethod
    def forward(ctx: Any, B: Tensor, y0: Tensor, yd0: Tensor, g: Tensor, w: Tensor) -> Tensor:
        batch, dof, n_basis = w.shape
        rows, n = B.shape[0], batch * dof
        s = (g - y0).reshape(n)
        wT = w.reshape(n, n_basis).t()
        start = torch.stack((y0.reshape(n), yd0.reshape(n), g.reshape(n)))
        ctx.save_for_backward(B, wT, s)
        ctx.shape = (batch, dof)
        B_0, B_w = B[:, :3], B[:, 3:]
        if rows <= _TIME_MAJOR_ROWS:
            Y = torch.mm(B_w, wT).mul_(s).addmm_(B_0, start)
            return Y.view(rows, batch, dof).transpose(0, 1)
        Y = torch.mm(wT.t(), B_w.t()).mul_(s[:, None]).addmm_(start.t(), B_0.t())
        return Y.view(batch, dof, rows).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, ...]:
        B, wT, s = ctx.saved_tensors
        batch, dof = ctx.shape
        if B.shape[0] <= _TIME_MAJOR_ROWS:
            dY = dY.transpose(0, 1).reshape(-1, batch * dof)
        else:
            dY = dY.transpose(1, 2).reshape(batch * dof, -1).t()
        dC = torch.mm(B.t(), dY)
        _, need_y0, need_yd0, need_g, need_w = ctx.needs_input_grad
        # w enters as w s, so s = g - y0 collects what the forcing columns received.
        ds = (dC[3:] * wT).sum(0) if need_g or need_y0 else dC[2]
        return (
            None,
            (dC[0] - ds).view(batch, dof) if need_y0 else None,
            dC[1].view(batch, dof) if need_yd0 else None,
            (dC[2] + ds).view(batch, dof) if need_g else None,
            (dC[3:] * s).t().view(batch, dof, -1) if need_w else None,
        )


def _angle(raw_alpha: Tensor) -> Tensor:
    """Return the angle on (0, pi) that a raw alpha stands for, falling as it rises."""
    return math.pi * torch.sigmoid(-raw_alpha)
