# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A task on the simulated arm of the nodes: its own start states, physics and verdict."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("metaworld", reason="needs Meta-World")

from ndp_ros import checkpoint
from ndp_ros.control.arm import ArmConfig, Command, JointState, SimulatedArm
from ndp_ros.dmp.segment import Segment
from ndp_ros.errors import ArmError, TaskError
from ndp_ros.nodes.task import task_of
from ndp_ros.observation import assemble, field_slice, object_values
from ndp_ros.paths import find_checkpoint
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.tasks.choice import TaskChoice
from ndp_ros.tasks.contract import SimulatedTask, require_simulated
from ndp_ros.tasks.hosted import make as make_hosted
from ndp_ros.training.evaluate import evaluate

RATE = 1000.0


def observed(fields, arm: SimulatedArm, state: JointState, setpoint: np.ndarray) -> np.ndarray:
    """Return the observation that the nodes gather from topics."""
    values = {
        "position": state.position,
        "velocity": state.velocity,
        "setpoint": setpoint[0],
        "setpoint_velocity": setpoint[1],
        **arm.signals(),
    }
    for f in fields:
        if f.name.startswith("object/"):
            pose = arm.objects()[f.name.removeprefix("object/")]
            values[f.name] = object_values(pose[:3], pose[3:], f.size)
    return assemble(fields, values)


def run(name: str, seed: int) -> dict[str, object]:
    """Return the verdict on an episode of a checkpoint, driven tick by tick as by the streamer."""
    saved = checkpoint.load(find_checkpoint(name))
    spec, policy = saved.spec, ArrayPolicy(saved.spec, saved.tensors)
    task, judge = task_of(saved), task_of(saved).judge()
    arm, omega = task.simulated(RATE)
    dof = arm.connect().dof
    state, command = JointState.zeros(dof), Command.zeros(dof, omega.mode)
    setpoint = np.zeros((3, dof))
    setpoint[0], time = arm.reset(seed), 0.0
    judge.begin(seed)
    arm.read(state)
    ticks = np.arange(1, round(spec.segment_duration * RATE) + 1) / RATE
    while not judge.over:
        obs = observed(spec.observation, arm, state, setpoint)
        g, w = policy.parameters_of(obs[None])
        motion = Segment(spec.dmp, g[0], w[0], spec.segment_duration)
        for i, row in enumerate(motion.bind(*setpoint[:2].copy()).setpoints(ticks)):
            setpoint[:] = row
            omega(*setpoint, state, command)
            arm.write(command)
            arm.step(1.0 / RATE)
            arm.read(state)
            time += 1.0 / RATE
            if i % 5 == 4 and not judge.over:
                judge.feed(time, state.position, {**arm.objects(), **arm.signals()})
    return judge.summary()


@pytest.mark.parametrize("name", ["jaco_pick", "soccer", "faucet_open"])
def test_a_checkpoint_does_on_the_nodes_arm_what_it_does_in_its_evaluation(name: str) -> None:
    summary = run(name, seed=1)
    assert evaluate(name, episodes=1, seed=1)["success_rate"] == 1.0
    assert summary["success"]


def test_the_clock_of_the_benchmark_begins_with_the_first_motion() -> None:
    task = require_simulated(TaskChoice("push", k=5).make(), "push")
    arm, omega = task.simulated(RATE)
    start = arm.reset(4)
    command = Command.zeros(4, omega.mode)
    command.position[:] = start
    before = arm.signals()
    for _ in range(100):
        arm.write(command)
        arm.step(1.0 / RATE)
    after = arm.signals()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    command.position[0] += 0.01
    for _ in range(25):
        arm.write(command)
        arm.step(1.0 / RATE)
    assert arm.read(JointState.zeros(4)).position[0] == pytest.approx(start[0] + 0.01)
    assert not np.array_equal(arm.signals()["world"], before["world"])


def test_the_nodes_arm_of_a_benchmark_and_the_benchmark_see_the_same() -> None:
    env = TaskChoice("soccer", k=1).make()
    arm, omega = require_simulated(TaskChoice("soccer", k=1).make(), "soccer").simulated(80.0)
    obs, _ = env.reset(seed=2)
    arm.reset(2)
    command = Command.zeros(4, omega.mode)
    for _ in range(40):
        unit = np.array([[0.5, 0.5, -0.3, 0.2]])
        obs = env.step(unit)[0]
        command.position[:] = obs[field_slice(env.fields, "setpoint")]
        arm.write(command)
        arm.step(0.0125)
        np.testing.assert_allclose(
            arm.signals()["world"], obs[field_slice(env.fields, "world")], atol=2e-5
        )


def test_a_task_without_a_simulated_arm_is_refused_by_name() -> None:
    with pytest.raises(TaskError, match="toy_task:Toy-v0 has no simulated arm"):
        require_simulated(TaskChoice("toy_task:Toy-v0", k=1).make(), "toy_task:Toy-v0")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"command_mode": "position"}, "command_mode of task throw: 'position' is not one of"),
        ({"task_options": ("scene=throw-gen3",)}, "task throw is on the arm gen3, not jaco"),
    ],
)
def test_a_task_on_another_arm_or_with_other_commands_is_refused(values, words: str) -> None:
    given = {"task": "throw", "command_mode": "torque", "rate": RATE, "seed": 0} | values
    with pytest.raises(ArmError, match=words):
        make_hosted(ArmConfig.named("jaco"), **given)
    assert isinstance(TaskChoice("throw", k=1).make(), SimulatedTask)
