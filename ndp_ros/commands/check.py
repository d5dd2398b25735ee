"""``ndp check``: find mistakes in configuration files and checkpoints before they cost time."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ndp_ros import checkpoint
from ndp_ros.config import from_mapping, read_yaml
from ndp_ros.errors import ConfigError, NdpError

_EPILOG = """\
The folder or the content of a file tells what it is: an arm (config/arms), a set of run-time
parameters (config/runtime), what stands around an arm (config/surroundings), an experiment
(config/experiments, runs/*/config.yaml) or a checkpoint folder. Exit status 0 only if all are
sound.

examples:
  ndp check config/arms/jaco.yaml
  ndp check config/*/*.yaml models/checkpoints/*
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="file or checkpoint")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Check every path and report each in a line."""
    found: dict[str, str] = {}
    for path in args.paths:
        try:
            what, problem = check(path), ""
        except NdpError as error:
            what, problem = "", " ".join(str(error).split())
            found[str(path)] = problem
        out = sys.stderr if problem or args.json else sys.stdout
        out.write(f"{path}: {problem or 'sound ' + what}\n")
    if args.json:
        report = {"checked": len(args.paths), "faulty": len(found), "faults": found}
        sys.stdout.write(json.dumps(report) + "\n")
    return 2 if found else 0


def check(path: Path) -> str:
    """Return what a file or folder is, if it is sound.

    Raises:
        NdpError: If it is not, or if nothing tells what it is meant to be.
    """
    if path.is_dir():
        if not (path / checkpoint.CONFIG).exists() and (path / "run.json").exists():
            return _writer(path)
        loaded = checkpoint.load(path)
        spec = loaded.spec
        return f"checkpoint {loaded.id}: {spec.method} for {spec.task} on {spec.arm}"
    values = read_yaml(path)
    for what, belongs, verify in _KINDS:
        if belongs(path, values):
            verify(path, values)
            return what
    raise ConfigError(f"{path}: neither an arm nor run-time parameters nor an experiment")


def _writer(path: Path) -> str:
    from ndp_ros.training.digits import load_writer

    return f"writer of digits: {load_writer(path).spec.head}"


def _arm(path: Path, values: dict[str, Any]) -> None:
    from ndp_ros.arms.arm import ArmConfig
    from ndp_ros.paths import share

    config = from_mapping(ArmConfig, values, source=str(path))
    share(config.model)


def _experiment(path: Path, values: dict[str, Any]) -> None:
    from ndp_ros.training.environment import parse_options
    from ndp_ros.training.experiment import RunConfig

    config = from_mapping(RunConfig, values, source=str(path))
    parse_options(config.task_options)


def _runtime(path: Path, values: dict[str, Any]) -> None:
    from ndp_ros.streaming.config import RuntimeConfig

    from_mapping(RuntimeConfig, values, source=str(path))


def _surroundings(path: Path, values: dict[str, Any]) -> None:
    from ndp_ros.surroundings import Surroundings

    from_mapping(Surroundings, values, source=str(path))


_Belongs = Callable[[Path, dict[str, Any]], bool]
_Verify = Callable[[Path, dict[str, Any]], None]
_KINDS: tuple[tuple[str, _Belongs, _Verify], ...] = (
    ("run-time parameters", lambda p, v: p.parent.name == "runtime" or "rate" in v, _runtime),
    ("surroundings of a task", lambda p, v: p.parent.name == "surroundings", _surroundings),
    ("arm", lambda p, v: p.parent.name == "arms" or "joint_names" in v, _arm),
    ("experiment", lambda p, v: p.parent.name == "experiments" or "ppo" in v or "method" in v,
     _experiment),
)  # fmt: skip
