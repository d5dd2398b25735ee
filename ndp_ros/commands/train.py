"""``ndp train``: train a policy, one seed or several."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ndp_ros.config import add_arguments, from_mapping, parameters, read_yaml
from ndp_ros.errors import TrainingError
from ndp_ros.training.distributed import alone, assist, joined
from ndp_ros.training.environment import over_options
from ndp_ros.training.experiment import (
    LEARN_ALONE,
    NESTED,
    RunConfig,
    as_typed,
    merge,
    shipped_values,
)

_EPILOG = """\
Values come from, in this order: the defaults below, the shipped
config/experiments/TASK-METHOD.yaml if there is one, --config, and the flags. Task options
come from all of these, each by its name: one that is not named again stays as it was.

examples:
  ndp train throw --method ndp --seed 0
  ndp train throw --method ndp --seed 0 --resume                # with the flags as they were
  ndp train throw --config runs/throw-ndp-0/config.yaml --resume   # or with the run's own file
  ndp train throw --method ppo --seeds 0 1 2 --out runs/throw-ppo
  ndp train throw --method bc-ndp --demonstrations throws.safetensors
  ndp train throw --config my.yaml --learning-rate 1e-4 --task-options moving_bin=true
  ndp train throw --task-options latency=0       # without the 0.02 that ship for Throw
  torchrun --nproc-per-node 4 -m ndp_ros.cli train push --workers 2   # one run, many processes
"""

_OPTIONS = "task_options"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("task", help="task: throw, or any gymnasium id (module:id)")
    parser.add_argument("--config", type=Path, metavar="YAML", help="file with any of the fields")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="run directory (default: runs/TASK-METHOD-SEED)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="SEED",
        help="several seeds, each in its own directory, one core each",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    add_arguments(parser, RunConfig, skip=("task",))
    for cls in NESTED.values():
        add_arguments(parser, cls)


def main(args: argparse.Namespace) -> int:
    """Train and say where the checkpoint is."""
    if args.seeds and "seed" in args:
        raise TrainingError(
            f"--seed {args.seed} beside --seeds {' '.join(map(str, args.seeds))}: give one of them"
        )
    config = read_config(args)
    command = as_typed(sys.argv[1:])
    if not alone():
        return _as_one_of_many(args, config, command)
    if args.seeds:
        from ndp_ros.training.seeds import train_seeds

        return train_seeds(config, args.seeds, args.out, args.resume, command)
    return _train(args, config, command)


def _as_one_of_many(args: argparse.Namespace, config: RunConfig, command: str) -> int:
    """Learn as the first process of torchrun, step environments as any other."""
    if args.seeds or config.method in LEARN_ALONE:
        raise TrainingError("torchrun is for one run by PPO: neither --seeds nor other methods")
    with joined() as rank:
        return assist() if rank else _train(args, config, command)


def _train(args: argparse.Namespace, config: RunConfig, command: str) -> int:
    from ndp_ros.training.directory import interrupted
    from ndp_ros.training.run import train

    folder = args.out or Path("runs") / config.name
    try:
        last = train(config, folder, args.resume, command, args.quiet)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(interrupted(folder, config)) from None
    sys.stderr.write(f"last checkpoint: {last}\nbest checkpoint: {last.parent / 'best'}\n")
    return 0


def read_config(args: argparse.Namespace) -> RunConfig:
    """Return the configuration that files and flags add up to.

    Raises:
        ConfigError: If a file or a value does not fit.
    """
    given = {p.name: getattr(args, p.name) for p in parameters(RunConfig) if p.name in args}
    given.update({
        name: {p.name: getattr(args, p.name) for p in parameters(cls) if p.name in args}
        for name, cls in NESTED.items()
    })  # fmt: skip
    mine = read_yaml(args.config) if args.config is not None else {}
    method = given.get("method", mine.get("method", RunConfig().method))
    # A file with every field, such as a run's own, is what it says and has nothing beneath it.
    whole = {p.name for p in parameters(RunConfig)} <= mine.keys()
    shipped = {} if whole else shipped_values(args.task, str(method))
    values: dict[str, Any] = {}
    for layer, source in ((shipped, "shipped"), (mine, str(args.config)), (given, "")):
        if _OPTIONS in layer:
            layer[_OPTIONS] = over_options(values.get(_OPTIONS, ()), layer[_OPTIONS])
        values = merge(values, layer, source)
    values["task"] = args.task
    return from_mapping(RunConfig, values, source=str(args.config or ""))
