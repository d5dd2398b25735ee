"""Who logs in, from arguments, a file or the environment; never from a log."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ndp_ros.config import read_yaml
from ndp_ros.errors import ConfigError

USERNAME_VARIABLE = "NDP_KORTEX_USERNAME"
PASSWORD_VARIABLE = "NDP_KORTEX_PASSWORD"
FACTORY = "admin"
"""User name and password of an arm as it leaves the factory."""


@dataclass(frozen=True)
class Credentials:
    """A user name and a password that no representation shows."""

    username: str = field(default=FACTORY)
    password: str = field(default=FACTORY, repr=False)

    @classmethod
    def find(cls, username: str = "", password: str = "", file: str | Path = "") -> Self:
        """Return the credentials: what is given first, then the file, then the environment.

        Args:
            username: User name; empty to look further.
            password: Password; empty to look further.
            file: YAML file with ``username`` and ``password``; empty for none.

        Raises:
            ConfigError: If the file cannot be read, holds something else, or can be
                read by others.
        """
        stored: dict[str, str] = {}
        if file:
            path = Path(file).expanduser()
            stored = read_yaml(path)
            wrong = set(stored) - {"username", "password"}
            if wrong or not all(isinstance(value, str) for value in stored.values()):
                # Names alone: a value may be a password.
                raise ConfigError(
                    f"{path} holds {sorted(stored)}: allowed are username and password, as text"
                )
            if path.stat().st_mode & 0o077:
                raise ConfigError(f"{path} can be read by others: chmod 600 {path}")
        return cls(
            username or stored.get("username") or os.environ.get(USERNAME_VARIABLE) or FACTORY,
            password or stored.get("password") or os.environ.get(PASSWORD_VARIABLE) or FACTORY,
        )
