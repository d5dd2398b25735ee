# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The emulated arm on real sockets: what a client of the vendor's would see."""

import contextlib
import dataclasses
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from kortex_support import (
    ARM,
    HOST,
    PATIENT,
    N,
    emulator,
    log_in,
    move_home,
    move_to,
    shared_emulator,
)

from ndp_ros.arms.kortex.channel import StreamChannel
from ndp_ros.arms.kortex.codes import (
    ActionEvent,
    ActuatorFault,
    ArmState,
    ControlMode,
    DeviceKind,
    ErrorCode,
    GripperMode,
    RobotEvent,
    ServoingMode,
    SubCode,
)
from ndp_ros.arms.kortex.errors import (
    InvalidPassword,
    KortexError,
    NotInControl,
    RobotInFault,
    SessionLost,
    Unsupported,
    WrongServoingMode,
)
from ndp_ros.arms.kortex.schema import METHODS, message
from ndp_ros.arms.kortex.units import from_degrees, to_degrees
from ndp_ros.arms.kortex.wire import (
    MAGIC,
    CyclicRequest,
    FrameType,
    Header,
    decode_frame,
    delimit,
    encode_frame,
)
from ndp_ros.emulator.config import EmulatorConfig
from ndp_ros.emulator.process import EmulatorProcess
from ndp_ros.emulator.request import CyclicCommand
from ndp_ros.emulator.robot import Robot
from ndp_ros.errors import ArmError

pytestmark = pytest.mark.live

__all__ = ["emulator", "shared_emulator"]


def hold_request(client) -> CyclicRequest:
    """Return a cyclic command that holds the arm where it is."""
    request = CyclicRequest(N)
    request.position[:] = [a.position for a in client.feedback().actuators]
    return request


@pytest.fixture
def client(emulator):
    with log_in(emulator) as client:
        yield client


# Sessions.


def test_wrong_password_is_refused_by_name(emulator):
    with pytest.raises(InvalidPassword, match="PROTOCOL_SERVER/INVALID_PASSWORD") as caught:
        log_in(emulator, password="sesame")
    assert caught.value.sub_code == SubCode.INVALID_PASSWORD
    assert "sesame" not in str(caught.value)


def test_nothing_is_served_without_a_session(emulator):
    channel = StreamChannel(HOST, emulator.port, 10.0)
    with pytest.raises(SessionLost, match="INVALID_SESSION"):
        channel.call("Base.GetArmState")
    channel.close()


def test_each_channel_has_its_own_session_and_closing_ends_both(emulator):
    with log_in(emulator) as client:
        assert client.stream.session != client.datagrams.session
        connections = client.stream.call("Session.GetConnections").connection
        assert {c.connection_identifier for c in connections} == {
            client.stream.session,
            client.datagrams.session,
        }
    emulator.wait_for(lambda state: state["sessions"] == 0)


def test_silent_session_is_closed_by_the_arm(emulator):
    channel = StreamChannel(HOST, emulator.port, 10.0)
    info = message(
        "CreateSessionInfo",
        username="admin",
        password="admin",
        session_inactivity_timeout=100,
        connection_inactivity_timeout=50,
    )
    channel.call("Session.CreateSession", info)
    emulator.wait_for(lambda state: state["sessions"] == 0)
    with pytest.raises(SessionLost):
        channel.call("Base.GetArmState")
    channel.close()


def test_idle_sessions_are_kept_alive_on_both_channels(emulator):
    with log_in(emulator) as client:
        short = message(
            "CreateSessionInfo",
            username="admin",
            password="admin",
            session_inactivity_timeout=2500,
            connection_inactivity_timeout=2000,
        )
        client.stream.call("Session.CreateSession", short)
        client.datagrams.call("Session.CreateSession", short)
        begin = emulator.control.do("state")["time"]
        state = emulator.wait_for(lambda state: state["time"] > begin + 3.5, timeout=60.0)
        assert state["sessions"] == 2
        assert client.arm_state == ArmState.SERVOING_READY
        client.feedback()


