"""Time, parameters and partners of the nodes: what a step of the system clock must not change."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
pytest.importorskip("ndp_interfaces", reason="needs the message package: pip install ./interfaces")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from ros_support import claim_domain

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError
from ndp_ros.nodes import clocks, lifecycle, parameters, partners
from ndp_ros.nodes.clocks import StampLine, SystemClock
from ndp_ros.nodes.integrator_node import IntegratorNode
from ndp_ros.nodes.lifecycle import Health, NdpNode
from ndp_ros.nodes.messages import Parameters, RejectedError
from ndp_ros.nodes.source import PATIENCE, Source


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
        ("a",), np.zeros(1), np.zeros((1, 6)), DmpConfig(), duration, 0.0, sequence, "throw",
        session=session,
    )  # fmt: skip


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
            False, "integrator_node: command_mode: 'voltage' is not one of [position, torque]",
        )  # fmt: skip
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node._spec.runtime.rate == 250.0
        done, reason = change("rate", 100.0)
        assert not done
        assert "read when the node is configured, and it is inactive" in reason
        assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert change("rate", 100.0)[0]
    finally:
        node.end()
        node.destroy_node()


def test_simulated_time_is_refused_when_configured_and_when_set(
    domain: None, capfd: pytest.CaptureFixture[str]
) -> None:
    node = composed(use_sim_time=True)
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "use_sim_time is true, and this package keeps time" in capfd.readouterr().err
        assert node.set_parameters([RosParameter("use_sim_time", value=False)])[0].successful
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        answer = node.set_parameters([RosParameter("use_sim_time", value=True)])[0]
        assert not answer.successful
        assert "monotonic" in answer.reason
    finally:
        node.end()
        node.destroy_node()


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
    assert lifecycle.awaits_services(release) == expected
    assert lifecycle.rclpy_version() >= (7, 1)


class Quiet(NdpNode):
    """A node without a purpose."""

    def health(self) -> Health:
        return Health(lifecycle.OK, self.state)


def test_an_active_node_that_falls_silent_is_named_by_those_who_live(
    domain: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partners, "SILENCE", 1.0)
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
        heard = watcher._partners._partners
        until(lambda: {n for n, partner in heard.items() if partner.expected} == {"dies", "ends"})
        assert watcher.lost() == ""
        ends.end()
        ends.report()
        for node in (dies, ends, other):
            executor.remove_node(node)
        until(watcher.lost)
        phrase = "dies has fallen silent (killed, hanging or cut off)"
        assert watcher.lost() == phrase
        judged = watcher._judge()
        assert (judged.level, judged.message) == (lifecycle.ERROR, f"{phrase}; active")
        executor.add_node(dies)
        until(lambda: not watcher.lost())
    finally:
        executor.shutdown()
        for node in (watcher, dies, ends, other):
            node.destroy_node()
