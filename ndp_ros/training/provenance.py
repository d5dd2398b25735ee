# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Provenance of results: commit, versions, machine and command."""

from __future__ import annotations

import functools
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ndp_ros import __version__
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.methods import HELD, METHODS

_FOLDERS = ("--out", "--runs")
_VERSIONS = ("numpy", "mujoco", "pin", "gymnasium", "torch", "safetensors")


def observed(origin: Mapping[str, Any], spec: PolicySpec) -> int:
    """Return the number of different observations that a checkpoint was trained on.

    Where one action lasts several control steps, ``spec.k`` is 1.
    """
    samples, config = int(origin.get("samples", 0)), origin.get("config") or {}
    method = METHODS.get(config.get("method", ""))
    if method is not None and method.learner == "imitation":
        return samples // (spec.k * int(config["bc"]["passes"]))
    held = method is not None and method.timing == HELD
    return samples // int(config["k"] if held else spec.k)


def as_typed(arguments: Sequence[str]) -> str:
    """Return an ``ndp`` command for the record, without the output folders of this machine."""
    words = ["ndp"]
    skip = False
    for word in arguments:
        if not skip and word.partition("=")[0] not in _FOLDERS:
            words.append(word)
        skip = word in _FOLDERS
    return shlex.join(words)


def provenance() -> dict[str, Any]:
    """Return commit, versions and machine of this process."""
    return {
        "ndp_ros": __version__,
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _VERSIONS},
        },
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "architecture": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
        },
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


@functools.cache
def _commit() -> str:
    """Return the commit of the source tree, with ``-dirty`` if files differ from it.

    Git is asked once, because later changes on disk do not change the running code. The commit of
    another project's repository, in which an installed copy may lie, is not returned.
    """
    root = Path(__file__).resolve().parents[2]
    answers = []
    for question in ("rev-parse --show-toplevel", "describe --always --abbrev=40 --dirty"):
        command = ["git", "-C", str(root), *question.split()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return "unknown"
        answers.append(done.stdout.strip())
    top, commit = answers
    return commit if Path(top).resolve() == root else "unknown"
