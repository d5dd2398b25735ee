# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp bench stream``: measure the punctuality of the streamer on this machine and a tick's cost.

Real streamer processes, one for each arm, follow segments, as under ROS, for some seconds at each
rate. Lateness is the time from a tick's deadline to its begin, cost that of the loop's body with Ω
and without the simulator's physics. Both are wall-clock times and include the effect of other
processes (``stolen`` is the share of time that a hypervisor gave to other machines). A loop in C
takes turns with ours, so that what the machine is late by can be told from what we are late by.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from ndp_ros.commands.arguments import duration, positive
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError, StreamError
from ndp_ros.streaming.compiled import MISSING
from ndp_ros.streaming.config import RuntimeConfig, StreamSpec
from ndp_ros.streaming.figures import Counts, Durations, Figures
from ndp_ros.streaming.handle import StreamerHandle

RATES = (500.0, 1000.0, 2000.0, 5000.0)
MODES = {"mock": "position", "mujoco": "torque"}

_DURATION = 0.25
_FOLLOW_TIMEOUT = 60.0
_WINDOW = 60.0
"""Time between two looks at a long measurement [s]."""
_SHARED = Path("/dev/shm")
_EPILOG = """\
Progress goes to standard error. With --json the last line of standard output is one JSON object;
each row has dof, ticks, missed (periods without a tick; also in percent of all periods),
lateness_us and cost_us (p50, p99, p999, max), load_percent (median cost as a share of the period),
memory_mib (of the streamers, before and after), braked (why an arm braked; empty if none did),
windows (the same figures minute by minute, with the number of files in /dev/shm), c_loop (the same
of as many loops in C that only work for 15 us a tick, measured right after each round of ours).
Figures are over all arms and rounds.

examples:
  ndp bench stream
  ndp bench stream --rates 1000 5000 --seconds 20 --hardware mujoco --json
  ndp bench stream --hardware mock --rates 1000 5000 --seconds 60 --rounds 10
  ndp bench stream --hardware mock --rates 1000 --seconds 3600 --no-c-loop    a soak of an hour
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    option = parser.add_argument
    option(
        "--rates",
        nargs="+",
        type=float,
        default=list(RATES),
        metavar="HZ",
        help="ticks per second (default: 500 1000 2000 5000)",
    )
    option("--seconds", type=duration, default=10.0, help="for each rate (default: 10)")
    option("--rounds", type=positive, default=1, help="turns with the loop in C (default: 1)")
    option(
        "--hardware",
        choices=sorted(MODES),
        default="mujoco",
        help="mujoco steps the Throw scene in the loop, mock only loops (default: mujoco)",
    )
    option("--arm", default="jaco", help="as in config/arms/ (default: jaco)")
    option("--arms", type=positive, default=1, help="streamers at the same time (default: 1)")
    option(
        "--dof",
        nargs="+",
        type=positive,
        default=[],
        metavar="N",
        help="mock arms of N joints instead, for how the cost grows",
    )
    option("--python", action="store_true", help="run all of a tick in Python, for a comparison")
    option("--no-c-loop", action="store_true", help="leave the loop in C out")
    option("--priority", type=int, default=80, help="SCHED_FIFO priority, 0 for none (default: 80)")
    option("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Measure at every rate, and every number of joints if any is given, and print the figures.

    Raises:
        ConfigError: If arms of other numbers of joints are asked of a simulation.
        StreamError: If a streamer cannot start, or ends by itself.
    """
    rows = []
    say = (sys.stderr if args.json else sys.stdout).write
    if args.dof and args.hardware != "mock":
        raise ConfigError("--dof is for --hardware mock, whose arms need no model")
    with tempfile.TemporaryDirectory() as folder:
        kinds = [_arm_of(dof, Path(folder)) for dof in args.dof] or [args.arm]
        for arm, rate in itertools.product(kinds, args.rates):
            runtime = RuntimeConfig.named("simulation", rate=rate, priority=args.priority)
            runtime = replace(runtime, compiled=not args.python, max_duration=2 * _DURATION)
            spec = StreamSpec(
                hardware=args.hardware, arm=arm, command_mode=MODES[args.hardware], runtime=runtime
            )
            rows.append(row := _row(spec, args))
            say(_lines(row))
    if args.json:
        report = {"hardware": args.hardware, "arm": args.arm, "cores": os.cpu_count(), "rows": rows}
        sys.stdout.write(json.dumps(report) + "\n")
    return 0


