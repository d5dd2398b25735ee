"""Which ROS domain this process is in, and what one process at a time may have: claims."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ndp_ros.errors import ConfigError, describe

MAX_DOMAIN = 232
"""Above it, DDS runs out of port numbers."""


def domain_id(environment: Mapping[str, str] | None = None) -> int:
    """Return the value of ``ROS_DOMAIN_ID``, 0 if it is not set.

    Raises:
        ConfigError: If it is not a whole number from 0 to 232.
    """
    text = (os.environ if environment is None else environment).get("ROS_DOMAIN_ID", "") or "0"
    if text.isascii() and text.isdigit() and int(text) <= MAX_DOMAIN:
        return int(text)
    raise ConfigError(f"ROS_DOMAIN_ID is {text!r}, expected a whole number from 0 to {MAX_DOMAIN}")


class Held:
    """A claim, for as long as it is not closed and this process lives."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Give the claim up; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def claim(what: str, remedy: str = "end it first") -> Held:
    """Claim something that one process on this machine may have at a time.

    The claim is a lock on a file in a folder of this user's alone, so that nobody else can take
    it, fake it or make a process wait. However the process ends, the claim ends with it.

    Args:
        what: What is claimed, such as ``node /integrator_node in ROS domain 0``.
        remedy: What to do if another process has it.

    Raises:
        ConfigError: If another process has it, or the folder is not this user's alone.
    """
    name = hashlib.sha256(what.encode()).hexdigest()[:32]
    path = _private_folder() / name
    try:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{what} cannot be claimed: {describe(error)}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(held, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(held)
        raise ConfigError(f"{what} is in use by process {holder}: {remedy}") from None
    os.ftruncate(held, 0)
    os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
    return Held(held)


def claim_node(node: str) -> Held:
    """Claim the place of a node in this ROS domain on this machine.

    Args:
        node: Fully qualified name, such as ``/integrator_node``.

    Raises:
        ConfigError: If another process has it.
    """
    domain = domain_id()
    return claim(
        f"ROS domain {domain}: node {node}", "end it, or set ROS_DOMAIN_ID to another number"
    )


def _private_folder() -> Path:
    """Return a folder that is this user's alone; it is made if it is missing.

    Raises:
        ConfigError: If somebody else's stands in its place.
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
