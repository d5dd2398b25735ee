# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A run over several ranks computes the numbers of a run in one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_training import TOY, assert_same_run, toy

from ndp_ros import cli
from ndp_ros.training.run import train

pytestmark = pytest.mark.live

HERE = Path(__file__).parent
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--local-addr",
    "127.0.0.1",
    "--nproc-per-node",
    "2",
    "-m",
    "ndp_ros.cli",
]


def torchrun(*arguments: str) -> subprocess.CompletedProcess:
    lonely = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*TORCHRUN, *arguments],
        env=os.environ | lonely | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_two_ranks_resume_a_run_with_the_numbers_of_one_process(tmp_path):
    two = tmp_path / "two"
    train(toy(320, workers=1, task_options=("noise=0.01",)), two, quiet=True)
    flags = ["--config", str(two / "config.yaml"), "--samples", "960", "--out", str(two)]
    done = torchrun("train", TOY, *flags, "--quiet", "--resume")
    assert done.returncode == 0, done.stderr
    train(toy(960, workers=2, task_options=("noise=0.01",)), tmp_path / "one", quiet=True)
    assert_same_run(tmp_path / "one", two)


def test_a_run_that_the_first_rank_refuses_ends_with_its_words_alone(tmp_path):
    train(toy(320, workers=1), tmp_path / "run", quiet=True)
    done = torchrun("train", TOY, "--seed", "7", "--quiet", "--out", str(tmp_path / "run"))
    assert done.returncode != 0
    assert "[rank1]" not in done.stderr
    assert "exists: add --resume" in done.stderr


@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_environment_that_fails_on_any_rank_ends_the_run_in_one_line(rank, tmp_path):
    done = torchrun(
        "train",
        TOY,
        "--samples",
        "960",
        "--environments",
        "2",
        "--workers",
        "1",
        "--preset=",
        "--batch-size",
        "80",
        "--minibatches",
        "4",
        "--quiet",
        "--evaluation-episodes",
        "0",
        "--out",
        str(tmp_path / "run"),
        "--task-options",
        "break_after=3",
        "break_how=raise",
        f"break_rank='{rank}'",
    )
    assert done.returncode != 0
    assert "the toy broke" in done.stderr


@pytest.mark.parametrize("extra", [["--method", "dyn-e"], ["--seeds", "0", "1"]])
def test_torchrun_is_refused_for_other_learners_and_several_seeds(extra, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["train", TOY, *extra]) == 2
    assert "torchrun runs one training by PPO" in capsys.readouterr().err
