# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp config``: print the values of a training run, each with its source."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ndp_ros.commands.arguments import OneLineParser
from ndp_ros.commands.train import COMMON, add_config_arguments, read_config, read_layers
from ndp_ros.config import to_mapping
from ndp_ros.training.experiments import flat, sources

_EPILOG = """\
Takes the task, --config and the flags of 'ndp train' and trains nothing. A source is a file of
config/experiments and its section, the method's row in ndp_ros/training/methods.py, the file
given with --config, the command line, or the default.

examples:
  ndp config throw --method ndp
  ndp config push --method dyn-e --changed
  ndp config throw --config my.yaml --k 7 --json
"""


def configure(parser: OneLineParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("--changed", action="store_true", help="leave out defaults")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_config_arguments(parser)
    parser.abridge(("changed", "json", *COMMON))


def main(args: argparse.Namespace) -> int:
    """Print every value in force and its source."""
    rows = in_force(args)
    if args.changed:
        rows = {name: row for name, row in rows.items() if row[1] != "default"}
    if args.json:
        report = {
            name: {"value": value, "source": source} for name, (value, source) in rows.items()
        }
        sys.stdout.write(json.dumps(report) + "\n")
        return 0
    names = max(map(len, rows))
    texts = {name: _text(value) for name, (value, _) in rows.items()}
    width = max(map(len, texts.values()))
    for name, (_, source) in rows.items():
        sys.stdout.write(f"{name:<{names}}  {texts[name]:<{width}}  {source}\n")
    return 0


def in_force(args: argparse.Namespace) -> dict[str, tuple[Any, str]]:
    """Return the value and the source of every option of a run, by its name.

    Raises:
        ConfigError: If a file cannot be read or a value does not fit.
    """
    config, origin = read_config(args), sources(read_layers(args))
    row = f"row {config.method} of methods.py"
    rows = {name: (value, origin.get(name, "default")) for name, value in flat(to_mapping(config))}
    if config.choice.k != config.k:
        rows["k"] = (config.choice.k, row)
    traits = vars(config.row) | {"always": dict(config.row.always)}
    of_method = {f"method.{name}": (value, row) for name, value in traits.items()}
    first = ("task", "method", "seed", "samples", "k")
    return {name: rows.pop(name) for name in first} | of_method | rows


def _text(value: Any) -> str:
    """Return a value as YAML writes it, a dash for none."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value in (None, "") else str(value)
