# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The names of ``import ndp_ros``: documented, with examples that run, and cheap to import."""

import doctest
import inspect
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch

import ndp_ros
from ndp_ros.errors import ConfigError
from ndp_ros.paths import find_checkpoint

pytestmark = pytest.mark.live

NAMES = sorted(set(ndp_ros.__all__) - {"__version__"})
ERRORS = [name for name in NAMES if name.endswith("Error")]


def test_about_fifteen_names_are_public():
    assert 12 <= len(NAMES) <= 18
    assert set(NAMES) <= set(dir(ndp_ros))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ndp_ros.nothing  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_documented_by_what_it_takes_returns_and_raises(name):
    thing = getattr(ndp_ros, name)
    assert thing.__name__ == name
    text = inspect.getdoc(thing)
    if inspect.isfunction(thing) and inspect.signature(thing).parameters:
        assert "Args:" in text
        assert "Raises:" in text


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(ERRORS)))
def test_the_example_of_each_name_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {n: getattr(ndp_ros, n) for n in NAMES} | {"torch": torch}
    thing = getattr(ndp_ros, name)
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(thing), names, name, name, 0)
    assert example.examples
    results = doctest.DocTestRunner().run(example)
    assert results.failed == 0


def test_errors_have_one_root():
    assert all(issubclass(getattr(ndp_ros, name), ndp_ros.NdpError) for name in ERRORS)


def cpu_seconds(code: str) -> float:
    """Return the least CPU time of a few runs of Python."""
    times = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def test_the_import_takes_less_than_a_tenth_of_a_second_of_the_processor():
    assert cpu_seconds("import ndp_ros") - cpu_seconds("pass") < 0.1


def test_the_import_brings_no_third_party_module():
    code = "import sys, ndp_ros; print({'torch', 'numpy', 'mujoco', 'rclpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_policy_is_loaded_by_name_and_by_path_without_torch():
    code = (
        "import sys, ndp_ros; p = ndp_ros.load_policy(sys.argv[1]);"
        "p.segment([0.1] * 34); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(find_checkpoint("jaco_throw"))], check=True)


def test_actions_are_the_differences_of_the_segment():
    policy = ndp_ros.load_policy("jaco_throw")
    spec = policy.spec
    obs = {f.name: np.linspace(0.05, 0.3, f.size) for f in spec.observation}
    motion = policy.segment(obs).bind(obs["setpoint"], obs["setpoint_velocity"])
    y = motion.setpoints(np.arange(spec.k + 1) * spec.control_dt)[:, 0]
    np.testing.assert_allclose(policy.actions(obs), np.diff(y, axis=0), atol=1e-6)
    g, w = policy.parameters(obs)
    np.testing.assert_allclose(policy.segment(obs).g, g)
    assert w.shape == (spec.dof, spec.dmp.n_basis)


@pytest.mark.parametrize(
    ("obs", "words"),
    [
        (np.zeros(3), r"shape \(3,\), expected \(34,\)"),
        ([np.nan] * 34, "not finite"),
        ("standing", "not an array of numbers"),
        ({"position": [0.0] * 7}, "velocity"),
    ],
)
def test_observations_that_do_not_fit_are_refused(obs, words):
    with pytest.raises(ConfigError, match=words):
        ndp_ros.load_policy("jaco_throw").parameters(obs)


def test_a_policy_without_a_dynamical_system_has_actions_only():
    policy = ndp_ros.load_policy("jaco_throw_ppo")
    obs = {f.name: np.zeros(f.size) for f in policy.spec.observation}
    assert policy.actions(obs).shape == (1, 7)
    with pytest.raises(ConfigError, match="no DMP parameters"):
        policy.segment(obs)
