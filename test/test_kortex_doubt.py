# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Wrong, unclear or incomplete answers of an arm move nothing and are named."""

import dataclasses
import itertools
import math
import os
import socket
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from kortex_proxy import Proxy, feedback, once
from kortex_support import (
    ARM,
    HOST,
    PATIENT,
    Loop,
    N,
    close_arms,
    emulator,
    make_arm,
    shared_emulator,
    swing,
)

from ndp_ros.arms.kortex.channel import StreamChannel
from ndp_ros.arms.kortex.client import KortexClient
from ndp_ros.arms.kortex.credentials import Credentials
from ndp_ros.arms.kortex.datagrams import DatagramChannel
from ndp_ros.arms.kortex.errors import KortexError, ReplyTimeout, RobotInFault, Unreachable
from ndp_ros.arms.kortex.wire import MAGIC, encode_frame
from ndp_ros.control.arm import JointState
from ndp_ros.emulator.process import EmulatorProcess
from ndp_ros.errors import ConfigError

pytestmark = pytest.mark.live

__all__ = ["emulator", "shared_emulator"]


@pytest.fixture
def proxy(emulator):
    proxy = Proxy(emulator)
    yield proxy
    close_arms()
    proxy.close()


def arm_behind(proxy: Proxy, **settings):
    arm = make_arm(proxy, **settings)
    arm.connect()
    return arm


def set_field(field: str, joint: int, value: float):
    return lambda message: setattr(message.actuators[joint], field, value)


def commanded(proxy: Proxy) -> np.ndarray:
    """Return every commanded position (n, 6) and torque [deg, N m]."""
    return np.array(
        [[(a.position, a.torque_joint) for a in c.actuators] for c in proxy.commands]
    ).reshape(-1, N, 2)


def assert_smooth(proxy: Proxy, most: float = 0.5) -> None:
    """No command is further from the one before than ``most`` [deg]."""
    position = commanded(proxy)[:, :, 0]
    assert np.isfinite(commanded(proxy)).all()
    steps = (np.diff(position, axis=0) + 180.0) % 360.0 - 180.0
    assert np.abs(steps).max(initial=0.0) < most


@pytest.mark.parametrize("mode", ["position", "torque"])
@pytest.mark.parametrize("field", ["position", "velocity", "torque"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 170.0])
def test_one_wrong_value_in_a_feedback_moves_nothing(proxy, mode, field, value):
    if mode == "torque" and value == 170.0 and field == "velocity":
        pytest.skip("inverse dynamics answers velocities; the loop here has none")
    arm = arm_behind(proxy)
    loop = Loop(arm, mode)
    if mode == "torque":
        loop.command.torque[:N] = loop.measured.effort[:N]
    loop.run(0.1, tick=lambda _: hold_still(loop))
    start = loop.measured.position.copy()
    for joint in range(N):
        change = once(set_field(field, joint, value))
        proxy.answer = feedback(change)
        loop.run(0.02, tick=lambda _: hold_still(loop))
        assert np.isfinite(loop.measured.position).all()
        assert np.abs(loop.measured.position - start)[:N].max() < 0.1
    arm.stop()
    assert_smooth(proxy)
    assert proxy.emulator.control.do("state")["servoing"] == "SINGLE_LEVEL"


def hold_still(loop: Loop) -> None:
    """Command what holds the arm, as measured at the start."""
    loop.command.position[:] = loop.start


@pytest.mark.parametrize("joint", [0, 3])
def test_a_wrong_first_answer_does_not_become_the_first_command(proxy, joint):
    proxy.answer = feedback(once(set_field("position", joint, 77.0)))
    arm = arm_behind(proxy)
    measured = arm.read(JointState.zeros(N + 1))
    np.testing.assert_allclose(measured.position[:N], np.array(ARM.home)[:N], atol=1e-3)


def test_answers_that_never_agree_are_no_arm(proxy):
    random = np.random.default_rng(0)
    proxy.answer = feedback(lambda m: set_field("position", 1, random.uniform(0, 360))(m))
    with pytest.raises(KortexError, match="do not agree with each other"):
        arm_behind(proxy)


def test_answers_of_another_number_of_actuators_are_lost_ones(proxy):
    arm = arm_behind(proxy, unreachable_after=0.3)
    loop = Loop(arm, paced=True)
    proxy.answer = feedback(once(lambda message: message.actuators.pop()))
    loop.run(0.1)
    proxy.answer = feedback(lambda message: message.actuators.pop())
    with pytest.raises(Unreachable, match=r"no feedback|feedback of 5 actuators, expected 6"):
        loop.run(3.0)


