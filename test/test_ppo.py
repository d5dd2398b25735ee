# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""PPO's terms against values computed by hand and against autograd."""

import math

import numpy as np
import pytest
import torch

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError
from ndp_ros.observation import arm_observation, observation_size
from ndp_ros.policies import KINDS, PolicySpec, initial_tensors, make_policy
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.training.config import PpoConfig, RunConfig
from ndp_ros.training.config import make_spec as make_run_spec
from ndp_ros.training.evaluation import planned
from ndp_ros.training.exploration import WindowNoise
from ndp_ros.training.ppo import (
    Adam,
    Batch,
    Learner,
    advantages,
    clip_norm,
    log_prob,
    losses,
    make_batch,
    segment_rewards,
)
from ndp_ros.training.statistics import Moments, RewardScale

DOF = 2


def one_sample(action: float, mean: float, advantage: float, old_log_prob: float) -> Batch:
    """One window of one action of one joint, sigma 1, value 0, target 1."""
    return Batch(
        x=np.zeros((1, 1)),
        actions=np.full((1, 1, 1), action),
        log_prob=np.full((1, 1), old_log_prob),
        values=np.zeros((1, 1)),
        returns=np.ones((1, 1)),
        advantages=np.full((1, 1), advantage),
        means=np.zeros((1, 1, 1)),
    )


def log_normal(z: float) -> float:
    return -0.5 * z * z - 0.5 * math.log(2.0 * math.pi)


@pytest.mark.parametrize(
    ("advantage", "old_z", "policy", "slope"),
    [
        # r = exp(-1/8 + 1/8) = 1: inside the clip; d(-r A)/d mean = -A r z
        (2.0, 0.5, -2.0, -1.0),
        # r = exp(-1/8 + 1/2) = 1.455 > 1.2, A > 0: clipped, no gradient
        (1.0, 1.0, -1.2, 0.0),
        # the same ratio, A < 0: the worse, unclipped branch counts
        (-1.0, 1.0, math.exp(0.375), 0.5 * math.exp(0.375)),
        # r = exp(-1/8) = 0.882 > 0.8, old z = 0: inside
        (1.0, 0.0, -math.exp(-0.125), -0.5 * math.exp(-0.125)),
    ],
)
def test_the_clipped_objective_by_hand(
    advantage: float, old_z: float, policy: float, slope: float
) -> None:
    batch = one_sample(0.5, 0.0, advantage, log_normal(old_z))
    config = PpoConfig(clip=0.2)
    terms = losses(batch, np.zeros((1, 1, 1)), np.zeros(1), np.zeros((1, 1)), config)
    assert terms.policy_loss == pytest.approx(policy)
    assert terms.d_means.item() == pytest.approx(slope)
    assert terms.d_log_std[0] == pytest.approx(slope * (0.25 - 1.0) / 0.5)


@pytest.mark.parametrize(
    ("value", "loss", "slope"),
    [
        (0.1, 0.5 * 0.81, -0.9),  # moved by less than the clip
        (0.5, 0.5 * 0.64, 0.0),  # moved beyond the clip towards the target: clipped, no gradient
        (-0.5, 0.5 * 2.25, -1.5),  # moved away: the worse, unclipped error counts
    ],
)
def test_the_clipped_value_loss_by_hand(value: float, loss: float, slope: float) -> None:
    batch = one_sample(0.0, 0.0, 0.0, log_normal(0.0))
    values = np.full((1, 1), value)
    terms = losses(batch, np.zeros((1, 1, 1)), np.zeros(1), values, PpoConfig(clip=0.2))
    assert terms.value_loss == pytest.approx(loss)
    assert terms.d_values.item() == pytest.approx(0.5 * slope)


def test_entropy_is_that_of_the_gaussian() -> None:
    log_std = np.array([0.3])
    batch = one_sample(0.0, 0.0, 0.0, log_normal(0.0))
    config = PpoConfig(entropy=0.01)
    terms = losses(batch, np.zeros((1, 1, 1)), log_std, np.zeros((1, 1)), config)
    expected = torch.distributions.Normal(0.0, math.exp(0.3)).entropy().item()
    assert terms.entropy == pytest.approx(expected)
    assert terms.d_log_std[0] == pytest.approx(-0.01)


