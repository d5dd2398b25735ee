"""The simulated arm: MuJoCo behind the arm protocol, driven by torques alone.

A training task and the streaming loop use this same class on the same scene. Joint
positions are written at reset and never after: what moves is moved by ``ctrl``.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.arm import ArmConfig, ArmInfo, Command, JointState
from ndp_ros.control.omega import InverseDynamics
from ndp_ros.control.rigid_body import RigidBody
from ndp_ros.errors import ArmError
from ndp_ros.paths import share

Array = NDArray[np.float64]

FINGER = "finger_"
"""A finger's joint is this and a number; one gripper setpoint drives all of them."""
LONGEST_TIMESTEP = 0.002
"""Physics step at run time [s]; training may use a longer one."""

# The brake of a stopped joint, as shares of its torque limit per rad/s and per rad: a
# wrist of little inertia stays stable at the longest physics step.
_BRAKE_DAMPING, _BRAKE_STIFFNESS = 0.2, 2.0
_GRASPS = 16
_GRASP_SEED = 0


@dataclass(frozen=True)
class Scene:
    """What surrounds the arm, and where everything starts."""

    arm: str
    """Name of the arm that stands in it."""
    model: str
    """MJCF file, relative to the share folder."""
    start: tuple[float, ...]
    """Start position (dof,) [rad]; the gripper's entry is the setpoint that it is given."""
    noise: float
    """Half-width of the uniform noise on every arm joint at reset [rad]."""
    grasped: bool
    """Whether the cube starts in the hand; else it starts on the floor."""
    grasp_from: float = 0.0
    """Position of the fingers from which they close on a cube that starts in the hand [rad]."""
    cube: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Middle of the region where a cube that is not grasped starts [m]."""
    cube_noise: float = 0.0
    """Half-width of that region in x and y [m]."""
    cube_turn: float = 0.0
    """Half-width of the uniform noise on the turn of such a cube about the vertical [rad]."""
    bin_low: tuple[float, float, float] | None = None
    """One corner of the box from which the bin's place is drawn [m]; None without a bin."""
    bin_high: tuple[float, float, float] | None = None
    """The opposite corner; equal to ``bin_low`` for a bin that never moves."""


_THROW_START = (0.0, 1.05, 4.85, 3.0, 2.8, 1.5, 1.15)
_PICK_START = (0.0, 1.63, 3.79, -1.57, 3.14, -1.56, 0.3)
_GEN3_START = (0.0, 1.8, -1.45, 0.0, -0.45, 0.0, 0.46)
SCENES = {
    "throw": Scene(
        "jaco", "models/throw.xml", _THROW_START, noise=0.1, grasped=True, grasp_from=0.8,
        bin_low=(1.3, 0.0, -0.495), bin_high=(1.3, 0.0, -0.495),
    ),
    "throw-moving": Scene(
        "jaco", "models/throw.xml", _THROW_START, noise=0.1, grasped=True, grasp_from=0.8,
        bin_low=(1.3, -0.2, -0.495), bin_high=(1.5, 0.2, -0.495),
    ),
    "pick": Scene(
        "jaco", "models/pick.xml", _PICK_START, noise=0.05, grasped=False,
        cube=(0.685, 0.0, -0.0775), cube_noise=0.02, cube_turn=0.2,
    ),
    "throw-gen3": Scene(
        "gen3", "models/throw_gen3.xml", _GEN3_START, noise=0.1, grasped=True, grasp_from=0.3,
        bin_low=(1.3, 0.0, -0.495), bin_high=(1.3, 0.0, -0.495),
    ),
    "throw-gen3-moving": Scene(
        "gen3", "models/throw_gen3.xml", _GEN3_START, noise=0.1, grasped=True, grasp_from=0.3,
        bin_low=(1.2, -0.15, -0.495), bin_high=(1.35, 0.15, -0.495),
    ),
}  # fmt: skip


def physics_timestep(period: float, longest: float = LONGEST_TIMESTEP) -> float:
    """Return the longest physics step that divides ``period`` and is at most ``longest`` [s]."""
    return period / math.ceil(period / longest - 1e-9)


