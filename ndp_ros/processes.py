# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Tie child processes to their parent, limit their threads, lock files, clean up after DDS nodes.

**Children.** A parent puts :func:`bound_to_this_process` into the environment of a child, and the
child calls :func:`terminate_with_parent`. Children of ``ros2 run`` and ``ros2 launch`` are bound
without it, because those leave their children running when SIGTERM ends them. A node that was
started in the background of a shell is not bound and survives the shell.

**Gate.** A parent that still checks whether its children may run passes them a :class:`Gate`. They
import their modules meanwhile, and wait there (:func:`may_start`).

**Shared memory.** Within one machine (``ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST``) Fast DDS
communicates through files in ``/dev/shm``. A process that exits removes its own; those of a killed
process stay until the next boot. Each file has a lock file, ``..._el``, which its owner holds while
it lives, even if it runs in another container. Ports that other processes opened to write to a
killed process have no lock; they are stale if no process maps them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ndp_ros.errors import LockedError

SINGLE_THREADED = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
"""Environment of a process whose matrix products are too small to be split between threads."""

SHARED_MEMORY = Path("/dev/shm")
_LOCK = "_el"
_PREFIXES = ("fastdds_", "fastrtps_")
"""File names of Fast DDS version 3 and of version 2 (Jazzy)."""
_MINIMUM_AGE = 2.0
"""Age from which a file that nobody has locked or mapped is stale [s]."""
_PARENT = "NDP_ENDS_WITH"
_GATE = "NDP_STARTS_WITH"
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while, for children started by ``multiprocessing``."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Delay SIGINT for this process, and block it for the children that it starts meanwhile.

    For the start of workers and for imports: the first import of MuJoCo runs a child process that
    prints its own traceback at Ctrl-C.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # The mask is this thread's and its children's; threads of libraries still take the signal.
    came: list[int] = []
    handled = threading.current_thread() is threading.main_thread()
    if handled:
        handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        if handled:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if came:
            signal.raise_signal(signal.SIGINT)


def lock_file(path: Path, mode: int) -> int:
    """Lock a file for this process and write the number of the process into it.

    A missing file is made with the permissions ``mode``. The kernel releases the lock when the
    process exits.

    Returns:
        The file descriptor, which holds the lock while it is open.

    Raises:
        LockedError: If another process holds the lock.
        OSError: If the file cannot be opened.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise LockedError(path, holder) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def bound_to_this_process() -> dict[str, str]:
    """Return the environment of a child that must not outlive this process."""
    return {_PARENT: str(os.getpid())}


def terminate_with_parent() -> bool:
    """Ask the kernel for SIGTERM when the parent exits, if this process is bound to it.

    Returns:
        Whether the parent has already exited.
    """
    parent = os.environ.pop(_PARENT, "")
    if not parent and _is_ros2(os.getppid()):
        parent = str(os.getppid())
    if not parent:
        return False
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return str(os.getppid()) != parent


class Gate:
    """A pipe that holds children back until their parent lets them start, or refuses.

    Its end, by :meth:`close` or with the parent, refuses.

    Attributes:
        entrance: The file descriptor that a child must inherit.
    """

    def __init__(self) -> None:
        """Make a closed gate."""
        self.entrance, self._exit = os.pipe()
        self._held = 0

    def environment(self) -> dict[str, str]:
        """Return the environment of one more child that waits here."""
        self._held += 1
        return {_GATE: str(self.entrance)}

    def open(self) -> None:
        """Let every child start."""
        os.write(self._exit, bytes(self._held))
        self._held = 0

    def close(self) -> None:
        """Refuse the start of those that still wait."""
        os.close(self._exit)
        os.close(self.entrance)


def may_start() -> bool:
    """Wait at the gate of the parent, if there is one; return whether this process may start."""
    gate = os.environ.pop(_GATE, "")
    if not gate:
        return True
    try:
        return os.read(int(gate), 1) != b""
    finally:
        os.close(int(gate))


def _is_ros2(pid: int) -> bool:
    """Whether a process is ``ros2 run`` or ``ros2 launch``."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return False
    # The interpreter comes first if ros2 is a script, and its options may come between.
    names = [Path(word).name for word in words[:4]]
    return "ros2" in names and ("run" in names or "launch" in names)


def remove_stale_shared_memory(folder: Path = SHARED_MEMORY) -> list[str]:
    """Remove the shared-memory files of this user's dead Fast DDS participants.

    Returns:
        Names of the removed files. Files that cannot be removed are skipped.
    """
    removed: list[str] = []
    for lock in sorted(path for prefix in _PREFIXES for path in folder.glob(f"{prefix}*{_LOCK}")):
        with contextlib.suppress(OSError), _opened(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            removed += _remove(folder, lock.name.removesuffix(_LOCK))
    ports = sorted(
        path
        for prefix in _PREFIXES
        for path in folder.glob(f"{prefix}port*")
        if not path.name.endswith(_LOCK)
        and not path.with_name(path.name + _LOCK).exists()
        and _is_old(path)
    )
    mapped = _mapped(folder) if ports else set()
    for port in ports:
        if port.name not in mapped:
            removed += _remove(folder, port.name)
    return removed


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open an old file of this user without blocking.

    Raises:
        OSError: If it is anything else, such as a pipe or another user's file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not _is_ours_and_old(os.fstat(descriptor)):
            raise OSError(errno.EPERM, "not this user's, or in use", str(path))
        yield descriptor
    finally:
        os.close(descriptor)


def _is_old(path: Path) -> bool:
    try:
        return _is_ours_and_old(path.lstat())
    except OSError:
        return False


def _is_ours_and_old(status: os.stat_result) -> bool:
    # The age is negative after the clock was set back; such a file is left for later.
    age = time.time() - status.st_mtime
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and age >= _MINIMUM_AGE


def _remove(folder: Path, name: str) -> list[str]:
    """Remove a file with its mutex and its lock; return the names of the removed ones."""
    removed = []
    for file in (folder / name, folder / f"sem.{name}_mutex", folder / (name + _LOCK)):
        with contextlib.suppress(OSError):
            if file.lstat().st_uid == os.geteuid():
                file.unlink()
                removed.append(file.name)
    return removed


def _mapped(folder: Path) -> set[str]:
    """Return the names of the files of a folder that any process has mapped."""
    names: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            for line in maps.read_text().splitlines():
                path = Path(f"/{line.partition('/')[2]}")
                if path.parent == folder:
                    names.add(path.name)
    return names
