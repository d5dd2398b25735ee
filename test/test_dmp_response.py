# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The dynamical system as equations: phase, kernels, the exact solution and the unroll."""

import itertools
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_ros.config import from_mapping
from ndp_ros.dmp.basis import centres, normalised_kernels, phase, widths
from ndp_ros.dmp.config import FORCINGS, KERNELS, LAYOUTS, ORDERS, SOLVERS, DmpConfig
from ndp_ros.dmp.response import SOLVERS as TABLE
from ndp_ros.dmp.response import response, response_size, whitening
from ndp_ros.errors import ConfigError

GOLDEN = json.loads((Path(__file__).parent / "data" / "released_dmp.json").read_text())
SYSTEMS = [
    DmpConfig(kernel=kernel, layout=layout, n_basis=n)
    for kernel, layout, n in itertools.product(KERNELS, LAYOUTS, (2, 6, 30))
]


def name(config):
    return f"{config.kernel}-{config.layout}-{config.n_basis}"


def unroll(config, y0, yd0, g, w, n_steps):
    """Section 3.2 step by step, for one joint: rows of y, yd, ydd as response documents them."""
    dt, beta = 1 / config.m, config.alpha / 4
    x, y, yd, ydd, rows = 1.0, y0, yd0, 0.0, []
    for _ in range(n_steps + 1):
        x -= config.a_x * x * dt
        psi = normalised_kernels(config, np.array([x]))[0]
        f = x * (psi @ w) * (1.0 if config.forcing == "free" else g - y0)
        spring = config.alpha * (beta * (g - y) - yd)
        new = spring + (config.alpha * f if config.forcing == "inside" else f)
        applied = new if config.order == "simultaneous" else ydd
        rows.append((y, yd, applied))
        y, yd, ydd = y + yd * dt, yd + applied * dt, new
    return np.array(rows).T


def columns(y0, yd0, g, w, forcing="outside"):
    return np.concatenate(([y0, yd0, g], np.asarray(w) * (1.0 if forcing == "free" else g - y0)))


def test_phase_solves_equation_2():
    config = DmpConfig(a_x=3.0)
    t = np.linspace(0, 2, 41)
    slope = (phase(config, t + 1e-6) - phase(config, t - 1e-6)) / 2e-6
    assert phase(config, np.zeros(1)) == 1.0
    assert slope == pytest.approx(-3.0 * phase(config, t), abs=1e-8)


def test_paper_layout_is_the_printed_one():
    config = DmpConfig(layout="paper", n_basis=4, a_x=2.0)
    assert centres(config) == pytest.approx(np.exp([-0.5, -1.0, -1.5, -2.0]))
    assert widths(config) == pytest.approx(4 / centres(config))


def test_released_layout_spans_the_segment():
    config = DmpConfig(layout="released", n_basis=3, a_x=2.0)
    assert centres(config) == pytest.approx(np.exp([0.0, -1.0, -2.0]))
    assert widths(config) == pytest.approx(3**1.5 / (2.0 * centres(config)))


@pytest.mark.parametrize(
    ("kernel", "psi"),
    [
        ("gaussian", lambda r2: np.exp(-r2)),
        ("multiquadric", lambda r2: np.sqrt(1 + r2)),
        ("inverse_quadric", lambda r2: 1 / (1 + r2)),
        ("inverse_multiquadric", lambda r2: 1 / np.sqrt(1 + r2)),
        ("linear", lambda r2: np.sqrt(r2)),
    ],
)
def test_kernels_are_those_of_the_paper(kernel, psi):
    config = DmpConfig(kernel=kernel, layout="paper")
    x = phase(config, np.linspace(0, 1.5, 20))
    raw = psi(widths(config) * (x[:, None] - centres(config)) ** 2)
    expected = raw / raw.sum(axis=1, keepdims=True)
    assert normalised_kernels(config, x) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("config", SYSTEMS, ids=name)
@pytest.mark.parametrize("a_x", [0.01, 1.0, 50.0])
def test_kernels_stay_normalised_where_they_underflow(config, a_x):
    config = replace(config, a_x=a_x)
    x = np.concatenate((phase(config, np.linspace(0, 20, 200)), centres(config)))
    psi = normalised_kernels(config, x)
    assert (psi >= 0).all()
    assert psi.sum(axis=1) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("config", SYSTEMS, ids=name)
@pytest.mark.parametrize("forcing", FORCINGS)
def test_exact_solution_satisfies_equation_1(config, forcing):
    # yd and ydd are the slopes of y and yd, and eq. (1) holds with f from the kernels.
    config = replace(config, forcing=forcing)
    t = np.array([0.013, 0.21, 0.37, 0.77, 1.0, 1.9])
    rng = np.random.default_rng(0)
    y0, yd0, g, w = 0.3, -1.2, 0.9, rng.normal(0, 30, config.n_basis)
    C, h = columns(y0, yd0, g, w, forcing), 1e-5
    y, yd, ydd = response(config, t) @ C
    before, after = response(config, t - h) @ C, response(config, t + h) @ C
    x = phase(config, t)
    f = x * (normalised_kernels(config, x) @ w)
    f *= {"inside": config.alpha * (g - y0), "outside": g - y0, "free": 1.0}[forcing]
    scale = np.abs(ydd).max()
    assert (after[0] - before[0]) / (2 * h) == pytest.approx(yd, abs=1e-7 * scale)
    # A linear kernel has a kink at every centre, where a central difference is first order.
    assert (after[1] - before[1]) / (2 * h) == pytest.approx(ydd, abs=1e-3 * scale)
    right_side = config.alpha * (config.beta * (g - y) - yd) + f
    assert ydd == pytest.approx(right_side, abs=1e-10 * scale)