@functools.lru_cache(maxsize=8)
def load_model(path: str, meshes: bool = False) -> mujoco.MjModel:
    """Compile an MJCF file of this package; the result is shared, copy it before a change.

    Args:
        path: For example ``"models/throw.xml"``, relative to the share folder.
        meshes: Add dm_control's Jaco meshes for looks where that package is
            installed. They have no mass and touch nothing.

    Raises:
        ArmError: If MuJoCo refuses the file.
    """
    try:
        spec = mujoco.MjSpec.from_file(str(share(path)))
        if meshes and (folder := mesh_folder()) is not None:
            _add_meshes(spec, folder)
        return spec.compile()
    except ValueError as error:
        raise ArmError(f"MuJoCo refuses {path}: {' '.join(str(error).split())}") from error


def mesh_folder() -> Path | None:
    """Return where dm_control keeps the Jaco's meshes, or None if it is not installed."""
    found = importlib.util.find_spec("dm_control")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "third_party" / "kinova" / "meshes_decimated"
    return folder if folder.is_dir() else None


def fingers(model: mujoco.MjModel) -> tuple[str, ...]:
    """Return the names of the joints that a gripper setpoint drives, in order."""
    names = (model.joint(j).name for j in range(model.njnt))
    return tuple(name for name in names if name.startswith(FINGER))


