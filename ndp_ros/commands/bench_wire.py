# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp bench wire``: time a Kortex cycle of this client against its floor, two system calls.

A responder in a process of its own answers every datagram with the same feedback. A cycle of
``ours`` lasts from filling a command for six joints to decoded feedback; ``parsed`` is the same
without a known layout, by protobuf; ``whole`` is that of the loop, in SI units, checked and
confirmed, without compiled code. ``floor`` sends and receives the same bytes and does nothing with
them. All take turns in short batches, so that a busy machine affects them alike.
``benchmarks/kortex_vendor.py`` measures Kinova's client.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from ndp_ros.arms.kortex.config import KortexConfig
from ndp_ros.arms.kortex.cycle import Cycle
from ndp_ros.arms.kortex.datagrams import DatagramChannel
from ndp_ros.arms.kortex.feedback import FeedbackReader, Measured
from ndp_ros.arms.kortex.schema import MESSAGES, message
from ndp_ros.arms.kortex.wire import CyclicRequest, FrameType, decode_frame, encode_frame
from ndp_ros.commands.arguments import positive
from ndp_ros.control.arm import COMMAND_MODES, ArmConfig, ArmInfo, Command

_HOST = "127.0.0.1"
_ARM = "gen3"
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
    floor = rows["floor"]["cpu_us"]
    out = sys.stderr if args.json else sys.stdout
    for name, row in rows.items():
        out.write(
            f"{name:6} {row['cpu_us']:6.1f} us CPU, {row['wall_us']:6.1f} us wall clock, "
            f"{row['cpu_us'] / floor:5.2f} x the floor\n"
        )
    if args.json:
        ratio = round(rows["ours"]["cpu_us"] / floor, 2)
        sys.stdout.write(json.dumps({**rows, "over_floor": ratio}) + "\n")
    return 0


def _compare(port: int, cycles: int) -> dict[str, dict[str, float]]:
    """Return the least mean CPU time and median wall time of the batches of each contestant."""
    channel, request = DatagramChannel(_HOST, port), CyclicRequest(_JOINTS)
    position, reader = np.zeros(_JOINTS), channel.reader(_JOINTS)

    def exchange(reader: FeedbackReader | None) -> Any:
        request.position[:], request.velocity[:], request.torque[:] = position, 0.0, 0.0
        channel.send(request)
        feedback = channel.receive(1.0, reader)
        assert feedback is not None, "no answer within a second"
        return feedback

    def ours() -> Measured:
        feedback = exchange(reader)
        return feedback if isinstance(feedback, Measured) else Measured.of(feedback)

    def parsed() -> list[tuple[float, float, float]]:
        return [(a.position, a.velocity, a.torque) for a in exchange(None).actuators]

    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plain.connect((_HOST, port))
    ours()
    sent = bytes(request.data)

    def floor() -> bytes:
        plain.send(sent)
        return plain.recv(65507)

    contestants: dict[str, Callable[[], object]] = {
        "ours": ours,
        "parsed": parsed,
        "whole": _whole(DatagramChannel(_HOST, port)),
        "floor": floor,
    }
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


def _whole(channel: DatagramChannel) -> Callable[[], object]:
    """Return a cycle of the loop: a command in SI units out, a confirmed measurement back."""
    info = ArmInfo.from_config(ArmConfig.named(_ARM), COMMAND_MODES, confirmed=True)
    client = SimpleNamespace(
        host=_HOST,
        has_gripper=True,
        datagrams=channel,
        feedback=lambda: channel.call("BaseCyclic.RefreshFeedback"),
    )
    loop = Cycle(cast(Any, client), KortexConfig(robot_ip=_HOST), info)
    command = Command.zeros(info.dof, "position")

    def cycle() -> None:
        loop.command(command)
        assert loop.receive(1.0) and not loop.unconfirmed, loop.unconfirmed or "no answer"

    return cycle


def respond() -> None:
    """Print a port, then answer every datagram with the same complete feedback until killed."""
    feedback = message("Feedback")
    actuators = [feedback.actuators.add() for _ in range(_JOINTS)]
    for part in (feedback.base, *actuators, feedback.interconnect.gripper_feedback.motor.add()):
        for field in part.DESCRIPTOR.fields:
            # Faults are left out by every encoder as long as there are none.
            setattr(part, field.name, 0 if field.name.startswith("fault") else 1)
    for actuator in actuators:
        actuator.velocity = 1e-6  # at rest
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
