# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp bench stream``: measure the punctuality of the streamer on this machine and a tick's cost.

A real streamer process follows segments, as under ROS, for some seconds at each rate. Lateness
is the time from a tick's deadline to its begin, cost that of the loop's body with Ω and without
the simulator's physics. Both are wall-clock times and include the effect of other processes
(``stolen`` is the share of time that a hypervisor gave to other machines).
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
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ndp_ros.commands.arguments import duration, positive
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError, StreamError
from ndp_ros.streaming.clock import quantile, worst_of
from ndp_ros.streaming.compiled import MISSING
from ndp_ros.streaming.config import RuntimeConfig, StreamSpec
from ndp_ros.streaming.handle import StreamerHandle

RATES = (500.0, 1000.0, 2000.0, 5000.0)
MODES = {"mock": "position", "mujoco": "torque"}

_DURATION = 0.25
_FOLLOW_TIMEOUT = 60.0
_EPILOG = """\
Progress goes to standard error. With --json the last line of standard output is one JSON object;
each row has dof, ticks, missed (periods without a tick; also in percent of all periods),
lateness_us and cost_us (p50, p99, p999, max), load_percent (median cost as a share of the period),
memory_mib (of the streamer, before and after), braked (why the arm braked; empty if it did not),
c_loop (the same of a loop in C that only works for 15 us a tick, measured right after ours).

examples:
  ndp bench stream
  ndp bench stream --rates 1000 5000 --seconds 20 --hardware mujoco --json
  ndp bench stream --rates 1000 --seconds 3600    a soak: lateness and memory after an hour
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--rates",
        nargs="+",
        type=float,
        default=list(RATES),
        metavar="HZ",
        help="ticks per second (default: 500 1000 2000 5000)",
    )
    parser.add_argument(
        "--seconds", type=duration, default=10.0, help="for each rate (default: 10)"
    )
    parser.add_argument(
        "--hardware",
        choices=sorted(MODES),
        default="mujoco",
        help="mujoco steps the Throw scene in the loop, mock only loops (default: mujoco)",
    )
    parser.add_argument("--arm", default="jaco", help="as in config/arms/ (default: jaco)")
    parser.add_argument(
        "--dof",
        nargs="+",
        type=positive,
        default=[],
        metavar="N",
        help="mock arms of N joints instead, for how the cost grows",
    )
    parser.add_argument(
        "--python", action="store_true", help="run all of a tick in Python, for a comparison"
    )
    parser.add_argument(
        "--priority", type=int, default=80, help="SCHED_FIFO priority, 0 for none (default: 80)"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Measure at every rate, and every number of joints if any is given, and print the figures."""
    rows = []
    out = sys.stderr if args.json else sys.stdout
    if args.dof and args.hardware != "mock":
        raise ConfigError("--dof is for --hardware mock, whose arms need no model")
    with tempfile.TemporaryDirectory() as folder:
        arms = [_arm_of(dof, Path(folder)) for dof in args.dof] or [args.arm]
        for arm, rate in itertools.product(arms, args.rates):
            runtime = RuntimeConfig.named("simulation", rate=rate, priority=args.priority)
            runtime = replace(runtime, compiled=not args.python, max_duration=2 * _DURATION)
            spec = StreamSpec(
                hardware=args.hardware, arm=arm, command_mode=MODES[args.hardware], runtime=runtime
            )
            row = measure(spec, args.seconds)
            row["c_loop"] = bare_loop(rate, args.seconds, args.priority)
            rows.append(row)
            _print(row, out)
    if args.json:
        report = {"hardware": args.hardware, "arm": args.arm, "cores": os.cpu_count(), "rows": rows}
        sys.stdout.write(json.dumps(report) + "\n")
    return 0


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


def _print(row: dict[str, Any], out: TextIO) -> None:
    """Print the figures of one rate in two lines."""
    late, cost, bare = row["lateness_us"], row["cost_us"], row["c_loop"]
    out.write(
        f"{row['rate_hz']:6.0f} Hz {row['dof']:2} joints  late p50 {late['p50']:.1f} p99 "
        f"{late['p99']:.1f} max {late['max']:.0f} us  missed {row['missed']} of "
        f"{row['ticks'] + row['missed']}  cost p50 {cost['p50']:.0f} p99 {cost['p99']:.0f} "
        f"p99.9 {cost['p999']:.0f} us ({row['load_percent']:.0f} % of a period)  "
        f"stolen {row['stolen_percent']:.0f} %  loop: {row['loop']}\n"
    )
    if row["braked"]:
        out.write(f"           braked after {row['segments']} segments: {row['braked']}\n")
    if isinstance(bare, str):
        out.write(f"           C loop left out: {bare}\n")
        return
    late, ticks = bare["lateness_us"], bare["ticks"] + bare["missed"]
    out.write(
        f"  C loop   late p50 {late['p50']:.1f} p99 {late['p99']:.1f} "
        f"max {late['max']:.0f} us  missed {bare['missed']} of {ticks}\n"
    )


