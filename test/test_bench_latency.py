# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The benchmark of latency: what it reads from the memory of a streamer that it only watches."""

import os
import subprocess
import sys

import numpy as np
import pytest

from ndp_ros.commands.bench_latency import Seen, mailbox_of
from ndp_ros.errors import StreamError
from ndp_ros.streaming.layout import PHASES, MailboxLayout
from ndp_ros.streaming.mailbox import Mailbox

pytestmark = pytest.mark.live

DOF = 3


@pytest.fixture
def box():
    mailbox = Mailbox.create(MailboxLayout(DOF, max_rows=8, max_basis=2))
    yield mailbox
    mailbox.close()


def publish(box: Mailbox, at: float, sequence: int, phase: str = "following") -> None:
    zeros = np.zeros(DOF)
    number = PHASES.index(phase)
    box.publish_state(at, at, 1, sequence, number, (zeros,) * 3, np.zeros((3, DOF)))
    box.append_sample(zeros)


def test_latency_is_from_the_observation_to_the_first_setpoint_of_its_segment(box) -> None:
    watcher, seen = Mailbox.attach(box.name), Seen()
    handle = box.send_response(np.ones((3, 4, 4)), 0.1)
    publish(box, 9.0, 0, "holding")
    seen.read(watcher)
    for sequence, stamp in ((1, 10.0), (2, 10.1)):
        box.send_segment(np.zeros(DOF), np.zeros((DOF, 1)), stamp, sequence, handle)
        seen.read(watcher)
        for tick in range(5):
            publish(box, stamp + 0.004 + 0.001 * tick, sequence)
        seen.read(watcher)
    publish(box, 10.2, 7)  # its observation was not seen
    seen.read(watcher)
    watcher.close()
    assert seen.segments == {1: (10.0, 10.004), 2: (10.1, pytest.approx(10.104))}
    assert seen.ticks == 11
    assert seen.first_tick == 9.0


def test_the_memory_of_a_streamer_below_another_process_is_found(box) -> None:
    streamer = "import time; time.sleep(60)", "ndp_ros.streaming.process", "--mailbox", box.name
    child = [sys.executable, "-c", *streamer]
    code = f"import subprocess; subprocess.run({child!r})"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as system:
        try:
            found = mailbox_of(system)
            assert found.layout == box.layout
            found.close()
        finally:
            os.killpg(system.pid, 9)


def test_a_system_that_ends_before_it_has_a_streamer_is_an_error() -> None:
    system = subprocess.Popen([sys.executable, "-c", "pass"])
    with pytest.raises(StreamError, match="no streamer"):
        mailbox_of(system)
    system.wait()
