# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""All of it on an emulated Gen3: what can fail between nodes, streamer and arm, and how it goes on.

Real processes, real DDS, real sockets. After each failure /diagnostics names it, the arm has
come to rest, and no command beyond its limits was ever recorded.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
pytest.importorskip("ndp_interfaces", reason="needs the message package: pip install ./interfaces")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from kortex_support import ARM, HOST, PATIENT, RATE, N
from lifecycle_msgs.srv import ChangeState
from ndp_interfaces.msg import DmpParameters, Status
from ndp_interfaces.srv import LoadCheckpoint
from ros_support import Ros, ros_system
from std_srvs.srv import SetBool, Trigger

from ndp_ros import checkpoint
from ndp_ros.emulator.process import EmulatorProcess
from ndp_ros.nodes import qos
from ndp_ros.observation import arm_observation
from ndp_ros.policies import PolicySpec, initial_tensors

pytestmark = pytest.mark.ros

# Patience with a busy machine, and margins that leave the arm's torques room.
RUNTIME = {
    "rate": RATE,
    "priority": 10,
    "heartbeat_timeout": 10.0,
    "parent_timeout": 30.0,
    "max_parameter_age": 3.0,
    "grace": 0.1,
    "stall_timeout": 0.4,
    "feedback_timeout": 0.9,
    "max_following_error": 0.5,
    "velocity_margin": 0.8,
    "acceleration_margin": 0.3,
}


def swaying_checkpoint(folder: Path, lean: float) -> Path:
    """Save an NDP for the Gen3 that wants every joint ``lean`` away from where it is."""
    spec = PolicySpec(
        method="ndp",
        task="throw-gen3",
        arm="gen3",
        joint_names=ARM.joint_names,
        observation=arm_observation(7, ["cube", "bin"]),
        control_dt=0.04,
        k=5,
        action_scale=(0.02,) * 7,
        hidden=(8, 8),
        goal_gain=0.2,
    )
    tensors = initial_tensors(spec, 1)
    bias = tensors["actor.2.bias"].copy()
    bias[:N] += lean
    return checkpoint.save(folder, spec, tensors | {"actor.2.bias": bias}, {"seed": 1})


