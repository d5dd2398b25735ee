# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The DMP as a torch layer: a roll-out is one matrix product, and so is its gradient.

    Y = B C,   C = [y0; yd0; g; w^T s],   s = g - y0

with one column of C per sample and joint; s = 1 if the forcing term is free. The backward pass
(:meth:`RollOut.backward`) is dC = B^T dY with the product rule through s. It equals the recursions
(23) and (29) of the paper without running them, so its cost grows with the number of rows, not
with the m steps of an integrator.
"""

from __future__ import annotations

import contextlib
import math
import operator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active, _is_any_autocast_enabled

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.constant import ORDINARY, Constant
from ndp_ros.dmp.learned_alpha import Respond, alpha_series, raw_of
from ndp_ros.dmp.response import MOST_NUMBERS, normalised_times, response
from ndp_ros.errors import ConfigError

_TIME_MAJOR_ROWS = 32
"""Up to this many rows B C is computed as written, beyond as C^T B^T: BLAS is several times slower
on a tall matrix times a narrow one than on the transposed product."""
_SETS_OF_TIMES = 16
"""Matrices that a layer keeps, one for each set of times and precision in use."""
_EXACT = (torch.float32, torch.float64)
"""Precisions in which a motion is computed."""
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""y0, yd0 and g ``(batch, dof)`` and w ``(batch, dof, N)``."""


class RollOut(torch.autograd.Function):
    """Y = B C with its gradient, which can be differentiated again."""

    @staticmethod
    def forward(
        ctx: Any, B: Tensor, scaled: bool, y0: Tensor, yd0: Tensor, g: Tensor, w: Tensor
    ) -> Tensor:
        """Return y, or y, yd and ydd, as ``(batch, rows, dof)``."""
        # Products of the inputs have no graph that could be differentiated again.
        ctx.save_for_backward(B, y0, g, w)
        ctx.scaled = scaled
        return product(B, scaled, y0, yd0, g, w)

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of y0, yd0, g and w, eqs. (23) and (29) in closed form.

        Args:
            ctx: Saved inputs of the forward pass.
            dY: Gradient of the roll-out ``(batch, rows, dof)``.
        """
        B, y0, g, w = ctx.saved_tensors
        batch, dof, n_basis = w.shape
        rows, n = B.shape[0], batch * dof
        if rows <= _TIME_MAJOR_ROWS:
            dY = dY.transpose(0, 1).reshape(rows, n)
        else:
            dY = dY.transpose(1, 2).reshape(n, rows).t()
        dC = torch.mm(B.t(), dY)
        _, _, need_y0, need_yd0, need_g, need_w = ctx.needs_input_grad
        if not ctx.scaled:
            return (
                None,
                None,
                dC[0].view(batch, dof) if need_y0 else None,
                dC[1].view(batch, dof) if need_yd0 else None,
                dC[2].view(batch, dof) if need_g else None,
                dC[3:].t().reshape(batch, dof, n_basis) if need_w else None,
            )
        # w enters as w s, so s = g - y0 collects the gradients of the forcing columns.
        ds = torch.linalg.vecdot(dC[3:].t(), w.reshape(n, n_basis)) if need_g or need_y0 else dC[2]
        s = (g - y0).reshape(n)
        return (
            None,
            None,
            (dC[0] - ds).view(batch, dof) if need_y0 else None,
            dC[1].view(batch, dof) if need_yd0 else None,
            (dC[2] + ds).view(batch, dof) if need_g else None,
            (dC[3:] * s).t().reshape(batch, dof, n_basis) if need_w else None,
        )


def product(B: Tensor, scaled: bool, y0: Tensor, yd0: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Return Y = B C ``(batch, rows, dof)``, for inputs that need no gradient.

    B is split by columns, Y = (B_w w^T) s + B_0 [y0; yd0; g]: scaling the few rows of the product
    by s costs less than scaling and transposing the weights to build C.
    """
    batch, dof, n_basis = w.shape
    rows, n = B.shape[0], batch * dof
    s = (g - y0).reshape(n) if scaled else None
    wT = w.reshape(n, n_basis).t()
    start = torch.cat((y0, yd0, g)).view(3, n)
    B_0, B_w = B[:, :3], B[:, 3:]
    if rows <= _TIME_MAJOR_ROWS:
        Y = torch.mm(B_w, wT)
        Y = (Y if s is None else Y.mul_(s)).addmm_(B_0, start)
        return Y.view(rows, batch, dof).transpose(0, 1)
    Y = torch.mm(wT.t(), B_w.t())
    Y = (Y if s is None else Y.mul_(s[:, None])).addmm_(start.t(), B_0.t())
    return Y.view(batch, dof, rows).transpose(1, 2)


