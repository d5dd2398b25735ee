# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A session of Kinova's own client, its files untouched, with the arm at the ports given.

    python vendor_session.py TCP_PORT UDP_PORT CYCLES

It asserts what a client of a Kortex arm relies on and knows nothing of this project.
Run by ``test_kortex_vendor.py``; any interpreter that has ``kortex_api`` will do.
"""

import math
import sys
import threading
import time

from kortex_api.autogen.client_stubs.ActuatorConfigClientRpc import ActuatorConfigClient
from kortex_api.autogen.client_stubs.BaseClientRpc import BaseClient
from kortex_api.autogen.client_stubs.BaseCyclicClientRpc import BaseCyclicClient
from kortex_api.autogen.client_stubs.DeviceConfigClientRpc import DeviceConfigClient
from kortex_api.autogen.client_stubs.DeviceManagerClientRpc import DeviceManagerClient
from kortex_api.autogen.messages import (
    ActuatorConfig_pb2,
    Base_pb2,
    BaseCyclic_pb2,
    Common_pb2,
    Errors_pb2,
    Session_pb2,
)
from kortex_api.Exceptions.KServerException import KServerException
from kortex_api.RouterClient import RouterClient, RouterClientSendOptions
from kortex_api.SessionManager import SessionManager
from kortex_api.TCPTransport import TCPTransport
from kortex_api.UDPTransport import UDPTransport

HOST = "127.0.0.1"
N = 6
WAIT = 60.0


def log_in(transport, port, username="admin", password="admin"):
    """Return a router with a session, and the session's manager."""
    router = RouterClient(transport, lambda error: print("client:", error))
    transport.connect(HOST, port)
    info = Session_pb2.CreateSessionInfo()
    info.username, info.password = username, password
    info.session_inactivity_timeout, info.connection_inactivity_timeout = 60000, 10000
    manager = SessionManager(router)
    manager.CreateSession(info)
    return router, manager


def refused(sub_code, call, *arguments):
    """Require that the arm refuses a call for a reason."""
    try:
        call(*arguments)
    except KServerException as error:
        name = Errors_pb2.SubErrorCodes.Name(error.get_error_sub_code())
        assert name == sub_code, f"{call}: {name}, expected {sub_code}"
    else:
        raise AssertionError(f"{call} was not refused, expected {sub_code}")


def log_in_wrongly(port, udp_port):
    """Wrong names and passwords are refused over either transport."""
    for make, where in ((TCPTransport, port), (UDPTransport, udp_port)):
        for sub_code, credentials in (
            ("INVALID_PASSWORD", ("admin", "wrong")),
            ("USER_NOT_FOUND", ("nobody", "admin")),
        ):
            transport = make()
            refused(sub_code, log_in, transport, where, *credentials)
            transport.disconnect()


def look(base, router):
    """Devices, routing by device and states."""
    devices = DeviceManagerClient(router).ReadAllDevices().device_handle
    kinds = [Common_pb2.DeviceTypes.Name(device.device_type) for device in devices]
    assert sum(kind.endswith("ACTUATOR") for kind in kinds) == N == base.GetActuatorCount().count
    assert {"BASE", "INTERCONNECT", "GRIPPER"} <= set(kinds)
    assert DeviceConfigClient(router).GetDeviceType(1).device_type == Common_pb2.BIG_ACTUATOR
    assert base.GetArmState().active_state == Common_pb2.ARMSTATE_SERVOING_READY
    refused("UNSUPPORTED_SERVICE", ActuatorConfigClient(router).GetControlMode, 0)


def act(base):
    """Actions with their notifications, and the gripper."""
    events, ended = [], threading.Event()

    def hear(note):
        events.append(Base_pb2.ActionEvent.Name(note.action_event))
        if note.action_event in (Base_pb2.ACTION_END, Base_pb2.ACTION_ABORT):
            ended.set()

    handle = base.OnNotificationActionTopic(hear, Common_pb2.NotificationOptions())
    wanted = Base_pb2.RequestedActionType()
    wanted.action_type = Base_pb2.REACH_JOINT_ANGLES
    home = next(a for a in base.ReadAllActions(wanted).action_list if a.name == "Home")
    base.ExecuteActionFromReference(home.handle)
    assert ended.wait(WAIT) and events == ["ACTION_START", "ACTION_END"], events
    base.Unsubscribe(handle)
    refused("ENTITY_NOT_FOUND", base.Unsubscribe, handle)

    command = Base_pb2.GripperCommand()
    command.mode = Base_pb2.GRIPPER_POSITION
    finger = command.gripper.finger.add()
    finger.finger_identifier, finger.value = 1, 0.5
    base.SendGripperCommand(command)
    asked = Base_pb2.GripperRequest()
    asked.mode = Base_pb2.GRIPPER_POSITION
    end = time.monotonic() + WAIT
    while abs(base.GetMeasuredGripperMovement(asked).finger[0].value - 0.5) > 0.02:
        assert time.monotonic() < end, "the gripper does not get there"
        time.sleep(0.05)
    return home