def test_lost_tcp_connection_ends_its_session(emulator):
    client = log_in(emulator)
    emulator.control.do("cut_tcp")
    with pytest.raises(KortexError, match="closed the connection"):
        for _ in range(100):
            client.stream.call("Base.GetArmState")
    client.close()


# Routing.


def test_devices_come_in_no_order_and_are_sorted_by_their_place(client):
    assert [d.identifier for d in client.devices][:3] != [1, 2, 3]
    assert [d.identifier for d in client.actuators] == [1, 2, 3, 4, 5, 6]
    assert [d.kind for d in client.actuators] == [DeviceKind.BIG_ACTUATOR] * 3 + [
        DeviceKind.SMALL_ACTUATOR
    ] * 3
    assert client.has_gripper
    assert client.stream.call("Base.GetActuatorCount").count == N


def test_identifiers_with_a_gap_are_used_as_the_arm_gives_them():
    config = dataclasses.replace(PATIENT, actuator_ids=(1, 2, 3, 4, 5, 7))
    with EmulatorProcess(config) as process, log_in(process) as client:
        client.set_control_mode(5, ControlMode.TORQUE)
        asked = {"device": client.actuators[5].identifier}
        found = client.stream.call("ActuatorConfig.GetControlMode", **asked)
        assert found.control_mode == ControlMode.TORQUE
        with pytest.raises(Unsupported, match="UNSUPPORTED_SERVICE"):
            client.stream.call("ActuatorConfig.GetControlMode", device=6)
        client.set_control_mode(5, ControlMode.POSITION)


def test_actuator_service_asked_of_the_base_is_not_registered_there(client):
    with pytest.raises(Unsupported, match="Service not registered for service id: 10") as caught:
        client.stream.call("ActuatorConfig.GetControlMode", device=0)
    assert caught.value.code == ErrorCode.PROTOCOL_SERVER
    assert caught.value.sub_code == SubCode.UNSUPPORTED_SERVICE


def test_payload_that_cannot_be_decoded_is_refused(client):
    class Broken:
        def SerializeToString(self):  # noqa: N802
            return b"\xff\xff"

    with pytest.raises(KortexError, match="PAYLOAD_DECODING_ERR"):
        client.stream.call("Base.SetServoingMode", Broken())


def test_every_device_answers_for_itself(client):
    serials = {
        client.stream.call("DeviceConfig.GetSerialNumber", device=d.identifier).serial_number
        for d in client.devices
    }
    assert len(serials) == len(client.devices)


# What a client that reads less carefully than ours needs.


def test_header_and_frame_leave_in_one_piece_with_the_session_in_every_answer(emulator):
    with socket.create_connection((HOST, emulator.port), 10.0) as raw:
        info = message(
            "CreateSessionInfo",
            username="admin",
            password="admin",
            session_inactivity_timeout=60000,
            connection_inactivity_timeout=2000,
        )
        session = 0
        for number, (method, payload) in enumerate(
            [
                ("Session.CreateSession", info.SerializeToString()),
                ("Session.KeepAlive", b""),
                ("Base.GetArmState", b""),
                ("Session.CloseSession", b""),
            ],
            start=1,
        ):
            header = Header(FrameType.REQUEST, METHODS[method].uid, number, session)
            raw.sendall(delimit(encode_frame(header, payload)))
            # The vendor's reader takes the delimiter in one call, and the frame in another.
            head = raw.recv(12)
            assert head[:8] == MAGIC
            frame = raw.recv(struct.unpack(">I", head[8:])[0])
            answer, _ = decode_frame(frame)
            assert answer.kind == FrameType.RESPONSE
            assert (answer.message, answer.error_code) == (number, 0)
            assert answer.session > 0
            session = answer.session


