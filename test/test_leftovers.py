"""What a killed ROS process leaves in shared memory is removed, what a living one uses is not."""

import fcntl
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ndp_ros.leftovers import SHARED_MEMORY, clear_leftovers


def make(folder: Path, name: str, age: float = 60.0) -> Path:
    for file in (name, f"sem.{name}_mutex", f"{name}_el"):
        (folder / file).write_bytes(b"")
        os.utime(folder / file, (time.time() - age,) * 2)
    return folder / f"{name}_el"


def test_only_what_nobody_holds_is_removed(tmp_path: Path) -> None:
    dead = make(tmp_path, "fastdds_port7411")
    held = make(tmp_path, "fastdds_0123456789abcdef")
    young = make(tmp_path, "fastdds_port7413", age=0.0)
    (tmp_path / "somebody_else_s").write_bytes(b"")
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        removed = clear_leftovers(tmp_path)
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
    removed = clear_leftovers(tmp_path)
    assert removed == ["fastdds_port7002", "sem.fastdds_port7002_mutex"]
    memory.close()
    assert clear_leftovers(tmp_path) == ["fastdds_port7000", "sem.fastdds_port7000_mutex"]


@pytest.mark.parametrize("prefix", ["fastdds", "fastrtps"])
def test_files_of_both_versions_of_fast_dds_are_removed(tmp_path: Path, prefix: str) -> None:
    make(tmp_path, f"{prefix}_port7411")
    assert clear_leftovers(tmp_path)[0] == f"{prefix}_port7411"
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
    assert clear_leftovers(tmp_path) == []
    assert sorted(tmp_path.iterdir()) == before


def names() -> set[str]:
    return {file.name for file in SHARED_MEMORY.iterdir()}


NODE = """
import rclpy, time
rclpy.init()
node = rclpy.create_node("left_behind")
print("up", flush=True)
time.sleep(60.0)
"""


@pytest.mark.ros
def test_a_killed_node_s_memory_is_removed_and_a_living_one_s_is_not() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2 (or its wheels)")
    environment = {
        **os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": "83",
    }  # fmt: skip
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
            owned.append({f for f in names() - before if "fastdds" in f})
            before |= owned[-1]
        if not owned[0]:
            pytest.skip("this ROS uses no shared memory")
        time.sleep(2.5)
        nodes[0].send_signal(signal.SIGKILL)
        nodes[0].wait()
        clear_leftovers()
        left = names()
        assert not {f for f in owned[0] & left if f.removeprefix("sem.").startswith("fastdds_")}
        assert owned[1] <= left
    finally:
        for node in nodes:
            node.terminate()
            node.wait()
            if node.stdout is not None:
                node.stdout.close()
    clear_leftovers()
