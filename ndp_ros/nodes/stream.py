"""The integrator's side of the streamer: its process, its mailbox, what it has said."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response_uncached, size
from ndp_ros.errors import StreamError
from ndp_ros.nodes.messages import RejectedError
from ndp_ros.streaming.clock import bin_edges
from ndp_ros.streaming.config import RuntimeConfig, StreamSpec
from ndp_ros.streaming.layout import RESPONSES, MailboxLayout
from ndp_ros.streaming.mailbox import Mailbox, ResponseHandle, text
from ndp_ros.streaming.process import start

Array = NDArray[np.float64]

START_TIMEOUT = 30.0
"""How long a streamer may take to reach its arm [s]."""
STOP_TIMEOUT = 6.0
"""How long it may take to bring its arm to rest and to end [s]."""
SILENCE = 0.2
"""Silence of a running streamer that is too long [s], unless ``heartbeat_timeout`` is longer."""
FEWEST_TICKS = 3
"""Ticks of the loop that a segment lasts at least."""
LARGEST_RESPONSE = 1 << 19
"""Most numbers that a response matrix may be made from: whoever makes it beats the heart."""


class Stream:
    """One running streamer.

    Attributes:
        mailbox: Its shared memory.
        objects: Place of each object that it knows in ``state["poses"]``, by name.
        simulated: Whether its arm can be reset.
    """

    def __init__(self, spec: StreamSpec, dof: int, objects: Sequence[str]) -> None:
        """Start the streamer and wait until it has its arm.

        Args:
            spec: What to drive and how.
            dof: Joints of the arm, the gripper counted.
            objects: Names of objects whose poses are wanted.

        Raises:
            StreamError: If it ends or stays silent instead; its own line on standard error
                says why.
        """
        self._rate = spec.runtime.rate
        self._spec = spec
        layout = MailboxLayout(dof, tuple(objects), max_rows=spec.runtime.max_rows)
        self.mailbox = Mailbox.create(layout)
        self._process = start(spec, self.mailbox)
        self._started = time.monotonic()
        self._sent = 0
        self._epitaph: str | None = None
        self._current: tuple[DmpConfig, float] | None = None
        self._handles: OrderedDict[tuple[DmpConfig, float], ResponseHandle] = OrderedDict()
        try:
            hello = self._wait_for_hello()
        except BaseException:
            self.close()
            raise
        self._greeted = time.monotonic()
        self.simulated = bool(hello["simulated"])
        self._hello = hello
        self.objects = {n: i for i, n in enumerate(layout.objects) if n in hello["objects"]}
        self._mark_counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self._mark_ticks = self._mark_missed = 0
        self.mark()

    def _wait_for_hello(self) -> dict[str, Any]:
        deadline = time.monotonic() + START_TIMEOUT
        while (hello := self.mailbox.hello()) is None:
            if (status := self._process.poll()) is not None:
                raise StreamError(f"the streamer could not start (exit status {status})")
            if time.monotonic() > deadline:
                raise StreamError(f"the streamer did not reach its arm within {START_TIMEOUT:g} s")
            self.mailbox.beat()
            time.sleep(0.01)
        return hello

    def greeting(self) -> str:
        """Return what the streamer drives and what the kernel grants it, in one line."""
        granted = self._hello["realtime"]
        return (
            f"{self._hello['hardware']} {self._hello['arm']} at {self._rate:g} Hz, "
            f"{granted.get('scheduler', '')}, memory {granted.get('memory', '')}"
        )

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def trouble(self) -> str:
        """Why nothing drives the arm, in one line; empty while the streamer runs and ticks."""
        if not self.alive:
            return self.obituary()
        # Between its greeting and its first tick it has not beaten yet.
        age = min(self.mailbox.streamer_age(), time.monotonic() - self._greeted)
        limit = max(SILENCE, self._spec.runtime.heartbeat_timeout)
        # The limit instead of the age, so that one silence is one line.
        return f"streamer silent for more than {limit:g} s" if age > limit else ""

    def arm_clock(self) -> float:
        """Return the time by which the arm moves [s], as of the state that was loaded last.

        A simulated arm's own: on a machine too slow for it, its seconds are longer than
        ours. CLOCK_MONOTONIC for a real one.
        """
        return float(self.mailbox.state["arm_time" if self.simulated else "time"])

    def measured_at(self) -> float:
        """Return when the joints were measured [s, CLOCK_MONOTONIC], in the state loaded last.

        A simulated arm is measured as it is; the last measurement of a real one that no
        longer answers stays as old as it is.
        """
        return float(self.mailbox.state["time" if self.simulated else "arm_time"])

    def obituary(self) -> str:
        """Return how the process ended, in one line."""
        status = self._process.poll() or 0
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        reason = self.explanation()[1] if status > 0 else ""
        return f"streamer ended ({how})" + (f": {reason}" if reason else "")

    # -- segments ---------------------------------------------------------------------------

    def prepare(self, config: DmpConfig, duration: float) -> None:
        """Make sure that the response matrix of a system is in the streamer's memory.

        Raises:
            RejectedError: If the segment is too long or too short for the loop, has too many
                basis functions, or would take too long to compute.
            StreamError: If there is not enough memory.
            ConfigError: If the system diverges.
        """
        key = config, duration
        if key in self._handles:
            self._current = key
            return
        times = response_times(config, duration, self._spec.runtime, self.mailbox.layout.max_basis)
        try:
            self._handles[key] = self.mailbox.send_response(
                response_uncached(config, times), duration
            )
        except MemoryError as error:
            raise StreamError(
                f"not enough memory for the response of {len(times)} ticks and {config.n_basis} "
                "basis functions: lower n_basis, m or max_duration"
            ) from error
        # The mailbox has this many places and uses them in turn.
        while len(self._handles) > RESPONSES:
            self._handles.popitem(last=False)
        self._current = key

    def send(self, g: Array, w: Array, stamp: float, origin: Array | None) -> None:
        """Hand over a segment of the system that was prepared last.

        Args:
            g: Goal (dof,) [rad].
            w: Weights (dof, N).
            stamp: When its observation was taken [s, CLOCK_MONOTONIC].
            origin: Setpoint (dof,) from which the goal was meant; None if it is absolute.
        """
        assert self._current is not None
        self._sent += 1
        handle = self._handles[self._current]
        self.mailbox.send_segment(g, w, stamp, self._sent, handle, origin)

    # -- figures ----------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Return the mailbox' report."""
        return self.mailbox.report()

    def explanation(self) -> tuple[str, str]:
        """Return the latched fault and the reason of the last change; empty for none."""
        self.mailbox.status.load()
        return text(self.mailbox.status["fault"]), text(self.mailbox.status["reason"])

    def refusals(self) -> tuple[int, str]:
        """Return how many segments the loop has refused, and why the last one."""
        self.mailbox.status.load()
        return int(self.mailbox.status["refused"]), text(self.mailbox.status["refusal"])

    def mark(self) -> None:
        """Begin a new stretch for the figures that end in ``_since_reset``."""
        self.mailbox.status.load()
        self._mark_counts = np.array(self.mailbox.status["histogram"], np.int64)
        self._mark_ticks = int(self.mailbox.status["ticks"])
        self._mark_missed = int(self.mailbox.status["missed"])

    def figures(self) -> dict[str, object]:
        """Return rates, lateness and counts for diagnostics."""
        report = self.report()
        status = self.mailbox.status
        counts = np.array(status["histogram"], np.int64)
        late, cost = report["lateness_us"], report["cost_us"]
        since = counts - self._mark_counts
        ticks, missed = report["ticks"], report["missed"]
        return {
            "rate_hz": self._rate,
            "ticks": ticks,
            "missed_ticks": missed,
            **{f"lateness_us_{name}": value for name, value in late.items()},
            **{f"cost_us_{name}": value for name, value in cost.items()},
            "ticks_since_reset": ticks - self._mark_ticks,
            "missed_since_reset": missed - self._mark_missed,
            "lateness_us_max_since_reset": min(_highest(since), late["max"]),
            "accepted": report["accepted"],
            "dropped": report["dropped"],
            "refused": report["refused"],
            "stretched": report["stretched"],
            **{f"guard_{name}": count for name, count in report["guard"].items()},
            "scheduler": self._hello["realtime"].get("scheduler", ""),
            "streamer_pid": self._hello["pid"],
        }

    # -- the end ----------------------------------------------------------------------------

    def close(self) -> str:
        """Bring the arm to rest, end the process, free the memory; may be called twice.

        Returns:
            How the process ended unless it did as it was told: the arm may not be at rest.
        """
        if self._epitaph is not None:
            return self._epitaph
        process, killed = self._process, False
        if process.poll() is None:
            self.mailbox.request("quit")
            if not self._wait(STOP_TIMEOUT):
                process.terminate()
                if killed := not self._wait(STOP_TIMEOUT):
                    process.kill()
                    process.wait()
        self._epitaph = self.obituary() if process.returncode else ""
        if killed and self._epitaph:
            self._epitaph += f": no end within {2.0 * STOP_TIMEOUT:g} s, the arm may still move"
        self.mailbox.close()
        return self._epitaph

    def _wait(self, timeout: float) -> bool:
        """Wait for the end of the process, alive oneself; whether it came."""
        deadline = time.monotonic() + timeout
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                return False
            self.mailbox.beat()
            time.sleep(0.005)
        return True