@dataclass
class System:
    """The nodes, the emulated arm behind them, and what they say."""

    ros: Ros
    emulator: EmulatorProcess
    folder: Path
    integrator: subprocess.Popen | None = None
    policy: subprocess.Popen | None = None
    status: list[Status] = field(default_factory=list)
    diagnostics: list[DiagnosticArray] = field(default_factory=list)
    segments: list[DmpParameters] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.status = self.ros.listen(Status, "ndp/status", qos.LATCHED)
        self.diagnostics = self.ros.listen(DiagnosticArray, "/diagnostics")
        self.segments = self.ros.listen(DmpParameters, "ndp/dmp_parameters", qos.PARAMETERS)

    def start_integrator(self) -> None:
        self.status.clear()
        self.integrator = self.ros.start_node(
            "integrator_node",
            hardware="kortex",
            arm="gen3",
            task="",
            command_mode="position",
            robot_ip=HOST,
            port=self.emulator.port,
            udp_port=self.emulator.udp_port,
            reply_timeout=0.1,
            unreachable_after=5.0,
            service_timeout=20.0,
            clear_faults=True,
            node_priority=0,
            **RUNTIME,
        )

    def start_policy(self) -> None:
        self.policy = self.ros.start_node(
            "policy_node",
            checkpoint=str(self.folder / "plus"),
            arm="gen3",
            node_priority=0,
            max_observation_age=2.0,
        )

    @property
    def state(self) -> str:
        return self.status[-1].state if self.status else ""

    def says(self, *words: str, node: str = "integrator_node") -> bool:
        """Whether the newest diagnosis of a node has one of the words."""
        found = [s for m in self.diagnostics for s in m.status if s.name == node]
        if not found:
            return False
        text = " ".join([found[-1].message, *(f"{v.key}={v.value}" for v in found[-1].values)])
        return any(word in text for word in words)

    def moving(self) -> bool:
        return max(map(abs, self.emulator.control.do("state")["velocity"])) > 0.02

    def at_rest(self) -> bool:
        return max(map(abs, self.emulator.control.do("state")["velocity"])) < 0.01

    def transition(self, label: str) -> bool:
        request = ChangeState.Request()
        request.transition.label = label
        return bool(self.ros.call(ChangeState, "integrator_node/change_state", request).success)

    def move(self) -> None:
        """Bring everything from whatever state into motion."""
        self.ros.until(lambda: self.state, "a status")
        if self.state == Status.STOPPED:
            self.transition("deactivate")
            assert self.transition("activate")
        self.ros.until(self._follow, "an arm that follows")
        self.ros.until(self.moving, "motion")

    def _follow(self) -> bool:
        # A machine that pauses can bring the next fault while this one is cleared.
        if self.state == Status.FAULT:
            self.ros.call(Trigger, "integrator_node/clear_fault")
        request = SetBool.Request(data=True)
        return bool(self.ros.call(SetBool, "integrator_node/follow", request).success)

    def hold(self) -> None:
        self.ros.call(SetBool, "integrator_node/follow", SetBool.Request(data=False))
        self.ros.until(lambda: self.state == Status.HOLDING and self.at_rest(), "an arm at rest")

    def assert_safe(self) -> None:
        """The arm stands, and nothing beyond its limits was ever sent."""
        self.ros.until(self.at_rest, "an arm at rest")
        record = self.emulator.control.do("record")
        assert record["frames"] > 0 and record["not_finite"] == 0
        assert np.all(np.array(record["min_position"]) >= np.array(ARM.lower[:N]) - 1e-5)
        assert np.all(np.array(record["max_position"]) <= np.array(ARM.upper[:N]) + 1e-5)
        assert np.all(np.array(record["max_velocity"]) <= np.array(ARM.max_velocity[:N]) + 1e-4)
        # One cycle's step at most, however many were late, lost or left out.
        assert np.all(np.array(record["max_step"]) <= 1.02 * np.array(ARM.max_velocity[:N]) / RATE)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("kortex")
    swaying_checkpoint(folder / "plus", 0.4)
    swaying_checkpoint(folder / "minus", -0.4)
    # It may go on blindly for a moment without being far from where it should be.
    patient = dataclasses.replace(PATIENT, following_error=0.6, watchdog=4.0)
    with EmulatorProcess(patient) as emulator, ros_system(folder) as ros:
        system = System(ros, emulator, folder)
        system.start_integrator()
        system.start_policy()
        ros.start_node("objects_node", arm="gen3", task="throw-gen3")
        ros.until(lambda: system.segments and system.state, "segments and an arm")
        yield system


@pytest.fixture
def system(shared: System) -> Iterator[System]:
    """Return the system with the arm in motion."""
    # Home, so that nothing has run into a limit.
    if shared.state in (Status.FOLLOWING, Status.WAITING, Status.BRAKING):
        shared.hold()
    shared.transition("deactivate")
    shared.emulator.control.do("end_sessions")  # of those who were killed
    shared.emulator.control.do("reset")
    shared.emulator.control.do("clear")
    assert shared.transition("activate")
    shared.move()
    yield shared
    shared.assert_safe()


def test_policy_drives_the_arm_and_takes_another_checkpoint_over_in_mid_motion(
    system: System,
) -> None:
    answer = system.ros.call(
        LoadCheckpoint,
        "policy_node/load_checkpoint",
        LoadCheckpoint.Request(path=str(system.folder / "minus")),
    )
    assert answer.success, answer.message
    other = answer.checkpoint
    system.ros.until(lambda: system.segments[-1].checkpoint == other, "the other checkpoint")
    system.ros.until(system.moving, "motion")
    bad = LoadCheckpoint.Request(path=str(system.folder / "nowhere"))
    assert not system.ros.call(LoadCheckpoint, "policy_node/load_checkpoint", bad).success
    assert system.state in ("following", "waiting", "braking")
    assert system.segments[-1].checkpoint == other
    system.hold()


