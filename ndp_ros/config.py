# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Configuration: frozen dataclasses, the one source for YAML, command line and ROS parameters.

A configuration class is a frozen dataclass whose fields are made by :func:`param`. The YAML schema
(:func:`load`), the flags (:func:`add_arguments`) and the descriptors of ROS parameters
(``nodes/parameters``) follow from the fields, so that name, unit, bounds and documentation are
written once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ndp_ros.errors import ConfigError
from ndp_ros.files import merged, read_yaml
from ndp_ros.paths import share

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
    """Return a dataclass field with documentation and bounds.

    Args:
        default: Default value; without one the field is required.
        doc: Its effect in one sentence.
        unit: SI unit, such as ``"rad/s"``; empty for a pure number.
        minimum: Smallest allowed value, for each element of a tuple.
        maximum: Largest allowed value, for each element of a tuple.
        choices: All allowed values.
    """
    metadata = {
        "doc": doc,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a configuration class, as YAML, command line and ROS see it."""

    name: str
    type: Any
    default: Any
    doc: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: Sequence[Any] | None = None

    @property
    def required(self) -> bool:
        """Whether the field has no default."""
        return self.default is dataclasses.MISSING

    @property
    def named_choices(self) -> str:
        """The choices in words; an empty one, which the documentation explains, is left out."""
        return "one of " + ", ".join(str(c) for c in self.choices or () if c != "")

    def describe(self) -> str:
        """Return documentation, unit, choices and bounds in one line, as in ``--help``."""
        notes = [f"[{self.unit}]"] if self.unit else []
        if self.choices is not None:
            notes.append(self.named_choices)
        if self.minimum is not None and self.maximum is not None:
            notes.append(f"{_number(self.minimum)} to {_number(self.maximum)}")
        elif self.minimum is not None:
            notes.append(f"at least {_number(self.minimum)}")
        elif self.maximum is not None:
            notes.append(f"at most {_number(self.maximum)}")
        return " ".join([self.doc, *([f"({', '.join(notes)})"] if notes else [])])


def _number(bound: float) -> str:
    """Return a bound as text; a whole number keeps all its digits, but for 2^n - 1."""
    if isinstance(bound, int) and bound > 2**31 and (bound + 1).bit_count() == 1:
        return f"2^{bound.bit_length()} - 1"
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def fields_of(cls: type) -> list[Field]:
    """Return the fields of a configuration class in their order of declaration."""
    hints = typing.get_type_hints(cls)
    return [Field(f.name, hints[f.name], f.default, **f.metadata) for f in dataclasses.fields(cls)]


def is_config(kind: Any) -> bool:
    """Return whether a field's type is a configuration class, nested in its own."""
    return dataclasses.is_dataclass(kind) and isinstance(kind, type)


def leaves(cls: type, defaults: Any = None) -> list[Field]:
    """Return all parameters, those of nested classes beside the others: flags, ROS parameters.

    A name that several nested classes share is one parameter, which sets the field in each.
    ``defaults`` is a configuration whose values replace those of the class.
    """
    found: dict[str, Field] = {}
    for p in fields_of(cls):
        if defaults is not None:
            p = dataclasses.replace(p, default=getattr(defaults, p.name))
        inner = leaves(p.type, None if p.required else p.default) if is_config(p.type) else [p]
        for leaf in inner:
            found.setdefault(leaf.name, leaf)
    return list(found.values())


def nest(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by the names of :func:`leaves` as the mapping that :func:`from_mapping` takes.

    Other names are left out.
    """
    nested: dict[str, Any] = {}
    for p in fields_of(cls):
        if not is_config(p.type):
            nested |= {p.name: values[p.name]} if p.name in values else {}
        elif inner := nest(p.type, values):
            nested[p.name] = inner
    return nested


def changed(config: Any) -> dict[str, Any]:
    """Return the plain values that differ from the defaults of their class, by name."""
    names = [p.name for p in fields_of(type(config)) if getattr(config, p.name) != p.default]
    return {name: value for name, value in to_mapping(config).items() if name in names}


def from_mapping(cls: type[Config], values: Mapping[str, Any], source: str = "") -> Config:
    """Build a configuration from plain values and check each of them.

    Args:
        cls: The configuration class.
        values: Plain values as in YAML or JSON; lists become tuples, and mappings become nested
            configuration classes.
        source: Origin of the values, named in errors.

    Raises:
        ConfigError: On an unknown or missing name, a wrong type or a value out of bounds; the
            message lists the allowed ones.
    """
    where = f"{source}: " if source else ""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}expected a mapping for {cls.__name__}, got {values!r}")
    known = {p.name: p for p in fields_of(cls)}
    for name in values:
        if name not in known:
            raise ConfigError.choice(f"{where}option", name, known)
    missing = [p.name for p in known.values() if p.required and p.name not in values]
    if missing:
        raise ConfigError(f"{where}{cls.__name__} needs {', '.join(missing)}")
    return cls(**{name: _convert(known[name], value, where) for name, value in values.items()})


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a configuration as plain values for JSON or YAML."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return value

    return typing.cast(dict[str, Any], plain(config))


def load(
    cls: type[Config], path: str | Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Build a configuration from a YAML file or, without one, the defaults, with overrides on top.

    Raises:
        ConfigError: As in :func:`from_mapping`.
    """
    values = read_yaml(path) if path is not None else {}
    return from_mapping(cls, merged(values, overrides or {}), source=str(path or ""))


def load_named(
    cls: type[Config], folder: str, name: str, kind: str, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Build a configuration from ``config/<folder>/<name>.yaml``; ``kind`` names it in the error.

    Raises:
        ConfigError: If there is no such file, or as in :func:`from_mapping`.
    """
    files = {path.stem: path for path in sorted(share(f"config/{folder}").glob("*.yaml"))}
    if name not in files:
        raise ConfigError.choice(kind, name, files)
    return load(cls, files[name], overrides)


def add_arguments(parser: argparse.ArgumentParser, cls: type, skip: Sequence[str] = ()) -> None:
    """Add one ``--flag`` per parameter of a configuration class, in one group for each class.

    The groups of nested classes are named as their sections in YAML. Flags that are not given stay
    out of the namespace, so that they do not hide the values of a YAML file.
    """
    title = cls.__name__.removesuffix("Config").removesuffix("Shape").lower()
    _add_group(parser, cls, title, set(skip))


def _add_group(parser: argparse.ArgumentParser, cls: type, title: str, taken: set[str]) -> None:
    """Add the flags of a class whose names are not taken yet, then those of nested classes."""
    group = parser.add_argument_group(f"{title} options")
    fields = [p for p in fields_of(cls) if p.name not in taken]
    for p in (p for p in fields if not is_config(p.type)):
        taken.add(p.name)
        shown = "" if p.required else f" (default: {_as_typed(p.default)})"
        how: dict[str, Any] = {"help": (p.describe() + shown).replace("%", "%%")}
        if p.type is bool:
            how["action"] = argparse.BooleanOptionalAction
        else:
            how["metavar"] = (p.unit or p.name).upper()
        if typing.get_origin(p.type) is tuple:
            how["nargs"] = "+"
        flag = "--" + p.name.replace("_", "-")
        group.add_argument(flag, dest=p.name, default=argparse.SUPPRESS, **how)
    for p in fields:
        if is_config(p.type):
            _add_group(parser, p.type, p.name, taken)


def _as_typed(default: Any) -> str:
    """Return a default as one would type it."""
    if isinstance(default, tuple):
        return " ".join(map(_as_typed, default)) or "none"
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "none" if default is None or default == "" else str(default)


def from_arguments(cls: type[Config], namespace: argparse.Namespace) -> Config:
    """Build a configuration from parsed flags."""
    return from_mapping(cls, nest(cls, vars(namespace)))


def _convert(p: Field, value: Any, where: str) -> Any:
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
    """Return a whole number exactly, even if it is written as 1e6.

    Raises:
        ValueError: If it is not whole, or too large for a float to represent exactly.
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
    """Convert a plain value to the annotated type.

    Raises:
        ConfigError: If it does not fit.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if (value is None or value == "") and type(None) in args:
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
    if is_config(kind):
        return value if isinstance(value, kind) else from_mapping(kind, value, source=name)
    if kind not in (bool, int, float, str) or (kind is bool and isinstance(value, bool)):
        return value
    if kind is str and isinstance(value, str | Path):
        return str(value)
    if kind in (int, float) and not isinstance(value, bool):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return float(value) if kind is float else _whole(value)
    expected = "true or false" if kind is bool else kind.__name__
    raise ConfigError(f"{name} is {value!r}, expected {expected}")