@pytest.mark.parametrize("config", SYSTEMS[::2], ids=name)
def test_euler_converges_to_the_exact_solution_at_first_order(config):
    t = np.array([0.1, 0.35, 0.7, 1.0, 1.5])
    exact = response(config, t)
    errors = [
        np.abs(response(replace(config, solver="euler", m=m), t) - exact).max(axis=(1, 2))
        for m in (4000, 8000)
    ]
    assert (errors[1][:2] < 5e-3).all()
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.02)


def test_exact_equals_a_very_fine_euler():
    config = DmpConfig()
    t = np.linspace(0, 1, 11)
    fine = response(replace(config, solver="euler", m=400_000), t)
    y, yd, _ = np.abs(fine - response(config, t)).max(axis=(1, 2))
    assert y < 1e-5
    assert yd < 1e-4


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("a_x", [0.3, 1.0, 10.0, 50.0])
def test_exact_rows_do_not_depend_on_the_other_rows(kernel, layout, a_x):
    # The integration intervals differ between the two calls; the integral must not.
    config = DmpConfig(kernel=kernel, layout=layout, a_x=a_x, n_basis=10)
    few = response(config, [0.2, 1.0])
    many = response(config, np.linspace(0, 2, 2001))[:, [200, 1000]]
    assert many == pytest.approx(few, rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("order", ["simultaneous", "lagged"])
@pytest.mark.parametrize("forcing", FORCINGS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_euler_response_equals_the_unrolled_recursion(order, forcing, kernel):
    config = DmpConfig(solver="euler", m=35, order=order, forcing=forcing, kernel=kernel)
    rng = np.random.default_rng(1)
    start = (0.4, -0.7, 1.1, rng.normal(0, 20, config.n_basis))
    t = np.arange(0, 51) / 35  # beyond the end of the segment
    expected = unroll(config, *start, n_steps=50)
    y = response(config, t) @ columns(*start, forcing)
    assert y == pytest.approx(expected, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda g: f"{g['case']['kernel']}-{g['case']['m']}")
def test_released_preset_matches_the_released_recursion(golden):
    case = golden["case"]
    config = replace(
        DmpConfig.preset("released"),
        **{key: case[key] for key in ("kernel", "n_basis", "alpha", "m")},
    )
    for joint in golden["joints"]:
        rows = np.array(joint["rows"])
        B = response(config, rows / config.m)
        y, yd, ydd = B @ columns(joint["y0"], joint["yd0"], joint["g"], joint["w"])
        scale = {key: np.abs(joint[key]).max() for key in ("Y", "dY", "ddY")}
        assert y == pytest.approx(joint["Y"], abs=1e-10 * scale["Y"])
        # Their velocity and acceleration stand one row late: row i + 1 is ours i.
        for i in (j for j, row in enumerate(rows[1:]) if row == rows[j] + 1):
            assert joint["dY"][i + 1] == pytest.approx(yd[i], abs=1e-10 * scale["dY"])
            assert joint["ddY"][i + 1] == pytest.approx(ydd[i], abs=1e-10 * scale["ddY"])


def test_golden_numbers_are_what_their_script_computes(tmp_path):
    # The data cannot drift from the recursion written beside them.
    source = Path(__file__).parent / "data" / "make_released_dmp.py"
    namespace = {"__name__": "golden", "__file__": str(tmp_path / source.name)}
    exec(compile(source.read_text(), str(source), "exec"), namespace)
    namespace["main"]()
    again = json.loads((tmp_path / "released_dmp.json").read_text())
    for old, new in zip(GOLDEN, again, strict=True):
        for a, b in zip(old["joints"], new["joints"], strict=True):
            assert b["Y"] == pytest.approx(a["Y"], rel=1e-12, abs=1e-12)


def test_forcing_inside_the_bracket_is_alpha_times_forcing_outside():
    t = np.linspace(0, 1, 8)
    inside = response(DmpConfig(forcing="inside", alpha=20.0), t)[:, :, 3:]
    outside = response(DmpConfig(forcing="outside", alpha=20.0), t)[:, :, 3:]
    assert inside == pytest.approx(20.0 * outside, rel=1e-12)


@pytest.mark.parametrize("preset", ["default", "paper", "released"])
def test_response_does_not_depend_on_the_origin(preset):
    # Moving y0 and g together moves y and leaves yd and ydd: columns y0 and g sum to 1, 0, 0.
    B = response(DmpConfig.preset(preset), np.linspace(0, 2, 15))
    ones = np.array([1.0, 0.0, 0.0])[:, None] * np.ones(15)
    assert B[:, :, 0] + B[:, :, 2] == pytest.approx(ones, abs=1e-11)


@given(
    alpha=st.floats(1.0, 60.0),
    kernel=st.sampled_from(KERNELS),
    w=st.lists(st.floats(-100, 100), min_size=6, max_size=6),
    y0=st.floats(-3, 3),
    yd0=st.floats(-10, 10),
    g=st.floats(-3, 3),
)
@settings(deadline=None, max_examples=40)
def test_every_trajectory_converges_to_its_goal(alpha, kernel, w, y0, yd0, g):
    config = DmpConfig(alpha=alpha, kernel=kernel)
    B = response(config, np.array([60.0]))[:, 0]
    y, yd, ydd = B @ columns(y0, yd0, g, w)
    assert y == pytest.approx(g, abs=1e-6)
    assert yd == pytest.approx(0.0, abs=1e-6)
    assert ydd == pytest.approx(0.0, abs=1e-6)


def test_start_rows_are_the_start_state():
    y, yd, _ = response(DmpConfig(), [0.0])[:, 0]
    assert y == pytest.approx([1, 0, 0] + [0] * 6)
    assert yd == pytest.approx([0, 1, 0] + [0] * 6)


def test_times_may_come_in_any_order_and_twice():
    config = DmpConfig()
    t = np.array([0.9, 0.1, 0.9, 0.0])
    B = response(config, t)
    for i, time in enumerate(t):
        assert B[:, i] == pytest.approx(response(config, [time])[:, 0], rel=1e-12, abs=1e-15)


def test_every_solver_of_a_configuration_is_in_the_table():
    assert set(TABLE) == set(SOLVERS)


@pytest.mark.parametrize("solver", SOLVERS)
def test_size_grows_with_the_horizon_and_the_basis(solver):
    config, times = DmpConfig(solver=solver), np.linspace(0, 1, 500)
    size = response_size(config, times)
    assert response_size(config, 2 * times) > size
    assert response_size(replace(config, n_basis=12), times) > 1.3 * size


def test_a_response_that_fills_the_memory_is_refused():
    with pytest.raises(ConfigError, match="at most"):
        response(DmpConfig(n_basis=10**9), [0.5])
    with pytest.raises(ConfigError, match="at most"):
        response(DmpConfig(), np.zeros(5_000_000))


@pytest.mark.parametrize("n_basis", [6, 30])
def test_whitened_weights_span_curves_of_size_one(n_basis):
    config = DmpConfig(n_basis=n_basis)
    M = whitening(config)
    curves = response(config, np.linspace(0, 1, 257))[0, :, 3:] @ M
    assert curves.T @ curves / len(curves) == pytest.approx(np.eye(M.shape[1]), abs=1e-9)
    assert M.shape[1] <= n_basis


@pytest.mark.parametrize(
    ("config", "times", "words"),
    [
        (DmpConfig(), [0.0, -0.1], "at least 0"),
        (DmpConfig(), [np.nan], "finite"),
        (DmpConfig(), [[0.0, 1.0]], r"shape \(1, 2\)"),
        (DmpConfig(), [1e9], "at most"),
        (DmpConfig(solver="euler", m=3, alpha=15.0), [1.0], "diverge.*raise m"),
        (DmpConfig(solver="euler", m=20, a_x=30.0), [1.0], "diverge.*a_x=30"),
        (DmpConfig(solver="euler"), [1e9], "at most"),
        (DmpConfig(solver="euler"), [1e300], "at most"),
        *(
            (DmpConfig(solver="euler", order="lagged", m=m, alpha=alpha), [1.0], "diverge")
            for m, alpha in [(15, 15.0), (15, 25.0), (25, 25.0)]
        ),
    ],
)
def test_impossible_responses_are_refused_with_a_reason(config, times, words):
    with pytest.raises(ConfigError, match=words):
        response(config, times)


@pytest.mark.parametrize("name", [f.name for f in fields(DmpConfig)])
@pytest.mark.parametrize("value", [None, "unheard of", [1], -1, 0, np.nan, np.inf])
def test_a_configuration_without_a_response_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        DmpConfig(**{name: value})


ANY = st.one_of(st.integers(), st.floats())


@settings(deadline=None, max_examples=200)
@given(
    n_basis=st.one_of(st.integers(-2, 12), st.floats()),
    alpha=ANY,
    a_x=ANY,
    m=st.one_of(st.integers(-2, 200), st.floats()),
    solver=st.sampled_from(SOLVERS),
    kernel=st.sampled_from(KERNELS),
    order=st.sampled_from(ORDERS),
)
def test_any_numbers_within_the_bounds_have_a_finite_response(**values):
    try:
        config = from_mapping(DmpConfig, values)
        B = response(config, np.linspace(0.0, 1.0, 4))
    except ConfigError as error:
        assert str(error)
        return
    assert np.isfinite(B).all()
