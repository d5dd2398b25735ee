# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Predict the pen trajectory that draws a digit from its picture (section 5.1).

Three heads share one encoder and differ in the meaning of the last layer:

* ``cnn``: the 301 positions themselves, 602 numbers.
* ``ndp``: g and w of one or several dynamical systems over time, trained through them on
  the trajectory.
* ``cnn-dmp``: the parameters of a dynamical system fitted to each demonstration, trained
  on these parameters (Pahic et al.); the trajectory never enters the loss.

The encoder is that of the released code: two convolutions (20 and 50 channels, 5 x 5,
max-pooling) on the picture at 28 x 28, then fully connected layers of 200, 100, 200, 128
and 64. Its convolutions start at random here; the released code starts them from weights
that it does not ship.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ndp_ros.config import param
from ndp_ros.dmp.basis import forcing_columns, phase
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.layer import DmpLayer
from ndp_ros.dmp.response import response, whitening
from ndp_ros.errors import ConfigError

HEADS = ("cnn", "ndp", "cnn-dmp")
DOF = 2

_HIDDEN = (200, 100, 200, 128, 64)
_SIDE = 28
_CENTRE, _SPREAD = 20.0, 8.0  # [px]: middle and typical deviation of a position
_CUT = 1e-4  # a trajectory's best fit is then 0.009 px^2 away, raw weights' best 0.002
_FORCING_GAIN = 4.0
_RAW_GAIN = 1000.0
_RELEASED_VELOCITY = 0.01
_RIDGE = 1e-3


@dataclass(frozen=True)
class WriterSpec:
    """Specification of a writer, from which it is rebuilt."""

    head: str = param("ndp", doc="Meaning of the last layer.", choices=HEADS)
    start: str = param(
        "predicted", doc="Whether the pen's start is an input.", choices=("predicted", "given")
    )
    segments: int = param(
        1, doc="Dynamical systems over time, each from its predecessor's end.", minimum=1
    )
    weights: str = param(
        "whitened",
        doc="Forcing terms as orthogonal curves of order one, or as the w_i themselves.",
        choices=("whitened", "raw"),
    )
    scaling: str = param(
        "normalised",
        doc="Pictures in [0, 1] and outputs of order one; or as the released code has it: "
        "pictures over 255 twice, raw positions (cnn) or 1000 times the outputs (ndp).",
        choices=("normalised", "released"),
    )
    dmp: DmpConfig = param(DmpConfig(n_basis=30, alpha=25.0, m=300), doc="Dynamical system.")
    samples: int = param(301, doc="Samples of a trajectory.", minimum=2)
    canvas: int = param(40, doc="Side of a picture [px].", minimum=28)

    def __post_init__(self) -> None:
        """Check that the segments share the trajectory evenly."""
        if (self.samples - 1) % self.segments:
            raise ConfigError(
                f"segments is {self.segments}: {self.samples - 1} steps do not divide by it"
            )
        if self.segments > 1 and self.head != "ndp":
            raise ConfigError(f"segments is {self.segments}: {self.head} has one")
        if self.scaling == "released":
            if self.head == "cnn-dmp" or (self.head == "ndp" and self.weights != "raw"):
                raise ConfigError("scaling=released is for cnn, and for ndp with weights=raw")
            if self.start == "predicted" and self.head == "ndp":
                raise ConfigError("scaling=released has the start given to ndp")

    @property
    def k(self) -> int:
        """Steps of one segment."""
        return (self.samples - 1) // self.segments


