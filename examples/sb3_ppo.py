# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""PPO of Stable-Baselines3 with a policy whose actions come out of a DMP.

Any learner that takes a torch module can train an NDP: here the action network of
Stable-Baselines3's policy is replaced by phi and a `DmpLayer`. The action is the k x dof
displacements of a segment, so the environment and PPO stay as they are.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from ndp_ros import DmpConfig, DmpLayer, make
from ndp_ros.observation import field_slice

K = 5
DMP = DmpConfig(n_basis=5, alpha=5.0)
GOAL_GAIN, WEIGHT_GAIN = 0.2, 20.0
"""Displacement of the goal [rad], and weights, per unit of the network's output."""


class DmpHead(nn.Module):
    """Mean actions (batch, k * dof) of observations: differences of the DMP's way points."""

    def __init__(self, task: Any) -> None:
        super().__init__()
        self.dof = len(task.joint_names)
        self.y0 = field_slice(task.fields, "setpoint")
        self.yd0 = field_slice(task.fields, "setpoint_velocity")
        self.duration = task.k * task.control_dt
        self.register_buffer("scale", torch.tensor(task.action_scale, dtype=torch.float32))
        n_obs = task.observation_space.shape[0]
        outputs = nn.Linear(64, self.dof * (1 + DMP.n_basis))
        self.phi = nn.Sequential(nn.Linear(n_obs, 64), nn.Tanh(), outputs)
        nn.init.zeros_(outputs.weight)
        nn.init.zeros_(outputs.bias)
        self.dmp = DmpLayer(DMP, task.k)

    def forward(self, obs: Tensor) -> Tensor:
        """Return the displacements in units of the task's action scale."""
        out = self.phi(obs).view(len(obs), self.dof, -1)
        y0, yd0 = obs[:, self.y0], obs[:, self.yd0] * self.duration
        y = self.dmp(y0, yd0, y0 + GOAL_GAIN * out[..., 0], WEIGHT_GAIN * out[..., 1:])
        displacements: Tensor = torch.diff(y, dim=1, prepend=y0[:, None]) / self.scale
        return displacements.flatten(1)


class NdpPolicy(ActorCriticPolicy):
    """Stable-Baselines3's actor-critic with the DMP as its action network."""

    def __init__(self, *args: Any, task: Any, **options: Any) -> None:
        self._task = task
        super().__init__(*args, net_arch={"pi": [], "vf": [64, 64]}, log_std_init=-0.5, **options)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.action_net = DmpHead(self._task)
        self.optimizer = self.optimizer_class(
            self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs
        )


def main() -> None:
    """Train and print the mean return before and after."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="throw", help="a task of this package (default: throw)")
    parser.add_argument("--segments", type=int, default=1024, help="decisions (default: 1024)")
    args = parser.parse_args()

    envs = make_vec_env(lambda: make(args.task, k=K), n_envs=2, seed=0)
    task = make(args.task, k=K).unwrapped
    policy: dict[str, Any] = {"task": task}
    learner = PPO(NdpPolicy, envs, n_steps=256, batch_size=128, seed=0, policy_kwargs=policy)
    learner.learn(args.segments)
    mean = sum(e["r"] for e in learner.ep_info_buffer) / len(learner.ep_info_buffer)
    print(f"{args.task}: mean return of the last {len(learner.ep_info_buffer)} episodes {mean:.2f}")


if __name__ == "__main__":
    main()
