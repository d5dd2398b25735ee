"""The DMP as a torch layer: a roll-out is one matrix product, and so is its gradient.

    Y = B C,   C = [y0; yd0; g; w^T s],   s = g - y0

with one column of C per sample and joint. The backward pass is dC = B^T dY; the
product rule through s gives the gradients of w, g and y0. They equal the recursions
(23) and (29) of the paper without running them, so cost grows with the
number of rows asked for, not with the m steps of an integrator.
"""

from __future__ import annotations

import math
import operator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import Respond, alpha_series, response_uncached
from ndp_ros.errors import ConfigError

_TIME_MAJOR_ROWS = 32
"""Up to this many rows B C is computed as written, beyond as C^T B^T: BLAS is several
times slower on a tall matrix times a narrow one than on the transposed product."""
_EXACT = (torch.float32, torch.float64)
"""Precisions in which a motion is computed."""
_ORDINARY = (Tensor, nn.Parameter)


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
        try:
            k = operator.index(k)
        except TypeError as error:
            raise ConfigError(f"k is {k!r}, expected a whole number") from error
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
        # For modes that trace: these look nothing up.
        self._B = torch.from_numpy(respond(config, self._times)[0].copy())
        self._coefficients: Tensor | None = None

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

        Raises:
            ConfigError: If a shape differs, even where it would broadcast.
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
        self._check(y0, yd0, g, w, raw_alpha)
        dtype = w.dtype
        same = dtype == y0.dtype == yd0.dtype == g.dtype and dtype in _EXACT
        if not same or torch.is_autocast_enabled(w.device.type):
            return self._in_single(y0, yd0, g, w, raw_alpha, times, orders)
        if raw_alpha is None:
            B = self._matrix(times, orders, w)
            if _traced(w):
                return _product(B, y0, yd0, g, w)
            return cast(Tensor, _Response.apply(B, y0, yd0, g, w))
        # Every entry of B is a smooth function of alpha, so a Chebyshev series gives it per sample;
        # with alpha on a cosine the polynomials are T_n = cos(n angle).
        series = self._series(times, orders, w)
        n = torch.arange(len(series), dtype=w.dtype, device=w.device)
        T = torch.cos(n * _angle(raw_alpha)[:, None])
        B = (T @ series).view(len(w), orders * len(times), 3 + self.config.n_basis)
        C = torch.cat((torch.stack((y0, yd0, g), 1), (w * (g - y0)[..., None]).mT), 1)
        return torch.bmm(B, C)

    def _matrix(self, times: NDArray[np.float64], orders: int, like: Tensor) -> Tensor:
        """Return B (orders * r, 3 + N) in the type and on the device of a tensor."""
        if torch.compiler.is_compiling() and times is self._times and orders == 1:
            return self._B.to(like)
        key = ("B", times.tobytes(), orders, like.dtype, like.device)
        if key not in self._matrices:
            B = self.respond(self.config, times)[:orders].reshape(-1, 3 + self.config.n_basis)
            return self._remember(key, B, like)
        return self._fit(self._matrices[key], like)

    def _series(self, times: NDArray[np.float64], orders: int, like: Tensor) -> Tensor:
        """Return the Chebyshev coefficients (n, orders * r * (3 + N)) of B over alpha."""
        if torch.compiler.is_compiling() and times is self._times and orders == 1:
            if self._coefficients is None:
                raise ConfigError("call a layer of learned alpha once before it is compiled")
            return self._coefficients.to(like)
        key = ("series", times.tobytes(), orders, like.dtype, like.device)
        if key not in self._matrices:
            precision = max(torch.finfo(like.dtype).eps, 1e-14)
            series = alpha_series(
                self.config, times, orders, self.alpha_range, precision, self.respond
            )
            if times is self._times and orders == 1:
                self._coefficients = torch.from_numpy(series.copy())
            return self._remember(key, series, like)
        return self._fit(self._matrices[key], like)

    def _remember(
        self, key: tuple[object, ...], value: NDArray[np.float64], like: Tensor
    ) -> Tensor:
        """Return a matrix in the type and on the device of a tensor, and keep it."""
        kind = np.float64 if like.dtype == torch.float64 else np.float32
        # What inference mode makes could never be trained with, and what another mode wraps is of
        # no use outside it; this outlives the call, so it is made from memory of numpy's.
        with torch.inference_mode(False):
            made = torch.from_numpy(np.array(value, kind))
            if type(made) not in _ORDINARY:
                return made
            if made.device != like.device:
                return made.to(like.device)
        if len(self._matrices) >= 16:  # sets of times in use at once, with room to spare
            self._matrices.pop(next(iter(self._matrices)))
        self._matrices[key] = made
        return self._fit(made, like)

    @staticmethod
    def _fit(matrix: Tensor, like: Tensor) -> Tensor:
        """Return a kept matrix for tensors of a class of their own, such as fake ones."""
        return matrix if type(like) in _ORDINARY else torch.tensor(matrix.numpy())

    def _check(
        self, y0: Tensor, yd0: Tensor, g: Tensor, w: Tensor, raw_alpha: Tensor | None
    ) -> None:
        """Refuse shapes that differ, also those that would only broadcast.

        Raises:
            ConfigError: Naming the tensor, its shape and the one that is expected.
        """
        shape = y0.shape
        if len(shape) != 2:
            raise ConfigError(f"y0 has shape {tuple(shape)}, expected (batch, dof)")
        if not (yd0.shape == g.shape == shape and w.shape == (*shape, self.config.n_basis)):
            names = {"yd0": (yd0, tuple(shape)), "g": (g, tuple(shape)),
                     "w": (w, (*shape, self.config.n_basis))}  # fmt: skip
            for name, (tensor, expected) in names.items():
                if tuple(tensor.shape) != expected:
                    raise ConfigError(
                        f"{name} has shape {tuple(tensor.shape)}, expected {expected}"
                    )
        if raw_alpha is not None and raw_alpha.shape != shape[:1]:
            raise ConfigError(
                f"raw_alpha has shape {tuple(raw_alpha.shape)}, expected {tuple(shape[:1])}"
            )
        if not w.is_floating_point():
            raise ConfigError(f"w holds {w.dtype}, expected floating point numbers")

    def _in_single(
        self, y0: Tensor, yd0: Tensor, g: Tensor, w: Tensor, raw_alpha: Tensor | None,
        times: NDArray[np.float64], orders: int,
    ) -> Tensor:  # fmt: skip
        """Roll out inputs of half precision, or of several, in single precision or better.

        A motion in half precision would move in steps that one sees. Under autocast the result
        stays in single precision; all of one half precision get it back in theirs.
        """
        inputs = (y0, yd0, g, w)
        kinds = {tensor.dtype for tensor in inputs}
        dtype = torch.float64 if torch.float64 in kinds else torch.float32
        with torch.autocast(w.device.type, enabled=False):
            y0, yd0, g, w = (tensor.to(dtype) for tensor in inputs)
            alpha = None if raw_alpha is None else raw_alpha.to(dtype)
            Y = self._roll_out(y0, yd0, g, w, alpha, times, orders)
        return Y.to(kinds.pop()) if len(kinds) == 1 and dtype not in kinds else Y


