# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The clock counts every lateness and never makes up for a missed period."""

import itertools
import math
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndp_ros.errors import ConfigError
from ndp_ros.streaming import clock as clock_module
from ndp_ros.streaming.clock import BINS, Clock, Histogram, bin_edges, quantile, worst_of

pytestmark = pytest.mark.live


class FakeTime:
    """Time that passes by sleeping, by reading it, and on request."""

    def __init__(self, oversleep: int = 0, look: int = 40) -> None:
        self.now, self._oversleep, self._look = 1_000_000_007, oversleep, look
        self.slept = 0

    def monotonic_ns(self) -> int:
        self.now += self._look
        return self.now

    def sleep(self, duration: float) -> None:
        assert duration > 0.0
        self.now += round(duration * 1e9) + self._oversleep
        self.slept += round(duration * 1e9)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime(oversleep=30_000)
    monkeypatch.setattr(clock_module, "time", fake)
    return fake


@given(st.integers(0, 10**10))
def test_every_duration_is_counted_in_the_bin_whose_edges_hold_it(duration: int) -> None:
    histogram = Histogram()
    histogram.add(duration)
    place = list(histogram.counts).index(1)
    edges = [0.0, *bin_edges(), math.inf]
    assert edges[place] <= duration * 1e-9 * (1 + 1e-12)
    assert duration * 1e-9 < edges[place + 1] * (1 + 1e-12)


def test_bins_are_at_most_a_quarter_wide_and_reach_a_second() -> None:
    edges = bin_edges()
    assert len(edges) == BINS - 1
    assert all(1.1 < b / a <= 1.2501 for a, b in itertools.pairwise(edges))
    assert edges[-1] > 1.0


@given(st.lists(st.integers(0, 10**8), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_quantile_is_within_a_bin_of_the_true_one(durations: list[int], share: float) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    true = sorted(durations)[max(0, math.ceil(share * len(durations)) - 1)] * 1e-9
    assert true / 1.26 - 128e-9 <= histogram.quantile(share) <= true * 1.26 + 128e-9
    assert histogram.quantile(1.0) <= histogram.worst * 1e-9


def test_the_longest_of_an_interval_is_not_one_from_before_it() -> None:
    before, interval = Histogram(), Histogram()
    before.add(20_000_000)
    interval.add(50_000)
    worst = worst_of(interval.counts, before.worst * 1e-9, before.worst * 1e-9)
    assert 50e-6 <= worst <= 50e-6 * 1.26
    assert worst_of(interval.counts, 40e-6, 50e-6) == 50e-6, "exact if it is the longest of all"
    assert worst_of([0] * BINS, 1.0, 1.0) == 0.0


def test_tick_and_busy_wait_leave_a_tenth_of_the_period_idle() -> None:
    fake = FakeTime(oversleep=70_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock_module, "time", fake)
        clock = Clock(5000.0)
        clock.start()
        for _ in range(300):
            clock.wait()
            fake.now += 100_000
        assert fake.slept > 0
        for _ in range(100):
            before = fake.slept
            clock.wait()
            fake.now += 100_000
            assert fake.slept - before >= 15_000, "of 200 us, although sleeps end 70 us late"


def test_quantile_of_nothing_is_zero() -> None:
    assert quantile([0] * BINS, 0.99) == 0.0


@pytest.mark.parametrize("rate", [500.0, 1000.0, 2000.0, 3333.0, 5000.0])
def test_ticks_stay_on_the_grid_of_the_rate(fake: FakeTime, rate: float) -> None:
    clock = Clock(rate)
    clock.start()
    origin = fake.now
    n = round(rate)
    for _ in range(n):
        assert clock.wait() == 0
    assert clock.missed == 0
    assert abs(fake.now - origin - 1e9) < 1000, "a second of ticks lasts a second"
    assert clock.lateness.worst < 200, "the spin covers what the sleep oversleeps"


def test_a_period_in_which_no_tick_ran_is_missed_and_not_made_up_for(fake: FakeTime) -> None:
    clock = Clock(1000.0)
    clock.start()
    origin = fake.now
    clock.wait()
    fake.now += 4_300_000
    assert clock.wait() == 3, "due at 2 ms, ran at 5.3 ms: the ticks of 3, 4 and 5 ms are lost"
    assert clock.missed == 3
    assert clock.ticks == 2
    assert clock.wait() == 0
    assert abs(fake.now - origin - 6_000_000) < 1000, "and the next is on the grid again"


def test_a_tick_that_is_late_within_its_period_is_not_missed(fake: FakeTime) -> None:
    clock = Clock(1000.0)
    clock.start()
    fake.now += 1_700_000
    assert clock.wait() == 0
    assert clock.missed == 0
    assert 699_000 < clock.lateness.worst < 701_000


def test_a_new_start_forgets_a_pause(fake: FakeTime) -> None:
    clock = Clock(1000.0)
    clock.start()
    fake.now += 500_000_000
    clock.start()
    assert clock.wait() == 0
    assert clock.missed == 0


def test_the_real_clock_ticks_at_its_rate() -> None:
    clock = Clock(500.0)
    clock.start()
    began = time.monotonic()
    for _ in range(50):
        clock.wait()
    # A busy machine can only make it later.
    assert time.monotonic() - began >= 50 / 500.0 - 0.002


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="rate is"):
        Clock(rate)


def test_realtime_says_what_it_got_and_goes_on_without_what_it_did_not_get() -> None:
    # In a process of its own: garbage collection and scheduler are for keeps.
    code = (
        "from ndp_ros.streaming.clock import make_realtime; import gc, json;"
        "r = make_realtime(priority=1, cpu=1023); r['enabled'] = str(gc.isenabled());"
        "print(json.dumps(r))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert '"gc": "frozen and off"' in done.stdout
    assert '"enabled": "False"' in done.stdout
    assert "any: CPU 1023 refused" in done.stdout
    assert '"scheduler": "SCHED_' in done.stdout
