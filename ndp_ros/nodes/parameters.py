# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""ROS parameters from configuration classes: one descriptor per field of ``config.param``.

Names, types, defaults, bounds, units and sentences are those of the dataclass, so
``ros2 param describe`` says what ``--help`` says. The fields of a nested configuration
class stand beside the others; an optional value that is absent is the empty string.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from ndp_ros.config import Field, from_mapping, leaves, nest
from ndp_ros.errors import ConfigError
from ndp_ros.nodes import clocks

Config = TypeVar("Config")

STANDARD = ("use_sim_time", "start_type_description_service")
"""Parameters that rclpy declares for every node."""

_INTEGER_LIMIT = 2**63 - 1
_SCALARS = {
    bool: RosParameter.Type.BOOL,
    int: RosParameter.Type.INTEGER,
    float: RosParameter.Type.DOUBLE,
    str: RosParameter.Type.STRING,
}
_ARRAYS = {
    bool: RosParameter.Type.BOOL_ARRAY,
    int: RosParameter.Type.INTEGER_ARRAY,
    float: RosParameter.Type.DOUBLE_ARRAY,
    str: RosParameter.Type.STRING_ARRAY,
}


def declare(node: Node, *classes: type, writable: Collection[str] = ()) -> None:
    """Declare every field of the configuration classes as a parameter of the node.

    Args:
        node: The node; its parameter overrides (``-p``, parameter files, launch) count.
        classes: Configuration classes made with ``config.param``; their names must differ.
        writable: Names that may change at run time; all others are read-only.

    Raises:
        ConfigError: On an unknown name, a wrong type or a value out of bounds. Unknown names in
            a parameter file's section for several nodes (``/**:``) belong to others: a warning
            lists them.
    """
    # rclpy ignores overrides of undeclared parameters; a misspelt one must not pass.
    # They have no public name.
    overrides: dict[str, RosParameter[Any]] = node._parameter_overrides  # noqa: SLF001
    known = {p.name: p for cls in classes for p in leaves(cls)}
    unknown = [
        name
        for name in overrides
        if name not in known and name not in STANDARD and not name.startswith("qos_overrides.")
    ]
    if unknown:
        shared = shared_names(sys.argv, node.get_name())
        for name in unknown:
            if name not in shared:
                raise ConfigError.choice(f"{node.get_name()}: parameter", name, known)
        node.get_logger().warning(
            f"parameters for several nodes that are none of this one: {', '.join(sorted(unknown))}"
        )
    for name, p in known.items():
        given = overrides[name].value if name in overrides else None
        _declare_one(node, name, p, given, read_only=name not in writable)


def declare_and_read(node: Node, cls: type[Config]) -> Config:
    """Declare the parameters of a node that is configured once, and return their values.

    Raises:
        ConfigError: As :func:`declare`.
    """
    declare(node, cls)
    node.add_on_set_parameters_callback(partial(clocks.keep_time, node))
    return read(node, cls)


def names_of(*classes: type) -> set[str]:
    """Return the names of all parameters that :func:`declare` declares for these classes."""
    return {p.name for cls in classes for p in leaves(cls)}


def read(node: Node, cls: type[Config], changes: Mapping[str, Any] | None = None) -> Config:
    """Return the present parameter values, some replaced by ``changes``, as a configuration.

    Raises:
        ConfigError: If values do not fit together.
    """
    values: dict[str, Any] = {}
    for p in leaves(cls):
        value = (changes or {}).get(p.name, node.get_parameter(p.name).value)
        values[p.name] = list(value) if _element(p.type)[1] else value
    return from_mapping(cls, nest(cls, values), source=node.get_name())


