# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The streamer process on a Kortex arm: what can fail between them, on real processes and sockets.

After each failure the emulated arm has recorded no command beyond its limits and stands
still, and the streamer names the reason.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from kortex_proxy import Proxy, feedback
from kortex_support import (
    ARM,
    HOST,
    N,
    emulator,
    log_in,
    shared_emulator,
)

from ndp_ros.arms.kortex.codes import ServoingMode
from ndp_ros.arms.kortex.config import KortexConfig
from ndp_ros.arms.kortex.credentials import PASSWORD_VARIABLE
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response
from ndp_ros.emulator.process import EmulatorProcess
from ndp_ros.errors import StreamError
from ndp_ros.streaming.config import RuntimeConfig, StreamSpec
from ndp_ros.streaming.mailbox import Mailbox, MailboxLayout
from ndp_ros.streaming.process import start
from ndp_ros.streaming.streamer import DONE, FAILED, NOT_STARTED

pytestmark = pytest.mark.live

__all__ = ["emulator", "shared_emulator"]

DOF, RATE, DURATION = 7, 500.0, 0.4
DMP = DmpConfig(n_basis=3)
PATIENCE = 120.0  # for a busy machine; nothing here takes more than seconds on an idle one


class Rig:
    """A streamer that drives an emulated arm, and its parent: this process."""

    def __init__(self, process: EmulatorProcess) -> None:
        self.emulator = process
        self.box: Mailbox | None = None
        self.streamer: subprocess.Popen | None = None
        self.sequence = 0

    def start(self, mode: str = "position", options=None, wait: bool = True, **runtime) -> "Rig":
        patient = {
            "rate": RATE,
            "priority": 10,
            "heartbeat_timeout": 30.0,
            "parent_timeout": 60.0,
            "max_parameter_age": 5.0,
            "stall_timeout": 4.0,
            "feedback_timeout": 4.0,
            "max_following_error": 0.2,
            # All joints at their limits at once take more torque than the arm has.
            "velocity_margin": 0.8,
            "acceleration_margin": 0.3,
        }
        arm = {
            "robot_ip": HOST,
            "port": self.emulator.port,
            "udp_port": self.emulator.udp_port,
            "reply_timeout": 0.1,
            "unreachable_after": 5.0,
            "service_timeout": 20.0,
        }
        spec = StreamSpec(
            hardware="kortex",
            arm="gen3",
            task="",
            command_mode=mode,
            kortex=KortexConfig(**{**arm, **(options or {})}),
            runtime=RuntimeConfig(**{**patient, **runtime}),
        )
        self.box = Mailbox.create(MailboxLayout(DOF, max_rows=spec.runtime.max_rows, max_basis=4))
        self.streamer = start(spec, self.box)
        times = np.arange(spec.runtime.rows(DURATION)) / (spec.runtime.rate * DURATION)
        self.handle = self.box.send_response(response(DMP, times), DURATION)
        if wait:
            self.until(lambda: self.box.handshake() is not None)
        return self

    def until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < deadline, self.box.report()
            self.box.beat()
            time.sleep(0.005)

    def send(self, offset: float) -> None:
        """Send a segment that moves every arm joint; beyond it the arm brakes."""
        self.sequence += 1
        g = np.array(ARM.home)
        g[:N] += offset
        weights = np.zeros((DOF, DMP.n_basis))
        self.box.send_segment(g, weights, time.monotonic(), self.sequence, self.handle)

    def swing(self, happened: Callable[[], bool] | None = None, times: int = 6) -> None:
        """Move to and fro until something happens."""
        for i in range(10_000):
            if (i >= times) if happened is None else happened():
                return
            assert self.streamer.poll() is None, self.reason
            self.send(0.1 if i % 2 else -0.1)
            end = time.monotonic() + 0.1
            while time.monotonic() < end:
                self.box.beat()
                time.sleep(0.005)
            assert i < 9_999 and (happened is None or i < 1_000), self.box.report()

    def follow(self, **settings) -> "Rig":
        self.start(**settings)
        self.box.requests.wait(self.box.requests.ask("follow"), PATIENCE)
        self.swing(lambda: self.moving())
        return self

    def moving(self) -> bool:
        return max(map(abs, self.emulator.control.do("state")["velocity"])) > 0.05

    def ended(self) -> int:
        self.until(lambda: self.streamer.poll() is not None)
        return self.streamer.returncode

    def quit(self) -> int:
        self.box.requests.ask("quit")
        return self.ended()

    def cleared(self) -> bool:
        """Ask for the fault to be cleared; an arm that is still braking refuses."""
        with contextlib.suppress(StreamError):
            self.box.requests.wait(self.box.requests.ask("clear_fault"), PATIENCE)
        return not self.box.report()["fault"]

    @property
    def reason(self) -> str:
        report = self.box.report()
        return f"{report['fault']}; {report['reason']}"

    def close(self) -> None:
        if self.streamer is not None and self.streamer.poll() is None:
            self.streamer.send_signal(signal.SIGCONT)
            self.streamer.kill()
            self.streamer.wait()
        if self.box is not None:
            self.box.close()


