# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Argument parsing that the subcommands share: a parser with short help, and number types.

The functions are ``type=`` converters for ``add_argument``; their errors name the text that was
given and the values that are accepted.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
import sys
from collections.abc import Collection, Iterable
from typing import Any, NoReturn

_COLOURS = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "blue": "34"}
_HEADING = re.compile(r"^(\S.*:)$", re.MULTILINE)


class OneLineParser(argparse.ArgumentParser):
    """A parser that reports bad input in one line with the nearest names, and exits with status 2.

    A command with many options calls :meth:`abridge`: ``--help`` then shows the common ones, and
    ``--help-all`` all of them.
    """

    def __init__(self, prog: str | None = None, description: str = "", epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._common: Collection[str] = ()

    def abridge(self, common: Collection[str]) -> None:
        """Let ``--help`` show positional arguments and common options, such as ``seed``, only."""
        self._common = {*common, "help", "help_all"}
        names = [str(a.metavar or a.dest) for a in self._actions if not a.option_strings]
        names += [f"{a.option_strings[0]} {a.metavar}" for a in self._actions if _must_be_given(a)]
        self.usage = " ".join((self.prog, *names, "[options]"))
        self.add_argument("--help-all", action=_HelpAll, nargs=0, help="show every option and exit")

    def format_help(self) -> str:
        """Return the help; that of an abridged parser with its common options only."""
        if not self._common:
            return super().format_help()
        hidden = [a for a in self._actions if a.option_strings and a.dest not in self._common]
        kept = [(action, action.help) for action in hidden]
        for action in hidden:
            action.help = argparse.SUPPRESS
        try:
            return super().format_help()
        finally:
            for action, text in kept:
                action.help = text

    def print_all(self) -> None:
        """Print the help with every option."""
        self._print_message(super().format_help(), sys.stdout)

    def actions(self) -> list[argparse.Action]:
        """Return the arguments and options."""
        return self._actions

    def error(self, message: str) -> NoReturn:
        """Print the error, the names that are nearest and where to find help, and exit."""
        line = " ".join(message.split())
        unknown = re.fullmatch(r"unrecognized arguments: (.*)", line)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            words = [word.partition("=")[0] for word in unknown[1].split() if word[0] == "-"]
            line += did_you_mean(words, known)
        self.exit(2, f"{self.prog}: {line} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write help and errors; unlike argparse, let a failed write raise."""
        file = file or sys.stderr
        if colours(file):
            message = _HEADING.sub(lambda found: paint(found[1], "bold", file), message)
        file.write(message)
        file.flush()


def _must_be_given(action: argparse.Action) -> bool:
    return bool(action.option_strings) and action.required


class _HelpAll(argparse.Action):
    """``--help-all``: print every option and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        if isinstance(parser, OneLineParser):
            parser.print_all()
        parser.exit()


def did_you_mean(words: Iterable[str], known: Iterable[str]) -> str:
    """Return ``: did you mean ...?`` for misspelt words, empty if nothing is near."""
    names = list(known)
    near = [name for word in words for name in difflib.get_close_matches(word, names, 2)]
    return f": did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""


def colours(stream: Any) -> bool:
    """Return whether a stream shows colours: a terminal, unless NO_COLOR or TERM forbid it."""
    forbidden = os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in ("", "dumb")
    return not forbidden and bool(getattr(stream, "isatty", lambda: False)())


def paint(text: str, colour: str, stream: Any) -> str:
    """Return a text in a colour (bold, red, green, yellow, blue) where the stream shows colours."""
    return f"\033[{_COLOURS[colour]}m{text}\033[0m" if colours(stream) else text


def add_arm(parser: argparse.ArgumentParser) -> None:
    """Add ``--arm``, the task's option of the arm."""
    parser.add_argument(
        "--arm",
        default=argparse.SUPPRESS,
        metavar="NAME|YAML",
        help="arm of a task that takes any, such as reach: a name, or a file anywhere",
    )


def take_arm(args: argparse.Namespace) -> None:
    """Make ``--arm`` a task option; a file keeps its place whatever the working directory is."""
    from ndp_ros.control.arm import arm_reference

    if "arm" in args:
        options = [*(args.task_options if "task_options" in args else [])]
        args.task_options = [*options, f"arm={arm_reference(args.arm)}"]
        del args.arm


def positive(text: str) -> int:
    """Convert a positive whole number."""
    return _at_least(1, text, "a positive whole number")


def whole(text: str) -> int:
    """Convert a whole number from 0 on, such as a seed."""
    return _at_least(0, text, "a whole number from 0 on")


def duration(text: str) -> float:
    """Convert a positive duration [s]."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def _at_least(minimum: int, text: str, expected: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = minimum - 1
    if value < minimum:
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return value
