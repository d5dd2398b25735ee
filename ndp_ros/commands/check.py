"""``ndp check``: find mistakes in configuration files and checkpoints before they cost time."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_ros import checkpoint
from ndp_ros.config import from_mapping, parameters, read_yaml
from ndp_ros.errors import ConfigError, NdpError, describe

if TYPE_CHECKING:
    from ndp_ros.training.environment import TaskChoice, TaskEnvironment

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
        except (NdpError, OSError, RecursionError) as error:
            if not isinstance(error, NdpError):
                error = ConfigError(describe(error))
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
    try:
        kind_of_file = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            "there is no such file or folder: name a file, such as config/arms/jaco.yaml, or a "
            "checkpoint folder"
        ) from error
    except OSError as error:
        raise ConfigError(f"it cannot be looked at ({error.strerror})") from error
    if stat.S_ISDIR(kind_of_file):
        if not (path / checkpoint.CONFIG).exists() and (path / "run.json").exists():
            return _writer(path)
        return _checkpoint(path)
    values = read_yaml(path)
    kind = _kind(path, values)
    kind.verify(path, values)
    return kind.what


@dataclass(frozen=True)
class _Kind:
    """A kind of file.

    Attributes:
        what: Its name.
        folder: Where such files lie.
        signs: Names that no other kind has, any of which tells it.
        module: Module and name of its configuration.
        verify: What raises an error if a file is not sound.
    """

    what: str
    folder: str
    signs: tuple[str, ...]
    module: tuple[str, str]
    verify: Callable[[Path, dict[str, Any]], None]

    def known(self, values: dict[str, Any]) -> int:
        """Return how many of the values it has."""
        module, name = self.module
        config = getattr(importlib.import_module(module), name)
        return len({p.name for p in parameters(config)} & values.keys())


def _kind(path: Path, values: dict[str, Any]) -> _Kind:
    """Return what a file is by its folder or its names, of which most must be known.

    Raises:
        ConfigError: If neither tells.
    """
    for kind in _KINDS:
        if path.absolute().parent.name == kind.folder or values.keys() & set(kind.signs):
            return kind
    likely = max(_KINDS, key=lambda kind: kind.known(values))
    if 2 * likely.known(values) <= len(values):
        raise ConfigError(f"{path}: neither an arm nor run-time parameters nor an experiment")
    return likely


def _checkpoint(path: Path) -> str:
    from ndp_ros.commands.evaluate import require_fit, task_of

    loaded = checkpoint.load(path)
    spec = loaded.spec
    env = _made(task_of(loaded, [], path))
    if env is not None:
        try:
            require_fit(loaded, env)
        finally:
            env.close()
    return f"checkpoint {loaded.id}: {spec.method} for {spec.task} on {spec.arm}"


def _made(choice: TaskChoice) -> TaskEnvironment | None:
    """Return a task of this package; None for others, whose code a check does not run.

    A benchmark that is not installed makes nothing unsound either.

    Raises:
        NdpError: If there is no such task, or it refuses its preset or an option.
    """
    import gymnasium

    from ndp_ros.training.environment import environment_id, task_ids

    name = environment_id(choice.task)
    if name not in task_ids().values():
        return None
    benchmark = "metaworld" in str(gymnasium.registry[name].entry_point)
    if benchmark and importlib.util.find_spec("metaworld") is None:
        return None
    return choice.make()


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

    values = {**_called_after(path), **values}
    config = from_mapping(RunConfig, values, source=str(path))
    parse_options(config.task_options)
    if "task" in values and (env := _made(config.choice)) is not None:
        env.close()


def _called_after(path: Path) -> dict[str, str]:
    """Return the task and the method that an experiment's file has in its name, if it has."""
    from ndp_ros.training.environment import task_ids
    from ndp_ros.training.experiment import METHODS

    tasks = [t for t in task_ids() if path.stem == t or path.stem.startswith(f"{t}-")]
    if path.absolute().parent.name != "experiments" or not tasks:
        return {}
    task = max(tasks, key=len)
    methods = [m for m in METHODS if path.stem.endswith(f"-{m}")]
    return {"task": task, **({"method": max(methods, key=len)} if methods else {})}


def _runtime(path: Path, values: dict[str, Any]) -> None:
    from ndp_ros.streaming.config import RuntimeConfig

    from_mapping(RuntimeConfig, values, source=str(path))


def _surroundings(path: Path, values: dict[str, Any]) -> None:
    from ndp_ros.surroundings import Surroundings

    from_mapping(Surroundings, values, source=str(path))


_KINDS = (
    _Kind("run-time parameters", "runtime", ("rate",),
          ("ndp_ros.streaming.config", "RuntimeConfig"), _runtime),
    _Kind("surroundings of a task", "surroundings", (),
          ("ndp_ros.surroundings", "Surroundings"), _surroundings),
    _Kind("arm", "arms", ("joint_names",), ("ndp_ros.arms.arm", "ArmConfig"), _arm),
    _Kind("experiment", "experiments", ("ppo", "method"),
          ("ndp_ros.training.experiment", "RunConfig"), _experiment),
)  # fmt: skip
