# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Children end with their parents; shared memory of killed ROS processes is removed."""

import fcntl
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ndp_ros.processes import (
    SHARED_MEMORY,
    bound_to_this_process,
    remove_stale_shared_memory,
    terminate_with_parent,
)

pytestmark = pytest.mark.live

PATIENCE = 30.0
CHILD = (
    "import sys, time; from ndp_ros.processes import terminate_with_parent; "
    "print('gone' if terminate_with_parent() else 'there', flush=True); time.sleep(60)"
)
PARENT = f"""
import os, subprocess, sys, time
from ndp_ros.processes import bound_to_this_process
tied = {{**os.environ, **(bound_to_this_process() if sys.argv[1] == "tied" else {{}})}}
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
from ndp_ros.paper.workers import run_in_processes
def work():
    (Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(600)
if __name__ == "__main__":
    run_in_processes(work, 2)
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
        env={**os.environ, "PYTHONPATH": f"{here}:{here.parent}"},
        stderr=subprocess.DEVNULL,
    )
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
        env={**os.environ, "NDP_ENDS_WITH": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stdout == "gone\n"


def test_the_wish_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDP_ENDS_WITH", "")
    assert not terminate_with_parent()
    assert "NDP_ENDS_WITH" not in os.environ
    assert bound_to_this_process() == {"NDP_ENDS_WITH": str(os.getpid())}


def make(folder: Path, name: str, age: float = 60.0) -> Path:
    for file in (name, f"sem.{name}_mutex", f"{name}_el"):
        (folder / file).write_bytes(b"")
        os.utime(folder / file, (time.time() - age,) * 2)
    return folder / f"{name}_el"


def test_only_unlocked_and_unmapped_files_are_removed(tmp_path: Path) -> None:
    dead = make(tmp_path, "fastdds_port7411")
    held = make(tmp_path, "fastdds_0123456789abcdef")
    young = make(tmp_path, "fastdds_port7413", age=0.0)
    (tmp_path / "somebody_else_s").write_bytes(b"")
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        removed = remove_stale_shared_memory(tmp_path)
    assert removed == ["fastdds_port7411", "sem.fastdds_port7411_mutex", dead.name]
    assert held.exists() and young.exists() and (tmp_path / "somebody_else_s").exists()
    assert len(list(tmp_path.iterdir())) == 7


def test_a_port_without_a_lock_stays_while_a_process_has_it_in_memory(tmp_path: Path) -> None:
    for name in ("fastdds_port7000", "fastdds_port7002"):
        make(tmp_path, name).unlink()
        (tmp_path / name).write_bytes(b"data")
        os.utime(tmp_path / name, (time.time() - 60.0,) * 2)
    with (tmp_path / "fastdds_port7000").open("rb") as file:
        memory = mmap.mmap(file.fileno(), 4, access=mmap.ACCESS_READ)
    removed = remove_stale_shared_memory(tmp_path)
    assert removed == ["fastdds_port7002", "sem.fastdds_port7002_mutex"]
    memory.close()
    assert remove_stale_shared_memory(tmp_path) == [
        "fastdds_port7000",
        "sem.fastdds_port7000_mutex",
    ]


@pytest.mark.parametrize("prefix", ["fastdds", "fastrtps"])
def test_files_of_both_versions_of_fast_dds_are_removed(tmp_path: Path, prefix: str) -> None:
    make(tmp_path, f"{prefix}_port7411")
    assert remove_stale_shared_memory(tmp_path)[0] == f"{prefix}_port7411"
    assert not list(tmp_path.iterdir())


def test_nothing_of_another_user_is_opened_or_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fastdds_pipe_el")
    (tmp_path / "fastdds_link_el").symlink_to("/dev/zero")
    (tmp_path / "fastdds_folder_el").mkdir()
    theirs = make(tmp_path, "fastdds_theirs")
    if os.geteuid() == 0:
        os.chown(theirs, 65534, 65534)
    else:
        theirs.chmod(0)
    before = sorted(tmp_path.iterdir())
    assert remove_stale_shared_memory(tmp_path) == []
    assert sorted(tmp_path.iterdir()) == before


def names() -> set[str]:
    return {file.name for file in SHARED_MEMORY.iterdir()}


NODE = """
import rclpy
rclpy.init()
node = rclpy.create_node("left_behind")
print("up", flush=True)
try:
    rclpy.spin(node)  # until SIGTERM
except rclpy.executors.ExternalShutdownException:
    pass
"""


@pytest.mark.ros
def test_a_killed_node_s_memory_is_removed_and_a_living_one_s_is_not() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
    environment = {
        **os.environ,
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": "83",
    }
    before = names()
    nodes = []
    try:
        owned = []
        for _ in range(2):
            nodes.append(
                subprocess.Popen(
                    [sys.executable, "-c", NODE], env=environment, stdout=subprocess.PIPE
                )
            )
            assert nodes[-1].stdout is not None and nodes[-1].stdout.readline() == b"up\n"
            # Tests beside this one make and remove memory too.
            maps = Path(f"/proc/{nodes[-1].pid}/maps").read_text()
            mapped = tuple(f for f in names() if "fastdds" in f and f"/dev/shm/{f}" in maps)
            owned.append({f for f in names() - before if f.startswith(mapped)})
            before |= owned[-1]
        if not owned[0]:
            pytest.skip("this ROS uses no shared memory")
        time.sleep(2.5)
        nodes[0].send_signal(signal.SIGKILL)
        nodes[0].wait()
        remove_stale_shared_memory()
        left = names()
        assert not {f for f in owned[0] & left if f.removeprefix("sem.").startswith("fastdds_")}
        assert owned[1] <= left
    finally:
        for node in nodes:
            node.terminate()
            node.wait()
            if node.stdout is not None:
                node.stdout.close()
    remove_stale_shared_memory()
