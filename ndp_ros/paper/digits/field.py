# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Draw the vector field that an NDP makes of a picture, as in Figure 1 of the paper.

The network sees the picture of a digit once and predicts w, g and the start of the pen. At every
instant the system then pulls the pen from wherever it may be: the arrows are the acceleration ydd
of eq. (1) for a pen at rest at each place, at the phase x of that instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ndp_ros.dmp.basis import forcing_columns, phase
from ndp_ros.errors import TrainingError
from ndp_ros.observation import Array
from ndp_ros.paper.digits.data import CANVAS, CLASSES, DigitsConfig, DigitSet, generate
from ndp_ros.paper.digits.networks import NdpWriter
from ndp_ros.paper.digits.training import load_writer
from ndp_ros.pictures.style import GOAL, MEASURED, OBJECT, PLANNED, picture

_INSTANTS = (0.1, 0.4, 0.7, 1.0)
"""Normalised times of the panels."""
_ARROWS = 25


@dataclass(frozen=True)
class Stroke:
    """One digit as an NDP writes it; positions [px], time normalised.

    Attributes:
        image: The picture that the network saw (40, 40).
        path: The pen (301, 2).
        g: Goal (2,).
        w: Weights (2, N).
        forcing: Forcing term f (301, 2) of eq. (3) along the path.
    """

    image: NDArray[np.uint8]
    path: Array
    g: Array
    w: Array
    forcing: Array
    alpha: float

    def acceleration(self, places: Array, sample: int) -> Array:
        """Return ydd (n, 2) of eq. (1) for a pen at rest at places (n, 2) [px], at a sample."""
        pull = self.alpha * (self.alpha / 4.0) * (self.g - places)
        return np.asarray(pull + self.forcing[sample])


def write(folder: Path, digit: int) -> Stroke:
    """Return the stroke of a held-out digit, 0 to 9, by a trained writer of one dynamical system.

    The writer may be the checkpoint ``digits``; the digit is the first sample of it in a set of its
    own.

    Raises:
        TrainingError: If there is no such digit or writer.
    """
    if not 0 <= digit < CLASSES:
        raise TrainingError(f"digit is {digit}: 0 to {CLASSES - 1} exist")
    writer = load_writer(folder)
    if not isinstance(writer, NdpWriter) or writer.spec.segments != 1:
        raise TrainingError(f"{folder} is no writer of one dynamical system")
    seen = _examples()
    row = int(np.flatnonzero(seen.labels == digit)[0])
    with torch.inference_mode():
        out = writer.outputs(torch.from_numpy(seen.images[[row]]))
        g, w = writer.parameters_of(out)
        path = writer.trajectories(out, torch.from_numpy(seen.trajectories[[row], 0]))
    y, goal, weights = (t[0].double().numpy() for t in (path, g[:, 0], w[:, 0]))
    config = writer.spec.dmp
    times = np.linspace(0.0, 1.0, len(y))
    forcing = forcing_columns(config, phase(config, times)) @ (weights * (goal - y[0])[:, None]).T
    return Stroke(seen.images[row], y, goal, weights, forcing, config.alpha)


def _examples() -> DigitSet:
    """Return a few digits of every class that no writer was trained on."""
    _, held_out = generate(DigitsConfig(train=CLASSES, test=CLASSES * 2))
    return held_out


def draw_field(folder: Path, path: Path, digit: int = 4) -> None:
    """Draw a digit, its vector field at some instants, and the pen's way up to each.

    Raises:
        TrainingError: As :func:`write`.
        ConfigError: If the picture cannot be written.
    """
    stroke = write(folder, digit)
    grid = np.linspace(2.0, CANVAS - 2.0, _ARROWS)
    places = np.stack(np.meshgrid(grid, grid), -1)
    with picture(path, 2.1 * (1 + len(_INSTANTS)), 2.7) as figure:
        axes = figure.subplots(1, 1 + len(_INSTANTS))
        axes[0].imshow(stroke.image, cmap="gray_r", extent=(0, CANVAS, CANVAS, 0))
        axes[0].set_title("what Φ sees")
        for ax, at in zip(axes[1:], _INSTANTS, strict=True):
            sample = round(at * (len(stroke.path) - 1))
            ydd = stroke.acceleration(places.reshape(-1, 2), sample).reshape(places.shape)
            _draw_instant(ax, stroke, grid, ydd, sample)
            ax.set_title(f"t = {at:g} of the segment")
        for ax in axes:
            ax.set(xlim=(0, CANVAS), ylim=(CANVAS, 0), xticks=[], yticks=[], aspect="equal")
            ax.grid(visible=False)
            ax.spines[:].set_visible(True)
        handles, labels = axes[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _draw_instant(ax: Any, stroke: Stroke, grid: Array, ydd: Array, sample: int) -> None:
    """Draw the field of one instant, the way of the pen, and where the field pulls it."""
    strength = np.linalg.norm(ydd, axis=-1)
    how = {"density": 1.1, "linewidth": 0.7, "arrowsize": 0.7, "cmap": "Blues", "zorder": 1}
    shade = 0.35 + 0.65 * strength / strength.max()
    lines = ax.streamplot(grid, grid, ydd[..., 0], ydd[..., 1], color=shade, **how)
    lines.lines.set_clim(0.0, 1.2)
    lines.arrows.set_clim(0.0, 1.2)
    ax.plot(*stroke.path.T, color="0.8", lw=4.0, zorder=2, label="whole stroke")
    ax.plot(*stroke.path[: sample + 1].T, color=PLANNED, lw=2.2, zorder=3, label="pen until now")
    ax.plot(*stroke.path[[0]].T, "o", ms=5, color=MEASURED, zorder=4, label="start", ls="")
    ax.plot(*stroke.path[[sample]].T, "o", ms=6, color=OBJECT, zorder=5, label="pen", ls="")
    ax.plot(*stroke.g, "*", ms=9, color=GOAL, zorder=4, label="goal g", ls="")
