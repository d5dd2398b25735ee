# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A task as the simulated arm of the nodes: its physics, its start states and its objects.

The streamer process makes the task that a checkpoint was trained on and drives its arm, so that
whatever a task does at the start of an episode happens under ROS too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ndp_ros.arms.mujoco import MujocoArm, physics_timestep
from ndp_ros.control.arm import Arm, ArmConfig, Array, SimulatedArm
from ndp_ros.control.omega import InverseDynamics, Omega
from ndp_ros.control.rigid_body import RigidBody
from ndp_ros.errors import ArmError
from ndp_ros.tasks.choice import TaskChoice
from ndp_ros.tasks.config import ArmTaskConfig
from ndp_ros.tasks.contract import Judge, SimulatedTask, require_simulated
from ndp_ros.tasks.replay import Replay

if TYPE_CHECKING:
    from ndp_ros.tasks.arm_task import ArmTask


def make(
    config: ArmConfig,
    *,
    task: str,
    command_mode: str,
    rate: float,
    seed: int,
    task_options: tuple[str, ...] = (),
) -> tuple[Arm, Omega]:
    """Return the simulated arm of a task, and the Ω that drives it, for the streamer.

    ``k`` and ``preset`` are among the options of the task, ``name=value`` each. The command mode is
    the one that the task has, ``rate`` the ticks of the loop per second [Hz].

    Raises:
        ArmError: If the task is on another arm, or takes other commands.
        TaskError: If there is no such task, or it has no simulated arm.
    """
    env = TaskChoice(task, k=1, options=task_options).make()
    hosted: SimulatedTask = require_simulated(env, task)
    if command_mode != hosted.command_mode:
        raise ArmError.choice(f"command_mode of task {task}", command_mode, (hosted.command_mode,))
    if config.name != env.arm:
        raise ArmError(f"task {task} is on the arm {env.arm}, not {config.name}")
    return hosted.simulated(rate)


class Hostable:
    """The part of a task on an arm by which the nodes run it (``SimulatedTask``)."""

    robot: MujocoArm
    config: ArmTaskConfig
    command_mode = "torque"
    signals: ClassVar[Mapping[str, int]] = {}

    @property
    def arm_file(self) -> str:
        """Return the name or file of the arm."""
        return self.robot.scene.arm

    @property
    def duration(self) -> float:
        """Return the length of the longest episode [s]."""
        return self.config.horizon

    def simulated(self, rate: float) -> tuple[SimulatedArm, Omega]:
        """Return the arm, which takes this task over, and its Ω, for a rate [Hz]."""
        arm = HostedArm(cast("ArmTask", self), rate)
        return arm, arm.law()

    def judge(self) -> Judge:
        """Return a judge, which takes this task over."""
        return Replay(cast("ArmTask", self))


class HostedArm:
    """The arm of a task on an arm; a reset begins an episode of the task.

    It fulfils ``control.arm.SimulatedArm``.
    """

    def __init__(self, task: ArmTask, rate: float) -> None:
        """Take a task over; nothing else may step it. The physics divides the rate [Hz]."""
        self._task, self._robot = task, task.robot
        # Reading and driving are the robot's own.
        self.connect, self.use = task.robot.connect, task.robot.use
        self.read, self.write = task.robot.read, task.robot.write
        self.stop, self.step = task.robot.stop, task.robot.step
        self._robot.model.opt.timestep = physics_timestep(1.0 / rate)
        self._bodies = {name: self._robot.model.body(name).id for name in task.objects}

    def law(self) -> InverseDynamics:
        """Return the Ω of this arm."""
        info = self._robot.connect()
        body = RigidBody(self._robot.model, info.joint_names[: info.n_arm])
        return InverseDynamics(body, self._robot.config.natural_frequency, info.max_torque)

    @property
    def memory(self) -> dict[str, Any]:
        """The arrays that compiled code shares, by its names for them."""
        return self._robot.memory

    def close(self) -> None:
        """Release the task."""
        self._task.close()

    def reset(self, seed: int) -> Array:
        """Begin the episode of a seed; return the setpoint (dof,) that holds its start state."""
        self._task.reset(seed=seed)
        return self._task.setpoint[0]

    def objects(self) -> dict[str, Array]:
        """Return the pose (7,) of each object of the task in the frame of the arm's base."""
        return {name: self._robot.pose(body) for name, body in self._bodies.items()}

    def signals(self) -> dict[str, Array]:
        """Return no further values: joints and objects are all that a task on an arm observes."""
        return {}
