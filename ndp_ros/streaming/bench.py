"""``ndp bench stream``: how punctual the streamer is on this machine, and what a tick costs.

A real streamer process follows segments, as under ROS, for some seconds at each rate. Lateness
is from a tick's deadline to its begin, cost is the loop's body with Ω and without the
simulator's physics; both are of the wall clock and so hold what the machine does beside
(``stolen`` is the share of time that a hypervisor gave to others).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ndp_ros.arguments import duration
from ndp_ros.arms.arm import ArmConfig
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response
from ndp_ros.errors import StreamError
from ndp_ros.streaming.clock import quantile
from ndp_ros.streaming.config import RuntimeConfig, StreamSpec
from ndp_ros.streaming.layout import MailboxLayout
from ndp_ros.streaming.mailbox import Mailbox
from ndp_ros.streaming.process import start

RATES = (500.0, 1000.0, 2000.0, 5000.0)
MODES = {"mock": "position", "mujoco": "torque"}

_DURATION = 0.25
_START_TIMEOUT = 60.0
_EPILOG = """\
Progress goes to standard error. With --json the last line of standard output is one JSON object;
each row has ticks, missed (periods without a tick; also in percent of all periods),
lateness_us and cost_us (p50, p99, p999, max), load_percent (median cost as a share of the period).

examples:
  ndp bench stream
  ndp bench stream --rates 1000 5000 --seconds 20 --hardware mujoco --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--rates", nargs="+", type=float, default=list(RATES), metavar="HZ",
        help="ticks per second (default: 500 1000 2000 5000)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=duration, default=10.0, help="for each rate (default: 10)"
    )
    parser.add_argument(
        "--hardware", choices=sorted(MODES), default="mujoco",
        help="mujoco steps the Throw scene in the loop, mock only loops (default: mujoco)",
    )  # fmt: skip
    parser.add_argument("--arm", default="jaco", help="as in config/arms/ (default: jaco)")
    parser.add_argument(
        "--priority", type=int, default=80, help="SCHED_FIFO priority, 0 for none (default: 80)"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Measure at every rate and print the figures."""
    rows = []
    out = sys.stderr if args.json else sys.stdout
    for rate in args.rates:
        runtime = RuntimeConfig.named("default", rate=rate, priority=args.priority)
        spec = StreamSpec(
            hardware=args.hardware, arm=args.arm, command_mode=MODES[args.hardware],
            runtime=replace(runtime, max_duration=2 * _DURATION),
        )  # fmt: skip
        row = measure(spec, args.seconds)
        rows.append(row)
        late, cost = row["lateness_us"], row["cost_us"]
        out.write(
            f"{rate:6.0f} Hz  late p50 {late['p50']:.1f} p99 {late['p99']:.1f} "
            f"max {late['max']:.0f} us  missed {row['missed']} of {row['ticks'] + row['missed']}  "
            f"cost p50 {cost['p50']:.0f} p99 {cost['p99']:.0f} us "
            f"({row['load_percent']:.0f} % of a period)  stolen {row['stolen_percent']:.0f} %\n"
        )
    if args.json:
        report = {"hardware": args.hardware, "arm": args.arm, "cores": os.cpu_count(), "rows": rows}
        sys.stdout.write(json.dumps(report) + "\n")
    return 0


def measure(spec: StreamSpec, seconds: float) -> dict[str, Any]:
    """Return the figures of one streamer that follows segments for some time.

    Raises:
        StreamError: If the streamer cannot start, or ends by itself.
    """
    dof, rate = len(ArmConfig.named(spec.arm).joint_names), spec.runtime.rate
    dmp = DmpConfig()
    B = response(dmp, np.arange(spec.runtime.rows(_DURATION)) / (rate * _DURATION))
    layout = MailboxLayout(dof, ("cube", "bin"), max_rows=spec.runtime.max_rows)
    with Mailbox.create(layout) as box:
        process = start(spec, box)
        try:
            deadline = time.monotonic() + _START_TIMEOUT
            while (hello := box.hello()) is None:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise StreamError("the streamer could not start")
                box.beat()
                time.sleep(0.01)
            box.wait(box.request("follow"), _START_TIMEOUT)
            before, stolen = _counts(box), _stolen()
            _drive(box, box.send_response(B, _DURATION), dmp.n_basis, seconds)
            after, stolen = _counts(box), _stolen() - stolen
            if process.poll() is not None:
                raise StreamError(f"the streamer ended: {box.report()['reason']}")
            box.wait(box.request("quit"), _START_TIMEOUT)
            process.wait(_START_TIMEOUT)
        finally:
            process.kill()
            process.wait()
        report = box.report()
    counts = {name: after[name] - before[name] for name in after}
    ticks, missed = int(counts["ticks"]), int(counts["missed"])
    cost = _quantiles(counts["costs"], report["cost_us"]["max"])
    return {
        "rate_hz": rate,
        "ticks": ticks,
        "missed": missed,
        "missed_percent": 100.0 * missed / max(1, ticks + missed),
        "lateness_us": _quantiles(counts["histogram"], report["lateness_us"]["max"]),
        "cost_us": cost,
        "load_percent": cost["p50"] * rate * 1e-4,
        "segments": report["accepted"],
        "stolen_percent": 100.0 * stolen / seconds / (os.cpu_count() or 1),
        **hello["realtime"],
    }


def _drive(box: Mailbox, response_handle: Any, n_basis: int, seconds: float) -> None:
    """Send a segment every 50 ms: a slow wave about the start."""
    box.state.load()
    home = np.array(box.state["y"])
    began, sequence = time.monotonic(), 0
    w = np.zeros((len(home), n_basis))
    while (now := time.monotonic() - began) < seconds:
        sequence += 1
        g = home.copy()
        g[:-1] += 0.1 * np.sin(2.0 * np.pi * 0.25 * now)
        box.send_segment(g, w, time.monotonic(), sequence, response_handle)
        box.beat()
        time.sleep(0.05)


def _counts(box: Mailbox) -> dict[str, Any]:
    time.sleep(0.1)
    box.status.load()
    return {n: np.array(box.status[n], np.int64) for n in ("ticks", "missed", "histogram", "costs")}


def _quantiles(counts: Any, worst: float) -> dict[str, float]:
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    bins = counts.tolist()
    found = {name: quantile(bins, share, worst * 1e-6) * 1e6 for name, share in shares.items()}
    return {**found, "max": worst}


def _stolen() -> float:
    """Return the time [s], over all CPUs, that a hypervisor gave to others so far."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")
