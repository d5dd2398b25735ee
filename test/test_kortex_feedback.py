# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Feedback that is read in place is what protobuf would have read, to the bit, or is left to it."""

import math
import socket
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_ros.arms.kortex import units
from ndp_ros.arms.kortex.client import faults_of
from ndp_ros.arms.kortex.datagrams import DatagramChannel
from ndp_ros.arms.kortex.errors import KortexError
from ndp_ros.arms.kortex.feedback import LONGEST, FeedbackReader, Measured
from ndp_ros.arms.kortex.schema import MESSAGES, METHODS
from ndp_ros.arms.kortex.wire import (
    CyclicRequest,
    FrameType,
    Header,
    encode_frame,
    fast_header,
    fast_payload,
)

FEEDBACK = MESSAGES["Feedback"]
REFRESH = METHODS["BaseCyclic.Refresh"].uid
N = 6

numbers = {
    "float": st.one_of(
        st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf]), st.floats(width=32)
    ),
    "fixed32": st.one_of(st.sampled_from([0, 1, 2**32 - 1]), st.integers(0, 2**32 - 1)),
    "uint32": st.one_of(st.sampled_from([0, 1, 127, 128]), st.integers(0, 2**32 - 1)),
}


def kind_of(field) -> str:
    return {field.TYPE_FLOAT: "float", field.TYPE_FIXED32: "fixed32"}.get(field.type, "uint32")