def test_the_kl_is_that_of_the_gaussians() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(2, 3, DOF, 5))
    before, after = np.array([0.1, -0.3]), np.array([-0.2, 0.2])
    ones = np.ones((3, 5))
    batch = Batch(np.zeros((1, 5)), new, ones, ones, ones, ones, old)
    terms = losses(batch, new, after, np.zeros((3, 5)), PpoConfig(), before)
    expected = torch.distributions.kl_divergence(
        *(
            torch.distributions.Normal(torch.from_numpy(m), torch.from_numpy(np.exp(s))[:, None])
            for m, s in ((old, before), (new, after))
        )
    )
    assert terms.kl == pytest.approx(expected.sum(1).mean().item())


def test_a_segment_as_one_decision_has_the_discounted_return_of_its_steps() -> None:
    gamma, k, windows = 0.9, 4, 3
    rewards = np.random.default_rng(0).normal(size=(windows, 1, k))
    none, never = np.zeros((windows, 1)), np.zeros((windows, 1), bool)
    ended = np.array([[False], [False], [True]])
    got = advantages(
        segment_rewards(rewards, gamma), none[..., None], none, ended, never, gamma**k, 1.0
    )
    every = rewards.ravel()
    for t in range(windows):
        later = every[t * k :]
        assert got[t, 0, 0] == pytest.approx(later @ gamma ** np.arange(len(later)))


@pytest.mark.parametrize("curves", [1, 2])
def test_the_gradient_of_segment_noise_is_that_of_the_expected_return(curves: int) -> None:
    # By brute force: the return of a one-segment episode, integrated over the amounts.
    config = RunConfig(
        task="toy_task:Toy-v0",
        task_options=("windows=1",),
        preset="",
        hidden=(5,),
        k=3,
        noise="segment",
        curves=curves,
        dmp=SEGMENT["dmp"],
        init_log_std=-0.5,
        reach=0.1,
    )
    env = config.choice.make()
    spec = make_run_spec(config, env)
    tensors = {n: np.float64(a) for n, a in initial_tensors(spec, 0).items()}
    gamma, h = 0.9, 1e-4

    def returns(policy: ArrayPolicy, amounts: np.ndarray) -> np.ndarray:
        found = []
        for one in amounts:
            obs = env.reset(seed=1)[0][None]
            step = env.execute(planned(policy, [env], obs, one[None])[0])
            found.append(segment_rewards(step[4]["rewards"], gamma).item())
        return np.array(found)

    z, share = np.polynomial.hermite_e.hermegauss(3)
    size = spec.decision[1]
    nodes = np.stack(np.meshgrid(*[z] * size, indexing="ij"), -1).reshape(-1, 1, size)
    weights = np.prod(np.stack(np.meshgrid(*[share] * size, indexing="ij"), -1), -1).ravel()
    weights /= weights.sum()
    obs = env.reset(seed=1)[0][None]

    def expected(bias: np.ndarray) -> float:
        policy = ArrayPolicy(spec, tensors | {"actor.1.bias": bias}, dtype=np.float64)
        amounts = policy.decide(obs) + nodes * policy.std
        return float(weights @ returns(policy, amounts))

    policy = ArrayPolicy(spec, tensors, dtype=np.float64)
    n = len(nodes)
    rollout = np.repeat(obs, n, axis=0)
    amounts = policy.decide(rollout) + nodes * policy.std
    gains = n * weights * returns(policy, amounts)
    step = policy.run(n)
    means, values = step.forward(policy.normalise(rollout))
    actions = np.ascontiguousarray(amounts.transpose(1, 2, 0))
    log_std = policy.parameters["log_std"]
    batch = Batch(
        policy.normalise(rollout),
        actions,
        log_prob(actions, means, log_std),
        values,
        values,
        gains[None],
        means.copy(),
    )
    terms = losses(batch, means, log_std, values, PpoConfig())
    step.backward(terms.d_means, terms.d_values)
    for i, slope in enumerate(step.slopes["actor.1.bias"]):
        change = h * np.eye(size)[i]
        bias = tensors["actor.1.bias"]
        by_hand = (expected(bias + change) - expected(bias - change)) / (2.0 * h)
        assert -slope == pytest.approx(by_hand, rel=1e-6, abs=1e-8)