class Writer(nn.Module):
    """Encoder and head; ``forward`` returns trajectories with every head."""

    resize: Tensor

    def __init__(self, spec: WriterSpec, n_outputs: int) -> None:
        super().__init__()
        self.spec = spec
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 20, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(20, 50, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
        )
        layers: list[nn.Module] = []
        width = 50 * 4 * 4
        for hidden in _HIDDEN:
            layers += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        self.hidden = nn.Sequential(*layers, nn.Linear(width, n_outputs))
        matrix = torch.tensor(_shrink(spec.canvas, _SIDE), dtype=torch.float32)
        self.register_buffer("resize", matrix, persistent=False)
        # On one core the convolutions take half the time with the channels last.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def outputs(self, images: Tensor) -> Tensor:
        """Return the last layer (batch, n) for pictures (batch, 40, 40), uint8."""
        scale = 255.0 if self.spec.scaling == "normalised" else 255.0**2
        small = self.resize @ (images.to(self.resize.dtype) / scale) @ self.resize.T
        features = self.convolutions(small[:, None].contiguous(memory_format=torch.channels_last))
        return cast(Tensor, self.hidden(features.flatten(1)))

    def forward(self, images: Tensor, y0: Tensor | None = None) -> Tensor:
        """Return trajectories (batch, 301, 2) [px] for pictures (batch, 40, 40), uint8.

        The start of the pen y0 (batch, 2) [px] is used if ``spec.start`` is ``given``.

        Raises:
            ConfigError: If ``spec.start`` is ``given`` and ``y0`` is missing.
        """
        if self.spec.start == "given" and y0 is None:
            raise ConfigError("this writer was trained with the start given: pass y0 (batch, 2)")
        return self.trajectories(self.outputs(images), y0)

    def trajectories(self, out: Tensor, y0: Tensor | None) -> Tensor:
        """Return the trajectories of outputs of the last layer (batch, n), as (batch, 301, 2)."""
        raise NotImplementedError

    def loss(self, images: Tensor, demonstrations: Tensor) -> Tensor:
        """Return eq. (7) as a mean: squared error per coordinate and sample [px^2]."""
        return torch.mean((self(images, demonstrations[:, 0]) - demonstrations) ** 2)


class CnnWriter(Writer):
    """A writer of positions, relative to the start where that is given."""

    def __init__(self, spec: WriterSpec) -> None:
        super().__init__(spec, DOF * spec.samples)

    def trajectories(self, out: Tensor, y0: Tensor | None) -> Tensor:
        """Return the outputs as positions."""
        y = out.view(-1, self.spec.samples, DOF)
        if self.spec.scaling == "released":
            return y
        if self.spec.start == "given" and y0 is not None:
            return y0[:, None] + _SPREAD * y
        return _CENTRE + _SPREAD * y


