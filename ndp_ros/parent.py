"""Processes that end with the one that started them, however that one ends.

Who starts them puts :func:`ends_with_me` into their environment; they call
:func:`end_with_parent`. So whoever starts a node by hand, in the background of a shell that
closes, is not meant.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator

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
    """Let the kernel send SIGTERM when the parent is gone, if it wants that.

    Returns:
        Whether it is gone already.
    """
    wanted = os.environ.pop(_VARIABLE, "")
    if not wanted:
        return False
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return str(os.getppid()) != wanted
