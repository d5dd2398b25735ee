# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp train``: train a policy, one seed or several."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ndp_ros.commands.arguments import OneLineParser, add_arm, positive, take_arm
from ndp_ros.config import add_arguments, fields_of, from_mapping, nest
from ndp_ros.errors import TrainingError
from ndp_ros.files import read_yaml
from ndp_ros.policies.spec import PolicyShape
from ndp_ros.processes import interrupts_blocked
from ndp_ros.training import experiments
from ndp_ros.training.config import RunConfig
from ndp_ros.training.provenance import as_typed

_EPILOG = """\
Values come from the defaults below, the shipped config/experiments/TASK.yaml, --config and the
flags; later ones win, task options name by name. 'ndp config' shows the values in force.

examples:
  ndp train throw --method ndp --seed 0
  ndp train throw --method ndp --seed 0 --resume                # the flags must be unchanged
  ndp train throw --config runs/throw-ndp-0/config.yaml --resume   # or use the run's own file
  ndp train throw --method ppo --seeds 0 1 2 --out runs/throw-ppo
  ndp train throw --method bc-ndp --k 10 --demonstrations throws.safetensors
  ndp train throw --config my.yaml --learning-rate 1e-4 --task-options moving_bin=true
  ndp train throw --task-options latency=0       # in place of the shipped 0.02
  WANDB_MODE=offline ndp train throw --track wandb --film-every 10
  ndp train reach --arm my_arm.yaml --method bc-ndp --demonstrations reach.safetensors
  torchrun --nproc-per-node 4 -m ndp_ros.cli train push --workers 2   # one run, many processes
"""


TRACKERS, FILMS = ("wandb",), "films"
COMMON = (
    *("method", "seed", "seeds", "samples", "config", "out", "resume"),
    *("preset", "task_options", "k", "workers", "device", "demonstrations", "start_from", "track"),
)
"""Options that ``--help`` shows; ``--help-all`` shows the others too."""


def configure(parser: OneLineParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    add_config_arguments(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="run directory (default: runs/TASK-METHOD-SEED)"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        metavar="SEED",
        help="several seeds, each in its own directory, one core each",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--track", choices=TRACKERS, default="", help="report to Weights & Biases as well"
    )
    parser.add_argument(
        "--film-every",
        type=positive,
        default=0,
        metavar="N",
        help=f"film an episode at every N-th evaluation, into {FILMS}/ of the run",
    )
    parser.abridge((*COMMON, "film_every"))


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the task, ``--config`` and a flag for each option of a run."""
    parser.add_argument("task", help="task: throw, or any gymnasium id (module:id)")
    parser.add_argument("--config", type=Path, metavar="YAML", help="file with any of the options")
    shape = [p.name for p in fields_of(PolicyShape)]
    add_arguments(parser, RunConfig, skip=("task", *shape))
    add_arguments(parser, PolicyShape)
    add_arm(parser)


def main(args: argparse.Namespace) -> int:
    """Train and print the paths of the checkpoints."""
    if args.seeds and "seed" in args:
        raise TrainingError(
            f"--seed {args.seed} beside --seeds {' '.join(map(str, args.seeds))}: give one of them"
        )
    config = read_config(args)
    command = as_typed(sys.argv[1:])
    from ndp_ros.training.distributed import is_single

    if not is_single():
        return _as_one_of_many(args, config, command)
    if args.seeds:
        from ndp_ros.training.seeds import train_seeds

        watching = args.track, args.film_every
        return train_seeds(config, args.seeds, args.out, args.resume, command, watching)
    return _train(args, config, command)


def _as_one_of_many(args: argparse.Namespace, config: RunConfig, command: str) -> int:
    """Learn as rank 0 of torchrun; as any other rank step environments."""
    if args.seeds or config.row.learner != "ppo":
        raise TrainingError("torchrun runs one training by PPO: neither --seeds nor other methods")
    from ndp_ros.training.distributed import assist, joined

    with joined() as rank:
        return assist() if rank else _train(args, config, command)


def _train(args: argparse.Namespace, config: RunConfig, command: str) -> int:
    with interrupts_blocked():
        from ndp_ros.training.directory import interrupted
        from ndp_ros.training.run import train
        from ndp_ros.training.tracking import watched

    folder = args.out or Path("runs") / config.name
    try:
        with watched(config, folder, args.track, args.film_every) as watch:
            last = train(config, folder, args.resume, command, args.quiet, watch)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(interrupted(folder, config)) from None
    sys.stderr.write(f"last checkpoint: {last}\nbest checkpoint: {last.parent / 'best'}\n")
    return 0


def read_layers(args: argparse.Namespace) -> list[experiments.Layer]:
    """Return the values of shipped files, ``--config`` and flags; later layers win.

    Raises:
        ConfigError: If a file cannot be read.
    """
    take_arm(args)
    given = nest(RunConfig, vars(args))
    mine = read_yaml(args.config) if args.config is not None else {}
    method = str(given.get("method", mine.get("method", RunConfig().method)))
    # A file with every field, such as the config.yaml of a run, replaces the shipped values.
    whole = {p.name for p in fields_of(RunConfig)} <= mine.keys()
    noise = str(given.get("noise", experiments.noise_in(mine, method)))
    found = [] if whole else experiments.shipped_layers(args.task, method, noise)
    if experiments.is_experiment(mine):
        noise = noise or str(experiments.combined(found).get("noise", ""))
        found += experiments.experiment_layers(args.config, method, noise)
    elif mine:
        found.append(experiments.Layer(str(args.config), mine))
    return [*found, experiments.Layer("command line", given)]


def read_config(args: argparse.Namespace) -> RunConfig:
    """Return the configuration of a run from files and flags.

    Raises:
        ConfigError: If a file cannot be read or a value does not fit.
    """
    return from_mapping(
        RunConfig, experiments.combined(read_layers(args)), source=str(args.config or "")
    )
