# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Demonstrations survive the file; cloning reaches its expert and can be resumed."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from toy_task import DOF

from ndp_ros import checkpoint, cli
from ndp_ros.errors import TrainingError
from ndp_ros.observation import field_slice
from ndp_ros.policies import initial_tensors
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.tasks.choice import TaskChoice
from ndp_ros.training import demonstrations
from ndp_ros.training.config import ImitationConfig, RunConfig, make_spec
from ndp_ros.training.demonstrations import Demonstrations
from ndp_ros.training.logs import read_progress
from ndp_ros.training.run import train

TOY = "toy_task:Toy-v0"


def toy(method: str, data: Path | str, **changes: object) -> RunConfig:
    values = {
        "task": TOY,
        "method": method,
        "hidden": (32, 32),
        "preset": "",
        "seed": 1,
        "demonstrations": str(data),
        "checkpoint_every": 20,
        "evaluation_episodes": 20,
        "workers": 1,
        "bc": ImitationConfig(passes=60, step_size=3e-3, windows_per_step=32),
    }
    return RunConfig(**{**values, **changes})


def scripted(episodes: int = 60) -> Demonstrations:
    """An expert that halves the distance to the goal with every window."""
    spec = make_spec(toy("bc-nn", ""), TaskChoice(TOY, 5).make())
    env = TaskChoice(TOY, 5).make()
    goal = field_slice(spec.observation, "object/goal").start
    setpoint = field_slice(spec.observation, "setpoint")
    observations, actions, starts = [], [], [0]
    for seed in range(episodes):
        obs, _ = env.reset(seed=seed)
        over = False
        while not over:
            gap = obs[goal : goal + DOF] - obs[setpoint]
            action = np.tile(0.8 * gap / np.array(spec.action_scale) / 5, (5, 1))
            observations.append(obs)
            actions.append(action)
            obs, _, over, _, info = env.step(action)
        assert info["outcome"]["success"]
        starts.append(len(observations))
    return Demonstrations(
        spec,
        {"checkpoint": "script"},
        np.array(observations),
        np.array(actions),
        np.array(starts),
        np.zeros(episodes),
        np.ones(episodes, np.uint8),
        np.arange(episodes),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "toy.safetensors"
    scripted().save(path)
    return path


def test_saved_demonstrations_equal_loaded_ones(data: Path) -> None:
    loaded, original = demonstrations.load(data), scripted()
    assert loaded.spec == original.spec
    assert loaded.source == original.source
    for name in ("observations", "actions", "starts", "returns", "success", "seeds"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(original, name))


@pytest.mark.parametrize("method", ["bc-ndp", "bc-nn"])
def test_a_clone_succeeds_as_its_expert_does(tmp_path: Path, data: Path, method: str) -> None:
    train(toy(method, data), tmp_path / "run", quiet=True)
    rows = read_progress(tmp_path / "run")
    assert float(rows[-1]["error"]) < 0.05 * float(rows[0]["error"])
    assert float(rows[-1]["holdout_error"]) < 0.1 * float(rows[0]["holdout_error"])
    assert float(rows[-1]["eval_success"]) >= 0.8
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last").spec.method == (
        "ndp" if method == "bc-ndp" else "ppo-multi"
    )


