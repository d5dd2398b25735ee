"""Files that are there as a whole or as they were: nobody reads, or is left with, a half."""

from __future__ import annotations

import contextlib
from pathlib import Path


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file in one step; an existing one is replaced.

    Args:
        path: The file; its folder must exist.
        data: What it holds; text in UTF-8.

    Raises:
        OSError: If the disk refuses; what was there before is untouched.
    """
    scratch = path.with_name(f".{path.name}.new")
    try:
        scratch.write_bytes(data.encode() if isinstance(data, str) else data)
        scratch.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise
