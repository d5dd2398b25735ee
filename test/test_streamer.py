# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The streamer process: real processes, real shared memory, and an arm that logs every command."""

import argparse
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import ideal_arm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_ros.commands import bench_stream as bench
from ndp_ros.config import to_mapping
from ndp_ros.control.arm import ArmConfig
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response
from ndp_ros.errors import ConfigError, StreamError
from ndp_ros.streaming.backends import make
from ndp_ros.streaming.config import RuntimeConfig, StreamSpec
from ndp_ros.streaming.layout import PHASES, MailboxLayout
from ndp_ros.streaming.mailbox import Mailbox
from ndp_ros.streaming.process import start
from ndp_ros.streaming.streamer import DONE, FAILED, NOT_STARTED, ORPHANED

pytestmark = pytest.mark.live

JACO = ArmConfig.named("jaco")
DOF = len(JACO.joint_names)
HOME = np.array(JACO.home)
DMP, DURATION, RATE = DmpConfig(n_basis=3), 0.2, 500.0
PATIENCE = 90.0  # for a busy machine; nothing here takes more than a second on an idle one


def spec_for(arm: dict, **runtime) -> StreamSpec:
    values = {
        "rate": RATE,
        "priority": 0,
        "heartbeat_timeout": 5.0,
        "parent_timeout": 20.0,
        "max_parameter_age": 5.0,
        "stall_timeout": 4.0,
        "feedback_timeout": 4.0,
    }
    return StreamSpec(
        hardware="ideal_arm:make",
        arm="jaco",
        task="",
        command_mode="position",
        options=json.dumps(arm),
        runtime=RuntimeConfig(**{**values, **runtime}),
    )