def _row(spec: StreamSpec, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one rate, our loop and the one in C in turn; return the figures of all rounds."""
    rounds, loops = [], []
    rate = spec.runtime.rate
    for number in range(args.rounds):
        sys.stderr.write(
            f"{rate:g} Hz, round {number + 1} of {args.rounds}: {args.seconds:g} s"
            f"{'' if args.no_c_loop else ', then as long in C'}\n"
        )
        rounds.append(measure(spec, args.seconds, args.arms))
        if not args.no_c_loop:
            loops.append(bare_loops(rate, args.seconds, args.priority, args.arms))
    figures = reduce(add, (one.figures for one in rounds)).row()
    missing = next((loop for loop in loops if isinstance(loop, str)), "not asked for")
    measured = [loop for loop in loops if not isinstance(loop, str)]
    braked = next((one.braked for one in rounds if one.braked), "")
    return {
        "rate_hz": rate,
        "arms": args.arms,
        "rounds": args.rounds,
        "dof": rounds[0].dof,
        **figures,
        "load_percent": figures["cost_us"]["p50"] * rate * 1e-4,
        "segments": sum(one.segments for one in rounds),
        "braked": braked,
        "memory_mib": [rounds[0].memory[0], rounds[-1].memory[1]],
        "windows": [window for one in rounds for window in one.windows],
        "stolen_percent": float(np.mean([one.stolen for one in rounds])),
        **rounds[0].granted,
        "c_loop": reduce(add, measured).row() if measured else missing,
    }


def _arm_of(dof: int, folder: Path) -> str:
    """Write an arm of some joints, without a model; return its file."""
    values = {"lower": -3.0, "upper": 3.0, "max_velocity": 2.0, "max_acceleration": 10.0}
    values |= {"max_torque": 50.0, "max_torque_rate": 4000.0, "home": 0.0}
    names = [f"joint_{number}" for number in range(1, dof + 1)]
    arm = {"name": f"joints_{dof}", "joint_names": names, "gripper": False, "model": ""}
    file = folder / f"joints_{dof}.yaml"
    # JSON is YAML.
    file.write_text(json.dumps(arm | {name: [value] * dof for name, value in values.items()}))
    return str(file)


def _lines(row: Mapping[str, Any]) -> str:
    """Return the figures of one rate in two lines."""
    cost, bare = row["cost_us"], row["c_loop"]
    arms = f"{row['arms']} arms of " if row["arms"] > 1 else ""
    text = (
        f"{row['rate_hz']:6.0f} Hz {arms}{row['dof']:2} joints  {_punctuality(row)}  "
        f"cost p50 {cost['p50']:.0f} p99 {cost['p99']:.0f} p99.9 {cost['p999']:.0f} us "
        f"({row['load_percent']:.0f} % of a period)  stolen {row['stolen_percent']:.0f} %  "
        f"loop: {row['loop']}\n"
    )
    if row["braked"]:
        text += f"           braked after {row['segments']} segments: {row['braked']}\n"
    if isinstance(bare, str):
        return f"{text}           C loop left out: {bare}\n"
    return f"{text}  C loop   {_punctuality(bare)}\n"


def _punctuality(row: Mapping[str, Any]) -> str:
    late, periods = row["lateness_us"], row["ticks"] + row["missed"]
    return (
        f"late p50 {late['p50']:.1f} p99 {late['p99']:.1f} p99.9 {late['p999']:.0f} max "
        f"{late['max']:.0f} us  missed {row['missed']} of {periods}"
    )


@dataclass(frozen=True)
class Measured:
    """Figures of one round of our loop."""

    figures: Figures
    windows: list[dict[str, Any]]
    dof: int
    segments: int
    braked: str
    memory: tuple[float, float]
    """Of all streamers before and after [MiB]."""
    stolen: float
    """Share of the machine's time that went to other machines [%]."""
    granted: dict[str, str]


def measure(spec: StreamSpec, seconds: float, arms: int = 1) -> Measured:
    """Return the figures of streamers that follow segments for some time.

    Raises:
        StreamError: If a streamer cannot start, or ends by itself.
    """
    with ExitStack() as stack:
        # A streamer ends with the thread that started it.
        pool = stack.enter_context(ThreadPoolExecutor(arms))
        streams = _started(pool, spec, arms, stack)
        for stream in streams:
            stream.request("follow", timeout=_FOLLOW_TIMEOUT)
        memory, stolen = _memory(streams), _stolen()
        counts, windows = [_counts(streams)], []

        def look(at: float) -> None:
            counts.append(_counts(streams))
            window = {"at_s": at, **_between(counts[-2], counts[-1]).row()}
            files = len(list(_SHARED.iterdir()))
            windows.append(window | {"memory_mib": _memory(streams), "shm_files": files})
            sys.stderr.write(
                f"  {at:5.0f} s  {_punctuality(window)}  {windows[-1]['memory_mib']:.1f} MiB\n"
            )

        _drive(streams, seconds, look)
        counts.append(_counts(streams))
        stolen = _stolen() - stolen
        reports = [stream.mailbox.report() for stream in streams]
        measured = Measured(
            _between(counts[0], counts[-1]),
            windows,
            streams[0].mailbox.layout.dof,
            sum(report["accepted"] for report in reports),
            next((report["reason"] for report in reports if report["reason"]), ""),
            (memory, _memory(streams)),
            100.0 * stolen / seconds / (os.cpu_count() or 1),
            streams[0].granted,
        )
        for stream in streams:
            if problem := stream.problem or stream.close():
                raise StreamError(problem)
    return measured


def _started(pool: Executor, spec: StreamSpec, arms: int, stack: ExitStack) -> list[StreamerHandle]:
    """Start streamers at the same time, with heartbeats for those that wait for the others.

    Raises:
        StreamError: If one cannot start.
    """
    starts = [pool.submit(StreamerHandle, spec, ("cube", "bin")) for _ in range(arms)]
    while not all(start.done() for start in starts):
        for start in starts:
            if start.done() and start.exception() is None:
                start.result().mailbox.beat()
        time.sleep(0.02)
    for start in starts:
        if start.exception() is None:
            stack.enter_context(start.result())
    return [start.result() for start in starts]


def _counts(streams: Sequence[StreamerHandle]) -> list[Counts]:
    return [stream.tick_counts() for stream in streams]


def _between(before: Sequence[Counts], after: Sequence[Counts]) -> Figures:
    """Return the figures of all streamers between two readings of their counts."""
    return reduce(add, map(Figures.between, before, after))


_BARE = """
import json, sys
from ndp_ros.streaming._core import periodic
from ndp_ros.streaming.clock import make_realtime
period, ticks, spin, work, priority = map(int, sys.argv[1:])
make_realtime(priority)
print(json.dumps(periodic(period, ticks, spin, work)))
"""
_WORK = 15e-6
"""Work of a tick of the C loop [s]."""


def bare_loops(rate: float, seconds: float, priority: int, number: int = 1) -> Figures | str:
    """Measure loops in C on this machine, right after ours; return why not if none is built.

    They sleep by clock_nanosleep, spin as long as ours, work for 15 us a tick, and run under the
    same scheduler with locked memory: what they are late by is the machine's.
    """
    if MISSING:
        return MISSING
    spin = min(RuntimeConfig().spin, 0.9 / rate - _WORK)
    numbers = (1e9 / rate, seconds * rate, spin * 1e9, _WORK * 1e9, priority)
    command = [sys.executable, "-c", _BARE, *(str(round(number)) for number in numbers)]
    figures: list[Figures] = []
    with ExitStack() as stack:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        loops = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(number)]
        for loop in loops:
            out, error = loop.communicate()
            if loop.returncode:
                return str(error.strip().rpartition("\n")[2])
            missed, worst, counts = json.loads(out)
            late = Durations(np.array(counts, float), worst * 1e-9)
            figures.append(Figures(sum(counts), missed, late))
    total: Figures = reduce(add, figures)
    return total