class NdpWriter(Writer):
    """A writer of g and w, for one or several dynamical systems over time."""

    mixing: Tensor

    def __init__(self, spec: WriterSpec) -> None:
        mixing = _RAW_GAIN * np.eye(spec.dmp.n_basis)
        if spec.weights == "whitened":
            mixing = _FORCING_GAIN * whitening(spec.dmp, _CUT)
        self._n_start = DOF if spec.start == "predicted" else 0
        super().__init__(spec, self._n_start + spec.segments * DOF * (1 + mixing.shape[1]))
        self.register_buffer("mixing", torch.tensor(mixing, dtype=torch.float32), persistent=False)
        self.dmp = DmpLayer(spec.dmp, spec.k)

    def parameters_of(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Return goals g (batch, segments, 2) [px] and weights w (batch, segments, 2, N)."""
        heads = out[:, self._n_start :].view(len(out), self.spec.segments, DOF, -1)
        released = self.spec.scaling == "released"
        g = _RAW_GAIN * heads[..., 0] if released else _CENTRE + _SPREAD * heads[..., 0]
        return g, heads[..., 1:] @ self.mixing.T

    def trajectories(self, out: Tensor, y0: Tensor | None) -> Tensor:
        """Return the roll-out; a segment starts with its predecessor's last y and yd."""
        g, w = self.parameters_of(out)
        if self.spec.start == "predicted" or y0 is None:
            y0 = _CENTRE + _SPREAD * out[:, :DOF]
        still = 0.0 if self.spec.scaling == "normalised" else _RELEASED_VELOCITY
        yd0 = torch.full_like(y0, still)
        parts = [y0[:, None]]
        times = np.arange(1, self.spec.k + 1) / self.spec.k
        for segment in range(self.spec.segments):
            if self.spec.segments == 1:
                parts.append(self.dmp(y0, yd0, g[:, 0], w[:, 0]))
            else:
                y, yd, _ = self.dmp.rollout(y0, yd0, g[:, segment], w[:, segment], times)
                parts.append(y)
                y0, yd0 = y[:, -1], yd[:, -1]
        return torch.cat(parts, dim=1)


class CnnDmpWriter(Writer):
    """A writer of parameters fitted to the demonstrations, regressed after standardisation.

    As in the source, the forcing term is not scaled by g - y0 (a closed digit has none).
    The start is one more parameter unless it is given.
    """

    mean: Tensor
    deviation: Tensor
    rows: Tensor

    def __init__(self, spec: WriterSpec) -> None:
        self.fit = DmpFit(spec.dmp, spec.samples, spec.weights)
        n = DOF * self.fit.rows.shape[1]
        super().__init__(spec, n)
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("deviation", torch.ones(n))
        rows = torch.tensor(self.fit.rows, dtype=torch.float32)
        self.register_buffer("rows", rows, persistent=False)

    def standardise(self, demonstrations: NDArray[np.float32]) -> None:
        """Take mean and deviation of the fitted parameters from the training set."""
        parameters = self.fit(demonstrations).reshape(len(demonstrations), -1)
        self.mean.copy_(torch.from_numpy(parameters.mean(0)))
        self.deviation.copy_(torch.from_numpy(parameters.std(0)))

    def trajectories(self, out: Tensor, y0: Tensor | None) -> Tensor:
        """Return the response to the predicted parameters."""
        parameters = (self.mean + self.deviation * out).view(len(out), -1, DOF)
        if self.spec.start == "given" and y0 is not None:
            parameters = torch.cat((y0[:, None], parameters[:, 1:]), dim=1)
        return self.rows @ parameters

    def loss(self, images: Tensor, demonstrations: Tensor) -> Tensor:
        """Return the mean squared error of the standardised parameters."""
        fitted = torch.from_numpy(self.fit(demonstrations.cpu().numpy())).float().flatten(1)
        error = self.outputs(images) - (fitted.to(self.mean.device) - self.mean) / self.deviation
        skip = DOF if self.spec.start == "given" else 0  # the start is an input then
        return torch.mean(error[:, skip:] ** 2)


class DmpFit:
    """A fit of parameters [y0; g; v] of a dynamical system to a demonstration.

    y0 is the first and g the last position. ``whitened``: v is the closest trajectory's, in
    orthogonal curves. ``raw``: v stands for w (g - y0) and solves eq. (1) for the forcing
    term at every sample, with velocities and accelerations by central differences: the usual
    fit of a DMP. It has a small ridge, since the kernels overlap so far that without one
    the weights are of order 1e10 and cancel each other.

    Attributes:
        rows: Matrix (samples, 2 + r) from parameters to positions.
    """

    def __init__(self, config: DmpConfig, samples: int, weights: str) -> None:
        self.config = config
        times = np.linspace(0.0, 1.0, samples)
        B = response(config, times)[0]
        mixing = whitening(config, _CUT) if weights == "whitened" else np.eye(config.n_basis)
        self.rows = np.concatenate((B[:, [0, 2]], B[:, 3:] @ mixing), axis=1)
        self._times = None if weights == "whitened" else times
        if self._times is None:
            self._solve = np.linalg.pinv(self.rows[:, 2:])
        else:
            F = forcing_columns(config, phase(config, times))
            self._solve = np.linalg.solve(F.T @ F + _RIDGE * np.eye(config.n_basis), F.T)

    def __call__(self, demonstrations: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return parameters (n, 2 + r, 2) of demonstrations (n, samples, 2)."""
        y = np.asarray(demonstrations, np.float64)
        ends = y[:, [0, -1]]
        if self._times is None:
            target = y - self.rows[:, :2] @ ends
        else:
            yd = np.gradient(y, self._times, axis=1)
            ydd = np.gradient(yd, self._times, axis=1)
            target = ydd - self.config.alpha * (self.config.beta * (y[:, -1:] - y) - yd)
        return np.concatenate((ends, self._solve @ target), axis=1)


def make_writer(spec: WriterSpec) -> Writer:
    """Return an untrained writer; seed torch before."""
    kinds = {"cnn": CnnWriter, "ndp": NdpWriter, "cnn-dmp": CnnDmpWriter}
    return kinds[spec.head](spec)


def _shrink(n: int, m: int) -> NDArray[np.float64]:
    """Return the matrix (m, n) that averages n pixels into m by shared area."""
    edges = np.arange(m + 1) * n / m
    low = np.maximum(edges[:-1, None], np.arange(n))
    high = np.minimum(edges[1:, None], np.arange(n) + 1.0)
    return np.asarray(np.clip(high - low, 0.0, None) * m / n)