class Rig:
    """A streamer with an ideal arm, and its parent: this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        self.log = folder / "commands"
        self.cue = folder / "cue"
        self.box: Mailbox | None = None
        self.process: subprocess.Popen | None = None
        self.sequence = 0

    def start(self, arm: dict | None = None, **runtime) -> "Rig":
        spec = spec_for({"log": str(self.log), "cue": str(self.cue), **(arm or {})}, **runtime)
        self.box = Mailbox.create(MailboxLayout(DOF, max_rows=spec.runtime.max_rows, max_basis=4))
        self.process = start(spec, self.box)
        times = np.arange(spec.runtime.rows(DURATION)) / (spec.runtime.rate * DURATION)
        self.handle = self.box.send_response(response(DMP, times), DURATION)
        self.until(lambda: self.box.handshake() is not None)
        return self

    def until(self, happened: Callable[[], bool], beat: bool = True) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < deadline, self.box.report()
            if beat:
                self.box.beat()
            time.sleep(0.005)

    def phase(self, name: str) -> bool:
        return self.box.phase() == name

    def ask(self, kind: str) -> None:
        self.box.requests.wait(self.box.requests.ask(kind), PATIENCE)

    def send(self, offset: float = 0.1, stamp: float | None = None, w: float = 0.0) -> None:
        self.sequence += 1
        g = HOME.copy()
        g[:6] += offset
        stamp = time.monotonic() if stamp is None else stamp
        weights = np.full((DOF, DMP.n_basis), w)
        self.box.send_segment(g, weights, stamp, self.sequence, self.handle)

    def follow_for(self, seconds: float, offset: float = 0.15) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.send(offset)
            self.until(lambda: self.box.state.load())
            time.sleep(0.03)

    def ended(self) -> int:
        self.until(lambda: self.process.poll() is not None)
        return self.process.returncode

    def suspend(self) -> None:
        """Stop the streamer with SIGSTOP and wait until it has stopped."""
        self.process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.process.pid}/stat")
        self.until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")

    def commands(self) -> np.ndarray:
        """Return the positions that the arm was sent, (n, dof)."""
        log = ideal_arm.read_log(self.log, DOF)
        return log[log[:, 0] == ideal_arm.WRITE, 2:]

    def last_calls(self) -> list[int]:
        return [int(kind) for kind in ideal_arm.read_log(self.log, DOF)[-2:, 0]]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.box is not None:
            self.box.close()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path, monkeypatch)
    yield made
    made.close()


def assert_smooth_and_at_rest(commands: np.ndarray, rate: float = RATE) -> None:
    """Every command was inside the limits and continuous with the one before; the last stand."""
    T, a, v = 1.0 / rate, np.array(JACO.max_acceleration), np.array(JACO.max_velocity)
    assert np.isfinite(commands).all()
    assert (commands >= np.array(JACO.lower) - 1e-8).all()
    assert (commands <= np.array(JACO.upper) + 1e-8).all()
    steps = np.diff(commands, axis=0)
    assert (np.abs(steps) <= v * T * 1.001).all()
    assert (np.abs(np.diff(steps, axis=0)) <= a * T * T * 1.001).all()
    assert np.array_equal(commands[-1], commands[-2]), "at rest when it was let go"
    assert (np.abs(commands[0] - HOME) <= a * T * T / 2 + 1e-9).all(), (
        "it began where it was measured"
    )


def test_it_starts_at_rest_where_the_arm_is_measured_and_says_what_it_drives(rig) -> None:
    rig.start()
    hello = rig.box.handshake()
    assert hello["joint_names"] == list(JACO.joint_names)
    assert (hello["rate"], hello["simulated"], hello["command_mode"]) == (RATE, False, "position")
    assert "scheduler" in hello["realtime"]
    rig.until(lambda: rig.phase("holding"))
    rig.until(lambda: rig.box.report()["ticks"] > 50)
    assert (rig.commands() == HOME).all()


def test_it_follows_brakes_and_ends_on_request(rig) -> None:
    rig.start()
    rig.send()
    rig.ask("follow")
    rig.until(lambda: rig.phase("waiting"))
    rig.follow_for(0.4)
    rig.until(lambda: rig.phase("waiting"))
    report = rig.box.report()
    assert report["accepted"] > 3
    assert report["reason"].startswith("starved")
    rig.ask("quit")
    assert rig.ended() == DONE
    assert rig.phase("stopped")
    assert rig.last_calls() == [ideal_arm.STOP, ideal_arm.CLOSE]
    commands = rig.commands()
    assert_smooth_and_at_rest(commands)
    assert np.abs(commands[:, :6] - HOME[:6]).max() > 0.1, "it did move"


@pytest.mark.parametrize("rate", [1000.0, 2000.0])
def test_the_rate_is_one_parameter(rig, rate: float) -> None:
    rig.start(rate=rate)
    rig.ask("follow")
    rig.follow_for(0.3)
    rig.ask("quit")
    assert rig.ended() == DONE
    assert_smooth_and_at_rest(rig.commands(), rate)


def test_a_reader_at_50_hz_gets_every_sample(rig) -> None:
    rig.start(record_rate=RATE)
    rig.ask("follow")
    ticks = []
    for _ in range(20):
        rig.send()
        time.sleep(0.02)
        records, lost = rig.box.samples.read()
        assert lost == 0
        ticks += list(records["ticks"].astype(int))
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
    assert set(records["phase"]) <= {PHASES.index("following"), PHASES.index("waiting")}


def test_parameters_that_are_not_finite_never_reach_the_arm(rig) -> None:
    rig.start()
    rig.ask("follow")
    for bad in (np.nan, np.inf):
        rig.send(bad)
        rig.until(lambda: not rig.box.segment.load() and rig.box.report()["refused"] > 0)
        rig.send(0.1, w=bad)
        rig.send(0.1)
        rig.until(lambda: rig.phase("following"))
        rig.send(bad)
        rig.until(lambda: rig.phase("waiting"))
    assert rig.box.report()["guard"]["segment_not_finite"] >= 3
    rig.ask("quit")
    assert rig.ended() == DONE
    assert_smooth_and_at_rest(rig.commands())


def test_late_segments_are_dropped_and_counted(rig) -> None:
    rig.start()
    rig.ask("follow")
    rig.send(stamp=time.monotonic() - 5.1)
    rig.until(lambda: rig.box.report()["dropped"] == 1)
    report = rig.box.report()
    assert report["guard"] == {"segment_late": 1}
    assert "ms old" in report["reason"]
    assert rig.phase("waiting")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_brakes_stops_the_arm_and_exits_0_on_a_signal(rig, number: int) -> None:
    rig.start()
    rig.ask("follow")
    rig.follow_for(0.15, offset=0.2)
    rig.process.send_signal(number)
    assert rig.ended() == DONE
    assert rig.last_calls() == [ideal_arm.STOP, ideal_arm.CLOSE]
    assert signal.Signals(number).name in rig.box.report()["reason"]
    assert_smooth_and_at_rest(rig.commands())


def test_an_arm_that_does_not_come_to_rest_is_no_good_end(rig) -> None:
    rig.start({"creeps": 0.2})
    rig.process.send_signal(signal.SIGTERM)
    rig.until(lambda: rig.box.report()["reason"] != "")
    rig.ask("hold")
    assert rig.ended() == FAILED
    assert rig.last_calls() == [ideal_arm.STOP, ideal_arm.CLOSE]
    assert rig.box.report()["reason"] == "signal SIGTERM; not at rest within 3 s"


PARENT = """
import json, sys, time
import numpy as np
from ndp_ros.config import from_mapping
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response
from ndp_ros.streaming.config import StreamSpec
from ndp_ros.streaming.layout import MailboxLayout
from ndp_ros.streaming.mailbox import Mailbox
from ndp_ros.streaming.process import start

