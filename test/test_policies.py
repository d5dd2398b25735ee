# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The torch policies and the numpy policies are one policy, gradients included."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.layer import DmpLayer
from ndp_ros.errors import ConfigError
from ndp_ros.observation import (
    ObservationField,
    arm_observation,
    field_slice,
    observation_size,
)
from ndp_ros.policies import KINDS, PolicySpec, initial_tensors, make_policy
from ndp_ros.policies.array_policy import ArrayPolicy

BATCH = 4
DOF = 3


def make_spec(method: str = "ndp", **changes: object) -> PolicySpec:
    values = {
        "method": method,
        "task": "throw",
        "arm": "jaco",
        "joint_names": tuple("abc"),
        "observation": arm_observation(DOF, ["cube"]),
        "control_dt": 0.05,
        "k": 1 if method == "ppo" else 5,
        "action_scale": (0.05, 0.07, 0.15),
        "hidden": (9, 8),
    }
    return PolicySpec(**{**values, **changes})


def awkward_tensors(spec: PolicySpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Parameters with no zeros and no small gains, so that every term counts."""
    rng = np.random.default_rng(seed)
    tensors = initial_tensors(spec, seed)
    for name in tensors:
        tensors[name] = rng.uniform(-0.7, 0.7, tensors[name].shape)
    tensors["normaliser.variance"] = rng.uniform(0.1, 2.0, tensors["normaliser.variance"].shape)
    return tensors


def observations(spec: PolicySpec, batch: int = BATCH, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, observation_size(spec.observation)))


def torch_twin(spec: PolicySpec, tensors: dict[str, np.ndarray]) -> torch.nn.Module:
    policy = make_policy(spec).double()
    policy.load_tensors(tensors)
    return policy


SPECS = [make_spec(method, critic_heads=heads) for method in KINDS for heads in ("multi", "single")]
SPECS.append(make_spec(dmp=DmpConfig(solver="euler", m=20, n_basis=4)))
SPECS.append(make_spec(dmp=DmpConfig.preset("paper")))
ABLATIONS = [
    make_spec(weights="whitened", weight_gain=1.0, dmp=DmpConfig(n_basis=10)),
    make_spec(learned_alpha=True),
    make_spec(learned_alpha=True, weights="whitened", dmp=DmpConfig(solver="euler")),
]
SPECS += ABLATIONS
FREE = DmpConfig(n_basis=4, forcing="free")
SPECS += [
    make_spec(dmp=FREE),
    make_spec(dmp=FREE, weights="whitened", weight_gain=0.2),
    make_spec(dmp=FREE, learned_alpha=True),
]
SEGMENTS = [
    make_spec(noise="segment"),
    make_spec(noise="segment", curves=3, dmp=FREE, critic_heads="single"),
    make_spec(noise="segment", curves=2, dmp=FREE, squashed=True),
]
SPECS += SEGMENTS
PIXELS = [
    ObservationField("camera", 2 * 9 * 8, (2, 9, 8)),
    ObservationField("depth", 64, (1, 8, 8)),
]
SEEING = [
    make_spec(method, observation=(*fields[:2], PIXELS[0], *fields[2:], PIXELS[1]), **changes)
    for fields in [arm_observation(DOF, ["cube"])]
    for method, changes in (("ndp", {}), ("ppo-multi", {}), ("ndp", {"learned_alpha": True}))
]
SPECS += SEEING


@pytest.fixture(
    params=SPECS,
    ids=lambda s: (
        f"{s.method}-{s.critic_heads}-{s.dmp.solver}-{s.dmp.forcing}-{s.weights}-{s.noise}"
        f"-{len(s.observation)}"
    ),
)
def spec(request: pytest.FixtureRequest) -> PolicySpec:
    return request.param


def test_numpy_and_torch_compute_the_same_means_and_values(spec: PolicySpec) -> None:
    tensors, obs = awkward_tensors(spec), observations(spec)
    arrays = ArrayPolicy(spec, tensors, dtype=np.float64)
    twin = torch_twin(spec, tensors)
    x = torch.from_numpy(obs)
    np.testing.assert_allclose(arrays.means(obs), twin.means(x).detach(), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(arrays.values(obs), twin.values(x).detach(), rtol=1e-9)
    np.testing.assert_allclose(arrays.decide(obs), twin.decide(x).detach(), rtol=1e-6, atol=1e-7)
    assert arrays.means(obs).shape == (BATCH, spec.k, DOF)
    assert arrays.decide(obs).shape == (BATCH, *spec.decision)
    assert arrays.values(obs).shape == (BATCH, spec.decision[0])


def test_hand_written_gradients_equal_autograd(spec: PolicySpec) -> None:
    tensors, obs = awkward_tensors(spec), observations(spec)
    arrays = ArrayPolicy(spec, tensors, dtype=np.float64)
    step = arrays.run(BATCH)
    means, values = step.forward(arrays.normalise(obs))
    rng = np.random.default_rng(8)
    d_means, d_values = rng.normal(size=means.shape), rng.normal(size=values.shape)
    gradient = arrays.layout.views(step.backward(d_means, d_values))

    twin = torch_twin(spec, tensors)
    x = torch.from_numpy(obs)
    loss = (twin.decide(x) * torch.from_numpy(d_means.transpose(2, 0, 1).copy())).sum()
    heads = twin.values(x)[:, : len(d_values)]
    loss = loss + (heads * torch.from_numpy(d_values.T.copy())).sum()
    loss.backward()
    for name, parameter in twin.named_parameters():
        if name != "log_std":
            np.testing.assert_allclose(
                gradient[name], parameter.grad, rtol=2e-6, atol=1e-7, err_msg=name
            )


@pytest.mark.parametrize(
    ("method", "changes"),
    [*((method, {}) for method in KINDS), ("ndp", {"noise": "segment", "curves": 2, "dmp": FREE})],
)
def test_log_probability_gradient_equals_finite_differences(method: str, changes: dict) -> None:
    spec = make_spec(method, hidden=(4, 3), **changes)
    policy = torch_twin(spec, awkward_tensors(spec))
    obs = torch.from_numpy(observations(spec, 2))
    actions = torch.from_numpy(np.random.default_rng(1).normal(size=(2, *spec.decision)))
    policy.log_prob(obs, actions).sum().backward()
    step = 1e-5
    for name, parameter in policy.named_parameters():
        if name.startswith("critic"):
            continue
        flat, grad = parameter.data.view(-1), parameter.grad.view(-1)
        for i in range(0, len(flat), max(1, len(flat) // 7)):
            kept, ends = flat[i].item(), []
            for sign in (1.0, -1.0):
                flat[i] = kept + sign * step
                ends.append(policy.log_prob(obs, actions).sum().item())
            flat[i] = kept
            slope = (ends[0] - ends[1]) / (2.0 * step)
            assert grad[i].item() == pytest.approx(slope, rel=2e-5, abs=2e-5), (name, i)


def test_log_probability_is_that_of_independent_normals() -> None:
    spec = make_spec("ppo-multi")
    policy = torch_twin(spec, awkward_tensors(spec))
    obs = torch.from_numpy(observations(spec))
    normal = torch.distributions.Normal(policy.means(obs), policy.log_std.exp())
    torch.manual_seed(0)
    actions = normal.sample()
    torch.testing.assert_close(policy.log_prob(obs, actions), normal.log_prob(actions).sum(-1))


@pytest.mark.parametrize("spec", [make_spec(), *ABLATIONS[:2], make_spec(dmp=FREE), *SEGMENTS])
def test_ndp_actions_add_up_to_the_trajectory(spec: PolicySpec) -> None:
    from ndp_ros.dmp.segment import Segment

    arrays = ArrayPolicy(spec, awkward_tensors(spec), dtype=np.float64)
    obs = observations(spec, 1)
    g, w = arrays.parameters_of(obs)
    y0 = obs[0, field_slice(spec.observation, "setpoint")]
    yd0 = obs[0, field_slice(spec.observation, "setpoint_velocity")]
    ends = spec.control_dt * np.arange(1, spec.k + 1)
    (dmp,) = arrays.systems_of(obs)
    assert (dmp != spec.dmp) == spec.learned_alpha
    y = Segment(dmp, g[0], w[0], spec.segment_duration).bind(y0, yd0).setpoints(ends)[:, 0]
    travelled = np.cumsum(arrays.means(obs)[0] * np.array(spec.action_scale), axis=0)
    np.testing.assert_allclose(y0 + travelled, y, rtol=1e-9)


def test_a_learned_alpha_starts_from_the_given_one_and_stays_out_of_a_running_system() -> None:
    spec = make_spec(learned_alpha=True, dmp=DmpConfig(alpha=5.0))
    obs = observations(spec)
    policy = ArrayPolicy(spec, initial_tensors(spec, 0))
    assert [s.alpha for s in policy.systems_of(obs)] == pytest.approx([5.0] * BATCH, rel=0.1)
    with pytest.raises(ConfigError, match="learned its alpha"):
        make_policy(spec).parameters_of(torch.from_numpy(obs).float())
    with pytest.raises(ConfigError, match="inside"):
        make_spec(learned_alpha=True, dmp=DmpConfig(alpha=50.0))


@pytest.mark.parametrize("spec", [make_spec(), ABLATIONS[0], make_spec(dmp=FREE), *SEGMENTS])
def test_numpy_and_torch_yield_the_same_dmp_parameters(spec: PolicySpec) -> None:
    tensors, obs = awkward_tensors(spec), observations(spec)
    g, w = ArrayPolicy(spec, tensors, dtype=np.float64).parameters_of(obs)
    g_t, w_t = torch_twin(spec, tensors).parameters_of(torch.from_numpy(obs))
    assert g.shape == (BATCH, DOF)
    assert w.shape == (BATCH, DOF, spec.dmp.n_basis)
    np.testing.assert_allclose(g, g_t.detach(), rtol=1e-9)
    np.testing.assert_allclose(w, w_t.detach(), rtol=1e-9)


def test_given_amounts_take_the_place_of_the_mean_ones() -> None:
    spec = SEGMENTS[1]
    arrays, obs = ArrayPolicy(spec, awkward_tensors(spec), dtype=np.float64), observations(spec)
    for mine, own in zip(
        arrays.parameters_of(obs, arrays.decide(obs)), arrays.parameters_of(obs), strict=True
    ):
        np.testing.assert_array_equal(mine, own)
    one = np.zeros((BATCH, *spec.decision))
    one[:, 0, 1] = 1.0  # of the goal's curve, second joint: k actions of the reach
    g, w = arrays.parameters_of(obs, one)
    policy_with = DmpLayer(spec.dmp, spec.k)
    y0 = torch.from_numpy(obs[:, field_slice(spec.observation, "setpoint")])
    y = policy_with(y0, torch.zeros_like(y0), torch.from_numpy(g), torch.from_numpy(w))
    end = spec.reach * spec.k * spec.action_scale[1]
    np.testing.assert_allclose((y[:, -1] - y0)[:, :3], [[0.0, end, 0.0]] * BATCH, atol=1e-9)


def test_an_untrained_ndp_holds_still() -> None:
    spec = make_spec()
    obs = observations(spec)
    obs[:, field_slice(spec.observation, "setpoint_velocity")] = 0.0
    arrays = ArrayPolicy(spec, initial_tensors(spec, 0))
    assert np.abs(arrays.means(obs)).max() < 0.3


def test_initial_weights_follow_the_seed_and_are_orthogonal() -> None:
    spec = make_spec()
    first, again, other = (initial_tensors(spec, s)["actor.1.weight"] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_allclose(first @ first.T, 2.0 * np.eye(8), atol=1e-5)


def test_the_normaliser_clips_and_survives_a_constant_input() -> None:
    spec = make_spec("ppo")
    tensors = initial_tensors(spec, 0)
    tensors["normaliser.variance"][0] = 0.0
    arrays = ArrayPolicy(spec, tensors)
    obs = np.zeros((1, observation_size(spec.observation)))
    obs[0, :2] = 1.0, -500.0
    np.testing.assert_allclose(arrays.normalise(obs)[:2, 0], [10.0, -10.0])


def test_writing_to_the_flat_vector_changes_the_policy() -> None:
    spec = make_spec()
    arrays = ArrayPolicy(spec, initial_tensors(spec, 0))
    before = arrays.means(observations(spec))
    arrays.flat += 0.1
    assert np.abs(arrays.means(observations(spec)) - before).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "ppo", "k": 5}, "ppo-multi"),
        ({"action_scale": (0.1, 0.1)}, "2 values for 3 joints"),
        ({"action_scale": (0.1, 0.0, 0.1)}, "positive"),
        ({"action_scale": (0.1, 300.0, 0.1)}, "at most 10 rad"),
        ({"observation": arm_observation(2, [])}, "setpoint has 2 values for 3 joints"),
    ],
)
def test_a_specification_that_cannot_be_is_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_spec(**changes)


def test_the_array_policy_needs_no_torch() -> None:
    code = "import sys, ndp_ros.policies.array_policy; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
