"""Where the configuration, the models and the checkpoints lie.

The same relative names work in a source tree, after ``pip install`` and after
``colcon build``: the last two put the folders into ``share/ndp_ros``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ndp_ros.errors import ConfigError, describe

_SOURCE = Path(__file__).resolve().parent.parent


def share_roots() -> list[Path]:
    """Return the folders that are searched for ``config/`` and ``models/``, best first."""
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    roots = [_SOURCE] if (_SOURCE / "models").is_dir() else []
    roots += [Path(prefix) / "share" / "ndp_ros" for prefix in (*prefixes, sys.prefix)]
    return roots


def share(relative: str) -> Path:
    """Return the path of a file or folder that ships with the package.

    Args:
        relative: For example ``"config/arms/jaco.yaml"`` or ``"models/jaco.xml"``.

    Raises:
        ConfigError: If no root has it.
    """
    for root in share_roots():
        if (root / relative).exists():
            return root / relative
    searched = ", ".join(str(root) for root in share_roots())
    raise ConfigError(f"{relative} is not part of this installation (searched {searched})")


def find_checkpoint(name: str | Path) -> Path:
    """Return a checkpoint's folder, given as a path, as a run, or as the name of one that ships.

    Of a run it is the best of its checkpoints.

    Raises:
        ConfigError: If it is neither; the message lists those that ship.
    """
    try:
        if str(name) and Path(name).is_dir():
            best = Path(name) / "checkpoints" / "best"
            if best.is_dir() and not (Path(name) / "config.json").exists():
                return best.resolve()
            return Path(name).resolve()
    except (OSError, ValueError) as error:
        raise ConfigError(f"no checkpoint {describe(error)}") from error
    shipped: dict[str, Path] = {}
    for root in reversed(share_roots()):
        shipped |= {
            path.parent.name: path.parent for path in root.glob("models/checkpoints/*/config.json")
        }
    if str(name) in shipped:
        return shipped[str(name)]
    listed = ", ".join(sorted(shipped)) or "none"
    if not str(name):
        raise ConfigError(f"no name of a checkpoint: name a folder, or one that ships ({listed})")
    raise ConfigError(f"no checkpoint folder {name}, and none of that name ships (those: {listed})")
