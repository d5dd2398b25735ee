# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Read and write files: atomic writes, checks of output paths, YAML files with a base.

Every command that writes checks its paths first, so that no result is lost at its end. Missing
folders are made when something is written.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ndp_ros.errors import ConfigError, describe
from ndp_ros.paths import share_roots


def atomic_write(path: Path, data: str | bytes) -> None:
    """Write a file in an existing folder in one step, text as UTF-8; an existing one is replaced.

    Raises:
        OSError: If it cannot be written; the old content is then unchanged.
    """
    scratch = path.with_name(f".{path.name}.new")
    try:
        scratch.write_bytes(data.encode() if isinstance(data, str) else data)
        scratch.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


def read_file(path: str | Path, largest: int = 1 << 30) -> bytes:
    """Return the content of a regular file; a pipe or a device is refused without waiting for it.

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


def require_file(path: Path, option: str, endings: Sequence[str] = ()) -> None:
    """Check that a file can be written, without touching anything.

    ``option`` names the path in messages; ``endings`` are the allowed suffixes with their dot.

    Raises:
        ConfigError: If it cannot.
    """
    if not path.name or path.is_dir():
        raise ConfigError(f"{option} is {str(path)!r}, a folder: name a file in it")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{option} is {str(path)!r}, which is no file: name another one")
    if endings and path.suffix.lower() not in endings:
        raise ConfigError(
            f"{option} is {str(path)!r}, whose ending is not one of [{', '.join(endings)}]"
        )
    _require_room(path.parent, path, option)


def require_folder(path: Path, option: str) -> None:
    """Check that a folder can be made, or written into, without touching anything.

    Raises:
        ConfigError: If it cannot.
    """
    if not path.name:
        raise ConfigError(f"{option} is {str(path)!r}: name a new folder")
    _require_room(path, path, option)


def write_output(path: Path, data: str | bytes) -> None:
    """Write a file as :func:`atomic_write` does, and make its folder if it is missing.

    Raises:
        OSError: If it cannot be written; the old content is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, data)


def _require_room(folder: Path, path: Path, option: str) -> None:
    """Check the nearest existing folder, in which the missing ones would be made."""
    there = next(f for f in (folder, *folder.absolute().parents) if f.exists() or f.is_symlink())
    if not there.is_dir():
        raise ConfigError(f"{option} is {str(path)!r}, but {there} is no folder: name another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{option} is {str(path)!r}, but {there} may not be written to")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, over the values of the file that it names as ``base``.

    Nested mappings are merged value by value.

    Raises:
        ConfigError: As in :func:`layers`.
    """
    return functools.reduce(merged, (layer for _, layer in layers(path)))


def layers(path: str | Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return a YAML file's mapping after those of its bases, the most general first.

    ``base: NAME`` names ``NAME.yaml`` in the folder of the file or, such as ``runtime/hardware``,
    in the package's ``config`` folder.

    Raises:
        ConfigError: If a file is missing, is no YAML, holds no mapping or a name twice, or if
            files are each other's base.
    """
    found: list[tuple[Path, dict[str, Any]]] = []
    source: Path | None = Path(path)
    while source is not None:
        if source in (file for file, _ in found):
            raise ConfigError(f"{path}: {source} is its own base: leave base out of one of them")
        values = _read_mapping(source)
        base = values.pop("base", None)
        found.insert(0, (source, values))
        source = None if base is None else _base(source, base)
    return found


def _base(path: Path, name: object) -> Path:
    """Return the file that ``base: name`` in a file stands for."""
    folders = [path.parent, *(root / "config" for root in share_roots())]
    with contextlib.suppress(OSError, ValueError):
        for folder in folders:
            if (base := folder / f"{name}.yaml").is_file():
                return base
    names = sorted(file.stem for file in path.parent.glob("*.yaml") if file != path)
    raise ConfigError.choice(f"{path}: base", name, names)


def _read_mapping(path: Path) -> dict[str, Any]:
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
    """A YAML loader that refuses a repeated name instead of silently dropping the first value."""

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


def merged(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with others on top; nested mappings are merged."""
    result = dict(values)
    for name, value in overrides.items():
        below = result.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = merged(below, value)
        result[name] = value
    return result
