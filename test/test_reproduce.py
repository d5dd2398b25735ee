# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp reproduce``: from one command to runs, reports and the results that are committed."""

import csv
import dataclasses
import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from toy_study import queue_of, small_study

from ndp_ros import cli
from ndp_ros.commands import reproduce as command
from ndp_ros.errors import TrainingError
from ndp_ros.paper import STUDIES, claims
from ndp_ros.paper.queue import outcomes
from ndp_ros.training.run import train

RESULTS = Path(__file__).parent.parent / "results"
RECORDED = [name for name in STUDIES if (RESULTS / name / f"{name}.json").is_file()]
IN_PARTS = {"tuning", "segments", "off_policy"}
"""Studies by a protocol that asks for more runs as long as a claim is open."""


def test_every_study_but_those_made_in_parts_is_recorded() -> None:
    assert set(STUDIES) - set(RECORDED) <= IN_PARTS


@pytest.fixture
def small(monkeypatch):
    """A study that the command finds in the place of Figure 5."""
    study = small_study()
    monkeypatch.setattr(command, "load_study", {"fig5": study}.get)
    return study


def test_one_command_makes_a_figure_and_goes_on_where_it_stopped(small, tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    arguments = ["reproduce", "fig5", "--processes", "1", "--runs", str(runs), "--out", str(out)]
    assert cli.main([*arguments, "--report-only", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["experiments"]["fig5"]["missing"] == 6
    assert cli.main([*arguments, "--list"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "missing",
        str(runs / "fig5" / "smoke" / "toy-ndp-0"),
    ]

    # A run that was cut off after its training goes on instead of starting anew.
    job = small.jobs("smoke")[0]
    train(dataclasses.replace(job.config, samples=160), job.folder(runs) / "run", quiet=True)
    assert cli.main([*arguments, "--only", "toy-ndp"]) == 0
    assert "| Toy, ppo | 0 of 2 |" in capsys.readouterr().out
    assert cli.main(arguments) == 0
    assert "| Toy, ndp | 2 of 2 | 320 | 64 |" in capsys.readouterr().out
    names = {"fig5.json", "runs.csv", "curves.csv", "fig5.md", "fig5.png"}
    assert {p.name for p in (out / "fig5").iterdir()} == names
    record = json.loads((out / "fig5" / "fig5.json").read_text())
    assert [r["done"] for r in record["rows"]] == [2, 2, 2]
    assert all(r["result"]["last"]["episodes"] == 3 for r in record["runs"])
    assert len(record["rows"][0]["probes"]["five at once"]) == 2
    judged, held, not_held = record["claims"]
    assert (held["verdict"], not_held["verdict"]) == (claims.HELD, claims.NOT_HELD)
    ndp, ppo = (
        next(r[judged["figure"]] for r in record["rows"] if r["row"] == name)
        for name in ("toy-ndp", "toy-ppo")
    )
    middle, low, high = judged["comparisons"][0]["interval"]
    assert middle == pytest.approx(np.mean(ndp) - np.mean(ppo))
    assert low < middle < high
    verdict = claims.HELD if low > 0 else claims.NOT_HELD if high < 0 else claims.UNDECIDED
    assert judged["verdict"] == verdict
    with (out / "fig5" / "runs.csv").open() as file:
        assert {row["status"] for row in csv.DictReader(file)} == {"done"}


def test_a_report_of_another_scale_replaces_nothing(small, tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    queue_of(small, runs, only=("toy-ndp-0",)).run(1)
    small.report("smoke", outcomes(small.jobs("smoke"), runs), out / "fig5", "first")
    before = {path: path.read_bytes() for path in (out / "fig5").iterdir()}
    with pytest.raises(TrainingError, match="holds 1 runs of scale smoke"):
        small.report("short", outcomes(small.jobs("short"), tmp_path / "empty"), out / "fig5", "")
    capsys.readouterr()
    other = str(tmp_path / "other")
    assert cli.main(["reproduce", "fig5", "--scale", "full", "--runs", other, "--out", str(out)])
    assert "name another folder for those of scale full with --out" in capsys.readouterr().err
    assert not Path(other).exists()
    assert {path: path.read_bytes() for path in (out / "fig5").iterdir()} == before


def test_what_a_report_holds_need_not_be_made_again(small, tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    queue_of(small, runs, only=("toy-ndp-0",)).run(1)
    small.report("smoke", outcomes(small.jobs("smoke"), runs), out / "fig5", "first")
    other = tmp_path / "other"
    arguments = ["reproduce", "fig5", "--runs", str(other), "--out", str(out)]
    assert cli.main([*arguments, "--list"]) == 0
    stands = dict(line.split()[::-1] for line in capsys.readouterr().out.splitlines())
    assert stands.pop(str(other / "fig5" / "smoke" / "toy-ndp-0")) == "recorded"
    assert set(stands.values()) == {"missing"}
    assert cli.main([*arguments, "--list", "--unrecorded"]) == 0
    assert dict(line.split()[::-1] for line in capsys.readouterr().out.splitlines()) == stands
    only = ["--only", "toy-ndp-0", "--unrecorded", "--json"]
    assert cli.main([*arguments, *only]) == 0
    counts = json.loads(capsys.readouterr().out)["experiments"]["fig5"]
    assert (counts["done"], counts["recorded"], counts["missing"]) == (0, 0, 0)
    assert cli.main([*arguments, "--only", "toy-ndp-0", "--report-only", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["experiments"]["fig5"]
    assert (counts["done"], counts["recorded"], counts["missing"]) == (0, 1, 0)


@pytest.mark.parametrize("name", [name for name in RECORDED if name not in IN_PARTS])
def test_committed_results_hold_every_run_that_is_asked_for_as_it_is_asked_for(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(Path(__file__).parent.parent)
    assert cli.main(["reproduce", name, "--scale", "short", "--runs", str(tmp_path), "--list"]) == 0
    stands = dict(line.split()[::-1] for line in capsys.readouterr().out.splitlines())
    assert stands
    assert set(stands.values()) == {"recorded"}, [f for f, s in stands.items() if s == "missing"]


def test_the_page_of_results_counts_the_verdicts_of_the_records():
    root = Path(__file__).parent.parent
    row = re.compile(r"\| (\d+) \| (\d+) \| (\d+) \| \[(\w+)\]\(../results/\w+/README.md\) \|")
    rows = row.findall((root / "docs" / "results.md").read_text())
    page = {name: [int(n) for n in counts] for *counts, name in rows}
    judged = {}
    for name in RECORDED:
        record = json.loads((root / "results" / name / f"{name}.json").read_text())
        verdicts = [claim["verdict"] for claim in record["claims"]]
        kinds = (claims.HELD, claims.NOT_HELD, claims.UNDECIDED)
        judged |= {name: [verdicts.count(kind) for kind in kinds]} if verdicts else {}
    assert page == judged


@pytest.mark.parametrize(
    "arguments",
    [
        ["table3"],
        ["fig5", "--scale", "huge"],
        ["fig5", "--processes", "-1"],
        ["fig5", "--only", "nothing-like-this"],
        ["all", "--only", "throw-ndp"],
        ["fig5", "--executor", "pbs"],
        ["fig7", "--executor-options", "partition", "--only", "push-only-g"],
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments, tmp_path, capsys):
    try:
        status = cli.main(["reproduce", *arguments, "--runs", str(tmp_path)])
    except SystemExit as end:
        status = end.code
    assert status == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in lines if "says nothing" not in line]) == 1


def test_a_full_disk_is_told_with_the_folders_that_were_written_to(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(command, "outcomes", full)
    out = tmp_path / "out"
    arguments = ["--runs", str(tmp_path / "runs"), "--out", str(out), "--report-only"]
    assert cli.main(["reproduce", "fig5", *arguments]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"cannot write to {tmp_path / 'runs'} or {out / 'fig5'}: No space left" in message
