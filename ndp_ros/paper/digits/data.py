# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Generate the digit set of section 5.1: pictures and the pen trajectories that drew them.

The data set of the paper cannot be shipped. This is an equivalent, written from the
published facts of its generator: a canvas of 40 x 40 pixels, a pen trajectory of
301 samples (3 s at 10 ms) in pixels of that canvas, minimum-jerk timing, then a
rotation of at most 8 degrees, a shift of at most 3 px, a scale of at most 10 % and a
shear of at most 0.1. The strokes are this project's own. Every digit is one stroke.

Trajectories are (x, y) with x to the right and y downwards; pixel (row, column)
covers [column, column + 1) x [row, row + 1), so the canvas spans [0, 40] on both axes.

``python -m ndp_ros.paper.digits.data out/digits.npz`` makes the data set.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ndp_ros.config import add_arguments, from_arguments, param
from ndp_ros.errors import NdpError, TaskError
from ndp_ros.files import write_output
from ndp_ros.observation import Array

CANVAS = 40
SAMPLES = 301
UNIT = CANVAS / 7.0  # a glyph's box is 2 units wide and 4 high
PEN_RADIUS = 1.3
CLASSES = 10

_BLOCK = 1000  # pictures drawn at a time: bounds the memory, not the result


@dataclass(frozen=True)
class DigitsConfig:
    """Size, seed and variation of a digit set."""

    train: int = param(10000, doc="Training samples.", minimum=10, maximum=1000000)
    test: int = param(2000, doc="Held-out samples.", minimum=10, maximum=1000000)
    seed: int = param(0, doc="Seed of the variations.", minimum=0)
    rotation: float = param(
        np.deg2rad(8.0), doc="Largest rotation.", unit="rad", minimum=0.0, maximum=0.5
    )
    shift: float = param(3.0, doc="Largest shift on each axis [px].", minimum=0.0, maximum=4.0)
    scale: float = param(0.10, doc="Largest relative change of size.", minimum=0.0, maximum=0.2)
    shear: float = param(0.10, doc="Largest shear.", minimum=0.0, maximum=0.2)


@dataclass(frozen=True)
class DigitSet:
    """Pictures, trajectories and labels, sample by sample."""

    images: NDArray[np.uint8]
    """Ink on the canvas (n, 40, 40); 255 is full."""
    trajectories: NDArray[np.float32]
    """Pen positions (n, 301, 2) [px], 10 ms apart."""
    labels: NDArray[np.uint8]
    """The digit (n,)."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> DigitSet:
        return DigitSet(self.images[rows], self.trajectories[rows], self.labels[rows])

    def digest(self) -> str:
        """Return a hash of the content, which names the data in a run's record."""
        sha = hashlib.sha256()
        for array in (self.images, self.trajectories, self.labels):
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()[:16]


def minimum_jerk() -> Array:
    """Return the share of the path (301,) after equal times of a minimum-jerk motion."""
    t = np.linspace(0.0, 1.0, SAMPLES)
    return t**3 * (10.0 - 15.0 * t + 6.0 * t**2)


def stroke(digit: int, shares: Array) -> Array:
    """Return points (n, 2) of a digit's stroke at the given shares of its length.

    Coordinates are in units of the glyph's box, x in [-1, 1] and y in [-2, 2] downwards.

    Raises:
        TaskError: If there is no such digit.
    """
    if digit not in _GLYPHS:
        raise TaskError.choice("digit", digit, _GLYPHS)
    points = _outline(digit)
    lengths = np.hypot(*np.diff(points, axis=0).T)
    travelled = np.concatenate(([0.0], np.cumsum(lengths))) / lengths.sum()
    return np.stack([np.interp(shares, travelled, points[:, axis]) for axis in (0, 1)], axis=1)


def generate(config: DigitsConfig | None = None) -> tuple[DigitSet, DigitSet]:
    """Return the training and the held-out set; the same configuration gives the same sets.

    Every class has the same number of samples, give or take one.
    """
    config = config or DigitsConfig()
    n = config.train + config.test
    labels = (np.arange(n) % CLASSES).astype(np.uint8)
    A, b = _variations(config, n)

    timed = np.stack([stroke(digit, minimum_jerk()) for digit in range(CLASSES)])
    trajectories = np.einsum("nij,ntj->nti", A, timed[labels]) + b[:, None]

    inked = [stroke(digit, np.linspace(0.0, 1.0, _discs(digit))) for digit in range(CLASSES)]
    images = np.empty((n, CANVAS, CANVAS), np.uint8)
    for digit, path in enumerate(inked):
        members = np.flatnonzero(labels == digit)
        for start in range(0, len(members), _BLOCK):
            rows = members[start : start + _BLOCK]
            images[rows] = draw(np.einsum("nij,tj->nti", A[rows], path) + b[rows, None])
    everything = DigitSet(images, trajectories.astype(np.float32), labels)
    return everything[: config.train], everything[config.train :]


