"""Configuration: frozen dataclasses, the one source for YAML, CLI and ROS parameters.

A configuration class is a frozen dataclass whose fields are made by :func:`param`.
From the field alone follow the YAML schema (:func:`load`), the command-line flags
(:func:`add_arguments`) and the ROS parameter descriptors (``nodes``), so that a
name, a unit, a bound or a sentence is written once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import math
import os
import stat
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ndp_ros.errors import ConfigError, describe

Config = TypeVar("Config")


def param(
    default: Any = dataclasses.MISSING,
    *,
    doc: str,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """Return a dataclass field that carries its documentation and its bounds.

    Args:
        default: Default value; without one the field must be given.
        doc: One sentence on what the parameter does.
        unit: SI unit, such as ``"rad/s"``; empty for a pure number.
        minimum: Smallest value allowed, for each element of a tuple.
        maximum: Largest value allowed, for each element of a tuple.
        choices: Every value allowed.
    """
    metadata = {
        "doc": doc, "unit": unit, "minimum": minimum, "maximum": maximum, "choices": choices,
    }  # fmt: skip
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One field of a configuration class, as YAML, CLI and ROS see it."""

    name: str
    type: Any
    default: Any
    doc: str
    unit: str
    minimum: float | None
    maximum: float | None
    choices: Sequence[Any] | None

    @property
    def required(self) -> bool:
        """Whether the field has no default."""
        return self.default is dataclasses.MISSING

    def describe(self) -> str:
        """Return doc, unit, bounds and choices as one sentence for ``--help``."""
        notes = [f"[{self.unit}]"] if self.unit else []
        if self.choices is not None:
            notes.append("one of " + ", ".join(map(str, self.choices)))
        if self.minimum is not None or self.maximum is not None:
            low = "-inf" if self.minimum is None else _number(self.minimum)
            high = "inf" if self.maximum is None else _number(self.maximum)
            notes.append(f"{low} to {high}")
        return " ".join([self.doc, *([f"({', '.join(notes)})"] if notes else [])])


def _number(bound: float) -> str:
    """Return a bound as it is read best; a whole number keeps all its digits."""
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def parameters(cls: type) -> list[Parameter]:
    """Return the parameters of a configuration class in the order they are written."""
    hints = typing.get_type_hints(cls)
    return [
        Parameter(name=f.name, type=hints[f.name], default=f.default, **_metadata(f))
        for f in dataclasses.fields(cls)
    ]


def from_mapping(cls: type[Config], values: Mapping[str, Any], source: str = "") -> Config:
    """Build a configuration from plain values and check every one of them.

    Args:
        cls: The configuration class.
        values: Plain values as YAML or JSON hold them; lists become tuples and
            mappings become nested configuration classes.
        source: Where the values come from, named in errors.

    Raises:
        ConfigError: On an unknown or missing name, a wrong type or a value out of
            bounds; the message lists what is allowed.
    """
    where = f"{source}: " if source else ""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}expected a mapping for {cls.__name__}, got {values!r}")
    known = {p.name: p for p in parameters(cls)}
    for name in values:
        if name not in known:
            raise ConfigError.choice(f"{where}parameter", name, known)
    missing = [p.name for p in known.values() if p.required and p.name not in values]
    if missing:
        raise ConfigError(f"{where}{cls.__name__} needs {', '.join(missing)}")
    return cls(**{name: _convert(known[name], value, where) for name, value in values.items()})


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a configuration as plain values that JSON and YAML can hold."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return value

    return typing.cast(dict[str, Any], plain(config))