def traceable_product(
    B: Tensor, scaled: bool, y0: Tensor, yd0: Tensor, g: Tensor, w: Tensor
) -> Tensor:
    """Return Y = B C ``(batch, rows, dof)`` by operations that every mode of torch can trace."""
    forcing = w @ B[:, 3:].T
    if scaled:
        forcing = forcing * (g - y0)[..., None]
    return (forcing + torch.stack((y0, yd0, g), -1) @ B[:, :3].T).mT


class DmpLayer(nn.Module):
    """A layer from weights w and goal g to positions y at the k control steps of a segment.

    Time is normalised: velocities are per segment, accelerations per segment squared. The layer has
    no parameters of its own and follows the dtype and device of its inputs. Half precision, or
    several precisions at once, are computed in single precision or better, since a motion in half
    precision moves in visible steps; inputs of one half precision are answered in theirs.

    Source: eqs. (1) to (5) of the paper, section 3.1.

    Example:
        >>> layer = DmpLayer(DmpConfig(n_basis=6), k=5)
        >>> y0, g = torch.zeros(1, 7), torch.ones(1, 7)
        >>> layer(y0, yd0=torch.zeros(1, 7), g=g, w=torch.zeros(1, 7, 6)).shape
        torch.Size([1, 5, 7])
    """

    def __init__(
        self,
        config: DmpConfig,
        k: int,
        alpha_range: tuple[float, float] | None = None,
        respond: Respond = response,
    ) -> None:
        """Compute the response at the control steps.

        Args:
            config: The dynamical system.
            k: Actions a segment.
            alpha_range: Lowest and highest value of a learned alpha (section 5.2.1); None for a
                layer whose alpha is the configuration's.
            respond: Another linear structure than the DMP, see :mod:`ndp_ros.dmp.structures`.

        Raises:
            ConfigError: If k is not a positive whole number or is too large, if the range is not
                positive and increasing, or if the system has no response.
        """
        super().__init__()
        try:
            k = operator.index(k)
        except TypeError as error:
            raise ConfigError(f"k is {k!r}, expected a whole number") from error
        if not 1 <= k <= MOST_NUMBERS // (3 + config.n_basis):
            most = MOST_NUMBERS // (3 + config.n_basis)
            raise ConfigError(f"k is {k!r}, expected 1 to {most} with {config.n_basis} weights")
        self.config = config
        self.k = k
        self.alpha_range = None if alpha_range is None else _checked_range(alpha_range)
        self.respond = respond
        self._times = np.arange(1, k + 1) / k
        self._constants: dict[tuple[object, ...], Constant] = {}
        # Compiled and exported programs look nothing up.
        self._traced_B = torch.from_numpy(self._constant(None, 1, False, single=False).array)
        if alpha_range is not None:
            self._traced_series = torch.from_numpy(self._constant(None, 1, True, False).array)

    def forward(
        self, y0: Tensor, yd0: Tensor, g: Tensor, w: Tensor, raw_alpha: Tensor | None = None
    ) -> Tensor:
        """Return y ``(batch, k, dof)`` at times 1/k ... 1 [rad].

        Args:
            y0: Start position ``(batch, dof)`` [rad].
            yd0: Start velocity ``(batch, dof)`` [rad/segment].
            g: Goal ``(batch, dof)`` [rad].
            w: Weights ``(batch, dof, N)``.
            raw_alpha: For a learned alpha, any real number per sample ``(batch,)``, which
                :meth:`alpha` maps into ``alpha_range``; without it ``config.alpha`` holds.

        Raises:
            ConfigError: If a shape differs, even where it would broadcast, if the weights are not
                floating-point numbers, or if a layer without a range is given a raw alpha.
        """
        return self._roll_out((y0, yd0, g, w), raw_alpha, None, orders=1)

    def rollout(
        self,
        y0: Tensor,
        yd0: Tensor,
        g: Tensor,
        w: Tensor,
        times: ArrayLike,
        raw_alpha: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return y, yd, ydd ``(batch, r, dof)`` at normalised times ``(r,)``, differentiable.

        Arguments are those of :meth:`forward`. Units are rad, rad/segment and rad/segment^2.
        Instead of times, None stands for the control steps.

        Raises:
            ConfigError: As :meth:`forward`, or if a time is negative, not finite or too late.
        """
        y, yd, ydd = self._roll_out((y0, yd0, g, w), raw_alpha, times, orders=3).chunk(3, dim=1)
        return y, yd, ydd

    def alpha(self, raw_alpha: Tensor) -> Tensor:
        """Return the alpha in ``alpha_range`` that a raw network output ``(batch,)`` stands for.

        The map is smooth and increasing and its gradient is nowhere cut to zero; beta = alpha / 4
        follows.
        """
        low, high = self._range()
        return 0.5 * (low + high) + 0.5 * (high - low) * torch.cos(_angle(raw_alpha))

    def raw_alpha(self, alpha: float) -> float:
        """Return the raw output that stands for an alpha, such as the start value of a head.

        Raises:
            ConfigError: If alpha is not inside ``alpha_range``.
        """
        return raw_of(alpha, self._range())

    def extra_repr(self) -> str:
        """Return the part of ``repr`` between the brackets."""
        return f"{self.config}, k={self.k}"

    def _roll_out(
        self, inputs: Inputs, raw_alpha: Tensor | None, times: ArrayLike | None, orders: int
    ) -> Tensor:
        """Return y, or y, yd and ydd, as ``(batch, orders * r, dof)``, in a precision that is fit.

        Raises:
            ConfigError: If shapes differ or the weights are not floating-point numbers.
        """
        self._check(*inputs, raw_alpha)
        y0, yd0, g, w = inputs
        dtype = w.dtype
        same = dtype == y0.dtype == yd0.dtype == g.dtype and dtype in _EXACT
        if same and not _is_any_autocast_enabled():
            return self._compute(inputs, raw_alpha, times, orders)
        if not isinstance(w, Tensor) or not w.is_floating_point():
            raise ConfigError(f"w holds {w.dtype}, expected a tensor of floating-point numbers")
        kinds = {tensor.dtype for tensor in inputs}
        dtype = torch.float64 if torch.float64 in kinds else torch.float32
        device = w.device.type
        available = torch.amp.is_autocast_available(device)
        with torch.autocast(device, enabled=False) if available else contextlib.nullcontext():
            single = (y0.to(dtype), yd0.to(dtype), g.to(dtype), w.to(dtype))
            Y = self._compute(single, raw_alpha, times, orders)
        return Y.to(kinds.pop()) if len(kinds) == 1 and dtype not in kinds else Y

    def _compute(
        self, inputs: Inputs, raw_alpha: Tensor | None, times: ArrayLike | None, orders: int
    ) -> Tensor:
        """Return the roll-out of inputs of one precision."""
        y0, yd0, g, w = inputs
        scaled = self.config.scaled
        if raw_alpha is not None:
            # B of each sample is a sum of T_n = cos(n angle).
            series = self._matrix(times, orders, w, learned=True)
            n = torch.arange(len(series), dtype=w.dtype, device=w.device)
            T = torch.cos(n * _angle(raw_alpha.to(w.dtype))[:, None])
            columns = 3 + self.config.n_basis
            B = (T @ series).view(w.shape[0], series.shape[1] // columns, columns)
            forcing = w * (g - y0)[..., None] if scaled else w
            C = torch.cat((torch.stack((y0, yd0, g), 1), forcing.mT), 1)
            return torch.bmm(B, C)
        B = self._matrix(times, orders, w)
        compiled = torch.compiler.is_compiling()
        if compiled or type(w) not in ORDINARY or _are_functorch_transforms_active():
            return traceable_product(B, scaled, *inputs)
        if torch.is_grad_enabled() and (
            w.requires_grad or g.requires_grad or y0.requires_grad or yd0.requires_grad
        ):
            return cast(Tensor, RollOut.apply(B, scaled, *inputs))
        return product(B, scaled, *inputs)

    def _matrix(
        self, times: ArrayLike | None, orders: int, like: Tensor, learned: bool = False
    ) -> Tensor:
        """Return B ``(orders * r, 3 + N)``, or its series over alpha, for a tensor's computations.

        Args:
            times: Normalised times ``(r,)``, or None for the control steps.
            orders: 1 for y, 3 for y, yd and ydd.
            like: Tensor whose dtype and device the matrix takes.
            learned: Whether to return coefficients ``(n, orders * r * (3 + N))`` over alpha.
        """
        single = like.dtype != torch.float64
        if torch.compiler.is_compiling() and times is None and orders == 1:
            return (self._traced_series if learned else self._traced_B).to(like)
        return self._constant(times, orders, learned, single).like(like)

    def _constant(
        self, times: ArrayLike | None, orders: int, learned: bool, single: bool
    ) -> Constant:
        at = self._times if times is None else normalised_times(times)
        key = (None if times is None else at.tobytes(), orders, learned, single)
        if key not in self._constants:
            kind = np.float32 if single else np.float64
            if learned:
                precision = max(float(np.finfo(kind).eps), 1e-14)
                array = alpha_series(
                    self.config, at, orders, self._range(), precision, self.respond
                )
            else:
                array = self.respond(self.config, at)[:orders].reshape(-1, 3 + self.config.n_basis)
            if len(self._constants) >= _SETS_OF_TIMES:
                self._constants.pop(next(iter(self._constants)))
            self._constants[key] = Constant(array.astype(kind))
        return self._constants[key]

    def _range(self) -> tuple[float, float]:
        if self.alpha_range is None:
            raise ConfigError("a layer learns alpha only if it is made with an alpha_range")
        return self.alpha_range

    def _check(
        self, y0: Tensor, yd0: Tensor, g: Tensor, w: Tensor, raw_alpha: Tensor | None
    ) -> None:
        """Refuse shapes that differ, also those that would only broadcast.

        Raises:
            ConfigError: Naming the tensor, its shape and the expected one.
        """
        shape = y0.shape
        if len(shape) != 2:
            raise ConfigError(f"y0 has shape {tuple(shape)}, expected (batch, dof)")
        weights = (*shape, self.config.n_basis)
        if not (yd0.shape == g.shape == shape and w.shape == weights):
            for name, tensor, expected in (("yd0", yd0, shape), ("g", g, shape), ("w", w, weights)):
                if tuple(tensor.shape) != tuple(expected):
                    raise ConfigError(
                        f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected)}"
                    )
        if raw_alpha is not None and self._range() and raw_alpha.shape != shape[:1]:
            raise ConfigError(
                f"raw_alpha has shape {tuple(raw_alpha.shape)}, expected {tuple(shape[:1])}"
            )


def _angle(raw_alpha: Tensor) -> Tensor:
    """Return the angle in (0, pi) that a raw alpha stands for, falling as it rises."""
    return math.pi * torch.sigmoid(-raw_alpha)


def _checked_range(alpha_range: tuple[float, float]) -> tuple[float, float]:
    """Return a range of alpha as two floats.

    Raises:
        ConfigError: If it is not two numbers, positive, finite and increasing.
    """
    try:
        low, high = (float(bound) for bound in alpha_range)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"alpha_range is {alpha_range!r}, expected two numbers") from error
    if not 0.0 < low < high < math.inf:
        raise ConfigError(f"alpha_range is {alpha_range!r}, expected 0 < low < high")
    return low, high