def scalars(message):
    """Yield every message inside with each of its fields that is a number, whether set or not."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is None:
            yield message, field
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "DESCRIPTOR") else value:
                yield from scalars(part)


def full(n: int = N, motors: int = 1):
    """Return a feedback in which all but the faults is set."""
    message = FEEDBACK()
    for _ in range(n):
        message.actuators.add()
    hand = message.interconnect.gripper_feedback
    for _ in range(motors):
        hand.motor.add()
    for part in (message.base, message.interconnect, message.interconnect.feedback_id, hand):
        part.SetInParent()
    for i, (part, field) in enumerate(scalars(message)):
        if not field.name.startswith("fault_bank"):
            setattr(part, field.name, i + 1)
    return message


def answer(message, number: int = 5, **header) -> bytes:
    return encode_frame(
        Header(FrameType.RESPONSE, REFRESH, number, session=7, **header),
        message if isinstance(message, bytes) else message.SerializeToString(),
    )


def put(reader: FeedbackReader, datagram: bytes) -> int:
    # What is behind an answer in the buffer is of another one.
    reader.buffer[:] = b"\x5a" * LONGEST
    reader.buffer[: len(datagram)] = datagram
    return len(datagram)


def teach(reader: FeedbackReader, message) -> bool:
    # Lessons are rare in the loop; here the next one comes at once.
    reader._until_next = 0  # noqa: SLF001
    return reader.learn(put(reader, answer(message)), message)


def bits(measured: Measured) -> bytes:
    values = (*measured.position, *measured.velocity, *measured.torque, measured.gripper)
    return struct.pack(f"<II{len(values)}d", measured.word, measured.frame, *values)


def require_agreement(reader: FeedbackReader, datagram: bytes) -> bool:
    """Check a datagram that is read in place against protobuf; return whether it was."""
    found = reader.read(put(reader, datagram))
    if found is None:
        return False
    words = fast_header(datagram)
    assert words is not None and words[0] & 0x0F00F000 == 0x03000000, "an answer without an error"
    message = FEEDBACK.FromString(fast_payload(datagram))
    assert not faults_of(message)
    assert len(message.actuators) == N
    assert bits(found) == bits(Measured.of(message, words[1]))
    return True


@st.composite
def feedbacks(draw, counts=(N, N, N, 0, 5, 7)):
    """Draw a feedback: most of it plain, with fields of any value, absent ones and faults."""
    message = full(draw(st.sampled_from(counts)), draw(st.sampled_from([1, 1, 0, 2])))
    fields = list(scalars(message))
    for place in draw(st.lists(st.integers(0, len(fields) - 1), max_size=30)):
        part, field = fields[place]
        if not field.name.startswith("fault_bank") or draw(st.integers(0, 3)) == 0:
            setattr(part, field.name, draw(numbers[kind_of(field)]))
    for name in draw(st.sets(st.sampled_from(["base", "interconnect", "frame_id"]), max_size=1)):
        message.ClearField(name)
    return message


@settings(max_examples=150, deadline=None)
@given(st.lists(feedbacks(), min_size=1, max_size=4), st.lists(feedbacks(), max_size=4), st.data())
def test_any_feedback_is_read_as_protobuf_reads_it_or_not_at_all(examples, others, data):
    reader = FeedbackReader(N)
    for message in examples:
        learned = teach(reader, message)
        if learned:
            assert not faults_of(message)
            assert require_agreement(reader, answer(message))
    for message in [*examples, *others]:
        require_agreement(reader, answer(message, number=data.draw(st.integers(0, 65535))))


@settings(max_examples=300, deadline=None)
@given(feedbacks(counts=(N,)), st.data())
def test_damaged_feedback_is_read_as_protobuf_reads_it_or_not_at_all(message, data):
    reader = FeedbackReader(N)
    teach(reader, message)
    datagram = bytearray(answer(message))
    for _ in range(data.draw(st.integers(1, 4))):
        datagram[data.draw(st.integers(0, len(datagram) - 1))] = data.draw(st.integers(0, 255))
    require_agreement(reader, bytes(datagram))
    require_agreement(reader, bytes(datagram[: data.draw(st.integers(0, len(datagram)))]))


@pytest.mark.parametrize("explicit", [False, True])
def test_no_single_wrong_bit_makes_a_difference_to_what_protobuf_reads(explicit):
    message = full()
    if explicit:  # an encoder that writes zeros too
        for part, field in scalars(message):
            if field.name.startswith("fault_bank"):
                setattr(part, field.name, 2**32 - 1)
    payload = message.SerializeToString().replace(b"\xff\xff\xff\xff", bytes(4))
    message = FEEDBACK.FromString(payload)
    assert not faults_of(message)
    datagram = answer(payload)
    reader = FeedbackReader(N)
    assert reader.learn(put(reader, datagram), message)
    in_place = 0
    for place in range(8 * len(datagram)):
        changed = bytearray(datagram)
        changed[place // 8] ^= 1 << place % 8
        in_place += require_agreement(reader, bytes(changed))
    assert in_place > 8 * 4 * 3 * N


@pytest.mark.parametrize("value", [1, 0x40, 2**31])
def test_no_fault_in_any_bank_is_read_in_place(value):
    reader = FeedbackReader(N)
    assert teach(reader, full())
    places = [i for i, (_, f) in enumerate(scalars(full())) if f.name.startswith("fault_bank")]
    assert len(places) == 2 * (N + 3)
    for place in places:
        message = full()
        part, field = list(scalars(message))[place]
        setattr(part, field.name, value)
        assert faults_of(message)
        datagram = answer(message)
        assert reader.read(put(reader, datagram)) is None
        fresh = FeedbackReader(N)
        assert not teach(fresh, message)
        assert fresh.read(put(fresh, datagram)) is None


def test_usual_answers_are_read_in_place_whatever_is_exactly_zero():
    random, reader = np.random.default_rng(0), FeedbackReader(N)
    for absent in ([], [("velocity", 0)], [("velocity", i) for i in range(N)], [("position", 5)]):
        for trial in range(3):
            message = full()
            message.frame_id = int(random.integers(1, 65536))
            for actuator in message.actuators:
                actuator.position, actuator.torque = random.uniform(0, 360), random.normal()
                actuator.status_flags = int(random.integers(1, 2**32))
            for field, joint in absent:
                setattr(message.actuators[joint], field, 0.0)
            if trial == 0:
                assert teach(reader, message)
            assert require_agreement(reader, answer(message, number=int(random.integers(65536))))


def test_an_error_frame_and_another_type_are_not_read_in_place():
    reader = FeedbackReader(N)
    assert teach(reader, full())
    payload = full().SerializeToString()
    for header in (
        Header(FrameType.RESPONSE, REFRESH, 5, 7, error_code=3),
        Header(FrameType.RESPONSE, REFRESH, 5, 7, error_sub_code=22),
        Header(FrameType.REQUEST, REFRESH, 5, 7),
        Header(FrameType.NOTIFICATION, REFRESH, 5, 7),
    ):
        assert reader.read(put(reader, encode_frame(header, payload))) is None


def test_parts_that_protobuf_would_merge_are_no_layout():
    base = FEEDBACK(base=MESSAGES["BaseFeedback"](arm_voltage=24.0)).SerializeToString()
    payload = full().SerializeToString()
    unknown = b"\xf5\x07\x01\x02\x03\x04"  # field 126
    for odd in (payload + base, base + payload, payload + unknown, unknown + payload):
        message, reader = FEEDBACK.FromString(odd), FeedbackReader(N)
        assert not reader.learn(put(reader, answer(odd)), message)
        assert reader.read(len(answer(odd))) is None


def test_layouts_that_change_all_the_time_are_learned_seldom():
    reader, learned = FeedbackReader(N), 0
    for i in range(1, 1001):
        message = full()
        message.base.active_state_connection_identifier = i % 97 + 128
        datagram = answer(message)
        if reader.read(put(reader, datagram)) is None:
            learned += reader.learn(len(datagram), message)
    assert learned <= 10


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(), max_size=8))
def test_lists_of_angles_are_converted_as_arrays_are(values):
    values += [360.0 - 2.0**-16, np.nextafter(360.0 - 2.0**-16, 0.0), -1e-20, -0.0, 0.0]
    with np.errstate(all="ignore"):
        degrees, radians = np.array(values), np.radians(values)
        expected = units.from_degrees(degrees), units.to_degrees(radians)
    found = units.radians_of(degrees.tolist()), units.degrees_of(radians.tolist())
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
        finite = ~np.isnan(other)
        assert np.array(one)[finite].tobytes() == np.array(other)[finite].tobytes()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["position", "velocity", "torque", "current"])
def test_a_number_that_is_not_finite_is_seen_wherever_it_is(field, value):
    for joint in range(N):
        for gripper in (False, True):
            request = CyclicRequest(N, gripper)
            request.position[:], request.velocity[:], request.torque[:] = 350.0, -80.0, 39.0
            assert request.finite
            getattr(request, field)[joint] = value
            assert not request.finite


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["plain", "late", "other", "fault", "cut", "error"]), max_size=40))
def test_a_channel_counts_answers_alike_with_and_without_a_reader(kinds):
    """Two channels get the same datagrams; what one reads in place the other leaves to protobuf."""
    arm = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    arm.bind(("127.0.0.1", 0))
    channels = [DatagramChannel(*arm.getsockname()) for _ in range(2)]
    readers = [channels[0].reader(N), None]
    request, results = CyclicRequest(N), [[], []]
    try:
        for kind in ["plain"] * 3 + kinds:
            for channel, reader, result in zip(channels, readers, results, strict=True):
                channel.send(request)
                data, address = arm.recvfrom(LONGEST)
                words = fast_header(data)
                number = (words[1] & 0xFFFF) - 2 * (kind == "late")
                message = full()
                message.frame_id = channel.cycles + 9 * (kind == "other")
                message.actuators[2].fault_bank_a = 4 * (kind == "fault")
                datagram = answer(message, number % 65536, error_code=3 * (kind == "error"))
                arm.sendto(datagram[: -3 if kind == "cut" else None], address)
                try:
                    # Another answer ends no wait, whatever it is.
                    found = channel.receive(0.0005 if kind in ("late", "cut") else 0.2, reader)
                except KortexError as error:
                    result.append(type(error))
                    continue
                if found is not None and not isinstance(found, Measured):
                    assert reader is None or kind == "fault" or channel.cycles < 3
                    result.append(bool(faults_of(found)))
                    found = Measured.of(found, words[1] & 0xFFFF)
                elif found is not None:
                    result.append(False)
                counts = channel.answered, channel.stale, channel.missed
                values = None if found is None else bits(found._replace(word=0))
                result.append((counts, values))
        assert results[0] == results[1]
    finally:
        for end in (*channels, arm):
            end.close()
