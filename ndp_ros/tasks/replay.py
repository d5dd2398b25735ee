# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Judge and show an episode that was executed elsewhere, in the scene of its task.

The nodes know joints and object poses only from topics. Success is decided here by the task's own
code, the same that decides it in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from ndp_ros.control.arm import JointState
from ndp_ros.tasks.contract import Array, plain
from ndp_ros.tasks.recording import Recording

if TYPE_CHECKING:
    from ndp_ros.tasks.arm_task import ArmTask

_SPEED_SPAN = 0.03
"""The velocity of a free object is its displacement over this time [s]."""


class Replay:
    """A task's scene that is moved by samples instead of by physics."""

    def __init__(self, task: ArmTask) -> None:
        """Take a task on an arm over; nothing else may step it."""
        self.task = task
        robot, model = task.robot, task.robot.model
        self._n = robot.connect().n_arm
        bodies = {name: model.body(name) for name in task.objects}
        self._free = {
            name: model.joint(int(body.jntadr[0]))
            for name, body in bodies.items()
            if body.jntnum[0] == 1 and model.jnt_type[body.jntadr[0]] == mujoco.mjtJoint.mjJNT_FREE
        }
        self._moved = {n: int(b.mocapid[0]) for n, b in bodies.items() if b.mocapid[0] >= 0}
        base = robot.joints.base
        self._base = robot.data.xpos[base].copy(), robot.data.xquat[base].copy()
        self._tracks: dict[str, list[tuple[float, Array]]] = {name: [] for name in self._free}
        self._steps = 0
        self.over = False

    def begin(self, seed: int) -> None:
        """Start a new episode from the start state of a seed."""
        self.task.reset(seed=seed)
        for track in self._tracks.values():
            track.clear()
        self._steps, self.over = 0, False

    def show(self, position: Array, poses: Mapping[str, Array]) -> None:
        """Put joints (dof,) and objects where a sample has them."""
        data = self.task.robot.data
        joints = self.task.robot.joints
        data.qpos[joints.arm.q] = position[: self._n]
        data.qpos[joints.fingers.q] = position[self._n :]
        for name in poses.keys() & self._free.keys():
            start = int(self._free[name].qposadr[0])
            data.qpos[start : start + 7] = self._in_world(poses[name])
        for name in poses.keys() & self._moved.keys():
            place, pose = self._moved[name], self._in_world(poses[name])
            data.mocap_pos[place], data.mocap_quat[place] = pose[:3], pose[3:]
        mujoco.mj_forward(self.task.robot.model, data)

    def feed(self, time: float, position: Array, world: Mapping[str, Array]) -> None:
        """Show a sample and let the task judge it, as in :class:`~ndp_ros.tasks.contract.Judge`."""
        self.show(position, world)
        for name in world.keys() & self._free.keys():
            self._estimate_velocity(name, time)
        task = self.task
        task.watch()
        total = max(1, round(task.config.horizon / (task.k * task.control_dt))) * task.k
        while not self.over and time >= (self._steps + 1) * task.control_dt - 1e-6:
            task.reward(first=self._steps % task.k == 0)
            self._steps += 1
            ends = self._steps % task.k == 0 and task.over()
            self.over = ends or self._steps >= total

    def trace(self, recording: Recording) -> None:
        """Add to a recording the path of the hand that its joints, planned and measured, make."""
        model, data = self.task.robot.model, self.task.robot.data
        for joints, path in (
            (recording.position, recording.hand),
            (recording.setpoint, recording.hand_setpoint),
        ):
            path.clear()
            for position in joints:
                data.qpos[self.task.robot.joints.arm.q] = position[: self._n]
                mujoco.mj_kinematics(model, data)
                path.append(self.in_base(self.task.grip))

    def summary(self) -> dict[str, Any]:
        """Return the task's figures of the episode as plain data; infinite ones as None."""
        figures: dict[str, Any] = plain(self.task.summary())
        return figures

    def _estimate_velocity(self, name: str, time: float) -> None:
        """Set the velocity of a free object from its displacement in the last 30 ms."""
        data, track = self.task.robot.data, self._tracks[name]
        start, speed = (int(a[0]) for a in (self._free[name].qposadr, self._free[name].dofadr))
        at = data.qpos[start : start + 3].copy()
        while len(track) > 1 and time - track[1][0] >= _SPEED_SPAN:
            track.pop(0)
        if track and time > track[0][0]:
            earlier, place = track[0]
            data.qvel[speed : speed + 3] = (at - place) / (time - earlier)
        track.append((time, at))

    def in_base(self, place: Array) -> Array:
        """Return a place (3,) of the scene in the base frame [m]."""
        origin, turn = self._base
        back, out = np.empty(4), np.empty(3)
        mujoco.mju_negQuat(back, turn)
        mujoco.mju_rotVecQuat(out, place - origin, back)
        return out

    def in_world(self, places: Array) -> Array:
        """Return places (n, 3) in the base frame as places in the scene [m]."""
        origin, turn = self._base
        axes = np.empty(9)
        mujoco.mju_quat2Mat(axes, turn)
        there: Array = places @ axes.reshape(3, 3).T + origin
        return there

    def _in_world(self, pose: Array) -> Array:
        """Return a pose (7,) given in the base frame as one in the world."""
        origin, turn = self._base
        out = np.empty(7)
        mujoco.mju_rotVecQuat(out[:3], pose[:3], turn)
        out[:3] += origin
        mujoco.mju_mulQuat(out[3:], turn, pose[3:])
        return out


class Recorder:
    """Records the episodes of a task that runs here, at every tick.

    Attributes:
        recordings: One for each episode since the recorder was made.
    """

    def __init__(self, task: ArmTask, about: Mapping[str, Any]) -> None:
        """Look on at every tick of a task that somebody else steps."""
        self._task, self._about = task, about
        self._state = JointState.zeros(len(task.joint_names))
        self._start = 0.0
        self.recordings: list[Recording] = []
        task.on_tick = self._sample

    def begin(self, seed: int) -> None:
        """Begin a recording; the task has been reset."""
        self._start = float(self._task.robot.data.time)
        one = Recording(seed, self._task.joint_names, about=dict(self._about))
        self.recordings.append(one)
        self._sample()
        one.setpoint.append(self._task.setpoint[0])
        one.segments.append(0.0)

    def window(self) -> None:
        """Take over the setpoints of a segment that has been run."""
        one = self.recordings[-1]
        one.setpoint += list(self._task.tracked[:, 0])
        one.segments.append(one.times[-1])

    def end(self, outcome: Mapping[str, Any]) -> None:
        """End a recording: no segment begins at its end, and the path of the hand is added."""
        one = self.recordings[-1]
        one.segments.pop()
        one.about["outcome"] = plain(dict(outcome))
        self._task.on_tick = None
        Replay(self._task).trace(one)
        self._task.on_tick = self._sample

    def _sample(self) -> None:
        robot = self._task.robot
        robot.read(self._state)
        one, at = self.recordings[-1], float(robot.data.time) - self._start
        one.times.append(at)
        one.position.append(self._state.position.copy())
        one.poses.append(robot.objects())