spec = from_mapping(StreamSpec, json.loads(sys.argv[1]))
home, D = np.array(json.loads(sys.argv[2])), 0.2
box = Mailbox.create(MailboxLayout(len(home), max_rows=spec.runtime.max_rows, max_basis=4))
process = start(spec, box)
handle = box.send_response(
    response(DmpConfig(n_basis=3), np.arange(spec.runtime.rows(D)) / (spec.runtime.rate * D)), D)
while box.handshake() is None:
    box.beat()
    time.sleep(0.005)
box.requests.wait(box.requests.ask("follow"), 30)
n = 0
while True:
    n += 1
    g = home.copy()
    g[:6] += 0.15
    box.send_segment(g, np.zeros((len(home), 3)), time.monotonic(), n, handle)
    box.beat()
    if n == 5:
        print(process.pid, box.name, flush=True)
    time.sleep(0.03)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_streamer_stops_the_arm_and_exits_when_its_parent_is_killed(rig, tmp_path) -> None:
    spec = spec_for({"log": str(rig.log)})
    errors = (tmp_path / "errors").open("w")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, json.dumps(to_mapping(spec)), json.dumps(HOME.tolist())],
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    pid, name = parent.stdout.readline().split()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + PATIENCE
    while not gone(int(pid)):
        assert time.monotonic() < deadline, "the streamer outlives its parent"
        time.sleep(0.01)
    assert rig.last_calls() == [ideal_arm.STOP, ideal_arm.CLOSE]
    assert_smooth_and_at_rest(rig.commands())
    assert not Path(name).exists(), "the shared memory went with its owner"
    assert not list(Path("/dev/shm").glob("*ndp*"))
    errors.close()
    said = (tmp_path / "errors").read_text()
    assert said == "streamer: parent_lost: the process that started it has ended\n"


def test_it_brakes_when_its_parent_is_silent_and_goes_on_when_it_is_back(rig) -> None:
    rig.start(heartbeat_timeout=0.3)
    rig.ask("follow")
    rig.send()
    rig.until(lambda: rig.phase("following"))
    rig.until(lambda: rig.box.report()["guard"].get("parent_lost", 0) == 1, beat=False)
    assert "no heartbeat" in rig.box.report()["reason"] or rig.phase("waiting")
    rig.until(lambda: rig.phase("waiting"), beat=False)
    rig.box.beat()
    rig.send(0.05)
    rig.until(lambda: rig.phase("following"))
    assert rig.process.poll() is None


def test_it_ends_when_its_parent_stays_silent(rig) -> None:
    rig.start(heartbeat_timeout=0.2, parent_timeout=0.6)
    rig.ask("follow")
    rig.send()
    rig.until(lambda: rig.process.poll() is not None, beat=False)
    assert rig.process.returncode == ORPHANED
    assert rig.last_calls() == [ideal_arm.STOP, ideal_arm.CLOSE]
    assert "no heartbeat for" in rig.box.report()["reason"]
    assert_smooth_and_at_rest(rig.commands())


