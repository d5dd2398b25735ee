"""Shared memory that a killed ROS process leaves behind, and its removal.

Within one machine (``ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST``) Fast DDS talks through files
in ``/dev/shm``, whatever transports were asked for. A process that ends removes its own; of
one that was killed they stay until the machine is switched off.

Beside a file lies a lock, ``..._el``, that its owner holds for as long as it lives: one that
can be had belongs to nobody any more, also where the owner ran in another container. Ports
that others opened to write to one that was killed have no lock; these belong to nobody if
no process has them in its memory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
_LOCK = "_el"
_PREFIXES = ("fastdds_", "fastrtps_")
"""How Fast DDS names its files, in version 3 and in version 2 (Jazzy)."""
_SETTLED = 2.0
"""What is younger than this may not have been locked yet, or not been opened [s]."""


def clear_leftovers(folder: Path = SHARED_MEMORY) -> list[str]:
    """Remove the shared memory of this user's DDS participants that are no more.

    Args:
        folder: Where shared memory lies.

    Returns:
        Names of the removed files. What cannot be removed is left without a word.
    """
    removed: list[str] = []
    for lock in sorted(path for prefix in _PREFIXES for path in folder.glob(f"{prefix}*{_LOCK}")):
        with contextlib.suppress(OSError), _opened(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            removed += _remove(folder, lock.name.removesuffix(_LOCK))
    ports = [
        path
        for prefix in _PREFIXES
        for path in folder.glob(f"{prefix}port*")
        if not path.name.endswith(_LOCK)
    ]
    ports = [p for p in ports if not p.with_name(p.name + _LOCK).exists() and _settled(p)]
    if ports:
        used = _in_memory(folder)
        for port in sorted(ports):
            if port.name not in used:
                removed += _remove(folder, port.name)
    return removed


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a file of this user's that is old enough; anything else is not waited for.

    Raises:
        OSError: If it is something else, such as another user's pipe.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not _ours(os.fstat(descriptor)):
            raise OSError(errno.EPERM, "not this user's, or in use", str(path))
        yield descriptor
    finally:
        os.close(descriptor)


def _settled(file: Path) -> bool:
    """Whether a file is this user's and old enough."""
    try:
        return _ours(file.lstat())
    except OSError:
        return False


def _ours(made: os.stat_result) -> bool:
    # Files are younger than a clock that was set back; such a file is left for later.
    age = time.time() - made.st_mtime
    return stat.S_ISREG(made.st_mode) and made.st_uid == os.geteuid() and age >= _SETTLED


def _remove(folder: Path, name: str) -> list[str]:
    removed = []
    for left in (name, f"sem.{name}_mutex", name + _LOCK):
        with contextlib.suppress(OSError):
            if (folder / left).lstat().st_uid == os.geteuid():
                (folder / left).unlink()
                removed.append(left)
    return removed


def _in_memory(folder: Path) -> set[str]:
    """Return the names of the files of a folder that some process has in its memory."""
    names: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            for line in maps.read_text().splitlines():
                path = line.partition("/")
                where = Path(path[1] + path[2])
                if where.parent == folder:
                    names.add(where.name)
    return names
