# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp top``: a live view of running systems in the terminal."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ndp_ros.bringup.process import set_default_environment
from ndp_ros.nodes.claims import domain_id

if TYPE_CHECKING:
    from ndp_ros.nodes.monitor import System

_EPILOG = """\
Shows every system of this ROS domain (ROS_DOMAIN_ID): state of arm and guard with its reason, the
loop's rate and lateness, the rates of topics, violations, and the health of each node.

examples:
  ndp top
  ndp top --once    print one view and end
"""
_COLOURS = {"following": "green", "braking": "yellow", "fault": "bold red", "stopped": "red"}
_LEVELS = {0: "green", 1: "yellow", 2: "bold red"}
_LISTEN = 3.0
"""Time that ``--once`` listens once each system has reported, for the rates and all nodes [s]."""
_PATIENCE = 12.0
"""Time after which ``--once`` shows what it has, though nothing or not all has reported [s]."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("--once", action="store_true", help="print one view and end")
    parser.add_argument(
        "--period", type=_period, default=0.5, metavar="SECONDS", help="between two views [s]"
    )


def _period(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and 0.1 <= value <= 60.0):
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 60 s")
    return value


def main(args: argparse.Namespace) -> int:
    """Show the view until Ctrl-C; with ``--once``, return 1 if no system runs."""
    set_default_environment()
    from ndp_ros.nodes.monitor import watch

    console = Console()
    if args.once:
        with console.status(f"listening to ROS domain {domain_id()}"):
            systems = _once(watch(args.period))
        console.print(view(systems))
        return 0 if any(system.reported for system in systems) else 1
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        for systems in watch(args.period):
            live.update(view(systems), refresh=True)
    return 0


def _once(views: Iterator[list[System]]) -> list[System]:
    """Return the systems once all of them have reported and been listened to for a while."""
    systems: list[System] = []
    began = since = time.monotonic()
    for systems in views:
        now = time.monotonic()
        if not systems or not all(system.reported for system in systems):
            since = now
        if now - since > _LISTEN or now - began > _PATIENCE:
            break
    return systems


def view(systems: Sequence[System]) -> RenderableType:
    """Return the view of all systems."""
    if not systems:
        return Text(f"no system runs in ROS domain {domain_id()} (yet)", style="yellow")
    return Group(*(_panel(system) for system in systems))


def _panel(system: System) -> Panel:
    status = system.status
    title = system.namespace or "/"
    if status is None:
        return Panel(Text("no status yet", style="yellow"), title=title)
    table = Table.grid(padding=(0, 2))
    state = Text(status.state, style=_COLOURS.get(status.state, ""))
    reason = f"  {status.reason}" if status.reason else ""
    table.add_row("state", state.append(reason, style="default"))
    kind = "simulated" if status.simulated else "real"
    table.add_row("arm", f"{status.arm} ({status.backend}, {kind})")
    table.add_row("checkpoint", f"{status.checkpoint or '-'}  segment {status.sequence}")
    table.add_row("segments", f"{status.accepted} accepted, {status.rejected} rejected")
    late = [_rounded(system.figure(f"lateness_us_{name}")) for name in ("p50", "p99", "max")]
    missed = f"{system.figure('missed_ticks') or '-'} of {system.figure('ticks') or '-'}"
    table.add_row("loop", f"{status.rate:g} Hz, {missed} ticks missed")
    table.add_row("lateness", "p50 {}, p99 {}, max {} us".format(*late))
    rates = "  ".join(f"{topic} {system.rate(topic):.0f}" for topic in system.arrivals)
    table.add_row("topics [Hz]", rates)
    guard = ", ".join(f"{name} {count}" for name, count in system.guard().items())
    table.add_row("guard", guard or "no violation")
    for name, report in sorted(system.nodes.items()):
        age = time.monotonic() - report.heard
        silent = f"  (silent for {age:.0f} s)" if age > 2.0 else ""
        table.add_row(name, Text(report.message + silent, style=_LEVELS.get(report.level, "")))
    return Panel(table, title=title, title_align="left")


def _rounded(figure: str) -> str:
    """Return a figure with one decimal; a dash for none."""
    return f"{float(figure):.1f}" if figure else "-"