def test_ping_is_answered_by_pong(emulator):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.settimeout(10.0)
        raw.sendto(encode_frame(Header(FrameType.PING, 0, 7), b""), (HOST, emulator.udp_port))
        header, _ = decode_frame(raw.recv(100))
    assert (header.kind, header.message) == (FrameType.PONG, 7)


# Servoing modes.


def test_cyclic_command_outside_low_level_servoing_is_refused(client):
    with pytest.raises(WrongServoingMode, match="must be low level servoing mode") as caught:
        client.datagrams.exchange(hold_request(client), 10.0)
    assert (caught.value.code, caught.value.sub_code) == (ErrorCode.DEVICE, 75)


def test_arm_holds_its_position_through_low_level_servoing(client, emulator):
    request = hold_request(client)
    client.set_servoing_mode(ServoingMode.LOW_LEVEL)
    assert client.arm_state == ArmState.SERVOING_LOW_LEVEL
    for cycle in range(1, 301):
        feedback = client.datagrams.exchange(request, 10.0)
        assert feedback.frame_id == cycle
        assert {a.command_id for a in feedback.actuators} == {cycle}
    client.set_servoing_mode(ServoingMode.SINGLE_LEVEL)
    state = emulator.control.do("state")
    assert state["state"] == "SERVOING_READY"
    np.testing.assert_allclose(state["position"], ARM.home[:N], atol=1e-4)
    assert emulator.control.do("record")["frames"] == 300


def test_frame_numbers_wrap_around(client, emulator):
    request = hold_request(client)
    client.set_servoing_mode(ServoingMode.LOW_LEVEL)
    client.datagrams.cycles = client.datagrams.answered = 65530
    for _ in range(12):
        assert client.datagrams.exchange(request, 10.0) is not None
    assert emulator.control.do("record")["rejected"] == 0
    client.set_servoing_mode(ServoingMode.SINGLE_LEVEL)


def test_measured_torque_is_opposite_to_the_torque_that_holds_the_arm(client, emulator):
    measured = [a.torque for a in client.feedback().actuators]
    applied = np.array(emulator.control.do("state")["torque"])
    assert abs(applied[1]) > 1.0
    np.testing.assert_allclose(measured, -applied, atol=1e-3)


def test_second_client_may_look_but_not_command(client, emulator):
    with log_in(emulator) as other:
        request = hold_request(client)
        client.set_servoing_mode(ServoingMode.LOW_LEVEL)
        client.datagrams.exchange(request, 10.0)
        with pytest.raises(NotInControl, match="SESSION_NOT_IN_CONTROL"):
            other.datagrams.exchange(hold_request(other), 10.0)
        assert len(other.feedback().actuators) == N
        assert client.datagrams.exchange(request, 10.0) is not None
        client.set_servoing_mode(ServoingMode.SINGLE_LEVEL)


def test_arm_that_lost_its_client_returns_to_its_base(emulator):
    client = log_in(emulator)
    request = hold_request(client)
    client.set_servoing_mode(ServoingMode.LOW_LEVEL)
    client.datagrams.exchange(request, 10.0)
    client.close()
    emulator.wait_for(lambda state: state["servoing"] == "SINGLE_LEVEL")


# Faults.


@pytest.mark.parametrize(
    ("fault", "spoil"),
    [
        ("FOLLOWING_ERROR", lambda request: request.position.__iadd__(7.0)),
        ("JOINT_LIMIT_HIGH", lambda request: request.position.__setitem__(1, 140.0)),
        ("JOINT_LIMIT_LOW", lambda request: request.position.__setitem__(1, 220.0)),
    ],
)
def test_command_beyond_what_the_arm_allows_trips_it(client, emulator, fault, spoil):
    request = hold_request(client)
    client.set_servoing_mode(ServoingMode.LOW_LEVEL)
    client.datagrams.exchange(request, 10.0)
    spoil(request)
    client.datagrams.exchange(request, 10.0)
    state = emulator.wait_for(lambda state: state["state"] == "IN_FAULT")
    assert any(fault in names for names in state["faults"])
    assert state["servoing"] == "SINGLE_LEVEL"
    with pytest.raises(WrongServoingMode):
        client.datagrams.exchange(request, 10.0)
    with pytest.raises(RobotInFault, match="ROBOT_IN_FAULT"):
        client.set_servoing_mode(ServoingMode.LOW_LEVEL)
    with pytest.raises(RobotInFault, match=fault):
        client.require_no_fault()
    client.clear_faults()
    client.require_no_fault()
    emulator.wait_for(lambda state: max(map(abs, state["velocity"])) < 1e-3)


