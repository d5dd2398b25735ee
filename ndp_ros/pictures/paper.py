# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Draw and write on pictures of pixels, such as those of a film."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue of a colour such as ``#1f6feb``."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


_NEAR = 6.0
"""Distance of the points of a line [px]."""


def _along(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the length (n,) of the line through points (n, 2) up to each of them."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return np.concatenate(([0.0], np.cumsum(steps)))


class Paper:
    """A picture that is drawn and written on.

    Attributes:
        size: Its width and height [px].
    """

    def __init__(self, picture: NDArray[np.uint8]) -> None:
        """Take a copy of a picture (height, width, 3)."""
        from PIL import Image, ImageDraw, ImageFont

        self._image = Image.fromarray(np.ascontiguousarray(picture))
        self.size = self._image.size
        self._draw = ImageDraw.Draw(self._image, "RGBA")
        self._height = max(10, self.size[1] // 30)
        self._font = ImageFont.load_default(self._height)

    def line(
        self, points: NDArray[np.float64], colour: tuple[int, int, int, int], width: int
    ) -> None:
        """Draw a line through points (n, 2) [px]; the width is that at 720 lines."""
        # Points closer than some pixels are rounded to a jagged line.
        points = (
            points[np.r_[True, np.diff(_along(points) // _NEAR) > 0]] if len(points) else points
        )
        if len(points) > 1:
            width = max(1, round(width * self.size[1] / 720))
            self._draw.line([*map(tuple, points.tolist())], fill=colour, width=width, joint="curve")

    def mark(self, point: NDArray[np.float64], colour: str) -> None:
        """Draw a dot at a point (2,) [px]."""
        (x, y), r = point.tolist(), self.size[1] / 90
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour, outline="white", width=2)

    def label(self, point: NDArray[np.float64], text: str, colour: str) -> None:
        """Write beside a point (2,) [px]."""
        (x, y), step = point.tolist(), self.size[1] / 60
        how: dict[str, Any] = {"stroke_width": 2, "stroke_fill": (0, 0, 0, 150)}
        if colour != "#ffffff":
            how["stroke_fill"] = (255, 255, 255, 210)
        self._draw.text(
            (x + step, y - step), text, fill=colour, font=self._font, anchor="ls", **how
        )

    def caption(self, text: str, left: bool, colour: str = "#212529") -> None:
        """Write in a box in the upper left or right corner."""
        width, height = self.size
        pad, wide = height // 60, self._draw.textlength(text, font=self._font)
        x, y = (pad, pad) if left else (width - wide - 3 * pad, pad)
        box = (x, y, x + wide + 2 * pad, y + self._height + 2 * pad)
        self._draw.rounded_rectangle(box, pad, fill=(*rgb(colour), 200))
        self._draw.text((x + pad, y + pad), text, fill="white", font=self._font)

    def picture(self) -> NDArray[np.uint8]:
        """Return the picture drawn so far (height, width, 3)."""
        return np.asarray(self._image)