def _traced(tensor: Tensor) -> bool:
    """Whether torch compiles, exports or transforms (torch.func) what is done with a tensor."""
    return (
        torch.compiler.is_compiling()
        or type(tensor) not in _ORDINARY
        or torch._C._are_functorch_transforms_active()
    )


def _product(B: Tensor, y0: Tensor, yd0: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Return Y = B C (batch, rows, dof) by operations that every mode of torch can trace."""
    forcing = (w @ B[:, 3:].T) * (g - y0)[..., None]
    return (forcing + torch.stack((y0, yd0, g), -1) @ B[:, :3].T).mT


class _Response(torch.autograd.Function):
    """Y = B C and its gradient, which can be differentiated again.

    B is split by columns, Y = (B_w w^T) s + B_0 [y0; yd0; g]: scaling the product's few
    rows by s costs less than scaling and transposing the weights to build C.
    """

    @staticmethod
    def forward(ctx: Any, B: Tensor, y0: Tensor, yd0: Tensor, g: Tensor, w: Tensor) -> Tensor:
        """Return y, or y, yd and ydd (batch, rows, dof)."""
        # The inputs, not what follows from them: that has no graph to differentiate again.
        ctx.save_for_backward(B, y0, g, w)
        batch, dof, n_basis = w.shape
        rows, n = B.shape[0], batch * dof
        s = (g - y0).reshape(n)
        wT = w.reshape(n, n_basis).t()
        start = torch.stack((y0.reshape(n), yd0.reshape(n), g.reshape(n)))
        B_0, B_w = B[:, :3], B[:, 3:]
        if rows <= _TIME_MAJOR_ROWS:
            Y = torch.mm(B_w, wT).mul_(s).addmm_(B_0, start)
            return Y.view(rows, batch, dof).transpose(0, 1)
        Y = torch.mm(wT.t(), B_w.t()).mul_(s[:, None]).addmm_(start.t(), B_0.t())
        return Y.view(batch, dof, rows).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients, eqs. (23) and (29) without their recursions."""
        B, y0, g, w = ctx.saved_tensors
        batch, dof, n_basis = w.shape
        rows, n = B.shape[0], batch * dof
        if rows <= _TIME_MAJOR_ROWS:
            dY = dY.transpose(0, 1).reshape(rows, n)
        else:
            dY = dY.transpose(1, 2).reshape(n, rows).t()
        dC = torch.mm(B.t(), dY)
        _, need_y0, need_yd0, need_g, need_w = ctx.needs_input_grad
        # w enters as w s, so s = g - y0 collects what the forcing columns received.
        ds = (dC[3:] * w.reshape(n, n_basis).t()).sum(0) if need_g or need_y0 else dC[2]
        s = (g - y0).reshape(n)
        return (
            None,
            (dC[0] - ds).view(batch, dof) if need_y0 else None,
            dC[1].view(batch, dof) if need_yd0 else None,
            (dC[2] + ds).view(batch, dof) if need_g else None,
            (dC[3:] * s).t().reshape(batch, dof, n_basis) if need_w else None,
        )


def _angle(raw_alpha: Tensor) -> Tensor:
    """Return the angle on (0, pi) that a raw alpha stands for, falling as it rises."""
    return math.pi * torch.sigmoid(-raw_alpha)
