# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The mailbox: never torn, never blocking, never left behind."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from ndp_ros.errors import StreamError
from ndp_ros.streaming.layout import GUARD_NAMES, PHASES, REQUESTS, RESPONSES, MailboxLayout
from ndp_ros.streaming.mailbox import Mailbox

pytestmark = pytest.mark.live

LAYOUT = MailboxLayout(dof=7, objects=("cube", "bin"), max_basis=8, max_rows=50, samples=64)


@pytest.fixture
def both():
    """Return the two ends of one mailbox."""
    parent = Mailbox.create(LAYOUT)
    streamer = Mailbox.attach(parent.name)
    yield parent, streamer
    streamer.close()
    parent.close()


def child(code: str, *arguments: str) -> subprocess.Popen:
    """Start a process that has ``box``, attached to the mailbox named first."""
    head = "import sys; from ndp_ros.streaming.mailbox import *; box = Mailbox.attach(sys.argv[1])"
    return subprocess.Popen(
        [sys.executable, "-c", head + "\n" + textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_segment_arrives_as_it_was_sent(both) -> None:
    parent, streamer = both
    rng = np.random.default_rng(0)
    B, g, w = rng.normal(size=(3, 40, 9)), rng.normal(size=7), rng.normal(size=(7, 6))
    assert not streamer.segment.load(), "nothing was sent yet"
    handle = parent.send_response(B, 0.25)
    parent.send_segment(g, w, 12.5, 3, handle)
    assert streamer.segment.load()
    segment = streamer.segment
    assert (segment["stamp"], segment["sequence"], segment["n_basis"]) == (12.5, 3, 6)
    assert np.array_equal(segment["g"], g)
    assert np.array_equal(segment["w"][:, :6], w)
    place = streamer.responses[int(segment["slot"])]
    found = place.view(int(segment["generation"]))
    assert np.array_equal(found.rows, B.transpose(1, 0, 2))
    assert np.array_equal(found.samples, B.transpose(2, 0, 1)), "few rows are all of them"
    assert found.duration == 0.25
    assert place.unchanged(found.mark)
    assert not streamer.segment.load(), "and once only"


def test_a_newer_segment_replaces_one_that_was_not_taken(both) -> None:
    parent, streamer = both
    handle = parent.send_response(np.ones((3, 2, 4)), 1.0)
    for sequence in (1, 2, 3):
        parent.send_segment(np.zeros(7), np.zeros((7, 1)), 0.0, sequence, handle)
    assert streamer.segment.load()
    assert streamer.segment["sequence"] == 3


def test_the_matrix_in_use_outlives_two_successors_but_not_the_one_after(both) -> None:
    parent, streamer = both
    first, *_, last = (
        parent.send_response(np.full((3, 2, 4), float(i)), 1.0) for i in range(RESPONSES + 1)
    )
    assert streamer.responses[first.slot].view(first.generation) is None
    found = streamer.responses[last.slot].view(last.generation)
    assert (found.rows == RESPONSES).all()
    for _ in range(RESPONSES - 1):
        parent.send_response(np.zeros((3, 2, 4)), 1.0)
        assert streamer.responses[last.slot].unchanged(found.mark)
    parent.send_response(np.zeros((3, 2, 4)), 1.0)
    assert not streamer.responses[last.slot].unchanged(found.mark)


def test_samples_cover_the_horizon_and_no_more(both) -> None:
    parent, streamer = both
    B = np.arange(3 * 50 * 4, dtype=float).reshape(3, 50, 4)
    handle = parent.send_response(B, 0.25, horizon=40)
    found = streamer.responses[handle.slot].view(handle.generation)
    assert np.array_equal(found.samples, B[:, :40].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("shape", "value", "duration"),
    [
        ((3, 51, 9), 0.0, 1.0), ((3, 1, 9), 0.0, 1.0), ((3, 5, 3), 0.0, 1.0),
        ((3, 5, 12), 0.0, 1.0), ((2, 5, 9), 0.0, 1.0), ((3, 45), 0.0, 1.0),
        ((3, 5, 9), np.nan, 1.0), ((3, 5, 9), 0.0, 0.0), ((3, 5, 9), 0.0, np.inf),
    ],
)  # fmt: skip
def test_a_response_that_does_not_fit_is_refused(both, shape, value, duration) -> None:
    with pytest.raises(StreamError, match="response"):
        both[0].send_response(np.full(shape, value), duration)


def test_a_segment_of_the_wrong_size_is_refused(both) -> None:
    handle = both[0].send_response(np.zeros((3, 5, 9)), 1.0)
    for g, w in ((6, (7, 6)), (7, (7, 5)), (7, (6, 7))):
        with pytest.raises(StreamError, match="segment has"):
            both[0].send_segment(np.zeros(g), np.zeros(w), 0.0, 1, handle)


def test_requests_arrive_in_order_and_are_answered(both) -> None:
    parent, streamer = both
    tickets = [parent.requests.ask(kind, seed=9) for kind in REQUESTS]
    assert streamer.requests.pending
    records = list(streamer.requests.read())
    assert [REQUESTS[record["kind"]] for record in records] == list(REQUESTS)
    assert not streamer.requests.pending
    assert all(parent.requests.answer(ticket) is None for ticket in tickets)
    for record, refusal in zip(records, ("", "why not"), strict=False):
        streamer.requests.reply(record, refusal)
        streamer.status.publish()
        assert parent.requests.answer(int(record["ticket"])) == refusal
    with pytest.raises(StreamError, match="why not"):
        parent.requests.wait(tickets[1])
    with pytest.raises(StreamError, match="did not answer"):
        parent.requests.wait(tickets[2], timeout=0.01)
    with pytest.raises(StreamError, match="follow, hold"):
        parent.requests.ask("jump")


def test_tickets_of_a_second_parent_go_on_from_the_first(both) -> None:
    first = both[0].requests.ask("hold")
    assert both[1].requests.ask("hold") == first + 1


def test_the_report_is_plain_and_names_what_was_counted(both) -> None:
    parent, streamer = both
    streamer.status["guard"][GUARD_NAMES.index("torque")] = 4
    streamer.status["reason"] = b"starved"
    streamer.status["ticks"] = 10
    streamer.status.publish()
    report = parent.report()
    assert report["guard"] == {"torque": 4}
    assert (report["reason"], report["fault"], report["ticks"]) == ("starved", "", 10)
    assert set(report["lateness_us"]) == {"p50", "p99", "max"}


def test_heartbeats_go_both_ways(both) -> None:
    parent, streamer = both
    assert parent.streamer_age() == float("inf")
    assert streamer.parent_age(time.monotonic_ns()) == float("inf")
    parent.beat()
    streamer.streamer_beat(time.monotonic_ns() - 2_000_000_000)
    assert 0.0 <= streamer.parent_age(time.monotonic_ns()) < 60.0
    assert 2.0 <= parent.streamer_age() < 62.0


def test_handshake_and_phase_cross(both) -> None:
    parent, streamer = both
    assert parent.handshake() is None
    streamer.publish_handshake({"joint_names": ["a", "b"], "simulated": True})
    assert parent.handshake() == {"joint_names": ["a", "b"], "simulated": True}
    streamer.state["phase"] = PHASES.index("braking")
    streamer.state.publish()
    assert parent.phase() == "braking"


def test_a_slow_reader_learns_how_many_samples_it_lost(both) -> None:
    parent, streamer = both
    for tick in range(200):
        streamer.samples.record["ticks"] = tick
        streamer.samples.append()
    records, lost = parent.samples.read()
    assert list(records["ticks"]) == list(range(137, 200))
    assert lost == 137
    assert parent.samples.read()[1] == 0


def test_a_fast_reader_loses_nothing(both) -> None:
    parent, streamer = both
    seen = []
    for tick in range(500):
        streamer.samples.record["ticks"] = tick
        streamer.samples.append()
        if tick % 50 == 49:
            records, lost = parent.samples.read()
            assert lost == 0
            seen += list(records["ticks"])
    assert seen == list(range(500))


def test_torn_values_are_never_observed() -> None:
    # Every field of every version holds the version's number: a mixture would show.
    box = Mailbox.create(LAYOUT)
    writer = child(
        """
        version = 0
        value = box.state.value
        while not box.requests.pending:
            version += 1
            for name in ("y", "yd", "ydd", "position", "velocity", "effort", "poses"):
                value[name] = version
            value["ticks"] = version
            box.state.publish()
            record = box.samples.record
            record["ticks"], record["y"], record["torque"] = version, version, version
            box.samples.append()
        """,
        box.name,
    )
    try:
        seen, samples, until = set(), 0, time.monotonic() + 2.0
        while time.monotonic() < until or (len(seen) < 100 and writer.poll() is None):
            if box.state.load():
                version = int(box.state["ticks"])
                for name in ("y", "yd", "ydd", "position", "velocity", "effort", "poses"):
                    assert (box.state[name] == version).all()
                seen.add(version)
            records, _ = box.samples.read()
            assert (records["y"] == records["ticks"][:, None]).all()
            assert (records["torque"] == records["ticks"][:, None]).all()
            assert (np.diff(records["ticks"].astype(int)) == 1).all()
            samples += len(records)
        assert len(seen) >= 100
        assert samples > 0
        box.requests.ask("quit")
        assert writer.wait(30) == 0
    finally:
        writer.kill()
        writer.wait()
        box.close()


def test_a_writer_killed_half_way_leaves_the_last_whole_value_and_a_successor_goes_on() -> None:
    box = Mailbox.create(LAYOUT)
    box.state["ticks"] = 5
    box.state.publish()
    reader = Mailbox.attach(box.name)
    assert reader.state.load()
    with Path(box.name).open("r+b", buffering=0) as memory:
        memory.seek(LAYOUT.offsets["state"])
        memory.write(b"\x03")  # odd, as a SIGKILL in the middle of publish() leaves it
    assert not reader.state.load()
    assert reader.state["ticks"] == 5
    successor = Mailbox.attach(box.name)
    successor.state["ticks"] = 6
    successor.state.publish()
    assert reader.state.load()
    assert reader.state["ticks"] == 6
    for each in (reader, successor, box):
        each.close()


def test_nothing_is_left_when_both_sides_are_killed() -> None:
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from ndp_ros.streaming.mailbox import *; import time\n"
            "box = Mailbox.create(MailboxLayout(7)); print(box.name, flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    name = owner.stdout.readline().strip()
    user = child("print('attached', flush=True); import time; time.sleep(60)", name)
    assert user.stdout.readline() == "attached\n"
    for process in (owner, user):
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert not Path(name).exists()
    assert not list(Path("/dev/shm").glob("*ndp*"))
    assert owner.stderr.read() == "", "no tracker complains"
    with pytest.raises(StreamError, match="its owner has ended"):
        Mailbox.attach(name)


def test_closing_returns_the_descriptor_and_may_be_repeated() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    box = Mailbox.create(LAYOUT)
    other = Mailbox.attach(box.name)
    for _ in range(2):
        other.close()
        box.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_is_no_mailbox_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 8192)
    with pytest.raises(StreamError, match="is no mailbox"):
        Mailbox.attach(str(path))


@pytest.mark.parametrize("field", ["dof", "max_basis", "max_rows", "samples"])
def test_a_layout_without_room_is_refused(field: str) -> None:
    with pytest.raises(StreamError, match=field):
        MailboxLayout(**{"dof": 1, field: 0})