def test_a_restarted_streamer_goes_on_with_the_same_memory(rig) -> None:
    rig.start()
    rig.ask("stop")
    rig.process.send_signal(signal.SIGKILL)
    rig.process.wait()
    assert rig.box.streamer_age() < PATIENCE
    rig.process = start(spec_for({"log": str(rig.log)}), rig.box)
    pid = rig.process.pid
    rig.until(lambda: rig.box.handshake()["pid"] == pid)
    rig.ask("follow")  # the old stop is not repeated
    rig.send()
    rig.until(lambda: rig.phase("following"))


def test_an_arm_that_fails_ends_the_streamer_with_the_reason(rig, capfd) -> None:
    rig.start({"fail_at": 1})
    rig.ask("follow")
    rig.send()
    rig.until(lambda: rig.phase("following"))
    rig.cue.touch()
    assert rig.ended() == FAILED
    report = rig.box.report()
    assert report["fault"] == "arm_error: the ideal arm fails on cue"
    assert report["guard"]["arm_error"] == 1
    assert rig.phase("stopped")
    assert rig.last_calls() == [ideal_arm.STOP, ideal_arm.CLOSE]
    assert capfd.readouterr().err == "streamer: arm_error: the ideal arm fails on cue\n"


def test_an_arm_that_goes_on_measuring_nan_is_stopped(rig) -> None:
    rig.start({"nan_at": 1}, feedback_timeout=0.2)
    rig.ask("follow")
    rig.cue.touch()
    assert rig.ended() == FAILED
    assert "feedback_not_finite" in rig.box.report()["fault"]
    assert np.isfinite(rig.commands()).all()


def test_a_following_error_is_a_fault_that_stays_until_it_is_cleared(rig) -> None:
    rig.start({"stuck_at": 1}, max_following_error=0.05)
    rig.ask("follow")
    rig.cue.touch()
    rig.send(0.2)
    rig.until(lambda: rig.phase("fault"))
    report = rig.box.report()
    assert report["fault"].startswith("following_error: joint_")
    with pytest.raises(StreamError, match="clear it first"):
        rig.ask("follow")
    rig.until(lambda: rig.box.state.load() and not rig.box.state["yd"].any())
    held = rig.commands()[-1]
    time.sleep(0.5)
    assert np.array_equal(rig.commands()[-1], held), "it holds its last setpoint"
    with pytest.raises(StreamError, match=r"joint_\d is 0.\d+ rad from its setpoint, at most 0.05"):
        rig.ask("clear_fault")
    assert rig.phase("fault")


def test_an_arm_that_retreats_after_a_following_error_goes_slowly_where_it_rests(rig) -> None:
    rig.start({"stuck_at": 1}, max_following_error=0.05, after_following_error="retreat")
    rig.ask("follow")
    rig.cue.touch()
    rig.send(0.2)
    rig.until(lambda: rig.phase("fault"))
    rig.until(lambda: rig.box.state.load())
    stuck = np.array(rig.box.state["position"])
    rig.until(lambda: np.abs(rig.commands()[-1] - stuck)[:6].max() < 0.002)
    rig.until(lambda: np.array_equal(*rig.commands()[-2:]))
    commands = rig.commands()
    assert_smooth_and_at_rest(commands)
    back = np.abs(np.diff(commands[-50:], axis=0)).max() * RATE
    assert back < 0.11 * max(JACO.max_velocity[:6])
    rig.ask("clear_fault")
    rig.until(lambda: rig.phase("holding"))
    assert rig.box.report()["fault"] == ""
    rig.ask("follow")


def retreating(rig: Rig) -> None:
    """Have an arm begin a retreat that takes it many seconds."""
    rig.start(
        {"stuck_at": 1},
        max_following_error=0.05,
        after_following_error="retreat",
        velocity_margin=0.05,
    )
    rig.ask("follow")
    rig.cue.touch()
    rig.until(lambda: rig.send(0.2) or rig.phase("fault"))
    rig.until(lambda: rig.box.state.load() and not rig.box.state["yd"].any())
    rest = rig.commands()[-1]
    rig.until(lambda: np.abs(rig.commands()[-1] - rest).max() > 1e-4)


