# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The state machine of the streamer: segments and requests in, one setpoint per tick out.

It has no clock, no shared memory and no arm, so that every sequence of segments, delays, drops
and faults can be run through it at any speed.

    holding ──follow──► waiting ──segment──► following ──starved──► braking ──at rest──► waiting
       ▲                   │                     │                     ▲
       └──hold, at rest────┴────────hold─────────┴──────────────►──────┘
    any ──fault──► fault (brakes first, then rests) ──clear_fault──► holding

Hand-over: a new segment starts from the setpoint (y, yd) of the last tick, so that position and
velocity are continuous whenever it comes. Some setpoints of its horizon are computed and judged at
once, the rest a few ticks before they are due.

A segment that is too fast may be slowed down (``on_fast_segment: stretch``): the same goal and
weights are solved again from the same start for a longer duration. The rows of its response then
lie further apart than a tick; between them setpoints are interpolated by quintic polynomials,
which agree in y, yd and ydd at both ends.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.control.memory import fields
from ndp_ros.streaming.config import TUNABLE, RuntimeConfig
from ndp_ros.streaming.guard import BRAKE, FAULT, Guard, Verdict
from ndp_ros.streaming.layout import PHASES
from ndp_ros.streaming.motion import Hermite, Motion
from ndp_ros.streaming.slots import Matrix, Response

Array = NDArray[np.float64]

STARTING, HOLDING, WAITING, FOLLOWING, BRAKING, FAULTY, STOPPED = range(len(PHASES))

_ATTEMPTS = 6
"""Durations that are tried for a segment that is too fast."""
_RETREAT_SPEED = 0.1
"""Speed of a retreat as a share of the velocity limits."""
_MOVES = 0.02
"""Speed from which on braking of a joint can be measured [rad/s]."""


