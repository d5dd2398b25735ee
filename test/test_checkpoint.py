# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A checkpoint is complete, checked and replaced in one step, or it is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from ndp_ros import checkpoint, load_policy
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import CheckpointError
from ndp_ros.nodes.phi import Phi
from ndp_ros.observation import arm_observation, field_slice, observation_size
from ndp_ros.policies import PolicySpec, initial_tensors
from ndp_ros.policies.layout import VARIANCE

pytestmark = pytest.mark.live


def make_spec(method: str = "ndp", **changes: object) -> PolicySpec:
    values = {
        "method": method,
        "task": "throw",
        "arm": "jaco",
        "joint_names": ("a", "b"),
        "observation": arm_observation(2, ["cube"]),
        "control_dt": 0.05,
        "k": 1 if method == "ppo" else 5,
        "action_scale": (0.05, 0.15),
        "hidden": (8, 8),
    }
    return PolicySpec(**{**values, **changes})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    spec = make_spec()
    return checkpoint.save(tmp_path / "throw", spec, initial_tensors(spec, 1), {"seed": 1})


def rewrite(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    (folder / checkpoint.MODEL).write_bytes(safetensors.numpy.save(tensors))


SEGMENTS = {"noise": "segment", "curves": 3, "dmp": DmpConfig(n_basis=4, forcing="free")}


@pytest.mark.parametrize(
    ("method", "changes"), [("ndp", {}), ("ndp", SEGMENTS), ("ppo", {}), ("ppo-multi", {})]
)
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, method: str, changes: dict) -> None:
    spec = make_spec(method, **changes)
    tensors = initial_tensors(spec, 3)
    loaded = checkpoint.load(checkpoint.save(tmp_path / "x", spec, tensors, {"seed": 3}))
    assert loaded.spec == spec
    assert loaded.provenance == {"seed": 3}
    assert loaded.tensors.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(loaded.tensors[name], value)


def test_a_policy_that_draws_segments_yields_goal_and_weights_on_the_robot(tmp_path: Path) -> None:
    spec = make_spec(**SEGMENTS)
    rng = np.random.default_rng(0)
    tensors = {n: rng.uniform(0.1, 0.7, a.shape) for n, a in initial_tensors(spec, 1).items()}
    folder = str(checkpoint.save(tmp_path / "drawn", spec, tensors))
    obs = rng.normal(size=observation_size(spec.observation))
    g, w = Phi(folder, "jaco")(obs)
    segment = load_policy(folder).segment(obs)
    np.testing.assert_allclose(g, segment.g, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(w, segment.w, rtol=1e-4, atol=1e-4)
    assert np.abs(w).max() > 0.1
    assert segment.config.forcing == "free"
    # Executed from the observed setpoint they are the displacements that the policy learnt with.
    y0 = obs[field_slice(spec.observation, "setpoint")]
    yd0 = obs[field_slice(spec.observation, "setpoint_velocity")]
    ends = spec.control_dt * np.arange(1, spec.k + 1)
    y = segment.bind(y0, yd0).setpoints(ends)[:, 0]
    expected = y0 + np.cumsum(load_policy(folder).actions(obs), axis=0)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_ids_differ_when_numbers_differ(tmp_path: Path) -> None:
    spec = make_spec()
    ids = {
        checkpoint.load(checkpoint.save(tmp_path / f"{s}", spec, initial_tensors(spec, s))).id
        for s in (1, 2)
    }
    assert len(ids) == 2


def test_saving_again_replaces_the_folder_and_leaves_nothing_beside_it(saved: Path) -> None:
    spec = make_spec()
    checkpoint.save(saved, spec, initial_tensors(spec, 2), {"seed": 2}, card="made for a test")
    assert checkpoint.load(saved).provenance == {"seed": 2}
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_failed_save_leaves_the_old_checkpoint(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.save(saved, make_spec(), initial_tensors(make_spec(), 9))
    monkeypatch.undo()
    assert checkpoint.load(saved).provenance == {"seed": 1}
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("irreplaceable")
    with pytest.raises(CheckpointError, match="something else"):
        checkpoint.save(tmp_path, make_spec(), initial_tensors(make_spec(), 0))
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("missing", [checkpoint.MODEL, checkpoint.CONFIG])
def test_a_missing_file_is_named(saved: Path, missing: str) -> None:
    (saved / missing).unlink()
    with pytest.raises(CheckpointError, match=missing):
        checkpoint.load(saved)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        checkpoint.load(tmp_path / "nowhere")


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_numbers_are_refused(saved: Path, part: float) -> None:
    data = (saved / checkpoint.MODEL).read_bytes()
    (saved / checkpoint.MODEL).write_bytes(data[: int(part * len(data))])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        checkpoint.load(saved)


def test_nan_is_refused_and_its_tensor_named(saved: Path) -> None:
    tensors = initial_tensors(make_spec(), 1)
    tensors["actor.1.bias"][0] = np.nan
    rewrite(saved, tensors)
    with pytest.raises(CheckpointError, match=r"actor\.1\.bias.*not finite"):
        checkpoint.load(saved)


def test_a_misshapen_tensor_is_refused(saved: Path) -> None:
    tensors = initial_tensors(make_spec(), 1)
    tensors["log_std"] = np.zeros(3, np.float32)
    rewrite(saved, tensors)
    with pytest.raises(CheckpointError, match=r"log_std has shape \(3,\), expected \(2,\)"):
        checkpoint.load(saved)


def test_missing_and_unknown_tensors_are_refused(saved: Path) -> None:
    tensors = initial_tensors(make_spec(), 1)
    tensors["surprise"] = tensors.pop("critic.0.bias")
    rewrite(saved, tensors)
    with pytest.raises(CheckpointError, match=r"critic\.0\.bias is missing"):
        checkpoint.load(saved)


def test_numbers_of_another_checkpoint_are_refused(saved: Path) -> None:
    rewrite(saved, initial_tensors(make_spec(), 2))
    with pytest.raises(CheckpointError, match="not the file"):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema 99"),
        ({"spec": None}, "no spec"),
        ({"spec": {"method": "magic"}}, "needs task"),
        ({"model_sha256": None}, "no model_sha256"),
        ({"padding": "x" * (80 << 20)}, "larger than 4194304 bytes"),
    ],
)
def test_a_wrong_configuration_is_refused(
    saved: Path, change: dict[str, object], message: str
) -> None:
    path = saved / checkpoint.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action_scale": [1e300, 0.1]}, r"action_scale is 1e\+300"),
        ({"control_dt": 1e-4}, "control_dt is 0.0001"),
        ({"joint_names": ["a", "a"]}, "joint_names has a name twice: a, a"),
        ({"hidden": [10**9, 10**9]}, "shape"),
    ],
)
def test_a_specification_that_no_arm_can_follow_is_refused(
    saved: Path, change: dict[str, object], message: str
) -> None:
    path = saved / checkpoint.CONFIG
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "spec": {**config["spec"], **change}}))
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(saved)