@pytest.mark.parametrize("kind", ["stop", "hold"])
def test_an_arm_that_retreats_stops_when_it_is_asked_to(rig, kind: str) -> None:
    retreating(rig)
    rig.ask(kind)
    rig.until(lambda: rig.box.state.load() and not rig.box.state["yd"].any())
    held = rig.commands()[-1]
    assert np.abs(held - HOME)[:6].max() > 0.02, "it is still on its way"
    time.sleep(0.4)
    assert np.array_equal(rig.commands()[-1], held)
    assert rig.box.report()["fault"].startswith("following_error")


def test_an_arm_that_retreats_ends_at_rest_when_it_is_asked_to(rig) -> None:
    retreating(rig)
    rig.ask("quit")
    assert rig.ended() == DONE


def test_an_arm_that_is_no_longer_measured_does_not_retreat(rig) -> None:
    rig.start(
        {"stuck_at": 1, "silent_at": 1}, max_following_error=0.05, after_following_error="retreat"
    )
    rig.ask("follow")
    rig.cue.touch()
    rig.until(lambda: rig.send(0.2) or rig.phase("fault"))
    rig.until(lambda: rig.box.state.load() and not rig.box.state["yd"].any())
    held = rig.commands()[-1]
    time.sleep(0.5)
    assert np.array_equal(rig.commands()[-1], held)


def test_an_arm_that_was_stopped_stays_where_it_is(rig) -> None:
    rig.start({"stuck_at": 1}, after_following_error="retreat")
    rig.ask("follow")
    rig.cue.touch()
    rig.until(lambda: rig.send(0.2) or np.abs(rig.commands()[-1] - HOME)[:6].max() > 0.1)
    rig.ask("stop")
    rig.until(lambda: rig.box.state.load() and not rig.box.state["yd"].any())
    held = rig.commands()[-1]
    time.sleep(0.5)
    assert np.array_equal(rig.commands()[-1], held)


@pytest.mark.parametrize("phase", ["holding", "waiting", "following"])
def test_one_wrong_reading_of_any_joint_moves_nothing(rig, phase: str) -> None:
    rig.start({"wrong_at": 1, "wrong_by": 2.9}, max_following_error=0.1)
    if phase != "holding":
        rig.ask("follow")
    if phase == "following":
        rig.send(0.0)
    rig.cue.touch()
    rig.until(lambda: rig.box.report()["guard"].get("reading_unconfirmed", 0) >= DOF)
    report = rig.box.report()
    assert report["fault"] == ""
    assert rig.box.state.load()
    assert np.abs(rig.box.state["position"] - HOME).max() < 1e-6
    assert np.abs(rig.commands() - HOME).max() < 1e-6


def test_an_arm_that_begins_with_a_wrong_reading_is_held_where_it_stands(rig) -> None:
    rig.start({"wrong_first": 3.0})
    rig.until(lambda: rig.box.report()["ticks"] > 20)
    assert (rig.commands() == HOME).all()


def test_readings_that_never_agree_are_no_start(rig, capfd) -> None:
    rig.box = Mailbox.create(MailboxLayout(DOF, max_basis=4))
    rig.process = start(spec_for({"restless": 1.0}), rig.box)
    rig.until(lambda: rig.process.poll() is not None)
    assert rig.process.returncode == NOT_STARTED
    said = capfd.readouterr().err
    assert "no 3 readings in a row agree" in said
    assert said.count("\n") == 1


def test_lost_feedback_is_a_fault(rig) -> None:
    rig.start({"silent_at": 1}, feedback_timeout=0.2)
    rig.ask("follow")
    rig.cue.touch()
    rig.until(lambda: rig.phase("fault"))
    assert rig.box.report()["fault"].startswith("feedback_lost: last measurement")


def test_stop_brakes_and_latches(rig) -> None:
    rig.start()
    rig.ask("follow")
    rig.follow_for(0.15, 0.2)
    rig.ask("stop")
    assert rig.box.report()["fault"] == "stop_requested"
    rig.send()
    rig.until(lambda: rig.box.state.load() and not rig.box.state["yd"].any())
    assert rig.phase("fault")
    rig.ask("clear_fault")
    rig.ask("quit")
    assert rig.ended() == DONE
    assert_smooth_and_at_rest(rig.commands())


