# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The wire: golden bytes, round trips through every codec, and the schema on any protobuf."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_ros.arms.kortex.errors import ProtocolError
from ndp_ros.arms.kortex.schema import MESSAGES, METHODS, message
from ndp_ros.arms.kortex.wire import (
    DELIMITER_SIZE,
    MAGIC,
    CyclicRequest,
    FrameType,
    Header,
    StreamReader,
    decode_frame,
    delimit,
    encode_frame,
    fast_header,
    fast_payload,
)

pytestmark = pytest.mark.live

REFRESH = METHODS["BaseCyclic.Refresh"].uid

headers = st.builds(
    Header,
    kind=st.sampled_from([1, 2, 3, 5, 7, 8]),
    uid=st.integers(0, 0xFFFFFFF),
    message=st.integers(0, 0xFFFF),
    session=st.integers(0, 0xFFFF),
    device=st.integers(0, 0xFF),
    error_code=st.integers(0, 0xF),
    error_sub_code=st.integers(0, 0xFFF),
    version=st.just(1),
)
finite = st.floats(-1000, 1000, width=32)


def test_refresh_request_has_the_bytes_that_were_seen_on_the_wire():
    frame = encode_frame(Header(FrameType.REQUEST, REFRESH, message=2, session=1), b"abc")
    assert frame.hex() == "0a140d0000001115020001001d0100031025030000001203616263"


def test_tcp_delimiter_is_a_token_and_the_length_in_network_order():
    assert delimit(b"x" * 258) == bytes.fromhex("0778457452 6f4b07 00000102") + b"x" * 258


@settings(max_examples=50, deadline=None)
@given(headers, st.binary(max_size=300))
def test_frame_round_trip(header, payload):
    assert decode_frame(encode_frame(header, payload)) == (header, payload)


@settings(max_examples=50, deadline=None)
@given(headers, st.binary(max_size=300))
def test_fast_path_reads_what_the_general_decoder_reads(header, payload):
    frame = encode_frame(header, payload)
    words = fast_header(frame)
    assert words is not None
    assert words[1] == header.session << 16 | header.message
    assert fast_payload(frame) == payload


@settings(max_examples=50, deadline=None)
@given(headers, st.binary(max_size=300))
def test_header_words_that_are_zero_may_be_left_out(header, payload):
    full = MESSAGES["Frame"].FromString(encode_frame(header, payload))
    assert decode_frame(full.SerializeToString()) == (header, payload)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=8), st.data())
def test_stream_is_cut_into_its_frames_whatever_pieces_it_comes_in(frames, data):
    stream = b"".join(map(delimit, frames))
    reader, received, at = StreamReader(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        received += reader.feed(stream[at : at + size])
        at += size
    assert received == frames
    assert reader.skipped == 0


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=40).filter(lambda junk: MAGIC[0] not in junk), st.binary(max_size=40))
def test_stream_finds_its_place_again_after_bytes_that_belong_to_no_frame(junk, frame):
    reader = StreamReader()
    assert list(reader.feed(delimit(b"one") + junk + delimit(frame))) == [b"one", frame]
    assert reader.skipped == len(junk)


def test_frame_that_claims_to_be_huge_is_refused_before_it_is_buffered():
    with pytest.raises(ProtocolError, match="at most"):
        list(StreamReader().feed(MAGIC + b"\xff\xff\xff\xff"))
    assert len(delimit(b"")) == DELIMITER_SIZE


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 65535),
    st.integers(1, 65535),
    st.integers(0, 65535),
    st.data(),
)
def test_cyclic_request_is_what_protobuf_would_have_encoded(
    n, gripper, session, number, cycle, data
):
    request = CyclicRequest(n, gripper)
    columns = [data.draw(st.lists(finite, min_size=n, max_size=n)) for _ in range(4)]
    request.position[:], request.velocity[:], request.torque[:], request.current[:] = columns
    request.flags[:] = 1
    hand = data.draw(st.lists(finite, min_size=3, max_size=3))
    if gripper:
        request.gripper[:] = hand
    request.stamp(session, number, cycle)

    header, payload = decode_frame(bytes(request.data))
    assert header == Header(FrameType.REQUEST, REFRESH, number, session)
    expected = message("Command", frame_id=cycle)
    for position, velocity, torque, current in zip(*columns, strict=True):
        expected.actuators.add(
            command_id=cycle,
            flags=1,
            position=position,
            velocity=velocity,
            torque_joint=torque,
            current_motor=current,
        )
    if gripper:
        motor = expected.interconnect.gripper_command.motor_cmd.add()
        motor.position, motor.velocity, motor.force = hand
        expected.interconnect.command_id.SetInParent()
        expected.interconnect.gripper_command.command_id.SetInParent()
    # -0.0 is sent as it is and equals 0.
    assert MESSAGES["Command"].FromString(payload) == expected


def test_six_joints_without_a_gripper_take_197_bytes():
    assert len(CyclicRequest(6).payload) == 197


def test_frame_whose_payload_does_not_fit_it_is_refused():
    frame = encode_frame(Header(3, REFRESH), b"abcdef")
    with pytest.raises(ProtocolError):
        fast_payload(frame[:-1])
    with pytest.raises(ProtocolError):
        decode_frame(b"\xff\xff\xff")


def test_procedures_have_the_numbers_of_the_protocol():
    uids = {
        "Session.CreateSession": 0x10001,
        "Base.SetServoingMode": 0x20098,
        "Base.GetArmState": 0x200AF,
        "Base.GetActuatorCount": 0x200AB,
        "Base.ClearFaults": 0x20092,
        "Base.ActionTopic": 0x2006A,
        "Base.Unsubscribe": 0x20061,
        "BaseCyclic.RefreshFeedback": 0x30003,
        "ActuatorConfig.SetControlMode": 0xA0007,
        "DeviceManager.ReadAllDevices": 0x170001,
    }
    assert {name: METHODS[name].uid for name in uids} == uids


def test_schema_leaves_the_default_pool_alone():
    from google.protobuf import descriptor_pool

    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("ndp_ros.kortex.Frame")


def test_schema_works_on_the_pure_python_protobuf_too():
    code = (
        "from google.protobuf.internal import api_implementation as a;"
        "from ndp_ros.arms.kortex.wire import *;"
        "assert a.Type() == 'python', a.Type();"
        "r = CyclicRequest(6, True); r.position[:] = 7; r.stamp(1, 2, 3);"
        "c = __import__('ndp_ros.arms.kortex.schema', fromlist=['x'])"
        ".MESSAGES['Command'].FromString(decode_frame(bytes(r.data))[1]);"
        "print(c.actuators[5].position, c.frame_id)"
    )
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert result.stdout.split() == ["7.0", "3"], result.stderr


def test_cyclic_request_writes_in_place():
    request = CyclicRequest(3)
    before = request.data
    request.position[:] = np.arange(3)
    request.stamp(1, 1, 1)
    assert request.data is before