def response_times(
    config: DmpConfig, duration: float, runtime: RuntimeConfig, max_basis: int
) -> Array:
    """Return the normalised times of the loop's ticks, from a segment's start past its horizon.

    Args:
        config: The segment's dynamical system.
        duration: tau [s], positive.
        runtime: The loop.
        max_basis: Most basis functions that its memory has room for.

    Raises:
        RejectedError: If the loop cannot follow such a segment, or if its response would keep
            whoever computes it from the heartbeat.
    """
    shortest, longest = FEWEST_TICKS / runtime.rate, runtime.max_duration
    if not shortest * (1.0 - 1e-9) <= duration <= longest:
        raise RejectedError(
            "duration",
            f"{duration:g} s, expected at least {shortest:g} s ({FEWEST_TICKS} ticks of "
            f"{runtime.rate:g} Hz) and at most {longest:g} s (max_duration)",
        )
    if config.n_basis > max_basis:
        raise RejectedError("dynamics", f"n_basis is {config.n_basis}, at most {max_basis}")
    times = np.arange(runtime.rows(duration)) / (runtime.rate * duration)
    if (numbers := size(config, times)) > LARGEST_RESPONSE:
        raise RejectedError(
            "dynamics",
            f"the response is made from {numbers:.2g} numbers, at most {LARGEST_RESPONSE:.2g}: "
            "lower n_basis, a_x, m or the rate, or send shorter segments",
        )
    return times


def _highest(counts: NDArray[np.int64]) -> float:
    """Return the upper edge of the highest bin that is not empty [us]."""
    filled = np.flatnonzero(counts > 0)
    if not len(filled):
        return 0.0
    edges = [*bin_edges(), float("inf")]
    return edges[int(filled[-1])] * 1e6
