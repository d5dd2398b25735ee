# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""One contract for every backend, and what is special about the simulated arm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mujoco
import numpy as np
import pytest

from ndp_ros.arms.mock import MockArm
from ndp_ros.arms.mujoco import MujocoArm, physics_timestep
from ndp_ros.arms.scenes import SCENES, load_scene, mesh_folder
from ndp_ros.control.arm import Arm, ArmConfig, ArmInfo, Command, JointState, SimulatedArm
from ndp_ros.control.omega import Identity, InverseDynamics, Omega
from ndp_ros.control.rigid_body import RigidBody
from ndp_ros.errors import ArmError

JACO = ArmConfig.named("jaco")
DT = 0.002


@dataclasses.dataclass
class Backend:
    """A backend, as far as the contract needs to know it."""

    arm: Arm
    omega: Callable[[ArmInfo], Omega]
    wait: Callable[[float], None]
    tracking: float


@contextmanager
def mujoco_backend() -> Iterator[Backend]:
    arm = MujocoArm(JACO)
    n = arm.connect().n_arm

    def omega(info: ArmInfo) -> Omega:
        return InverseDynamics(RigidBody(arm.model, info.joint_names[:n]), 25.0, info.max_torque)

    yield Backend(arm, omega, arm.step, tracking=0.002)


@contextmanager
def mock_backend() -> Iterator[Backend]:
    yield Backend(MockArm(JACO), lambda info: Identity(), lambda duration: None, tracking=1e-12)


# Further backends join by adding a context manager that yields a Backend.
BACKENDS = {"mujoco": mujoco_backend, "mock": mock_backend}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with BACKENDS[request.param]() as made:
        try:
            yield made
        finally:
            made.arm.close()


def test_it_says_what_it_is(backend):
    info = backend.arm.connect()
    assert isinstance(backend.arm, Arm)
    assert info.joint_names == JACO.joint_names
    assert info.dof == info.n_arm + 1 == 7
    assert set(info.command_modes) <= {"position", "torque"}
    assert np.all(info.lower < info.upper)


def test_reading_fills_the_state_in_place(backend):
    info = backend.arm.connect()
    state = JointState.zeros(info.dof)
    position = state.position
    assert backend.arm.read(state) is state
    assert state.position is position
    assert np.isfinite(state.position).all() and np.isfinite(state.velocity).all()
    assert np.all(position[: info.n_arm] >= info.lower[: info.n_arm] - 0.01)
    assert np.all(position[: info.n_arm] <= info.upper[: info.n_arm] + 0.01)


def test_it_follows_a_smooth_motion(backend):
    info = backend.arm.connect()
    state = backend.arm.read(JointState.zeros(info.dof))
    omega = backend.omega(info)
    command = Command.zeros(info.dof, omega.mode)
    start = state.position.copy()
    amplitude, rate = 0.1, 2 * np.pi
    worst = 0.0
    for i in range(300):
        phase = rate * i * DT
        y = start + amplitude * (1 - np.cos(phase))
        yd = np.full(info.dof, amplitude * rate * np.sin(phase))
        ydd = np.full(info.dof, amplitude * rate**2 * np.cos(phase))
        y[info.n_arm :], yd[info.n_arm :] = start[info.n_arm :], 0.0
        backend.arm.read(state)
        omega(y, yd, ydd, state, command)
        if i:
            worst = max(worst, np.abs(state.position - y)[: info.n_arm].max())
        backend.arm.write(command)
        backend.wait(DT)
    # What is read has been commanded one tick ago.
    assert worst < backend.tracking + amplitude * rate * DT


def test_a_mode_that_it_lacks_is_refused(backend):
    info = backend.arm.connect()
    (other,) = {"position", "torque"} - set(info.command_modes)
    with pytest.raises(ArmError, match=other):
        backend.arm.write(Command.zeros(info.dof, other))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_command_that_is_not_finite_is_refused(backend, bad):
    info = backend.arm.connect()
    command = Command.zeros(info.dof, info.command_modes[0])
    command.position[:], command.torque[:] = bad, bad
    with pytest.raises(ArmError, match="not finite"):
        backend.arm.write(command)
    assert np.isfinite(backend.arm.read(JointState.zeros(info.dof)).position).all()