@pytest.fixture
def rig(emulator) -> Iterator[Rig]:
    made = Rig(emulator)
    yield made
    made.close()


def assert_safe(process: EmulatorProcess) -> None:
    """No command beyond the limits ever came, and the arm has come to rest in its base's hands."""
    process.wait_for(
        lambda state: (
            max(map(abs, state["velocity"])) < 1e-2 and state["servoing"] == "SINGLE_LEVEL"
        ),
        timeout=PATIENCE,
    )
    record = process.control.do("record")
    assert record["frames"] > 0
    assert record["not_finite"] == 0
    speed = np.array(ARM.max_velocity[:N])
    assert np.all(np.array(record["min_position"]) >= np.array(ARM.lower[:N]) - 1e-5)
    assert np.all(np.array(record["max_position"]) <= np.array(ARM.upper[:N]) + 1e-5)
    assert np.all(np.array(record["max_velocity"]) <= speed * 1.001)
    assert np.all(np.array(record["max_torque"]) <= np.array(ARM.max_torque[:N]) * 1.001)
    rows = np.array(
        [
            [np.nan if value is None else value for value in row]
            for row in process.control.do("rows")
        ]
    )
    if np.isnan(rows[:, -N:]).all():
        # Position mode: a step is at most what the speed limit allows in a cycle.
        cycles = np.maximum(np.diff(rows[:, 1]) % 65536, 1)[:, None]
        steps = np.abs(np.diff(rows[:, 2 : 2 + N], axis=0)) / cycles
        assert np.all(steps <= speed / RATE * 1.01)


@pytest.mark.parametrize("mode", ["position", "torque"])
def test_streamer_moves_the_arm_and_gives_it_back(rig, mode):
    rig.follow(mode=mode)
    rig.swing()
    assert rig.quit() == DONE, rig.reason
    state = rig.emulator.control.do("state")
    assert (state["servoing"], state["sessions"]) == ("SINGLE_LEVEL", 0)
    assert_safe(rig.emulator)


@pytest.mark.parametrize("mode", ["position", "torque"])
@pytest.mark.parametrize(("what", "wrong"), [("velocity", 40.0), ("position", 6.0)])
@pytest.mark.parametrize("readings", [40, 1000])
def test_readings_that_stay_wrong_move_no_holding_arm(rig, mode, what, wrong, readings):
    proxy, left = Proxy(rig.emulator), [readings]

    def change(message) -> None:
        left[0] -= 1
        if left[0] >= 0:
            joint = message.actuators[1]
            setattr(joint, what, getattr(joint, what) + wrong)

    try:
        ports = {"port": proxy.port, "udp_port": proxy.udp_port}
        rig.start(mode, options=ports, feedback_timeout=1.0)
        time.sleep(0.2)
        start = np.array(rig.emulator.control.do("state")["position"])
        farthest, end = 0.0, time.monotonic() + 2.5
        proxy.answer = feedback(change)
        while time.monotonic() < end and (left[0] > -100 or time.monotonic() < end - 1.5):
            rig.box.beat()
            state = rig.emulator.control.do("state")
            farthest = max(farthest, np.abs(np.array(state["position"]) - start).max())
            time.sleep(0.005)
        assert left[0] < readings
        assert farthest < 0.01
        assert not any(state["faults"])
        if readings == 1000:
            assert "joint_2" in rig.reason
        else:
            assert rig.reason == "; "
    finally:
        proxy.close()