def _drive(
    streams: Sequence[StreamerHandle], seconds: float, look: Callable[[float], None]
) -> None:
    """Send each arm a segment every 50 ms: a slow wave about its start."""
    dmp, homes = DmpConfig(), []
    for stream in streams:
        stream.prepare(dmp, _DURATION)
        stream.mailbox.state.load()
        homes.append(np.array(stream.mailbox.state["y"]))
    w = np.zeros((len(homes[0]), dmp.n_basis))
    began, seen = time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        for stream, home in zip(streams, homes, strict=True):
            g = home.copy()
            g[:-1] += 0.1 * np.sin(2.0 * np.pi * 0.25 * now)
            stream.send(g, w, time.monotonic())
            stream.mailbox.beat()
        if now >= (seen + 1) * _WINDOW:
            seen += 1
            look(now)
        time.sleep(0.05)


def _memory(streams: Sequence[StreamerHandle]) -> float:
    """Return the memory of all streamers, with what they share [MiB]."""
    pids = [stream.mailbox.report()["pid"] for stream in streams]
    files = (Path(f"/proc/{pid}/statm") for pid in pids)
    pages = sum(int(file.read_text(encoding="ascii").split()[1]) for file in files)
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _stolen() -> float:
    """Return the time, over all CPUs, that a hypervisor gave to other machines so far [s]."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")
