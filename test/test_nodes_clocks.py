# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Time, parameters and partners of the nodes: what a step of the system clock must not change."""

import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
pytest.importorskip("ndp_interfaces", reason="needs the message package: pip install ./interfaces")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from ros_support import claim_domain

from ndp_ros.arms.ros2_control.config import Ros2ControlConfig
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError, RejectedError
from ndp_ros.nodes import clocks, diagnostics, parameters, partners, process
from ndp_ros.nodes.clocks import SimulatedClock, StampLine, SystemClock, clock_of_stamps
from ndp_ros.nodes.diagnostics import Health
from ndp_ros.nodes.integrator_node import IntegratorNode
from ndp_ros.nodes.lifecycle import NdpNode
from ndp_ros.nodes.messages import Parameters
from ndp_ros.nodes.source import PATIENCE, Source
from ndp_ros.streaming.config import StreamSpec

pytestmark = pytest.mark.live


class Shifted:
    """Stands in for ``time``, with a system clock that can be set."""

    def __init__(self) -> None:
        self.by = 0.0
        self.passed = 0.0

    def time(self) -> float:
        return time.time() + self.by + self.passed

    def monotonic(self) -> float:
        return time.monotonic() + self.passed


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> Shifted:
    stand_in = Shifted()
    monkeypatch.setattr(clocks, "time", stand_in)
    return stand_in


@pytest.mark.parametrize("step", [-3600.0, -20.0, -0.3, 0.3, 20.0, 3600.0])
def test_an_age_survives_a_step_of_the_system_clock(shifted: Shifted, step: float) -> None:
    clock = SystemClock()
    before = shifted.time() - 0.05
    shifted.by = step
    assert clock.age(before) == pytest.approx(0.05, abs=0.04)
    assert clock.age(shifted.time() - 0.05) == pytest.approx(0.05, abs=0.04)
    # A clock that is wrong, and not only just set, is told from one that is right.
    shifted.passed = 3.0
    clock.offset()
    assert clock.age(before) == pytest.approx(3.05 + step, abs=0.04)
    assert clock.age(shifted.time() + 3600.0) == pytest.approx(-3600.0, abs=0.04)


def test_the_line_of_stamps_goes_on_evenly_when_their_clock_steps(shifted: Shifted) -> None:
    line, times = StampLine(), []
    for i in range(30):
        shifted.passed = 0.01 * i
        shifted.by = 3600.0 if i == 10 else -20.0 if i > 20 else 0.0
        times.append(line(shifted.time()))
    assert np.diff(times) == pytest.approx(0.01, abs=0.02)


def segment(sequence: int, session: int = 7, duration: float = 0.2) -> Parameters:
    return Parameters(
        ("a",),
        np.zeros(1),
        np.zeros((1, 6)),
        DmpConfig(),
        duration,
        0.0,
        sequence,
        "throw",
        session=session,
    )


def rejected(source: Source, s: Parameters, now: float) -> str:
    with pytest.raises(RejectedError) as caught:
        source.check(s, now)
    return caught.value.reason


def test_one_publisher_drives_the_arm_until_it_is_silent() -> None:
    source = Source()
    for i in range(1, 6):
        source.check(segment(i), 0.2 * i)
        source.accept(segment(i), 0.2 * i)
        assert rejected(source, segment(i, session=8), 0.2 * i) == "second_policy"
        assert "two policies publish: throw (session 7) drives" in source.dispute(0.2 * i)
    source.check(segment(1, session=8), 1.0 + PATIENCE + 0.01)
    assert source.accept(segment(1, session=8), 2.01)
    assert source.dispute(2.01) == ""
    assert rejected(source, segment(6), 2.1) == "second_policy"


