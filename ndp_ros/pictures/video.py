# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Write pictures as a video or as an animated picture, and some of them as a contact sheet."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.errors import TaskError, describe
from ndp_ros.files import write_output

Picture = NDArray[np.uint8]

RATE = 30.0
"""Pictures a second."""
ANIMATED = (".webp", ".gif")
VIDEOS = (".mp4", ".mkv", ".mov", ".avi", *ANIMATED)
"""Formats of a film, by the ending of its path."""
ROWS, MOMENTS = 12, 6
"""Most episodes of a contact sheet, and pictures of each."""

_SMALL_WIDTH, _EVERY = 640, 2
"""An animated picture, which a page loads whole, is so wide [px] and has every second picture."""
_QUALITY = 60
_FAST = ["-preset", "veryfast"]
"""Half of the encoder's time for the same picture."""
_THUMB = 400
"""Width of a picture of a contact sheet [px]."""


def write_video(path: Path, pictures: Iterable[Picture], rate: float = RATE) -> None:
    """Write pictures (height, width, 3) of one size as a film, at a rate [1/s].

    The ending of the path, one of :data:`VIDEOS`, determines the format. The first picture is drawn
    before anything is written.

    Raises:
        TaskError: If the file cannot be written. No part of it is left.
    """
    stream = iter(pictures)
    first = next(stream, None)
    if first is None:
        raise TaskError(f"no film {path}: there are no pictures")
    every = itertools.chain((first,), stream)
    # Its ending determines the format.
    scratch = path.with_name(f".new.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write = _animate if path.suffix.lower() in ANIMATED else _encode
        write(scratch, every, rate)
        scratch.replace(path)
    except OSError as error:
        raise TaskError(f"cannot write {path}: {describe(error)}") from error
    except (ValueError, ImportError, RuntimeError) as error:
        raise TaskError(f"cannot write {path}: {' '.join(str(error).split())}") from error
    finally:
        scratch.unlink(missing_ok=True)


def _encode(path: Path, pictures: Iterable[Picture], rate: float) -> None:
    """Write a video.

    Raises:
        OSError: If the disk is full.
    """
    import imageio.v2 as imageio
    import imageio_ffmpeg

    given = 0
    video: Any = imageio.get_writer(
        path, fps=rate, macro_block_size=2, codec="libx264", output_params=_FAST
    )
    with video as writer:
        for picture in pictures:
            writer.append_data(picture)
            given += 1
    # imageio ignores the exit status of its encoder, even if the disk is full.
    written, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
    if written != given:
        raise OSError(f"{written} of {given} pictures fit on the disk")


def _animate(path: Path, pictures: Iterable[Picture], rate: float) -> None:
    """Write an animated picture that repeats for ever."""
    from PIL import Image

    images: list[Any] = []
    for picture in itertools.islice(pictures, 0, None, _EVERY):
        image = Image.fromarray(picture)
        images.append(image.resize((_SMALL_WIDTH, _SMALL_WIDTH * image.height // image.width)))
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=round(1000.0 * _EVERY / rate),
        loop=0,
        quality=_QUALITY,
        method=6,
    )


class ContactSheet:
    """Small pictures of several episodes, a row each."""

    def __init__(self) -> None:
        self._rows: dict[int, list[Any]] = {}

    def add(self, row: int, picture: Picture) -> None:
        """Add a picture (height, width, 3) to a row."""
        from PIL import Image

        image = Image.fromarray(picture)
        width = _THUMB
        height = round(width * image.height / image.width)
        self._rows.setdefault(row, []).append(image.resize((width, height)))

    def save(self, path: Path) -> None:
        """Write the sheet as a PNG.

        Raises:
            TaskError: If it cannot be written.
        """
        from PIL import Image

        rows = list(self._rows.values())
        if not rows:
            raise TaskError(f"no contact sheet {path}: nothing was filmed")
        wide, high, gap = rows[0][0].width, rows[0][0].height, 4
        most = max(map(len, rows))
        size = most * (wide + gap) + gap, len(rows) * (high + gap) + gap
        sheet = Image.new("RGB", size, "white")
        for y, row in enumerate(rows):
            for x, image in enumerate(row):
                sheet.paste(image, (gap + x * (wide + gap), gap + y * (high + gap)))
        data = io.BytesIO()
        sheet.save(data, "PNG", optimize=True)
        try:
            write_output(path, data.getvalue())
        except OSError as error:
            raise TaskError(f"cannot write {path}: {error.strerror}") from error