def test_an_arm_that_numbers_its_cycles_itself_is_followed_through_a_coincidence(proxy):
    arm = arm_behind(proxy, unreachable_after=0.5)
    loop = Loop(arm, paced=True)
    count = [0]

    def own(message) -> None:
        count[0] += 1
        message.frame_id = (65536 - 60 + 2 * count[0]) % 65536

    proxy.answer = feedback(own)
    loop.run(1.0, swing(loop.start, 0.1, 1.0))
    assert count[0] > 100, "and never counted as lost"


@pytest.mark.parametrize("bank", ["fault_bank_a", "fault_bank_b"])
@pytest.mark.parametrize("device", ["base", "actuator", "interconnect", "gripper"])
def test_a_fault_in_any_bank_of_any_device_ends_the_drive(proxy, device, bank):
    arm = arm_behind(proxy)
    loop = Loop(arm)
    loop.run(0.05)

    def change(message) -> None:
        part = {
            "base": message.base,
            "actuator": message.actuators[2],
            "interconnect": message.interconnect,
            "gripper": message.interconnect.gripper_feedback,
        }[device]
        setattr(part, bank, 0x40)

    proxy.answer = feedback(change)
    with pytest.raises(RobotInFault, match=device):
        loop.run(1.0)


def test_a_gripper_whose_feedback_vanishes_is_named(proxy):
    arm = arm_behind(proxy, unreachable_after=0.3)
    loop = Loop(arm, paced=True)
    proxy.answer = feedback(lambda message: message.interconnect.ClearField("gripper_feedback"))
    with pytest.raises(KortexError, match="no feedback of the gripper"):
        loop.run(5.0)
    arm.stop()
    assert proxy.emulator.control.do("state")["servoing"] == "SINGLE_LEVEL"


@pytest.mark.parametrize("every", [2, 3])
def test_wrong_readings_of_the_gripper_neither_end_nor_prolong_the_wait_for_its_grip(proxy, every):
    closed, true = 0.6, []

    def disturb(message) -> None:
        motor = message.interconnect.gripper_feedback.motor[0]
        true.append(motor.position)
        if len(true) > 6 and len(true) % every == 0:  # the first readings agree with each other
            motor.position = 5.0

    proxy.answer = feedback(disturb)
    arm = arm_behind(proxy, grip=closed)
    assert true[-1] == pytest.approx(100.0 * closed / ARM.upper[-1], abs=1.0), "it has closed"
    assert max(np.abs(np.diff(true[-3:]))) < 0.5, "and rests"
    assert arm.read(JointState.zeros(N + 1)).position[N] == closed


def test_a_mode_whose_answer_is_lost_is_undone(proxy):
    arm = arm_behind(proxy, service_timeout=0.3)
    loop = Loop(arm)
    asked = []

    def lose(name, header, payload):
        asked.append(name)
        lost = name == "Base.SetServoingMode" and asked.count(name) == 1
        return [] if lost else None

    proxy.reply = lose
    with pytest.raises(ReplyTimeout):
        arm.write(loop.command)
    assert proxy.emulator.control.do("state")["servoing"] == "SINGLE_LEVEL"


def test_an_arm_is_given_back_although_an_answer_is_lost(proxy):
    arm = arm_behind(proxy, service_timeout=0.3)
    Loop(arm).run(0.05)
    lost = []

    def lose(name, header, payload):
        if name == "Base.SetServoingMode" and not lost:
            lost.append(name)
            return []
        return None

    proxy.reply = lose
    arm.stop()
    assert lost
    assert proxy.emulator.control.do("state")["servoing"] == "SINGLE_LEVEL"


def test_a_cycle_lies_between_any_two_services_while_torque_mode_is_left(proxy):
    arm = arm_behind(proxy)
    loop = Loop(arm, "torque")
    loop.command.torque[:N] = loop.measured.effort[:N]
    loop.run(0.05)
    order = []
    proxy.request = lambda name, *_: order.append(name)
    proxy.command = lambda name, *_: order.append("cycle")
    arm.stop()
    calls = [name for name in order if name not in ("Session.KeepAlive",)]
    pairs = list(itertools.pairwise(calls))
    assert ("ActuatorConfig.SetControlMode", "ActuatorConfig.SetControlMode") not in pairs
    assert calls.count("ActuatorConfig.SetControlMode") >= N


def test_an_answer_that_never_came_costs_no_later_one(proxy):
    channel = StreamChannel(HOST, proxy.port, timeout=5.0)
    try:
        # As after a keep-alive that nobody answered, a round before.
        channel._ignored.add(3)  # noqa: SLF001
        for _ in range(4):
            with pytest.raises(KortexError) as caught:
                channel.call("Base.GetArmState")
            assert not isinstance(caught.value, ReplyTimeout), "refused, and answered"
    finally:
        channel.close()


