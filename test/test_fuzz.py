# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Input from outside is understood, or refused by an error of this package and no other.

A short run is part of the suite; ``make fuzz`` runs many more examples.
"""

from __future__ import annotations

import json
import random
import shutil
import socket
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kortex_support import HOST, PATIENT

from ndp_ros import checkpoint
from ndp_ros.arms.kortex.datagrams import DatagramChannel
from ndp_ros.arms.kortex.errors import KortexError, ProtocolError
from ndp_ros.arms.kortex.schema import MESSAGES, METHODS
from ndp_ros.arms.kortex.wire import (
    MAGIC,
    CyclicRequest,
    Header,
    StreamReader,
    decode_frame,
    delimit,
    encode_frame,
    fast_header,
    fast_payload,
)
from ndp_ros.config import from_mapping, load
from ndp_ros.control.arm import ArmConfig
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.emulator.process import EmulatorProcess
from ndp_ros.errors import CheckpointError, ConfigError, NdpError
from ndp_ros.nodes.surroundings import Surroundings
from ndp_ros.paths import find_checkpoint
from ndp_ros.streaming.config import RuntimeConfig
from ndp_ros.training.config import RunConfig

pytestmark = pytest.mark.fuzz
quiet = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

UIDS = sorted(method.uid for method in METHODS.values())
headers = st.builds(
    Header,
    kind=st.integers(0, 15),
    version=st.integers(0, 15),
    uid=st.one_of(st.sampled_from(UIDS), st.integers(0, 2**28 - 1)),
    message=st.integers(0, 65535),
    session=st.integers(0, 65535),
    device=st.integers(0, 255),
    error_code=st.integers(0, 15),
    error_sub_code=st.integers(0, 4095),
)
feedbacks = st.builds(
    lambda number, values: _feedback(number, values),
    st.integers(0, 2**32 - 1),
    st.lists(st.floats(width=32), max_size=24),
)
payloads = st.one_of(st.binary(max_size=80), feedbacks)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)


def _feedback(number: int, values: list[float]) -> bytes:
    message = MESSAGES["Feedback"](frame_id=number)
    for value in values:
        message.actuators.add(position=value, velocity=-value, torque=value)
    return message.SerializeToString()


@quiet
@given(st.one_of(st.binary(max_size=200), st.builds(encode_frame, headers, payloads)))
def test_bytes_are_a_frame_or_a_protocol_error(data) -> None:
    try:
        header, payload = decode_frame(data)
    except ProtocolError:
        return
    assert 0 <= header.message < 65536
    if fast_header(data) is not None:
        try:
            assert fast_payload(data) == payload
        except ProtocolError:
            assert len(data) > 22


@quiet
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(lambda h, p: delimit(encode_frame(h, p)), headers, payloads),
            st.builds(lambda n: MAGIC + struct.pack(">I", n), st.integers(0, 2**32 - 1)),
        ),
        max_size=8,
    ),
    st.integers(1, 50),
)
def test_a_stream_in_any_pieces_is_frames_or_a_protocol_error(parts, size) -> None:
    reader, data = StreamReader(), b"".join(parts)
    try:
        for start in range(0, len(data), size):
            for frame in reader.feed(data[start : start + size]):
                assert len(frame) <= 1024 * 1024
            reader.expect_progress(0.0)
    except ProtocolError:
        pass


@pytest.fixture(scope="module")
def wire():
    """Return a datagram channel and the socket at its other end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as arm:
        arm.bind((HOST, 0))
        channel = DatagramChannel(HOST, arm.getsockname()[1], 1.0)
        yield channel, arm
        channel.close()


@quiet
@given(
    st.lists(
        st.one_of(st.binary(max_size=100), st.builds(encode_frame, headers, payloads)), max_size=6
    )
)
def test_datagrams_of_any_kind_are_feedback_or_an_error_of_ours(wire, datagrams) -> None:
    channel, arm = wire
    channel.send(CyclicRequest(6))
    client = arm.recvfrom(65507)[1]
    for datagram in datagrams:
        arm.sendto(datagram, client)
    for _ in range(len(datagrams) + 1):
        try:
            if channel.receive(0.0) is None:
                break
        except KortexError:
            pass


@quiet
@given(values=st.dictionaries(st.text(max_size=12), plain, max_size=5), known=st.data())
@pytest.mark.parametrize("kind", [RuntimeConfig, ArmConfig, RunConfig, DmpConfig, Surroundings])
def test_values_are_a_configuration_or_a_config_error(kind, values, known) -> None:
    names = sorted(kind.__dataclass_fields__)
    for name in known.draw(st.lists(st.sampled_from(names), max_size=4)):
        values[name] = known.draw(plain)
    try:
        from_mapping(kind, values, source="fuzz")
    except NdpError as error:
        assert "\n" not in str(error) or len(str(values)) > 0


