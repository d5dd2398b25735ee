# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""An emulated arm for the tests that need one, and small ways to talk to it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from ndp_ros.arms.kortex.arm import KortexArm
from ndp_ros.arms.kortex.client import KortexClient
from ndp_ros.arms.kortex.codes import ActionEvent, ActionKind
from ndp_ros.arms.kortex.config import KortexConfig
from ndp_ros.arms.kortex.credentials import Credentials
from ndp_ros.arms.kortex.errors import KortexError
from ndp_ros.arms.kortex.schema import message
from ndp_ros.arms.kortex.units import to_degrees
from ndp_ros.config import to_mapping
from ndp_ros.control.arm import ArmConfig, ArmInfo, Command, JointState
from ndp_ros.emulator.config import EmulatorConfig, NetworkConfig
from ndp_ros.emulator.process import EmulatorProcess

HOST = "127.0.0.1"
# test_kortex_vendor.py runs the same tests with the vendor's client.
DRIVER = os.environ.get("NDP_TEST_DRIVER", "builtin")
ARM = ArmConfig.named("gen3")
N = 6

RATE = 500.0
# Machines that run tests stall, for seconds: each command brings the physics forward by one
# cycle, whatever the clock says, and the watchdog has time.
PATIENT = EmulatorConfig(port=0, udp_port=0, watchdog=1.8, cycle=1.0 / RATE)


@pytest.fixture(scope="module")
def shared_emulator() -> Iterator[EmulatorProcess]:
    with EmulatorProcess(PATIENT) as process:
        yield process


@pytest.fixture
def emulator(shared_emulator: EmulatorProcess) -> Iterator[EmulatorProcess]:
    """Return an emulated arm at home, on a good network, whose physics follows the commands."""
    refresh(shared_emulator)
    yield shared_emulator
    close_arms()


def refresh(process: EmulatorProcess) -> None:
    """Put an emulator back to how it started, whatever the test before did."""
    control = process.control
    control.do("end_sessions")
    control.do("network", **to_mapping(NetworkConfig()))
    control.do("cut_udp", seconds=0)
    control.do("reset")
    control.do("clear")


_arms: list[KortexArm] = []


def close_arms() -> None:
    """Close every arm that a test made and did not close."""
    while _arms:
        with contextlib.suppress(KortexError):
            _arms.pop().close()


def log_in(emulator: EmulatorProcess, password: str = "admin") -> KortexClient:
    return KortexClient(
        HOST, Credentials("admin", password), emulator.port, emulator.udp_port, timeout=10.0
    )


def make_arm(
    emulator: EmulatorProcess,
    rate: float = RATE,
    credentials: Credentials | None = None,
    **settings: object,
) -> KortexArm:
    patient = {"reply_timeout": 0.1, "unreachable_after": 5.0, "service_timeout": 10.0}
    config = KortexConfig(
        robot_ip=HOST,
        port=emulator.port,
        udp_port=emulator.udp_port,
        **{**patient, "driver": DRIVER, **settings},
    )
    arm = KortexArm(ARM, config, rate, credentials)
    _arms.append(arm)
    return arm


class Loop:
    """A small loop that drives a Kortex arm, as the streamer does but without its guard.

    ``paced`` loops keep to the clock; the others go as fast as answers come.
    """

    def __init__(
        self, arm: KortexArm, mode: str = "position", rate: float = RATE, paced: bool = False
    ) -> None:
        self.arm, self.rate, self.paced = arm, rate, paced
        self.info: ArmInfo = arm.connect()
        self.measured = arm.read(JointState.zeros(self.info.dof))
        self.start = self.measured.position.copy()
        self.command = Command.zeros(self.info.dof, mode)
        self.command.position[:] = self.start

    def run(self, duration: float, setpoint=None, tick=None) -> None:
        """Drive for some time [s]; ``setpoint(t)`` gives positions, ``tick(t)`` does the rest."""
        began = time.monotonic()
        for k in range(1, round(duration * self.rate) + 1):
            t = k / self.rate
            if setpoint is not None:
                self.command.position[:] = setpoint(t)
            if tick is not None:
                tick(t)
            self.arm.write(self.command)
            self.arm.read(self.measured)
            if self.paced:
                time.sleep(max(0.0, began + t - time.monotonic()))


def swing(start: np.ndarray, amplitude: float, period: float):
    """Return a smooth movement from rest and back, the same for all arm joints."""

    def setpoint(t: float) -> np.ndarray:
        y = start.copy()
        y[:N] += amplitude * 0.5 * (1.0 - np.cos(2.0 * np.pi * t / period))
        return y

    return setpoint


def move_to(client: KortexClient, position: np.ndarray, timeout: float = 30.0) -> None:
    """Move the arm to a posture (n,) [rad] by an action of its base, and wait for its end."""
    action = message("Action", name="move")
    for i, degrees in enumerate(to_degrees(np.asarray(position, float)).tolist()):
        action.reach_joint_angles.joint_angles.joint_angles.add(joint_identifier=i, value=degrees)
    _carry_out(client, "Base.ExecuteAction", action, timeout)


def move_home(client: KortexClient, timeout: float = 30.0) -> None:
    """Run the arm's action named Home and wait for its end."""
    wanted = message("RequestedActionType", action_type=ActionKind.REACH_JOINT_ANGLES)
    (home,) = client.stream.call("Base.ReadAllActions", wanted).action_list
    assert home.name == "Home"
    _carry_out(client, "Base.ExecuteActionFromReference", home.handle, timeout)


def _carry_out(client: KortexClient, method: str, request: object, timeout: float) -> None:
    """Start an action and wait for its end; subscribe first, or the end may be missed."""
    ended = threading.Event()
    events: list[int] = []

    def hear(note) -> None:
        if note.action_event in (ActionEvent.END, ActionEvent.ABORT):
            events.append(note.action_event)
            ended.set()

    handle = client.stream.subscribe("Base.ActionTopic", hear)
    try:
        client.stream.call(method, request)
        assert ended.wait(timeout), "the movement did not end"
    finally:
        client.stream.unsubscribe("Base.ActionTopic", handle)
    if events[0] == ActionEvent.ABORT:
        raise KortexError("the arm gave up the movement")
