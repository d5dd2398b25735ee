# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The compiled body of a tick and the Python one arrive at the same bits, whatever happens."""

import dataclasses
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_ros.arms.mock import MockArm
from ndp_ros.control.arm import ArmConfig, ArmInfo, Command, JointState
from ndp_ros.control.measurement import Confirmer
from ndp_ros.control.memory import Interpreted
from ndp_ros.control.omega import Identity, InverseDynamics
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response
from ndp_ros.streaming import backends, compiled
from ndp_ros.streaming.clock import Clock, Histogram
from ndp_ros.streaming.config import RuntimeConfig, StreamSpec
from ndp_ros.streaming.feedback import Feedback
from ndp_ros.streaming.follower import Follower
from ndp_ros.streaming.guard import Guard
from ndp_ros.streaming.layout import MailboxLayout
from ndp_ros.streaming.mailbox import Mailbox
from ndp_ros.streaming.recovery import Recovery
from ndp_ros.streaming.streamer import Streamer

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(compiled.MISSING), reason=compiled.MISSING),
]

GEN3 = ArmConfig.named("gen3")
GENTLE = ArmInfo.from_config(GEN3, ("position",))
INFO = dataclasses.replace(GENTLE, max_acceleration=50.0 * GENTLE.max_acceleration)
DOF, N_ARM = INFO.dof, INFO.n_arm
HOME = np.array(GEN3.home)
RATE, DURATION = 1000.0, 0.08
DMP = DmpConfig(n_basis=4)
FREE = DmpConfig(n_basis=4, forcing="free")


class Loop:
    """The parts of a loop with an arm that reads as it is set, with a core or without."""

    def __init__(self, fast: bool, mode: str = "position", **values) -> None:
        self.config = dataclasses.replace(RuntimeConfig(rate=RATE), **values)
        self.guard = Guard(INFO, self.config)
        self.box = Mailbox.create(MailboxLayout(DOF, max_rows=400, max_basis=8))
        self.follower = Follower(
            self.guard, self.config, self.box.responses, self.config.rows(DURATION), 8
        )
        self.follower.rest_at(HOME)
        self.arm = MockArm(GEN3)
        self.feedback = Feedback(self.arm, INFO, self.guard, simulated=False)
        self.command = Command.zeros(DOF, mode)
        self.clock, self.cost = Clock(RATE), Histogram()
        self.fill()
        self.turn = compiled.Turn()
        self.core = self._core(mode) if fast else Interpreted()
        self.done = self.asked = self.taken = 0

    def _core(self, mode: str, shared=None):
        recovery = Recovery(
            self.config, INFO, self.guard, self.follower, self.feedback, self.command.mode
        )
        memory = {
            "turn": self.turn,
            "cost": self.cost,
            "cost_counts": self.cost.counts,
            "command_position": self.command.position,
            "command_velocity": self.command.velocity,
            "command_torque": self.command.torque,
        }
        constants = {"simulated": 0, "torque_mode": mode == "torque", "parent": os.getppid()}
        constants |= {"settling": 1.0, "every_status": 20, "every_sample": 2}
        self.parts = self.follower, recovery, self.clock, self.box, self.feedback
        memory |= shared or {}
        return compiled.make_core(self.config, INFO, self.parts, memory, constants, [])

    def fill(self) -> None:
        """Write the responses anew, over that of the running segment."""
        rows = np.arange(self.config.rows(DURATION)) / (RATE * DURATION)
        horizon = self.config.horizon(DURATION)
        self.handles = [
            self.box.send_response(response(dmp, rows), DURATION, dmp.scaled, horizon)
            for dmp in (FREE, DMP, DMP, FREE)
        ][-2:]

    def offer(self, g, w, free: bool, sequence: int, kind: str = "") -> bool:
        self.box.beat()
        origin = self.follower.setpoint[0] - 0.01 if kind == "displaced" else None
        stamp = 99.0 if kind == "late" else 100.0
        if kind == "infinite":
            w[0, 0] = math.inf
        self.box.send_segment(g, w, stamp, sequence, self.handles[free], origin)
        # A box has a reader and a writer, whose stamps are not the same.
        self.box.segment.stamp, self.turn.previous = 0, round(100e9)
        if self.core.usual(round(100e9)) and self.box.segment.stamp:
            self.taken += 1
            return True
        return self.follower.offer(self.box.segment.value, 100.0)

    def part(self, done: bool, otherwise) -> int:
        """Count which code has done a part; run the Python code unless the core has."""
        self.asked += 1
        self.done += bool(done)
        return 0 if done else otherwise()

    def tick(self) -> bytes:
        self.part(self.core.advance(), self.follower.tick)
        return self.state()

    def state(self) -> bytes:
        follower = self.follower
        return (
            follower.setpoint.tobytes()
            + repr((follower.phase, follower.sequence, follower.reason, follower.fault)).encode()
            + repr((self.guard.counts, self.guard.fault)).encode()
        )

    def close(self) -> None:
        self.core.release()
        self.box.close()


