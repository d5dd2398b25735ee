"""``ndp bench``: benchmarks, each in a module that is imported when used."""

from __future__ import annotations

import argparse
import importlib

from ndp_ros.errors import ConfigError

BENCHES = {
    "stream": "ndp_ros.streaming.bench",
    "train": "ndp_ros.training.benchmark",
}
"""Where each benchmark lives: a module with ``configure(parser)`` and ``main(args) -> int``."""

_EPILOG = """\
examples:
  ndp bench stream --rates 1000 5000 --json
  ndp bench train --json
  ndp bench train --task-options control_dt=0.01 tick=0.01 --batches 5
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the name of the benchmark and, once it is known, its own arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("benchmark", choices=list(BENCHES), help="what to measure")
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="see ndp bench BENCHMARK --help"
    )


def main(args: argparse.Namespace) -> int:
    """Run the benchmark that was named.

    Raises:
        ConfigError: If a parameter does not fit.
    """
    try:
        module = importlib.import_module(BENCHES[args.benchmark])
    except KeyError:
        raise ConfigError.choice("benchmark", args.benchmark, BENCHES) from None
    from ndp_ros.cli import OneLineParser

    parser = OneLineParser(
        prog=f"ndp bench {args.benchmark}",
        description=" ".join((module.__doc__ or "").split("\n\n")[0].split()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    return int(module.main(parser.parse_args(args.arguments)))
