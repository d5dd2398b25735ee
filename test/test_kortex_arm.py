# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The Kortex backend against the emulated arm: what a loop may rely on, and what can go wrong."""

import logging
import math
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kortex_support import (
    ARM,
    HOST,
    PATIENT,
    RATE,
    Loop,
    N,
    close_arms,
    emulator,
    log_in,
    make_arm,
    refresh,
    shared_emulator,
    swing,
)

from ndp_ros.arms.kortex import make
from ndp_ros.arms.kortex.arm import KortexArm
from ndp_ros.arms.kortex.codes import ServoingMode
from ndp_ros.arms.kortex.config import KortexConfig
from ndp_ros.arms.kortex.credentials import Credentials
from ndp_ros.arms.kortex.errors import (
    InvalidPassword,
    KortexError,
    NotInControl,
    RobotInFault,
    Unreachable,
    WrongServoingMode,
)
from ndp_ros.arms.kortex.units import from_degrees, to_degrees
from ndp_ros.control.arm import Arm, Command, JointState
from ndp_ros.emulator.process import EmulatorProcess
from ndp_ros.errors import ArmError, ConfigError

pytestmark = pytest.mark.live

__all__ = ["emulator", "shared_emulator"]


@pytest.fixture
def arm(emulator):
    arm = make_arm(emulator)
    yield arm
    arm.close()


def at_rest(state):
    return max(map(abs, state["velocity"])) < 1e-2 and state["servoing"] == "SINGLE_LEVEL"


# Units.


@settings(deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=1, max_size=9))
def test_commanded_degrees_are_from_0_to_360_and_mean_the_same_angle(radians):
    degrees = to_degrees(np.array(radians))
    assert (np.float32(degrees) >= 0).all()
    assert (np.float32(degrees) < 360).all()
    difference = np.radians(degrees) - np.array(radians)
    np.testing.assert_allclose(np.sin(difference / 2), 0.0, atol=1e-6)


def test_joint_with_limits_starts_between_minus_and_plus_half_a_turn():
    np.testing.assert_allclose(
        from_degrees(np.array([0.0, 90.0, 344.0, 181.0])), np.radians([0, 90, -16, -179])
    )


# The contract.


def test_kortex_arm_keeps_the_arm_protocol(arm):
    assert isinstance(arm, Arm)
    info = arm.connect()
    assert info.joint_names == ARM.joint_names
    assert info.command_modes == ("position", "torque")
    state = arm.read(JointState.zeros(info.dof))
    np.testing.assert_allclose(state.position, ARM.home, atol=1e-3)
    assert abs(time.monotonic() - state.time) < 5.0
    arm.stop()
    arm.stop()
    arm.close()
    arm.close()
    with pytest.raises(ArmError, match="connect"):
        arm.read(state)


def test_arm_is_not_taken_before_the_first_command(arm, emulator):
    info = arm.connect()
    arm.read(JointState.zeros(info.dof))
    assert emulator.control.do("state")["servoing"] == "SINGLE_LEVEL"
    assert emulator.control.do("record")["frames"] == 0


@pytest.mark.parametrize("mode", ["position", "torque"])
def test_arm_follows_a_setpoint_in_either_mode(emulator, mode):
    arm, omega = make(
        ARM,
        task="",
        command_mode=mode,
        rate=RATE,
        seed=0,
        settings=KortexConfig(
            HOST,
            port=emulator.port,
            udp_port=emulator.udp_port,
            reply_timeout=0.1,
            unreachable_after=5.0,
        ),
    )
    loop = Loop(arm, mode)
    goal = swing(loop.start, 0.15, 2.0)
    desired, rate, acceleration = np.zeros(7), np.zeros(7), np.zeros(7)
    errors = []

    def tick(t):
        dt = 1e-4
        before, here, after = goal(t - dt), goal(t), goal(t + dt)
        desired[:], rate[:] = here, (after - before) / (2 * dt)
        acceleration[:] = (after - 2 * here + before) / dt**2
        omega(desired, rate, acceleration, loop.measured, loop.command)
        errors.append(abs(desired - loop.measured.position)[:N].max())

    loop.run(1.0, tick=tick)
    # Half a period is over: the arm is at its farthest.
    np.testing.assert_allclose(loop.measured.position[:N], loop.start[:N] + 0.15, atol=0.03)
    assert max(errors) < 0.1
    arm.close()
    state = emulator.wait_for(at_rest)
    assert state["state"] == "SERVOING_READY"
    record = emulator.control.do("record")
    assert record["frames"] > 200
    assert np.all(np.array(record["max_torque"]) <= np.array(ARM.max_torque[:N]) + 1e-3)