def test_gae_by_hand_inside_and_across_windows() -> None:
    gamma, lam = 0.5, 0.25
    rewards = np.array([[[1.0, 2.0]], [[3.0, 4.0]]])
    values = np.array([[[10.0, 20.0]], [[30.0, 40.0]]])
    following, never = np.array([[30.0], [50.0]]), np.zeros((2, 1), bool)
    got = advantages(rewards, values, following, never, never, gamma, lam)
    d4 = 4.0 + 0.5 * 50.0 - 40.0
    d3 = 3.0 + 0.5 * 40.0 - 30.0
    d2 = 2.0 + 0.5 * 30.0 - 20.0
    d1 = 1.0 + 0.5 * 20.0 - 10.0
    a4 = d4
    a3 = d3 + 0.125 * a4
    a2 = d2 + 0.125 * a3
    a1 = d1 + 0.125 * a2
    np.testing.assert_allclose(got.ravel(), [a1, a2, a3, a4])


def test_gae_stops_at_an_end_and_bootstraps_only_a_cut_episode() -> None:
    rewards, values = np.ones((2, 2, 1)), np.full((2, 2, 1), 5.0)
    following = np.full((2, 2), 7.0)
    ended = np.array([[True, True], [False, False]])
    terminated = np.array([[True, False], [False, False]])
    got = advantages(rewards, values, following, terminated, ended, 0.9, 0.5)
    assert got[0, 0, 0] == pytest.approx(1.0 - 5.0)
    assert got[0, 1, 0] == pytest.approx(1.0 + 0.9 * 7.0 - 5.0)


SEGMENT = {"noise": "segment", "curves": 2, "dmp": DmpConfig(n_basis=3, forcing="free")}
WAYS = [*((method, {}) for method in KINDS), ("ndp", SEGMENT)]


def make_spec(method: str, heads: str = "multi", **changes: object) -> PolicySpec:
    return PolicySpec(
        method=method,
        task="toy",
        arm="toy",
        joint_names=("a", "b"),
        observation=arm_observation(DOF, []),
        control_dt=0.05,
        k=1 if method == "ppo" else 3,
        action_scale=(0.05, 0.1),
        hidden=(6, 5),
        critic_heads=heads,
        **changes,
    )


