# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp bench latency``: measure how old an observation is when its segment moves the arm.

``ndp sim`` runs episodes, with its nodes, real DDS between them and a streamer of its own. This
process attaches to the streamer's shared memory and only reads: when the observation of each
segment was measured, and when the loop published the first setpoint of this segment. Between the
two lie the observer, Φ, DDS in both directions, and the hand-over.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ndp_ros import checkpoint
from ndp_ros.commands.arguments import positive
from ndp_ros.errors import StreamError
from ndp_ros.paths import find_checkpoint
from ndp_ros.streaming.layout import PHASES
from ndp_ros.streaming.mailbox import Mailbox

_START_TIMEOUT = 90.0
_POLL = 0.01
"""Time between two looks at the shared memory [s], far below the duration of a segment."""
_FOLLOWING = PHASES.index("following")
_STREAMER = "ndp_ros.streaming.process"
_EPILOG = """\
latency_ms is from an observation to the first setpoint of its segment, which is also the age of the
observation at the hand-over; passes_per_control_step is 1/k if no segment is lost; start_s is from
the start of ndp sim to the loop's first tick.

examples:
  ndp bench latency --json
  ndp bench latency --node-priority 0         without SCHED_FIFO for the nodes
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("--checkpoint", default="jaco_throw", help="(default: jaco_throw)")
    parser.add_argument("--episodes", type=positive, default=10, help="to play (default: 10)")
    parser.add_argument("--rate", type=positive, default=1000, help="of the loop (default: 1000)")
    parser.add_argument(
        "--node-priority",
        type=int,
        default=-1,
        metavar="N",
        help="SCHED_FIFO priority of policy and integrator node, 0 for none (default: their own)",
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Measure and print the figures.

    Raises:
        NdpError: If the simulated system cannot run.
    """
    saved = checkpoint.load(find_checkpoint(args.checkpoint))
    with tempfile.TemporaryDirectory() as folder:
        seen = _observe(args, Path(folder))
    latencies = 1e3 * np.array([first - stamp for stamp, first in seen.segments.values()])
    if not len(latencies):
        raise StreamError("no segment was followed: see what ndp sim says above")
    steps = seen.ticks / args.rate / (saved.spec.segment_duration / saved.spec.k)
    report: dict[str, Any] = {
        "checkpoint": saved.id,
        "rate_hz": args.rate,
        "node_priority": args.node_priority if args.node_priority >= 0 else "default",
        "segments": len(latencies),
        "latency_ms": {
            **{f"p{q}": float(np.percentile(latencies, q)) for q in (50, 99)},
            "max": float(latencies.max()),
        },
        "passes_per_control_step": len(latencies) / steps,
        "one_over_k": 1.0 / saved.spec.k,
        "start_s": seen.first_tick,
        **{name: seen.counts[name] for name in ("dropped", "refused")},
    }
    late, out = report["latency_ms"], sys.stderr if args.json else sys.stdout
    out.write(
        f"{len(latencies)} segments  observation to first setpoint p50 {late['p50']:.2f} "
        f"p99 {late['p99']:.2f} max {late['max']:.2f} ms  "
        f"{report['passes_per_control_step']:.3f} forward passes a control step, 1/k = "
        f"{report['one_over_k']:.3f}  dropped {report['dropped']} refused {report['refused']}  "
        f"first tick after {report['start_s']:.1f} s\n"
    )
    if args.json:
        sys.stdout.write(json.dumps(report) + "\n")
    return 0


class Seen:
    """Readings of a streamer's memory.

    Attributes:
        segments: Time of the observation and of the first setpoint [s, CLOCK_MONOTONIC] by the
            number of the segment.
        ticks: Number of ticks that followed a segment.
        counts: The last status.
        first_tick: When the loop's first tick was seen [s], in the end since the system's start.
    """

    def __init__(self) -> None:
        self.segments: dict[int, tuple[float, float]] = {}
        self.ticks = 0
        self.counts: dict[str, Any] = {"dropped": 0, "refused": 0}
        self.first_tick = math.nan
        self._stamps: dict[int, float] = {}

    def read(self, mailbox: Mailbox) -> None:
        """Read what is new."""
        if mailbox.segment.load():
            self._stamps[int(mailbox.segment["sequence"])] = float(mailbox.segment["stamp"])
        samples, _ = mailbox.samples.read()
        if len(samples) and math.isnan(self.first_tick):
            self.first_tick = float(samples["time"][0])
        samples = samples[samples["phase"] == _FOLLOWING]
        self.ticks += len(samples)
        numbers, places = np.unique(samples["sequence"], return_index=True)
        for number, place in zip(numbers.tolist(), places.tolist(), strict=True):
            if number in self._stamps and number not in self.segments:
                self.segments[number] = self._stamps[number], float(samples["time"][place])
        if mailbox.status.load():
            self.counts = mailbox.report()


def _observe(args: argparse.Namespace, folder: Path) -> Seen:
    """Run episodes and read along until they are over."""
    nodes = {"integrator_node": {"record_rate": float(args.rate)}, "policy_node": {}}
    if args.node_priority >= 0:
        for parameters in nodes.values():
            parameters["node_priority"] = args.node_priority
    file = folder / "nodes.yaml"
    # JSON is YAML.
    file.write_text(json.dumps({name: {"ros__parameters": p} for name, p in nodes.items() if p}))
    options = {
        "checkpoint": args.checkpoint,
        "throws": args.episodes,
        "rate": args.rate,
        "record": "none",
        "params-file": file,
        "out": folder,
    }
    command = [sys.executable, "-m", "ndp_ros.cli", "sim", "--no-describe"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    seen, began = Seen(), time.monotonic()
    with subprocess.Popen(command, stdout=sys.stderr) as system:
        try:
            with mailbox_of(system) as mailbox:
                while system.poll() is None:
                    seen.read(mailbox)
                    time.sleep(_POLL)
        finally:
            system.terminate()
            status = system.wait()
    seen.first_tick -= began
    if status:
        sys.stderr.write(f"ndp sim has ended with status {status}: figures are those until then\n")
    return seen


def mailbox_of(system: subprocess.Popen[bytes]) -> Mailbox:
    """Attach to the memory of the streamer that a system starts, once it has."""
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline and system.poll() is None:
        for pid in _descendants(system.pid):
            words = _command_line(pid)
            if _STREAMER in words and "--mailbox" in words:
                return Mailbox.attach(words[words.index("--mailbox") + 1])
        time.sleep(_POLL)
    raise StreamError("ndp sim has started no streamer")


def _descendants(pid: int) -> Iterator[int]:
    """Yield the processes below one, which may end meanwhile."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                for child in (task / "children").read_text().split():
                    yield int(child)
                    yield from _descendants(int(child))


def _command_line(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    return []
