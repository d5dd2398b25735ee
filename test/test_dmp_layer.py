# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The torch layer: the same trajectories as the recursion, and the right gradients."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from ndp_ros.dmp.basis import normalised_kernels
from ndp_ros.dmp.config import FORCINGS, KERNELS, DmpConfig
from ndp_ros.dmp.layer import DmpLayer
from ndp_ros.dmp.learned_alpha import ALPHA_RANGE
from ndp_ros.dmp.segment import Segment
from ndp_ros.errors import ConfigError

PRESETS = ("default", "paper", "released")
SYSTEMS = [*map(DmpConfig.preset, PRESETS), DmpConfig(forcing="free")]
FEW, MANY = 5, 40  # rows on either side of the change of memory layout


def inputs(config, batch=3, dof=2, dtype=torch.float64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    y0, yd0, g = (torch.randn(batch, dof, generator=rng, dtype=dtype) for _ in range(3))
    w = 20 * torch.randn(batch, dof, config.n_basis, generator=rng, dtype=dtype)
    return tuple(x.requires_grad_() for x in (y0, yd0, g, w))


def unroll(config, y0, yd0, g, w):
    """The m-step recursion in torch, every step recorded by autograd; y (batch, m, dof)."""
    dt, y, yd, x, ys = 1 / config.m, y0, yd0, 1.0, []
    for _ in range(config.m):
        x -= config.a_x * x * dt
        psi = torch.from_numpy(normalised_kernels(config, np.array([x]))[0])
        f = x * (w @ psi) * (g - y0)
        ydd = config.alpha * (config.beta * (g - y) - yd) + f
        y, yd = y + yd * dt, yd + ydd * dt
        ys.append(y)
    return torch.stack(ys, 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_layer_and_its_gradients_equal_the_unrolled_recursion(kernel):
    config = replace(DmpConfig.preset("released"), kernel=kernel)
    leaves = inputs(config)
    closed, unrolled = DmpLayer(config, k=config.m)(*leaves), unroll(config, *leaves)
    assert torch.allclose(closed, unrolled, rtol=1e-11, atol=1e-11)
    cotangent = torch.randn(closed.shape, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(closed, leaves, cotangent),
        torch.autograd.grad(unrolled, leaves, cotangent),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("config", SYSTEMS, ids=[*PRESETS, "free"])
@pytest.mark.parametrize("k", [FEW, MANY])
def test_gradients_equal_finite_differences(config, k):
    assert torch.autograd.gradcheck(DmpLayer(config, k), inputs(config))


@pytest.mark.parametrize("n_times", [3, 20])
def test_gradients_of_velocity_and_acceleration_equal_finite_differences(n_times):
    layer, times = DmpLayer(DmpConfig(), FEW), np.linspace(0, 1.5, n_times)
    assert torch.autograd.gradcheck(
        lambda *args: torch.cat(layer.rollout(*args, times)), inputs(layer.config)
    )


@pytest.mark.parametrize("forcing", FORCINGS)
@pytest.mark.parametrize("wanted", range(4))
def test_gradient_of_one_input_alone_equals_that_among_all(wanted, forcing):
    layer = DmpLayer(DmpConfig(forcing=forcing), FEW)
    leaves = inputs(layer.config)
    expected = torch.autograd.grad(layer(*leaves).square().sum(), leaves)[wanted]
    alone = [x.detach().requires_grad_(i == wanted) for i, x in enumerate(leaves)]
    (gradient,) = torch.autograd.grad(layer(*alone).square().sum(), [alone[wanted]])
    assert torch.equal(gradient, expected)


def test_weight_gradient_equals_recursion_23():
    # W_t = W_{t-1} + (Wd_{t-2} + (alpha (beta (-W_{t-2}) - Wd_{t-2})
    #       + psi_i / sum_j psi_j (g - y0) x_{t-1}) dt) dt,  W_0 = W_1 = Wd_0 = 0
    config = DmpConfig.preset("released")
    y0, yd0, g, w = inputs(config, batch=1, dof=1)
    alpha, beta, dt, m = config.alpha, config.beta, 1 / config.m, config.m
    x = (1 - config.a_x * dt) ** np.arange(m + 1)
    psi, s = normalised_kernels(config, x), (g - y0).item()
    W, Wd = np.zeros((m + 1, config.n_basis)), np.zeros((m + 1, config.n_basis))
    for t in range(2, m + 1):
        step = alpha * (beta * -W[t - 2] - Wd[t - 2]) + psi[t - 1] * s * x[t - 1]
        Wd[t - 1] = Wd[t - 2] + step * dt
        W[t] = W[t - 1] + Wd[t - 1] * dt
    y = DmpLayer(config, k=m)(y0, yd0, g, w)[0, :, 0]
    for t in range(1, m + 1):
        (gradient,) = torch.autograd.grad(y[t - 1], w, retain_graph=True)
        assert gradient[0, 0].numpy() == pytest.approx(W[t], rel=1e-9, abs=1e-12)


def test_goal_gradient_equals_recursion_29():
    # As (23), with 1 - G in the spring and sum_j psi_j w_j / sum_j psi_j x in the forcing term.
    config = DmpConfig.preset("released")
    y0, yd0, g, w = inputs(config, batch=1, dof=1)
    alpha, beta, dt, m = config.alpha, config.beta, 1 / config.m, config.m
    x = (1 - config.a_x * dt) ** np.arange(m + 1)
    shape = normalised_kernels(config, x) @ w.detach().numpy()[0, 0]
    G, Gd = np.zeros(m + 1), np.zeros(m + 1)
    for t in range(2, m + 1):
        step = alpha * (beta * (1 - G[t - 2]) - Gd[t - 2]) + shape[t - 1] * x[t - 1]
        Gd[t - 1] = Gd[t - 2] + step * dt
        G[t] = G[t - 1] + Gd[t - 1] * dt
    y = DmpLayer(config, k=m)(y0, yd0, g, w)[0, :, 0]
    for t in range(1, m + 1):
        (gradient,) = torch.autograd.grad(y[t - 1], g, retain_graph=True)
        assert gradient.item() == pytest.approx(G[t], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("forcing", FORCINGS)
@pytest.mark.parametrize("k", [FEW, MANY])
def test_training_and_streaming_are_the_same_function_of_time(k, forcing):
    # The layer's k actions lie on the curve that a 5 kHz streamer follows.
    config, duration = DmpConfig(forcing=forcing), 0.2
    y0, yd0, g, w = (x.detach() for x in inputs(config, batch=1, dof=4))
    actions = DmpLayer(config, k)(y0, yd0, g, w)[0].numpy()
    motion = Segment(config, g[0], w[0], duration).bind(y0[0], yd0[0] / duration)
    stream = motion.setpoints(np.arange(1001) / 5000)[:, 0]
    assert actions == pytest.approx(stream[1000 // k :: 1000 // k], rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("k", [FEW, MANY])
def test_a_free_forcing_term_moves_a_joint_whose_goal_is_its_start(k):
    # The scaled one cannot: w (g - y0) = 0.
    y0, yd0, _, w = (x.detach() for x in inputs(DmpConfig()))
    still, moved = (
        DmpLayer(DmpConfig(forcing=forcing), k)(y0, 0.0 * yd0, y0, w)
        for forcing in ("outside", "free")
    )
    assert torch.allclose(still, y0[:, None].expand_as(still))
    assert ((moved - still).abs().amax(1) > 1e-3).all()


def test_a_free_forcing_term_is_the_scaled_one_of_weights_over_the_displacement():
    y0, yd0, g, w = inputs(DmpConfig())
    free = DmpLayer(DmpConfig(forcing="free"), FEW)(y0, yd0, g, w * (g - y0)[..., None])
    assert torch.allclose(free, DmpLayer(DmpConfig(), FEW)(y0, yd0, g, w), rtol=1e-12)


def test_rollout_equals_forward_at_the_control_steps():
    layer = DmpLayer(DmpConfig(), FEW)
    leaves = inputs(layer.config)
    y, yd, ydd = layer.rollout(*leaves, np.arange(1, FEW + 1) / FEW)
    assert torch.allclose(y, layer(*leaves), rtol=1e-12)
    assert yd.shape == ydd.shape == (3, FEW, 2)


@pytest.mark.parametrize("k", [FEW, MANY])
def test_single_precision_stays_near_double(k):
    layer = DmpLayer(DmpConfig(n_basis=30, alpha=25.0), k)
    double = inputs(layer.config, batch=50)
    single = tuple(x.detach().float().requires_grad_() for x in double)
    a, b = layer(*double), layer(*single)
    assert b.dtype == torch.float32
    assert (a - b).abs().max() < 3e-6 * a.abs().max()
    for da, db in zip(
        torch.autograd.grad(a.sum(), double), torch.autograd.grad(b.sum(), single), strict=True
    ):
        assert (da - db).abs().max() < 1e-5 * da.abs().max()


def test_memory_layout_of_inputs_and_gradients_does_not_matter():
    layer = DmpLayer(DmpConfig(), FEW)
    y0, yd0, g, w = (x.detach() for x in inputs(layer.config))
    strided = w.transpose(0, 2).contiguous().transpose(0, 2).requires_grad_()
    y = layer(y0, yd0, g, strided)
    assert torch.equal(y, layer(y0, yd0, g, w))
    (gradient,) = torch.autograd.grad(y.sum(), [strided])  # an expanded cotangent, strides 0
    assert torch.isfinite(gradient).all()
    assert gradient.shape == w.shape


@pytest.mark.parametrize("learned", [False, True])
def test_layer_that_was_first_used_in_inference_mode_can_be_trained(learned):
    layer = DmpLayer(DmpConfig(), FEW, ALPHA_RANGE)
    leaves = inputs(layer.config)
    raw = torch.zeros(3, dtype=torch.float64, requires_grad=True) if learned else None
    with torch.inference_mode():
        y = layer(*leaves, raw)
    again = layer(*leaves, raw)
    assert torch.equal(y, again)
    (gradient,) = torch.autograd.grad(again.sum(), [leaves[-1]])
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("alpha", "forcing"), [(0.7, "outside"), (5.0, "free"), (15.0, "inside"), (29.0, "outside")]
)
def test_learned_alpha_equals_a_fixed_alpha_of_that_value(preset, alpha, forcing):
    config = DmpConfig.preset(preset)
    if preset == "paper":
        config = replace(config, m=140)  # printed order diverges at alpha = 29 with 35 steps
    config = replace(config, forcing=forcing)
    layer, times = DmpLayer(config, FEW, ALPHA_RANGE), np.linspace(0, 1, 7)
    leaves = inputs(config)
    raw = torch.full((3,), layer.raw_alpha(alpha), dtype=torch.float64)
    assert layer.alpha(raw).numpy() == pytest.approx(alpha, rel=1e-12)
    fixed = DmpLayer(replace(config, alpha=alpha), FEW)
    assert torch.allclose(layer(*leaves, raw), fixed(*leaves), rtol=1e-9, atol=1e-9)
    for a, b in zip(layer.rollout(*leaves, times, raw), fixed.rollout(*leaves, times), strict=True):
        assert (a - b).abs().max() < 1e-9 * b.abs().max()


def test_every_sample_may_have_its_own_alpha():
    layer = DmpLayer(DmpConfig(), FEW, ALPHA_RANGE)
    leaves = inputs(layer.config)
    alphas = (3.0, 12.0, 26.0)
    raw = torch.tensor([layer.raw_alpha(a) for a in alphas], dtype=torch.float64)
    together = layer(*leaves, raw)
    for i, alpha in enumerate(alphas):
        alone = DmpLayer(DmpConfig(alpha=alpha), FEW)(*leaves)[i]
        assert torch.allclose(together[i], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("preset", ["default", "released"])
def test_gradient_of_a_learned_alpha_equals_finite_differences(preset):
    layer = DmpLayer(DmpConfig.preset(preset), FEW, ALPHA_RANGE)
    raw = torch.tensor([-2.0, 0.1, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (*inputs(layer.config), raw))


def test_gradient_of_a_learned_alpha_is_that_of_the_fixed_one():
    # dy/dalpha through the layer, against a difference of two layers with alpha fixed.
    h, alpha = 1e-4, 11.0
    layer = DmpLayer(DmpConfig(), FEW, ALPHA_RANGE)
    leaves = tuple(x.detach() for x in inputs(layer.config))
    raw = torch.full((3,), layer.raw_alpha(alpha), dtype=torch.float64, requires_grad=True)
    up, down = (DmpLayer(DmpConfig(alpha=alpha + d), FEW)(*leaves) for d in (h, -h))
    expected = ((up - down) / (2 * h)).sum(dim=(1, 2))
    (by_raw,) = torch.autograd.grad(layer(*leaves, raw).sum(), [raw])
    (slope,) = torch.autograd.grad(layer.alpha(raw).sum(), [raw])
    assert torch.allclose(by_raw / slope, expected, rtol=1e-6, atol=1e-8)


def test_learned_alpha_stays_in_range_and_is_never_cut_off():
    layer = DmpLayer(DmpConfig(), FEW, alpha_range=(0.5, 30.0))
    raw = torch.linspace(-100, 100, 401, requires_grad=True)
    alpha = layer.alpha(raw)
    assert (alpha >= 0.5 - 1e-5).all()
    assert (alpha <= 30 + 1e-5).all()
    assert (alpha.diff() >= 0).all()
    (slope,) = torch.autograd.grad(alpha.sum(), [raw])
    assert torch.isfinite(slope).all()
    assert (slope[raw.abs() < 5] > 0).all()


def test_weights_have_no_effect_when_the_goal_is_the_start():
    layer = DmpLayer(DmpConfig(), FEW, ALPHA_RANGE)
    y0, yd0, _, w = inputs(layer.config)
    assert torch.equal(layer(y0, yd0, y0, w), layer(y0, yd0, y0, torch.zeros_like(w)))


def test_layer_can_be_copied_and_has_no_state_of_its_own():
    layer = DmpLayer(DmpConfig(), FEW, ALPHA_RANGE)
    leaves = inputs(layer.config)
    y = layer(*leaves)
    assert torch.equal(copy.deepcopy(layer)(*leaves), y)
    assert not layer.state_dict()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DmpLayer(DmpConfig(), 0), "k is 0"),
        (lambda: DmpLayer(DmpConfig(), 5, alpha_range=(30.0, 0.5)), "alpha_range"),
        (lambda: DmpLayer(DmpConfig(), 5, ALPHA_RANGE).raw_alpha(31.0), "0.5 to 30"),
        (
            lambda: DmpLayer(DmpConfig(), 5).rollout(*inputs(DmpConfig()), [-1.0]),
            "at least 0",
        ),
    ],
)
def test_impossible_layers_are_refused_with_a_reason(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
