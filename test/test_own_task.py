# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The task of docs/own_task.md, taken from the page as a reader would copy it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

PAGE = Path(__file__).parents[1] / "docs" / "own_task.md"


def block(language: str) -> str:
    """Return the page's first block of a language."""
    _, text, *_ = PAGE.read_text(encoding="utf-8").split(f"```{language}\n")
    return text.partition("```")[0]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``ndp`` in a folder that is on no path, as a console script does."""
    program = "import sys; from ndp_ros.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def ndp(folder: Path, *words: str) -> str:
    """Return the output of ``ndp``."""
    done = run(folder, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(folder: Path, *words: str) -> str:
    """Return the one line with which ``ndp`` refuses something."""
    done = run(folder, *words)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hover.py").write_text(block("python"), encoding="utf-8")
    (tmp_path / "hover.yaml").write_text(block("yaml"), encoding="utf-8")
    return tmp_path


def test_a_task_beside_the_working_directory_trains_evaluates_and_is_exported(folder: Path) -> None:
    small = ("--samples", "1280", "--batch-size", "640", "--workers", "1")
    ndp(folder, "train", "hover:Hover-v0", "--method", "ndp", "--config", "hover.yaml", *small)
    best = "runs/Hover-v0-ndp-0/checkpoints/best"
    report = json.loads(ndp(folder, "eval", best, "--episodes", "2", "--json"))
    assert report["task"] == "hover:Hover-v0"
    assert 0.0 < report["return"] < 40.0
    ndp(folder, "export", "runs/Hover-v0-ndp-0", "-o", "hover", "--episodes", "2")
    assert "`hover:Hover-v0`" in (folder / "hover" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--preset", "foo"), "preset: 'foo' is not one of [default]"),
        (("--task-options", "foo=1"), "task option: 'foo' is not one of [arm_speed, "),
        (("--task-options", "latency=100"), "latency is 100"),
    ],
)
def test_presets_and_options_of_an_own_task_are_checked(
    folder: Path, words: tuple[str, ...], message: str
) -> None:
    small = ("--samples", "640", "--batch-size", "640", "--workers", "1", "--quiet")
    assert message in refusal(folder, "train", "hover:Hover-v0", *small, *words)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return 1.0 - np", "raise RuntimeError('my bug')  # ", "RuntimeError: my bug (HOVER:21)"),
        ('"success": self.gap() < 0.03, ', "", "Hover.summary() has ['gap']: success must be in"),
        ("def gap(self):", "def gap(self:", "(HOVER:17)"),
        ("options = {", "options = nothing or {", "'nothing' is not defined (HOVER:13)"),
        (
            ", k=5, render_mode=None, **changes",
            ", render_mode=None",
            "unexpected keyword argument 'k'",
        ),
    ],
)
def test_a_mistake_in_an_own_task_is_named_with_its_place(
    folder: Path, old: str, new: str, message: str
) -> None:
    text = (folder / "hover.py").read_text(encoding="utf-8")
    assert old in text
    (folder / "hover.py").write_text(text.replace(old, new), encoding="utf-8")
    small = ("--samples", "640", "--batch-size", "640", "--workers", "1", "--quiet")
    refused = refusal(folder, "train", "hover:Hover-v0", *small)
    assert message.replace("HOVER", str(folder / "hover.py")) in refused
    assert ("docs/own_task.md" in refused) == ("keyword" in message)