@quiet
@given(st.one_of(st.binary(max_size=120), st.text(max_size=120).map(str.encode)))
def test_a_file_is_yaml_or_a_config_error(tmp_path, content) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(content)
    try:
        load(RuntimeConfig, path)
    except ConfigError as error:
        assert str(path) in str(error)


@quiet
@given(
    where=st.sampled_from(["config.json", "model.safetensors"]),
    seed=st.integers(0, 2**32 - 1),
    how=st.sampled_from(["flip", "cut", "insert", "value"]),
)
def test_a_damaged_checkpoint_is_refused_or_runs(tmp_path, where, seed, how) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(find_checkpoint("jaco_throw"), folder, dirs_exist_ok=True)
    dice = random.Random(seed)
    data = bytearray((folder / where).read_bytes())
    place = dice.randrange(len(data))
    if how == "flip":
        data[place] ^= 1 << dice.randrange(8)
    elif how == "cut":
        del data[place:]
    elif how == "insert":
        data[place:place] = dice.randbytes(dice.randrange(1, 20))
    elif where == "config.json":
        config = json.loads(data)
        spec = config["spec"]
        spec[dice.choice(sorted(spec))] = dice.choice([None, -1, 1e300, "x", [], {}, [1e9], True])
        data = bytearray(json.dumps(config).encode())
    (folder / where).write_bytes(data)
    try:
        loaded = checkpoint.load(folder)
    except CheckpointError:
        return
    assert all(np.isfinite(a).all() for a in loaded.tensors.values())


numbers = st.one_of(st.floats(-10, 10), st.floats(), st.sampled_from([1e300, -1e300, 5e-324]))
names = st.one_of(st.just(["a", "b"]), st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=4))


@quiet
@given(
    names=names,
    goal=st.lists(numbers, min_size=2, max_size=3),
    age=numbers,
    data=st.data(),
    n_basis=st.one_of(st.integers(1, 6), st.integers(0, 2**16 - 1)),
)
def test_a_message_is_a_segment_or_is_rejected(names, goal, age, data, n_basis) -> None:
    pytest.importorskip("ndp_interfaces", reason="needs the message package")
    from ndp_interfaces.msg import DmpParameters

    from ndp_ros.nodes.messages import Parameters, parameters_from_message, parameters_to_message

    fits = Parameters(
        joint_names=("a", "b"),
        g=np.zeros(2),
        w=np.zeros((2, 3)),
        config=DmpConfig(n_basis=3),
        duration=0.2,
        stamp=1.0,
        session=1,
        sequence=1,
        checkpoint="x",
        origin=np.zeros(2),
    )
    message: DmpParameters = parameters_to_message(fits)
    message.joint_names, message.goal = names, goal
    size = 2 * n_basis if n_basis <= 6 else 3
    message.weights = data.draw(st.lists(numbers, min_size=size, max_size=size + 1))
    message.n_basis = n_basis
    kinds = message.get_fields_and_field_types()
    for name in data.draw(st.lists(st.sampled_from(sorted(kinds)), max_size=3)):
        if kinds[name] == "double":
            setattr(message, name, data.draw(numbers))
        elif kinds[name] == "string":
            setattr(message, name, data.draw(st.text(max_size=60)))
    try:
        segment = parameters_from_message(message, ("a", "b"), age, 0.5)
    except NdpError:
        return
    assert np.isfinite(segment.g).all() and np.isfinite(segment.w).all()
    assert segment.duration > 0.0


@pytest.fixture(scope="module")
def emulator():
    with EmulatorProcess(PATIENT) as process:
        yield process


COMMANDS = [
    "state",
    "record",
    "rows",
    "clear",
    "network",
    "cut_udp",
    "cut_tcp",
    "fault",
    "end_sessions",
    "reset",
    "tool",
    "objects",
]


@quiet
@given(
    command=st.one_of(st.sampled_from(COMMANDS), plain),
    arguments=st.dictionaries(
        st.sampled_from(["seed", "newest", "seconds", "actuator", "name", "loss", "delay", "x"]),
        plain,
        max_size=3,
    ),
)
def test_the_port_for_experiments_answers_anything(emulator, command, arguments) -> None:
    port = emulator.control_port
    line = json.dumps({"do": command, **arguments}).encode() + b"\n"
    with socket.create_connection((HOST, port), 20.0) as connection:
        connection.sendall(line)
        assert json.loads(connection.recv(1 << 20) or b"{}").keys() <= {"ok", "error"}
    assert emulator.running