def cycle(base, cyclic, actuators, home, cycles):
    """Low-level servoing: refreshes, gripper, control modes and refusals."""
    refused("WRONG_SERVOING_MODE", cyclic.Refresh, BaseCyclic_pb2.Command())
    modes = []
    handle = base.OnNotificationServoingModeTopic(
        lambda note: modes.append(note.servoing_mode), Common_pb2.NotificationOptions()
    )
    options = RouterClientSendOptions()
    options.timeout_ms = 5000
    feedback = cyclic.RefreshFeedback()
    start = [actuator.position for actuator in feedback.actuators]
    command = BaseCyclic_pb2.Command()
    for position in start:
        command.actuators.add(position=position, flags=1)
    command.interconnect.command_id.identifier = 0
    motor = command.interconnect.gripper_command.motor_cmd.add()
    motor.position, motor.velocity, motor.force = 50.0, 50.0, 100.0
    mode = Base_pb2.ServoingModeInformation()
    mode.servoing_mode = Base_pb2.LOW_LEVEL_SERVOING
    base.SetServoingMode(mode)
    for k in range(cycles):
        begin = time.monotonic()
        command.frame_id = (command.frame_id + 1) % 65536
        offset = 2.5 * (1.0 - math.cos(2.0 * math.pi * k / 2500))
        for actuator, position in zip(command.actuators, start, strict=True):
            actuator.command_id = command.frame_id
            actuator.position = (position + offset) % 360.0
        motor.position = min(90.0, 50.0 + k / 20)
        feedback = cyclic.Refresh(command, 0, options)
        assert feedback.frame_id == command.frame_id
        assert [a.command_id for a in feedback.actuators] == [command.frame_id] * N
        assert not feedback.base.fault_bank_a, hex(feedback.base.fault_bank_a)
        time.sleep(max(0.0, begin + 0.001 - time.monotonic()))
    gripper = feedback.interconnect.gripper_feedback.motor[0].position
    assert abs(gripper - motor.position) < 5.0, gripper
    wanted = ActuatorConfig_pb2.ControlModeInformation()
    for name in ("TORQUE", "POSITION"):
        wanted.control_mode = ActuatorConfig_pb2.ControlMode.Value(name)
        actuators.SetControlMode(wanted, 1)
        cyclic.Refresh(command, 0, options)
        assert actuators.GetControlMode(1).control_mode == wanted.control_mode
    refused("CONTROL_ACTUATOR_COUNT_MISMATCH", cyclic.Refresh, BaseCyclic_pb2.Command())
    refused("LOW_LEVEL_SERVOING", base.ExecuteActionFromReference, home.handle)
    mode.servoing_mode = Base_pb2.SINGLE_LEVEL_SERVOING
    base.SetServoingMode(mode)
    end = time.monotonic() + WAIT
    while len(modes) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert modes == [Base_pb2.LOW_LEVEL_SERVOING, Base_pb2.SINGLE_LEVEL_SERVOING], modes
    base.Unsubscribe(handle)


def main(port, udp_port, cycles):
    """Run the session."""
    log_in_wrongly(port, udp_port)
    stream, datagrams = TCPTransport(), UDPTransport()
    router, session = log_in(stream, port)
    fast_router, fast_session = log_in(datagrams, udp_port)
    base, cyclic = BaseClient(router), BaseCyclicClient(fast_router)
    look(base, router)
    base.ClearFaults()
    home = act(base)
    cycle(base, cyclic, ActuatorConfigClient(router), home, cycles)
    base.ApplyEmergencyStop()
    refused("ROBOT_IN_EMERGENCY_STOP", base.ExecuteActionFromReference, home.handle)
    base.ClearFaults()
    # Nothing but the client's own keep-alives for a while.
    time.sleep(1.0)
    assert base.GetArmState().active_state == Common_pb2.ARMSTATE_SERVOING_READY
    assert len(cyclic.RefreshFeedback().actuators) == N
    fast_session.CloseSession()
    session.CloseSession()
    datagrams.disconnect()
    stream.disconnect()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
