# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Observation spaces of any environment as fields of the observation vector.

A bounded ``Box`` with three axes, or of bytes with two, is an image, and one of bytes with four a
stack of images, which become channels. Images are stored with their channels first, scaled from
their bounds to -1 to 1.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from ndp_ros.errors import TaskError
from ndp_ros.observation import ObservationField
from ndp_ros.tasks.contract import Array

_SMALLEST, _LARGEST = 8, 128
"""Sides of an image [pixels]."""
_CHANNELS = 16
"""Most channels of an image, such as those of stacked pictures."""


def fields_of(space: gymnasium.Space[Any], name: str = "world") -> tuple[ObservationField, ...]:
    """Return the fields that an observation space becomes, one an entry of a dictionary.

    Raises:
        TaskError: If part of it is neither a vector nor an image, or an image is too large.
    """
    if isinstance(space, Dict):
        parts = (fields_of(sub, f"{name}/{key}") for key, sub in space.items())
        return tuple(field for part in parts for field in part)
    if _is_image(space):
        channels, height, width = shape = _channels_first(np.empty(space.shape or ())).shape
        if not _SMALLEST <= min(height, width) <= max(height, width) <= _LARGEST:
            raise TaskError(
                f"observation {name} is an image of {height} x {width} pixels: sides are "
                f"{_SMALLEST} to {_LARGEST} (gymnasium.wrappers.ResizeObservation makes it smaller)"
            )
        if channels > _CHANNELS:
            raise TaskError(
                f"observation {name} is an image of {channels} channels: at most {_CHANNELS}"
            )
        return (ObservationField(name, channels * height * width, shape),)
    if not space.is_np_flattenable or not (size := gymnasium.spaces.flatdim(space)):
        raise TaskError(
            f"observation {name} is {space}: methods take vectors, images and dictionaries of them"
        )
    return (ObservationField(name, size),)


def values_of(space: gymnasium.Space[Any], value: Any, name: str = "world") -> dict[str, Array]:
    """Return the values of :func:`fields_of` by name, each a vector."""
    if isinstance(space, Dict):
        parts = (values_of(sub, value[key], f"{name}/{key}") for key, sub in space.items())
        return {field: vector for part in parts for field, vector in part.items()}
    if _is_image(space):
        assert isinstance(space, Box)
        low, high = float(space.low.min()), float(space.high.max())
        pixels = _channels_first(np.asarray(value, np.float64)).ravel()
        return {name: (pixels - low) * (2.0 / (high - low)) - 1.0}
    return {name: np.asarray(gymnasium.spaces.flatten(space, value), np.float64)}


def _is_image(space: gymnasium.Space[Any]) -> bool:
    """Return whether a space is that of images."""
    if not isinstance(space, Box):
        return False
    axes = len(space.shape)
    if space.dtype == np.uint8:
        return axes in (2, 3, 4)
    return axes == 3 and space.is_bounded() and bool((space.low < space.high).any())


def _channels_first(image: Array) -> Array:
    """Return an image as (channels, height, width); its channels are the shortest axis."""
    if image.ndim == 4:
        return np.concatenate([_channels_first(part) for part in image])
    if image.ndim == 2:
        return image[None]
    return np.moveaxis(image, -1, 0) if image.shape[2] < image.shape[0] else image
