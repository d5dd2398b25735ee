# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Claim an arm or a node for this process, so that no second one on this machine drives it.

The integrator node claims what it drives, and bring-up checks that it is free.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ndp_ros.errors import ConfigError, LockedError, describe
from ndp_ros.processes import lock_file

MAX_DOMAIN = 232
"""Highest number for which DDS has ports."""


def domain_id(environment: Mapping[str, str] | None = None) -> int:
    """Return the value of ``ROS_DOMAIN_ID``, 0 if it is not set.

    Raises:
        ConfigError: If it is not a whole number from 0 to 232.
    """
    text = (os.environ if environment is None else environment).get("ROS_DOMAIN_ID", "") or "0"
    if text.isascii() and text.isdigit() and int(text) <= MAX_DOMAIN:
        return int(text)
    raise ConfigError(f"ROS_DOMAIN_ID is {text!r}, expected a whole number from 0 to {MAX_DOMAIN}")


class Claim:
    """A claim, valid until it is closed or the process exits."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Give the claim up; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def claim(what: str, remedy: str = "end it first") -> Claim:
    """Claim a resource that only one process on this machine may use at a time.

    The claim is a lock on a file in a private folder of this user, so that no other user can take
    it, fake it or block a process. The kernel releases it when the process exits.

    Args:
        what: Name of the resource, such as ``node /integrator_node in ROS domain 0``.
        remedy: Advice if another process has it.

    Raises:
        ConfigError: If another process has it, or the folder is not private.
    """
    name = hashlib.sha256(what.encode()).hexdigest()[:32]
    try:
        return Claim(lock_file(_private_folder() / name, 0o600))
    except LockedError as error:
        raise ConfigError(f"{what} is in use by process {error.holder}: {remedy}") from None
    except OSError as error:
        raise ConfigError(f"{what} cannot be claimed: {describe(error)}") from error


def claim_node(node: str) -> Claim:
    """Claim a node's full name, such as ``/integrator_node``, in this ROS domain on this machine.

    Raises:
        ConfigError: If another process has it.
    """
    domain = domain_id()
    return claim(
        f"ROS domain {domain}: node {node}", "end it, or set ROS_DOMAIN_ID to another number"
    )


def _private_folder() -> Path:
    """Return a folder that only this user can access, and make it if it is missing.

    Raises:
        ConfigError: If its path is another user's folder, or no folder.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    uid = os.geteuid()
    folder = Path(base) / "ndp_ros" if base and _is_private(Path(base), uid) else None
    folder = folder or Path(tempfile.gettempdir()) / f"ndp_ros-{uid}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700)
    if not _is_private(folder, uid):
        raise ConfigError(
            f"{folder} is not a folder of this user's alone: remove it, or set XDG_RUNTIME_DIR"
        )
    return folder


def _is_private(folder: Path, uid: int) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077