def test_goal_far_beyond_the_limits_moves_the_arm_inside_them(rig):
    rig.follow()
    for _ in range(10):
        rig.send(20.0)
        time.sleep(0.02)
    rig.swing(times=4)
    assert rig.quit() == DONE, rig.reason
    assert_safe(rig.emulator)


def test_goal_that_is_no_number_never_reaches_the_arm(rig):
    rig.follow()
    rig.send(float("nan"))
    rig.until(lambda: rig.box.report()["guard"].get("segment_not_finite", 0) > 0)
    rig.swing()
    assert rig.quit() == DONE
    assert_safe(rig.emulator)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_leaves_the_arm_at_rest_and_the_sessions_closed(rig, number):
    rig.follow()
    rig.streamer.send_signal(number)
    assert rig.ended() == DONE
    assert signal.Signals(number).name in rig.reason
    assert_safe(rig.emulator)
    assert rig.emulator.control.do("state")["sessions"] == 0


@pytest.mark.parametrize("loss", [0.05, 0.3])
def test_lost_datagrams_are_no_reason_to_stop(rig, loss):
    rig.follow(options={"reply_timeout": 0.002})
    rig.emulator.control.do("network", loss=loss, seed=1)
    rig.swing()
    rig.emulator.control.do("network", loss=0.0)
    assert rig.quit() == DONE, rig.reason
    assert rig.emulator.control.do("state")["lost"] > 0
    assert_safe(rig.emulator)


def test_bursts_of_delay_are_no_reason_to_stop(rig):
    rig.follow(options={"reply_timeout": 0.002})
    rig.emulator.control.do("network", burst_every=0.1, burst_delay=0.02)
    rig.swing()
    rig.emulator.control.do("network", burst_every=0.0)
    assert rig.quit() == DONE, rig.reason
    assert_safe(rig.emulator)


def test_cut_udp_is_named_and_reconnecting_works(rig):
    rig.follow(options={"reply_timeout": 0.002, "unreachable_after": 3.0}, feedback_timeout=2.0)
    rig.emulator.control.do("cut_udp", seconds=60)
    assert rig.ended() == FAILED
    assert "feedback" in rig.reason
    assert_safe(rig.emulator)
    rig.emulator.control.do("cut_udp", seconds=0)
    rig.close()
    rig.emulator.control.do("clear")
    again = rig.follow()
    assert again.quit() == DONE, again.reason
    assert_safe(rig.emulator)


@pytest.mark.parametrize("mode", ["position", "torque"])
def test_cut_tcp_is_named(rig, mode):
    rig.follow(mode=mode)
    rig.emulator.control.do("cut_tcp")
    assert rig.ended() == FAILED
    assert "closed the connection" in rig.reason or "is gone" in rig.reason
    assert_safe(rig.emulator)


def test_fault_of_an_actuator_is_named_and_cleared_on_request(rig):
    rig.follow()
    rig.emulator.control.do("fault", actuator=3, name="MAXIMUM_MOTOR_CURRENT")
    assert rig.ended() == FAILED
    assert "actuator 4: MAXIMUM_MOTOR_CURRENT" in rig.reason
    assert_safe(rig.emulator)
    rig.close()
    # As it is, the arm is refused; with the parameter it is cleared.
    rig.start(wait=False)
    rig.until(lambda: rig.streamer.poll() is not None)
    assert rig.streamer.returncode == NOT_STARTED
    rig.close()
    rig.follow(options={"clear_faults": True})
    assert rig.quit() == DONE


def test_arm_taken_away_is_named(rig):
    rig.follow()
    with log_in(rig.emulator) as other:
        other.set_servoing_mode(ServoingMode.SINGLE_LEVEL)
    assert rig.ended() == FAILED
    assert "left low-level servoing" in rig.reason
    assert_safe(rig.emulator)


