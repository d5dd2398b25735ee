# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Comparisons of training runs: rows and scales of every study, reports, probes."""

import dataclasses
import functools
import json
import shutil

import pytest
from test_training import toy
from toy_study import queue_of, small_study

from ndp_ros.paper import STUDIES, comparison, figures, load_study
from ndp_ros.paper.comparison import Comparison
from ndp_ros.paper.queue import SCALES, outcomes
from ndp_ros.paper.rows import Probe
from ndp_ros.paper.study import json_text
from ndp_ros.training.config import differences, make_spec
from ndp_ros.training.experiments import shipped
from ndp_ros.training.methods import METHODS
from ndp_ros.training.run import train
from ndp_ros.training.warm_start import start_tensors

LOADED = {name: load_study(name) for name in STUDIES}


@functools.cache
def jobs_of(name, scale):
    return LOADED[name].jobs(scale)


@pytest.fixture
def small():
    return small_study()


def test_records_are_json_with_lists_of_numbers_on_a_line():
    record = {"a": [1.5, -2e-7, [3, 4]], "b": [{"c": []}, None, "[ 5,  6 ]"], "d": [[], [1]]}
    text = json_text(record)
    assert json.loads(text) == record
    assert '"a": [ 1.5, -2e-07, [ 3, 4 ] ],' in text