def test_stopping_and_closing_twice_is_allowed(backend):
    backend.arm.connect()
    backend.arm.stop()
    backend.arm.stop()
    backend.arm.close()
    backend.arm.close()


# The simulated arm.


def hold(arm: MujocoArm, setpoint: np.ndarray, duration: float, dt: float = 0.01) -> JointState:
    """Track a fixed setpoint for a while."""
    info = arm.connect()
    omega = InverseDynamics(
        RigidBody(arm.model, info.joint_names[: info.n_arm]), 25.0, info.max_torque
    )
    state, command = JointState.zeros(info.dof), Command.zeros(info.dof, "torque")
    zero = np.zeros(info.dof)
    for _ in range(round(duration / dt)):
        omega(setpoint, zero, zero, arm.read(state), command)
        arm.write(command)
        arm.step(dt)
    return arm.read(state)


def grip_gap(arm: MujocoArm) -> float:
    """Return how far the cube is from the middle of the grip [m]."""
    grip = arm.data.site("grip").xpos
    return float(np.linalg.norm(arm.objects()["cube"][:3] - grip))


def test_it_is_a_simulated_arm():
    assert isinstance(MujocoArm(JACO), SimulatedArm)


def test_a_seed_means_one_start_state():
    one, other = MujocoArm(JACO), MujocoArm(JACO, timestep=0.005)
    a, b = one.reset(7), other.reset(7)
    assert np.array_equal(a, b)
    assert np.array_equal(one.data.qpos, other.data.qpos)
    one.step(0.1)
    one.reset(7)
    assert np.array_equal(one.data.qpos, other.data.qpos)
    assert np.array_equal(one.data.qvel, np.zeros(one.model.nv))
    one.reset(8)
    assert not np.array_equal(one.data.qpos, other.data.qpos)


def test_a_reset_arm_repeats_its_motion_exactly():
    arm = MujocoArm(JACO)
    ends = []
    for _ in range(2):
        setpoint = arm.reset(3)
        setpoint[:6] += 0.2
        hold(arm, setpoint, 0.3)
        ends.append(arm.data.qpos.copy())
    assert np.array_equal(*ends)


def test_the_setpoint_of_a_reset_holds_arm_and_cube():
    arm = MujocoArm(JACO)
    setpoint = arm.reset(1)
    gap = grip_gap(arm)
    state = hold(arm, setpoint, 1.0)
    # The payload is not in the model: it pulls the arm down by a few milliradian.
    assert np.abs(state.position - setpoint)[:6].max() < 0.01
    assert grip_gap(arm) == pytest.approx(gap, abs=0.005)


def test_the_grasp_survives_a_shake_of_25_metres_per_second_squared():
    arm = MujocoArm(JACO)
    setpoint = arm.reset(2)
    gap = grip_gap(arm)
    info = arm.connect()
    omega = InverseDynamics(RigidBody(arm.model, info.joint_names[:6]), 25.0, info.max_torque)
    state, command = JointState.zeros(7), Command.zeros(7, "torque")
    # Joint 1 swings the hand on a circle of the grip's distance from its axis.
    radius = np.hypot(*arm.data.site("grip").xpos[:2])
    rate, dt = 2 * np.pi * 4, 0.002
    amplitude = 25.0 / radius / rate**2
    for i in range(500):
        t = i * dt
        y, yd, ydd = setpoint.copy(), np.zeros(7), np.zeros(7)
        y[0] += amplitude * (1 - np.cos(rate * t))
        yd[0] = amplitude * rate * np.sin(rate * t)
        ydd[0] = amplitude * rate**2 * np.cos(rate * t)
        omega(y, yd, ydd, arm.read(state), command)
        arm.write(command)
        arm.step(dt)
    assert abs(state.position[0] - setpoint[0]) < 2 * amplitude + 0.02
    assert grip_gap(arm) < gap + 0.02


def test_opening_the_hand_releases_the_cube():
    arm = MujocoArm(JACO)
    setpoint = arm.reset(0)
    setpoint[6] = 0.15
    hold(arm, setpoint, 0.6)
    assert grip_gap(arm) > 0.1


