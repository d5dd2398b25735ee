# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""TD3 over windows: goals, targets, both critics side by side, memory; NDP in curve amounts."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import layer_norm

from ndp_ros import checkpoint, load_policy, train
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response
from ndp_ros.observation import field_slice
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import LOG_STD, initial_tensors
from ndp_ros.tasks.choice import TaskChoice
from ndp_ros.training.baselines.dyn_e import embedded
from ndp_ros.training.baselines.off_policy import UNIFORM, Memory
from ndp_ros.training.baselines.td3 import TwinCritics, TwinDelayed
from ndp_ros.training.config import PpoConfig, RunConfig, Td3Config, make_spec
from ndp_ros.training.logs import TIME_COLUMNS, read_progress
from ndp_ros.training.rollouts import Rollouts
from ndp_ros.training.worker import Plan

TOY = "toy_task:Toy-v0"


def learner(**changes: object) -> TwinDelayed:
    td3 = dataclasses.replace(Td3Config(critic_hidden=(16,)), **changes)
    config = RunConfig(task=TOY, method="dyn-e", hidden=(16, 16), preset="", td3=td3)
    return TwinDelayed(embedded(make_spec(config, TaskChoice(TOY, 5).make()), config.dyne), config)


def windows(n: int = 8, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "obs": torch.randn((n, 11), generator=g),
        "next_obs": torch.randn((n, 11), generator=g),
        "actions": torch.rand((n, 1, 2), generator=g) * 2 - 1,
        "rewards": torch.randn(n, generator=g),
        "going_on": torch.ones(n),
    }


@pytest.mark.parametrize("norm", [False, True])
def test_two_critics_side_by_side_are_two_networks_of_linear_layers(norm: bool) -> None:
    torch.manual_seed(0)
    twins = TwinCritics((5, 8, 6, 1), norm)
    x = torch.randn(7, 5)
    for i in range(2):
        h = x
        for layer in range(3):
            linear = nn.Linear(*twins.weights[layer].shape[1:], bias=False)
            linear.weight.data = twins.weights[layer][i].T
            h = linear(h)
            if norm and layer < 2:
                h = layer_norm(h, h.shape[1:])
            h = h + twins.biases[layer][i]
            h = h.relu() if layer < 2 else h
        torch.testing.assert_close(twins(x)[i], h[:, 0])
    torch.testing.assert_close(twins.first(x), twins(x)[0])


def test_the_critics_differ_and_start_with_the_scale_of_linear_layers() -> None:
    torch.manual_seed(0)
    weight = TwinCritics((400, 300, 1), True).weights[0]
    assert not torch.equal(weight[0], weight[1])
    assert weight.std().item() == pytest.approx(nn.Linear(400, 300).weight.std().item(), rel=0.02)


def test_normalised_critics_bound_their_values_far_outside_the_data() -> None:
    torch.manual_seed(0)
    plain, normed = (TwinCritics((5, 64, 64, 1), norm) for norm in (False, True))
    far = 1e4 * torch.randn(64, 5)
    assert plain(far).abs().max() > 100.0
    assert normed(far).abs().max() < 10.0


def test_the_critics_goal_is_the_lesser_of_the_targets_after_the_window() -> None:
    td3, batch, g = learner(target_noise=0.0), windows(), torch.Generator()
    batch["going_on"][0] = 0.0
    with torch.no_grad():
        x = td3.actor.normaliser(batch["next_obs"])
        repeated = torch.tanh(td3.target_actor(x)).repeat(1, 2)
        ahead = td3.targets(torch.cat((x, repeated), dim=1))
        expected = batch["rewards"] / 2.0 + 0.99**5 * batch["going_on"] * ahead.min(dim=0)[0]
        torch.testing.assert_close(td3.goal(batch, 2.0, g), expected)
        assert expected[0] == batch["rewards"][0] / 2.0
        actions = batch["actions"][:, 0]
        values = td3.critics(td3.inputs(td3.actor.normaliser(batch["obs"]), actions))
        loss = sum(((v - expected) ** 2).mean() for v in values)
    assert td3.learn(batch, 2.0, g)["value_loss"].item() == pytest.approx(loss.item(), rel=1e-5)


