# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The simulated arm: MuJoCo behind the arm protocol, driven by torques.

A training task and the streaming loop use this same class on the same scene. Joint positions
are written at reset and never after: every motion is caused by ``ctrl``.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import mujoco
import numpy as np

from ndp_ros.arms.grasps import compose, relative, settled_grasps
from ndp_ros.arms.joints import ArmJoints, free_joint
from ndp_ros.arms.scenes import Placement, Scene, load_scene, scene_of
from ndp_ros.control.arm import ArmConfig, ArmInfo, Array, Command, JointState
from ndp_ros.control.memory import Interpreted, TickCore
from ndp_ros.errors import ArmError

LONGEST_TIMESTEP = 0.002
"""Longest physics step at run time [s]; training may use a longer one."""

# The brake of a stopped joint, as shares of its torque limit per rad/s and per rad: a wrist of
# little inertia stays stable at the longest physics step.
_BRAKE_DAMPING, _BRAKE_STIFFNESS = 0.2, 2.0

_POSTURES = 20
"""Postures that are drawn at most for a goal."""
_CLEARANCE = 0.05
"""Height of the hand above the floor in such a posture [m]."""


def physics_timestep(period: float, longest: float = LONGEST_TIMESTEP) -> float:
    """Return the longest physics step that divides ``period`` and is at most ``longest`` [s]."""
    return period / math.ceil(period / longest - 1e-9)