@pytest.fixture
def pair(request):
    loops = [Loop(fast, **getattr(request, "param", {})) for fast in (False, True)]
    yield loops
    for loop in loops:
        loop.close()


def both(**values) -> list[Loop]:
    return [Loop(fast, **values) for fast in (False, True)]


segments = st.tuples(
    st.lists(st.floats(-1.5, 1.5), min_size=DOF, max_size=DOF),
    st.floats(0.0, 1.0),  # size of the motion: from one that passes to one that is clamped
    st.lists(st.floats(-300.0, 300.0), min_size=DOF * 4, max_size=DOF * 4),
    st.booleans(),
    st.sampled_from(
        ["segment"] * 5 + ["displaced", "late", "infinite", "hold", "trip", "pause", "overwritten"]
    ),
    st.integers(1, 60),
)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(segments, min_size=1, max_size=8),
    st.sampled_from(["clamp", "brake", "count"]),
    st.sampled_from(["clamp", "stretch"]),
)
def test_setpoints_are_the_same_bits_over_any_stream(stream, policy, fast) -> None:
    loops = both(on_velocity=policy, on_acceleration=policy, on_fast_segment=fast)
    try:
        for number, (g, size, w, free, kind, ticks) in enumerate(stream, 1):
            for loop in loops:
                goal = loop.follower.setpoint[0] + size**3 * np.array(g)
                loop.follower.follow()
                weights = size**3 * np.reshape(w, (DOF, 4)) * (0.01 if free else 1.0)
                loop.offer(goal, weights, free, number, kind)
                if kind == "hold":
                    loop.follower.hold()
                elif kind == "trip":
                    loop.follower.trip("stop_requested")
                elif kind == "pause":
                    loop.follower.slow_down(loop.follower.setpoint[1].copy(), np.zeros(DOF))
                elif kind == "overwritten":
                    loop.fill()
            for _ in range(ticks):
                plain, quick = (loop.tick() for loop in loops)
                assert plain == quick
            for loop in loops:
                if loop.follower.fault and not loop.follower.moving:
                    loop.follower.clear()
    finally:
        for loop in loops:
            loop.close()


