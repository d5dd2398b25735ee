"""A process that must not outlive who started it, as real processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ndp_ros.parent import end_with_parent, ends_with_me

PATIENCE = 30.0
CHILD = (
    "import sys, time; from ndp_ros.parent import end_with_parent; "
    "print('gone' if end_with_parent() else 'there', flush=True); time.sleep(60)"
)
PARENT = f"""
import os, subprocess, sys, time
from ndp_ros.parent import ends_with_me
tied = {{**os.environ, **(ends_with_me() if sys.argv[1] == "tied" else {{}})}}
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], env=tied, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("kind", ["tied", "free"])
def test_only_a_child_that_was_asked_to_ends_with_a_killed_parent(kind: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, kind], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    parent.kill()
    parent.wait(PATIENCE)
    try:
        end = time.monotonic() + (PATIENCE if kind == "tied" else 1.0)
        while alive(child) and time.monotonic() < end:
            time.sleep(0.02)
        assert alive(child) == (kind == "free")
    finally:
        if alive(child):
            os.kill(child, 9)


def test_a_parent_that_ended_before_is_noticed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD.replace("time.sleep(60)", "")],
        env={**os.environ, "NDP_ENDS_WITH": "1"}, capture_output=True, text=True, check=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.stdout == "gone\n"


def test_the_wish_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDP_ENDS_WITH", "")
    assert not end_with_parent()
    assert "NDP_ENDS_WITH" not in os.environ
    assert ends_with_me() == {"NDP_ENDS_WITH": str(os.getpid())}