def test_start_is_bumpless_in_torque_mode(emulator):
    arm = make_arm(emulator)
    loop = Loop(arm, "torque")
    held = loop.measured.effort.copy()
    applied = np.array(emulator.control.do("state")["torque"])
    np.testing.assert_allclose(held[:N], applied, atol=1e-2)  # one sign, commanded or measured
    loop.command.torque[:] = held
    loop.run(0.05)
    np.testing.assert_allclose(loop.measured.position[:N], loop.start[:N], atol=5e-3)
    arm.close()
    assert emulator.control.do("record")["max_step"] < [0.01] * N


def test_torque_mode_sends_the_measured_position_in_every_cycle(emulator):
    arm = make_arm(emulator)
    loop = Loop(arm, "torque")
    push = loop.measured.effort.copy()
    push[0] += 4.0

    def tick(_):
        loop.command.torque[:] = push

    loop.run(0.15, tick=tick)
    moved = loop.measured.position[0] - loop.start[0]
    arm.close()
    assert moved > 0.02
    rows = emulator.control.do("rows")
    commanded = [row[2] for row in rows]
    assert max(commanded) > loop.start[0] + 0.5 * moved
    assert emulator.control.do("state")["faults"] == [[]] * N


def test_continuous_joint_passes_0_without_a_jump(emulator):
    # Joint 1 starts at 0: the wire says 359.99 and 0.01 in turn.
    arm = make_arm(emulator)
    loop = Loop(arm)

    def wave(t):
        y = loop.start.copy()
        y[0] += 0.1 * math.sin(2 * math.pi * t)
        return y

    seen = []
    loop.run(1.0, wave, lambda _: seen.append(loop.measured.position[0]))
    arm.close()
    assert min(seen) < -0.05 < 0.05 < max(seen)
    assert max(abs(np.diff(seen))) < 0.1
    assert emulator.control.do("record")["max_step"][0] < 0.01


def test_gripper_goes_through_the_interconnect(emulator):
    arm = make_arm(emulator)
    loop = Loop(arm)
    loop.run(0.02)
    goal = loop.start.copy()
    goal[N] = 0.6
    loop.run(1.0, lambda t: goal)
    assert loop.measured.position[N] == pytest.approx(0.6, abs=0.05)
    arm.close()


def test_grip_is_kept_when_the_arm_is_taken(emulator):
    with log_in(emulator) as client:
        client.move_gripper(0.5)
        emulator.wait_for(lambda state: state["gripper"] > 0.45)
    arm = make_arm(emulator)
    loop = Loop(arm)
    loop.command.position[N] -= 0.1  # not where the gripper was told to be
    loop.run(0.1)
    assert emulator.control.do("state")["gripper"] > 0.45
    loop.command.position[N] = 0.0
    loop.run(0.6)
    assert emulator.control.do("state")["gripper"] < 0.2
    arm.close()


def test_stop_brakes_inside_the_limits_from_full_motion(emulator):
    arm = make_arm(emulator)
    loop = Loop(arm)
    loop.run(0.5, swing(loop.start, 0.3, 2.0))
    assert max(abs(loop.measured.velocity[:N])) > 0.1
    arm.stop()
    state = emulator.control.do("state")
    assert max(map(abs, state["velocity"])) < 0.15
    assert state["servoing"] == "SINGLE_LEVEL"
    assert state["state"] == "SERVOING_READY"
    emulator.wait_for(at_rest)
    arm.close()
    assert emulator.control.do("state")["sessions"] == 0


