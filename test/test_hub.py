# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Checkpoints on a hub: pushed with a card, pulled with every check, refused in one line."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from ndp_ros import checkpoint
from ndp_ros.cli import main
from ndp_ros.paths import find_checkpoint


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder in the place of the hub."""
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    root = tmp_path / "hub"

    class Api:
        def create_repo(self, repo, private, exist_ok):
            (root / repo).mkdir(parents=True, exist_ok=exist_ok)
            return f"hub:{repo}{' (private)' if private else ''}"

        def upload_folder(self, repo_id, folder_path, commit_message):
            assert commit_message.endswith("ndp on throw")
            shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)

    def download(repo, revision, local_dir):
        if not (root / repo).is_dir():
            raise FileNotFoundError(f"404: no {repo} at {revision}")
        shutil.copytree(root / repo, local_dir, dirs_exist_ok=True)
        return local_dir

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return root


def assert_same(folder: Path) -> None:
    pulled, first = checkpoint.load(folder), checkpoint.load(find_checkpoint("jaco_throw"))
    assert pulled.spec == first.spec
    for name, array in first.tensors.items():
        np.testing.assert_array_equal(pulled.tensors[name], array)


def test_a_checkpoint_goes_to_the_hub_and_back(hub, tmp_path, capsys):
    assert main(["hub", "push", "jaco_throw", "lab/throw", "--private"]) == 0
    assert capsys.readouterr().out == "hub:lab/throw (private)\n"
    card = (hub / "lab/throw/README.md").read_text()
    assert card.startswith("---\nlibrary_name: ndp_ros\n") and "\n# jaco_throw\n" in card
    assert main(["hub", "pull", "lab/throw", "-o", str(tmp_path / "throw")]) == 0
    assert_same(tmp_path / "throw")


def test_a_folder_serves_as_a_hub(tmp_path):
    shared = str(tmp_path / "shared" / "throw")
    assert main(["hub", "push", "jaco_throw", shared]) == 0
    assert main(["hub", "pull", shared, "-o", str(tmp_path / "throw")]) == 0
    assert_same(tmp_path / "throw")


def test_a_damaged_or_missing_checkpoint_is_refused_in_one_line(hub, tmp_path, capsys):
    assert main(["hub", "pull", "lab/none", "-o", str(tmp_path / "a"), "--revision", "v2"]) == 2
    assert "the hub refuses lab/none (404: no lab/none at v2)" in capsys.readouterr().err
    assert main(["hub", "push", "jaco_throw", "lab/throw"]) == 0
    (hub / "lab/throw/model.safetensors").write_bytes(b"no tensors")
    assert main(["hub", "pull", "lab/throw", "-o", str(tmp_path / "b")]) == 2
    assert not (tmp_path / "b").exists()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("all of it")
    assert main(["hub", "pull", "lab/throw", "-o", str(tmp_path / "c")]) == 2
    assert "holds something else" in capsys.readouterr().err