@pytest.mark.parametrize(("joint", "published"), [(1, 120.0), (4, 200.0)])
def test_actuator_trips_on_the_speed_of_the_user_guide(joint, published):
    tripped = []
    for speed in np.radians(published) * np.array([0.97, 1.15]):
        robot = Robot(EmulatorConfig(), ARM)
        robot.set_servoing(ServoingMode.LOW_LEVEL)
        zeros = [0.0] * N
        robot.command(
            CyclicCommand(1, to_degrees(robot.position).tolist(), zeros, zeros, zeros, None)
        )
        robot.data.qvel[joint] = speed
        robot.tick()
        measured = np.degrees(robot.velocity[joint])
        tripped.append(bool(robot.faults.actuators[joint] & ActuatorFault.MAXIMUM_VELOCITY))
        assert tripped[-1] == (measured > published), measured
    assert tripped == [False, True]


def test_torque_without_gravity_lets_the_arm_fall_and_trips_on_the_old_position(client, emulator):
    request = hold_request(client)
    client.set_servoing_mode(ServoingMode.LOW_LEVEL)
    client.datagrams.exchange(request, 10.0)
    for actuator in range(N):
        client.set_control_mode(actuator, ControlMode.TORQUE)
    with pytest.raises(WrongServoingMode):
        for _ in range(1000):
            client.datagrams.exchange(request, 10.0)
    state = emulator.wait_for(lambda state: state["state"] == "IN_FAULT")
    assert any("FOLLOWING_ERROR" in names for names in state["faults"])
    emulator.wait_for(lambda state: max(map(abs, state["velocity"])) < 1e-2)
    client.clear_faults()


def test_silence_ends_low_level_servoing_within_the_watchdog_time():
    with (
        EmulatorProcess(dataclasses.replace(PATIENT, cycle=0.0, watchdog=0.05)) as process,
        log_in(process) as client,
    ):
        request = hold_request(client)
        client.set_servoing_mode(ServoingMode.LOW_LEVEL)
        client.datagrams.exchange(request, 10.0)
        state = process.wait_for(lambda state: state["servoing"] == "SINGLE_LEVEL")
        assert all("WATCHDOG_TRIGGERED" in names for names in state["warnings"])
        assert state["state"] == "SERVOING_READY"
        with pytest.raises(WrongServoingMode):
            client.datagrams.exchange(request, 10.0)


def test_emergency_stop_stays_until_it_is_cleared(client):
    client.stream.call("Base.ApplyEmergencyStop")
    assert client.arm_state == ArmState.IN_FAULT
    with pytest.raises(RobotInFault, match="EMERGENCY_STOP_ACTIVATED"):
        client.require_no_fault()
    with pytest.raises(KortexError, match="ROBOT_IN_EMERGENCY_STOP"):
        move_home(client)
    client.clear_faults()
    client.require_no_fault()


# Actions and notifications.


def test_action_moves_the_arm_and_its_end_is_told(client, emulator):
    target = np.array(ARM.home[:N]) + np.array([0.05, -0.05, 0.05, -0.05, 0.05, 0.05])
    move_to(client, target, timeout=60.0)
    np.testing.assert_allclose(emulator.control.do("state")["position"], target, atol=0.01)
    move_home(client, timeout=60.0)
    np.testing.assert_allclose(emulator.control.do("state")["position"], ARM.home[:N], atol=0.01)