def test_target_noise_is_clipped_and_actions_stay_inside() -> None:
    td3 = learner(target_noise=50.0, target_clip=0.25)
    x = windows(64)["next_obs"]
    with torch.no_grad():
        quiet = torch.tanh(td3.target_actor(x))
        noisy = td3.following(x, torch.Generator().manual_seed(0))
    assert (noisy - quiet).abs().max().item() == pytest.approx(0.25, abs=1e-6)
    assert noisy.abs().max() <= 1.0


def test_the_actor_and_the_targets_move_every_second_step() -> None:
    td3, g = learner(), torch.Generator().manual_seed(0)
    seen = []
    for _ in range(4):
        td3.learn(windows(), 1.0, g)
        last = list(td3.actor.actor)[-1].weight.detach().clone()
        seen.append((last, next(td3.targets.parameters()).clone()))
    for i in (0, 1):
        assert torch.equal(seen[0][i], seen[1][i]) and torch.equal(seen[2][i], seen[3][i])
        assert not torch.equal(seen[1][i], seen[2][i])


def test_targets_move_by_the_target_rate() -> None:
    td3 = learner(target_rate=0.25, actor_every=1)
    before = [p.clone() for p in td3.targets.parameters()]
    td3.learn(windows(), 1.0, torch.Generator())
    for old, target, model in zip(
        before, td3.targets.parameters(), td3.critics.parameters(), strict=True
    ):
        torch.testing.assert_close(target, 0.75 * old + 0.25 * model)


def test_the_actor_climbs_the_first_critic_and_leaves_it_as_it_is() -> None:
    td3, g, batch = learner(), torch.Generator().manual_seed(0), windows(64)
    td3.optimisers["critics"].param_groups[0]["lr"] = 0.0
    critics = [p.clone() for p in td3.critics.parameters()]

    def value() -> float:
        with torch.no_grad():
            x = td3.actor.normaliser(batch["obs"])
            return td3.critics.first(td3.inputs(x, td3.actions(td3.actor.actor, x))).mean().item()

    before = value()
    for _ in range(40):
        td3.learn(batch, 1.0, g)
    assert value() > before
    assert all(torch.equal(a, b) for a, b in zip(critics, td3.critics.parameters(), strict=True))


def test_a_window_counts_its_discounted_rewards_and_ends_with_its_episode() -> None:
    class Block:
        obs = next_obs = np.zeros((1, 2, 3))
        actions = np.array([[[[0.5, 1.0]], [[-1.0, 0.0]]]])
        rewards = np.array([[[1.0, 2.0], [3.0, 4.0]]])
        terminated = np.array([[False, True]])

    memory = Memory(3, 3, (1, 2))
    memory.add(Block(), 0.5)
    np.testing.assert_allclose(memory.arrays["rewards"][:2], [2.0, 5.0])
    np.testing.assert_array_equal(memory.arrays["going_on"][:2], [1.0, 0.0])
    np.testing.assert_array_equal(memory.arrays["actions"][:2, 0], [[0.5, 1.0], [-1.0, 0.0]])
    memory.add(Block(), 0.5)
    assert memory.used == 3
    np.testing.assert_allclose(memory.arrays["rewards"], [5.0, 5.0, 2.0])


# NDP by TD3.


def segments(**changes: object) -> RunConfig:
    values = {
        "task": TOY,
        "method": "ndp-td3",
        "samples": 960,
        "hidden": (16, 16),
        "preset": "",
        "environments": 4,
        "workers": 1,
        "checkpoint_every": 1,
        "evaluation_episodes": 2,
        "reach": 1.5,
        "ppo": PpoConfig(batch_size=160),
        "td3": Td3Config(collect=80, warm_up=160, replay_batch=16, critic_hidden=(16,)),
    }
    return RunConfig(**{**values, **changes})