@pytest.mark.parametrize("host", ["127.0.0..1", "a" * 70, "a..b"])
def test_a_host_that_is_no_address_is_one_line(host):
    for channel in (StreamChannel, DatagramChannel):
        with pytest.raises(Unreachable, match="no arm at"):
            channel(host, 9, 1.0)


def test_half_a_frame_ends_the_connection_with_its_reason():
    with socket.create_server((HOST, 0)) as server:
        channel = StreamChannel(HOST, server.getsockname()[1], timeout=30.0)
        peer, _ = server.accept()
        peer.sendall(MAGIC + struct.pack(">I", 500_000) + b"x" * 100)
        began = time.monotonic()
        with pytest.raises(Unreachable, match="the rest of a frame did not come"):
            channel.call("Base.GetArmState")
        assert time.monotonic() - began < 20.0
        channel.close()
        peer.close()


def test_a_frame_that_is_announced_too_long_is_not_waited_for():
    with socket.create_server((HOST, 0)) as server:
        channel = StreamChannel(HOST, server.getsockname()[1], timeout=30.0)
        peer, _ = server.accept()
        peer.sendall(MAGIC + struct.pack(">I", 15_000_000))
        with pytest.raises(Unreachable, match="a frame of 15000000 bytes"):
            channel.call("Base.GetArmState")
        channel.close()
        peer.close()


SECRET = "hunter2-secret"


@pytest.mark.parametrize(
    "content",
    [
        f"password: '{SECRET}",
        f"username: [{SECRET}",
        f"{SECRET}: x",
        SECRET,
        f"- {SECRET}",
        f"password: {SECRET}: x",
        f"password: !!python/object:{SECRET} x",
        f"password: *{SECRET}",
        f"username: a\nusername: {SECRET}\n\tpassword: {SECRET}",
        f"password: [{SECRET}]",
        "[" * 5000 + SECRET,
        SECRET + "\x00",
        SECRET * 10_000,
    ],
)
def test_no_message_shows_anything_of_a_credentials_file(tmp_path, content):
    file = tmp_path / "kortex.yaml"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="expected username and password") as caught:
        Credentials.find(file=file)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET[:8] not in str(error)
        error = None if error.__suppress_context__ else error.__context__
    assert "\n" not in str(caught.value)


def test_a_credentials_file_that_cannot_be_read_is_one_line_and_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none", tmp_path / ("x" * 300)):
        with pytest.raises(ConfigError) as caught:
            Credentials.find(file=path)
        assert "\n" not in str(caught.value)


def test_a_client_is_refused_what_is_no_frame(emulator):
    with KortexClient(HOST, Credentials(), emulator.port, emulator.udp_port) as client:
        client.datagrams._socket.send(b"\x0a\x14garbage")  # noqa: SLF001
        client.datagrams._socket.send(encode_frame.__doc__.encode())  # noqa: SLF001
        assert client.arm_state >= 0


LINES = [
    b'{"do": "reset", "seed": 1e999}',
    b'{"do": "reset", "seed": -1}',
    b'{"do": "reset", "seed": ' + b"9" * 5000 + b"}",
    b'{"do": "rows", "newest": 1e999}',
    b'{"do": "rows", "newest": -5}',
    b'{"do": "pause", "seconds": NaN}',
    b'{"do": "cut_udp", "seconds": 1e999}',
    b'{"do": "network", "delay": 1e999}',
    b'{"do": "fault", "actuator": 1e9, "name": "FOLLOWING_ERROR"}',
    b'{"do": "fault", "actuator": 0.5, "name": "FOLLOWING_ERROR"}',
    b'{"do": "fault", "actuator": 0, "name": [1]}',
    b'{"do": ["x"]}',
    b"[" * 100_000,
    b'{"do": "tool", "connected": {}}',
    b"\xff\xfe",
    b"x" * 200_000,
]


def ask(port: int, line: bytes) -> bytes:
    with socket.create_connection((HOST, port), 20.0) as connection:
        connection.sendall(line + b"\n")
        return connection.recv(4096)


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_the_port_for_experiments_survives_any_line(emulator, line):
    port = emulator.control_port
    try:
        assert ask(port, line).startswith((b'{"ok"', b'{"error"'))
    except ConnectionResetError:
        assert len(line) > 65536, "only a line that is too long is hung up on"
    assert emulator.control.do("state")
    emulator.control.do("cut_udp", seconds=0)


def test_the_port_for_experiments_is_for_this_machine_alone():
    process = EmulatorProcess(dataclasses.replace(PATIENT, host="127.0.0.2"))
    with process:
        port = process.control_port
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), 5.0)
        assert process.control.do("state")
