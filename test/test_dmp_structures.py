# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Other linear structures: the same layer, another response."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ndp_ros.dmp.basis import normalised_kernels, phase
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.layer import DmpLayer
from ndp_ros.dmp.response import response
from ndp_ros.dmp.structures import SpringDamper
from ndp_ros.errors import ConfigError

CONFIG = DmpConfig()
UNDERDAMPED = SpringDamper(metric=2.0, damping=9.0, stiffness=120.0)
OVERDAMPED = SpringDamper(metric=0.5, damping=20.0, stiffness=30.0)
UNDAMPED = SpringDamper(damping=0.0, stiffness=40.0)
STRUCTURES = {"underdamped": UNDERDAMPED, "overdamped": OVERDAMPED, "undamped": UNDAMPED}


@pytest.fixture(params=STRUCTURES)
def structure(request):
    return STRUCTURES[request.param]


def test_critically_damped_structure_is_the_dmp():
    t = np.linspace(0, 1.5, 9)
    alpha = CONFIG.alpha
    dmp = SpringDamper(metric=2.0, damping=2.0 * alpha, stiffness=alpha**2 / 2)
    assert dmp.damping_ratio == pytest.approx(1.0)
    assert dmp(CONFIG, t) == pytest.approx(response(CONFIG, t), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("away", [1e-12, 1e-8, 1e-4])
def test_response_is_continuous_through_critical_damping(away):
    t = np.linspace(0, 1.5, 9)
    critical = response(CONFIG, t)
    for sign in (-1, 1):
        near = SpringDamper(damping=CONFIG.alpha * (1 + sign * away), stiffness=56.25)
        assert np.abs(near(CONFIG, t) - critical).max() < 100 * away + 1e-11


def test_structure_satisfies_its_equation_of_motion(structure):
    t, h = np.array([0.04, 0.33, 0.81, 1.7]), 1e-5
    rng = np.random.default_rng(0)
    y0, yd0, g, w = 0.3, -1.2, 0.9, rng.normal(0, 30, CONFIG.n_basis)
    C = np.concatenate(([y0, yd0, g], w * (g - y0)))
    y, yd, ydd = structure(CONFIG, t) @ C
    before, after = structure(CONFIG, t - h) @ C, structure(CONFIG, t + h) @ C
    x = phase(CONFIG, t)
    f = x * (normalised_kernels(CONFIG, x) @ w) * (g - y0)
    spring = structure.stiffness * (g - y) - structure.damping * yd
    assert structure.metric * ydd == pytest.approx(spring + structure.metric * f, rel=1e-10)
    assert (after[0] - before[0]) / (2 * h) == pytest.approx(yd, abs=1e-6)
    assert (after[1] - before[1]) / (2 * h) == pytest.approx(ydd, abs=1e-4)


def test_euler_of_a_structure_converges_to_its_exact_solution():
    t = np.array([0.2, 1.0, 1.4])
    exact = UNDERDAMPED(CONFIG, t)
    coarse, fine = (
        np.abs(UNDERDAMPED(replace(CONFIG, solver="euler", m=m), t) - exact).max()
        for m in (4000, 8000)
    )
    assert coarse / fine == pytest.approx(2.0, rel=0.02)


def test_underdamped_structure_overshoots_and_overdamped_does_not():
    t = np.linspace(0, 3, 200)
    step = {name: s(CONFIG, t)[0, :, 2] for name, s in STRUCTURES.items()}  # y of g = 1 from rest
    assert step["underdamped"].max() > 1.1
    assert step["overdamped"].max() <= 1.0
    assert (np.diff(step["overdamped"]) > 0).all()


def test_gradients_through_a_structure_equal_finite_differences(structure):
    y0, yd0, g = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    w = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(DmpLayer(CONFIG, 5, respond=structure), (y0, yd0, g, w))


@pytest.mark.parametrize(
    "values", [{"metric": 0.0}, {"stiffness": -1.0}, {"damping": -1.0}, {"metric": float("nan")}]
)
def test_impossible_structures_are_refused(values):
    with pytest.raises(ConfigError, match="must be positive"):
        SpringDamper(**values)
