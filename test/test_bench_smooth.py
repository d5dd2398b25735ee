# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The benchmark of smoothness: what its figures are figures of."""

import json

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs MuJoCo")

from ndp_ros import cli
from ndp_ros.commands.bench_smooth import measure


def test_every_joining_but_lines_goes_on_with_the_velocity():
    rows = {joining: measure("jaco_throw", joining, 1, 0) for joining in ("segment", "linear")}
    assert rows["segment"]["velocity_step_max"] == 0.0
    assert rows["linear"]["velocity_step_max"] > 0.1
    for stage in ("jerk", "measured_jerk"):
        assert rows["segment"][f"{stage}_rms"] < rows["linear"][f"{stage}_rms"]
        assert rows["segment"][f"{stage}_rms"] < rows["segment"][f"{stage}_max"]
    assert rows["segment"]["success_rate"] == 1.0


def test_the_figures_are_those_of_the_episodes_of_ndp_eval():
    import ndp_ros

    row = measure("jaco_throw", "segment", 2, 5)
    report = ndp_ros.evaluate("jaco_throw", episodes=2, seed=5)
    for name in ("success_rate", "tracking_rms", "saturation"):
        assert row[name] == pytest.approx(report[name])


def test_contestants_that_are_missing_are_named_and_left_out(capfd):
    given = ["--ppo-multi", "nowhere", "--ppo", "digits", "--episodes", "1", "--json"]
    assert cli.main(["bench", "smooth", *given]) == 0
    report = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert list(report["contestants"]) == ["ndp", "ndp-linear", "ndp-cubic"]
    assert set(report["left_out"]) == {"ppo-multi", "ppo-multi-linear", "ppo-multi-fit", "ppo"}
    assert "nowhere" in report["left_out"]["ppo-multi"]
    assert all(np.isfinite(row["jerk_rms"]) for row in report["contestants"].values())
