"""Soft actor-critic over windows: densities, learning, resumption."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ndp_ros import checkpoint
from ndp_ros.training.environment import TaskChoice
from ndp_ros.training.experiment import RunConfig, SacConfig, make_spec
from ndp_ros.training.logs import TIME_COLUMNS, read_progress
from ndp_ros.training.off_policy import ACTION_BOUND, Memory, SoftActorCritic
from ndp_ros.training.ppo import PpoConfig
from ndp_ros.training.run import train

TOY = "toy_task:Toy-v0"


def toy(method: str = "ndp-sac", **changes: object) -> RunConfig:
    values = {
        "task": TOY, "method": method, "samples": 480, "hidden": (16, 16), "preset": "",
        "environments": 4, "workers": 1, "checkpoint_every": 1, "evaluation_episodes": 2,
        "ppo": PpoConfig(batch_size=160),
        "sac": SacConfig(collect=80, warm_up=160, replay_batch=16, critic_hidden=(16,)),
    }  # fmt: skip
    return RunConfig(**{**values, **changes})


def learner(method: str = "ndp-sac") -> SoftActorCritic:
    config = toy(method)
    return SoftActorCritic(make_spec(config, TaskChoice(TOY, 5).make()), config)


@pytest.mark.parametrize("method", ["ndp-sac", "sac"])
def test_squashed_densities_are_those_of_the_change_of_variables(method: str) -> None:
    sac = learner(method)
    obs = torch.randn((3, 11), generator=torch.Generator().manual_seed(0))
    actions, log_density = sac.sample(obs, torch.Generator().manual_seed(1))
    centre = torch.atanh(sac.actor.means(obs) / ACTION_BOUND)
    normal = torch.distributions.Normal(centre, sac.actor.log_std.exp() / ACTION_BOUND)
    squash = torch.distributions.TanhTransform()
    reference = torch.distributions.TransformedDistribution(normal, squash)
    expected = reference.log_prob(actions / ACTION_BOUND).sum((1, 2))
    torch.testing.assert_close(log_density, expected, rtol=1e-4, atol=1e-3)
    assert actions.abs().max() <= ACTION_BOUND


def test_without_deviation_actions_are_the_means() -> None:
    sac = learner()
    sac.actor.log_std.data.fill_(-20.0)
    obs = torch.randn((3, 11), generator=torch.Generator().manual_seed(0))
    actions, _ = sac.sample(obs, torch.Generator().manual_seed(1))
    torch.testing.assert_close(actions, sac.actor.means(obs), rtol=1e-4, atol=1e-5)


def test_a_window_counts_its_discounted_rewards_and_ends_with_its_episode() -> None:
    class Block:
        obs = next_obs = np.zeros((1, 2, 3))
        actions = np.zeros((1, 2, 2, 1))
        rewards = np.array([[[1.0, 2.0], [3.0, 4.0]]])
        terminated = np.array([[False, True]])

    memory = Memory(3, 3, 2, 1)
    memory.add(Block(), 0.5)
    np.testing.assert_allclose(memory.arrays["rewards"][:2], [2.0, 5.0])
    np.testing.assert_array_equal(memory.arrays["going_on"][:2], [1.0, 0.0])
    memory.add(Block(), 0.5)
    assert memory.used == 3
    np.testing.assert_allclose(memory.arrays["rewards"], [5.0, 5.0, 2.0])


def test_the_temperature_rises_when_entropy_is_too_low() -> None:
    sac = learner()
    sac.actor.log_std.data.fill_(-3.5)
    batch = {
        "obs": torch.zeros(8, 11), "next_obs": torch.zeros(8, 11),
        "actions": torch.zeros(8, 5, 2), "rewards": torch.zeros(8), "going_on": torch.zeros(8),
    }  # fmt: skip
    before = sac.log_temperature.item()
    sac.learn(batch, 1.0, torch.Generator().manual_seed(0))
    assert sac.log_temperature.item() > before


@pytest.mark.parametrize("method", ["ndp-sac", "sac"])
def test_it_learns_the_toy(tmp_path: Path, method: str) -> None:
    config = toy(
        method, samples=4800, checkpoint_every=5, evaluation_episodes=6, init_log_std=-1.0,
        sac=SacConfig(collect=80, warm_up=880, replay_batch=128, critic_hidden=(128, 128)),
    )  # fmt: skip
    train(config, tmp_path / "run", quiet=True)
    rows = read_progress(tmp_path / "run")
    returns = [float(r["eval_return"]) for r in rows if r["eval_return"]]
    assert max(returns[-3:]) > 0.75 * returns[0]  # returns are negative
    checkpoint.load(tmp_path / "run" / "checkpoints" / "last")


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    train(toy(), tmp_path / "whole", quiet=True)

    def stop(row: dict) -> None:
        if row["samples"] == 400:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(toy(), tmp_path / "cut", quiet=True, watch=stop)
    train(toy(), tmp_path / "cut", resume=True, quiet=True)
    curves = [
        [{n: v for n, v in r.items() if n not in TIME_COLUMNS} for r in read_progress(tmp_path / f)]
        for f in ("whole", "cut")
    ]
    assert curves[0] == curves[1]
    a, b = (checkpoint.load(tmp_path / f / "checkpoints" / "last") for f in ("whole", "cut"))
    assert a.digest == b.digest
