"""``ndp bench wire``: time a Kortex cycle of this client against its floor, two system calls.

A responder in a process of its own answers every datagram with the same feedback. A cycle of
``ours`` lasts from filling a command for six joints to decoded feedback; ``floor`` sends and
receives the same bytes and does nothing with them. Both take turns in short batches, so that a busy
machine affects them alike. ``benchmarks/kortex_vendor.py`` measures Kinova's client.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from ndp_ros.arms.kortex.datagrams import DatagramChannel
from ndp_ros.arms.kortex.schema import MESSAGES, message
from ndp_ros.arms.kortex.wire import CyclicRequest, FrameType, decode_frame, encode_frame
from ndp_ros.commands.arguments import positive

_HOST = "127.0.0.1"
_JOINTS = 6
_BATCH = 250


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--cycles", type=positive, default=5000, help="of each (default: 5000)")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Measure and print one row per contestant."""
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            rows = _compare(int(process.stdout.readline()), args.cycles)
        finally:
            process.kill()
    ratio = round(rows["ours"]["cpu_us"] / rows["floor"]["cpu_us"], 2)
    out = sys.stderr if args.json else sys.stdout
    for name, row in rows.items():
        out.write(f"{name:6} {row['cpu_us']:6.1f} us CPU, {row['wall_us']:6.1f} us wall clock\n")
    out.write(f"ours is {ratio:.2f} x the floor\n")
    if args.json:
        sys.stdout.write(json.dumps({**rows, "over_floor": ratio}) + "\n")
    return 0


def _compare(port: int, cycles: int) -> dict[str, dict[str, float]]:
    """Return the least mean CPU time and median wall time of the batches of each contestant."""
    channel, request = DatagramChannel(_HOST, port), CyclicRequest(_JOINTS)
    position = np.zeros(_JOINTS)

    def ours() -> list[tuple[float, float, float]]:
        request.position[:], request.velocity[:], request.torque[:] = position, 0.0, 0.0
        feedback = channel.exchange(request, 1.0)
        assert feedback is not None, "no answer within a second"
        return [(a.position, a.velocity, a.torque) for a in feedback.actuators]

    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plain.connect((_HOST, port))
    ours()
    sent = bytes(request.data)

    def floor() -> bytes:
        plain.send(sent)
        return plain.recv(65507)

    contestants: dict[str, Callable[[], object]] = {"ours": ours, "floor": floor}
    best = {name: {"cpu_us": np.inf, "wall_us": np.inf} for name in contestants}
    for _ in range(max(1, cycles // _BATCH)):
        for name, cycle in contestants.items():
            cycle()
            walls, start = np.empty(_BATCH), time.process_time_ns()
            for i in range(_BATCH):
                begin = time.perf_counter_ns()
                cycle()
                walls[i] = time.perf_counter_ns() - begin
            row, cpu = best[name], (time.process_time_ns() - start) / _BATCH
            row["cpu_us"] = min(row["cpu_us"], round(cpu / 1e3, 1))
            row["wall_us"] = min(row["wall_us"], round(float(np.median(walls)) / 1e3, 1))
    plain.close()
    return best


def respond() -> None:
    """Print a port, then answer every datagram with the same complete feedback until killed."""
    feedback = message("Feedback")
    parts = [feedback.base, *(feedback.actuators.add() for _ in range(_JOINTS))]
    for part in parts:
        for field in part.DESCRIPTOR.fields:
            setattr(part, field.name, 1)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((_HOST, 0))
    sys.stdout.write(f"{udp.getsockname()[1]}\n")
    sys.stdout.flush()
    while True:
        data, address = udp.recvfrom(65507)
        header, payload = decode_frame(data)
        feedback.frame_id = MESSAGES["Command"].FromString(payload).frame_id
        answer = header._replace(kind=FrameType.RESPONSE, session=1)
        udp.sendto(encode_frame(answer, feedback.SerializeToString()), address)


if __name__ == "__main__":
    respond()
