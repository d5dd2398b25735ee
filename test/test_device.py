# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The device on which torch learns: chosen by name, refused in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ndp_ros import cli
from ndp_ros.errors import ConfigError
from ndp_ros.paper.digits.data import DigitsConfig
from ndp_ros.paper.digits.networks import HEADS, WriterSpec, make_writer
from ndp_ros.paper.digits.training import RESULT, RUN, DigitsRun, train
from ndp_ros.policies.devices import torch_device
from ndp_ros.training.baselines.td3 import TwinDelayed
from ndp_ros.training.config import RunConfig, make_spec

TOY = "toy_task:Toy-v0"


def test_auto_is_the_best_device_that_this_torch_offers() -> None:
    best = "cuda" if torch.cuda.is_available() else "cpu"
    config = RunConfig(task=TOY, preset="", method="ndp-td3", device="auto")
    learner = TwinDelayed(make_spec(config, config.choice.make()), config)
    assert learner.device.type == torch_device("auto").type == best
    assert {p.device.type for p in learner.parameters()} == {best}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("method", ["ndp-td3", "dyn-e"])
def test_cuda_without_cuda_is_one_line_and_leaves_no_run(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    given = ["train", TOY, "--preset", "", "--method", method, "--device", "cuda", "--out", out]
    assert cli.main([*given, "--workers", "1", "--random-steps", "80", "--samples", "2000"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"device is cuda, but this torch ({torch.__version__}) " in line
    assert "it offers cpu" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_digits_on_cuda_without_cuda_are_one_line_and_leave_no_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["reproduce", "table2", "--device", "cuda", "--runs", str(tmp_path / "runs")]
    assert cli.main(given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"device is cuda, but this torch ({torch.__version__}) " in line
    assert "it offers cpu" in line
    assert not (tmp_path / "runs").exists()


def test_an_experiment_without_a_choice_of_device_names_the_one_that_has_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["reproduce", "fig6", "--device", "cpu", "--list"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--device is cpu, but fig6 leaves no choice" in line and "table2" in line


def test_a_run_on_digits_goes_on_though_its_device_is_another_or_is_not_recorded(
    tmp_path: Path,
) -> None:
    config = DigitsRun(data=DigitsConfig(train=20, test=10), epochs=1, batch=20)
    train(config, tmp_path)
    record = json.loads((tmp_path / RUN).read_text())
    assert record["config"].pop("device") == "cpu"
    (tmp_path / RUN).write_text(json.dumps(record))
    (tmp_path / RESULT).unlink()
    train(replace(config, device="auto"), tmp_path)
    assert (tmp_path / RESULT).exists()


@pytest.mark.parametrize("head", ["ndp", "cnn"])
def test_a_writer_computes_and_learns_where_it_has_been_moved(head: str) -> None:
    place = torch.device("meta")  # refuses any tensor that was left behind
    writer = make_writer(WriterSpec(head=head)).to(place)
    images = torch.zeros(4, 40, 40, dtype=torch.uint8, device=place)
    loss = writer.loss(images, torch.zeros(4, 301, 2, device=place))
    loss.backward()
    assert {p.grad.device for p in writer.parameters() if p.grad is not None} == {place}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("head", HEADS)
def test_digits_learnt_on_cuda_are_nearly_those_learnt_on_the_cpu(
    head: str, tmp_path: Path
) -> None:
    config = DigitsRun(WriterSpec(head=head), DigitsConfig(train=60, test=20), epochs=1, batch=20)
    errors = []
    for device in ("cpu", "cuda"):
        train(replace(config, device=device), tmp_path / device)
        errors.append(json.loads((tmp_path / device / RESULT).read_text())["test"]["px2"])
    assert errors[1] == pytest.approx(errors[0], rel=1e-2)


def test_a_method_that_torch_does_not_learn_names_those_that_it_does() -> None:
    config = RunConfig(task=TOY, preset="", method="ppo", device="cuda")
    with pytest.raises(ConfigError, match=r"ppo learns vectors in numpy.* ndp-td3, dyn-e"):
        make_spec(config, config.choice.make())


def test_another_device_is_refused_with_the_names() -> None:
    with pytest.raises(ConfigError, match=r"device.*'tpu'.*cpu, cuda, auto"):
        torch_device("tpu")