class MujocoArm:
    """An arm and its scene in MuJoCo.

    Attributes:
        model: The compiled model, this arm's own copy.
        data: Its state; read it, never write it.
        scene: What surrounds the arm.
        fingers: Where the fingers are in ``qpos`` and ``qvel``.
    """

    def __init__(
        self,
        config: ArmConfig,
        scene: str | Scene = "throw",
        timestep: float = LONGEST_TIMESTEP,
        meshes: bool = False,
    ) -> None:
        """Load the scene; the arm stands at its start until it is reset.

        Args:
            config: The arm, which must be the one that stands in the scene.
            scene: A name of :data:`SCENES`, or a scene.
            timestep: Physics step [s]; every ``step`` must be a multiple of it.
            meshes: As in :func:`load_model`, for a Jaco; needed only for pictures.

        Raises:
            ArmError: If there is no such scene, or it does not hold this arm.
        """
        if isinstance(scene, str):
            if scene not in SCENES:
                raise ArmError.choice("scene", scene, SCENES)
            scene = SCENES[scene]
        if not 0 < timestep <= 0.01:
            raise ArmError(f"timestep is {timestep!r}: allowed is 0 to 0.01 [s]")
        if config.name != scene.arm:
            raise ArmError(f"{scene.model} holds the arm {scene.arm}, not {config.name}")
        self.scene = scene
        self.config = config
        self.model = copy.copy(load_model(scene.model, meshes and scene.arm == _MESHED))
        self.model.opt.timestep = timestep
        self.data = mujoco.MjData(self.model)
        self._info = ArmInfo.from_config(config, ("torque",))
        n = self._info.n_arm
        self._n = n
        arm_joints = config.joint_names[:n]
        known = [self.model.joint(j).name for j in range(self.model.njnt)]
        for name in (*arm_joints, f"{FINGER}1"):
            if name not in known:
                raise ArmError.choice(f"{scene.model}: joint", name, known)
        finger_joints = fingers(self.model)
        hinges = (*arm_joints, *finger_joints)
        if tuple(known[: len(hinges)]) != hinges or any(
            self.model.joint(i).qposadr[0] != i for i in range(len(hinges))
        ):
            raise ArmError(f"{scene.model}: the joints {hinges} must come first")
        self.fingers = slice(n, len(hinges))
        self._bodies = {
            name: self.model.body(name).id
            for name in ("cube", "bin")
            if name in {self.model.body(b).name for b in range(self.model.nbody)}
        }
        self._mocap = {
            name: int(self.model.body_mocapid[b])
            for name, b in self._bodies.items()
            if self.model.body_mocapid[b] >= 0
        }
        # Views into the state: looking them up afresh costs more than reading them.
        self._views = [
            (array[:n], array[self.fingers])
            for array in (self.data.qpos, self.data.qvel, self.data.qfrc_actuator)
        ]
        self._ctrl = self.data.ctrl
        self._cube = int(self.model.joint("cube").qposadr[0])
        self._palm = self.model.body("palm").id
        self._base = self.model.body("base").id
        self._held: Array | None = None
        self.reset(0)

    # The arm protocol.

    def connect(self) -> ArmInfo:
        """Return what the arm is; a simulated arm can always be reached."""
        return self._info

    def read(self, out: JointState) -> JointState:
        """Write the joints into ``out``; the gripper's position is the mean of its fingers."""
        n, values = self._n, (out.position, out.velocity, out.effort)
        for value, (arm, hand) in zip(values, self._views, strict=True):
            value[:n] = arm
            value[n] = sum(hand.tolist()) / len(hand)
        out.time = self.data.time
        return out

    def write(self, command: Command) -> None:
        """Set the torques of the arm and the position of the fingers.

        Raises:
            ArmError: If the command is not one of torques, or is not finite.
        """
        if command.mode != "torque":
            raise ArmError.choice("command mode", command.mode, self._info.command_modes)
        n, ctrl = self._n, self._ctrl
        torque, grip = command.torque[:n], float(command.position[n])
        # A sum of squares is finite only if every value is.
        if not math.isfinite(torque @ torque + grip):
            raise ArmError(f"command is not finite: torque {torque}, gripper {grip}")
        ctrl[:n] = torque
        ctrl[n:] = grip
        self._held = None

    def stop(self) -> None:
        """Hold where the arm is, as a drive's own brake would, until the next command."""
        if self._held is None:
            self._held = self.data.qpos[: self._n].copy()

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
        """Set torques that carry the arm's weight and pull it back to where it was held."""
        n, data, limit = self._n, self.data, self._info.max_torque[: self._n]
        torque = data.qfrc_bias[:n] - _BRAKE_DAMPING * limit * data.qvel[:n]
        torque -= _BRAKE_STIFFNESS * limit * (data.qpos[:n] - held)
        self._ctrl[:n] = np.clip(torque, -limit, limit)

    def reset(self, seed: int) -> Array:
        """Put arm, cube and bin into the start state of ``seed``.

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
        scene, data, n = self.scene, self.data, self._n
        start = np.array(scene.start)
        start[:n] += rng.uniform(-scene.noise, scene.noise, n)
        time = data.time
        mujoco.mj_resetData(self.model, data)
        data.time = time
        data.qpos[:n] = start[:n]
        cube = data.qpos[self._cube : self._cube + 7]
        if scene.grasped:
            grasps = _grasps(scene, self.config)
            grasp = grasps[rng.integers(len(grasps))]
            data.qpos[self.fingers] = grasp[:-7]
            mujoco.mj_kinematics(self.model, data)
            cube[:] = _compose(data.xpos[self._palm], data.xquat[self._palm], grasp[-7:])
        else:
            data.qpos[self.fingers] = start[n]
            cube[:3] = scene.cube
            cube[:2] += rng.uniform(-scene.cube_noise, scene.cube_noise, 2)
            turn = rng.uniform(-scene.cube_turn, scene.cube_turn)
            cube[3:] = (math.cos(turn / 2), 0.0, 0.0, math.sin(turn / 2))
        if scene.bin_low is not None and scene.bin_high is not None:
            data.mocap_pos[self._mocap["bin"]] = rng.uniform(scene.bin_low, scene.bin_high)
        mujoco.mj_forward(self.model, data)
        data.ctrl[:n] = data.qfrc_bias[:n]
        data.ctrl[n:] = start[n]
        mujoco.mj_forward(self.model, data)
        return start

    def objects(self) -> dict[str, Array]:
        """Return the pose (7,) of cube and bin in the frame of the arm's base."""
        data = self.data
        origin, inverse = data.xpos[self._base], data.xquat[self._base] * (1.0, -1.0, -1.0, -1.0)
        poses = {}
        for name, body in self._bodies.items():
            relative = np.concatenate((data.xpos[body] - origin, data.xquat[body]))
            poses[name] = _compose(np.zeros(3), inverse, relative)
        return poses


def _compose(position: Array, quaternion: Array, pose: Array) -> Array:
    """Return the pose (7,) that lies at ``pose`` in a frame of the given placement."""
    out = np.empty(7)
    mujoco.mju_rotVecQuat(out[:3], pose[:3], quaternion)
    out[:3] += position
    mujoco.mju_mulQuat(out[3:], quaternion, pose[3:])
    return out