class Follower(ctypes.Structure):
    """The setpoint and the phase of one arm, tick by tick.

    Attributes:
        setpoint: y, yd, ydd of the present tick (3, dof).
        phase: Index into ``PHASES``.
        sequence: Number of the segment that drives the arm; 0 for none.
        fault: Latched violation, with its explanation; empty for none.
        reason: Why the arm last braked, or why a segment was refused or changed; empty after a
            request to hold.
        refusal: Why a segment was refused last.
        accepted, dropped, refused, stretched: Numbers of segments so far.
        retreat_used: Whether the retreat of the present fault has begun or was cancelled.
    """

    _fields_ = fields(
        phase=int,
        sequence=int,
        _index=int,
        _end=int,
        _due=int,
        _admitted=int,
        _stretch=float,
        _enabled=bool,
        _current=int,
        accepted=int,
        refused=int,
        _refused_before=int,
        _ignore_before=float,
    )

    def __init__(
        self,
        guard: Guard,
        config: RuntimeConfig,
        places: Sequence[Matrix],
        max_rows: int,
        max_basis: int,
    ) -> None:
        """Prepare every array that the loop needs.

        Args:
            guard: Judge of segments and setpoints.
            config: Parameters of the loop.
            places: Where the response matrices of segments lie.
            max_rows: Largest number of their rows.
            max_basis: Largest N.
        """
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
        self.retreat_used = False
        self._config, self._places = config, places
        self._max_basis, self._max_rows = max_basis, max_rows
        # Two, so that a segment that is refused leaves the running one unchanged.
        self._motions = [
            Motion(places, guard.info.n_arm, guard.lower, guard.upper, max_basis) for _ in range(2)
        ]
        self._current = 0
        self._wanted = np.zeros((3, dof))
        self._index = 0
        self._admitted = 0
        """Index up to which the rows ahead are known to pass the limits one after another."""
        self._end = self._due = 0
        self._stretch = 1.0
        self._hermite = Hermite(dof)
        self._ignore_before = -math.inf
        self._refused_before = 0
        """Number of refused segments at the time the last one was accepted."""

    @property
    def memory(self) -> dict[str, Any]:
        """The arrays and numbers that compiled code shares, by its names for them."""
        a, b = (motion.memory(str(number)) for number, motion in enumerate(self._motions))
        return {"follower": self, "setpoint": self.setpoint, **a, **b, **self.guard.memory}

    @property
    def constants(self) -> dict[str, float]:
        """Limits of a segment that may be taken over, for compiled code."""
        config = self._config
        return {
            "max_age": config.max_parameter_age,
            "tolerance": config.position_tolerance,
            "clamps": config.on_fast_segment == "clamp",
            **self.guard.constants,
            "overdue_after": config.overdue_after,
            "grace": config.grace,
            "rate": config.rate,
            "max_rows": self._max_rows,
        }

    # -- requests ----------------------------------------------------------------------------

    def rest_at(self, position: Array) -> None:
        """Begin again from rest at a position (dof,) of the arm, so that nothing jumps."""
        self.setpoint[0] = position
        self.setpoint[1:] = 0.0
        self.guard.rest_at(position)
        self.sequence = self._admitted = 0
        self._retreat = None
        if self.phase != FAULTY:
            self.phase = WAITING if self._enabled else HOLDING

    def follow(self) -> str:
        """Accept segments from now on; return why not, or an empty text."""
        if self.fault:
            return f"in fault ({self.fault}): clear it first"
        self._enabled = True
        if self.phase == HOLDING:
            self.phase = WAITING
        return ""

    def hold(self, reason: str = "") -> None:
        """Brake, hold, and accept no segment until :meth:`follow`."""
        self._enabled = False
        # Earlier events are not the reason for braking now.
        self.reason = reason
        self.brake(reason)

    def trip(self, name: str, text: str = "") -> None:
        """Latch a fault: brake, rest, and follow nothing until :meth:`clear`.

        Args:
            name: The violation.
            text: Its explanation.
        """
        if not self.fault:
            self.fault = self.reason = f"{name}: {text}" if text else name
        self._enabled = False
        self.phase = FAULTY

    def retreat(self, position: Array) -> None:
        """Go slowly to rest at a position (dof,) while in fault, once for each fault."""
        if self.phase == FAULTY and not self.retreat_used:
            self._retreat, self.retreat_used = position.copy(), True

    def cancel_retreat(self) -> None:
        """Brake and rest here instead of retreating, or of going on with a retreat."""
        self._retreat, self.retreat_used = None, self.phase == FAULTY

    def clear(self) -> str:
        """Unlatch a fault and hold; return why not, or an empty text.

        The setpoint stays where it is; an arm that is elsewhere has a following error.
        """
        if not self.fault:
            return ""
        if self.moving:
            return "the arm is still being brought to rest"
        self.fault = ""
        self._retreat, self.retreat_used = None, False
        self.phase = HOLDING
        return ""

    def tune(self, values: Array) -> None:
        """Take other values of the parameters ``TUNABLE``; rows ahead are judged anew."""
        changes: dict[str, Any] = dict(zip(TUNABLE, map(float, values), strict=True))
        self.guard.tune(replace(self.guard.config, **changes))
        self._admitted = 0

    def reset(self, position: Array, now: float) -> None:
        """Begin again after the arm was moved to a new start; older segments are dropped."""
        self._ignore_before = now
        self.rest_at(position)

    @property
    def moving(self) -> bool:
        """Whether the setpoint is in motion."""
        return bool(self.setpoint[1].any())

    @property
    def overdue(self) -> bool:
        """Whether the running segment should have been replaced by now."""
        return self.phase == FOLLOWING and self._index >= self._due

    # -- segments ----------------------------------------------------------------------------

    def offer(self, segment: Any, now: float) -> bool:
        """Take a segment over if the guard accepts it; otherwise ``reason`` says why not.

        Args:
            segment: Record with ``stamp, sequence, slot, generation, n_basis, scaled, g, origin,
                w``.
            now: CLOCK_MONOTONIC [s].

        Returns:
            Whether it drives the arm from the next tick on.
        """
        sequence, stamp = int(segment["sequence"]), float(segment["stamp"])
        if not self._enabled or self.phase == FAULTY:
            return False
        age = now - stamp
        if not age <= self._config.max_parameter_age or stamp < self._ignore_before:
            self.dropped += 1
            self.guard.count("segment_late")
            self.reason = f"segment_late: segment {sequence} is {age * 1e3:.0f} ms old"
            return False
        place = self._places[int(segment["slot"])]
        found = place.view(int(segment["generation"]))
        n = int(segment["n_basis"])
        if found is None or found.rows.shape[2] != 3 + n or n > self._max_basis:
            return self._refuse("segment_mismatch", f"segment {sequence} has no response matrix")
        verdict, stretch = self._judge(segment, found)
        if not place.unchanged(found.mark):
            return self._refuse("segment_mismatch", f"response of segment {sequence} changed")
        if verdict.stretch != 1.0:
            name = verdict.name if verdict.stretch == 0.0 else "segment_impossible"
            return self._refuse(name, f"segment {sequence}: {verdict.text}")
        if stretch > 1.0:
            self.stretched += 1
            self.guard.count("segment_stretched")
            self.reason = f"segment_stretched: segment {sequence} slowed down {stretch:.2f} times"
        self._current = 1 - self._current
        self._index = self._admitted = 0
        self._stretch, duration = stretch, found.duration * stretch
        self._due = math.ceil((duration + self._config.overdue_after) * self._config.rate)
        past = (duration + self._config.grace) * self._config.rate
        rows = min(self._motions[self._current].length, self._max_rows)
        self._end = min(math.floor(past + 1e-6), math.floor((rows - 1) * stretch))
        self.phase, self.sequence = FOLLOWING, sequence
        self.accepted += 1
        self._refused_before = self.refused
        return True

    def _judge(self, segment: Any, response: Response) -> tuple[Verdict, float]:
        """Start a segment as the candidate; return the verdict on it, and how it is slowed down."""
        candidate, stretch = self._motions[1 - self._current], 1.0
        verdict = self.guard.judge_parameters(segment["g"], segment["w"])
        for _ in range(_ATTEMPTS):
            if verdict.stretch == 0.0:
                break
            stretch *= verdict.stretch
            if stretch > self._config.max_stretch:
                verdict.text += f", even slowed down {self._config.max_stretch:g} times"
                verdict.name, verdict.stretch = "segment_impossible", 0.0
                break
            candidate.bind(segment, response, self.setpoint, stretch)
            verdict = self.guard.judge(candidate.samples())
            if verdict.stretch == 1.0:
                break
        return verdict, stretch

    def _refuse(self, name: str, text: str) -> bool:
        self.refused += 1
        self.guard.count(name)
        self.refusal = f"{name}: {text}"
        # The reason for braking stands as long as the arm brakes.
        if self.phase != BRAKING:
            self.reason = self.refusal
        return False

    # -- ticks -------------------------------------------------------------------------------

    def tick(self) -> None:
        """Advance the setpoint by one period."""
        if self.phase == FOLLOWING:
            self._index += 1
            if self._index > self._end:
                self.guard.count("starved")
                cause = "the horizon passed without a new segment"
                if self.refused > self._refused_before:
                    cause = f"the segments that came were refused, {self.refusal.split(':')[0]}"
                self.brake(f"starved: {cause}")
            elif self._advance():
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

    def _advance(self) -> bool:
        """Take the setpoint that is due; return whether the segment still drives the arm."""
        motion, index = self._motions[self._current], self._index
        single = self._stretch == 1.0
        row, n = (index, 1) if single else (self._row(), 2)
        fresh = index >= self._admitted and not motion.holds(row, n)
        if fresh:
            motion.compute(row)
        if not motion.intact:
            self.guard.count("segment_mismatch")
            self.brake(f"segment_mismatch: response of segment {self.sequence} was replaced")
            return False
        if fresh and single:
            # Each passes the limits after the one before, as it would tick by tick.
            self._admitted = index + self.guard.limiter.admits_all(self.setpoint, motion.ahead)
        if index < self._admitted:
            self.setpoint[:] = motion.ahead[index - motion.first]
            return True
        wanted = motion.ahead[row - motion.first] if single else self._interpolated(row)
        policy = self.guard.limit(self.setpoint, wanted)
        if policy == FAULT:
            self.trip(self.guard.fault, "setpoint")
        elif policy == BRAKE:
            self.brake(f"{self.guard.fault}: setpoint")
        return policy < BRAKE

    def slow_down(self, before: Array, after: Array) -> None:
        """Decelerate the setpoint as the arm has, which received no command during a pause.

        Otherwise the first command after the pause would ask an arm that has braked for its old
        speed at once.

        Args:
            before: Velocity measured before the pause (dof,) [rad/s].
            after: Velocity measured after it (dof,) [rad/s].
        """
        share = np.ones_like(before)
        np.divide(after, before, out=share, where=np.abs(before) > _MOVES)
        self.setpoint[1:] *= np.clip(np.nan_to_num(share), 0.0, 1.0)
        self._admitted = 0

    def brake(self, reason: str) -> None:
        """Come to rest; the next good segment sets the arm in motion again."""
        if reason:
            self.reason = reason
        if self.phase in (FOLLOWING, BRAKING):
            self.phase = BRAKING
        elif self.phase == FAULTY:
            self.cancel_retreat()
        else:
            self.phase = WAITING if self._enabled else HOLDING

    def _row(self) -> int:
        """Return the row before the present tick of a segment that was slowed down."""
        return min(int(self._index / self._stretch), self._motions[self._current].length - 2)

    def _interpolated(self, row: int) -> Array:
        """Return the setpoint (3, dof) between two rows."""
        motion = self._motions[self._current]
        place, step = self._index / self._stretch - row, self._stretch / self._config.rate
        ends = motion.ahead[row - motion.first : row - motion.first + 2]
        self._hermite(ends, place, step, self._wanted)
        return self._wanted
