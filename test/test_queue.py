# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The queue of runs: its order, its locks, its workers and what becomes of runs that they lose."""

import fcntl
import functools
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from toy_study import Script, done, queue_of

from ndp_ros.errors import TrainingError
from ndp_ros.paper import load_study
from ndp_ros.paper.queue import LOCK, outcomes, select
from ndp_ros.paper.workers import run_in_processes

pytestmark = pytest.mark.live


def status(queue):
    return {o.job.seed: o.status for o in outcomes(queue.jobs, queue.root)}


def test_a_failed_run_stops_no_other_and_is_tried_again(tmp_path):
    attempts = []

    def work(job, folder):
        attempts.append(job.seed)
        if job.seed == 1 and attempts.count(1) == 1:
            raise ValueError("bad luck")
        done(job, folder)

    queue = queue_of(Script(work), tmp_path)
    queue.run(1)
    assert status(queue) == {0: "done", 1: "failed", 2: "done"}
    assert outcomes(queue.jobs, tmp_path)[0].error == "ValueError: bad luck"
    queue.run(1)
    assert set(status(queue).values()) == {"done"}
    assert attempts == [1, 2, 0, 1]


def test_a_run_under_way_elsewhere_is_left_alone(tmp_path):
    worked = []
    study = Script(lambda job, folder: worked.append(job.seed))
    folder = tmp_path / "script" / "smoke" / "row-1"
    folder.mkdir(parents=True)
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        queue_of(study, tmp_path).run(1)
    assert worked == [2, 0]


def test_a_run_comes_after_what_it_needs_and_fails_with_it(tmp_path):
    worked = []

    def work(job, folder):
        worked.append(job.seed)
        if job.seed == 0 and len(worked) < 4:
            raise TrainingError("no expert")
        done(job, folder)

    queue = queue_of(Script(work, needs=(1,)), tmp_path)
    queue.run(1)
    assert worked == [0, 2]
    (failed,) = [o for o in outcomes(queue.jobs, tmp_path) if o.job.seed == 1]
    assert failed.error == "needs row-0, which failed"
    worked += [9, 9]
    queue.run(1)
    assert worked[4:] == [0, 1]


def test_a_part_of_the_queue_brings_what_it_needs(tmp_path):
    jobs = Script(done, needs=(1,)).jobs("smoke")
    assert [j.name for j in select(jobs, only=("row-1",))] == ["row-0", "row-1"]
    assert [j.name for j in select(jobs, without=("row-0", "row-2"))] == ["row-0", "row-1"]
    with pytest.raises(TrainingError, match="rows"):
        select(jobs, only=("rows",))


@pytest.mark.timeout(60)
def test_the_queue_ends_when_its_last_workers_end_while_they_are_looked_at(monkeypatch):
    look = BaseProcess.is_alive

    def looked_at_slowly(worker: BaseProcess) -> bool:
        alive = look(worker)
        if alive:
            worker.join(30.0)  # the pause of a busy machine between two looks
        return alive

    monkeypatch.setattr(BaseProcess, "is_alive", looked_at_slowly)
    run_in_processes(functools.partial(time.sleep, 0.0), 2)


def test_submitit_works_through_the_same_queue(tmp_path):
    pytest.importorskip("submitit")
    queue = queue_of(load_study("fig6"), tmp_path, only=("push-N2",))
    folder = tmp_path / "fig6" / "smoke" / "push-N2-0"
    folder.mkdir(parents=True)
    (folder / "run").write_text("in the way")  # fails at once, in another process
    queue.run(1, "submitit-local", {"timeout_min": 5})
    (outcome,) = outcomes(queue.jobs, tmp_path)
    assert outcome.status == "failed"
    assert list((tmp_path / "submitit").glob("*_log.out"))


def test_an_executor_that_is_not_there_is_named_in_one_line(monkeypatch, tmp_path):
    queue = queue_of(Script(done), tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    with pytest.raises(TrainingError, match=r"pip install 'ndp_ros\[cluster\]'"):
        queue.run(1, "submitit")
    with pytest.raises(TrainingError, match="submitit-local"):
        queue.run(1, "pbs")


def die_in_the_first(job, folder):
    if job.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    done(job, folder)


def test_a_run_whose_worker_is_killed_is_recorded_with_the_worker_and_tried_again(tmp_path):
    queue = queue_of(Script(die_in_the_first), tmp_path)
    queue.run(2)
    assert status(queue) == {0: "done", 1: "failed", 2: "done"}
    error = outcomes(queue.jobs, tmp_path)[0].error
    assert error.startswith("process ")
    assert error.endswith("ended during the run (exit status -9)")
    again = queue_of(Script(done), tmp_path)
    again.run(1)
    assert set(status(again).values()) == {"done"}


def time_out_in_the_first(job, folder):
    if job.seed == 1:
        os.kill(os.getpid(), signal.SIGUSR2)  # as Slurm says that the time is up
        time.sleep(60.0)
    done(job, folder)


def test_a_run_whose_cluster_job_times_out_is_named_with_its_job(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    queue = queue_of(Script(time_out_in_the_first), tmp_path)
    queue.run(1, "submitit-local", {"timeout_min": 5})
    error = outcomes(queue.jobs, tmp_path)[0].error
    (log,) = (tmp_path / "submitit").glob("*_log.out")
    job = log.name.partition("_")[0]
    assert error == f"job {job} ended during the run (timed out, logs in {tmp_path / 'submitit'})"
    assert status(queue) == {0: "missing", 1: "failed", 2: "missing"}


def test_a_worker_that_ends_before_its_first_run_is_named(tmp_path, monkeypatch):
    queue = queue_of(Script(functools.partial(done)), tmp_path)
    monkeypatch.setattr(
        "ndp_ros.paper.queue.run_in_processes", lambda work, workers: {"process 7": "exit status 1"}
    )
    with pytest.raises(TrainingError, match=r"process 7 \(exit status 1\)"):
        queue.run(2)
