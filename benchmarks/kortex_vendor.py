# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Measure the cost of a Kortex cycle to this package's client and to Kinova's own, in one run.

Both command six joints of one emulated arm and read three values of each joint, in short batches
that take turns, so that a busy machine affects both alike. A cycle lasts from filling the command
to decoded feedback, the arm's answer included.

Kinova's package ``kortex_api`` must be installed for the interpreter that runs its side. Its
generated messages use protobuf's compiled backend only up to 3.20, which needs Python 3.10 or
older: give such an interpreter with ``--vendor-python`` for its best figure.

    python benchmarks/kortex_vendor.py --vendor-python ~/vendor/bin/python --json

Progress goes to standard error; with ``--json`` standard output ends with one JSON object.
"""

from __future__ import annotations

# The vendor's side runs this file with another interpreter: only the standard library up here.
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

HOST = "127.0.0.1"
N = 6
BATCH = 250
TIMEOUT = 10.0
PROTOBUF = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"


def batch(cycle: Callable[[], object], n: int, rate: float) -> tuple[list[float], float]:
    """Return wall times of n cycles [us] and the mean CPU time of one [us]."""
    walls, period = [], 1.0 / rate if rate else 0.0
    cycle()
    cpu, due = time.process_time(), time.perf_counter()
    for _ in range(n):
        begin = time.perf_counter()
        cycle()
        end = time.perf_counter()
        walls.append(1e6 * (end - begin))
        due += period
        if due > end:
            time.sleep(due - end)
    return walls, 1e6 * (time.process_time() - cpu) / n


def vendor(port: int) -> None:
    """Measure the vendor's client: for each line ``n rate`` of input a line of JSON."""
    try:
        from kortex_api.autogen.client_stubs.BaseCyclicClientRpc import BaseCyclicClient
        from kortex_api.autogen.messages import BaseCyclic_pb2, Session_pb2
        from kortex_api.RouterClient import RouterClient
        from kortex_api.SessionManager import SessionManager
        from kortex_api.UDPTransport import UDPTransport
    except ImportError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    except TypeError:
        if os.environ.get(PROTOBUF) == "python":
            raise
        # A compiled backend that refuses messages as old as these.
        os.environ[PROTOBUF] = "python"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    import google.protobuf
    from google.protobuf.internal import api_implementation

    transport = UDPTransport()
    router = RouterClient(transport, lambda error: print(error, file=sys.stderr))
    transport.connect(HOST, port)
    info = Session_pb2.CreateSessionInfo()
    info.username = info.password = "admin"
    info.session_inactivity_timeout = info.connection_inactivity_timeout = 60000
    manager = SessionManager(router)
    manager.CreateSession(info)
    client, command = BaseCyclicClient(router), BaseCyclic_pb2.Command()
    for actuator in client.RefreshFeedback().actuators:
        command.actuators.add(position=actuator.position, flags=1)
    position = [actuator.position for actuator in command.actuators]
    backend = f"{google.protobuf.__version__} {api_implementation.Type()}"
    print(json.dumps({"python": platform.python_version(), "protobuf": backend}), flush=True)

    def cycle() -> list[tuple[float, float, float]]:
        command.frame_id = command.frame_id % 65535 + 1
        for i in range(N):
            actuator = command.actuators[i]
            actuator.command_id = command.frame_id
            actuator.position = position[i]
            actuator.velocity = 0.0
            actuator.torque_joint = 0.0
        feedback = client.Refresh(command)
        return [(a.position, a.velocity, a.torque) for a in feedback.actuators]

    for line in sys.stdin:
        n, rate = line.split()
        print(json.dumps(batch(cycle, int(n), float(rate))), flush=True)
    manager.CloseSession()
    transport.disconnect()


