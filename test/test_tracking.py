# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Runs that are reported to Weights & Biases, offline, and filmed while they train."""

import sys
import time

import pytest

from ndp_ros.cli import main

pytestmark = pytest.mark.live

SMALL = (
    "train toy_task:Toy-v0 --method ndp --samples 640 --batch-size 320 --minibatches 2 "
    "--environments 2 --workers 1 --checkpoint-every 1 --evaluation-episodes 1 --quiet"
)


def test_a_run_is_reported_offline_and_filmed_and_continues_as_the_same_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra track")
    pytest.importorskip("imageio_ffmpeg", reason="needs the extra sim")
    monkeypatch.syspath_prepend("test")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "run"
    words = [*SMALL.split(), "--track", "wandb", "--film-every", "2", "--out", str(run)]
    assert main(words) == 0
    (film,) = (run / "films").glob("*.mp4")
    assert film.stem == "640" and film.stat().st_size > 500
    (first,) = (run / "wandb").glob("offline-run-*")
    (log,) = first.glob("*.wandb")
    wanted = (b"eval_success", b"film", b"toy_task:Toy-v0")
    end = time.monotonic() + 60.0
    # Another process, of Weights & Biases, writes the log, and may do so after the run has ended.
    while not all(text in log.read_bytes() for text in wanted):
        assert time.monotonic() < end, log.read_bytes()
        time.sleep(0.1)
    more = [w if w != "640" else "960" for w in words]
    assert main([*more, "--resume"]) == 0
    runs = {path.name.rpartition("-")[2] for path in (run / "wandb").glob("offline-run-*")}
    assert len(runs) == 1, "one run, continued"


def test_a_tracker_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend("test")
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main([*SMALL.split(), "--track", "wandb", "--out", str(tmp_path / "run")]) == 2
    assert "pip install 'ndp_ros[track]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
