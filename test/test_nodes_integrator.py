# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The integrator node over real DDS, with an ideal arm behind a real streamer process."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
pytest.importorskip("ndp_interfaces", reason="needs the message package: pip install ./interfaces")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState
from ndp_interfaces.msg import DmpParameters, Status
from ndp_interfaces.srv import Reset
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_support import Ros, ros_system
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger
from test_nodes_messages import BAD
from trajectory_msgs.msg import JointTrajectory

from ndp_ros.control.arm import ArmConfig
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.nodes import integrator_node, qos
from ndp_ros.nodes.assessment import level_of
from ndp_ros.nodes.messages import (
    Parameters,
    parameters_to_message,
    seconds,
    stamp_of,
)

pytestmark = pytest.mark.ros

ARM = ArmConfig.named("jaco")
HOME = np.array(ARM.home)
MOCK = {"hardware": "mock", "arm": "jaco", "command_mode": "position", "rate": 500.0}
EVERY_ONE = QoSProfile(depth=2000, reliability=ReliabilityPolicy.BEST_EFFORT)
SLACK = {"max_parameter_age": 1.0, "grace": 0.1, "heartbeat_timeout": 5.0, "stall_timeout": 5.0}
"""A busy machine may be late; what is tested is not its speed."""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass
class System:
    """An integrator with an ideal arm, and a test in the place of the policy."""

    ros: Ros
    process: object
    duration: float = 0.2
    sequence: int = 0
    goal: np.ndarray | None = None
    """Goal of the segments that the stand-in policy sends; None while it is silent."""
    origin: np.ndarray | None = None
    status: list[Status] = field(default_factory=list)
    joints: list[JointState] = field(default_factory=list)
    setpoints: list[JointTrajectory] = field(default_factory=list)
    diagnostics: list[DiagnosticArray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.status = self.ros.listen(Status, "ndp/status", qos.LATCHED)
        self.joints = self.ros.listen(JointState, "joint_states", qos.STATE)
        self.setpoints = self.ros.listen(JointTrajectory, "ndp/setpoint", EVERY_ONE)
        self.diagnostics = self.ros.listen(DiagnosticArray, "/diagnostics")
        self.output = self.ros.node.create_publisher(
            DmpParameters, "ndp/dmp_parameters", qos.PARAMETERS
        )
        self.ros.node.create_timer(0.75 * self.duration, self._policy)

    def _policy(self) -> None:
        if self.goal is not None:
            self.output.publish(self.message())

    def message(self) -> DmpParameters:
        self.sequence += 1
        goal = HOME if self.goal is None else self.goal
        return parameters_to_message(
            Parameters(
                ARM.joint_names,
                goal,
                np.zeros((7, 6)),
                DmpConfig(),
                self.duration,
                time.time(),
                self.sequence,
                "made-by-a-test",
                self.origin,
            )
        )

    @property
    def state(self) -> str:
        return self.status[-1].state if self.status else ""

    @property
    def position(self) -> np.ndarray:
        return np.array(self.joints[-1].position)

    @property
    def health(self) -> DiagnosticStatus:
        found = [s for m in self.diagnostics for s in m.status if s.name == "integrator_node"]
        return found[-1] if found else DiagnosticStatus()

    def figure(self, key: str) -> str:
        return next((v.value for v in self.health.values if v.key == key), "0")

    def follow(self, on: bool) -> SetBool.Response:
        return self.ros.call(SetBool, "integrator_node/follow", SetBool.Request(data=on))

    def trigger(self, name: str) -> Trigger.Response:
        return self.ros.call(Trigger, f"integrator_node/{name}")

    def transition(self, label: str) -> bool:
        request = ChangeState.Request()
        request.transition.label = label
        return self.ros.call(ChangeState, "integrator_node/change_state", request).success

    def rest(self) -> None:
        """Bring everything back to how a test expects it."""
        self.goal = None
        if self.state == Status.FAULT:
            self.trigger("clear_fault")
        self.follow(False)
        self.ros.until(lambda: self.state == Status.HOLDING, "arm at rest")

    def drive(self, goal: np.ndarray) -> None:
        """Follow the stand-in policy to a goal."""
        self.goal = goal
        assert self.follow(True).success
        self.ros.until(
            lambda: np.abs(self.position - goal).max() < 0.02, f"arm at {goal}, state {self.state}"
        )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with ros_system(tmp_path_factory.mktemp("integrator")) as ros:
        system = System(ros, ros.start_node("integrator_node", **MOCK, **SLACK))
        ros.until(lambda: system.state == Status.HOLDING and system.joints, "arm at rest")
        yield system


@pytest.fixture
def system(shared: System) -> Iterator[System]:
    yield shared
    if shared.state != Status.STOPPED:
        shared.rest()


def test_nothing_moves_before_follow(system: System) -> None:
    before = system.position
    system.goal = HOME + 0.2
    system.ros.until(lambda: int(system.figure("ignored")) > 3, "ignored segments")
    np.testing.assert_array_equal(system.position, before)
    assert system.state == Status.HOLDING


def test_arm_goes_to_the_goal_without_a_jump_at_any_hand_over(system: System) -> None:
    system.setpoints.clear()
    goal = HOME + np.array([0.3, 0.2, -0.2, 0.3, 0.1, -0.3, 0.1])
    system.drive(goal)
    # Every setpoint is kept, so that they may come in behind the joint states.
    system.ros.until(
        lambda: np.abs(np.array(system.setpoints[-1].points[0].positions) - goal).max() < 0.03,
        "setpoints of the way",
    )
    # Critically damped and without forcing, every joint moves towards its goal and never back.
    y = np.array([m.points[0].positions for m in system.setpoints])
    assert (np.diff(y, axis=0) * np.sign(goal - HOME) >= -1e-9).all()
    np.testing.assert_array_equal(y[0], HOME)
    assert len(np.unique(y[:, 0])) > 10


def test_status_names_the_segment_that_drives_the_arm(system: System) -> None:
    system.drive(HOME)
    system.ros.until(lambda: system.status[-1].checkpoint == "made-by-a-test", "its name")
    last = system.status[-1]
    assert (last.arm, last.backend, last.simulated) == ("jaco", "mock", False)
    assert tuple(last.joint_names) == ARM.joint_names
    assert last.rate == 500.0


def test_messages_that_do_not_fit_are_dropped_and_counted_by_reason(system: System) -> None:
    assert system.follow(True).success
    before = system.position
    wanted: dict[str, int] = {}
    start = {reason: int(system.figure(f"rejected_{reason}")) for reason, _ in BAD.values()}
    for reason, change in BAD.values():
        system.goal, system.origin = HOME + 0.2, HOME
        message = system.message()
        system.goal = system.origin = None
        if reason in ("stale", "future"):
            message.header.stamp = stamp_of(time.time() + (-9.0 if reason == "stale" else 9.0))
        else:
            change(message)
        wanted[reason] = wanted.get(reason, 0) + 1
        system.output.publish(message)
        # A depth of one: a second message may overwrite the first before it is read.
        system.ros.until(
            lambda r=reason: int(system.figure(f"rejected_{r}")) == start[r] + wanted[r],
            f"rejection for {reason}",
        )
    np.testing.assert_array_equal(system.position, before)


def test_segments_that_the_guard_refuses_are_a_warning_a_reason_and_a_line_of_the_log(
    system: System,
) -> None:
    before, rejected = system.position, system.status[-1].rejected
    # What the node cannot know to be wrong: this goal lies beyond the joint's range.
    system.goal = HOME + np.array([0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert system.follow(True).success
    system.ros.until(
        lambda: (
            system.state == Status.WAITING
            and system.status[-1].reason.startswith(
                "segments rejected: segment_impossible: segment"
            )
            and system.status[-1].rejected > rejected
        ),
        "word of it in the status",
    )
    system.ros.until(
        lambda: (
            system.health.level == DiagnosticStatus.WARN
            and system.health.message == "waiting: segments rejected: segment_impossible"
        ),
        "word of it in the diagnostics",
    )
    line = "segments refused by the guard: segment_impossible: segment"
    system.ros.until(lambda: line in system.ros.said(system.process), "a log line")
    np.testing.assert_array_equal(system.position, before)


def test_an_arm_that_brakes_as_it_was_told_is_no_warning_and_any_other_is() -> None:
    assert level_of(Status.BRAKING, "") == DiagnosticStatus.OK
    assert level_of(Status.BRAKING, "starved: ...") == DiagnosticStatus.WARN
    assert level_of(Status.FAULT, "") == DiagnosticStatus.ERROR


HEAVY = {
    "a millionth of a second": ({"duration": 1e-6}, "duration"),
    "a duration of less than three ticks": ({"duration": 0.004}, "duration"),
    "more basis functions than there is room for": ({"n_basis": 100, "a_x": 50.0}, "dynamics"),
    "a hundred thousand Euler steps": ({"solver": "euler", "m": 100_000}, "dynamics"),
    "a fast phase": ({"n_basis": 32, "a_x": 50.0, "layout": "paper"}, "dynamics"),
}


@pytest.mark.parametrize("name", HEAVY)
def test_a_segment_that_would_silence_the_heart_is_rejected_before_it_is_computed(
    system: System, name: str
) -> None:
    change, reason = HEAVY[name]
    message = system.message()
    for key, value in change.items():
        setattr(message, key, value)
    message.weights = [0.0] * (7 * message.n_basis)
    rejected = int(system.figure(f"rejected_{reason}"))
    system.output.publish(message)
    system.ros.until(
        lambda: int(system.figure(f"rejected_{reason}")) > rejected, f"rejection for {reason}"
    )
    assert system.figure("guard_parent_lost") == "0"


def test_arm_brakes_and_holds_when_the_policy_falls_silent_and_goes_on_when_it_is_back(
    system: System,
) -> None:
    system.drive(HOME + 0.05)
    system.goal = None
    system.ros.until(
        lambda: system.state == Status.WAITING and "starved" in system.status[-1].reason,
        "arm at rest",
    )
    system.ros.until(
        lambda: (
            system.health.level == DiagnosticStatus.WARN
            and "policy silent" in system.health.message
        ),
        "word of it in the diagnostics",
    )
    at_rest = system.position
    system.ros.spin(0.3)
    np.testing.assert_array_equal(system.position, at_rest)
    system.drive(HOME)


def test_stop_latches_until_it_is_cleared(system: System) -> None:
    system.drive(HOME + 0.05)
    assert system.trigger("stop").success
    system.ros.until(lambda: system.state == Status.FAULT, "fault")
    assert "stop_requested" in system.status[-1].reason
    refused = system.follow(True)
    assert not refused.success
    assert "clear" in refused.message
    system.goal = None
    system.ros.until(lambda: system.health.level == DiagnosticStatus.ERROR, "error diagnostics")
    system.ros.until(lambda: system.trigger("clear_fault").success, "cleared fault")
    for line in ("~/stop: stopped until ~/clear_fault", "~/follow refused", "~/clear_fault: holds"):
        system.ros.until(lambda line=line: line in system.ros.said(system.process), f"log: {line}")
    system.drive(HOME)


def test_a_second_policy_is_refused_and_named_until_the_first_is_silent(system: System) -> None:
    first, second = HOME + 0.1, HOME + 0.02
    system.drive(first)
    accepted = int(system.figure("accepted"))

    def publish() -> None:
        message = system.message()
        message.session, message.checkpoint = 0xBEEF, "another"
        message.goal = second.tolist()
        system.output.publish(message)

    timer = system.ros.node.create_timer(0.05, publish)
    try:
        named = "two policies publish: made-by-a-test (without a session) drives the arm, another "
        system.ros.until(
            lambda: (
                system.health.level == DiagnosticStatus.ERROR
                and system.health.message.startswith(f"following: {named}")
                and system.status[-1].reason.startswith(named)
                and int(system.figure("accepted")) > accepted
            ),
            "word of it",
        )
        assert (system.position > HOME + 0.05).all()
        system.goal = None
        system.ros.until(lambda: np.abs(system.position - second).max() < 0.02, "its turn")
        assert system.status[-1].checkpoint == "another"
    finally:
        system.ros.node.destroy_timer(timer)


def test_duplicates_and_steps_backwards_are_refused(system: System) -> None:
    system.drive(HOME)
    system.goal = None
    rejected = int(system.figure("rejected_sequence"))
    system.ros.until(lambda: system.state == Status.WAITING, "arm at rest")
    for back in (0, 1, 2):
        system.goal = HOME
        message = system.message()
        system.goal = None
        first = int(message.sequence)
        system.output.publish(message)
        # The topic keeps one message: the next must not replace this one.
        system.ros.until(lambda n=first: int(system.figure("sequence")) == n, "the first of two")
        system.sequence -= back
        message = system.message()
        message.sequence -= 1
        system.output.publish(message)
        rejected += 1
        system.ros.until(
            lambda n=rejected: int(system.figure("rejected_sequence")) >= n, "a refusal"
        )
        system.sequence += back


def test_rejected_segments_are_the_cause_and_a_silent_policy_is_not(system: System) -> None:
    assert system.follow(True).success
    since = time.monotonic()

    def publish() -> None:
        message = system.message()
        message.header.stamp = stamp_of(time.time() - 9.0)
        system.output.publish(message)

    timer = system.ros.node.create_timer(0.1, publish)
    try:
        # Longer than a policy may take to its first segment.
        system.ros.until(lambda: time.monotonic() - since > 2.0, "silence")
        system.ros.until(
            lambda: (
                system.health.message == "waiting: segments rejected: stale"
                and system.health.level == DiagnosticStatus.WARN
                and system.status[-1].reason.startswith("segments rejected: stale: the observation")
            ),
            "the cause",
        )
    finally:
        system.ros.node.destroy_timer(timer)


def test_simulated_time_is_refused_in_the_middle_of_a_motion(system: System) -> None:
    system.drive(HOME + 0.05)
    parameter = Parameter("use_sim_time", value=True).to_parameter_msg()
    request = SetParameters.Request(parameters=[parameter])
    answer = system.ros.call(SetParameters, "integrator_node/set_parameters", request)
    assert not answer.results[0].successful
    assert "use_sim_time is read when the node is started" in answer.results[0].reason
    system.drive(HOME)


def test_limits_are_tuned_while_the_arm_moves_and_those_it_stops_by_are_not(system: System) -> None:
    def put(name: str, value: float) -> SetParametersResult:
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        return system.ros.call(SetParameters, "integrator_node/set_parameters", request).results[0]

    system.drive(HOME)
    assert put("velocity_margin", 0.05).successful
    try:
        system.setpoints.clear()
        system.drive(HOME + 0.1)
        yd = np.array([m.points[0].velocities for m in system.setpoints])
        # The first of them may have been on their way.
        assert np.abs(yd[5:, :6]).max() <= 0.05 * max(ARM.max_velocity[:6]) + 1e-9
        assert np.abs(yd).max() > 0.0
        for name, value, reason in (
            ("velocity_margin", 1.5, "velocity_margin"),
            ("acceleration_margin", 0.5, "read when the node is configured"),
        ):
            refused = put(name, value)
            assert not refused.successful
            assert reason in refused.reason
    finally:
        assert put("velocity_margin", 1.0).successful


def test_the_state_of_the_arm_reaches_reliable_subscribers(system: System) -> None:
    reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
    joints = system.ros.listen(JointState, "joint_states", reliable)
    system.ros.until(lambda: joints, "joint states")


def test_a_killed_integrator_is_named_by_another_node(ros: Ros) -> None:
    dies = ros.start_node("integrator_node", **MOCK, **SLACK)
    lives = ros.start(
        "ndp_ros.nodes.integrator_node",
        "--ros-args",
        "-r",
        "__node:=another",
        *(a for k, v in MOCK.items() for a in ("-p", f"{k}:={json.dumps(v)}")),
    )
    heard = ros.listen(DiagnosticArray, "/diagnostics")

    def says(name: str, text: str) -> bool:
        found = [s.message for m in heard for s in m.status if s.name == name]
        return bool(found) and text in found[-1]

    for name in ("integrator_node", "another"):
        ros.until(lambda name=name: says(name, "holding"), f"diagnostics of {name}")
    # The nodes discover each other later than the test does, on a busy machine by seconds.
    ros.spin(4.0)
    dies.kill()
    ros.until(lambda: says("another", "integrator_node has died (process"), "its name")
    assert lives.poll() is None


def test_a_real_arm_cannot_be_reset(system: System) -> None:
    answer = system.ros.call(Reset, "integrator_node/reset", Reset.Request(seed=1))
    assert not answer.success
    assert "simulated" in answer.message


def test_a_second_integrator_in_the_domain_is_refused(system: System) -> None:
    second = system.ros.start_node("integrator_node", **MOCK)
    assert system.ros.wait_exit(second) == 2
    assert "is in use" in system.ros.said(second)
    assert len(system.ros.output[second.pid]) == 1


def test_death_of_the_streamer_is_noticed_named_and_mended_by_a_new_activation(
    system: System,
) -> None:
    system.ros.until(lambda: system.figure("streamer_pid") != "0", "figures")
    os.kill(int(system.figure("streamer_pid")), signal.SIGKILL)
    system.ros.until(lambda: system.state == Status.STOPPED, "status without a streamer")
    assert "killed by signal 9" in system.status[-1].reason
    system.ros.until(lambda: system.health.level == DiagnosticStatus.ERROR, "error diagnostics")
    refused = system.follow(True)
    assert not refused.success
    assert "killed by signal 9" in refused.message

    system.status.clear()
    assert system.transition("deactivate")
    system.ros.until(lambda: system.status, "status after the deactivation")
    assert "killed by signal 9" in system.status[-1].reason
    line = "[integrator_node]: streamer ended (killed by signal 9)"
    system.ros.until(lambda: line in system.ros.said(system.process), "a log line")
    system.ros.until(
        lambda: (
            system.health.level == DiagnosticStatus.ERROR
            and system.health.message.startswith("inactive: streamer ended")
        ),
        "error diagnostics",
    )
    assert system.transition("activate")
    system.ros.until(lambda: system.state == Status.HOLDING, "arm at rest")
    system.drive(HOME)


def test_a_streamer_that_hangs_is_an_error_until_it_ticks_again(system: System) -> None:
    system.drive(HOME + 0.05)
    system.ros.until(lambda: system.figure("streamer_pid") != "0", "figures")
    pid, rejected = int(system.figure("streamer_pid")), int(system.figure("rejected_streamer"))
    # A policy runs by the arm's clock, which stops with the streamer.
    goal, system.goal = system.goal, None
    system.diagnostics.clear()
    os.kill(pid, signal.SIGSTOP)
    try:
        system.ros.until(lambda: system.state == Status.STOPPED, "status of a hanging streamer")
        said = {s.message for m in system.diagnostics for s in m.status}
        assert not {text for text in said if "policy silent" in text}
        system.goal = goal
        assert system.status[-1].reason == "streamer silent for more than 5 s"
        system.ros.until(
            lambda: (
                system.health.level == DiagnosticStatus.ERROR
                and "streamer silent" in system.health.message
            ),
            "error diagnostics",
        )
        system.ros.until(
            lambda: int(system.figure("rejected_streamer")) > rejected, "rejected segments"
        )
    finally:
        os.kill(pid, signal.SIGCONT)
    system.drive(HOME)


def test_deactivation_brings_the_arm_to_rest_and_ends_the_streamer(system: System) -> None:
    system.drive(HOME + 0.05)
    pid = int(system.figure("streamer_pid"))
    assert alive(pid)
    assert system.transition("deactivate")
    assert not alive(pid)
    system.ros.until(lambda: system.state == Status.STOPPED, "status")
    assert not system.follow(True).success
    system.goal = None
    assert system.transition("activate")
    system.ros.until(lambda: system.state == Status.HOLDING, "arm at rest")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_streamer_outlives_its_integrator(ros: Ros, number: signal.Signals) -> None:
    process = ros.start_node("integrator_node", **MOCK, **SLACK)
    system = System(ros, process)
    ros.until(lambda: system.figure("streamer_pid") != "0", "figures")
    pid = int(system.figure("streamer_pid"))
    assert alive(pid)
    process.send_signal(number)
    status = ros.wait_exit(process)
    assert status == (-9 if number == signal.SIGKILL else 0)
    ros.until(lambda: not alive(pid), "end of the streamer")


def test_joints_that_are_no_longer_measured_grow_old_while_the_clock_of_the_arm_goes_on(
    ros: Ros, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    cue = tmp_path / "cue"
    options = json.dumps({"silent_at": 1, "cue": str(cue)})
    values = {"hardware": "ideal_arm:make", "options": options, "feedback_timeout": 5.0}
    system = System(ros, ros.start_node("integrator_node", **(MOCK | SLACK | values)))

    def stamps() -> set[float]:
        return {round(seconds(m.header.stamp), 4) for m in system.joints[-20:]}

    ros.until(lambda: len(system.joints) >= 20 and len(stamps()) > 10, "measurements")
    cue.touch()
    # Rounding may tell one time from itself.
    ros.until(lambda: len(stamps()) <= 2, "joint states of one measurement")
    system.setpoints.clear()
    ros.until(lambda: len(system.setpoints) >= 20, "setpoints")
    clock = [seconds(m.points[0].time_from_start) for m in system.setpoints]
    assert (np.diff(clock) > 0.0).all()


BAD_PARAMETERS = [
    ({"arm": "no_such_arm"}, "'no_such_arm' is not one of"),
    ({"rate": 0.0}, "rate is 0"),
    ({"rate": "fast"}, "rate is 'fast'"),
    ({"hardware": "no_such_hardware"}, "no_such_hardware"),
    ({"command_mode": "voltage"}, "command_mode"),
    ({"options": "{"}, "not JSON"),
    ({"reate": 500.0}, "'reate' is not one of"),
]


@pytest.mark.parametrize(("values", "line"), BAD_PARAMETERS)
def test_bad_parameters_are_named_and_end_in_status_2(
    capfd: pytest.CaptureFixture[str],
    values: dict[str, object],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    given = MOCK | values
    arguments = [
        a
        for k, v in given.items()
        for a in ("-p", f"{k}:='{v}'" if isinstance(v, str) else f"{k}:={v}")
    ]
    name = f"integrator_{BAD_PARAMETERS.index((values, line))}"
    assert integrator_node.main(["--ros-args", "-r", f"__node:={name}", *arguments]) == 2
    assert line in capfd.readouterr().err