def test_a_stalled_loop_starts_again_from_where_the_arm_is(rig) -> None:
    rig.start(stall_timeout=0.3)
    rig.ask("follow")
    rig.send()
    rig.until(lambda: rig.phase("following"))
    rig.suspend()
    time.sleep(0.5)
    rig.process.send_signal(signal.SIGCONT)
    rig.until(lambda: rig.box.report()["guard"].get("stalled", 0) > 0)
    rig.until(lambda: rig.box.report()["missed"] > 50)
    rig.send(0.05)
    rig.until(lambda: rig.phase("following"))


def test_after_a_pause_an_arm_that_has_braked_is_not_asked_for_its_old_speed(rig) -> None:
    fast = 0.5 * JACO.max_velocity[0]
    rig.start({"brakes_after": 0.02, "pauses_above": fast})
    rig.ask("follow")
    rig.send(0.5)

    def steps_around_a_pause() -> np.ndarray:
        """Return the steps before and after each pause in motion, (n, 2)."""
        log = ideal_arm.read_log(rig.log, DOF)
        steps, paused = np.abs(np.diff(log[:, 2])), np.diff(log[:, 1]) > 0.09
        pairs = np.stack((steps[:-1], steps[1:]), axis=1)[paused[1:]]
        return pairs[pairs[:, 0] > fast / RATE]

    rig.until(lambda: len(steps_around_a_pause()) > 0)
    after = steps_around_a_pause()[0, 1]
    assert after <= 2.0 * JACO.max_acceleration[0] / RATE**2, "one tick's gain from rest"


def test_a_simulated_arm_is_stepped_reset_and_shows_its_objects(rig) -> None:
    runtime = RuntimeConfig(rate=RATE, priority=0, heartbeat_timeout=60.0, parent_timeout=60.0)
    spec = StreamSpec(runtime=runtime, seed=1)
    objects = ("cube", "bin", "teapot")
    arm, _ = make(spec)
    rig.box = Mailbox.create(MailboxLayout(DOF, objects, max_rows=runtime.max_rows))
    rig.process = start(spec, rig.box)
    rig.until(lambda: rig.box.handshake() is not None)
    assert rig.box.handshake()["simulated"]
    assert rig.box.handshake()["objects"] == ["bin", "cube"]
    for seed in (1, 7):
        if seed != 1:
            rig.box.requests.wait(rig.box.requests.ask("reset", seed), PATIENCE)
        last = rig.box.report()["ticks"] + 20
        rig.until(lambda last=last: rig.box.state.load() and rig.box.state["ticks"] > last)
        assert np.array_equal(rig.box.state["y"], arm.reset(seed)), "it holds the start, grip too"
    assert np.abs(rig.box.state["position"] - rig.box.state["y"])[:6].max() < 0.01
    poses = rig.box.state["poses"]
    assert np.allclose(poses[1, :3], arm.objects()["bin"][:3])
    assert np.isfinite(poses[0]).all()
    assert np.isnan(poses[2]).all(), "there is no teapot"
    before = float(rig.box.state["arm_time"])
    rig.until(lambda: rig.box.state.load() and rig.box.state["arm_time"] > before + 0.1)
    rig.ask("quit")
    assert rig.ended() == DONE


