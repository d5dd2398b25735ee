"""What one Kortex cycle costs the client: from sending a command to decoded feedback.

Candidates take turns in short batches against the same process, so that a busy machine
changes all of them alike:

- ``ours``: :class:`ndp_ros.arms.kortex.channel.DatagramChannel` with the command as a
  fixed layout;
- ``classic``: a client of the usual shape, written here for comparison: messages set
  field by field, a thread that receives, a future for each request. It is not the
  vendor's code, and stands in for it where that is not installed;
- ``vendor``: the vendor's own client, where ``kortex_api`` can be imported.

They talk to a ``responder``, which answers every datagram with one ready feedback, and
to the ``emulator``, which also moves an arm.

    python benchmarks/bench_kortex.py [--cycles 4000] [--json]

Figures: the least over batches of the median wall time and of the mean CPU time of a
cycle [us], each with six joints commanded (position, velocity, torque, number) and
three values read from each joint. Progress goes to standard error; with ``--json``
standard output ends with one JSON object.
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future

import numpy as np

from ndp_ros.arms.kortex.client import KortexClient
from ndp_ros.arms.kortex.codes import ServoingMode
from ndp_ros.arms.kortex.credentials import Credentials
from ndp_ros.arms.kortex.datagrams import DatagramChannel
from ndp_ros.arms.kortex.emulator.config import EmulatorConfig
from ndp_ros.arms.kortex.emulator.process import EmulatorProcess
from ndp_ros.arms.kortex.schema import MESSAGES, METHODS, message
from ndp_ros.arms.kortex.wire import CyclicRequest, FrameType, decode_frame, encode_frame

HOST = "127.0.0.1"
N = 6
BATCH = 250
REFRESH = METHODS["BaseCyclic.Refresh"]


def respond() -> None:
    """Answer every datagram with one ready feedback, its numbers set; until killed."""
    feedback = message("Feedback")
    for field in feedback.base.DESCRIPTOR.fields:
        setattr(feedback.base, field.name, 1)
    for _ in range(N):
        actuator = feedback.actuators.add()
        for field in actuator.DESCRIPTOR.fields:
            setattr(actuator, field.name, 1)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((HOST, 0))
    print(udp.getsockname()[1], flush=True)
    while True:
        data, address = udp.recvfrom(65507)
        header, payload = decode_frame(data)
        feedback.frame_id = MESSAGES["Command"].FromString(payload).frame_id
        answer = header._replace(kind=FrameType.RESPONSE, session=1)
        udp.sendto(encode_frame(answer, feedback.SerializeToString()), address)


class Ours:
    """The client of this project."""

    def __init__(self, channel: DatagramChannel) -> None:
        self.channel, self.request = channel, CyclicRequest(N)

    def cycle(self, position: np.ndarray) -> list[tuple[float, float, float]]:
        """Command six joints, read six joints."""
        request = self.request
        request.position[:], request.velocity[:], request.torque[:] = position, 0.0, 0.0
        feedback = self.channel.exchange(request, 1.0)
        return [(a.position, a.velocity, a.torque) for a in feedback.actuators]


class Classic:
    """A client of the usual shape."""

    def __init__(self, port: int, session: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((HOST, port))
        self.session, self.number = session, 0
        self.waiting: dict[int, Future] = {}
        self.lock = threading.Lock()
        self.command = message("Command")
        for _ in range(N):
            self.command.actuators.add()
        threading.Thread(target=self.receive, daemon=True).start()

    def receive(self) -> None:
        """Give each answer to its future."""
        while True:
            frame = MESSAGES["Frame"].FromString(self.socket.recv(65507))
            with self.lock:
                future = self.waiting.pop(frame.header.message_info & 0xFFFF, None)
            if future is not None:
                future.set_result(frame)

    def call(self, method, request):
        """Send a request and wait for its future."""
        future: Future = Future()
        with self.lock:
            self.number = self.number % 65535 + 1
            self.waiting[self.number] = future
        payload = request.SerializeToString()
        frame = message("Frame", payload=payload)
        frame.header.frame_info = 1 << 28 | FrameType.REQUEST << 24
        frame.header.message_info = self.session << 16 | self.number
        frame.header.service_info = 1 << 28 | method.uid
        frame.header.payload_info = len(payload)
        self.socket.send(frame.SerializeToString())
        frame = future.result(1.0)
        if frame.header.frame_info >> 12 & 0xF:
            raise RuntimeError(MESSAGES["Error"].FromString(frame.payload))
        self.session = frame.header.message_info >> 16
        return method.response.FromString(frame.payload)

    def cycle(self, position: np.ndarray) -> list[tuple[float, float, float]]:
        """Command six joints, read six joints."""
        command = self.command
        command.frame_id = command.frame_id % 65535 + 1
        for i in range(N):
            actuator = command.actuators[i]
            actuator.command_id = command.frame_id
            actuator.position = position[i]
            actuator.velocity = 0.0
            actuator.torque_joint = 0.0
        feedback = self.call(REFRESH, command)
        return [(a.position, a.velocity, a.torque) for a in feedback.actuators]


class Vendor:
    """The vendor's client; raises ImportError where it is not installed."""

    def __init__(self, port: int, log_in: bool) -> None:
        from kortex_api.autogen.client_stubs.BaseCyclicClientRpc import BaseCyclicClient
        from kortex_api.autogen.messages import BaseCyclic_pb2, Session_pb2
        from kortex_api.RouterClient import RouterClient
        from kortex_api.SessionManager import SessionManager
        from kortex_api.UDPTransport import UDPTransport

        transport = UDPTransport()
        router = RouterClient(transport, lambda error: print(error, file=sys.stderr))
        transport.connect(HOST, port)
        if log_in:
            info = Session_pb2.CreateSessionInfo(
                username="admin", password="admin",
                session_inactivity_timeout=60000, connection_inactivity_timeout=2000,
            )  # fmt: skip
            SessionManager(router).CreateSession(info)
        self.client, self.command = BaseCyclicClient(router), BaseCyclic_pb2.Command()
        for _ in range(N):
            self.command.actuators.add()

    def cycle(self, position: np.ndarray) -> list[tuple[float, float, float]]:
        """Command six joints, read six joints."""
        command = self.command
        command.frame_id = command.frame_id % 65535 + 1
        for i in range(N):
            actuator = command.actuators[i]
            actuator.command_id = command.frame_id
            actuator.position = position[i]
            actuator.velocity = 0.0
            actuator.torque_joint = 0.0
        feedback = self.client.Refresh(command)
        return [(a.position, a.velocity, a.torque) for a in feedback.actuators]