@pytest.mark.parametrize(
    "pair", [{}, {"on_fast_segment": "stretch"}], indirect=True, ids=["clamp", "stretch"]
)
def test_a_smooth_motion_needs_no_python(pair) -> None:
    _, quick = pair
    quick.follower.follow()
    rng = np.random.default_rng(0)
    for number in range(1, 6):
        goal = HOME + 0.002 * rng.normal(size=DOF)
        goal[-1] = HOME[-1] - 1.0 if number == 3 else goal[-1]  # a grip beyond the range
        weights = 0.01 * rng.normal(size=(DOF, 4))
        assert quick.offer(goal, weights, number % 2 == 0, number)
        for _ in range(50):
            quick.tick()
    assert quick.done > 0.9 * quick.asked
    assert quick.taken == 5, "and neither does taking its segments over"
    assert sum(quick.guard.counts) == 0


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["position", "torque"]),
    st.lists(
        st.tuples(
            st.integers(0, DOF - 1),
            st.sampled_from(["position", "torque"]),
            st.one_of(st.floats(-1.3, 1.3), st.sampled_from([math.nan, math.inf, 1.0, -1.0, 40.0])),
        ),
        max_size=30,
    ),
)
def test_commands_are_judged_alike(mode, changes) -> None:
    loops = both(mode=mode)
    try:
        for joint, row, value in changes:
            results = []
            for loop in loops:
                command = loop.command
                command.position[:] = HOME
                command.torque[:] *= 0.9
                scale = INFO.max_torque[joint] if row == "torque" else 3.0
                getattr(command, row)[joint] = scale * value if scale else 0.0
                policy = loop.part(
                    loop.core.command(), lambda one=loop: one.guard.command(one.command)
                )
                results.append(
                    (policy, command.position.tobytes(), command.torque.tobytes(), loop.state())
                )
                np.nan_to_num(command.torque, copy=False, posinf=0.0, neginf=0.0)
            assert results[0] == results[1]
    finally:
        for loop in loops:
            loop.close()


readings = st.lists(
    st.tuples(
        st.floats(0.0, 0.01),  # time since the last reading [s]
        st.sampled_from([None] * 12 + ["position", "velocity", "effort"]),
        st.integers(0, DOF - 1),
        st.one_of(st.floats(-7.0, 7.0), st.just(math.nan), st.just(2 * math.pi)),
    ),
    min_size=5,
    max_size=120,
)


@settings(max_examples=25, deadline=None)
@given(readings, st.floats(-0.4, 0.4))
def test_readings_are_confirmed_alike(stream, speed) -> None:
    loops = both()
    try:
        now = 0.0
        reading = JointState.zeros(DOF)
        reading.position[:] = HOME
        for elapsed, row, joint, value in [(0.001, None, 0, 0.0)] * 4 + stream:
            now += elapsed
            moved = HOME + speed * now
            reading.position[:], reading.velocity[:], reading.effort[:] = moved, speed, 0.0
            if row is not None:
                getattr(reading, row)[joint] += value
            reading.time = now
            results = []
            for loop in loops:
                state, confirmer = loop.feedback.state, confirmer_of(loop)
                vectors = reading.position, reading.velocity, reading.effort
                done = loop.core.confirm(*vectors, reading.time)
                confirmed = loop.part(done, lambda one=confirmer: not one.confirm(reading))
                numbers = state.time, confirmer.gripper_time, confirmer.rejected
                words = confirmer.reason, confirmer.finite, confirmer.complete
                rows = [v.tobytes() for v in (state.position, state.velocity, state.effort)]
                results.append((confirmed, numbers, words, rows))
            assert results[0] == results[1]
    finally:
        for loop in loops:
            loop.close()


def confirmer_of(loop: Loop) -> Confirmer:
    return loop.feedback.memory["confirmer"]


def test_usual_readings_need_no_python(pair) -> None:
    _, quick = pair
    reading = JointState.zeros(DOF)
    for i in range(1, 501):
        reading.position[:], reading.velocity[:] = HOME + 0.1 * i * 1e-3, 0.1
        reading.time = i * 1e-3
        done = quick.core.confirm(reading.position, reading.velocity, reading.effort, reading.time)
        quick.part(done, lambda: confirmer_of(quick).confirm(reading))
    assert quick.done > 440, "all but the first, until it is seen that velocities move joints"


