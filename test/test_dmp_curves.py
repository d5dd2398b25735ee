# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The curves in which a segment is explored: their ends, their angles, and the way back."""

import numpy as np
import pytest
import torch

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.curves import Curves
from ndp_ros.dmp.layer import DmpLayer
from ndp_ros.errors import ConfigError

FREE = DmpConfig(n_basis=5, alpha=5.0, forcing="free")
FINE = np.linspace(0.0, 1.0, 2001)
SYSTEMS = [FREE, DmpConfig(n_basis=3, forcing="free", solver="euler", m=2000)]


@pytest.mark.parametrize("config", SYSTEMS, ids=["exact", "euler"])
def test_the_first_amount_alone_says_where_a_segment_ends(config):
    curves = Curves(config, config.n_basis + 1)
    ends = curves.at([1.0])[0, 0]
    assert ends == pytest.approx(np.eye(len(ends))[0], abs=1e-9)


@pytest.mark.parametrize("config", SYSTEMS, ids=["exact", "euler"])
def test_forcing_curves_are_orthogonal_and_of_the_given_size(config):
    y = Curves(config, 4, size=0.25).at(FINE)[0]
    sizes = y.T @ y / len(FINE)
    forcing = sizes[1:, 1:] / sizes[0, 0]
    # The curves were compared on a coarser grid.
    assert forcing == pytest.approx(0.25**2 * np.eye(3), abs=1e-3)


def test_fewer_curves_are_the_first_of_more():
    few, many = Curves(FREE, 2), Curves(FREE, 5)
    np.testing.assert_array_equal(few.mixing, many.mixing[:, :2])


def test_one_curve_takes_no_weights_and_is_there_for_a_scaled_forcing_term_too():
    for config in (FREE, DmpConfig(n_basis=5, alpha=5.0)):
        ahead, w = Curves(config, 1).parameters(np.ones((1, 2)), np.array([0.1, 0.2]))
        assert not w.any()
        y0 = torch.zeros(1, 2, dtype=torch.float64)
        y = DmpLayer(config, 4)(y0, y0, torch.from_numpy(ahead)[None], torch.from_numpy(w)[None])
        assert y[0, -1].numpy() == pytest.approx([0.1, 0.2], rel=1e-9)


def test_parameters_make_the_sum_of_the_curves():
    curves, rng = Curves(FREE, 4), np.random.default_rng(0)
    amounts, unit = rng.normal(size=(3, 4, 2)), np.array([0.3, 0.7])
    ahead, w = curves.parameters(amounts, unit)
    y0, yd0 = (torch.zeros(3, 2, dtype=torch.float64) for _ in range(2))
    motion = DmpLayer(FREE, 6).rollout(
        y0, yd0, torch.from_numpy(ahead), torch.from_numpy(w), FINE[::400]
    )
    for got, curve in zip(motion, curves.at(FINE[::400]), strict=True):
        np.testing.assert_allclose(got, curve @ amounts * unit, atol=1e-12)


def test_amounts_are_the_way_back_from_parameters():
    rng, unit = np.random.default_rng(1), np.array([0.3, 0.7])
    amounts = rng.normal(size=(3, 6, 2))
    whole = Curves(FREE, 6)
    back = whole.amounts(*whole.parameters(amounts, unit), unit)
    np.testing.assert_allclose(back, amounts, atol=1e-7)
    # Of fewer curves they are the nearest: their error is orthogonal to the curves.
    few, goal, w = Curves(FREE, 2), rng.normal(size=2), rng.normal(size=(2, 5))
    near = few.amounts(goal, w, unit)
    grid = np.linspace(0.0, 1.0, 257)
    exact = whole.at(grid)[0] @ whole.amounts(goal, w, unit)
    error = exact - few.at(grid)[0] @ near
    assert few.at(grid)[0].T @ error == pytest.approx(np.zeros((2, 2)), abs=1e-7)


@pytest.mark.parametrize(
    ("config", "count", "message"),
    [
        (FREE, 0, "1 to 6"),
        (FREE, 7, "1 to 6"),
        (DmpConfig(n_basis=5), 2, "forcing free, or one curve"),
        (DmpConfig(n_basis=40, forcing="free", kernel="multiquadric"), 41, "this system has only"),
    ],
)
def test_curves_that_a_system_does_not_have_are_refused(config, count, message):
    with pytest.raises(ConfigError, match=message):
        Curves(config, count)