def test_stopped_action_is_reported_as_aborted(client, emulator):
    target = np.array(ARM.home[:N]) + 0.5
    threading.Timer(
        0.2, emulator.control.do, ["fault"], {"actuator": 2, "name": "MAXIMUM_TORQUE"}
    ).start()
    with pytest.raises(KortexError, match="gave up the movement"):
        move_to(client, target, timeout=60.0)
    client.clear_faults()


def test_two_clients_hear_their_own_notifications_and_a_broken_listener_stops_nobody(emulator):
    heard: dict[str, list[int]] = {"one": [], "two": []}

    def broken(note):
        heard["one"].append(note.servoing_mode)
        raise RuntimeError("a listener's own fault")

    with log_in(emulator) as one, log_in(emulator) as two:
        one.stream.subscribe("Base.ServoingModeTopic", broken)
        handle = two.stream.subscribe(
            "Base.ServoingModeTopic", lambda note: heard["two"].append(note.servoing_mode)
        )
        one.set_servoing_mode(ServoingMode.LOW_LEVEL)
        one.set_servoing_mode(ServoingMode.SINGLE_LEVEL)
        end = time.monotonic() + 10.0
        while len(heard["one"]) < 2 or len(heard["two"]) < 2:
            assert time.monotonic() < end, heard
            time.sleep(0.01)
        assert heard == {"one": [3, 2], "two": [3, 2]}
        assert one.arm_state == ArmState.SERVOING_READY  # the channel works on
        two.stream.unsubscribe("Base.ServoingModeTopic", handle)
        with pytest.raises(KortexError, match="ENTITY_NOT_FOUND"):
            two.stream.unsubscribe("Base.ServoingModeTopic", handle)


def test_action_events_come_in_order(client):
    events: list[int] = []
    client.stream.subscribe("Base.ActionTopic", lambda note: events.append(note.action_event))
    move_to(client, np.array(ARM.home[:N]) + 0.02, timeout=60.0)
    assert events == [ActionEvent.START, ActionEvent.END]


def test_gripper_taken_away_is_told_and_refuses_commands(client, emulator):
    events: list[int] = []
    client.stream.subscribe("Base.RobotEventTopic", lambda note: events.append(note.event))
    emulator.control.do("tool", connected=False)
    with pytest.raises(KortexError, match="DEVICE_DISCONNECTED"):
        client.move_gripper(0.5)
    emulator.control.do("tool", connected=True)
    client.move_gripper(0.0)
    end = time.monotonic() + 10.0
    while len(events) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert events == [RobotEvent.TOOL_DISCONNECTED, RobotEvent.TOOL_CONNECTED]


def test_gripper_closes_outside_low_level_servoing(client, emulator):
    client.move_gripper(0.5)
    emulator.wait_for(lambda state: abs(state["gripper"] - 0.5) < 0.05)
    movement = client.stream.call(
        "Base.GetMeasuredGripperMovement", message("GripperRequest", mode=3)
    )
    assert movement.finger[0].value == pytest.approx(0.5, abs=0.06)
    client.move_gripper(0.0)


@pytest.mark.parametrize(("speed", "end"), [(-0.5, 1.0), (0.5, 0.0)])
def test_gripper_closes_and_opens_by_speed(client, emulator, speed, end):
    client.move_gripper(0.5)
    emulator.wait_for(lambda state: abs(state["gripper"] - 0.5) < 0.05)
    command = message("GripperCommand", mode=GripperMode.SPEED)
    command.gripper.finger.add(finger_identifier=1, value=speed)
    client.stream.call("Base.SendGripperCommand", command)
    emulator.wait_for(lambda state: abs(state["gripper"] - end) < 0.05)


def test_tool_angles_are_in_degrees(client):
    pose = client.stream.call("Base.GetMeasuredCartesianPose")
    assert max(abs(pose.theta_x), abs(pose.theta_y), abs(pose.theta_z)) > 30.0
    feedback = client.feedback().base
    assert feedback.tool_pose_theta_x == pytest.approx(pose.theta_x, abs=0.1)


