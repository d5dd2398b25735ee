# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A run can be shipped: the policy alone, measured, with a card."""

import json

import pytest
from test_imitation import scripted
from test_imitation import toy as clone
from test_training import toy

from ndp_ros import checkpoint, cli
from ndp_ros.commands import export
from ndp_ros.training.config import ImitationConfig
from ndp_ros.training.run import train


def test_an_exported_checkpoint_has_a_card_and_no_state_of_training(tmp_path, capsys):
    run, out, results = tmp_path / "run", tmp_path / "shipped", tmp_path / "results"
    train(toy(320), run, command="ndp train toy", quiet=True)
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


def test_a_clone_ships_without_the_folders_of_its_demonstrations(tmp_path):
    data, run = tmp_path / "secret" / "shown" / "five.safetensors", tmp_path / "run"
    scripted(8).save(data)
    train(clone("bc-ndp", data, bc=ImitationConfig(passes=2)), run, quiet=True)
    out, results = tmp_path / "shipped", tmp_path / "results"
    command = ["export", str(run), "-o", str(out), "--results", str(results), "--episodes", "2"]
    assert cli.main(command) == 0
    for folder in (out, results):
        for path in folder.glob("*.[jymM]*"):
            if path.suffix != ".safetensors":
                assert "secret" not in path.read_text()
    assert checkpoint.load(out).provenance["config"]["demonstrations"] == "shown/five.safetensors"
    assert "demonstrations: shown/five.safetensors" in (results / "config.yaml").read_text()
    assert "control steps of demonstrations, with repetition" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "file"], "--output is 'file', but file is no folder"),
        (["-o", "file/new"], "file is no folder"),
        (["-o", ""], "--output is '.': name a new folder"),
        (["-o", "other"], "other holds something else"),
        (["-o", "new", "--results", "file"], "--results is 'file', but file is no folder"),
        (["-o", "new", "--results", "results"], "no values of eval_success yet"),
    ],
)
def test_export_refuses_what_it_could_not_write_before_any_episode(
    tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    train(toy(320, evaluation_episodes=0), tmp_path / "run", quiet=True)
    monkeypatch.setattr(export, "measure", lambda *_: pytest.fail("an episode"))
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    assert cli.main(["export", "run", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"run", "file", "other"}


def test_exporting_what_is_no_run_is_refused_in_one_line(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "no run directory" in capsys.readouterr().err