def measure(spec: StreamSpec, seconds: float) -> dict[str, Any]:
    """Return the figures of one streamer that follows segments for some time.

    Raises:
        StreamError: If the streamer cannot start, or ends by itself.
    """
    with StreamerHandle(spec, ("cube", "bin")) as stream:
        stream.request("follow", timeout=_FOLLOW_TIMEOUT)
        before, stolen = stream.tick_counts(), _stolen()
        pid, dof = stream.mailbox.report()["pid"], stream.mailbox.layout.dof
        memory = [_memory(pid)]
        _drive(stream, seconds)
        memory.append(_memory(pid))
        after, stolen = stream.tick_counts(), _stolen() - stolen
        report, granted = stream.mailbox.report(), stream.granted
        if problem := stream.problem or stream.close():
            raise StreamError(problem)
    counts = {name: after[name] - before[name] for name in after}
    ticks, missed = int(counts["ticks"]), int(counts["missed"])
    late, cost = (
        _quantiles(counts[bins].tolist(), float(before[worst]), float(after[worst]))
        for bins, worst in (("histogram", "worst"), ("costs", "costliest"))
    )
    return {
        "rate_hz": spec.runtime.rate,
        "dof": dof,
        "ticks": ticks,
        "missed": missed,
        "missed_percent": 100.0 * missed / max(1, ticks + missed),
        "lateness_us": late,
        "cost_us": cost,
        "load_percent": cost["p50"] * spec.runtime.rate * 1e-4,
        "segments": report["accepted"],
        "braked": report["reason"],
        "memory_mib": memory,
        "stolen_percent": 100.0 * stolen / seconds / (os.cpu_count() or 1),
        **granted,
    }


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


def bare_loop(rate: float, seconds: float, priority: int) -> dict[str, Any] | str:
    """Measure a loop in C on this machine, right after ours; return why not if it is not built.

    It sleeps by clock_nanosleep, spins as long as ours, works for 15 us a tick, and runs under the
    same scheduler with locked memory: what it is late by is the machine's.
    """
    if MISSING:
        return MISSING
    spin = min(RuntimeConfig().spin, 0.9 / rate - _WORK)
    numbers = (1e9 / rate, seconds * rate, spin * 1e9, _WORK * 1e9, priority)
    command = [sys.executable, "-c", _BARE, *(str(round(number)) for number in numbers)]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    if out.returncode:
        return out.stderr.strip().rpartition("\n")[2]
    missed, worst, counts = json.loads(out.stdout)
    late = _quantiles(counts, 0.0, worst * 1e-9)
    return {"ticks": sum(counts), "missed": missed, "lateness_us": late}


def _drive(stream: StreamerHandle, seconds: float) -> None:
    """Send a segment every 50 ms: a slow wave about the start."""
    dmp = DmpConfig()
    stream.prepare(dmp, _DURATION)
    stream.mailbox.state.load()
    home = np.array(stream.mailbox.state["y"])
    w, began = np.zeros((len(home), dmp.n_basis)), time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        g = home.copy()
        g[:-1] += 0.1 * np.sin(2.0 * np.pi * 0.25 * now)
        stream.send(g, w, time.monotonic())
        stream.mailbox.beat()
        time.sleep(0.05)


def _quantiles(bins: list[int], before: float, after: float) -> dict[str, float]:
    """Return quantiles and the longest of binned durations [us]; see ``worst_of``."""
    worst = worst_of(bins, before, after)
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    found = {name: quantile(bins, share, worst) * 1e6 for name, share in shares.items()}
    return {**found, "max": worst * 1e6}


def _memory(pid: int) -> float:
    """Return the memory of a process, with what it shares [MiB]."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _stolen() -> float:
    """Return the time, over all CPUs, that a hypervisor gave to other machines so far [s]."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")
