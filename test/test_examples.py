# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The examples run as a reader would run them, and each prints its figure."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

EXAMPLES = Path(__file__).parents[1] / "examples"
RUNS = {
    "supervised_fit": (("--steps", "60"), r"step    59  held-out error 0\.\d+"),
    "demonstration": ((), r"fit: 1\.\d+ mrad rms(?s:.*)goal \[1\.6 0\.2\]: ends 0\.\d mrad"),
    "own_task": (("--samples", "1280"), r"success \d\.\d\d, return \d+\.\d\d"),
    "own_environment": (("--samples", "1280"), r"success \d\.\d\d, return -\d+\.\d\d"),
    "roll_out": (("--episodes", "1"), r"seed 0: success after 160 ticks"),
    "read_recording": ((), r"161 samples over 1\.60 s, success(?s:.*)4 segments(?s:.*)cube: from"),
    "lerobot_chunks": ((), r"largest steps: \d\.\de.\d\d rad/s"),
    "sb3_ppo": (("--segments", "512"), r"mean return of the last \d+ episodes"),
}
"""Arguments that make an example short, and a pattern of its output."""


def test_every_example_is_run_and_named_in_the_list():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == set(RUNS)
    listed = re.findall(r"^\| \[(\w+)\.py\]", (EXAMPLES / "README.md").read_text(), re.M)
    assert sorted(listed) == sorted(names)


@pytest.mark.parametrize("name", RUNS)
def test_an_example_has_fewer_than_a_hundred_lines_and_explains_itself(name):
    text = (EXAMPLES / f"{name}.py").read_text()
    assert len(text.splitlines()) < 100
    assert len(ast.get_docstring(ast.parse(text)).split()) > 20


@pytest.mark.parametrize("name", RUNS)
def test_an_example_runs(name, tmp_path):
    words, pattern = RUNS[name]
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", EXAMPLES / f"{name}.py", *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(pattern, done.stdout), done.stdout


@pytest.mark.parametrize("name", ["dmp", "policy"])
def test_a_notebook_has_outputs_and_its_code_runs(name, tmp_path):
    cells = json.loads((EXAMPLES / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    kinds = {kind for cell in code for o in cell["outputs"] for kind in o.get("data", [])}
    assert "image/png" in kinds
    assert not [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"]
    text = "\n".join("".join(cell["source"]) for cell in code).replace("%matplotlib inline", "")
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
