# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Names, shapes and order of a policy's tensors, and their initial values.

All parameters lie in one flat vector: roll-out workers read them from shared memory, and Adam is a
handful of vector operations. The weights of actor and critic in the same layer are neighbours, so
that one batched product serves both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.dmp.curves import Curves
from ndp_ros.dmp.response import whitening
from ndp_ros.observation import ObservationField, observation_size
from ndp_ros.policies.spec import PolicySpec

Array = NDArray[Any]
Tensors = Mapping[str, Array]

MEAN = "normaliser.mean"
VARIANCE = "normaliser.variance"
LOG_STD = "log_std"

OBSERVATION_CLIP = 10.0
"""Normalised observations are clipped to this many standard deviations."""

VARIANCE_FLOOR = 1e-8
"""Added to a variance before its root, so that a constant input stays finite."""

ACTOR_GAIN = 0.01
"""Gain of the actor's last layer: the first policy hardly moves the arm."""


def actor_outputs(spec: PolicySpec) -> int:
    """Return the width of phi: goal and weights per joint, or the decision's size."""
    if spec.method != "ndp" or spec.noise == "segment":
        return math.prod(spec.decision)
    per_joint = 1 + int(weight_mixing(spec).shape[1])
    return spec.dof * per_joint + int(spec.learned_alpha)


@lru_cache(maxsize=16)
def weight_mixing(spec: PolicySpec) -> NDArray[np.float64]:
    """Return M ``(N, r)``: weights w = M u of an NDP's r outputs u per joint, read-only."""
    N = spec.dmp.n_basis
    mixing = spec.weight_gain * (np.eye(N) if spec.weights == "raw" else whitening(spec.dmp))
    mixing.flags.writeable = False
    return mixing


@lru_cache(maxsize=16)
def curves_of(spec: PolicySpec) -> tuple[Curves, NDArray[np.float64]]:
    """Return the curves of a policy with noise of the segment.

    With them comes the end displacement (dof,) of one unit of the first curve [rad].
    """
    unit = spec.reach * spec.k * np.array(spec.action_scale)
    return Curves(spec.dmp, spec.curves, spec.curve_size), unit


def critic_outputs(spec: PolicySpec) -> int:
    """Return the number of value heads, section 3.4; one draw a segment has one value."""
    return spec.decision[0] if spec.critic_heads == "multi" else 1


CHANNELS = (16, 32, 32)
"""Channels after each convolution of an image, of 3 x 3 with a step of 2."""
FEATURES = 50
"""Values that an image becomes before the hidden layers."""
PIXEL_VARIANCE = 0.01
"""Least variance by which an image is normalised; its values are in -1 to 1."""


def image_shapes(image: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the weights' shapes of the encoder of an image (channels, height, width)."""
    below, height, width = image
    shapes: list[tuple[int, ...]] = []
    for channels in CHANNELS:
        shapes.append((channels, below, 3, 3))
        below, height, width = channels, -(-height // 2), -(-width // 2)
    return [*shapes, (FEATURES, below * height * width)]


def images_of(fields: Sequence[ObservationField]) -> list[tuple[int, ...]]:
    """Return the shapes of the images among the fields of an observation."""
    return [f.image for f in fields if f.image]


class Layout:
    """The place of each parameter of a policy in the flat vector.

    Attributes:
        widths: Layer widths of the actor and of the critic, by network name.
        shapes: Shape of every parameter by name, in order.
        size: Length of the flat vector.
        statistics: Shape of every tensor that is not trained by gradients.
    """

    def __init__(self, spec: PolicySpec) -> None:
        images, n_obs = images_of(spec.observation), observation_size(spec.observation)
        inputs = n_obs + sum(FEATURES - math.prod(image) for image in images)
        self.widths: dict[str, tuple[int, ...]] = {
            "actor": (inputs, *spec.hidden, actor_outputs(spec)),
            "critic": (inputs, *spec.hidden, critic_outputs(spec)),
        }
        self.shapes: dict[str, tuple[int, ...]] = {LOG_STD: (spec.decision[1],)}
        for layer in range(len(spec.hidden) + 1):
            for kind in ("weight", "bias"):
                for network, widths in self.widths.items():
                    shape = (widths[layer + 1], widths[layer])[: 2 if kind == "weight" else 1]
                    self.shapes[f"{network}.{layer}.{kind}"] = shape
        for i, image in enumerate(images):
            for layer, shape in enumerate(image_shapes(image)):
                self.shapes[f"images.{i}.{layer}.weight"] = shape
                self.shapes[f"images.{i}.{layer}.bias"] = shape[:1]
        self.statistics: dict[str, tuple[int, ...]] = {MEAN: (n_obs,), VARIANCE: (n_obs,)}
        self._slices: dict[str, slice] = {}
        start = 0
        for name, shape in self.shapes.items():
            self._slices[name] = slice(start, start + math.prod(shape))
            start += math.prod(shape)
        self.size = start

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of a checkpoint by name."""
        return {**self.shapes, **self.statistics}

    def views(self, flat: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the parameters by name as views of the flat vector ``(size,)``."""
        return {name: flat[self._slices[name]].reshape(s) for name, s in self.shapes.items()}

    def pair(self, flat: NDArray[Any], layer: int, kind: str) -> NDArray[Any]:
        """Return one hidden layer of actor and critic together, ``(2, out[, in])``."""
        first, second = (f"{network}.{layer}.{kind}" for network in ("actor", "critic"))
        both = slice(self._slices[first].start, self._slices[second].stop)
        return flat[both].reshape(2, *self.shapes[first])

    def flatten(self, tensors: Tensors, dtype: Any = np.float32) -> NDArray[Any]:
        """Return the flat vector ``(size,)`` holding the named parameters."""
        flat = np.empty(self.size, dtype)
        for name, view in self.views(flat).items():
            view[...] = tensors[name]
        return flat


def initial_tensors(spec: PolicySpec, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of an untrained policy.

    Weights are orthogonal (gain sqrt(2); 0.01 for the actor's last layer, 1 for that of the critic
    and of an image), biases zero, the normaliser an identity.
    """
    layout = Layout(spec)
    rng = np.random.default_rng([seed, 0x1417])
    tensors: dict[str, NDArray[np.float32]] = {}
    last = len(spec.hidden)
    for name, shape in layout.shapes.items():
        network, _, rest = name.partition(".")
        if rest.endswith("weight"):
            outer = ACTOR_GAIN if network == "actor" else 1.0
            final = len(shape) == 2 if network == "images" else rest.startswith(f"{last}.")
            gain = outer if final else math.sqrt(2.0)
            matrix = _orthogonal(rng, (shape[0], math.prod(shape[1:])))
            tensors[name] = (gain * matrix).astype(np.float32).reshape(shape)
        else:
            tensors[name] = np.zeros(shape, np.float32)
    tensors[LOG_STD] += np.float32(spec.init_log_std)
    tensors[MEAN] = np.zeros(layout.statistics[MEAN], np.float32)
    tensors[VARIANCE] = np.ones(layout.statistics[VARIANCE], np.float32)
    return tensors


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return a matrix with orthonormal rows or columns, uniformly distributed."""
    rows, columns = shape
    tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q *= np.sign(np.diag(r))
    return q if rows >= columns else q.T
