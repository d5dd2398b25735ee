# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Run Throw's scene in MuJoCo-Warp under the arm's computed torque, beside the task's own loop.

The piece of docs/gpu.md that runs today: E arms in one batch of worlds, their torques computed on
the device from its own inertia matrix and bias forces, the same segments on both sides. It prints
how far the joints of both end apart, and what a control step costs each.

MuJoCo-Warp needs a newer MuJoCo than this project, and so an environment of its own::

    pip install mujoco-warp==3.10.0.3 mujoco==3.10.0 torch==2.13.0 pin gymnasium scipy PyYAML
    PYTHONPATH=. python benchmarks/warp_throw.py --environments 16
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
import torch

from ndp_ros import DmpConfig, Segment
from ndp_ros.control.arm import ArmConfig
from ndp_ros.control.rigid_body import RigidBody
from ndp_ros.tasks.throw import Throw

K = 25
"""Control steps of the segment."""


class WarpArms:
    """The scenes of E environments as worlds of one simulation.

    Attributes:
        position: Arm joints (E, n) [rad], on the device like all arrays.
        velocity: Their velocities (E, n) [rad/s].
    """

    def __init__(self, envs: list[Throw]) -> None:
        """Copy the state of every environment."""
        import mujoco_warp as mjw
        import warp as wp

        self._mjw, self._wp = mjw, wp
        first, E = envs[0], len(envs)
        config = ArmConfig.named(first.arm)
        model, joints = first.robot.model, first.robot.joints
        body = RigidBody(model, config.joint_names[: config.n_arm])
        if np.any(body.friction):
            raise SystemExit("the arm has dry friction, which is not compensated here")
        self._model = mjw.put_model(model)
        self._data = data = mjw.put_data(model, first.robot.data, nworld=E)
        for name in ("qpos", "qvel", "ctrl"):
            rows = np.stack([getattr(env.robot.data, name) for env in envs])
            self._torch(getattr(data, name))[:] = torch.from_numpy(rows).float()
        self._steps = round(first.tick / model.opt.timestep)
        self.position = self._torch(data.qpos)[:, joints.arm.q]
        self.velocity = self._torch(data.qvel)[:, joints.arm.v]
        self._bias = self._torch(data.qfrc_bias)[:, joints.arm.v]
        self._torque = self._torch(data.ctrl)[:, joints.motors]
        self._acceleration, self._inertial = (wp.zeros((E, model.nv), dtype=float) for _ in "ab")
        self._a = self._torch(self._acceleration)[:, joints.arm.v]
        self._Ma = self._torch(self._inertial)[:, joints.arm.v]
        self._stiffness, self._damping = config.natural_frequency**2, 2.0 * config.natural_frequency
        self._viscous = torch.from_numpy(body.damping).float()
        self._limit = torch.tensor(config.max_torque[: config.n_arm])

    def _torch(self, array: Any) -> torch.Tensor:
        """Return a tensor that shares an array's memory."""
        tensor: torch.Tensor = self._wp.to_torch(array)
        return tensor

    def tick(self, y: torch.Tensor, yd: torch.Tensor, ydd: torch.Tensor) -> None:
        """Track setpoints (E, n) for a tick: tau = M a + c(q, v) + damping v."""
        mjw, model, data = self._mjw, self._model, self._data
        for step in range(self._steps):
            mjw.step1(model, data)
            if step == 0:
                self._a[:] = ydd + self._damping * (yd - self.velocity)
                self._a += self._stiffness * (y - self.position)
                mjw.mul_m(model, data, self._inertial, self._acceleration)
                tau = self._Ma + self._bias + self._viscous * self.velocity
                self._torque[:] = torch.clamp(tau, -self._limit, self._limit)
            mjw.step2(model, data)


def segments(envs: list[Throw]) -> np.ndarray:
    """Return a moderate segment of each environment (E, n_ticks, 3, dof)."""
    rng = np.random.default_rng(0)
    out = []
    for env in envs:
        y, yd = env.setpoint
        g = y + np.r_[rng.uniform(-0.2, 0.2, len(y) - 1), 0.0]
        motion = Segment(DmpConfig(), g, np.zeros((len(y), 6)), env.segment_times[-1])
        out.append(motion.bind(y, yd).setpoints(env.segment_times))
    return np.stack(out)


def main() -> int:
    """Run both and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environments", type=int, default=16, help="worlds (16)")
    count = parser.parse_args().environments
    envs = [Throw(k=K) for _ in range(count)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    first, vector = envs[0], Throw.vector(envs)
    n, arms, wanted = first.robot.connect().n_arm, WarpArms(envs), segments(envs)
    y, yd = (np.stack(rows) for rows in zip(*(env.setpoint for env in envs), strict=True))
    began = time.process_time()
    vector.execute(list(wanted))
    own = time.process_time() - began
    # Position and velocity of a tick are those at its start, as in the task's loop; the fingers
    # hold the cube.
    held = np.stack([env.tracked for env in envs])
    before = np.concatenate((np.stack((y, yd, 0.0 * y), axis=1)[:, None], held), axis=1)
    ydd = np.diff(before[:, :, 1], axis=1) / first.tick
    rows = torch.from_numpy(np.stack((before[:, :-1, 0], before[:, :-1, 1], ydd), axis=1)).float()
    rows = rows[..., :n]
    apart, seconds = [], 0.0
    for i in range(rows.shape[2]):
        began = time.process_time()
        arms.tick(*rows[:, :, i].unbind(1))
        if i:  # the first one compiles the kernels
            seconds += time.process_time() - began
    for env, position in zip(envs, arms.position.double().numpy(), strict=True):
        joints = env.robot.joints.arm.q
        apart.append(float(np.abs(env.robot.data.qpos[joints] - position).max()))
    report = {
        "environments": count,
        "ticks": rows.shape[2],
        "largest distance of a joint at the end [rad]": max(apart),
        "median of the environments' largest distances [rad]": float(np.median(apart)),
        "MuJoCo, a tick of one environment [us CPU]": 1e6 * own / count / rows.shape[2],
        "MuJoCo-Warp on the CPU, the same [us CPU]": 1e6 * seconds / count / (rows.shape[2] - 1),
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
