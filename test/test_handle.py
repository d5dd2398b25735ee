# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The handle of a streamer process, with an ideal arm and no node in front of it."""

import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest

from ndp_ros import checkpoint
from ndp_ros.control.arm import ArmConfig
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError, RejectedError, StreamError
from ndp_ros.paths import share
from ndp_ros.streaming import handle
from ndp_ros.streaming.config import RuntimeConfig, StreamSpec
from ndp_ros.streaming.handle import StreamerHandle, response_times

HOME = np.array(ArmConfig.named("jaco").home)
SPEC = StreamSpec(
    hardware="mock",
    arm="jaco",
    task="",
    command_mode="position",
    runtime=RuntimeConfig(
        rate=500.0,
        priority=0,
        heartbeat_timeout=20.0,
        parent_timeout=60.0,
        max_parameter_age=5.0,
        feedback_timeout=5.0,
        stall_timeout=5.0,
    ),
)
PATIENCE = 90.0


@pytest.fixture
def stream() -> Iterator[StreamerHandle]:
    with StreamerHandle(SPEC) as made:
        yield made


@pytest.mark.parametrize(
    ("dmp", "way", "weight"),
    [(DmpConfig(), 0.1, 0.0), (DmpConfig(forcing="free"), 0.0, 5.0)],
    ids=["by the goal", "by a free forcing term"],
)
def test_segments_sent_through_the_handle_move_the_arm_and_it_ends_at_rest(
    stream: StreamerHandle, dmp: DmpConfig, way: float, weight: float
) -> None:
    stream.request("follow", timeout=PATIENCE)
    stream.prepare(dmp, 0.2)
    w = np.full((len(HOME), dmp.n_basis), weight)
    deadline = time.monotonic() + PATIENCE
    while stream.mailbox.report()["accepted"] < 3:
        assert time.monotonic() < deadline, stream.problem or stream.explanation()
        stream.send(HOME + way, w, time.monotonic())
        stream.mailbox.beat()
        time.sleep(0.02)
    stream.mailbox.state.load()
    assert np.abs(stream.mailbox.state["y"] - HOME).max() > 0.0
    assert stream.figures()["ticks_since_reset"] > 0
    assert not stream.problem
    assert stream.close() == ""


def test_a_streamer_that_cannot_start_or_has_no_arm_is_an_error(capfd) -> None:
    with pytest.raises(StreamError, match=r"could not start \(exit status 2\)"):
        StreamerHandle(StreamSpec(hardware="mock", command_mode="torque"))
    assert "command_mode of the mock arm" in capfd.readouterr().err
    with pytest.raises(ConfigError, match="no_such_arm"):
        StreamerHandle(StreamSpec(arm="no_such_arm"))


@pytest.mark.parametrize("rate", [500.0, 1000.0, 5000.0])
def test_no_shipped_checkpoint_and_no_usual_system_is_too_heavy(rate: float) -> None:
    folders = share("models/checkpoints").glob("*/config.json")
    specs = [checkpoint.load(path.parent).spec for path in folders]
    segments = [(s.dmp, s.segment_duration) for s in specs if s.method == "ndp"]
    assert len(segments) > 5
    segments += [
        (DmpConfig(n_basis=30, solver="euler", m=500), 0.1),
        (DmpConfig(n_basis=30, alpha=25.0, m=300), 0.5),
        (DmpConfig.preset("paper"), 1.0),
    ]
    for dmp, duration in segments:
        runtime = RuntimeConfig(rate=rate)
        assert len(response_times(dmp, duration, runtime, 32)) == runtime.rows(duration)


def test_too_little_memory_for_a_response_is_no_crash(
    stream: StreamerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(config: DmpConfig, times: np.ndarray) -> np.ndarray:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(handle, "response", exhausted)
        with pytest.raises(StreamError, match=r"not enough memory for the response of \d+ ticks"):
            stream.prepare(DmpConfig(), 0.2)
        # A segment that would be refused afterwards is not even tried.
        with pytest.raises(RejectedError, match="n_basis is 100, at most 32"):
            stream.prepare(DmpConfig(n_basis=100), 0.2)
        with pytest.raises(RejectedError, match=r"at least 0\.006 s"):
            stream.prepare(DmpConfig(), 1e-6)
    stream.prepare(DmpConfig(), 0.2)


def test_only_a_streamer_that_had_to_be_killed_is_reported(
    stream: StreamerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handle, "STOP_TIMEOUT", 0.1)
    os.kill(int(str(stream.figures()["streamer_pid"])), signal.SIGSTOP)
    reason = "streamer ended (killed by signal 9): no end within 0.2 s, the arm may still move"
    assert stream.close() == reason
    assert stream.close() == reason
    monkeypatch.undo()
    assert StreamerHandle(SPEC).close() == ""