def test_killed_policy_is_named_the_arm_holds_and_another_one_goes_on(system: System) -> None:
    system.policy.send_signal(signal.SIGKILL)
    system.ros.until(lambda: system.says("policy silent"), "a diagnosis")
    system.ros.until(lambda: system.state == "waiting" and system.at_rest(), "an arm at rest")
    assert system.says("starved")
    system.start_policy()
    system.ros.until(lambda: system.state == "following" and system.moving(), "motion")
    system.hold()


def test_killed_streamer_is_named_and_a_new_activation_goes_on(system: System) -> None:
    pid = next(
        int(v.value)
        for m in reversed(system.diagnostics)
        for s in m.status
        for v in s.values
        if v.key == "streamer_pid"
    )

    os.kill(pid, signal.SIGKILL)
    system.ros.until(lambda: system.says("killed by signal 9"), "a diagnosis")
    # Nobody says good-bye: the arm's own watchdog ends the motion.
    system.emulator.wait_for(lambda state: state["servoing"] == "SINGLE_LEVEL")
    system.ros.until(system.at_rest, "an arm at rest")
    system.move()
    system.hold()


def test_cut_tcp_is_named_and_a_new_activation_goes_on(system: System) -> None:
    system.emulator.control.do("cut_tcp")
    system.ros.until(lambda: system.says("closed the connection", "is gone"), "a diagnosis")
    system.ros.until(lambda: system.state == Status.STOPPED, "a stop in the status")
    system.move()
    system.hold()


def test_udp_that_is_cut_for_a_second_is_a_fault_that_can_be_cleared(system: System) -> None:
    system.emulator.control.do("cut_udp", seconds=1.0)
    system.ros.until(lambda: system.says("fault: feedback_lost"), "a diagnosis")
    # Another topic than the diagnosis, so it may arrive after it.
    system.ros.until(lambda: system.state == Status.FAULT, "the fault in the status")
    refused = system.ros.call(SetBool, "integrator_node/follow", SetBool.Request(data=True))
    assert not refused.success and "feedback_lost" in refused.message
    system.ros.until(system.at_rest, "an arm at rest")
    system.ros.spin(1.0)
    system.move()
    system.hold()


def test_actuator_fault_is_named_and_cleared_by_a_new_activation(system: System) -> None:
    system.emulator.control.do("fault", actuator=2, name="FOLLOWING_ERROR")
    system.ros.until(lambda: system.says("actuator 3: FOLLOWING_ERROR"), "a diagnosis")
    system.ros.until(lambda: system.state == Status.STOPPED, "a stop in the status")
    system.move()  # clear_faults is set
    system.hold()


def test_silent_objects_keep_the_policy_from_running_and_are_named(system: System) -> None:
    heard = system.ros.listen(PoseStamped, "objects/cube/pose", qos.STATE)
    system.ros.until(lambda: heard, "the cube in the hand")
    objects = next(p for p in system.ros.processes if "objects_node" in str(p.args))
    objects.send_signal(signal.SIGSTOP)
    try:
        system.ros.until(
            lambda: system.says("objects/cube/pose", node="policy_node"), "a diagnosis"
        )
        system.ros.until(lambda: system.state == "waiting" and system.at_rest(), "an arm at rest")
    finally:
        objects.send_signal(signal.SIGCONT)
    system.ros.until(lambda: system.state == "following", "segments again")
    system.hold()


def test_killed_integrator_leaves_an_arm_at_rest_and_another_one_takes_it(system: System) -> None:
    system.integrator.send_signal(signal.SIGKILL)
    system.integrator.wait()
    state = system.emulator.wait_for(lambda state: state["servoing"] == "SINGLE_LEVEL")
    # The streamer has outlived it just long enough to say good-bye.
    assert not any("WATCHDOG_TRIGGERED" in names for names in state["warnings"])
    system.emulator.wait_for(lambda state: state["sessions"] == 0)
    system.start_integrator()
    system.ros.until(lambda: system.state == "holding", "an arm that holds")
    system.move()
    system.hold()
