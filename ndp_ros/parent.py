"""Processes that end with the one that started them, however that one ends.

Who starts them puts :func:`ends_with_me` into their environment; they call
:func:`end_with_parent`. ``ros2 run`` and ``ros2 launch``, which leave their children running
when they are ended by SIGTERM, count as having asked for it. A node that a shell starts in the
background goes on when the shell closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path

_VARIABLE = "NDP_ENDS_WITH"
_PR_SET_PDEATHSIG = 1


def ends_with_me() -> dict[str, str]:
    """Return what the environment of a child gets that must not outlive this process."""
    return {_VARIABLE: str(os.getpid())}


@contextlib.contextmanager
def starting_what_ends_with_me() -> Iterator[None]:
    """Hand the wish on by this process's own environment, as ``multiprocessing`` needs it."""
    before = os.environ.get(_VARIABLE)
    os.environ.update(ends_with_me())
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def end_with_parent() -> bool:
    """Let the kernel send SIGTERM when the parent is gone, if it asked for that.

    Returns:
        Whether it is gone already.
    """
    wanted = os.environ.pop(_VARIABLE, "")
    if not wanted and is_ros2(parent := os.getppid()):
        wanted = str(parent)
    if not wanted:
        return False
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return str(os.getppid()) != wanted


def is_ros2(pid: int) -> bool:
    """Return whether a process is ``ros2 run`` or ``ros2 launch``."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return False
    # The interpreter comes first where ros2 is a script, and options may stand between.
    names = [Path(word).name for word in words[:4]]
    return "ros2" in names and ("run" in names or "launch" in names)
