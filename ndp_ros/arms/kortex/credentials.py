# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""User name and password of a Kortex arm, from arguments, a file or the environment."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import yaml

from ndp_ros.errors import ConfigError

USERNAME_VARIABLE = "NDP_KORTEX_USERNAME"
PASSWORD_VARIABLE = "NDP_KORTEX_PASSWORD"
FACTORY = "admin"
"""User name and password of an arm as it leaves the factory."""

_LARGEST = 65536
"""Size limit of a credentials file [bytes]."""


@dataclass(frozen=True)
class Credentials:
    """A user name, and a password that ``repr`` does not show."""

    username: str = field(default=FACTORY)
    password: str = field(default=FACTORY, repr=False)

    @classmethod
    def find(cls, username: str = "", password: str = "", file: str | Path = "") -> Self:
        """Return what is given as arguments, else in a YAML file, else in the environment.

        Raises:
            ConfigError: If the file cannot be read, is readable by others, or is malformed.
        """
        stored = _read(Path(file).expanduser()) if file else {}
        return cls(
            username or stored.get("username") or os.environ.get(USERNAME_VARIABLE) or FACTORY,
            password or stored.get("password") or os.environ.get(PASSWORD_VARIABLE) or FACTORY,
        )


def _read(path: Path) -> dict[str, str]:
    """Read a credentials file; no error message shows any of it.

    Raises:
        ConfigError: If it cannot be read, is readable by others, or is malformed.
    """
    try:
        # Do not block: the name may be that of a pipe.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{path} is no file: give one with username and password")
            if status.st_mode & 0o077:
                raise ConfigError(f"{path} can be read by others: chmod 600 {path}")
            content = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no valid path"
        raise ConfigError(f"cannot read the credentials file {path}: {why}") from None
    expected = f"{path}: expected username and password, each as text on a line of its own"
    try:
        values = yaml.safe_load(content.decode()) if len(content) <= _LARGEST else None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"{expected}; it is not YAML") from None
    if not isinstance(values, dict) or not set(values) <= {"username", "password"}:
        raise ConfigError(f"{expected}; it holds something else")
    if not all(isinstance(value, str) for value in values.values()):
        raise ConfigError(f"{expected}; a value is not text: put it in quotes")
    return values
