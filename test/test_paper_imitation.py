# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Table 1 and MT50: demonstrations, the windows of their actions, and their clones."""

import dataclasses
import json

import numpy as np
import pytest
from test_training import TOY, toy
from toy_study import SCALE, TINY

from ndp_ros import cli
from ndp_ros.commands import reproduce as command
from ndp_ros.errors import TrainingError
from ndp_ros.paper import load_study
from ndp_ros.paper.claims import ABOVE, Claim
from ndp_ros.paper.comparison import Comparison
from ndp_ros.paper.imitation import FILE, Imitation
from ndp_ros.paper.queue import SCALES
from ndp_ros.paper.rows import Row, Scale
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import initial_tensors
from ndp_ros.training.config import make_spec
from ndp_ros.training.demonstrations import collect, load, regroup


def test_the_tables_clones_learn_from_the_same_windows_of_one_expert(monkeypatch, tmp_path, capsys):
    expert = Row(TOY, "ppo", "Toy", changes={"task_options": ["windows=20"]})
    experts = Comparison("fig5", {"toy-ppo": expert}, SCALE)
    changes = TINY | {"bc": {"passes": 3, "only_successful": False}, "checkpoint_every": 3}
    scales = {scale: Scale("a test", 2, changes, 3) for scale in SCALES}
    rows = {f"toy-{kind}": Row(TOY, f"bc-{kind}", "Toy", kind.upper()) for kind in ("nn", "ndp")}
    claim = Claim("NDP clones better", (("toy-ndp", "toy-nn"),), ABOVE, "last")
    study = Imitation("table1", rows, scales, dict.fromkeys(SCALES, 4), [experts], claims=[claim])
    monkeypatch.setattr(command, "load_study", {"fig5": experts, "table1": study}.get)
    runs, out = tmp_path / "runs", tmp_path / "out"
    arguments = ["reproduce", "table1", "--processes", "1", "--runs", str(runs), "--out", str(out)]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    home = runs / "table1" / "smoke"
    results = {
        run.name: json.loads((run / "result.json").read_text())
        for run in (runs / "fig5" / "smoke").iterdir()
    }
    best = max(sorted(results), key=lambda name: results[name]["best"]["success_rate"])
    assert len(results) == 2
    assert f"| Toy, expert's demonstrations | 1 of 1 |  |  |  | 4 episodes of {best}," in text
    assert json.loads((home / "toy-demonstrations-0" / "result.json").read_text())["expert"] == best
    data = load(home / "toy-demonstrations-0" / FILE)
    assert (data.spec.k, data.episodes) == (5, 4)
    assert data.actions.shape == (16, 5, 2)
    for name in ("toy-nn-0", "toy-ndp-1"):
        config = (home / name / "run" / "config.yaml").read_text()
        assert f"demonstrations: {home / 'toy-demonstrations-0' / FILE}" in config
    record = json.loads((out / "table1" / "table1.json").read_text())
    assert [len(row.get("last", ())) for row in record["rows"]] == [0, 2, 2]
    assert (out / "table1" / "table1.png").stat().st_size > 0


def test_windows_of_single_steps_keep_every_action_in_order(tmp_path):
    config = toy(method="ppo", task_options=("windows=12",))
    env = config.choice.make()
    policy = ArrayPolicy(make_spec(config, env), initial_tensors(make_spec(config, env), 0))
    single = collect(policy, env, range(3), {})
    env.close()
    five = regroup(single, 5)
    assert five.starts.tolist() == [0, 2, 4, 6]  # the last two of twelve steps are dropped
    np.testing.assert_array_equal(five.observations[2], single.observations[12])
    np.testing.assert_array_equal(five.actions[3], single.actions[17:22, 0])
    assert regroup(five, 5) is five
    dense = regroup(single, 5, every=1)
    assert dense.starts.tolist() == [0, 8, 16, 24]
    np.testing.assert_array_equal(dense.actions[9], single.actions[13:18, 0])
    np.testing.assert_array_equal(dense.observations[9], single.observations[13])
    with pytest.raises(TrainingError, match="k = 5"):
        regroup(five, 2)
    five.save(tmp_path / "five.safetensors")
    assert load(tmp_path / "five.safetensors").spec.k == 5


def test_scripts_demonstrate_for_a_study_in_windows_that_overlap(tmp_path):
    job = load_study("mt50").jobs("smoke")[0]
    assert (job.config.task, job.config.episodes, job.config.every) == ("mt50", 3, 1)
    asked = dataclasses.replace(job.config, task="sawyer-reach", task_options=("horizon=20",))
    asked.demonstrate((), tmp_path, print)
    data = load(tmp_path / FILE)
    assert np.diff(data.starts).tolist() == [16, 16, 16]
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["episodes"], result["windows"], result["expert"]) == (3, 48, "the scripts")
