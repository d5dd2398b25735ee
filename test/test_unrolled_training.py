# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Training through the closed form equals training through the unrolled recursion."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_dmp_layer import unroll
from test_training import curve, tensors, toy

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.policies import heads
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training import on_policy
from ndp_ros.training.run import train
from ndp_ros.training.worker import Block, Plan, Worker


class UnrolledHead:
    """The dynamical system in m recorded Euler steps, forward and backward by autograd."""

    used = 0

    def __init__(self, spec: PolicySpec, batch: int, dtype: type) -> None:
        self._spec, self._batch, self._dtype = spec, batch, dtype
        self._scale = torch.tensor(spec.action_scale, dtype=torch.float64)

    def forward(self, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        spec, shape = self._spec, (1 + self._spec.dmp.n_basis, self._spec.dof, self._batch)
        self._u = torch.tensor(u.reshape(shape), dtype=torch.float64, requires_grad=True)
        zero = torch.zeros(self._batch, spec.dof, dtype=torch.float64)
        g = spec.goal_gain * self._u[0].T
        w = spec.weight_gain * self._u[1:].permute(2, 1, 0)
        y = unroll(spec.dmp, zero, zero, g, w)[:, spec.dmp.m // spec.k - 1 :: spec.dmp.m // spec.k]
        self._means = torch.diff(y, dim=1, prepend=zero[:, None]) / self._scale
        return self._means.detach().permute(1, 2, 0).numpy().astype(self._dtype)

    def backward(self, d_means: np.ndarray) -> np.ndarray:
        type(self).used += 1
        upstream = torch.tensor(d_means, dtype=torch.float64).permute(2, 0, 1)
        (slope,) = torch.autograd.grad(self._means, self._u, upstream)
        return slope.numpy().astype(self._dtype).reshape(-1, self._batch)


class RolloutsHere:
    """Roll-outs in this process, so that the head can be replaced."""

    def __init__(self, plan: Plan) -> None:
        self.block = Block(plan)
        self._worker = Worker(plan, 0, self.block.memory)

    def __enter__(self) -> "RolloutsHere":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def publish(self, policy: ArrayPolicy) -> None:
        self.block.flat[:] = policy.flat
        self.block.mean[:], self.block.variance[:] = policy.mean, policy.variance

    def collect(self, batch: int, fresh: bool) -> list:
        return self._worker.collect(batch, fresh)


def test_one_seed_gives_the_same_curve_through_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy(
        1600,
        dmp=DmpConfig(solver="euler", m=35, n_basis=4),
        evaluation_episodes=0,
        checkpoint_every=100,
    )
    train(config, tmp_path / "processes", quiet=True)
    monkeypatch.setattr(on_policy, "Rollouts", RolloutsHere)
    train(config, tmp_path / "closed", quiet=True)
    monkeypatch.setattr(heads, "DynamicHead", UnrolledHead)
    train(config, tmp_path / "unrolled", quiet=True)
    assert UnrolledHead.used == 9 * config.ppo.epochs * config.ppo.minibatches

    closed, unrolled = (curve(tmp_path / name) for name in ("closed", "unrolled"))
    assert closed == curve(tmp_path / "processes")
    for name in ("return", "policy_loss", "value_loss", "kl", "explained_variance"):
        a, b = ([float(row[name] or 0.0) for row in rows] for rows in (closed, unrolled))
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5, err_msg=name)
    returns = [float(row["return"]) for row in closed]
    assert max(returns) > min(returns) + 0.1, "there is a curve to compare"
    ours, theirs = tensors(tmp_path / "closed"), tensors(tmp_path / "unrolled")
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-3, atol=1e-4, err_msg=name)
