"""Options of a task: single parameters of its configuration, given by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ndp_ros.config import from_mapping, parameters, to_mapping
from ndp_ros.errors import ConfigError, TaskError

Config = TypeVar("Config")

PICTURES = ("camera", "size")
"""Options that are no parameters: of the pictures of a task on the arm."""


def with_options(config: Config, options: Mapping[str, Any], beside: Sequence[str] = ()) -> Config:
    """Return a task's configuration with some parameters changed, every value of it checked.

    Args:
        config: The configuration, a dataclass whose fields are made by ``param``.
        options: Plain values by name; a number may be a text such as ``2e-2``.
        beside: What the task takes beside parameters, for the list of what is allowed.

    Raises:
        TaskError: If there is no such parameter, or a value has another type or is out of
            bounds; the message says what is allowed.
    """
    names = [p.name for p in parameters(type(config))]
    for name in options:
        if name not in names:
            raise TaskError.choice("task option", name, sorted([*names, *beside]))
    try:
        return from_mapping(type(config), {**to_mapping(config), **options}, "task option")
    except ConfigError as error:
        raise TaskError(str(error)) from error