@functools.lru_cache(maxsize=8)
def _grasps(scene: Scene, config: ArmConfig) -> Array:
    """Return settled grasps (n, fingers + 7): finger positions, and the cube's pose in the palm.

    The cube is put between the fingers, turned a little, and the hand closes by its
    own motors: without gravity until it holds, then with it. The physics step is
    always the same, so that a seed means the same start whatever the arm's step is.

    Raises:
        ArmError: If a cube does not stay in the hand.
    """
    model = copy.copy(load_model(scene.model))
    model.opt.timestep = LONGEST_TIMESTEP
    data = mujoco.MjData(model)
    n = len(config.joint_names) - 1
    arm = slice(0, n)
    law = InverseDynamics(RigidBody(model, config.joint_names[:n]), config.natural_frequency)
    y, rest = np.array(scene.start), np.zeros(n + 1)
    state, command = JointState.zeros(n + 1), Command.zeros(n + 1, "torque")
    cube = slice(model.joint("cube").qposadr[0], model.joint("cube").qposadr[0] + 7)
    hand = slice(n, n + len(fingers(model)))
    palm, grip = model.body("palm").id, model.site("grip").id
    gravity = model.opt.gravity.copy()
    rng = np.random.default_rng(_GRASP_SEED)
    grasps = np.empty((_GRASPS, hand.stop - hand.start + 7))
    for i in range(_GRASPS):
        mujoco.mj_resetData(model, data)
        data.qpos[arm] = y[:n]
        data.qpos[hand] = scene.grasp_from
        mujoco.mj_kinematics(model, data)
        turn = rng.uniform(-0.15, 0.15)
        offset = np.array([*rng.uniform(-0.003, 0.003, 3), math.cos(turn), 0, 0, math.sin(turn)])
        data.qpos[cube] = _compose(data.site_xpos[grip], data.xquat[palm], offset)
        for k in range(400):
            model.opt.gravity[:] = gravity if k >= 150 else 0.0
            state.position[:n], state.velocity[:n] = data.qpos[arm], data.qvel[arm]
            law(y, rest, rest, state, command)
            data.ctrl[:n], data.ctrl[n:] = command.torque[:n], y[n]
            mujoco.mj_step(model, data)
        if np.linalg.norm(data.qpos[cube][:3] - data.site_xpos[grip]) > 0.03:
            raise ArmError(f"{scene.model}: the cube slips out of the hand at the start pose")
        inverse = data.xquat[palm] * (1.0, -1.0, -1.0, -1.0)
        relative = np.concatenate((data.qpos[cube][:3] - data.xpos[palm], data.qpos[cube][3:]))
        grasps[i, :-7] = data.qpos[hand]
        grasps[i, -7:] = _compose(np.zeros(3), inverse, relative)
    grasps.setflags(write=False)
    return grasps


_MESHED = "jaco"
_MESHES = {  # mesh file: the bodies that show it, and its material
    "base": (("base",), "dark_gray"),
    "shoulder": (("link_1",), "dark_gray"),
    "arm": (("link_2",), "dark_gray"),
    "forearm": (("link_3",), "dark_gray"),
    "wrist": (("link_4", "link_5"), "dark_gray"),
    "hand_3finger_main": (("palm",), "dark_gray"),
    "hand_3finger_insert": (("palm",), "light_gray"),
    "finger_proximal": (("finger_1", "finger_2", "finger_3"), "light_gray"),
    "finger_distal": (("finger_tip_1", "finger_tip_2", "finger_tip_3"), "light_gray"),
}
_HIDDEN_GROUP = 3


def _add_meshes(spec: mujoco.MjSpec, folder: Path) -> None:
    """Show meshes instead of the primitives of the robot; contacts stay as they are."""
    for name, (bodies, material) in _MESHES.items():
        spec.add_mesh(name=name, file=str(folder / f"{name}.stl"))
        for body in bodies:
            holder = spec.body(body)
            for geom in holder.geoms:
                if geom.classname.name not in ("ring", "wrist_ring"):
                    geom.group = _HIDDEN_GROUP
        for body in bodies:
            spec.body(body).add_geom(
                type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, material=material,
                contype=0, conaffinity=0, mass=0,
            )  # fmt: skip
