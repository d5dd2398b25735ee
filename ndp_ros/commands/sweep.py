# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp sweep``: search values of any options of a run with Optuna, in a study that resumes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ndp_ros.commands.arguments import OneLineParser, positive
from ndp_ros.commands.train import COMMON, add_config_arguments, read_layers
from ndp_ros.config import Field, from_mapping, leaves, nest
from ndp_ros.errors import TrainingError
from ndp_ros.files import require_folder
from ndp_ros.training.config import RunConfig
from ndp_ros.training.experiments import Layer, combined
from ndp_ros.training.logs import COLUMNS
from ndp_ros.training.provenance import as_typed

if TYPE_CHECKING:
    import optuna

_EPILOG = """\
Every option of 'ndp train' can be searched, by its name. A range is LOW..HIGH, on a logarithmic
scale with :log at its end; values to choose from are listed with commas. Other options hold for
all trials. The study is DIR/study.db: the same command goes on where it stopped, and several at
a time share the work. Trials that fall behind the median of the others are ended early.

examples:
  ndp sweep throw --over learning-rate=1e-5..1e-3:log k=3,5,10 --samples 200000 --trials 30
  ndp sweep hover:Hover-v0 --config hover.yaml --over alpha=2..25 --trials 10 --out runs/alpha
  ndp train throw --config runs/throw-ndp-sweep/trial-0007/config.yaml --out runs/best
"""
STUDY = "study.db"


def configure(parser: OneLineParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    add_config_arguments(parser)
    parser.add_argument(
        "--over", nargs="+", required=True, metavar="NAME=RANGE", help="options to search"
    )
    parser.add_argument("--trials", type=positive, default=20, help="in all (default: 20)")
    parser.add_argument(
        "--figure", default="eval_success", help="column to maximise (default: eval_success)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder (default: runs/TASK-METHOD-sweep)"
    )
    parser.abridge(("over", "trials", "figure", *COMMON))


def main(args: argparse.Namespace) -> int:
    """Run the trials that are left and print the best of all."""
    layers = read_layers(args)
    fixed = from_mapping(RunConfig, combined(layers))
    dimensions = [dimension(text) for text in args.over]
    if args.figure not in COLUMNS:
        raise TrainingError.choice("--figure", args.figure, COLUMNS)
    folder = args.out or Path("runs") / f"{fixed.name.rpartition('-')[0]}-sweep"
    require_folder(folder, "--out")
    folder.mkdir(parents=True, exist_ok=True)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # an error is one line, and ours
    study = optuna.create_study(
        storage=f"sqlite:///{folder / STUDY}",
        study_name=f"{fixed.task} {fixed.method} {args.figure}",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=fixed.seed),
        load_if_exists=True,
    )

    def objective(trial: optuna.Trial) -> float:
        values = {d.name: d.suggest(trial) for d in dimensions}
        layer = Layer("sweep", nest(RunConfig, values))
        config = from_mapping(RunConfig, combined([*layers, layer]))
        return _run(trial, config, _folder(folder, trial), args.figure)

    def tell(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        text = "ended early" if trial.value is None else f"{trial.value:.4g}"
        sys.stderr.write(f"trial {trial.number}: {text}  {trial.params}\n")

    ended = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED
    stop = optuna.study.MaxTrialsCallback(args.trials, states=ended)
    if len(study.get_trials(deepcopy=False, states=ended)) < args.trials:
        study.optimize(objective, callbacks=[tell, stop])
    for trial in _ranked(study)[:5]:
        sys.stdout.write(f"{trial.value:.4g}  {_folder(folder, trial)}  {trial.params}\n")
    return 0


@dataclass(frozen=True)
class Dimension:
    """An option and the values that trials draw for it."""

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def suggest(self, trial: optuna.Trial) -> Any:
        """Draw a value."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


def dimension(text: str) -> Dimension:
    """Read ``NAME=LOW..HIGH``, ``NAME=LOW..HIGH:log`` or ``NAME=A,B,C``.

    Raises:
        TrainingError: If there is no such option, or the range is none.
    """
    name, _, values = text.partition("=")
    name = name.replace("-", "_")
    options: dict[str, Field] = {p.name: p for p in leaves(RunConfig)}
    if name not in options:
        raise TrainingError.choice("--over", name, options)
    ends, _, scale = values.partition(":")
    low, dots, high = ends.partition("..")
    if not dots:
        choices = tuple(yaml.safe_load(part) for part in values.split(","))
        if len(choices) < 2:
            raise TrainingError(f"--over {text}: expected LOW..HIGH, or values with commas")
        return Dimension(name, choices)
    try:
        bounds = float(low), float(high)
    except ValueError:
        bounds = 1.0, 0.0
    if scale not in ("", "log") or not bounds[0] < bounds[1] or (scale and bounds[0] <= 0.0):
        raise TrainingError(f"--over {text}: expected LOW..HIGH with LOW < HIGH, for :log over 0")
    return Dimension(name, (), *bounds, log=scale == "log", whole=options[name].type is int)


def _run(trial: optuna.Trial, config: RunConfig, folder: Path, figure: str) -> float:
    """Train one trial and return its figure at the last evaluation."""
    import optuna

    from ndp_ros.training.run import train

    values: list[float] = []

    def watch(row: Mapping[str, Any]) -> None:
        if row.get("eval_success") is not None and row.get(figure) is not None:
            values.append(float(row[figure]))
            trial.report(values[-1], int(row["samples"]))
            if trial.should_prune():
                raise optuna.TrialPruned

    train(config, folder, command=as_typed(sys.argv[1:]), quiet=True, watch=watch)
    if not values:
        raise TrainingError(f"{folder} has no {figure} at an evaluation: set evaluation_episodes")
    return values[-1]


def _folder(folder: Path, trial: Any) -> Path:
    return folder / f"trial-{trial.number:04}"


def _ranked(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    done = [t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
    return sorted(done, key=lambda t: -(t.value or 0.0))
