# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Sweeps: values are drawn for any option, and a study goes on where it stopped."""

import sqlite3

import pytest

pytest.importorskip("optuna", reason="needs the extra sweep")

from ndp_ros.cli import main
from ndp_ros.commands.sweep import STUDY, Dimension, dimension
from ndp_ros.errors import TrainingError
from ndp_ros.files import read_yaml
from ndp_ros.training.logs import read_progress

pytestmark = pytest.mark.live

SMALL = [
    "toy_task:Toy-v0",
    "--method",
    "ndp",
    "--samples",
    "320",
    "--batch-size",
    "160",
    "--minibatches",
    "2",
    "--environments",
    "2",
    "--workers",
    "1",
    "--checkpoint-every",
    "1",
    "--evaluation-episodes",
    "2",
]


def test_a_study_resumes_and_keeps_its_trials(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend("test")
    out = tmp_path / "sweep"
    over = ("--over", "learning-rate=1e-4..1e-2:log", "k=2,5", "--out", str(out))
    assert main(["sweep", *SMALL, *over, "--trials", "1"]) == 0
    assert main(["sweep", *SMALL, *over, "--trials", "2"]) == 0
    assert {path.name for path in out.iterdir()} == {STUDY, "trial-0000", "trial-0001"}
    with sqlite3.connect(out / STUDY) as study:
        rows = study.execute("select trial_id, param_name, param_value from trial_params")
        drawn = {(trial, name): value for trial, name, value in rows}
    for trial in (0, 1):
        config = read_yaml(out / f"trial-{trial:04}" / "config.yaml")
        assert config["ppo"]["learning_rate"] == pytest.approx(drawn[trial + 1, "learning_rate"])
        assert config["k"] in (2, 5)
    assert capsys.readouterr().out.count("trial-0001") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learning-rate=1e-5..1e-3:log", Dimension("learning_rate", (), 1e-5, 1e-3, log=True)),
        ("minibatches=4..32", Dimension("minibatches", (), 4.0, 32.0, whole=True)),
        ("kernel=gaussian,linear", Dimension("kernel", ("gaussian", "linear"))),
    ],
)
def test_a_range_is_read_with_the_type_of_its_option(text, expected):
    assert dimension(text) == expected


@pytest.mark.parametrize(
    "text", ["k", "k=5", "k=5..2", "alpha=0..2:log", "alpha=1..x", "nope=1..2"]
)
def test_what_is_no_range_of_an_option_is_refused(text):
    with pytest.raises(TrainingError, match="--over"):
        dimension(text)


def test_a_figure_that_the_log_lacks_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend("test")
    words = ("--over", "k=2,5", "--figure", "glory", "--out", str(tmp_path / "s"))
    assert main(["sweep", *SMALL, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--figure: 'glory' is not one of" in line
    assert not (tmp_path / "s").exists()


def test_batches_between_evaluations_are_no_part_of_the_search(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend("test")
    words = ("--over", "k=2,5", "--trials", "1", "--out", str(tmp_path / "s"))
    assert main(["sweep", *SMALL, "--checkpoint-every", "2", *words]) == 0
    rows = read_progress(tmp_path / "s" / "trial-0000")
    assert [row["eval_success"] != "" for row in rows] == [False, True]
    assert "Traceback" not in capsys.readouterr().err