def draw(paths: Array, radius: float = PEN_RADIUS) -> NDArray[np.uint8]:
    """Return pictures (n, 40, 40) of paths (n, p, 2) [px], drawn by a round pen.

    The pen is pressed down at every point; its edge is one pixel soft, which is the
    area that a disc covers to within a few per cent. Points should be at most half a
    pixel apart; beyond the canvas the pen stays on its edge.
    """
    n = len(paths)
    reach = int(np.ceil(radius + 0.5))
    size = CANVAS + 2 * reach + 2  # a margin, so that no window needs clipping
    canvas = np.zeros((n, size * size), np.float32)
    window = np.arange(-reach, reach + 1)
    sample = np.arange(n)[:, None, None]
    for point in np.moveaxis(np.clip(paths, 0.0, CANVAS), 1, 0):
        column, row = np.floor(point).astype(np.int64).T[..., None] + window
        dx = (column + 0.5 - point[:, 0:1])[:, None, :]
        dy = (row + 0.5 - point[:, 1:2])[:, :, None]
        ink = np.clip(radius + 0.5 - np.hypot(dx, dy), 0.0, 1.0).astype(np.float32)
        pixel = (row + reach)[:, :, None] * size + (column + reach)[:, None, :]
        canvas[sample, pixel] = np.maximum(canvas[sample, pixel], ink)
    inner = slice(reach, reach + CANVAS)
    ink = canvas.reshape(n, size, size)[:, inner, inner]
    return np.asarray(np.rint(255.0 * ink), np.uint8)


def save(path: str | Path, train: DigitSet, test: DigitSet) -> None:
    """Write both sets to one ``.npz`` file."""
    data = io.BytesIO()
    np.savez_compressed(
        data,
        n_train=np.int64(len(train)),
        images=np.concatenate((train.images, test.images)),
        trajectories=np.concatenate((train.trajectories, test.trajectories)),
        labels=np.concatenate((train.labels, test.labels)),
    )
    write_output(Path(path), data.getvalue())


def _variations(config: DigitsConfig, n: int) -> tuple[Array, Array]:
    """Return A (n, 2, 2) [px per unit] and b (n, 2) [px], which map a glyph to the canvas."""
    rng = np.random.default_rng(config.seed)
    rotation, scale, shear, *shift = rng.uniform(-1.0, 1.0, (5, n))
    c, s = np.cos(config.rotation * rotation), np.sin(config.rotation * rotation)
    rotate = np.stack((np.stack((c, -s), -1), np.stack((s, c), -1)), -2)
    slant = np.tile(np.eye(2), (n, 1, 1))
    slant[:, 0, 1] = config.shear * shear
    A = UNIT * (1.0 + config.scale * scale)[:, None, None] * (rotate @ slant)
    return A, CANVAS / 2.0 + config.shift * np.stack(shift, axis=1)


def _discs(digit: int) -> int:
    """Return the number of pen positions half a pixel apart at the largest scale."""
    points = _outline(digit)
    return int(np.ceil(1.2 * UNIT * np.hypot(*np.diff(points, axis=0).T).sum() / 0.5)) + 1


def _arc(cx: float, cy: float, rx: float, ry: float, start: float, end: float) -> Array:
    """Return an elliptic arc from angle ``start`` to ``end`` [degrees]; 90 is the lowest point."""
    angle = np.deg2rad(np.linspace(start, end, 181))
    return np.stack((cx + rx * np.cos(angle), cy + ry * np.sin(angle)), axis=1)


def _corners(*points: tuple[float, float]) -> Array:
    return np.array(points)


def _eight() -> Array:
    angle = np.linspace(0.0, 2.0 * np.pi, 361)
    return np.stack((-0.9 * np.sin(2.0 * angle), -2.0 * np.cos(angle)), axis=1)


# Pieces are joined by straight lines.
_GLYPHS: dict[int, Callable[[], Sequence[Array]]] = {
    0: lambda: [_arc(0, 0, 1, 2, -90, -450)],
    1: lambda: [_corners((-0.6, -1.1), (0.3, -2), (0.3, 2))],
    2: lambda: [_arc(0, -1, 1, 1, 195, 395), _corners((-1, 2), (1, 2))],
    3: lambda: [_arc(0, -1, 0.95, 1, 205, 450), _arc(0, 1, 1, 1, 270, 515)],
    4: lambda: [_corners((1, 0.8), (-1, 0.8), (0.45, -2), (0.45, 2))],
    5: lambda: [_corners((0.9, -2), (-0.75, -2)), _arc(0, 0.75, 1, 1.25, 212, 510)],
    6: lambda: [_arc(0.8, 0.9, 1.8, 2.9, 268, 180), _arc(0, 0.9, 1, 1.1, 180, -180)],
    7: lambda: [_corners((-1, -2), (1, -2), (-0.3, 2))],
    8: lambda: [_eight()],
    9: lambda: [_arc(0, -1, 0.95, 1, 0, -360), _corners((0.6, 2))],
}


@cache
def _outline(digit: int) -> Array:
    return np.concatenate(_GLYPHS[digit]())


_COMMAND = "python -m ndp_ros.paper.digits.data FILE.npz"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a digit set and write it to a file; return the exit status."""
    parser = argparse.ArgumentParser(prog=_COMMAND, description="Make the digit set.")
    parser.add_argument("path", type=Path, help="file to write, such as out/digits.npz")
    add_arguments(parser, DigitsConfig)
    given = parser.parse_args(arguments)
    try:
        config = from_arguments(DigitsConfig, given)
        train, test = generate(config)
        save(given.path, train, test)
    except (NdpError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{given.path}: {len(train)} + {len(test)} digits, "
        f"training set {train.digest()}, test set {test.digest()}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
