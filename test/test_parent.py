"""A process that must not outlive who started it, as real processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
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


@pytest.mark.parametrize(
    ("name", "kind"),
    [("any", "tied"), ("any", "free"), ("ros2", "run"), ("ros2", "launch"), ("ros2", "topic")],
)
def test_a_child_ends_with_a_killed_parent_that_asked_for_it_or_is_ros2_run_or_launch(
    name: str, kind: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / name), kind, "ndp_ros"], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    parent.kill()
    parent.wait(PATIENCE)
    goes_on = kind in ("free", "topic")
    try:
        end = time.monotonic() + (1.0 if goes_on else PATIENCE)
        while alive(child) and time.monotonic() < end:
            time.sleep(0.02)
        assert alive(child) == goes_on
    finally:
        if alive(child):
            os.kill(child, 9)


SEEDS = """
import sys
from pathlib import Path
from test_training import toy
from ndp_ros.training.seeds import train_seeds
if __name__ == "__main__":
    train_seeds(toy(10**7), [0], Path(sys.argv[1]), False, "")
"""
QUEUE = """
import os, sys, time
from pathlib import Path
from ndp_ros.training.executors import _by_processes
def work():
    (Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(600)
if __name__ == "__main__":
    _by_processes(work, 2)
"""


@pytest.mark.parametrize(
    ("program", "sign"), [(SEEDS, "*/checkpoints/last"), (QUEUE, "[0-9]*")], ids=["seeds", "queue"]
)
def test_training_in_several_processes_ends_with_the_killed_command(
    program: str, sign: str, tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text(program)
    out = tmp_path / "out"
    out.mkdir()
    here = Path(__file__).parent
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py"), str(out)],
        env={**os.environ, "PYTHONPATH": f"{here}:{here.parent}"}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    children: list[psutil.Process] = []
    try:
        end = time.monotonic() + 4 * PATIENCE
        while not list(out.glob(sign)):
            assert parent.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert children
        parent.kill()
        parent.wait(PATIENCE)
        _, left = psutil.wait_procs(children, timeout=PATIENCE)
        assert not left
    finally:
        parent.kill()
        parent.wait(PATIENCE)
        for child in children:
            if child.is_running():
                child.kill()


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