def random_rollout(spec: PolicySpec, seed: int = 0) -> tuple[ArrayPolicy, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    tensors = initial_tensors(spec, seed)
    tensors = {n: rng.uniform(-0.5, 0.5, a.shape) for n, a in tensors.items()}
    tensors["normaliser.variance"] = np.abs(tensors["normaliser.variance"]) + 0.3
    policy = ArrayPolicy(spec, tensors, dtype=np.float64)
    T, E = 3, 2
    rollout = {
        "obs": rng.normal(size=(T, E, observation_size(spec.observation))),
        "actions": rng.normal(size=(T, E, *spec.decision)),
        "rewards": rng.normal(size=(T, E, spec.decision[0])),
        "values": rng.normal(size=(T, E, spec.decision[0])),
        "following": rng.normal(size=(T, E)),
        "terminated": np.zeros((T, E), bool),
        "ended": np.zeros((T, E), bool),
    }
    return policy, rollout


@pytest.mark.parametrize("correlation", [0.0, 0.7])
@pytest.mark.parametrize("heads", ["multi", "single"])
@pytest.mark.parametrize(("method", "changes"), WAYS)
def test_the_whole_gradient_equals_autograd_of_the_written_loss(
    method: str, changes: dict, heads: str, correlation: float
) -> None:
    spec = make_spec(method, heads, **changes)
    config = PpoConfig(entropy=0.02, clip=0.3, noise_correlation=correlation)
    policy, rollout = random_rollout(spec)
    batch = make_batch(policy, **rollout, config=config)
    batch.log_prob += np.random.default_rng(1).normal(0.0, 0.3, batch.log_prob.shape)
    step = policy.run(batch.windows)
    noise = WindowNoise(spec.decision[0], correlation, policy.dtype)
    means, values = step.forward(batch.x)
    terms = losses(batch, noise.whiten(means), policy.parameters["log_std"], values, config)
    step.backward(noise.pull_back(terms.d_means), terms.d_values)
    step.slopes["log_std"][:] = terms.d_log_std

    twin = make_policy(spec).double()
    twin.scale = torch.tensor(spec.action_scale, dtype=torch.float64)
    twin.load_tensors(policy.tensors())
    obs = torch.from_numpy(rollout["obs"].reshape(-1, rollout["obs"].shape[-1]))
    actions = torch.from_numpy(rollout["actions"].reshape(-1, *spec.decision))
    old, target, gain, old_values = (
        torch.from_numpy(a.T.copy())
        for a in (batch.log_prob, batch.returns, batch.advantages, batch.values)
    )
    errors = actions - twin.decide(obs)
    ahead = errors[:, 1:] - correlation * errors[:, :-1]
    drawn = torch.cat([errors[:, :1], ahead / math.sqrt(1.0 - correlation**2)], dim=1)
    density = torch.distributions.Normal(0.0, twin.log_std.exp()).log_prob(drawn).sum(-1)
    ratio = torch.exp(density - old)
    clipped = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
    surrogate = -torch.minimum(ratio * gain, clipped * gain).mean()
    v = twin.values(obs)
    near = old_values + (v - old_values).clamp(-config.clip, config.clip)
    value_loss = 0.5 * torch.maximum((v - target) ** 2, (near - target) ** 2).mean()
    entropy = torch.distributions.Normal(0.0, twin.log_std.exp()).entropy().sum()
    loss = surrogate + config.value * value_loss - config.entropy * entropy
    loss.backward()
    assert terms.policy_loss == pytest.approx(surrogate.item(), rel=1e-6)
    assert terms.value_loss == pytest.approx(value_loss.item(), rel=1e-6)
    assert terms.entropy == pytest.approx(entropy.item(), rel=1e-6)
    for name, parameter in twin.named_parameters():
        np.testing.assert_allclose(
            step.slopes[name], parameter.grad, rtol=1e-5, atol=1e-8, err_msg=name
        )


@pytest.mark.parametrize("changes", [{}, SEGMENT])
def test_a_batch_holds_the_log_probabilities_of_the_acting_policy(changes: dict) -> None:
    spec = make_spec("ndp", **changes)
    policy, rollout = random_rollout(spec)
    batch = make_batch(policy, **rollout, config=PpoConfig())
    twin = make_policy(spec).double()
    twin.scale = torch.tensor(spec.action_scale, dtype=torch.float64)
    twin.load_tensors(policy.tensors())
    obs = torch.from_numpy(rollout["obs"].reshape(-1, rollout["obs"].shape[-1]))
    actions = torch.from_numpy(rollout["actions"].reshape(-1, *spec.decision))
    expected = twin.log_prob(obs, actions).detach().numpy().T
    np.testing.assert_allclose(batch.log_prob, expected, rtol=1e-6)
    assert batch.advantages.mean() == pytest.approx(0.0, abs=1e-12)
    assert batch.advantages.std() == pytest.approx(1.0)


def test_log_prob_peaks_at_the_mean() -> None:
    means = np.zeros((1, DOF, 1))
    assert log_prob(means, means, np.zeros(DOF)).item() == pytest.approx(
        -0.5 * DOF * math.log(2 * math.pi)
    )


@pytest.mark.parametrize(("method", "changes"), WAYS)
def test_an_update_makes_good_actions_likelier(method: str, changes: dict) -> None:
    spec = make_spec(method, **changes)
    policy, rollout = random_rollout(spec)
    config = PpoConfig(minibatches=2, epochs=3, learning_rate=1e-3)
    batch = make_batch(policy, **rollout, config=config)
    figures = Learner(policy, config).update(batch, np.random.default_rng(0), 0.0)
    after = log_prob(batch.actions, policy.run(6).actor(batch.x), policy.parameters["log_std"])
    assert ((after - batch.log_prob) * batch.advantages).mean() > 0.0
    assert all(math.isfinite(v) for v in figures.values())


def test_the_linear_schedule_ends_at_zero() -> None:
    spec = make_spec("ppo")
    policy, rollout = random_rollout(spec)
    config = PpoConfig(minibatches=1, epochs=1, schedule="linear")
    batch = make_batch(policy, **rollout, config=config)
    before = policy.flat.copy()
    Learner(policy, config).update(batch, np.random.default_rng(0), 1.0)
    np.testing.assert_array_equal(policy.flat, before)


def test_an_update_that_goes_too_far_ends_early() -> None:
    spec = make_spec("ndp")
    policy, rollout = random_rollout(spec)
    config = PpoConfig(minibatches=2, epochs=9, learning_rate=1e-2, target_kl=1e-3)
    batch = make_batch(policy, **rollout, config=config)
    figures = Learner(policy, config).update(batch, np.random.default_rng(0), 0.0)
    assert 1 <= figures["epochs"] < 9


@pytest.mark.parametrize(("start", "change"), [(3e-2, -1), (1e-6, 1)])
def test_the_adaptive_step_size_moves_towards_the_target(start: float, change: int) -> None:
    spec = make_spec("ndp")
    policy, rollout = random_rollout(spec)
    config = PpoConfig(
        minibatches=2, epochs=3, learning_rate=start, schedule="adaptive", target_kl=1e-3
    )
    learner = Learner(policy, config)
    batch = make_batch(policy, **rollout, config=config)
    figures = learner.update(batch, np.random.default_rng(0), 0.0)
    assert np.sign(learner.rate - start) == change
    assert figures["epochs"] == 3


def test_an_adaptive_step_size_needs_a_target() -> None:
    with pytest.raises(ConfigError, match="target_kl"):
        PpoConfig(schedule="adaptive")


def test_adam_equals_torch() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=20)
    twin = torch.nn.Parameter(torch.from_numpy(flat.copy()))
    adam, reference = Adam(20, np.float64), torch.optim.Adam([twin], lr=1e-2, eps=1e-5)
    for _ in range(5):
        gradient = rng.normal(size=20)
        twin.grad = torch.from_numpy(gradient.copy())
        reference.step()
        adam.step(flat, gradient, 1e-2)
    np.testing.assert_allclose(flat, twin.detach(), rtol=1e-12)


