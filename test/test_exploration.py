# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Correlated noise: its correlation, and the densities that PPO trains on."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal

from ndp_ros.policies.layout import LOG_STD, initial_tensors
from ndp_ros.tasks.choice import TaskChoice
from ndp_ros.training.config import RunConfig, make_spec
from ndp_ros.training.exploration import WindowNoise
from ndp_ros.training.ppo import log_prob
from ndp_ros.training.worker import Block, Plan, Worker

windows = st.integers(1, 20)
correlations = st.floats(0.0, 0.99)


def covariance(k: int, correlation: float) -> np.ndarray:
    lag = np.subtract.outer(np.arange(k), np.arange(k))
    return correlation ** np.abs(lag)


@given(windows, correlations)
def test_neighbours_are_correlated_and_every_action_keeps_its_deviation(k, correlation):
    colour = WindowNoise(k, correlation, np.float64).colour(np.eye(k))
    np.testing.assert_allclose(colour @ colour.T, covariance(k, correlation), atol=1e-9)


@given(windows, correlations)
def test_whitening_undoes_the_correlation(k, correlation):
    noise = WindowNoise(k, correlation, np.float64)
    e = np.random.default_rng(k).standard_normal((k, 3, 4))
    np.testing.assert_allclose(noise.whiten(noise.colour(e)), e, atol=1e-9)


@given(windows, correlations)
def test_a_gradient_is_pulled_back_by_the_transpose(k, correlation):
    noise = WindowNoise(k, correlation, np.float64)
    a, d = np.random.default_rng(k).standard_normal((2, k, 3, 4))
    there, back = np.vdot(noise.whiten(a), d), np.vdot(a, noise.pull_back(d))
    assert there == pytest.approx(back, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.9])
def test_the_density_of_an_action_is_conditional_on_the_earlier_ones(correlation):
    k, log_std = 5, np.array([-0.3, 0.2])
    rng = np.random.default_rng(0)
    actions, old, new = rng.standard_normal((3, k, len(log_std), 1))
    noise = WindowNoise(k, correlation, np.float64)
    white = noise.whiten(actions)
    ratio = log_prob(white, noise.whiten(new), log_std) - log_prob(
        white, noise.whiten(old), log_std
    )

    def before(means: np.ndarray, steps: int) -> float:
        """Return the log-density of the first actions of a window."""
        total = 0.0
        for joint, s in enumerate(log_std):
            cov = np.exp(2.0 * s) * covariance(steps, correlation)
            normal = MultivariateNormal(
                torch.from_numpy(means[:steps, joint, 0].copy()), torch.from_numpy(cov)
            )
            total += normal.log_prob(torch.from_numpy(actions[:steps, joint, 0].copy())).item()
        return total

    joint_ratio = [0.0, *(before(new, i) - before(old, i) for i in range(1, k + 1))]
    np.testing.assert_allclose(ratio[:, 0], np.diff(joint_ratio), rtol=1e-9)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_roll_outs_draw_noise_with_the_given_correlation(correlation):
    config = RunConfig(task="toy_task:Toy-v0", method="ppo-multi")
    env = config.choice.make()
    plan = Plan(config.choice, make_spec(config, env), 0, 8, 500, 1, correlation)
    assert isinstance(plan.choice, TaskChoice)
    block = Block(plan)
    tensors = initial_tensors(plan.spec, 0)
    tensors["normaliser.variance"] = np.ones_like(tensors["normaliser.variance"])
    worker = Worker(plan, 0, block.memory)
    policy = worker._policy  # noqa: SLF001
    policy.flat[:] = policy.layout.flatten(tensors, policy.flat.dtype)
    block.flat[:], block.mean[:], block.variance[:] = policy.flat, policy.mean, policy.variance
    worker.collect(0, fresh=True)
    obs = block.obs.reshape(-1, block.obs.shape[-1])
    drawn = block.actions.reshape(len(obs), plan.spec.k, -1) - policy.means(obs)
    drawn /= np.exp(policy.parameters[LOG_STD])
    found = np.corrcoef(np.moveaxis(drawn, 1, 0).reshape(plan.spec.k, -1))
    np.testing.assert_allclose(found, covariance(plan.spec.k, correlation), atol=0.05)