def descriptor(p: Field, *, read_only: bool) -> ParameterDescriptor:
    """Return the descriptor of one field, as ``ros2 param describe`` shows it."""
    kind, is_array = _element(p.type)
    described = ParameterDescriptor(
        name=p.name,
        type=(_ARRAYS if is_array else _SCALARS)[kind].value,
        description=p.describe(),
        read_only=read_only,
    )
    if p.choices is not None:
        described.additional_constraints = p.named_choices
    if (p.minimum is not None or p.maximum is not None) and not is_array:
        if kind is int:
            low = -_INTEGER_LIMIT if p.minimum is None else int(p.minimum)
            high = _INTEGER_LIMIT if p.maximum is None else int(p.maximum)
            described.integer_range = [IntegerRange(from_value=low, to_value=high)]
        elif kind is float:
            limit = sys.float_info.max
            low_value = -limit if p.minimum is None else float(p.minimum)
            high_value = limit if p.maximum is None else float(p.maximum)
            described.floating_point_range = [
                FloatingPointRange(from_value=low_value, to_value=high_value)
            ]
    return described


def shared_names(arguments: Sequence[str], node: str) -> set[str]:
    """Return the names that parameter files set for several nodes at once, but not for this one.

    The arguments are a command line with ``--ros-args`` and ``--params-file``.
    """
    shared: set[str] = set()
    own: set[str] = set()
    for option, value in itertools.pairwise(arguments):
        if option in ("-p", "--param"):
            own.add(value.partition(":=")[0].rpartition(":")[2])
        if option != "--params-file":
            continue
        try:
            content = yaml.safe_load(Path(value).read_text())
        except (OSError, ValueError, yaml.YAMLError):
            continue  # ROS has read the file; its values count as the node's own
        for section, entry in content.items() if isinstance(content, dict) else ():
            found = _leaves(entry.get("ros__parameters", {})) if isinstance(entry, dict) else ()
            if "*" in str(section):
                shared.update(found)
            elif str(section).rpartition("/")[2] == node:
                own.update(found)
    return shared - own


def _leaves(values: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of the values in nested mappings."""
    if not isinstance(values, dict):
        yield prefix
        return
    for key, value in values.items():
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))


def _declare_one(node: Node, name: str, p: Field, given: Any, *, read_only: bool) -> None:
    kind, is_array = _element(p.type)
    value = p.default if given is None else given
    if value is dataclasses.MISSING:
        raise ConfigError(f"{node.get_name()} needs the parameter {name}: {p.describe()}")
    if value is None:
        value = ""
    if is_array:
        items = value if isinstance(value, list | tuple) else list(value)
        value = [float(item) if kind is float else item for item in items]
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)  # `-p rate:=1000` is an integer for ROS
    described = descriptor(p, read_only=read_only)
    expected = described.type  # declaring overwrites it with the type of the value
    absent = value == "" and _optional(p.type)
    if _optional(p.type):
        # Only a parameter of any type can be a number, or empty where there is none.
        described.type, described.dynamic_typing = RosParameter.Type.NOT_SET.value, True
    try:
        if is_array and not value:
            _declare_empty(node, name, described)
        else:
            # The override is in ``value`` already, converted.
            node.declare_parameter(name, value, described, ignore_override=True)
    except (InvalidParameterTypeException, InvalidParameterValueException, TypeError) as error:
        raise ConfigError(f"{node.get_name()}: {name} is {given!r}: {p.describe()}") from error
    if expected != node.get_parameter(name).type_.value and not absent:
        raise ConfigError(
            f"{node.get_name()}: {name} is {given!r}, expected {kind.__name__}: {p.describe()}"
        )


def _declare_empty(node: Node, name: str, described: ParameterDescriptor) -> None:
    """Declare an empty array of its own type; by its value rclpy takes it for one of bytes."""
    kind = RosParameter.Type(described.type)
    node.declare_parameter(name, kind, ParameterDescriptor(), ignore_override=True)
    node.set_parameters([RosParameter(name, kind, [])])
    node.set_descriptor(name, described)


def _optional(kind: Any) -> bool:
    return type(None) in typing.get_args(kind)


def _element(kind: Any) -> tuple[type, bool]:
    """Return the scalar type of an annotation and whether it is a list of them."""
    if _optional(kind):
        kind = next(a for a in typing.get_args(kind) if a is not type(None))
    if typing.get_origin(kind) is tuple:
        return typing.get_args(kind)[0], True
    if kind not in _SCALARS:
        raise ConfigError(f"{kind!r} has no ROS parameter type")
    return kind, False