def test_clip_norm_only_shortens() -> None:
    long, short = np.array([3.0, 4.0]), np.array([0.03, 0.04])
    assert clip_norm(long, 0.5) == pytest.approx(5.0)
    assert np.linalg.norm(long) == pytest.approx(0.5, rel=1e-5)
    assert clip_norm(short, 0.5) == pytest.approx(0.05)
    np.testing.assert_array_equal(short, [0.03, 0.04])


def test_moments_merged_in_batches_are_those_of_everything() -> None:
    data = np.random.default_rng(0).normal(3.0, 2.0, (100, 4))
    moments = Moments(4)
    for part in np.array_split(data, 7):
        moments.update(part)
    np.testing.assert_allclose(moments.mean, data.mean(0))
    np.testing.assert_allclose(moments.variance, data.var(0))


def test_rewards_are_scaled_by_the_deviation_of_the_discounted_return() -> None:
    rewards = np.random.default_rng(0).normal(size=(4, 1, 2))
    ended = np.array([[False], [True], [False], [False]])
    trace, returns = 0.0, []
    for t in range(4):
        for i in range(2):
            trace = 0.9 * trace + rewards[t, 0, i]
            returns.append(trace)
        if ended[t, 0]:
            trace = 0.0
    scaled = RewardScale(1, 0.9)(rewards, ended)
    np.testing.assert_allclose(scaled, rewards / np.std(returns), rtol=1e-6)


def test_tasks_with_a_scale_each_are_scaled_as_if_each_were_learnt_by_itself() -> None:
    rng = np.random.default_rng(0)
    ended = rng.random((40, 4)) < 0.2
    task = np.broadcast_to([0, 1, 1, 0], ended.shape)
    rewards = rng.normal(size=(40, 4, 5)) * np.array([1e-2, 1e2])[task][..., None]
    together = RewardScale(4, 0.9, tasks=3)
    for part in (slice(0, 20), slice(20, 40)):
        scaled = together(rewards[part], ended[part], task[part])
    for number, mine in ((0, [0, 3]), (1, [1, 2])):
        by_itself = RewardScale(2, 0.9)
        for part in (slice(0, 20), slice(20, 40)):
            expected = by_itself(rewards[part][:, mine], ended[part][:, mine])
        np.testing.assert_allclose(together.scales[number], by_itself.scales[0], rtol=1e-12)
        np.testing.assert_allclose(scaled[:, mine], expected, rtol=1e-12)
    assert together.scales[1] / together.scales[0] == pytest.approx(1e4, rel=0.2)
    assert together.scales[2] == pytest.approx(1.0)  # a task that nobody has seen yet
    again = RewardScale(4, 0.9, tasks=3)
    again.restore(together.state())
    np.testing.assert_array_equal(again(rewards, ended, task), together(rewards, ended, task))


def test_a_scale_of_each_task_is_for_ppo() -> None:
    with pytest.raises(ConfigError, match="scale_by is 'task', which dyn-e does not use"):
        RunConfig(method="dyn-e", ppo=PpoConfig(scale_by="task"))
