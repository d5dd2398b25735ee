# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A LeRobot data set as demonstrations: joints by name, at the task's rate, or refused."""

import json

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow", reason="needs the extra lerobot")
import pyarrow.parquet as pq  # noqa: E402

from ndp_ros.cli import main  # noqa: E402
from ndp_ros.errors import TrainingError  # noqa: E402
from ndp_ros.observation import field_slice  # noqa: E402
from ndp_ros.training.demonstrations import load  # noqa: E402
from ndp_ros.training.lerobot import read_lerobot  # noqa: E402

TASK, FPS, GOAL = "toy_task:Toy-v0", 40, [0.3, 0.2, 0.0]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three episodes of a second at 40 Hz; the task has a control step of 50 ms."""
    monkeypatch.syspath_prepend("test")
    root = tmp_path / "reach"
    (root / "meta").mkdir(parents=True)
    joints = {"dtype": "float32", "shape": [2], "names": ["right.pos", "left.pos"]}
    info = {"codebase_version": "v3.0", "fps": FPS}
    info["features"] = {"observation.state": joints, "action": joints}
    (root / "meta" / "info.json").write_text(json.dumps(info))
    for episode in range(3):
        t = np.arange(FPS + 1) / FPS
        state = np.stack((0.2 * t, (0.3 + 0.01 * episode) * t), axis=1)
        table = {
            "observation.state": state.tolist(),
            "action": np.concatenate((state[1:], state[-1:])).tolist(),
            "observation.goal": [GOAL] * len(t),
            "next.reward": (-np.ones(len(t))).tolist(),
            "next.success": [False] * FPS + [episode != 1],
            "episode_index": [episode] * len(t),
            "frame_index": list(range(len(t))),
        }
        path = root / "data" / "chunk-000" / f"file-{episode:03}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), path)
    return root


def test_joints_are_taken_by_name_and_resampled_to_the_control_step(folder):
    data = read_lerobot(folder, TASK, columns={"object/goal": "observation.goal"})
    assert data.episodes == 3 and data.starts.tolist() == [0, 21, 42, 63]
    assert data.success.tolist() == [1, 0, 1] and data.returns[0] == -41.0
    fields = data.spec.observation
    position = data.observations[:21, field_slice(fields, "position")]
    t = 0.05 * np.arange(21)
    np.testing.assert_allclose(position, np.stack((0.3 * t, 0.2 * t), axis=1), atol=1e-6)
    velocity = data.observations[:21, field_slice(fields, "velocity")]
    np.testing.assert_allclose(velocity, [[0.3, 0.2]] * 21, atol=1e-6)
    np.testing.assert_allclose(data.observations[5, field_slice(fields, "object/goal")], GOAL)
    # The commands lead from each setpoint to the next.
    setpoint = data.observations[:21, field_slice(fields, "setpoint")]
    moved = data.actions[:20, 0] * np.array(data.spec.action_scale)
    np.testing.assert_allclose(setpoint[:-1] + moved, setpoint[1:], atol=1e-9)


def test_a_clone_learns_from_a_data_set(folder, tmp_path, capsys):
    file = tmp_path / "reach.safetensors"
    words = ["--task", TASK, "--columns", "object/goal=observation.goal", "--k", "5"]
    assert main(["collect", f"lerobot:{folder}", *words, "-o", str(file)]) == 0
    assert "3 episodes, 12 windows, success 0.667" in capsys.readouterr().out
    assert load(file).source == {"lerobot": "reach", "fps": 40.0}
    run = tmp_path / "run"
    words = ["--method", "bc-ndp", "--demonstrations", str(file), "--passes", "3"]
    words += ["--evaluation-episodes", "0", "--holdout", "0", "--quiet"]
    assert main(["train", TASK, *words, "--out", str(run)]) == 0
    rows = (run / "progress.csv").read_text().splitlines()
    assert len(rows) == 4


def test_what_does_not_fit_the_task_is_named(folder, tmp_path):
    with pytest.raises(TrainingError, match=r"column of object/goal.*--columns object/goal=COLUMN"):
        read_lerobot(folder, TASK)
    with pytest.raises(TrainingError, match=r"observation.state has 2 values.* jaco has the"):
        columns = {"object/cube": "observation.goal", "object/bin": "observation.goal"}
        read_lerobot(folder, "throw", columns=columns)
    with pytest.raises(TrainingError, match="is no LeRobot data set"):
        read_lerobot(tmp_path, TASK)
