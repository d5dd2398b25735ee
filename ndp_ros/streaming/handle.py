# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Handle of a streamer process: start it, send it segments, read its state, end it.

The integrator node and ``ndp bench stream`` drive arms through it. The response matrix of a segment
is computed here, outside the loop, and handed over with the segment in shared memory.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ndp_ros.control.arm import ArmConfig
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response, response_size
from ndp_ros.errors import RejectedError, StreamError
from ndp_ros.streaming.config import RuntimeConfig, StreamSpec
from ndp_ros.streaming.figures import Counts, Figures
from ndp_ros.streaming.layout import RESPONSES, MailboxLayout, decode
from ndp_ros.streaming.mailbox import Mailbox, ResponseHandle
from ndp_ros.streaming.process import start

Array = NDArray[np.float64]

START_TIMEOUT = 30.0
"""Time for a streamer to reach its arm [s]."""
STOP_TIMEOUT = 6.0
"""Time for a streamer to bring its arm to rest and to end [s]."""
SILENCE = 0.2
"""Longest silence of a running streamer [s], unless ``heartbeat_timeout`` is longer."""
FEWEST_TICKS = 3
"""Smallest number of ticks that a segment lasts."""
LARGEST_RESPONSE = 1 << 19
"""Most numbers that a response matrix is made from: computing more would delay the heartbeat."""


