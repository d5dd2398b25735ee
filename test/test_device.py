"""The device on which torch learns: chosen by name, refused in one line."""

from pathlib import Path

import pytest
import torch

from ndp_ros import cli
from ndp_ros.errors import ConfigError
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


def test_a_method_that_torch_does_not_learn_names_those_that_it_does() -> None:
    config = RunConfig(task=TOY, preset="", method="ppo", device="cuda")
    with pytest.raises(ConfigError, match=r"ppo learns vectors in numpy.* ndp-td3, dyn-e"):
        make_spec(config, config.choice.make())


def test_another_device_is_refused_with_the_names() -> None:
    with pytest.raises(ConfigError, match=r"device.*'tpu'.*cpu, cuda, auto"):
        torch_device("tpu")
