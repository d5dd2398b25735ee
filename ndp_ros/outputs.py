"""Where commands write: looked at before the work, so that no result is lost at its end.

The rule is the same for all: folders that are missing are made, when something is written.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ndp_ros.errors import ConfigError
from ndp_ros.whole import write_whole


def require_file(path: Path, option: str, endings: Sequence[str] = ()) -> None:
    """Check that a file can be written, without touching anything.

    Args:
        path: The file; an existing one will be replaced.
        option: How the user knows it.
        endings: Endings that it may have, with their dot; any if there are none.

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

    Args:
        path: The folder.
        option: How the user knows it.

    Raises:
        ConfigError: If it cannot.
    """
    if not path.name:
        raise ConfigError(f"{option} is {str(path)!r}: name a new folder")
    _require_room(path, path, option)


def write_output(path: Path, data: str | bytes) -> None:
    """Write a file in one step, in a folder that is made if it is missing.

    Args:
        path: The file.
        data: What it holds; text in UTF-8.

    Raises:
        OSError: If the disk refuses; what was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)


def _require_room(folder: Path, path: Path, option: str) -> None:
    """Check the nearest folder that is there, in which the others would be made."""
    there = next(f for f in (folder, *folder.absolute().parents) if f.exists() or f.is_symlink())
    if not there.is_dir():
        raise ConfigError(f"{option} is {str(path)!r}, but {there} is no folder: name another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{option} is {str(path)!r}, but {there} may not be written to")