class Worker:
    """The vendor's client in a process of its own."""

    def __init__(self, interpreter: str, port: int) -> None:
        self._process = subprocess.Popen(
            [interpreter, __file__, "--vendor", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the vendor's side ended without an answer")
        return json.loads(line)

    def batch(self, n: int, rate: float) -> Any:
        """Measure one batch."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{n} {rate}\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=10.0)


def row(batches: list[tuple[list[float], float]]) -> dict[str, Any]:
    """Return the figures of one client [us]."""
    walls = [wall for walls, _ in batches for wall in walls]
    return {
        "median_us": round(statistics.median(walls), 1),
        "best_batch_us": round(min(statistics.median(walls) for walls, _ in batches), 1),
        "p99_us": round(statistics.quantiles(walls, n=100)[98], 1),
        "cpu_us": round(statistics.median(cpu for _, cpu in batches), 1),
        "cycles": len(walls),
    }


def compare(interpreter: str, cycles: int, rate: float) -> dict[str, dict[str, Any]]:
    """Return the figures of both clients against one emulated arm."""
    import google.protobuf
    import numpy as np
    from google.protobuf.internal import api_implementation

    from ndp_ros.arms.kortex.client import KortexClient
    from ndp_ros.arms.kortex.codes import ServoingMode
    from ndp_ros.arms.kortex.credentials import Credentials
    from ndp_ros.arms.kortex.wire import CyclicRequest
    from ndp_ros.emulator.config import EmulatorConfig
    from ndp_ros.emulator.process import EmulatorProcess

    config = EmulatorConfig(port=0, udp_port=0, watchdog=10.0, control_grace=0.0)
    with EmulatorProcess(config) as process:
        worker = Worker(interpreter, process.udp_port)
        if "error" in worker.about:
            worker.close()
            raise SystemExit(
                f"{worker.about['error']}: {interpreter} has no kortex_api, Kinova's Python "
                "package; give an interpreter that has it with --vendor-python"
            )
        client = KortexClient(HOST, Credentials(), process.port, process.udp_port, TIMEOUT)
        position = np.array([a.position for a in client.feedback().actuators])
        request, datagrams = CyclicRequest(N), client.datagrams

        def cycle() -> list[tuple[float, float, float]]:
            request.position[:], request.velocity[:], request.torque[:] = position, 0.0, 0.0
            feedback = datagrams.exchange(request, TIMEOUT)
            assert feedback is not None, f"no answer within {TIMEOUT:g} s"
            return [(a.position, a.velocity, a.torque) for a in feedback.actuators]

        sides = {"ours": lambda n: batch(cycle, n, rate), "vendor": lambda n: worker.batch(n, rate)}
        found: dict[str, list[tuple[list[float], float]]] = {name: [] for name in sides}
        try:
            for turn in range(max(1, cycles // BATCH)):
                for name, measure in sides.items():
                    # One session has control at a time: give it back for the next one's turn.
                    client.set_servoing_mode(ServoingMode.SINGLE_LEVEL)
                    client.set_servoing_mode(ServoingMode.LOW_LEVEL)
                    found[name].append(measure(BATCH))
                print(f"{(turn + 1) * BATCH} of {cycles} cycles", file=sys.stderr)
            client.set_servoing_mode(ServoingMode.SINGLE_LEVEL)
        finally:
            worker.close()
            client.close()
    rows = {name: row(batches) for name, batches in found.items()}
    backend = f"{google.protobuf.__version__} {api_implementation.Type()}"
    rows["ours"] |= {"python": platform.python_version(), "protobuf": backend}
    rows["vendor"] |= worker.about
    return rows


def main() -> int:
    """Compare both clients and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cycles", type=int, default=5000, help="cycles of each client")
    parser.add_argument("--rate", type=float, default=0.0, help="cycles per second; 0: no pause")
    parser.add_argument(
        "--vendor-python", default=sys.executable, help="interpreter that has kortex_api"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--vendor", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.vendor is not None:
        vendor(args.vendor)
        return 0
    if args.cycles < 1 or args.rate < 0.0:
        parser.error("--cycles must be at least 1, --rate at least 0")
    rows = compare(args.vendor_python, args.cycles, args.rate)
    share = round(rows["ours"]["median_us"] / rows["vendor"]["median_us"], 2)
    result = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "rate": args.rate,
        **rows,
        "ours_over_vendor": share,
    }
    for name in ("ours", "vendor"):
        print(f"{name:7} {rows[name]}", file=sys.stderr)
    print(f"ours / vendor, medians: {share}", file=sys.stderr)
    if args.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