@pytest.mark.parametrize("curves", [1, 3])
def test_the_learners_actions_are_the_amounts_that_the_policy_runs(curves: int) -> None:
    config = segments(curves=curves, dmp=DmpConfig(forcing="free"))
    td3 = TwinDelayed(make_spec(config, config.choice.make()), config)
    obs = windows()["obs"]
    with torch.no_grad():
        actions = td3.actions(td3.actor.actor, td3.actor.normaliser(obs))
    acting = ArrayPolicy(td3.actor.spec, td3.actor.tensors())
    np.testing.assert_allclose(acting.decide(obs.numpy())[:, 0], actions, atol=1e-6)
    g, _ = acting.parameters_of(obs.numpy())
    y0 = obs.numpy()[:, field_slice(td3.actor.spec.observation, "setpoint")]
    unit = 1.5 * 5 * np.array(td3.actor.spec.action_scale)
    ends = (g - y0) * response(config.dmp, [1.0])[0, 0, 2]
    if curves == 1:
        np.testing.assert_allclose(ends, actions.numpy() * unit, atol=1e-6)


def test_no_executed_segment_leaves_the_box_and_all_of_it_is_explored() -> None:
    config = segments(environments=16)
    plan = Plan.of(config, make_spec(config, config.choice.make()), windows=20)
    tensors = initial_tensors(plan.spec, 0)
    tensors[LOG_STD][:] = math.log(UNIFORM)
    with Rollouts(plan) as rollouts:
        rollouts.publish(ArrayPolicy(plan.spec, tensors))
        rollouts.collect(0, fresh=True)
        block = rollouts.block
        moved = block.next_obs[..., :2] - block.obs[..., :2]
        amounts = block.actions[:, :, 0]
    assert np.abs(amounts).max() == 1.0
    assert (amounts.min(), amounts.max()) == (-1.0, 1.0)
    at_rest = np.abs(block.obs[..., 2:4]).max(axis=-1) == 0.0
    assert at_rest.any()
    # From rest the sampled amount is the displacement of the segment's end.
    unit = 1.5 * 5 * np.array(plan.spec.action_scale)
    np.testing.assert_allclose(moved[at_rest], (amounts * unit)[at_rest], atol=1e-5)


def test_a_method_that_leaves_no_choice_of_exploration_sets_it() -> None:
    config = segments(noise="action", squashed=False)
    assert (config.noise, config.squashed) == ("segment", True)


def test_ndp_by_td3_learns_the_toy_within_640_segments(tmp_path: Path) -> None:
    config = segments(
        samples=3200,
        checkpoint_every=10,
        evaluation_episodes=16,
        td3=Td3Config(
            collect=80, warm_up=800, replay_batch=64, critic_hidden=(64, 64), steps_per_window=2.0
        ),
    )
    last = train(config, tmp_path / "run", quiet=True)
    returns = [float(r["eval_return"]) for r in read_progress(tmp_path / "run") if r["eval_return"]]
    assert returns[-1] > -4.0  # -12 at rest: goals 0.3 off for two joints and twenty control steps
    saved = checkpoint.load(last)
    assert (saved.spec.method, saved.spec.squashed) == ("ndp", True)
    policy = load_policy(last)
    g, w = policy.parameters({f.name: [0.0] * f.size for f in saved.spec.observation})
    assert np.isfinite(g).all()
    assert not w.any()  # one curve is the goal's


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    def stop(row: dict[str, float]) -> None:
        if row["samples"] == 640:
            raise KeyboardInterrupt

    train(segments(), tmp_path / "whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        train(segments(), tmp_path / "cut", quiet=True, watch=stop)
    train(segments(), tmp_path / "cut", resume=True, quiet=True)
    curves = [
        [{n: v for n, v in r.items() if n not in TIME_COLUMNS} for r in read_progress(tmp_path / f)]
        for f in ("whole", "cut")
    ]
    assert curves[0] == curves[1]
    assert any(row["policy_loss"] for row in curves[0])
    a, b = (checkpoint.load(tmp_path / f / "checkpoints" / "last") for f in ("whole", "cut"))
    assert a.digest == b.digest
