# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp completion``: print a script that completes commands, options and names in a shell."""

from __future__ import annotations

import argparse
import sys

from ndp_ros.commands.arguments import OneLineParser
from ndp_ros.paths import share_roots

_EPILOG = """\
examples:
  ndp completion bash > ~/.local/share/bash-completion/completions/ndp
  ndp completion zsh > ~/.zfunc/_ndp      with `fpath+=~/.zfunc` before compinit in ~/.zshrc
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell")


def main(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    sys.stdout.write(shtab.complete(whole_parser(), shell=args.shell) + "\n")
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """Return one parser of all subcommands; those whose packages are missing have no options."""
    import shtab

    from ndp_ros.cli import SUBCOMMANDS

    parser = argparse.ArgumentParser("ndp", allow_abbrev=False)
    commands = parser.add_subparsers(parser_class=OneLineParser)
    for name, command in SUBCOMMANDS.items():
        one: OneLineParser = commands.add_parser(name, help=command.summary)
        try:
            command.configure(one)
        except ImportError:
            continue
        for action in one.actions():
            _complete(action, shtab)
    return parser


def _complete(action: argparse.Action, shtab: object) -> None:
    """Let a value be completed: names that ship, or files."""
    if action.dest in ("checkpoint", "what"):
        roots = (root / "models" / "checkpoints" for root in share_roots())
        names = {path.parent.name for root in roots for path in root.glob("*/config.json")}
        action.choices = sorted(names)
    elif action.type is not None and getattr(action.type, "__name__", "") == "Path":
        action.complete = shtab.FILE  # type: ignore[attr-defined]
