# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp check``: validate configuration files and checkpoints without running them."""

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
from ndp_ros.config import fields_of, from_mapping
from ndp_ros.errors import ConfigError, NdpError, describe
from ndp_ros.files import read_yaml

if TYPE_CHECKING:
    from ndp_ros.tasks.choice import TaskChoice
    from ndp_ros.tasks.contract import TaskEnvironment

_EPILOG = """\
The kind of a file is recognised by its folder or its content: an arm (config/arms), run-time
parameters (config/runtime), objects around an arm (config/surroundings), an experiment
(config/experiments, runs/*/config.yaml) or a checkpoint folder. The exit status is 0 only if all
are sound.

examples:
  ndp check my_arm.yaml        # of an arm it also says what will be done with it
  ndp check config/*/*.yaml models/checkpoints/*
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="file or checkpoint")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Check every path and report each in one line."""
    faults: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for path in args.paths:
        try:
            title, *notes = check(path)
            line, out = f"sound {title}", sys.stderr if args.json else sys.stdout
            found[str(path)] = notes
        except (NdpError, OSError, RecursionError) as error:
            text = str(error) if isinstance(error, NdpError) else describe(error)
            line, out = " ".join(text.split()), sys.stderr
            faults[str(path)], notes = line, []
        out.write("\n  ".join([f"{path}: {line}", *([] if args.json else notes)]) + "\n")
    if args.json:
        counts = {"checked": len(args.paths), "faulty": len(faults)}
        report = {**counts, "faults": faults, "notes": found}
        sys.stdout.write(json.dumps(report) + "\n")
    return 2 if faults else 0


def check(path: Path) -> list[str]:
    """Validate a file or checkpoint folder and return a description of it, then notes.

    Raises:
        NdpError: If it is not sound, or of no known kind.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            "there is no such file or folder: name a file, such as config/arms/jaco.yaml, or a "
            "checkpoint folder"
        ) from error
    except OSError as error:
        raise ConfigError(f"it cannot be read ({error.strerror})") from error
    if stat.S_ISDIR(mode):
        if not (path / checkpoint.CONFIG).exists() and (path / "run.json").exists():
            return [_writer(path)]
        return [_checkpoint(path)]
    values = read_yaml(path)
    kind = _kind(path, values)
    return [kind.title, *kind.verify(path, values)]


@dataclass(frozen=True)
class _Kind:
    """A kind of configuration file.

    Attributes:
        title: Its name in reports.
        folder: Name of the folder of the files of this kind that ship.
        marks: Names that occur in files of this kind only.
        schema: ``module:class`` of its configuration.
        more: Function that does the work of :meth:`verify` where the schema is not enough.
    """

    title: str
    folder: str
    marks: tuple[str, ...]
    schema: str
    more: Callable[[Path, dict[str, Any]], list[str]] | None = None

    def fits(self, path: Path, values: dict[str, Any]) -> bool:
        """Whether the folder or a name in the file identifies this kind."""
        return path.absolute().parent.name == self.folder or bool(values.keys() & set(self.marks))

    @property
    def config(self) -> Any:
        """The class of its configuration."""
        module, _, name = self.schema.partition(":")
        return getattr(importlib.import_module(module), name)

    def known(self, values: dict[str, Any]) -> int:
        """Return the number of values that this kind has."""
        return len({p.name for p in fields_of(self.config)} & values.keys())

    def verify(self, path: Path, values: dict[str, Any]) -> list[str]:
        """Return notes on a file; raise NdpError if it is not sound."""
        if self.more is not None:
            return self.more(path, values)
        from_mapping(self.config, values, source=str(path))
        return []


def _kind(path: Path, values: dict[str, Any]) -> _Kind:
    """Return the kind of a file: by folder or mark, else the one that knows most of its names.

    Raises:
        ConfigError: If no kind knows more than half of the names.
    """
    for kind in _KINDS:
        if kind.fits(path, values):
            return kind
    likely = max(_KINDS, key=lambda kind: kind.known(values))
    if 2 * likely.known(values) <= len(values):
        raise ConfigError(f"{path}: neither an arm nor run-time parameters nor an experiment")
    return likely


def _checkpoint(path: Path) -> str:
    from ndp_ros.training.evaluate import require_fit, task_choice

    loaded = checkpoint.load(path)
    spec = loaded.spec
    env = _made(task_choice(loaded, [], path))
    if env is not None:
        try:
            require_fit(loaded, env)
        finally:
            env.close()
    return f"checkpoint {loaded.id}: {spec.method} for {spec.task} on {spec.arm}"


def _made(choice: TaskChoice) -> TaskEnvironment | None:
    """Make a task, to check its preset and options.

    Returns:
        None for a task of another package, whose code a check does not run, and for a benchmark
        that is not installed.

    Raises:
        NdpError: If there is no such task, or it refuses its preset or an option.
    """
    import gymnasium

    from ndp_ros.tasks.choice import environment_id, list_tasks

    name = environment_id(choice.task)
    if name not in list_tasks().values():
        return None
    benchmark = "metaworld" in str(gymnasium.registry[name].entry_point)
    if benchmark and importlib.util.find_spec("metaworld") is None:
        return None
    return choice.make()


def _writer(path: Path) -> str:
    from ndp_ros.paper.digits.training import load_writer

    return f"writer of digits: {load_writer(path).spec.head}"


def _arm(path: Path, values: dict[str, Any]) -> list[str]:
    from ndp_ros.arms.inspection import inspect
    from ndp_ros.control.arm import ArmConfig

    return inspect(from_mapping(ArmConfig, values, source=str(path)).beside(path))


def _experiment(path: Path, values: dict[str, Any]) -> list[str]:
    from ndp_ros.tasks.choice import list_tasks, parse_options
    from ndp_ros.training.config import RunConfig
    from ndp_ros.training.experiments import (
        combined,
        experiment_layers,
        is_experiment,
        listed_methods,
    )

    variants = [values]
    if is_experiment(values):
        task = {"task": path.stem} if path.stem in list_tasks() else {}
        variants = [
            {**combined(experiment_layers(path, method)), **task, "method": method}
            for method in listed_methods(path)
        ]
    for variant in variants:
        config = from_mapping(RunConfig, variant, source=str(path))
        parse_options(config.task_options)
        if "task" in variant and (env := _made(config.choice)) is not None:
            env.close()
    return []


_KINDS = (
    _Kind("run-time parameters", "runtime", ("rate",), "ndp_ros.streaming.config:RuntimeConfig"),
    _Kind("surroundings of a task", "surroundings", (), "ndp_ros.nodes.surroundings:Surroundings"),
    _Kind("arm", "arms", ("joint_names",), "ndp_ros.control.arm:ArmConfig", _arm),
    _Kind(
        "experiment",
        "experiments",
        ("ppo", "method", "methods"),
        "ndp_ros.training.config:RunConfig",
        _experiment,
    ),
)