def test_killed_streamer_leaves_the_arm_to_its_own_watchdog(rig):
    rig.follow()
    rig.streamer.kill()
    rig.streamer.wait()
    assert_safe(rig.emulator)
    warnings = rig.emulator.control.do("state")["warnings"]
    assert all("WATCHDOG_TRIGGERED" in names for names in warnings)


def test_stalled_streamer_finds_its_arm_gone_and_says_so(rig):
    rig.follow(stall_timeout=1.0)
    rig.streamer.send_signal(signal.SIGSTOP)
    rig.emulator.wait_for(lambda state: state["servoing"] == "SINGLE_LEVEL", PATIENCE)
    rig.streamer.send_signal(signal.SIGCONT)
    assert rig.ended() == FAILED
    assert "left low-level servoing" in rig.reason
    assert_safe(rig.emulator)


def test_streamer_that_stood_still_for_half_a_second_goes_on_from_rest(rig):
    """Its arm has more patience here than a real one; what it must not do is jump."""
    rig.follow(stall_timeout=0.3)
    rig.streamer.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    rig.streamer.send_signal(signal.SIGCONT)
    rig.until(lambda: rig.box.report()["guard"].get("stalled", 0) > 0)
    assert "stalled: the loop paused" in rig.reason
    rig.swing(lambda: rig.moving())
    assert rig.quit() == DONE, rig.reason
    assert_safe(rig.emulator)


def test_following_error_brakes_latches_and_can_be_cleared(rig):
    # A third of what the servos lag by in such a swing, however late a tick is.
    rig.start(max_following_error=0.0015)
    rig.box.requests.wait(rig.box.requests.ask("follow"), PATIENCE)
    rig.swing(lambda: rig.box.report()["fault"] != "")
    assert re.search(r"following_error: joint_\d \S+ rad, at most 0.0015", rig.reason)
    rig.until(lambda: not rig.moving())
    with pytest.raises(StreamError, match="in fault"):
        rig.box.requests.wait(rig.box.requests.ask("follow"), PATIENCE)
    rig.until(rig.cleared)
    rig.box.requests.wait(rig.box.requests.ask("follow"), PATIENCE)
    assert rig.quit() == DONE, rig.reason
    assert_safe(rig.emulator)


def test_killed_arm_ends_the_streamer_with_the_reason():
    from kortex_support import PATIENT

    with EmulatorProcess(PATIENT) as process:
        rig = Rig(process)
        try:
            rig.follow(options={"reply_timeout": 0.002})
            process.kill()
            assert rig.ended() == FAILED
            assert any(word in rig.reason for word in ("closed", "gone", "feedback")), rig.reason
        finally:
            rig.close()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"port": 1}, "no arm at 127.0.0.1:1"),
        ({"username": "lab"}, "check username and password"),
        ({"robot_ip": ""}, "robot_ip is empty"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_started(rig, options, line, capfd, monkeypatch):
    monkeypatch.setenv(PASSWORD_VARIABLE, "open sesame")
    rig.start(options=options, wait=False)
    assert rig.ended() == NOT_STARTED
    said = capfd.readouterr().err
    assert said.startswith("streamer: ") and said.count("\n") == 1
    assert line in said
    assert "sesame" not in said
    assert rig.emulator.control.do("state")["sessions"] == 0


def test_emulator_from_the_command_line_tells_its_ports_and_ends_on_a_signal():
    command = [
        sys.executable,
        "-m",
        "ndp_ros.cli",
        "emulate",
        "kortex",
        "--port",
        "0",
        "--udp-port",
        "0",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        ports = json.loads(process.stdout.readline())
        assert set(ports) == {"port", "udp_port", "control_port"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert b"TCP" in process.stderr.read()


def test_emulator_says_in_one_line_what_it_cannot_do(emulator):
    command = [sys.executable, "-m", "ndp_ros.cli", "emulate", "kortex", "--port"]
    for port, word in (
        (str(emulator.port), "cannot listen"),
        ("70000", "65535"),
        ("x", "expected"),
    ):
        run = subprocess.run([*command, port], capture_output=True, text=True, env=os.environ)
        assert run.returncode == 2
        assert run.stderr.count("\n") == 1 and word in run.stderr, run.stderr