def test_the_clock_of_a_simulated_arm_waits_for_an_overdue_segment_but_not_for_ever(rig) -> None:
    runtime = RuntimeConfig(
        rate=RATE, priority=0, heartbeat_timeout=60.0, parent_timeout=60.0, patience=0.6
    )
    rig.box = Mailbox.create(MailboxLayout(DOF, max_rows=runtime.max_rows, max_basis=4))
    rig.process = start(StreamSpec(runtime=runtime), rig.box)
    times = np.arange(runtime.rows(DURATION)) / (RATE * DURATION)
    rig.handle = rig.box.send_response(response(DMP, times), DURATION)
    rig.until(lambda: rig.box.handshake() is not None)
    rig.ask("follow")
    for _ in range(3):
        sent = time.monotonic()
        rig.send(0.0)
        rig.until(lambda: rig.box.report()["accepted"] == rig.sequence)
        rig.until(lambda: rig.box.state.load())
        before = float(rig.box.state["arm_time"])
        rig.until(lambda s=sent: time.monotonic() > s + DURATION + 0.2)
        rig.until(lambda: rig.box.state.load())
        after = float(rig.box.state["arm_time"])
        waited = time.monotonic() - sent
        if waited < DURATION + 0.5:  # else this process was the late one
            assert rig.phase("following")
            assert after - before < DURATION + 0.05
    rig.until(lambda: rig.phase("waiting"))
    assert rig.box.report()["reason"].startswith("starved")
    rig.ask("quit")
    assert rig.ended() == DONE


def test_every_request_is_answered_in_order_or_refused_however_many_come(rig) -> None:
    rig.start()
    rig.suspend()
    asked, refused = [], 0
    for n in range(200):
        kind = ("follow", "hold", "stop", "clear_fault")[n % 4]
        try:
            asked.append((kind, rig.box.requests.ask(kind, timeout=0.2)))
        except StreamError as error:
            assert "was not passed on" in str(error)
            refused += 1
    assert refused > 100
    time.sleep(0.4)
    rig.process.send_signal(signal.SIGCONT)
    for kind, ticket in asked:
        rig.until(lambda t=ticket: rig.box.requests.answer(t) is not None)
        late = rig.box.requests.answer(ticket)
        assert late == "" if kind in ("hold", "stop") else "expired" in late
    rig.until(lambda: rig.phase("fault"))  # a stop is carried out however late
    rig.ask("clear_fault")
    rig.ask("follow")
    rig.ask("hold")
    rig.until(lambda: rig.phase("holding"))


KINDS = st.sampled_from(("follow", "hold", "stop", "clear_fault", "reset", "move"))
ASKED = st.lists(st.tuples(KINDS, st.booleans()), min_size=1, max_size=40)


def expected(kind: str, late: bool, fault: bool, answer: str) -> tuple[str, bool]:
    """Return the words with which a request is refused, and whether a fault is latched then."""
    if kind in ("hold", "stop"):
        return "", fault or kind == "stop"
    if late:
        return "expired", fault
    if kind == "reset":
        return "no simulated arm", fault
    if kind == "follow":
        return "clear it first" if fault else "", fault
    moving = "still being brought to rest" if fault and answer else ""
    return moving, bool(moving)


def test_requests_of_any_order_are_carried_out_in_order_or_refused(rig) -> None:
    rig.start({"log": "", "cue": ""})

    @settings(max_examples=40, deadline=None)
    @given(batches=st.lists(st.tuples(ASKED, st.booleans()), min_size=1, max_size=4))
    def check(batches) -> None:
        fault, follows = rig.phase("fault"), rig.phase("waiting")
        for asked, stalls in batches:
            if stalls:
                rig.suspend()
            tickets = []
            for kind, late in asked:
                try:
                    if kind == "move":
                        rig.send(0.02)
                    else:
                        ticket = rig.box.requests.ask(kind, timeout=-1.0 if late else 600.0)
                        tickets.append((kind, late, ticket))
                except StreamError as error:
                    assert "was not passed on" in str(error)
            rig.process.send_signal(signal.SIGCONT)
            for kind, late, ticket in tickets:
                rig.until(lambda t=ticket: rig.box.requests.answer(t) is not None)
                answer = rig.box.requests.answer(ticket)
                refusal, fault = expected(kind, late, fault, answer)
                assert (refusal in answer) if refusal else not answer
                if not answer and kind != "clear_fault":
                    follows = kind == "follow"
        rest = "fault" if fault else "waiting" if follows else "holding"
        rig.until(lambda: rig.phase(rest))
        rig.until(lambda: rig.box.state.load() and not rig.box.state["yd"].any())

    check()