@pytest.mark.parametrize("phase", ["holding", "following"])
def test_the_state_that_is_published_is_the_same(pair, phase: str) -> None:
    for loop in pair:
        if phase == "following":
            loop.follower.follow()
            loop.offer(HOME + 0.02, np.zeros((DOF, 4)), False, 7)
        for _ in range(5):
            loop.tick()
        loop.clock.ticks = 20
        state = loop.feedback.state
        vectors = state.position, state.velocity, state.effort
        if not loop.core.publish(5.0, 4.5):
            loop.box.publish_state(
                5.0,
                4.5,
                20,
                loop.follower.sequence,
                loop.follower.phase,
                vectors,
                loop.follower.setpoint,
            )
            loop.box.append_sample(loop.command.torque)
        assert (loop.core.publish(5.0, 4.5) is False) == (loop is pair[0])
    states, samples = [], []
    for loop in pair:
        reader = Mailbox.attach(loop.box.name)
        assert reader.state.load()
        states.append(reader.state.value.tobytes())
        samples.append(reader.samples.read()[0][:1].tobytes())
        reader.close()
    assert states[0] == states[1]
    assert samples[0] == samples[1]


def stream_of(fast: bool, ticks: int) -> tuple[np.ndarray, int]:
    """Return the setpoints of a whole streamer in this process, and the ticks done in Python."""
    patient = dict.fromkeys(("stall_timeout", "feedback_timeout"), 5.0)
    config = RuntimeConfig(
        rate=100.0,
        compiled=fast,
        heartbeat_timeout=50.0,
        parent_timeout=500.0,
        max_parameter_age=10.0,
        **patient,
    )
    spec = StreamSpec(hardware="mock", arm="gen3", task="", command_mode="position", runtime=config)
    box = Mailbox.create(MailboxLayout(DOF, max_rows=config.max_rows, max_basis=8))
    streamer = Streamer(spec, Mailbox.attach(box.name), MockArm(GEN3), Identity(), [])
    rows = np.arange(config.rows(0.4)) / (100.0 * 0.4)
    handle = box.send_response(response(DMP, rows), 0.4, True, config.horizon(0.4))
    box.beat()
    streamer.begin()
    box.requests.ask("follow")
    setpoints, before = [], Follower.tick
    calls = []
    Follower.tick = lambda follower: (calls.append(1), before(follower))[1]
    try:
        for i in range(ticks):
            if i % 30 == 5:
                goal = HOME + 0.004 * math.sin(i)
                box.send_segment(goal, np.zeros((DOF, 4)), time.monotonic(), i, handle)
            assert not streamer.turn()
            box.state.load()
            setpoints.append(np.concatenate([box.state[name] for name in ("y", "yd", "ydd")]))
            time.sleep(0.01)
    finally:
        Follower.tick = before
        box.close()
    return np.array(setpoints), len(calls)


def test_a_whole_streamer_moves_the_same_and_seldom_needs_python() -> None:
    plain, in_python = stream_of(False, 160)
    quick, rest = stream_of(True, 160)
    assert np.array_equal(plain, quick)
    assert np.abs(np.diff(plain, axis=0)).max() > 1e-4
    assert in_python == 160
    assert rest < 110, "of which some are due to segments, and to pauses of a busy machine"


def simulated(fast: bool, ticks: int, monkeypatch) -> tuple[bytes, int]:
    """Return how a simulated arm moves, and the torques that Python has computed."""
    arm, omega = backends.make(
        StreamSpec(hardware="mujoco", arm="jaco", task="throw", command_mode="torque")
    )
    config = RuntimeConfig(
        rate=500.0, compiled=fast, heartbeat_timeout=50.0, max_parameter_age=10.0
    )
    spec = StreamSpec(arm="jaco", command_mode="torque", runtime=config)
    dof = arm.connect().dof
    box = Mailbox.create(MailboxLayout(dof, max_rows=config.max_rows, max_basis=8))
    streamer = Streamer(spec, Mailbox.attach(box.name), arm, omega, [])
    handle = box.send_response(
        response(DMP, np.arange(config.rows(0.2)) / (500.0 * 0.2)), 0.2, True, config.horizon(0.2)
    )
    box.beat()
    calls, torque = [], InverseDynamics.torque
    monkeypatch.setattr(InverseDynamics, "torque", lambda *a: (calls.append(1), torque(*a))[1])
    streamer.begin()
    box.requests.ask("follow")
    seen = []
    try:
        for i in range(ticks):
            if i % 40 == 5:
                box.state.load()
                goal = box.state["y"] + 0.1 * math.sin(i)
                box.send_segment(goal, np.zeros((dof, 4)), time.monotonic(), i, handle)
            assert not streamer.turn()
            box.state.load()
            seen += [box.state[name].tobytes() for name in ("y", "position", "velocity", "effort")]
    finally:
        box.close()
    return b"".join(seen), len(calls)


