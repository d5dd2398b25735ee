# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp hub``: push a checkpoint to the Hugging Face hub or a shared folder, and pull one."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from ndp_ros import checkpoint
from ndp_ros.errors import CheckpointError, describe
from ndp_ros.files import require_folder
from ndp_ros.paths import find_checkpoint

_EPILOG = """\
REPO is OWNER/NAME on the hub, or a folder that begins with '.' or '/', such as one on a shared
disk. The hub takes the token of `hf auth login` or of the variable HF_TOKEN. What is pulled is
checked as every checkpoint is, and none of it is executed.

examples:
  ndp hub push runs/throw-ndp-0 mylab/throw --private
  ndp hub pull mylab/throw -o throw && ndp eval throw
  ndp hub push throw /srv/checkpoints/throw
"""

_FRONT = """\
---
library_name: ndp_ros
pipeline_tag: robotics
tags:
- robotics
- reinforcement-learning
- {method}
- {task}
---
"""
"""Head of the card, by which the hub sorts."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="push|pull")
    push_parser = verbs.add_parser("push", help="send a checkpoint")
    push_parser.add_argument("checkpoint", help="checkpoint folder, run, or one that ships")
    push_parser.add_argument("repo", help="OWNER/NAME, or a folder")
    push_parser.add_argument("--private", action="store_true", help="make a new repo private")
    pull_parser = verbs.add_parser("pull", help="fetch a checkpoint")
    pull_parser.add_argument("repo", help="OWNER/NAME, or a folder")
    pull_parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder"
    )
    pull_parser.add_argument("--revision", metavar="REV", help="branch, tag or commit of the hub")


def main(args: argparse.Namespace) -> int:
    """Push or pull, and print where the checkpoint is."""
    if args.verb == "push":
        where = push(find_checkpoint(args.checkpoint), args.repo, args.private)
    else:
        where = str(pull(args.repo, args.output, args.revision))
    sys.stdout.write(f"{where}\n")
    return 0


def push(folder: Path, repo: str, private: bool = False) -> str:
    """Send a checkpoint and return its address.

    Raises:
        CheckpointError: If it is damaged or the hub refuses.
    """
    saved = checkpoint.load(folder)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "checkpoint"
        shutil.copytree(folder, copy)
        card = copy / checkpoint.CARD
        text = card.read_text(encoding="utf-8") if card.exists() else f"# {repo}\n"
        front = _FRONT.format(method=saved.spec.method, task=saved.spec.task)
        if not text.startswith("---\n"):
            card.write_text(f"{front}{text}", encoding="utf-8")
        if _is_folder(repo):
            checkpoint.require_replaceable(Path(repo))
            shutil.copytree(copy, repo, dirs_exist_ok=True)
            return repo
        from huggingface_hub import HfApi

        api = HfApi()
        try:
            address = api.create_repo(repo, private=private, exist_ok=True)
            message = f"{saved.id}, {saved.spec.method} on {saved.spec.task}"
            api.upload_folder(repo_id=repo, folder_path=copy, commit_message=message)
        except Exception as error:  # of two HTTP clients and the hub's own
            raise _refused(repo, error) from error
        return str(address)


def pull(repo: str, output: Path, revision: str | None = None) -> Path:
    """Fetch a checkpoint into a folder and return the folder.

    Raises:
        CheckpointError: If there is none, it is damaged, or the output holds something else.
    """
    require_folder(output, "--output")
    checkpoint.require_replaceable(output)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(repo)
        if not _is_folder(repo):
            from huggingface_hub import snapshot_download

            try:
                source = Path(snapshot_download(repo, revision=revision, local_dir=scratch))
            except Exception as error:  # of two HTTP clients and the hub's own
                raise _refused(repo, error) from error
        saved = checkpoint.load(source)
        card = source / checkpoint.CARD
        text = card.read_text(encoding="utf-8") if card.exists() else None
        return checkpoint.save(output, saved.spec, saved.tensors, saved.provenance, text)


def _is_folder(repo: str) -> bool:
    return repo.startswith((".", "/"))


def _refused(repo: str, error: Exception) -> CheckpointError:
    """Return the error for a hub that cannot be reached or refuses."""
    text = str(error).strip().partition("\n")[0] or describe(error)
    return CheckpointError(f"the hub refuses {repo} ({text}): check the name and `hf auth login`")