def test_resumed_cloning_equals_uninterrupted_cloning(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy(
        "bc-ndp",
        data,
        evaluation_episodes=0,
        checkpoint_every=4,
        bc=ImitationConfig(passes=10, decay=True),
    )
    train(config, tmp_path / "whole", quiet=True)

    def stop(row: dict) -> None:
        if len(read_progress(tmp_path / "cut")) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", quiet=True, watch=stop)
    train(config, tmp_path / "cut", resume=True, quiet=True)
    for name in ("error", "holdout_error", "learning_rate"):
        curves = [[r[name] for r in read_progress(tmp_path / run)] for run in ("whole", "cut")]
        assert curves[0] == curves[1]


def test_without_held_out_episodes_there_is_no_held_out_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "three.safetensors"
    scripted(3).save(few)
    config = toy("bc-nn", few, evaluation_episodes=0, bc=ImitationConfig(passes=2))
    train(config, tmp_path / "run")
    assert [row["holdout_error"] for row in read_progress(tmp_path / "run")] == ["", ""]
    assert "held out none" in capsys.readouterr().err


def test_a_decaying_step_size_falls_linearly_to_almost_zero(tmp_path: Path, data: Path) -> None:
    bc = ImitationConfig(passes=10, decay=True)
    config = toy("bc-nn", data, evaluation_episodes=0, bc=bc)
    train(config, tmp_path / "run", quiet=True)
    rates = [float(r["learning_rate"]) for r in read_progress(tmp_path / "run")]
    np.testing.assert_allclose(np.diff(rates), -0.1 * bc.step_size, rtol=1e-6)
    assert 0.0 < rates[-1] < 0.1 * bc.step_size


def test_collecting_records_the_expert_and_its_episodes(tmp_path: Path) -> None:
    spec = make_spec(toy("bc-ndp", ""), TaskChoice(TOY, 5).make())
    folder = checkpoint.save(
        tmp_path / "expert", spec, initial_tensors(spec, 0), {"config": {"preset": ""}}
    )
    path = tmp_path / "new" / "data.safetensors"
    assert (
        cli.main(["collect", str(folder), "--episodes", "3", "--seed", "5", "-o", str(path)]) == 0
    )
    got = demonstrations.load(path)
    assert got.episodes == 3
    np.testing.assert_array_equal(got.starts, [0, 4, 8, 12])
    np.testing.assert_array_equal(got.seeds, [5, 6, 7])
    expert = ArrayPolicy(spec, initial_tensors(spec, 0))
    means = [expert.means(obs[None])[0] for obs in got.observations]
    np.testing.assert_allclose(got.actions, means, atol=1e-6)
    assert got.source["checkpoint"] == checkpoint.load(folder).id


def test_a_clone_trains_on_windows_of_a_script(tmp_path: Path) -> None:
    path = tmp_path / "push.safetensors"
    collect = [
        "collect",
        "script:push",
        "--k",
        "5",
        "--noise",
        "0.3",
        "--episodes",
        "3",
        "--task-options",
        "horizon=100",
        "-o",
        str(path),
    ]
    assert cli.main(collect) == 0
    data = demonstrations.load(path)
    assert data.actions.shape == (60, 5, 4)
    assert data.source["script"] == "push"
    assert data.success.all()
    config = RunConfig(
        task="push",
        method="bc-ndp",
        demonstrations=str(path),
        evaluation_episodes=0,
        workers=1,
        task_options=("horizon=100",),
        bc=ImitationConfig(passes=3),
    )
    train(config, tmp_path / "run", quiet=True)
    errors = [float(row["error"]) for row in read_progress(tmp_path / "run")]
    assert errors[-1] < errors[0]


def test_only_tasks_with_scripts_can_be_demonstrated_by_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.safetensors"
    assert cli.main(["collect", "script:throw", "-o", str(file)]) != 0
    assert (
        "'throw' is not one of 53 (a task of your own with expert(obs)," in capsys.readouterr().err
    )
    assert not file.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", ""], "--output is '.', a folder"),
        (["-o", "folder"], "--output is 'folder', a folder"),
        (["-o", "new", "--k", "3"], "k is 3, but the expert's windows have k = 5: leave it out"),
        (["-o", "new", "--k", "5", "--every", "1"], "every is 1, but the expert sees one step"),
        (["-o", "new", "--seed", "-1"], "'-1' is not a whole number"),
    ],
)
def test_collect_refuses_an_unwritable_file_before_any_episode(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demonstrations, "run_episode", lambda *_: pytest.fail("an episode"))
    (tmp_path / "folder").mkdir()
    spec = make_spec(toy("bc-ndp", ""), TaskChoice(TOY, 5).make())
    checkpoint.save(tmp_path / "expert", spec, initial_tensors(spec, 0), {"config": {"preset": ""}})
    with contextlib.suppress(SystemExit):
        assert cli.main(["collect", "expert", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"folder", "expert"}


def test_noise_disturbs_observations_and_not_recorded_actions() -> None:
    spec = make_spec(toy("bc-ndp", ""), TaskChoice(TOY, 5).make())
    expert = ArrayPolicy(spec, initial_tensors(spec, 0))
    env = TaskChoice(TOY, 5).make()
    calm, noisy = (demonstrations.collect(expert, env, [1], {}, noise) for noise in (0.0, 1.0))
    assert not np.allclose(calm.observations[1], noisy.observations[1])
    means = [expert.means(obs[None])[0] for obs in noisy.observations]
    np.testing.assert_allclose(noisy.actions, means, atol=1e-6)


def change(path: Path, out: Path, **arrays: np.ndarray) -> Path:
    with safetensors.safe_open(str(path), framework="numpy") as file:
        metadata = file.metadata()
    tensors = {**safetensors.numpy.load_file(path), **arrays}
    out.write_bytes(safetensors.numpy.save(tensors, metadata))
    return out


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"actions": np.zeros((2, 5, 2))}, "actions has shape"),
        ({"returns": np.full(60, np.nan)}, "returns has values that are not finite"),
        ({"starts": np.zeros(61, np.int64)}, "starts do not increase"),
        ({"extra": np.zeros(1)}, "expected"),
    ],
)
def test_inconsistent_demonstrations_are_refused(
    tmp_path: Path, data: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        demonstrations.load(change(data, tmp_path / "x.safetensors", **arrays))


def test_a_truncated_or_missing_file_is_refused(tmp_path: Path, data: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(data.read_bytes()[:100])
    with pytest.raises(TrainingError, match="truncated or damaged"):
        demonstrations.load(cut)
    with pytest.raises(TrainingError, match="no file of demonstrations"):
        demonstrations.load(tmp_path / "nothing")


def test_demonstrations_of_another_k_are_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(TrainingError, match="k is 5, this task and policy have 4"):
        train(toy("bc-ndp", data, k=4), tmp_path / "run", quiet=True)


def test_imitation_without_demonstrations_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="ndp collect"):
        train(toy("bc-ndp", ""), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