def test_stepping_never_writes_a_position(monkeypatch):
    arm = MujocoArm(JACO)
    setpoint = arm.reset(0)
    allowed = {"ctrl"}
    names = ("qpos", "qvel", "qacc", "qfrc_applied", "xfrc_applied", "ctrl", "mocap_pos", "act")
    steps = []
    real = mujoco.mj_step

    def watched(model, data, n=1):
        # Everything that drives the physics, but what an arm may touch, is as the
        # physics itself left it after the step before.
        now = {name: getattr(data, name).copy() for name in names if name not in allowed}
        if steps:
            for name, value in now.items():
                assert np.array_equal(value, steps[-1][name]), name
        real(model, data, n)
        steps.append({name: getattr(data, name).copy() for name in now})

    monkeypatch.setattr(mujoco, "mj_step", watched)
    hold(arm, setpoint + 0.1, 0.2)
    arm.objects()
    arm.stop()
    arm.step(0.01)
    assert len(steps) == 25, "20 ticks in one call each, then 5 steps under the brake"


def test_a_stopped_arm_comes_to_rest_and_stays():
    arm = MujocoArm(JACO, timestep=0.005)
    setpoint = arm.reset(0)
    command = Command.zeros(7, "torque")
    command.torque[:6] = arm.data.qfrc_bias[:6] + np.array([10, 15, 8, 1, 1, 1])
    command.position[6] = setpoint[6]
    arm.write(command)
    arm.step(0.1)
    assert np.abs(arm.data.qvel[:6]).max() > 0.5
    arm.stop()
    arm.step(2.0)
    rest = arm.data.qpos[:6].copy()
    assert np.abs(arm.data.qvel[:6]).max() < 0.01
    arm.step(1.0)
    assert arm.data.qpos[:6] == pytest.approx(rest, abs=0.005)


def test_a_negative_seed_is_refused():
    with pytest.raises(ArmError, match="seed"):
        MujocoArm(JACO).reset(-1)


@pytest.mark.parametrize("rate", [300, 500, 750, 1000, 2000, 5000])
def test_a_physics_step_divides_every_period(rate):
    timestep = physics_timestep(1 / rate)
    assert timestep <= 0.002 * (1 + 1e-9)
    arm = MujocoArm(JACO, timestep=timestep)
    before = arm.data.time
    arm.step(1 / rate)
    assert arm.data.time - before == pytest.approx(1 / rate, rel=1e-9)


def test_a_duration_off_the_grid_is_refused():
    with pytest.raises(ArmError, match="multiple"):
        MujocoArm(JACO).step(0.003)


def test_an_unknown_scene_names_those_there_are():
    with pytest.raises(ArmError, match="throw"):
        MujocoArm(JACO, scene="juggle")


def test_a_moving_bin_moves_within_its_region():
    arm = MujocoArm(JACO, scene="throw-moving")
    region = SCENES["throw-moving"].placement("bin")
    places = []
    for seed in range(5):
        arm.reset(seed)
        places.append(arm.objects()["bin"][:3])
    places = np.array(places)
    assert np.all(places >= np.array(region.low) - 1e-9)
    assert np.all(places <= np.array(region.high) + 1e-9)
    assert np.ptp(places[:, 0]) > 0.01 and np.ptp(places[:, 1]) > 0.01


@pytest.mark.skipif(mesh_folder() is None, reason="dm_control's meshes are not installed")
def test_meshes_change_nothing_but_the_looks():
    plain = load_scene(SCENES["throw"], JACO)
    shown = load_scene(SCENES["throw"], JACO, meshes=True)
    assert shown.nmesh > 0 == plain.nmesh
    assert np.array_equal(plain.body_mass, shown.body_mass)
    assert np.array_equal(plain.body_inertia, shown.body_inertia)
    one, other = MujocoArm(JACO), MujocoArm(JACO, meshes=True)
    for arm in (one, other):
        hold(arm, arm.reset(0) + 0.2, 0.2)
    assert np.array_equal(one.data.qpos, other.data.qpos)