def test_an_arm_at_rest_that_has_moved_its_gripper_is_given_back_where_it_stands(emulator):
    arm = make_arm(emulator)
    loop = Loop(arm)
    loop.run(0.1)
    loop.command.position[N] = 0.4
    loop.run(0.6, lambda t: loop.command.position + np.append(np.full(N, 0.0006), 0.0))
    loop.run(1.0)
    arm.stop()
    state, record = emulator.control.do("state"), emulator.control.do("record")
    assert state["state"] == "SERVOING_READY"
    np.testing.assert_allclose(state["position"], loop.command.position[:N], atol=0.02)
    assert max(record["max_step"]) < 0.001
    assert record["refused"] == 0


def test_dry_run_reads_and_never_commands(emulator):
    arm = make_arm(emulator, dry_run=True)
    loop = Loop(arm, rate=100.0)
    loop.run(0.2, lambda t: loop.start + 0.5)
    np.testing.assert_allclose(loop.measured.position[:N], loop.start[:N], atol=1e-3)
    arm.close()
    record = emulator.control.do("record")
    assert (record["frames"], record["refused"]) == (0, 0)


def test_command_that_is_no_number_never_leaves(emulator):
    arm = make_arm(emulator)
    loop = Loop(arm)
    loop.run(0.02)
    for field, mode in (("position", "position"), ("torque", "torque")):
        command = Command.zeros(7, mode)
        command.position[:] = loop.start
        getattr(command, field)[2] = math.nan
        with pytest.raises(ArmError, match="not finite"):
            arm.write(command)
    arm.close()
    assert emulator.control.do("record")["not_finite"] == 0


# What goes wrong before anything moves.


def test_no_arm_at_the_address_is_one_line_that_says_what_to_check():
    arm = KortexArm(ARM, KortexConfig(robot_ip=HOST, port=1, udp_port=1, service_timeout=1.0))
    with pytest.raises(Unreachable, match=r"no arm at 127\.0\.0\.1:1 .*check that the arm is on"):
        arm.connect()


def test_nobody_is_addressed_by_default():
    with pytest.raises(ArmError, match="robot_ip is empty"):
        KortexArm(ARM, KortexConfig()).connect()


def test_wrong_password_names_neither_password(emulator, caplog):
    caplog.set_level(logging.DEBUG)
    arm = make_arm(emulator, credentials=Credentials("admin", "open sesame"))
    with pytest.raises(InvalidPassword, match="check username and password") as caught:
        arm.connect()
    assert "sesame" not in str(caught.value) + caplog.text


def test_arm_in_fault_is_named_with_its_fault_and_cleared_only_when_asked(emulator):
    emulator.control.do("fault", actuator=2, name="MAXIMUM_MOTOR_TEMPERATURE")
    arm = make_arm(emulator)
    with pytest.raises(RobotInFault, match=r"actuator 3: MAXIMUM_MOTOR_TEMPERATURE.*clear"):
        arm.connect()
    assert emulator.control.do("state")["state"] == "IN_FAULT"
    arm = make_arm(emulator, clear_faults=True)
    arm.connect()
    arm.close()


def test_arm_with_another_number_of_joints_is_refused(emulator):
    import dataclasses

    vectors = (
        "lower",
        "upper",
        "max_velocity",
        "max_acceleration",
        "max_torque",
        "max_torque_rate",
        "home",
        "joint_names",
    )
    shorter = {name: getattr(ARM, name)[1:] for name in vectors}
    config = dataclasses.replace(ARM, name="five", continuous=("joint_4", "joint_6"), **shorter)
    settings = KortexConfig(robot_ip=HOST, port=emulator.port, udp_port=emulator.udp_port)
    with pytest.raises(KortexError, match="has 6 actuators, five has 5"):
        KortexArm(config, settings).connect()


def test_arm_that_another_client_drives_is_left_alone(emulator):
    arm = make_arm(emulator)
    loop = Loop(arm)
    loop.run(0.02)
    with pytest.raises(NotInControl, match="another client drives"):
        make_arm(emulator).connect()
    arm.close()


# Credentials.


def test_credentials_come_from_arguments_then_file_then_environment(tmp_path, monkeypatch):
    file = tmp_path / "kortex.yaml"
    file.write_text("username: lab\npassword: from-file\n")
    file.chmod(0o600)
    monkeypatch.setenv("NDP_KORTEX_PASSWORD", "from-environment")
    assert Credentials.find("", "", file) == Credentials("lab", "from-file")
    assert Credentials.find("", "given", file) == Credentials("lab", "given")
    assert Credentials.find() == Credentials("admin", "from-environment")
    assert "from" not in repr(Credentials.find())