# The network.


def test_loss_follows_its_seed(emulator):
    def pattern(seed):
        before = emulator.control.do("state")["lost"]
        emulator.control.do("network", loss=0.3, seed=seed)
        answered = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
            raw.settimeout(10.0)
            for number in range(1, 31):
                frame = encode_frame(Header(FrameType.PING, 0, number), b"")
                raw.sendto(frame, (HOST, emulator.udp_port))
            while len(answered) + emulator.control.do("state")["lost"] - before < 30:
                raw.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        answered.append(decode_frame(raw.recv(100))[0].message)
            return answered

    assert pattern(1) == pattern(1) != pattern(2)


def test_an_answer_that_does_not_come_is_waited_for_once(client, emulator, monkeypatch):
    request = hold_request(client)
    client.set_servoing_mode(ServoingMode.LOW_LEVEL)
    emulator.control.do("network", loss=1.0)
    datagrams, waits = client.datagrams, []
    wait = datagrams._wait  # noqa: SLF001
    monkeypatch.setattr(datagrams, "_wait", lambda timeout: waits.append(timeout) or wait(timeout))
    before = datagrams.missed
    datagrams.send(request)
    assert datagrams.receive(0.02) is None
    assert waits == [0.02], "a second wait would make the loop miss its next tick"
    assert datagrams.missed == before + 1


def test_stale_and_overtaken_answers_never_come_back(client, emulator):
    request = hold_request(client)
    client.set_servoing_mode(ServoingMode.LOW_LEVEL)
    emulator.control.do("network", reorder=0.3, hold=0.01, jitter=0.004, loss=0.1, seed=3)
    frames = []
    for _ in range(400):
        feedback = client.datagrams.exchange(request, 0.004)
        if feedback is not None:
            frames.append(feedback.frame_id)
    emulator.control.do("network", reorder=0.0, jitter=0.0, loss=0.0)
    assert len(frames) > 50
    assert frames == sorted(set(frames))
    assert client.datagrams.stale > 0
    client.set_servoing_mode(ServoingMode.SINGLE_LEVEL)
    record = emulator.control.do("record")
    assert record["rejected"] > 0  # the arm, too, takes no command that was overtaken
    assert max(record["max_step"]) == 0.0


def test_lost_answer_costs_the_time_out_and_no_more(client, emulator):
    emulator.control.do("cut_udp", seconds=30)
    request = CyclicRequest(N)
    begin = time.monotonic()
    assert client.datagrams.exchange(request, 0.003) is None
    assert time.monotonic() - begin < 1.0  # the vendor's client takes ten seconds
    assert client.datagrams.missed == 1
    emulator.control.do("cut_udp", seconds=0)


# The process.


def test_port_in_use_is_one_line_and_exit_status_2(emulator):
    config = dataclasses.replace(PATIENT, port=emulator.port)
    with pytest.raises(ArmError, match=f"cannot listen on 127.0.0.1, ports {emulator.port}"):
        EmulatorProcess(config)


def test_emulator_ends_with_its_parent_however_that_dies():
    code = (
        "import os, signal\n"
        "from ndp_ros.emulator.config import EmulatorConfig\n"
        "from ndp_ros.emulator.process import EmulatorProcess\n"
        "process = EmulatorProcess(EmulatorConfig(port=0, udp_port=0))\n"
        "print(process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert parent.returncode == -signal.SIGKILL
    pid = int(parent.stdout)
    end = time.monotonic() + 20.0
    while _runs(pid):
        assert time.monotonic() < end, "an orphan is left"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_degrees_of_the_wire_and_radians_are_each_others_inverse():
    angles = np.linspace(-3.1, 3.1, 50)
    np.testing.assert_allclose(from_degrees(to_degrees(angles)), angles, atol=1e-12)
