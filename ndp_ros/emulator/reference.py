# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The reference of the emulated arm's position servos: along an action, by commands, or to rest.

The servos follow a position with its rate and acceleration. The firmware's filter of commands is
not published; here it is of second order, within the joints' top speeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndp_ros.arms.kortex.codes import ControlMode
from ndp_ros.arms.kortex.units import DEGREE
from ndp_ros.control.arm import Array
from ndp_ros.emulator.request import CyclicCommand

_FREQUENCY = 200.0
"""Bandwidth of the filter of commanded positions [rad/s]."""
_ACCELERATION = 300.0
"""Largest acceleration of the reference [rad/s^2]."""
_ACTION_SPEED = math.radians(25.0)
"""Speed of an action without a constraint [rad/s]."""
_QUINTIC_PEAK = 1.875
"""Ratio of top to mean speed of a quintic from rest to rest."""


@dataclass
class Motion:
    """A motion to a posture, along a straight line in joint space."""

    start: Array
    goal: Array
    duration: float
    handle: Any
    session: int
    time: float = 0.0

    def sample(self) -> tuple[Array, Array, Array]:
        """Compute position, velocity and acceleration (n,) of a quintic from rest to rest."""
        s = min(1.0, self.time / self.duration)
        span = self.goal - self.start
        rate = span / self.duration
        return (
            self.start + span * (s**3 * (10.0 - 15.0 * s + 6.0 * s**2)),
            rate * (30.0 * s**2 * (1.0 - s) ** 2),
            rate / self.duration * (60.0 * s - 180.0 * s**2 + 120.0 * s**3),
        )


class Reference:
    """The reference of the position servos.

    Attributes:
        position: (n,) [rad].
        rate: (n,) [rad/s].
        acceleration: (n,) [rad/s^2].
    """

    def __init__(self, position: Array, max_velocity: Sequence[float], brake: Array) -> None:
        """Start at rest, with top speeds (n,) [rad/s] and decelerations to rest (n,) [rad/s^2]."""
        self.position = position.copy()
        self.rate = np.zeros(len(position))
        self.acceleration = np.zeros(len(position))
        self._speed = list(max_velocity)
        self._brake = brake

    def hold(self, position: Array, rate: Array) -> None:
        """Continue from a state (n,) of the joints."""
        self.position, self.rate = position.copy(), rate.copy()

    def hold_joint(self, index: int, position: float, rate: float) -> None:
        """Continue from the state of one joint."""
        self.position[index], self.rate[index] = position, rate

    def plan(self, goal: Array, handle: Any, session: int, duration: float, speed: float) -> Motion:
        """Plan a motion to a posture (n,) [rad] in a time or, for 0, at a speed."""
        span = abs(goal - self.position)
        fastest = min(speed, *self._speed) if speed > 0.0 else _ACTION_SPEED
        shortest = float((_QUINTIC_PEAK * span / self._speed).max())
        needed = duration if duration > 0.0 else _QUINTIC_PEAK * float(span.max()) / fastest
        return Motion(self.position.copy(), goal, max(needed, shortest, 0.05), handle, session)

    def along(self, motion: Motion, dt: float) -> bool:
        """Advance along an action; return whether it has ended."""
        motion.time += dt
        self.position, self.rate, self.acceleration = motion.sample()
        return motion.time >= motion.duration

    def brake(self, dt: float) -> None:
        """Advance towards rest."""
        if not self.rate.any():
            self.acceleration[:] = 0.0
            return
        step = self._brake * dt
        before = self.rate
        self.rate = before - np.clip(before, -step, step)
        self.acceleration = (self.rate - before) / dt
        self.position = self.position + 0.5 * (before + self.rate) * dt

    def follow(
        self,
        command: CyclicCommand,
        target: Sequence[float],
        modes: Sequence[ControlMode],
        measured: tuple[Array, Array],
        dt: float,
    ) -> None:
        """Filter the commanded positions, or integrate the commanded velocities, over a step [s].

        The target (n,) [rad] is the command's positions in the turn of each joint; measured are
        positions [rad] and velocities [rad/s] (n,).
        """
        w = _FREQUENCY
        q, v = measured[0].tolist(), measured[1].tolist()
        r, rate = self.position.tolist(), self.rate.tolist()
        for i, mode in enumerate(modes):
            if mode is ControlMode.POSITION:
                pull = w * w * (target[i] - r[i]) - 2.0 * w * rate[i]
            elif mode is ControlMode.VELOCITY:
                pull = (command.velocity[i] * DEGREE - rate[i]) / dt
            else:
                # The joint ignores the reference, which stays at the joint.
                self.position[i], self.rate[i], self.acceleration[i] = q[i], v[i], 0.0
                continue
            pull = min(max(pull, -_ACCELERATION), _ACCELERATION)
            limit = self._speed[i]
            after = min(max(rate[i] + pull * dt, -limit), limit)
            self.acceleration[i] = (after - rate[i]) / dt
            self.rate[i] = after
            self.position[i] = r[i] + after * dt