def compare(candidates, position, cycles, prepare=lambda name: None):
    """Return for each candidate the least median wall and mean CPU time of its batches [us]."""
    best = {name: {"wall_us": np.inf, "cpu_us": np.inf} for name in candidates}
    for _ in range(max(1, cycles // BATCH)):
        for name, client in candidates.items():
            prepare(name)
            client.cycle(position)
            walls = np.empty(BATCH)
            cpu = time.process_time_ns()
            for k in range(BATCH):
                begin = time.perf_counter_ns()
                client.cycle(position)
                walls[k] = time.perf_counter_ns() - begin
            cpu = (time.process_time_ns() - cpu) / BATCH
            row = best[name]
            row["wall_us"] = min(row["wall_us"], round(float(np.median(walls)) / 1e3, 1))
            row["cpu_us"] = min(row["cpu_us"], round(cpu / 1e3, 1))
    return best


def with_vendor(candidates, port, log_in):
    """Add the vendor's client where there is one."""
    try:
        candidates["vendor"] = Vendor(port, log_in)
    except ImportError:
        print("kortex_api is not installed: no vendor column", file=sys.stderr)
    return candidates


def against_responder(cycles):
    """Compare where the other side costs as little as it can."""
    with subprocess.Popen(
        [sys.executable, __file__, "--respond"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        channel = DatagramChannel(HOST, port)
        candidates = with_vendor(
            {"ours": Ours(channel), "classic": Classic(port, 1)}, port, log_in=False
        )
        try:
            return compare(candidates, np.zeros(N), cycles)
        finally:
            process.kill()


def against_emulator(cycles):
    """Compare where the other side moves an arm."""
    config = EmulatorConfig(port=0, udp_port=0, watchdog=10.0, control_grace=0.0)
    with EmulatorProcess(config) as process:
        client = KortexClient(HOST, Credentials(), process.port, process.udp_port)
        position = np.array([a.position for a in client.feedback().actuators])
        classic = Classic(process.udp_port, 0)
        info = message(
            "CreateSessionInfo", username="admin", password="admin",
            session_inactivity_timeout=60000, connection_inactivity_timeout=60000,
        )  # fmt: skip
        classic.call(METHODS["Session.CreateSession"], info)
        candidates = with_vendor(
            {"ours": Ours(client.datagrams), "classic": classic}, process.udp_port, log_in=True
        )

        def prepare(name: str) -> None:
            # One session has control at a time: give it back before the next one's turn.
            client.set_servoing_mode(ServoingMode.SINGLE_LEVEL)
            client.set_servoing_mode(ServoingMode.LOW_LEVEL)

        try:
            return compare(candidates, position, cycles, prepare)
        finally:
            client.set_servoing_mode(ServoingMode.SINGLE_LEVEL)
            client.close()


def main() -> int:
    """Run all comparisons and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cycles", type=int, default=4000, help="cycles of each candidate")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--respond", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.respond:
        try:
            respond()
        except KeyboardInterrupt:
            return 0
    if args.cycles < 1:
        parser.error("--cycles must be at least 1")
    import google.protobuf
    from google.protobuf.internal import api_implementation

    result = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "protobuf": f"{google.protobuf.__version__} {api_implementation.Type()}",
        "responder": against_responder(args.cycles),
        "emulator": against_emulator(args.cycles),
    }
    for server in ("responder", "emulator"):
        rows = result[server]
        for name in rows:
            if name != "ours":
                rows[name]["ours_over_this"] = round(
                    rows["ours"]["wall_us"] / rows[name]["wall_us"], 2
                )
            print(f"{server:10} {name:8} {rows[name]}", file=sys.stderr)
    if args.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
