"""What the arm shall do at each tick: segments and requests in, one setpoint out.

The state machine of the streamer without its process: no clock, no shared memory, no
arm, so that every sequence of segments, delays, drops and faults can be run through it
at any speed.

    holding ──follow──► waiting ──segment──► following ──starved──► braking ──at rest──► waiting
       ▲                   │                     │                     ▲
       └──hold, at rest────┴────────hold─────────┴──────────────►──────┘
    any ──fault──► fault (brakes first, then rests) ──clear_fault──► holding

A new segment starts from the setpoint (y, yd) of the last tick, so position and
velocity are continuous whenever it comes. All its setpoints are computed at once, by
one matrix product with the response; a tick takes the next one.

A segment that is too fast may be slowed down (``on_fast_segment: stretch``): the same goal
and weights, solved anew from the same start for a duration that is longer by the excess.
The rows of its response then lie further apart than a tick; between them setpoints are
interpolated by quintic polynomials, which agree in y, yd and ydd at both ends.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.streaming.config import RuntimeConfig
from ndp_ros.streaming.guard import BRAKE, FAULT, Guard
from ndp_ros.streaming.layout import PHASES

Array = NDArray[np.float64]

STARTING, HOLDING, WAITING, FOLLOWING, BRAKING, FAULTY, STOPPED = range(len(PHASES))

_ATTEMPTS = 6
_RETREAT_SPEED = 0.1
"""Speed of a retreat, in units of the velocity limits."""
_MOVES = 0.02
"""Speed from which on a joint can be seen to brake [rad/s]."""


class Follower:
    """The setpoint and the phase of one arm, tick by tick.

    Attributes:
        setpoint: y, yd, ydd of the present tick (3, dof).
        phase: Index into ``PHASES``.
        sequence: Number of the segment that drives the arm; 0 for none.
        fault: Latched violation, with its explanation; empty for none.
        reason: Why the arm last braked, was refused a segment or had one changed; empty once
            it was told to hold.
        refusal: Why a segment was refused last.
        accepted, dropped, refused, stretched: Segments so far.
        retreats: Whether the arm has gone elsewhere to rest after a fault, or was kept from it.
    """

    def __init__(self, guard: Guard, config: RuntimeConfig, max_rows: int, max_basis: int) -> None:
        dof = guard.info.dof
        self.guard = guard
        self.setpoint = np.zeros((3, dof))
        self.phase = STARTING
        self.sequence = 0
        self.fault = ""
        self.reason = ""
        self.refusal = ""
        self.accepted = self.dropped = self.refused = self.stretched = 0
        self._enabled = False
        self._retreat: Array | None = None
        self.retreats = False
        self._config = config
        self._dof = dof
        self._max_basis = max_basis
        # Two tables, so that a segment that is refused leaves the one that runs alone.
        self._memory = [np.zeros(dof * 3 * max_rows) for _ in range(2)]
        self._max_rows = max_rows
        self._active = 0
        self._table = self._memory[0][: dof * 3].reshape(dof, 3, 1).transpose(1, 0, 2)
        self._columns = np.zeros((dof, 3 + max_basis))
        self._wanted = np.zeros((3, dof))
        self._index = 0
        self._end = self._due = 0
        self._stretch = 1.0
        self._hermite = _Hermite(dof)
        self._ignore_before = -math.inf
        self._refused_before = 0
        """Segments that had been refused when the last one was accepted."""

    # -- requests ----------------------------------------------------------------------------

    def seat(self, position: Array) -> None:
        """Begin anew at rest where the arm is measured, so that nothing jumps."""
        self.setpoint[0] = position
        self.setpoint[1:] = 0.0
        self.guard.seat(position)
        self.sequence = 0
        self._retreat = None
        if self.phase != FAULTY:
            self.phase = WAITING if self._enabled else HOLDING

    def follow(self) -> str:
        """Accept segments from now on; return why not, or nothing."""
        if self.fault:
            return f"in fault ({self.fault}): clear it first"
        self._enabled = True
        if self.phase == HOLDING:
            self.phase = WAITING
        return ""

    def hold(self, reason: str = "") -> None:
        """Brake, hold, and accept no segment until :meth:`follow`."""
        self._enabled = False
        # What happened before is not why the arm brakes now.
        self.reason = reason
        self.brake(reason)

    def trip(self, name: str, text: str = "") -> None:
        """Latch a fault: brake, rest, and follow nothing until :meth:`clear`.

        Args:
            name: The violation.
            text: More for people.
        """
        if not self.fault:
            self.fault = self.reason = f"{name}: {text}" if text else name
        self._enabled = False
        self.phase = FAULTY

    def retreat(self, position: Array) -> None:
        """Go slowly to rest at a position (dof,) while in fault, once for each fault."""
        if self.phase == FAULTY and not self.retreats:
            self._retreat, self.retreats = position.copy(), True

    def stay(self) -> None:
        """Give up a retreat, begun or not: brake, and rest here."""
        self._retreat, self.retreats = None, self.phase == FAULTY

    def clear(self) -> str:
        """Unlatch a fault and hold; return why not, or nothing.

        The setpoint stays where it is: should the arm be elsewhere, that is a following error.
        """
        if not self.fault:
            return ""
        if self.moving:
            return "the arm is still being brought to rest"
        self.fault = ""
        self._retreat, self.retreats = None, False
        self.phase = HOLDING
        return ""

    def reset(self, position: Array, now: float) -> None:
        """Begin anew after the arm was put elsewhere; segments from before do not count."""
        self._ignore_before = now
        self.seat(position)

    @property
    def moving(self) -> bool:
        """Whether the setpoint is in motion."""
        return bool(self.setpoint[1].any())

    @property
    def overdue(self) -> bool:
        """Whether the segment that is followed should have been replaced by now."""
        return self.phase == FOLLOWING and self._index >= self._due

    # -- segments ----------------------------------------------------------------------------

    def offer(self, segment: Any, look: Any, now: float) -> bool:
        """Take a segment over if it is good, and say in ``reason`` why it is not.

        Args:
            segment: Record with ``stamp, sequence, slot, generation, n_basis, g, origin, w``.
            look: The response's place in the mailbox (``look``, ``unchanged``).
            now: CLOCK_MONOTONIC [s].
        """
        sequence, stamp = int(segment["sequence"]), float(segment["stamp"])
        if not self._enabled or self.phase == FAULTY:
            return False
        age = now - stamp
        if not age <= self._config.max_parameter_age or stamp < self._ignore_before:
            self.dropped += 1
            self.guard.hit_quietly("segment_late")
            self.reason = f"segment_late: segment {sequence} is {age * 1e3:.0f} ms old"
            return False
        found = look.look(int(segment["generation"]))
        n = int(segment["n_basis"])
        if found is None or found[1].shape[2] != 3 + n or n > self._max_basis:
            return self._refuse("segment_mismatch", f"segment {sequence} has no response matrix")
        mark, B, duration = found
        rows = min(B.shape[1], self._max_rows)
        stretch = 1.0
        verdict = self.guard.judge_parameters(segment["g"], segment["w"])
        for _ in range(_ATTEMPTS):
            if verdict.stretch == 0.0:
                break
            stretch *= verdict.stretch
            if stretch > self._config.max_stretch:
                verdict.text += f", even slowed down {self._config.max_stretch:g} times"
                verdict.name, verdict.stretch = "segment_impossible", 0.0
                break
            table = self._roll_out(segment, B[:, :rows], n, duration * stretch)
            horizon = min(rows, math.floor(duration * self._config.rate + 1e-6) + 1)
            verdict = self.guard.judge(table[:, :, :horizon])
            if verdict.stretch == 1.0:
                break
        if not look.unchanged(mark):
            return self._refuse("segment_mismatch", f"response of segment {sequence} changed")
        if verdict.stretch != 1.0:
            name = verdict.name if verdict.stretch == 0.0 else "segment_impossible"
            return self._refuse(name, f"segment {sequence}: {verdict.text}")
        if stretch > 1.0:
            self.stretched += 1
            self.guard.hit_quietly("segment_stretched")
            self.reason = f"segment_stretched: segment {sequence} slowed down {stretch:.2f} times"
        self._active = 1 - self._active
        self._table = table.transpose(1, 0, 2)
        self._index, self._stretch = 0, stretch
        self._due = math.ceil((duration * stretch + self._config.overdue_after) * self._config.rate)
        past = (duration * stretch + self._config.grace) * self._config.rate
        self._end = min(math.floor(past + 1e-6), math.floor((rows - 1) * stretch))
        self.phase, self.sequence = FOLLOWING, sequence
        self.accepted += 1
        self._refused_before = self.refused
        return True

    def _roll_out(self, segment: Any, B: Array, n: int, duration: float) -> Array:
        """Return the setpoints (dof, 3, rows) of a segment that lasts ``duration`` [s]."""
        C, dof, rows = self._columns[:, : 3 + n], self._dof, B.shape[1]
        y, yd = self.setpoint[0], self.setpoint[1]
        g, origin = segment["g"], segment["origin"]
        if not np.isnan(origin[0]):
            # What counts is the way from the start: without this, a segment that begins a
            # few milliseconds after its observation is as many milliseconds' travel too short.
            g = g + (y - origin)
        C[:, 0] = y
        C[:, 1] = yd * duration
        C[:, 2] = g
        np.multiply(segment["w"][:, :n], (g - y)[:, None], out=C[:, 3:])
        table = self._memory[1 - self._active][: dof * 3 * rows].reshape(dof, 3 * rows)
        np.matmul(C, B.reshape(3 * rows, 3 + n).T, out=table)
        setpoints = table.reshape(dof, 3, rows)
        setpoints[:, 1] *= 1.0 / duration
        setpoints[:, 2] *= 1.0 / duration**2
        self._saturate_gripper(setpoints[self.guard.info.n_arm :])
        return setpoints

    def _saturate_gripper(self, setpoints: Array) -> None:
        """Hold the gripper at the end of its range: wanting more is how a policy grips."""
        for joint, place in zip(setpoints, range(self.guard.info.n_arm, self._dof), strict=True):
            y = joint[0]
            beyond = (y > self.guard.upper[place]) | (y < self.guard.lower[place])
            np.clip(y, self.guard.lower[place], self.guard.upper[place], out=y)
            joint[1:, beyond] = 0.0

    def _refuse(self, name: str, text: str) -> bool:
        self.refused += 1
        self.guard.hit_quietly(name)
        self.refusal = f"{name}: {text}"
        # Why it brakes stays told while it does.
        if self.phase != BRAKING:
            self.reason = self.refusal
        return False

    # -- ticks -------------------------------------------------------------------------------

    def tick(self) -> None:
        """Advance the setpoint by one period."""
        if self.phase == FOLLOWING:
            self._index += 1
            if self._index > self._end:
                self.guard.hit_quietly("starved")
                why = "the horizon passed without a new segment"
                if self.refused > self._refused_before:
                    why = f"the segments that came were refused, {self.refusal.split(':')[0]}"
                self.brake(f"starved: {why}")
            else:
                if self._stretch == 1.0:
                    self._wanted[:] = self._table[:, :, self._index]
                else:
                    self._slowed(self._index / self._stretch)
                policy = self.guard.limit(self.setpoint, self._wanted)
                if policy == FAULT:
                    self.trip(self.guard.fault, "setpoint")
                elif policy == BRAKE:
                    self.brake(f"{self.guard.fault}: setpoint")
                return
        if self.phase == BRAKING:
            if self.guard.brake(self.setpoint):
                self.sequence = 0
                self.phase = WAITING if self._enabled else HOLDING
        elif self.phase == FAULTY:
            if self._retreat is None:
                self.guard.brake(self.setpoint)
            elif self.guard.approach(self.setpoint, self._retreat, _RETREAT_SPEED):
                self._retreat = None

    def paused(self, before: Array, after: Array) -> None:
        """Go on where the setpoint is, slowed down as the arm is that was told nothing meanwhile.

        Without this the first command after a pause would ask for the speed of before at
        once, of an arm that has braked.

        Args:
            before: Velocity measured before the pause (dof,) [rad/s].
            after: And after it.
        """
        share = np.ones_like(before)
        np.divide(after, before, out=share, where=np.abs(before) > _MOVES)
        self.setpoint[1:] *= np.clip(np.nan_to_num(share), 0.0, 1.0)

    def brake(self, reason: str) -> None:
        """Come to rest; the next good segment sets the arm in motion again."""
        if reason:
            self.reason = reason
        if self.phase in (FOLLOWING, BRAKING):
            self.phase = BRAKING
        elif self.phase == FAULTY:
            self.stay()
        else:
            self.phase = WAITING if self._enabled else HOLDING

    def _slowed(self, place: float) -> None:
        """Read the table between two rows, for a segment that was slowed down."""
        row = min(int(place), self._table.shape[2] - 2)
        step = self._stretch / self._config.rate
        self._hermite(self._table[:, :, row : row + 2], place - row, step, self._wanted)


class _Hermite:
    """Quintic interpolation between two setpoints: y, yd and ydd agree at both ends."""

    # Rows: coefficients of u^0 ... u^5 that y, yd h and ydd h^2 at both ends contribute.
    _BASIS = np.array([
        [1.0, 0.0, 0.0, -10.0, 15.0, -6.0],
        [0.0, 0.0, 0.0, 10.0, -15.0, 6.0],
        [0.0, 1.0, 0.0, -6.0, 8.0, -3.0],
        [0.0, 0.0, 0.0, -4.0, 7.0, -3.0],
        [0.0, 0.0, 0.5, -1.5, 1.5, -0.5],
        [0.0, 0.0, 0.0, 0.5, -1.0, 0.5],
    ])  # fmt: skip

    def __init__(self, dof: int) -> None:
        self._ends = np.zeros((3, 2, dof))
        self._powers = np.zeros((3, 6))

    def __call__(self, ends: Array, u: float, h: float, out: Array) -> None:
        """Write y, yd, ydd (3, dof) at the share u of the step h [s] from the ends (3, dof, 2)."""
        self._ends[:] = ends.transpose(0, 2, 1)
        self._ends[1] *= h
        self._ends[2] *= h * h
        p = self._powers
        p[0] = (1.0, u, u**2, u**3, u**4, u**5)
        p[1] = (0.0, 1.0, 2 * u, 3 * u**2, 4 * u**3, 5 * u**4)
        p[2] = (0.0, 0.0, 2.0, 6 * u, 12 * u**2, 20 * u**3)
        p[1] /= h
        p[2] /= h * h
        np.dot(p @ self._BASIS.T, self._ends.reshape(6, -1), out=out)