def test_a_model_larger_than_its_specification_is_not_read(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (saved / checkpoint.MODEL).open("ab") as file:
        file.truncate(80 << 20)
    monkeypatch.setattr("safetensors.deserialize", None)  # reached by nothing
    with pytest.raises(CheckpointError, match="larger than"):
        checkpoint.load(saved)


def test_a_variance_of_joints_that_never_moved_is_refused(saved: Path) -> None:
    tensors = initial_tensors(make_spec(), 1)
    tensors[VARIANCE][:] = 0.0
    rewrite(saved, tensors)
    with pytest.raises(CheckpointError, match="0 for every position"):
        checkpoint.load(saved)


def test_an_object_that_never_moved_has_a_variance_of_zero(tmp_path: Path) -> None:
    spec = make_spec()
    tensors = initial_tensors(spec, 1)
    tensors[VARIANCE][field_slice(spec.observation, "object/cube")] = 0.0
    checkpoint.load(checkpoint.save(tmp_path / "still", spec, tensors))


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"'])
def test_a_configuration_that_is_no_object_is_refused(saved: Path, text: str) -> None:
    (saved / checkpoint.CONFIG).write_text(text)
    with pytest.raises(CheckpointError):
        checkpoint.load(saved)


def test_a_checkpoint_for_another_arm_is_refused(saved: Path) -> None:
    loaded = checkpoint.load(saved)
    loaded.require_arm("jaco", ["a", "b"])
    with pytest.raises(CheckpointError, match="'jaco', not 'gen3'"):
        loaded.require_arm("gen3", ["a", "b"])
    with pytest.raises(CheckpointError, match="drives joints"):
        loaded.require_arm("jaco", ["a", "b", "c"])


def test_errors_are_one_line(saved: Path) -> None:
    (saved / checkpoint.MODEL).write_bytes(b"\x08\0\0\0\0\0\0\0{\n\n\n\n\n}")
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(saved)
    assert "\n" not in str(caught.value)


def test_loading_needs_no_torch(saved: Path) -> None:
    code = (
        "import sys; from ndp_ros import checkpoint; checkpoint.load(sys.argv[1]);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(saved)], check=True)
