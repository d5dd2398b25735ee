# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Locate the configuration, model and checkpoint files that ship with the package.

Names relative to the share folder are the same in a source tree, after ``pip install`` and after
``colcon build``; the last two install the files to ``share/ndp_ros``.
"""

from __future__ import annotations

import difflib
import os
import sys
from pathlib import Path

from ndp_ros.errors import ConfigError, describe

_SOURCE = Path(__file__).resolve().parent.parent


def share_roots() -> list[Path]:
    """Return the folders that are searched for ``config/`` and ``models/``, in order."""
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    roots = [_SOURCE] if (_SOURCE / "models").is_dir() else []
    roots += [Path(prefix) / "share" / "ndp_ros" for prefix in (*prefixes, sys.prefix)]
    return roots


def share(relative: str) -> Path:
    """Return the path of a file or folder that ships with the package.

    Args:
        relative: Its name in the share folder, such as ``"config/arms/jaco.yaml"``.

    Raises:
        ConfigError: If it is not installed.
    """
    for root in share_roots():
        if (root / relative).exists():
            return root / relative
    searched = ", ".join(str(root) for root in share_roots())
    raise ConfigError(f"{relative} is not part of this installation (searched {searched})")


def find_checkpoint(name: str | Path) -> Path:
    """Return the folder of a checkpoint.

    Args:
        name: A checkpoint folder, a run directory (its best checkpoint is taken), or the name of a
            checkpoint that ships, such as ``"jaco_throw"``.

    Raises:
        ConfigError: If there is no such checkpoint; the message lists those that ship.
    """
    try:
        if str(name) and Path(name).is_dir():
            best = Path(name) / "checkpoints" / "best"
            is_run = best.is_dir() and not (Path(name) / "config.json").exists()
            return (best if is_run else Path(name)).resolve()
    except (OSError, ValueError) as error:
        raise ConfigError(f"no checkpoint {describe(error)}") from error
    shipped = {
        path.parent.name: path.parent
        for root in reversed(share_roots())
        for path in root.glob("models/checkpoints/*/config.json")
    }
    if str(name) in shipped:
        return shipped[str(name)]
    listed = ", ".join(sorted(shipped)) or "none"
    if not str(name):
        raise ConfigError(f"checkpoint is '': name a folder, or one that ships ({listed})")
    near = difflib.get_close_matches(str(name), shipped, 1)
    meant = f": did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"no checkpoint folder {name}, and none of that name ships (those: {listed}){meant}"
    )
