"""One command makes Figure 5's data and picture; a run can be shipped with its figures."""

import csv
import dataclasses
import json

import pytest
from test_training import TOY, toy

from ndp_ros import checkpoint, cli
from ndp_ros.training import figure5, reproduce
from ndp_ros.training.experiment import METHODS, differences, make_spec, shipped
from ndp_ros.training.run import train
from ndp_ros.training.warm_start import start_tensors


def tiny_jobs(scale):
    return [
        reproduce.Job(name, seed, toy(320, seed=seed, method=row.method))
        for seed in range(2)
        for name, row in figure5.ROWS.items()
    ]


@pytest.fixture
def small(monkeypatch):
    rows = {
        "toy-ndp": figure5.Row(TOY, "ndp", "Toy"),
        "toy-ppo": figure5.Row(TOY, "ppo", "Toy"),
        "other-ndp": figure5.Row(TOY, "ndp", "Other"),
    }
    monkeypatch.setattr(figure5, "ROWS", rows)
    monkeypatch.setattr(figure5, "jobs", tiny_jobs)
    monkeypatch.setattr(figure5, "EPISODES", 3)


def test_one_command_makes_the_figure_and_goes_on_where_it_stopped(small, tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    command = ["reproduce", "figure5", "--processes", "1", "--runs", str(runs), "--out", str(out)]
    assert cli.main([*command, "--report-only", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["experiments"]["figure5"]["missing"] == 6

    # A run that was cut off after its training goes on instead of starting anew.
    job = tiny_jobs("smoke")[0]
    train(dataclasses.replace(job.config, samples=160), runs / job.name / "run", quiet=True)
    assert cli.main(command) == 0
    assert "| Toy, ndp | 2 of 2 | 320 | 64 |" in capsys.readouterr().out
    names = {"figure5.json", "runs.csv", "curves.csv", "figure5.md", "figure5.png"}
    assert {p.name for p in out.iterdir()} == names
    record = json.loads((out / "figure5.json").read_text())
    assert [r["done"] for r in record["rows"]] == [2, 2, 2]
    assert all(r["result"]["last"]["episodes"] == 3 for r in record["runs"])
    with (out / "runs.csv").open() as file:
        assert {row["status"] for row in csv.DictReader(file)} == {"done"}


@pytest.mark.parametrize("scale", reproduce.SCALES)
def test_every_scale_has_every_curve_and_three_seeds_beyond_smoke(scale):
    jobs = figure5.jobs(scale)
    assert len({job.name for job in jobs}) == len(jobs)
    for name, row in figure5.ROWS.items():
        seeds = [job.seed for job in jobs if job.row == name]
        expected = {"smoke": 1, "short": 1 if row.experiment else 3, "full": 10}[scale]
        assert seeds == list(range(expected))


@pytest.mark.parametrize("task", ["throw", "pick"])
def test_methods_are_compared_under_one_configuration(task):
    ndp, *others = (shipped(task, method) for method in ("ndp", "ppo", "ppo-multi"))
    for other in others:
        assert other.method in METHODS
        same = dataclasses.replace(
            other, method="ndp", dmp=ndp.dmp, goal_gain=ndp.goal_gain, weight_gain=ndp.weight_gain
        )
        assert same == ndp


def test_a_moving_bin_starts_from_the_policy_of_the_still_one():
    moving, still = shipped("throw", "ndp", "throw-moving-ndp"), shipped("throw", "ndp")
    assert moving.task_options == ("moving_bin=true",)
    assert set(differences(moving, still)) == {
        "samples", "task_options", "start_from", "init_log_std",
    }  # fmt: skip
    env = moving.choice.make()
    start_tensors(make_spec(moving, env), moving.start_from)
    env.close()


def test_an_exported_checkpoint_has_a_card_and_no_state_of_training(tmp_path, capsys):
    run, out, results = tmp_path / "run", tmp_path / "shipped", tmp_path / "results"
    train(toy(320), run, command="ndp train toy --out here", quiet=True)
    command = ["export", str(run), "-o", str(out), "--results", str(results), "--episodes", "5"]
    assert cli.main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {p.name for p in out.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert checkpoint.load(out).id == report["checkpoint"]
    text = (out / "README.md").read_text()
    assert f"success {report['success_rate']:.3f}" in text
    assert "`ndp train toy`, seed 0" in text
    for path in (out / "config.json", results / "provenance.json"):
        assert '"command": "ndp train toy"' in path.read_text()
    assert "320 control steps of 50 ms, 64 of them observed" in text
    assert len((results / "evaluation.jsonl").read_text().splitlines()) == 5
    assert (results / "curve.png").stat().st_size > 0
    # And the figures are those of ndp eval.
    assert cli.main(["eval", str(out), "--episodes", "5", "--seed", "7", "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["return"] == report["return"]


def test_exporting_what_is_no_run_is_refused_in_one_line(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "no run directory" in capsys.readouterr().err