def test_runs_made_elsewhere_stay_in_the_report(small, tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "out"
    queue_of(small, runs, only=("toy-ndp-0", "toy-ndp-1")).run(1)
    jobs = small.jobs("smoke")
    small.report("smoke", outcomes(jobs, runs), out, "first")
    before = json.loads((out / "fig5.json").read_text())
    small.report("smoke", outcomes(jobs, tmp_path / "empty"), out, "second")
    after = json.loads((out / "fig5.json").read_text())
    assert after["rows"] == before["rows"]
    assert after["runs"] == before["runs"]
    # An option that the record does not know yet was at its default.
    older = json.loads((out / "fig5.json").read_text())
    for row in older["rows"]:
        del row["config"]["bc"]["decay"]
    (out / "fig5.json").write_text(json.dumps(older))
    small.report("smoke", outcomes(jobs, tmp_path / "empty"), out, "second")
    assert json.loads((out / "fig5.json").read_text()) == after
    # Runs of another configuration do not stay.
    other = [
        dataclasses.replace(j, config=dataclasses.replace(j.config, goal_gain=0.3)) for j in jobs
    ]
    (tmp_path / "copy").mkdir()
    shutil.copy(out / "fig5.json", tmp_path / "copy" / "fig5.json")
    small.report("smoke", outcomes(other, tmp_path / "empty"), tmp_path / "copy", "third")
    copied = json.loads((tmp_path / "copy" / "fig5.json").read_text())
    assert all(r["done"] == 0 for r in copied["rows"])


def test_a_run_that_another_figure_makes_is_taken_from_its_report(small, tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "out"
    queue_of(small, runs, only=("toy-ndp-0",)).run(1)
    small.report("smoke", outcomes(small.jobs("smoke"), runs), out / "fig5", "first")
    rows = {"toy-ndp": dataclasses.replace(small.rows["toy-ndp"], home="fig5")}
    second = Comparison("fig7", rows, small.scales)
    jobs = second.jobs("smoke")
    assert "toy-ndp-0" in second.recorded("smoke", jobs, out / "fig7")
    second.report("smoke", outcomes(jobs, tmp_path / "empty"), out / "fig7", "second")
    first, other = (
        {r["name"]: r for r in json.loads((out / n / f"{n}.json").read_text())["runs"]}
        for n in ("fig5", "fig7")
    )
    assert other["toy-ndp-0"]["result"] == first["toy-ndp-0"]["result"]


def test_a_run_of_another_configuration_is_shown_as_such(small, tmp_path):
    job = small.jobs("smoke")[0]
    config = dataclasses.replace(job.config, goal_gain=0.3)
    small.work(dataclasses.replace(job, config=config), tmp_path, "", print)
    files = small.report("smoke", outcomes([job], tmp_path), tmp_path / "out", "")
    (table,) = [f for f in files if f.suffix == ".md"]
    assert "Run toy-ndp-0 was made with another goal_gain than asked now." in table.read_text()


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("scale", SCALES)
def test_every_study_has_every_row_at_every_scale(name, scale):
    study, jobs = LOADED[name], jobs_of(name, scale)
    assert len({(j.home, j.name) for j in jobs}) == len(jobs)
    assert {job.row for job in jobs} == set(study.labels())
    for job in jobs:  # what belongs to another study is that one's own run
        owner, _, its_scale = job.home.partition("/")
        assert its_scale == scale
        if owner != name:
            assert job in jobs_of(owner, scale)
    rows = set(study.labels())
    for claim in study.claims:
        assert {r for pair in claim.pairs for r in pair if isinstance(r, str)} <= rows
        assert claim.pairs


def test_throw_and_pick_come_first_and_train_what_the_commands_train():
    jobs = LOADED["fig5"].jobs("short")
    stages = [job.row.partition("-")[0] in ("throw", "pick") for job in jobs]
    assert stages[: stages.index(False)] == [True] * 20
    assert {j.seed for j in jobs if j.row == "throw-ndp"} == {0, 1, 2}
    for job in jobs[:20]:
        row = figures.FIG5_ROWS[job.row]
        plain = shipped(row.task, row.method, row.experiment, "action")
        assert set(differences(plain, job.config)) <= {"seed", "workers", "samples"}


@pytest.mark.parametrize("task", ["throw", "pick", "push", "soccer", "faucet-open"])
def test_methods_are_compared_under_one_configuration(task):
    methods = "ndp", "ppo", "ppo-multi"
    ndp, *others = (shipped(task, method, noise="action") for method in methods)
    for other in others:
        assert other.method in METHODS
        same = dataclasses.replace(
            other, method="ndp", dmp=ndp.dmp, goal_gain=ndp.goal_gain, weight_gain=ndp.weight_gain
        )
        assert same == ndp


@pytest.mark.parametrize("name", ["fig6", "fig7", "fig8", "fig9"])
def test_an_ablation_changes_one_thing(name):
    study = LOADED[name]
    configs = {job.row: job.config for job in study.jobs("full") if job.seed == 0}
    base = configs.pop(study.baseline)
    for row, config in configs.items():
        if (config.task, config.method) == (base.task, base.method):
            changed = set(differences(base, config))
            assert changed in (
                {"k"},
                {"dmp.kernel"},
                {"dmp.n_basis"},
                {"dmp.solver"},
                {"dmp.solver", "dmp.m"},
                {"weight_gain"},
                {"learned_alpha"},
                {"weights", "weight_gain"},
                {"task_options"},
            ), row


def test_a_moving_bin_starts_from_the_policy_of_the_still_one():
    moving, still = (shipped("throw", "ndp", also, noise="action") for also in ("throw-moving", ""))
    assert "moving_bin=true" in moving.task_options
    assert set(differences(moving, still)) <= {
        "samples",
        "task_options",
        "start_from",
        "init_log_std",
        "ppo.learning_rate",
    }
    env = moving.choice.make()
    start_tensors(make_spec(moving, env), moving.start_from)
    env.close()


def test_a_checkpoint_can_be_measured_under_other_conditions(tmp_path):
    config = toy(320)
    train(config, tmp_path / "run", quiet=True)
    last = tmp_path / "run" / "checkpoints" / "last"
    usual = comparison.measure(config, last, Probe(episodes=3))
    longer = comparison.measure(config, last, Probe({"windows": 8}, episodes=3))
    assert longer["return"] != usual["return"]
    assert longer["checkpoint"] == usual["checkpoint"]


def test_only_rows_that_change_one_thing_are_pooled():
    study = LOADED["fig9"]
    by_pair = {claim.pairs: set(study.pooled(claim)) for claim in study.claims}
    ablated = {"throw-base", "throw-alpha", "throw-only-g", "throw-m35", "throw-whitened"}
    assert by_pair[(("throw-base", "throw-alpha"),)] == ablated
    assert by_pair[(("throw-base", "throw-vices-pos"),)] == set()
    assert by_pair[(("pick-ndp", "pick-vices-pos"),)] == set()
    assert not any(LOADED["fig5"].pooled(claim) for claim in LOADED["fig5"].claims)