def test_file_of_credentials_must_be_private_and_hold_nothing_else(tmp_path):
    file = tmp_path / "kortex.yaml"
    file.write_text("password: secret-word\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Credentials.find(file=file)
    file.write_text("passwort: secret-word\n")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="expected username and password") as caught:
        Credentials.find(file=file)
    assert "secret-word" not in str(caught.value)


# What goes wrong in motion.


def drive(emulator, act, seconds=1.2, after=0.4, mode="position", paced=False, **settings):
    """Drive a swing, let something happen in its middle, and return what the loop saw of it."""
    arm = make_arm(emulator, **settings)
    loop = Loop(arm, mode, paced=paced)
    done = []

    def tick(t):
        if t >= after and not done:
            done.append(act())

    error = None
    try:
        loop.run(seconds, swing(loop.start, 0.2, 2.0), tick)
    except KortexError as caught:
        error = caught
    try:
        arm.stop()
    except KortexError as caught:
        error = error or caught
    arm.close()
    return error, arm


def no_command_beyond_limits(emulator):
    record = emulator.control.do("record")
    assert record["frames"] > 0
    assert record["not_finite"] == 0
    low, high = np.array(ARM.lower[:N]), np.array(ARM.upper[:N])
    assert np.all(np.array(record["min_position"]) >= low)
    assert np.all(np.array(record["max_position"]) <= high)
    assert np.all(np.array(record["max_velocity"]) <= np.array(ARM.max_velocity[:N]))
    assert np.all(np.array(record["max_torque"]) <= np.array(ARM.max_torque[:N]) + 1e-3)


@pytest.mark.parametrize("loss", [0.05, 0.3])
def test_lost_datagrams_do_not_stop_the_arm(emulator, loss):
    error, arm = drive(
        emulator,
        lambda: emulator.control.do("network", loss=loss, seed=1),
        paced=True,
        reply_timeout=0.002,
    )
    assert error is None
    emulator.wait_for(at_rest)
    assert arm.client.datagrams.missed > 0
    no_command_beyond_limits(emulator)


def test_bursts_of_delay_do_not_stop_the_arm_and_age_the_measurement(emulator):
    ages = []
    arm = make_arm(emulator, reply_timeout=0.002)
    loop = Loop(arm, paced=True)
    emulator.control.do("network", burst_every=0.1, burst_delay=0.02)
    loop.run(
        0.6,
        swing(loop.start, 0.1, 2.0),
        lambda _: ages.append(time.monotonic() - loop.measured.time),
    )
    assert max(ages) > 0.01
    emulator.control.do("network", burst_every=0.0)
    arm.close()
    emulator.wait_for(at_rest)
    no_command_beyond_limits(emulator)


def test_in_lockstep_every_command_waits_for_its_answer_however_late(emulator):
    arm = make_arm(emulator, reply_timeout=0.002, lockstep=True)
    loop = Loop(arm)
    emulator.control.do("network", delay=0.01)
    late = []
    loop.run(
        0.1,
        tick=lambda _: late.append(arm.client.datagrams.cycles - arm.client.datagrams.answered),
    )
    assert max(late) == 0


def test_cut_udp_is_named_and_the_arm_stops_by_itself(emulator):
    error, _ = drive(
        emulator,
        lambda: emulator.control.do("cut_udp", seconds=30.0),
        paced=True,
        reply_timeout=0.002,
        unreachable_after=2.0,
        seconds=30.0,
    )
    assert isinstance(error, Unreachable)
    assert "no feedback" in str(error)
    emulator.wait_for(at_rest)
    no_command_beyond_limits(emulator)
    # Recovery: connect again.
    emulator.control.do("cut_udp", seconds=0)
    arm = make_arm(emulator)
    Loop(arm).run(0.05)
    arm.close()


def test_cut_tcp_is_named_and_the_arm_comes_to_rest(emulator):
    error, _ = drive(emulator, lambda: emulator.control.do("cut_tcp"))
    assert isinstance(error, Unreachable)
    assert "closed the connection" in str(error) or "is gone" in str(error)
    emulator.wait_for(at_rest)
    no_command_beyond_limits(emulator)