class StreamerHandle:
    """A running streamer process and its mailbox; a context manager that closes it.

    The owner calls ``mailbox.beat()`` at 20 Hz or more.

    Attributes:
        mailbox: Its shared memory.
        objects: Index of each object that it knows in ``state["poses"]``, by name.
        signals: Place of each further value in ``state["signals"]``, by name.
        simulated: Whether its arm is simulated, and can be reset.
    """

    def __init__(self, spec: StreamSpec, objects: Sequence[str] = (), signals: int = 0) -> None:
        """Start the streamer and wait until it is connected to its arm.

        Args:
            spec: The arm, its backend and the parameters of the loop.
            objects: Names of the objects whose poses are published.
            signals: Number of further values of a simulated arm that are published.

        Raises:
            StreamError: If it ends or stays silent instead; its own line on standard error
                says why.
            ConfigError: If there is no such arm.
        """
        self._runtime = spec.runtime
        dof = len(ArmConfig.named(spec.arm).joint_names)
        layout = MailboxLayout(dof, tuple(objects), signals, max_rows=spec.runtime.max_rows)
        self.mailbox = Mailbox.create(layout)
        self._process = start(spec, self.mailbox)
        self._sent = 0
        self._closed: str | None = None
        self._current: tuple[DmpConfig, float] | None = None
        self._responses: OrderedDict[tuple[DmpConfig, float], ResponseHandle] = OrderedDict()
        try:
            self._handshake = self._wait_for_handshake()
        except BaseException:
            self.close()
            raise
        self._connected_at = time.monotonic()
        self.simulated = bool(self._handshake["simulated"])
        known = self._handshake["objects"]
        self.objects = {name: i for i, name in enumerate(layout.objects) if name in known}
        ends = np.cumsum([0, *self._handshake["signals"].values()])
        self.signals = {
            name: slice(int(ends[i]), int(ends[i + 1]))
            for i, name in enumerate(self._handshake["signals"])
        }
        self.mark_reset()

    def _wait_for_handshake(self) -> dict[str, Any]:
        deadline = time.monotonic() + START_TIMEOUT
        while (handshake := self.mailbox.handshake()) is None:
            if (status := self._process.poll()) is not None:
                raise StreamError(f"the streamer could not start (exit status {status})")
            if time.monotonic() > deadline:
                raise StreamError(f"the streamer did not reach its arm within {START_TIMEOUT:g} s")
            self.mailbox.beat()
            time.sleep(0.01)
        return handshake

    @property
    def description(self) -> str:
        """Arm, backend, rate and what the kernel grants the loop, in one line."""
        granted = self._handshake["realtime"]
        return (
            f"{self._handshake['hardware']} {self._handshake['arm']} at {self._runtime.rate:g} Hz, "
            f"{granted.get('scheduler', '')}, memory {granted.get('memory', '')}"
        )

    @property
    def granted(self) -> dict[str, str]:
        """Answers of the kernel to the loop's requests for real time; see ``make_realtime``."""
        return dict(self._handshake["realtime"])

    # -- state -------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def problem(self) -> str:
        """Why nothing drives the arm, in one line; empty while the streamer runs and ticks."""
        if not self.alive:
            return self.exit_reason()
        # Between handshake and first tick there is no heartbeat yet.
        age = min(self.mailbox.streamer_age(), time.monotonic() - self._connected_at)
        limit = max(SILENCE, self._runtime.heartbeat_timeout)
        # The limit instead of the age, so that one silence is one line.
        return f"streamer silent for more than {limit:g} s" if age > limit else ""

    def exit_reason(self) -> str:
        """Return how the process ended, in one line."""
        status = self._process.poll() or 0
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        reason = self.explanation()[1] if status > 0 else ""
        return f"streamer ended ({how})" + (f": {reason}" if reason else "")

    @property
    def period(self) -> float:
        """Time between two ticks [s]."""
        return self._runtime.period

    def arm_clock(self) -> float:
        """Return the time by which the arm moves [s], as of the state that was loaded last.

        It is the simulated time of a simulated arm, whose seconds are longer on a machine that is
        too slow for it, and CLOCK_MONOTONIC for a real one.
        """
        return float(self.mailbox.state["arm_time" if self.simulated else "time"])

    def measured_at(self) -> float:
        """Return when the joints were measured [s, CLOCK_MONOTONIC], in the state loaded last.

        A simulated arm is measured at every tick; the last measurement of a real one that no
        longer answers keeps its time.
        """
        return float(self.mailbox.state["time" if self.simulated else "arm_time"])

    def explanation(self) -> tuple[str, str]:
        """Return the latched fault and the reason of the last change; empty for none."""
        self.mailbox.status.load()
        return decode(self.mailbox.status["fault"]), decode(self.mailbox.status["reason"])

    def refusals(self) -> tuple[int, str]:
        """Return how many segments the guard has refused, and why the last one."""
        self.mailbox.status.load()
        return int(self.mailbox.status["refused"]), decode(self.mailbox.status["refusal"])

    # -- requests and segments ---------------------------------------------------------------

    def request(self, kind: str, seed: int = 0, timeout: float = 5.0) -> None:
        """Ask for ``kind`` and block until it is done; see :meth:`RequestQueue.ask`.

        Raises:
            StreamError: If it is refused, or not answered within ``timeout`` [s].
        """
        requests = self.mailbox.requests
        requests.wait(requests.ask(kind, seed, timeout), timeout)

    def prepare(self, config: DmpConfig, duration: float) -> None:
        """Write the response matrix of the segments to come, unless the streamer has it.

        Args:
            config: Their dynamical system.
            duration: tau [s].

        Raises:
            RejectedError: If the segment is too long or too short for the loop, has too many
                basis functions, or would take too long to compute.
            StreamError: If there is not enough memory.
            ConfigError: If the system diverges.
        """
        key = config, duration
        if key not in self._responses:
            times = response_times(config, duration, self._runtime, self.mailbox.layout.max_basis)
            try:
                B = response(config, times)
            except MemoryError as error:
                raise StreamError(
                    f"not enough memory for the response of {len(times)} ticks and "
                    f"{config.n_basis} basis functions: lower n_basis, m or max_duration"
                ) from error
            horizon = self._runtime.horizon(duration)
            self._responses[key] = self.mailbox.send_response(B, duration, config.scaled, horizon)
            # The mailbox has this many places and uses them in turn.
            while len(self._responses) > RESPONSES:
                self._responses.popitem(last=False)
        self._current = key

    def send(self, g: Array, w: Array, stamp: float, origin: Array | None = None) -> None:
        """Hand over a segment of the system that was prepared last.

        Args:
            g: Goal (dof,) [rad].
            w: Weights (dof, N).
            stamp: Time of its observation [s, CLOCK_MONOTONIC].
            origin: Setpoint (dof,) [rad] at the observation, to which the goal is relative; None
                if it is absolute.
        """
        assert self._current is not None
        self._sent += 1
        response = self._responses[self._current]
        self.mailbox.send_segment(g, w, stamp, self._sent, response, origin)

    # -- figures -----------------------------------------------------------------------------

    def mark_reset(self) -> None:
        """Begin a new interval for the figures whose names end in ``_since_reset``."""
        self._marked = self.tick_counts()

    def tick_counts(self) -> Counts:
        """Return counts of the loop so far.

        They are ``ticks``, ``missed``, the binned ``histogram`` of lateness and ``costs``, and
        the longest of each, ``worst`` and ``costliest`` [s].
        """
        self.mailbox.status.load()
        names = ("ticks", "missed", "histogram", "costs", "worst", "costliest")
        return {name: np.array(self.mailbox.status[name], np.float64) for name in names}

    def figures(self) -> dict[str, object]:
        """Return rates, lateness and counts for diagnostics."""
        report, counts = self.mailbox.report(), self.tick_counts()
        since = Figures.between(self._marked, counts)
        late, cost = report["lateness_us"], report["cost_us"]
        return {
            "rate_hz": self._runtime.rate,
            "ticks": report["ticks"],
            "missed_ticks": report["missed"],
            **{f"lateness_us_{name}": value for name, value in late.items()},
            **{f"cost_us_{name}": value for name, value in cost.items()},
            "ticks_since_reset": since.ticks,
            "missed_since_reset": since.missed,
            "lateness_us_max_since_reset": since.late.worst * 1e6,
            **{name: report[name] for name in ("accepted", "dropped", "refused", "stretched")},
            **{f"guard_{name}": count for name, count in report["guard"].items()},
            "scheduler": self.granted.get("scheduler", ""),
            "streamer_pid": self._handshake["pid"],
        }

    # -- the end -----------------------------------------------------------------------------

    def close(self) -> str:
        """Bring the arm to rest, end the process, free the memory; may be called twice.

        Returns:
            An empty text if the process ended as requested; otherwise how it ended, and the arm
            may not be at rest.
        """
        if self._closed is not None:
            return self._closed
        process, killed = self._process, False
        if process.poll() is None:
            self.mailbox.requests.ask("quit")
            if not self._wait(STOP_TIMEOUT):
                process.terminate()
                if killed := not self._wait(STOP_TIMEOUT):
                    process.kill()
                    process.wait()
        self._closed = self.exit_reason() if process.returncode else ""
        if killed and self._closed:
            self._closed += f": no end within {2.0 * STOP_TIMEOUT:g} s, the arm may still move"
        self.mailbox.close()
        return self._closed

    def _wait(self, timeout: float) -> bool:
        """Give heartbeats until the process ends; return whether it did in time."""
        deadline = time.monotonic() + timeout
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                return False
            self.mailbox.beat()
            time.sleep(0.005)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def response_times(
    config: DmpConfig, duration: float, runtime: RuntimeConfig, max_basis: int
) -> Array:
    """Return the normalised times of the loop's ticks, from a segment's start past its horizon.

    Args:
        config: The segment's dynamical system.
        duration: tau [s], positive.
        runtime: Parameters of the loop.
        max_basis: Most basis functions that fit the loop's memory.

    Raises:
        RejectedError: If the loop cannot follow such a segment, or if computing its response
            would delay the heartbeat.
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
    if (numbers := response_size(config, times)) > LARGEST_RESPONSE:
        raise RejectedError(
            "dynamics",
            f"the response is made from {numbers:.2g} numbers, at most {LARGEST_RESPONSE:.2g}: "
            "lower n_basis, a_x, m or the rate, or send shorter segments",
        )
    return times
