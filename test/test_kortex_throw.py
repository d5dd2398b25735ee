# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Throws of the shipped Gen3 policy on the emulated arm, on no clock but the arm's own.

Whether a throw lands is then a question of servo, limits and latency, not of this machine's
load. Once without processes: what the streamer does, tick by tick. Once with all of them: nodes,
streamer and emulator over DDS and sockets, the last two in lockstep.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kortex_support import ARM, N

from ndp_ros.arms import kortex
from ndp_ros.arms.kortex.codes import ControlMode, ServoingMode
from ndp_ros.arms.kortex.config import KortexConfig
from ndp_ros.arms.kortex.units import GRIPPER_CLOSED
from ndp_ros.control.arm import ArmInfo, Command, JointState
from ndp_ros.dmp.segment import Segment
from ndp_ros.emulator.config import EmulatorConfig
from ndp_ros.emulator.request import CyclicCommand
from ndp_ros.emulator.robot import Robot
from ndp_ros.errors import ConfigError
from ndp_ros.nodes.surroundings import Surroundings
from ndp_ros.observation import assemble
from ndp_ros.paths import find_checkpoint
from ndp_ros.streaming.config import RuntimeConfig
from ndp_ros.streaming.guard import BRAKE, Guard

CHECKPOINT = "gen3_throw"
TICK, LATENCY = 0.001, 0.01
EPISODE, FLIGHT = 2.0, 0.8


def throw(phi, seed: int, mode: str) -> np.ndarray:
    """Make one throw and return where the cube lies from the bin (3,) [m]."""
    settings = KortexConfig(robot_ip="127.0.0.1")
    _, omega = kortex.make(
        ARM, task="", command_mode=mode, rate=1.0 / TICK, seed=0, settings=settings
    )
    robot = Robot(EmulatorConfig(scene="throw-gen3"), ARM)
    robot.reset_scene(seed)
    robot.set_servoing(ServoingMode.LOW_LEVEL)
    if mode == "torque":
        for joint in range(N):
            robot.set_control_mode(joint, ControlMode.TORQUE)
    guard = Guard(ArmInfo.from_config(ARM, (mode,)), RuntimeConfig.named("throw"), omega.torque_of)
    measured, command = JointState.zeros(N + 1), Command.zeros(N + 1, mode)
    y = np.zeros((3, N + 1))
    y[0, :N], y[0, N] = robot.position, Surroundings.named("throw-gen3").grip
    guard.rest_at(y[0])
    every = round(phi.spec.segment_duration / TICK)
    bound, began, coming = None, 0, None
    for k in range(round(EPISODE / TICK)):
        if k % every == 0:
            fingers = robot.gripper.fingers
            objects = robot.objects()
            seen = {
                "position": np.append(robot.position, robot.data.qpos[fingers].mean()),
                "velocity": np.append(robot.velocity, robot.data.qvel[fingers].mean()),
                "setpoint": y[0].copy(),
                "setpoint_velocity": y[1].copy(),
                "object/cube": objects["cube"][:3],
                "object/bin": objects["bin"][:3],
            }
            coming = (
                k + round(LATENCY / TICK),
                y[0].copy(),
                *phi(assemble(phi.spec.observation, seen)),
            )
        if coming is not None and k >= coming[0]:
            _, origin, g, w = coming
            segment = Segment(phi.spec.dmp, g + y[0] - origin, w, phi.spec.segment_duration)
            bound, began, coming = segment.bind(y[0].copy(), y[1].copy()), k, None
        if bound is not None:
            wanted = np.array(bound.sample((k + 1 - began) * TICK))
            wanted[0, N] = np.clip(wanted[0, N], 0.0, GRIPPER_CLOSED)
            guard.limit(y, wanted)
        measured.position[:N], measured.velocity[:N] = robot.position, robot.velocity
        omega(y[0], y[1], y[2], measured, command)
        assert guard.command(command) < BRAKE
        robot.command(
            CyclicCommand(
                k + 1,
                np.degrees(y[0, :N]).tolist(),
                np.degrees(y[1, :N]).tolist(),
                command.torque[:N].tolist(),
                [0.0] * N,
                (100.0 * y[0, N] / GRIPPER_CLOSED, 100.0, 100.0),
            )
        )
        robot.tick()
        assert not robot.faults.any(), f"tripped after {k} ms: {robot.faults.actuators}"
    for _ in range(round(FLIGHT / TICK)):
        robot.tick()
    objects = robot.objects()
    gap: np.ndarray = objects["cube"][:3] - objects["bin"][:3]
    return gap


@pytest.mark.parametrize("mode", ["position", "torque"])
def test_throws_through_guard_and_the_arm_land_in_the_bin(mode) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
    try:
        find_checkpoint(CHECKPOINT)
    except ConfigError:
        pytest.skip(f"the checkpoint {CHECKPOINT} does not ship yet")
    from ndp_ros.nodes.phi import Phi

    phi = Phi(CHECKPOINT, "gen3")
    gaps = np.array([throw(phi, seed, mode) for seed in range(4)])
    inside = (np.abs(gaps[:, :2]).max(axis=1) < 0.15) & (gaps[:, 2] > -0.01) & (gaps[:, 2] < 0.25)
    assert inside.all(), gaps


@pytest.mark.ros
def test_in_lockstep_nodes_streamer_and_emulated_arm_throw_into_the_bin() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
    from ros_support import claim_domain

    domain, lock = claim_domain()
    script = Path(__file__).parents[1] / "benchmarks" / "kortex_throws.py"
    with lock:
        ended = subprocess.run(
            [sys.executable, str(script), "--throws", "3", "--patient", "--json"],
            env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
            stdout=subprocess.PIPE,
            check=True,
            timeout=300.0,
        )
    report = json.loads(ended.stdout)
    # Nodes live by the machine's clock: a pause of theirs can cost a throw.
    assert report["in_bin"] >= 2, report["each"]
    assert report["refused"] == 0
    # Continuous from the first command to the last, the one that gives the arm back included.
    assert np.all(np.array(report["max_step_rad"]) <= 1.02 * np.array(ARM.max_velocity[:N]) * TICK)