def test_fault_in_motion_is_named(emulator):
    error, _ = drive(
        emulator, lambda: emulator.control.do("fault", actuator=1, name="MAXIMUM_TORQUE")
    )
    assert isinstance(error, RobotInFault)
    assert "actuator 2: MAXIMUM_TORQUE" in str(error)
    emulator.wait_for(at_rest)


def test_following_error_in_motion_is_named(emulator):
    arm = make_arm(emulator)
    loop = Loop(arm)
    loop.run(0.05)
    with pytest.raises(RobotInFault, match="actuator 2: FOLLOWING_ERROR"):
        loop.run(0.3, lambda t: loop.start + np.array([0, 0.3, 0, 0, 0, 0, 0]))
    arm.stop()
    arm.close()
    emulator.wait_for(at_rest)


def test_arm_taken_away_is_named(emulator):
    def take_away():
        with log_in(emulator) as other:
            other.set_servoing_mode(ServoingMode.SINGLE_LEVEL)

    error, _ = drive(emulator, take_away)
    assert isinstance(error, WrongServoingMode)
    assert "left low-level servoing without a fault" in str(error)
    emulator.wait_for(at_rest)
    no_command_beyond_limits(emulator)


def test_killed_arm_is_noticed_at_once():
    with EmulatorProcess(PATIENT) as process:
        arm = make_arm(process, reply_timeout=0.002)
        loop = Loop(arm, paced=True)

        def kill(t):
            if t >= 0.1 and process.running:
                process.kill()

        with pytest.raises(Unreachable, match=r"closed the connection|is gone|no feedback"):
            loop.run(20.0, tick=kill)
        with pytest.raises(KortexError):
            arm.stop()
        arm.close()


_CLIENT = """
import sys, time
from kortex_support import *
arm = KortexArm(ARM, KortexConfig(robot_ip=HOST, port=int(sys.argv[1]), udp_port=int(sys.argv[2]),
                                  reply_timeout=0.1, unreachable_after=5.0), 500.0)
loop = Loop(arm, paced=True)
loop.run(0.1)
print("driving", flush=True)
loop.run(60.0, swing(loop.start, 0.2, 2.0))
"""


def test_client_that_is_killed_leaves_an_arm_at_rest():
    """SIGKILL: nobody says good-bye; the arm's own watchdog ends the motion."""
    with EmulatorProcess(PATIENT) as process:
        command = [sys.executable, "-c", _CLIENT, str(process.port), str(process.udp_port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd="test") as driver:
            assert driver.stdout is not None
            assert driver.stdout.readline() == b"driving\n"
            process.wait_for(lambda state: max(map(abs, state["velocity"])) > 0.05)
            driver.send_signal(signal.SIGKILL)
        state = process.wait_for(at_rest)
        assert all("WATCHDOG_TRIGGERED" in names for names in state["warnings"])
        no_command_beyond_limits(process)


def test_no_thread_outlives_a_closed_arm(emulator):
    before = set(threading.enumerate())
    arm = make_arm(emulator)
    arm.connect()
    arm.close()
    assert set(threading.enumerate()) <= before


@settings(max_examples=5, deadline=None)
@given(
    loss=st.floats(0.0, 0.3),
    reorder=st.floats(0.0, 0.4),
    jitter=st.floats(0.0, 0.01),
    seed=st.integers(0, 1000),
)
def test_whatever_the_network_does_measurements_go_forward_and_commands_stay_smooth(
    shared_emulator, loss, reorder, jitter, seed
):
    control = shared_emulator.control
    refresh(shared_emulator)
    arm = make_arm(shared_emulator, reply_timeout=0.002)
    times = []
    try:
        loop = Loop(arm, paced=True)
        control.do("network", loss=loss, reorder=reorder, jitter=jitter, seed=seed)
        loop.run(0.2, swing(loop.start, 0.1, 2.0), lambda _: times.append(loop.measured.time))
        arm.stop()
    finally:
        control.do("network", loss=0.0, reorder=0.0, jitter=0.0)
        close_arms()
    shared_emulator.wait_for(at_rest)
    assert times == sorted(times)
    record = control.do("record")
    assert max(record["max_step"]) < 0.01
    assert control.do("state")["faults"] == [[]] * N