def test_a_motion_that_was_asked_for_too_long_ago_does_not_begin(rig) -> None:
    rig.start()
    rig.suspend()
    ticket = rig.box.requests.ask("follow", timeout=0.1)
    time.sleep(0.3)
    rig.process.send_signal(signal.SIGCONT)
    with pytest.raises(StreamError, match="expired"):
        rig.box.requests.wait(ticket, PATIENCE)
    rig.until(lambda: rig.phase("holding"))


def test_a_real_arm_cannot_be_reset(rig) -> None:
    rig.start()
    with pytest.raises(StreamError, match="no simulated arm"):
        rig.ask("reset")


def test_options_do_not_show_in_the_list_of_processes(rig) -> None:
    rig.start()
    command_line = Path(f"/proc/{rig.process.pid}/cmdline").read_bytes()
    assert b"ndp_ros.streaming.process" in command_line
    assert str(rig.log).encode() not in command_line


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"hardware": "toaster"}, "toaster"),
        ({"hardware": "no_such_module:make"}, "not available here"),
        ({"arm": "no_such_arm"}, "no_such_arm"),
        ({"options": "{"}, "not JSON"),
        ({"runtime": {"rate": 0}}, "rate is 0"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_bad_input_gets_one_line_and_nothing_is_started(rig, change, why) -> None:
    values = {**to_mapping(spec_for({"log": str(rig.log)})), **change}
    box = rig.box = Mailbox.create(MailboxLayout(DOF))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ndp_ros.streaming.process",
            "--mailbox",
            box.name,
            "--spec",
            json.dumps(values),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == NOT_STARTED
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
    assert box.handshake() is None


def test_a_mailbox_that_is_gone_or_too_small_gets_one_line(rig) -> None:
    small = rig.box = Mailbox.create(MailboxLayout(DOF - 1))
    for name, why in (("/proc/1/fd/999", "its owner has ended"), (small.name, "has 7")):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "ndp_ros.streaming.process",
                "--mailbox",
                name,
                "--spec",
                json.dumps(to_mapping(spec_for({}))),
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == NOT_STARTED
        assert why in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_loop_needs_neither_torch_nor_ros_nor_a_simulator() -> None:
    code = """
        import sys
        import ndp_ros.streaming.process
        print([m for m in ("torch", "rclpy", "mujoco") if m in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_the_benchmark_measures_a_real_streamer(capsys) -> None:
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    arguments = ["--rates", "500", "--seconds", "0.3", "--hardware", "mock", "--dof", "4", "--json"]
    assert bench.main(parser.parse_args(arguments)) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"][0]
    assert (row["rate_hz"], row["ticks"] > 10, row["segments"] > 0) == (500.0, True, True)
    assert (row["dof"], min(row["memory_mib"]) > 1.0) == (4, True)
    for name in ("lateness_us", "cost_us"):
        figures = row[name]
        assert 0.0 < figures["p50"] <= figures["p99"] <= figures["p999"] <= figures["max"]
    with pytest.raises(ConfigError, match="rate is 0"):
        bench.main(parser.parse_args(["--rates", "0"]))


def test_the_benchmark_adds_up_arms_and_rounds_and_looks_every_minute(capsys, monkeypatch) -> None:
    monkeypatch.setattr(bench, "_WINDOW", 0.2)
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    arguments = ["--rates", "500", "--seconds", "0.5", "--hardware", "mock", "--dof", "4"]
    arguments += ["--arms", "2", "--rounds", "2", "--json"]
    assert bench.main(parser.parse_args(arguments)) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"][0]
    assert 600 < row["ticks"] + row["missed"] < 1400
    assert row["braked"] == ""
    assert len(row["windows"]) == 4
    assert all(window["ticks"] + window["missed"] > 150 for window in row["windows"])
    if isinstance(row["c_loop"], dict):
        assert row["c_loop"]["ticks"] + row["c_loop"]["missed"] == 1000


def test_the_benchmark_says_why_the_arm_has_braked(capsys, monkeypatch) -> None:
    monkeypatch.setattr(bench, "_drive", lambda streams, seconds, look: time.sleep(seconds))
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    arguments = ["--rates", "500", "--seconds", "2", "--hardware", "mock", "--dof", "4"]
    assert bench.main(parser.parse_args(arguments)) == 0
    assert "braked after 0 segments: parent_lost" in capsys.readouterr().out