def read_file(path: str | Path, largest: int = 1 << 30) -> bytes:
    """Return what a regular file holds; nothing else is opened or waited for.

    Raises:
        OSError: If it cannot be read, is no regular file, or is larger than ``largest`` [bytes].
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a null byte
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if status.st_size > largest:
            raise OSError(errno.EFBIG, f"it is larger than {largest} bytes", str(path))
        return file.read()


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ConfigError: If the file is missing, is no YAML, holds no mapping or a name twice.
    """
    try:
        values = yaml.load(read_file(path).decode("utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"cannot read {describe(error)}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML: {problem}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}, expected a mapping")
    return values


class _Loader(yaml.SafeLoader):
    """A loader that takes no name twice, of which the first would be lost without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value} is there twice: leave one out",
                        problem_mark=key.start_mark,
                    )
                names.add(key.value)
        return node


def load(
    cls: type[Config], path: str | Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Build a configuration from a YAML file, with overrides on top.

    Args:
        cls: The configuration class.
        path: YAML file; ``None`` for the defaults.
        overrides: Values that win over the file, by name.

    Raises:
        ConfigError: As in :func:`from_mapping`.
    """
    values = read_yaml(path) if path is not None else {}
    return from_mapping(cls, {**values, **(overrides or {})}, source=str(path or ""))


def add_arguments(parser: argparse.ArgumentParser, cls: type, skip: Sequence[str] = ()) -> None:
    """Add one ``--flag`` per parameter of a configuration class.

    Flags that are not given stay out of the namespace, so that
    :func:`from_arguments` can tell them from a YAML file's values.
    """
    group = parser.add_argument_group(f"{cls.__name__} parameters")
    for p in parameters(cls):
        if p.name in skip or dataclasses.is_dataclass(p.type):
            continue
        shown = "" if p.required else f" (default: {p.default})"
        flag = "--" + p.name.replace("_", "-")
        help_text = (p.describe() + shown).replace("%", "%%")
        if p.type is bool:
            group.add_argument(
                flag, dest=p.name, action=argparse.BooleanOptionalAction,
                default=argparse.SUPPRESS, help=help_text,
            )  # fmt: skip
        else:
            many = {"nargs": "+"} if typing.get_origin(p.type) is tuple else {}
            group.add_argument(
                flag, dest=p.name, default=argparse.SUPPRESS, help=help_text,
                metavar=(p.unit or p.name).upper(), **many,  # type: ignore[arg-type]
            )  # fmt: skip


def from_arguments(
    cls: type[Config], namespace: argparse.Namespace, path: str | Path | None = None
) -> Config:
    """Build a configuration from parsed flags over an optional YAML file."""
    names = {p.name for p in parameters(cls)}
    given = {name: value for name, value in vars(namespace).items() if name in names}
    return load(cls, path, given)


def _metadata(f: dataclasses.Field[Any]) -> dict[str, Any]:
    keys = ("doc", "unit", "minimum", "maximum", "choices")
    return {key: f.metadata.get(key, "" if key in ("doc", "unit") else None) for key in keys}


def _convert(p: Parameter, value: Any, where: str) -> Any:
    value = _cast(p.type, value, f"{where}{p.name}")
    for item in value if isinstance(value, tuple) else (value,):
        if p.choices is not None and item not in p.choices:
            raise ConfigError.choice(f"{where}{p.name}", item, p.choices)
        if isinstance(item, int | float) and not isinstance(item, bool):
            below = p.minimum is not None and item < p.minimum
            above = p.maximum is not None and item > p.maximum
            if below or above or (isinstance(item, float) and not math.isfinite(item)):
                raise ConfigError(f"{where}{p.name} is {item!r}: {p.describe()}")
    return value


def _whole(value: Any) -> int:
    """Return a whole number exactly, also one that is written as 1e6.

    Raises:
        ValueError: If it is none, or if a float cannot tell it from its neighbours.
    """
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return int(value)
    number = float(value)
    if number != int(number) or abs(number) > 2**53:
        raise ValueError
    return int(number)


def _cast(kind: Any, value: Any, name: str) -> Any:
    """Turn a plain value into the annotated type, or say why it does not fit."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _cast(next(a for a in args if a is not type(None)), value, name)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{name} is {value!r}, expected a list")
        inner = args[0] if len(args) == 2 and args[1] is Ellipsis else None
        if inner is None and len(args) != len(value):
            raise ConfigError(f"{name} has {len(value)} values, expected {len(args)}")
        kinds = [inner] * len(value) if inner is not None else list(args)
        return tuple(_cast(k, v, name) for k, v in zip(kinds, value, strict=True))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return value if isinstance(value, kind) else from_mapping(kind, value, source=name)
    if kind is bool:
        if isinstance(value, bool):
            return value
    elif kind in (int, float):
        if not isinstance(value, bool):
            try:
                return float(value) if kind is float else _whole(value)
            except (TypeError, ValueError, OverflowError):
                pass
    elif kind is str:
        if isinstance(value, str | Path):
            return str(value)
    else:
        return value
    expected = "true or false" if kind is bool else kind.__name__
    raise ConfigError(f"{name} is {value!r}, expected {expected}")