def test_a_simulated_arm_moves_by_the_same_torques(monkeypatch) -> None:
    plain, in_python = simulated(False, 240, monkeypatch)
    monkeypatch.undo()
    quick, rest = simulated(True, 240, monkeypatch)
    assert plain == quick
    assert (in_python, rest) == (240, 0)


def test_released_memory_is_not_touched(pair) -> None:
    _, quick = pair
    quick.core.release()
    assert not quick.core.tick()
    assert not quick.core.usual(time.monotonic_ns())
    assert not quick.core.advance()
    assert not quick.core.publish(1.0, 1.0)
    quick.core.release()


def test_memory_of_the_wrong_size_is_refused(pair) -> None:
    _, quick = pair
    with pytest.raises(ValueError, match="turn has"):
        compiled.make_core(quick.config, INFO, quick.parts, {"turn": np.zeros(3)}, {}, [])


def test_an_extension_that_was_built_from_another_source_is_left_out() -> None:
    code = (
        "import ndp_ros.streaming._core as core; core.SOURCE = 0;"
        "from ndp_ros.streaming.compiled import loop_of; print(loop_of(True))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "another core.c" in result.stdout


def test_the_loop_says_in_which_language_it_runs(monkeypatch) -> None:
    assert compiled.loop_of(True) == "compiled"
    assert compiled.loop_of(False) == "Python: as configured"
    monkeypatch.setattr(compiled, "MISSING", "Python: the extension was not built")
    assert "not built" in compiled.loop_of(True)


def test_readings_of_an_arm_that_confirms_its_own_are_confirmed_in_its_memory() -> None:
    plain, quick = Confirmer(INFO), Confirmer(INFO)
    arm = Loop(fast=False)
    try:
        arm.feedback = Feedback(
            arm.arm, dataclasses.replace(INFO, confirmed=True), arm.guard, simulated=False
        )
        assert "confirmer" not in arm.feedback.memory
        core = arm._core("position", quick.memory)  # noqa: SLF001
        reading, done = JointState.zeros(DOF), 0
        for i in range(1, 501):
            reading.position[:], reading.velocity[:] = HOME + 0.1 * i * 1e-3, 0.1
            reading.position[0] += 0.3 * (200 <= i < 203)
            reading.time = i * 1e-3
            plain.confirm(reading)
            vectors = reading.position, reading.velocity, reading.effort
            compiled_did = core.confirm(*vectors, reading.time)
            done += compiled_did
            assert compiled_did or quick.confirm(reading) == (plain.reason == "")
            for one, other in zip(
                (plain.state.position, plain.state.velocity, plain.state.effort),
                (quick.state.position, quick.state.velocity, quick.state.effort),
                strict=True,
            ):
                assert one.tobytes() == other.tobytes()
            assert plain.state.time == quick.state.time
            assert plain.gripper_time == quick.gripper_time
        assert 400 < done < 490
        assert arm.feedback.state.time == 0.0, "the loop's own copy is the arm's to fill"
        core.release()
        assert not core.confirm(*vectors, reading.time + 1e-3)
    finally:
        arm.close()
