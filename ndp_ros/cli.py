# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The ``ndp`` command: dispatch to subcommands, each in a module that is imported on use.

A subcommand's module provides ``configure(parser)``, which adds its arguments and an epilogue with
examples, and ``main(args)``, which returns the exit status. Where the work loads much,
``configure`` is in a module of its own, so that ``--help`` answers at once. An
:class:`~ndp_ros.errors.NdpError` ends the command with one line on standard error and status 2.
"""

from __future__ import annotations

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

from ndp_ros import __version__
from ndp_ros.commands.arguments import OneLineParser, did_you_mean
from ndp_ros.errors import NdpError, describe
from ndp_ros.processes import SINGLE_THREADED, interrupts_blocked

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells."""
_COMMANDS = "ndp_ros.commands"


@dataclass(frozen=True)
class Subcommand:
    """A module of ``commands``, its summary for ``--help``, and the module of its options."""

    module: str
    summary: str
    options: str = ""

    def configure(self, parser: OneLineParser) -> None:
        """Add the arguments."""
        importlib.import_module(f"{_COMMANDS}.{self.options or self.module}").configure(parser)


SUBCOMMANDS = {
    "train": Subcommand("train", "train a policy on a task"),
    "sweep": Subcommand("sweep", "search options of a run with Optuna"),
    "config": Subcommand("config", "print a run's values and their sources"),
    "eval": Subcommand("evaluate", "measure a checkpoint's success", "evaluate_options"),
    "export": Subcommand("export", "ship a run's checkpoint with its figures", "export_options"),
    "hub": Subcommand("hub", "push and pull checkpoints"),
    "collect": Subcommand("collect", "write down what an expert does", "collect_options"),
    "plot": Subcommand("plot", "draw runs, recordings, checkpoints, a field"),
    "reproduce": Subcommand("reproduce", "remake a table or figure of the paper"),
    "check": Subcommand("check", "check YAML files and checkpoints"),
    "sim": Subcommand("sim", "run a checkpoint under ROS 2 in simulation"),
    "run": Subcommand("run", "run a checkpoint under ROS 2 on a real arm"),
    "follow": Subcommand("follow", "let a running arm follow, or hold"),
    "top": Subcommand("top", "watch running systems in the terminal"),
    "emulate": Subcommand("emulate", "emulate a Kortex arm on this machine"),
    "bench": Subcommand("bench", "measure speed and timing"),
    "doctor": Subcommand("doctor", "say what works here and what to do"),
    "completion": Subcommand("completion", "complete ndp in a shell"),
}

_EPILOG = """examples:
  ndp train throw --method ndp --seed 0
  ndp eval models/checkpoints/jaco_throw --episodes 100 --seed 7 --json
  ndp COMMAND --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, that of the process unless given, and return the exit status."""
    sys.stdout = sys.stdout or _ClosedOutput()
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    try:
        status = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        status = 1  # the reader, such as head, has closed the pipe
    except OSError as error:
        status = _fail("", f"cannot write to standard output ({describe(error)})")
    except SystemExit:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            raise
        status = _fail("", "cannot write to standard output")
    # Python would try to write the rest of the buffer again when it exits.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return status


def _dispatch(arguments: list[str]) -> int:
    """Run the subcommand that the arguments name, and report its errors in one line.

    Raises:
        BrokenPipeError: If the reader of standard output has closed it.
        SystemExit: After ``--help``, ``--version`` or a wrong command line.
    """
    name = arguments[0] if arguments else ""
    if name not in SUBCOMMANDS:
        parser = _top_level_parser()
        if name and not name.startswith("-"):
            parser.error(f"{name!r} is no command{did_you_mean([name], SUBCOMMANDS)}")
        parser.parse_args(arguments)  # exits after --help, --version and any error
        parser.error(f"options come after the command: ndp COMMAND {name}")
    command = SUBCOMMANDS[name]
    description = f"{command.summary[:1].upper()}{command.summary[1:]}."
    for variable, value in SINGLE_THREADED.items():
        os.environ.setdefault(variable, value)
    before = signal.signal(signal.SIGTERM, _raise_interrupt)
    try:
        parser = OneLineParser(f"ndp {name}", description)
        command.configure(parser)
        given = parser.parse_args(arguments[1:])
        with interrupts_blocked():
            module = importlib.import_module(f"{_COMMANDS}.{command.module}")
        return int(module.main(given))
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


def _top_level_parser() -> OneLineParser:
    """Return the parser of ``ndp`` itself, which lists the subcommands."""
    width = max(map(len, SUBCOMMANDS))
    rows = [f"  {name:<{width}}  {command.summary}" for name, command in SUBCOMMANDS.items()]
    parser = OneLineParser(
        "ndp", "Neural Dynamic Policies for robot arms.\n\ncommands:\n" + "\n".join(rows), _EPILOG
    )
    parser.add_argument("--version", action="version", version=f"ndp_ros {__version__}")
    parser.add_argument(
        "command", choices=list(SUBCOMMANDS), metavar="COMMAND", help="one of the above"
    )
    return parser


def _fail(name: str, message: str, status: int = 2) -> int:
    """Print one line on standard error and return the exit status."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{f'ndp {name}'.strip()}: {' '.join(message.split())}\n")
        sys.stderr.flush()
    return status


class _ClosedOutput(io.TextIOBase):
    """A stand-in for the standard output of a process that has none."""

    def write(self, text: str) -> int:
        """Raise OSError, so that the command does not seem to succeed."""
        raise OSError(errno.EBADF, "standard output is closed")


def _raise_interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt("terminated")


if __name__ == "__main__":
    sys.exit(main())