def test_a_number_that_is_not_new_is_refused_and_a_wrong_one_does_not_blind_for_ever() -> None:
    source = Source()
    source.accept(segment(5), 0.0)
    for old in (5, 4, 0):
        assert rejected(source, segment(old), 0.1) == "sequence"
    source.check(segment(9), 0.1)
    source.accept(segment(2**64 - 1), 0.1)
    assert rejected(source, segment(10), 0.2) == "sequence"
    source.check(segment(11), 0.1 + PATIENCE + 0.01)


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A ROS domain for nodes inside this process."""
    claimed, lock = claim_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(claimed))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    rclpy.init(args=[])
    yield
    rclpy.try_shutdown()
    # A node that is destroyed but not collected stays in the graph of the domain.
    gc.collect()
    lock.close()


MOCK = {"hardware": "mock", "arm": "jaco", "command_mode": "position"}


def composed(**values: object) -> IntegratorNode:
    overrides = [RosParameter(name, value=value) for name, value in (MOCK | values).items()]
    return IntegratorNode(parameter_overrides=overrides)


def test_parameters_are_read_when_the_node_is_configured(domain: None) -> None:
    node = composed(rate=500.0)

    def change(name: str, value: object) -> tuple[bool, str]:
        result = node.set_parameters([RosParameter(name, value=value)])[0]
        return result.successful, result.reason

    try:
        assert change("rate", 250.0)[0]
        assert change("command_mode", "voltage") == (
            False,
            "integrator_node: command_mode: 'voltage' is not one of [position, torque]",
        )
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert parameters.read(node, StreamSpec).runtime.rate == 250.0
        done, reason = change("rate", 100.0)
        assert not done
        assert "read when the node is configured, and it is inactive" in reason
        assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert change("rate", 100.0)[0]
    finally:
        node.end()
        node.destroy_node()


@pytest.mark.parametrize("simulated", [False, True])
def test_the_clock_of_stamps_is_chosen_at_the_start(domain: None, simulated: bool) -> None:
    node = composed(use_sim_time=simulated)
    try:
        kind = SimulatedClock if simulated else SystemClock
        assert isinstance(clock_of_stamps(node), kind)
        answer = node.set_parameters([RosParameter("use_sim_time", value=not simulated)])[0]
        assert not answer.successful
        assert "when the node is started" in answer.reason
        assert node.set_parameters([RosParameter("use_sim_time", value=simulated)])[0].successful
    finally:
        node.destroy_node()


def test_ages_in_a_simulation_stop_with_its_clock() -> None:
    now = 5.0
    clock = SimulatedClock(lambda: now)
    assert clock.age(4.5) == 0.5
    time.sleep(0.02)
    assert clock.age(4.5) == 0.5
    assert clock.stamp(time.monotonic() - 1.0) == pytest.approx(4.0, abs=0.01)


def test_names_for_several_nodes_are_no_mistake_and_misspelt_ones_are(
    domain: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shared = tmp_path / "shared.yaml"
    shared.write_text(
        "/**:\n  ros__parameters:\n    robot: {name: left}\n    rate: 250.0\n"
        "integrator_node:\n  ros__parameters:\n    reate: 5.0\n"
    )
    line = ["node", "--ros-args", "--params-file", str(shared), "-p", "raet:=1"]
    assert parameters.shared_names(line, "integrator_node") == {"robot.name", "rate"}
    assert parameters.shared_names(line, "policy_node") == {"robot.name", "rate"}
    monkeypatch.setattr("sys.argv", line)
    composed(**{"robot.name": "left"}).destroy_node()
    assert "none of this one: robot.name" in capfd.readouterr().err
    for misspelt in ("reate", "raet"):
        with pytest.raises(ConfigError, match=f"'{misspelt}' is not one of"):
            composed(**{misspelt: 5.0})


@pytest.mark.parametrize(
    ("release", "expected"),
    [((), False), ((7, 1, 6), False), ((7, 1, 11), True), ((8, 0, 0), False), ((9, 1, 2), True)],
)
def test_executor_is_chosen_by_what_it_can_do(release: tuple[int, ...], expected: bool) -> None:
    assert process.awaits_services(release) == expected
    assert process.rclpy_version() >= (7, 1)


def test_time_for_plans_passes_as_the_stamps_do_and_does_not_step() -> None:
    simulated = iter((5.0, 5.0, 5.5))
    paused = clocks.SimulatedClock(lambda: next(simulated))
    assert [paused.steady() for _ in range(3)] == [5.0, 5.0, 5.5]
    assert clocks.SystemClock().steady() == pytest.approx(time.monotonic(), abs=10.0)


class Quiet(NdpNode):
    """A node without a purpose."""

    def health(self) -> Health:
        return Health(diagnostics.OK, self.state)


def test_an_active_node_that_falls_silent_is_named_by_those_who_live(
    domain: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partners, "SILENCE", 1.0)
    monkeypatch.setattr(diagnostics, "host", lambda: "another machine")
    watcher, dies, ends = Quiet("watcher"), Quiet("dies"), Quiet("ends")
    other = Quiet("other", namespace="elsewhere")
    executor = SingleThreadedExecutor()
    for node in (watcher, dies, ends, other):
        node.start()
        executor.add_node(node)

    def until(condition: object) -> None:
        deadline = time.monotonic() + 60.0
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline
            executor.spin_once(timeout_sec=0.05)

    try:
        heard = watcher._partners._partners  # noqa: SLF001
        until(lambda: {n for n, partner in heard.items() if partner.expected} == {"dies", "ends"})
        assert watcher.lost() == ""
        ends.end()
        ends.report()
        for node in (dies, ends, other):
            executor.remove_node(node)
        until(watcher.lost)
        phrase = "dies has fallen silent (killed, hanging or cut off)"
        assert watcher.lost() == phrase
        judged = watcher._judge()  # noqa: SLF001
        assert (judged.level, judged.message) == (diagnostics.ERROR, f"{phrase}; active")
        executor.add_node(dies)
        until(lambda: not watcher.lost())
    finally:
        executor.shutdown()
        for node in (watcher, dies, ends, other):
            node.destroy_node()


@pytest.mark.parametrize("writable", [(), ("joints",)])
def test_an_empty_array_has_the_type_of_its_elements(domain: None, writable: tuple[str]) -> None:
    node = rclpy.create_node("arrays")
    try:
        parameters.declare(node, Ros2ControlConfig, writable=writable)
        assert node.describe_parameter("joints").type == RosParameter.Type.STRING_ARRAY.value
        assert parameters.read(node, Ros2ControlConfig).joints == ()
        (set_,) = node.set_parameters([RosParameter("joints", value=["a", "b"])])
        assert set_.successful == bool(writable)
        read = parameters.read(node, Ros2ControlConfig).joints
        assert read == (("a", "b") if writable else ())
    finally:
        node.destroy_node()


FATES = {
    "sleeps": ("import time; time.sleep(600)", "lost", "peer hangs (process "),
    "computes": ("while True: pass", "starved", "peer is too busy to report, or waits for a"),
    "is stopped": ("import os; os.kill(os.getpid(), 19)", "lost", "peer is stopped (process "),
    "dies": ("import os; os.kill(os.getpid(), 9)", "lost", "peer has died (process "),
}


@pytest.mark.parametrize("fate", FATES)
def test_a_silent_node_on_this_machine_is_named_with_the_cause(
    domain: None, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    code, kind, phrase = FATES[fate]
    monkeypatch.setattr(partners, "SILENCE", 0.5)
    node, executor = rclpy.create_node("watcher"), SingleThreadedExecutor()
    executor.add_node(node)
    watched = partners.Partners(node)
    output = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
    process = subprocess.Popen([sys.executable, "-S", "-c", code])
    values = {"state": "active", "pid": process.pid, "host": partners.host()}
    status = DiagnosticStatus(
        name="peer",
        values=[partners.PACKAGE, *(KeyValue(key=k, value=str(v)) for k, v in values.items())],
    )
    timer = node.create_timer(0.05, lambda: output.publish(DiagnosticArray(status=[status])))
    try:
        deadline = time.monotonic() + 60.0
        while not getattr(watched, kind)().startswith(phrase):
            assert time.monotonic() < deadline, (watched.lost(), watched.starved())
            executor.spin_once(timeout_sec=0.05)
            if timer is not None and time.monotonic() > deadline - 59.0:
                node.destroy_timer(timer)
                timer = None
        # Nodes ask at their rate of publication; a look costs the time that the other lacks.
        looks: list[int] = []
        monkeypatch.setattr(partners, "thread_states", lambda pid: looks.append(pid) or "S")
        began = time.monotonic()
        for _ in range(1000):
            watched.lost(), watched.starved()
        assert len(looks) <= 1 + (time.monotonic() - began) / 0.1
    finally:
        process.kill()
        process.wait()
        executor.shutdown()
        node.destroy_node()