class MujocoArm:
    """An arm and its scene in MuJoCo.

    Attributes:
        model: The compiled model, this arm's own copy.
        data: Its state; read it, never write it.
        scene: The arm's surroundings.
        joints: Places of the arm in the model.
        goal_posture: Posture (n,) whose hand is the scene's goal [rad]; the start without one.
    """

    def __init__(
        self,
        config: ArmConfig,
        scene: str | Scene = "throw",
        timestep: float = LONGEST_TIMESTEP,
        meshes: bool = False,
    ) -> None:
        """Load a scene, or the one of a name in ``SCENES``, and reset it with seed 0.

        Every ``step`` must be a multiple of the timestep [s]; only pictures need meshes.

        Raises:
            ArmError: If there is no such scene, or another arm is in it.
        """
        scene = scene_of(scene)
        if not 0 < timestep <= 0.01:
            raise ArmError(f"timestep is {timestep!r}: allowed is 0 to 0.01 [s]")
        named = ArmConfig.named(scene.arm).name
        if config.name != named:
            raise ArmError(f"{scene.model or scene.arm} holds the arm {named}, not {config.name}")
        self.scene, self.config = scene, config
        self.model = copy.copy(load_scene(scene, config, meshes))
        self.model.opt.timestep = timestep
        self.data = mujoco.MjData(self.model)
        self._info = ArmInfo.from_config(config, ("torque",))
        self._n = self._info.n_arm
        self.joints = joints = ArmJoints(self.model, config)
        arm, fingers = joints.arm, joints.fingers
        # Attributes of MjData cost more than reading them.
        self._measured = (
            (self.data.qpos, arm.q, fingers.q),
            (self.data.qvel, arm.v, fingers.v),
            (self.data.qfrc_actuator, arm.v, fingers.v),
        )
        self._ctrl = self.data.ctrl
        self._core: TickCore = Interpreted()
        names = {self.model.body(b).name: b for b in range(1, self.model.nbody)}
        self._bodies = {name: b for name, b in names.items() if name and b not in joints.links}
        self._start = np.array(scene.start or config.home)
        self.goal_posture: Array = self._start[: self._n].copy()
        self._held: Array | None = None
        self.reset(0)

    @property
    def memory(self) -> dict[str, Any]:
        """The arrays that compiled code shares, by its names for them."""
        joints, (q, v, force) = self.joints, (state for state, _, _ in self._measured)
        places = {
            "arm_q": (q, joints.arm.q),
            "arm_v": (v, joints.arm.v),
            "finger_q": (q, joints.fingers.q),
            "finger_v": (v, joints.fingers.v),
        }
        numbers = {
            name: np.arange(len(state))[index].astype(np.int64)
            for name, (state, index) in places.items()
        }
        return {"qpos": q, "qvel": v, "forces": force, "ctrl": self._ctrl, **numbers}

    def use(self, core: TickCore) -> None:
        """Leave usual readings and commands to a core."""
        self._core = core

    # The arm protocol.

    def connect(self) -> ArmInfo:
        """Return joints and limits; a simulated arm can always be reached."""
        return self._info

    def read(self, out: JointState) -> JointState:
        """Write the joints into ``out``; the gripper's position is the mean of its fingers."""
        if self._core.sense():
            out.time = self.data.time
            return out
        n, values = self._n, (out.position, out.velocity, out.effort)
        for value, (state, arm, fingers) in zip(values, self._measured, strict=True):
            value[:n] = state[arm]
            if self._info.gripper:
                hand, total = state[fingers].tolist(), 0.0
                for finger in hand:  # sum() rounds otherwise in other versions of Python
                    total += finger
                value[n] = total / len(hand)
        out.time = self.data.time
        return out

    def write(self, command: Command) -> None:
        """Set the torques of the arm and the position of the fingers.

        Raises:
            ArmError: If the command is not a torque, or is not finite.
        """
        if command.mode != "torque":
            raise ArmError.choice("command mode", command.mode, self._info.command_modes)
        if self._core.actuate():
            self._held = None
            return
        n, ctrl = self._n, self._ctrl
        torque = command.torque[:n]
        grip = float(command.position[n]) if self._info.gripper else 0.0
        # A sum of squares is finite only if every value is.
        if not math.isfinite(torque @ torque + grip):
            raise ArmError(f"command is not finite: torque {torque}, gripper {grip}")
        ctrl[self.joints.motors] = torque
        ctrl[self.joints.servos] = grip
        self._held = None

    def stop(self) -> None:
        """Hold the present position, as the brake of a drive would, until the next command."""
        if self._held is None:
            self._held = self.data.qpos[self.joints.arm.q].copy()

    def close(self) -> None:
        """Release nothing: the model goes with the object."""

    # The simulated arm.

    def step(self, duration: float) -> None:
        """Advance the physics by ``duration`` [s] under the last command.

        Raises:
            ArmError: If the duration is no multiple of the physics step.
        """
        timestep = self.model.opt.timestep
        n = round(duration / timestep)
        if n < 1 or abs(n * timestep - duration) > 1e-6 * timestep + 1e-12:
            raise ArmError(f"step of {duration} s is no multiple of the physics step {timestep} s")
        if self._held is None:
            mujoco.mj_step(self.model, self.data, n)
            return
        for _ in range(n):
            self._brake(self._held)
            mujoco.mj_step(self.model, self.data)

    def _brake(self, held: Array) -> None:
        """Set torques that carry the arm's weight and pull it back to the held position."""
        data, arm, limit = self.data, self.joints.arm, self._info.max_torque[: self._n]
        torque = data.qfrc_bias[arm.v] - _BRAKE_DAMPING * limit * data.qvel[arm.v]
        torque -= _BRAKE_STIFFNESS * limit * (data.qpos[arm.q] - held)
        self._ctrl[self.joints.motors] = np.clip(torque, -limit, limit)

    def reset(self, seed: int) -> Array:
        """Reset arm and objects to the start state of ``seed``.

        Returns:
            The setpoint (dof,) that holds this state. For the gripper it is not the
            measured position: closed fingers press by the difference.

        Raises:
            ArmError: If the seed is negative.
        """
        if seed < 0:
            raise ArmError(f"seed is {seed}, must be 0 or more")
        self._held = None
        rng = np.random.default_rng(seed)
        scene, data, joints, n = self.scene, self.data, self.joints, self._n
        start = self._start.copy()
        start[:n] += rng.uniform(-scene.noise, scene.noise, n)
        time = data.time
        mujoco.mj_resetData(self.model, data)
        data.time = time
        if scene.goal:
            self._place_goal(rng)
        data.qpos[joints.arm.q] = start[:n]
        data.qpos[joints.fingers.q] = start[n:]
        if scene.held:
            grasps = settled_grasps(scene, self.config)
            grasp = grasps[rng.integers(len(grasps))]
            data.qpos[joints.fingers.q] = grasp[:-7]
            mujoco.mj_kinematics(self.model, data)
            palm = data.xpos[joints.palm], data.xquat[joints.palm]
            data.qpos[free_joint(self.model, scene.held).q] = compose(*palm, grasp[-7:])
        for placement in scene.placed:
            self._place(placement, rng)
        mujoco.mj_forward(self.model, data)
        data.ctrl[joints.motors] = data.qfrc_bias[joints.arm.v]
        data.ctrl[joints.servos] = start[n:]
        mujoco.mj_forward(self.model, data)
        return start

    def _place(self, placement: Placement, rng: np.random.Generator) -> None:
        """Draw the start of a body: only of the coordinates in which its region has a width."""
        low, high = np.array(placement.low), np.array(placement.high)
        wide = low < high
        at = low.copy()
        at[wide] = rng.uniform(low[wide], high[wide])
        turn = rng.uniform(-placement.turn, placement.turn) if placement.turn else 0.0
        pose = np.array([*at, math.cos(turn / 2), 0.0, 0.0, math.sin(turn / 2)])
        body = self._bodies.get(placement.body, -1)
        place = int(self.model.body_mocapid[body]) if body >= 0 else -1
        if place < 0:
            self.data.qpos[free_joint(self.model, placement.body).q] = pose
            return
        self.data.mocap_pos[place], self.data.mocap_quat[place] = pose[:3], pose[3:]

    def _place_goal(self, rng: np.random.Generator) -> None:
        """Put the goal where a random posture of the arm, inside its limits, has the hand.

        Of some postures it is the first with the hand above the floor and no contact.
        """
        data, info, n, scene = self.data, self._info, self._n, self.scene
        body = self._bodies.get(scene.goal, -1)
        place = int(self.model.body_mocapid[body]) if body >= 0 else -1
        if place < 0:
            raise ArmError(f"{scene.model or scene.arm} has no mocap body {scene.goal}")
        data.qpos[self.joints.fingers.q] = self._start[n:]
        for _ in range(_POSTURES):
            posture = self._start[:n] + rng.uniform(-scene.goal_range, scene.goal_range, n)
            data.qpos[self.joints.arm.q] = np.clip(posture, info.lower[:n], info.upper[:n])
            mujoco.mj_fwdPosition(self.model, data)
            self.goal_posture = data.qpos[self.joints.arm.q].copy()
            if data.site_xpos[self.joints.grip, 2] > _CLEARANCE and data.ncon == 0:
                break
        at, turn = self.joints.hand_pose(data)
        data.mocap_pos[place] = at
        mujoco.mju_mat2Quat(data.mocap_quat[place], turn)

    def objects(self) -> dict[str, Array]:
        """Return the pose (7,) of every body beside the arm in the frame of the arm's base."""
        return {name: self.pose(body) for name, body in self._bodies.items()}

    def signals(self) -> dict[str, Array]:
        """Return no further values."""
        return {}

    def pose(self, body: int) -> Array:
        """Return the pose of a body (7,) in the frame of the arm's base."""
        data, base = self.data, self.joints.base
        pose = np.concatenate((data.xpos[body], data.xquat[body]))
        return relative(data.xpos[base], data.xquat[base], pose)
