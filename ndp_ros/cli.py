"""The ``ndp`` command: a table of subcommands, each in a module that is imported when used.

A subcommand's module has ``configure(parser)``, which adds arguments and an epilogue with
examples, and ``main(args) -> int``, which returns the exit status. Anything that goes
wrong on purpose is an :class:`~ndp_ros.errors.NdpError` and ends in one line and status 2.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

from ndp_ros import __version__
from ndp_ros.errors import NdpError, describe

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


@dataclass(frozen=True)
class Subcommand:
    """One row of the table: where a subcommand lives and what it is for."""

    module: str
    summary: str


SUBCOMMANDS = {
    "train": Subcommand("ndp_ros.commands.train", "train a policy on a task"),
    "eval": Subcommand("ndp_ros.commands.evaluate", "measure a checkpoint's success"),
    "export": Subcommand("ndp_ros.commands.export", "ship a run's checkpoint with its figures"),
    "collect": Subcommand("ndp_ros.commands.collect", "write down what an expert does"),
    "plot": Subcommand("ndp_ros.commands.plot", "draw learning curves of runs"),
    "reproduce": Subcommand("ndp_ros.commands.reproduce", "remake a table or figure of the paper"),
    "check": Subcommand("ndp_ros.commands.check", "check YAML files and checkpoints"),
    "sim": Subcommand("ndp_ros.simulation", "run a checkpoint under ROS 2 in simulation"),
    "run": Subcommand("ndp_ros.commands.run", "run a checkpoint under ROS 2 on a real arm"),
    "emulate": Subcommand("ndp_ros.arms.kortex.emulate", "emulate a Kortex arm on this machine"),
    "bench": Subcommand("ndp_ros.commands.bench", "measure speed and timing"),
}

_EPILOG = """examples:
  ndp train throw --method ndp --seed 0
  ndp eval models/checkpoints/jaco_throw --episodes 100 --seed 7 --json
  ndp COMMAND --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    Args:
        argv: Arguments without the program's name; ``None`` for those of the process.
    """
    sys.stdout = sys.stdout or _Closed()
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    try:
        status = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        status = 1
    except OSError as error:
        status = _fail("", f"cannot write to standard output ({describe(error)})")
    except SystemExit:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            raise
        status = _fail("", "cannot write to standard output")
    else:
        return status
    # What could not be written would be tried again when the interpreter ends.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return status


def _run(argv: Sequence[str] | None) -> int:
    """Run the subcommand; what goes wrong with it is one line, output that is closed is not."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    name = next((a for a in arguments if not a.startswith("-")), None)
    if name not in SUBCOMMANDS or arguments[0] != name:
        parser.parse_args(arguments)  # prints --help or --version, or says what is wrong
        parser.print_help(sys.stderr)
        return 2
    for library in ("OMP", "OPENBLAS", "MKL"):
        # Products of a few thousand numbers lose by being split.
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        module = importlib.import_module(SUBCOMMANDS[name].module)
        summary = SUBCOMMANDS[name].summary
        subparser = OneLineParser(
            prog=f"ndp {name}",
            description=f"{summary[:1].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.configure(subparser)
        status = module.main(subparser.parse_args(arguments[1:]))
        return int(status)
    except NdpError as error:
        return _fail(name, str(error))
    except KeyboardInterrupt as error:
        return _fail(name, str(error) or "interrupted", INTERRUPTED)
    except BrokenPipeError:
        raise
    except (ImportError, OSError, RecursionError, UnicodeError, MemoryError) as error:
        return _fail(name, describe(error))
    finally:
        signal.signal(signal.SIGTERM, before)


class OneLineParser(argparse.ArgumentParser):
    """A parser that answers bad input with one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is."""
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: {line} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write help and errors; an output that takes nothing is no success."""
        (file or sys.stderr).write(message)
        (file or sys.stderr).flush()


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, SUBCOMMANDS))
    rows = [f"  {name:<{width}}  {command.summary}" for name, command in SUBCOMMANDS.items()]
    parser = OneLineParser(
        prog="ndp",
        description="Neural Dynamic Policies for robot arms.\n\ncommands:\n" + "\n".join(rows),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ndp_ros {__version__}")
    parser.add_argument(
        "command", choices=list(SUBCOMMANDS), metavar="COMMAND", help="one of the above"
    )
    return parser


def _fail(name: str, message: str, status: int = 2) -> int:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{f'ndp {name}'.strip()}: {' '.join(message.split())}\n")
        sys.stderr.flush()
    return status


class _Closed(io.TextIOBase):
    """Standard output of a process that has none: whoever writes to it is told."""

    def write(self, text: str) -> int:
        """Refuse.

        Raises:
            OSError: Always.
        """
        raise OSError(errno.EBADF, "standard output is closed")


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt("terminated")


if __name__ == "__main__":
    sys.exit(main())
