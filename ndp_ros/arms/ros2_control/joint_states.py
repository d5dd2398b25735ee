# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Joint states of one publisher, checked for novelty and completed with estimated velocities.

The bridge passes every ``sensor_msgs/JointState`` to a :class:`JointStateReader`, which decides
whether it is a new measurement of this arm and turns it into numbers for the streaming loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ndp_ros.arms.ros2_control.packets import Numbers
from ndp_ros.control.arm import ArmInfo, Array, JointState
from ndp_ros.control.measurement import Confirmer

_CLOCK_STEP = 500_000_000
"""Difference between elapsed stamps and elapsed arrivals that reveals a clock that was set [ns]."""
_SILENCE = 1_000_000_000
"""Silence after which another publisher may replace the present one [ns]."""
_SMOOTHING = 0.02
"""Time constant of an estimated velocity [s]: some periods of any joint_state_broadcaster."""


class VelocityEstimate:
    """Velocities of joints that report only positions.

    The estimate is the distance to positions that lag by one time constant. It is exact at
    constant speed whatever the sampling, and never divides by the time between two measurements,
    which is nearly zero for two that arrive in one burst.
    """

    def __init__(self, dof: int) -> None:
        """Start with joints that have never been measured."""
        self._lagging = np.full(dof, math.nan)
        self._at = math.nan

    def update(self, position: Array, at: float) -> Array:
        """Return the velocities (dof,) [rad/s]; 0 at a joint's first position.

        Args:
            position: Measured (dof,) [rad]; NaN where a joint was not measured.
            at: Time of the measurement [s], on a clock of any origin.
        """
        elapsed = max(at - self._at, 0.0) if math.isfinite(self._at) else 0.0
        self._at = at
        fresh = np.isnan(self._lagging)
        self._lagging[fresh] = position[fresh]
        self._lagging += elapsed / (_SMOOTHING + elapsed) * (position - self._lagging)
        estimate: Array = (position - self._lagging) / _SMOOTHING
        return estimate


class JointStateReader:
    """Measurements of one arm from the messages of one publisher.

    Attributes:
        numbers: The newest measurement.
        heard_at: Arrival of the first one on the monotonic clock [ns]; 0 without one.
        publisher: Identifier of the publisher whose messages count.
        rival: Identifier of another publisher of the same joints; empty without one.
    """

    def __init__(
        self, joints: Sequence[str], info: ArmInfo, *, estimate_velocities: bool = False
    ) -> None:
        """Prepare to read joints by their ROS names (dof,), the arm's first."""
        self.numbers = Numbers(info.dof)
        self.heard_at = 0
        self.publisher = self.rival = b""
        self._joints, self._n = tuple(joints), info.n_arm
        self._stamp = self._arrival = self._line = 0
        self._newest_at = self._rival_at = -_SILENCE
        self._confirmer = Confirmer(info, velocities=False)
        self._reading = JointState.zeros(info.dof)
        self._estimate = VelocityEstimate(info.dof) if estimate_velocities else None
        self._velocity = np.zeros(info.dof)

    def take(self, message: Any, publisher: bytes, now: int) -> bool:
        """Read a message that came now [ns, monotonic]; return whether it is a new measurement.

        Messages of a second publisher are counted and ignored until the first has been silent for 1
        s: readings of two sources must not be mixed.
        """
        places = {name: i for i, name in enumerate(message.name)}
        if not all(name in places for name in self._joints[: self._n]):
            return False
        if publisher != self.publisher and now - self._newest_at < _SILENCE:
            self.rival, self._rival_at = publisher, now
            self.numbers.data[1] += 1
            return False
        self.publisher, self._newest_at = publisher, now
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        if not self._is_newer(stamp, now):
            return False
        self._fill(message, places, now)
        self.heard_at = self.heard_at or now
        return True

    def contested(self, now: int) -> bool:
        """Return whether a second publisher has been heard within the last second."""
        return bool(self.rival) and now - self._rival_at < _SILENCE

    def without_velocity(self) -> list[str]:
        """Return the arm's joints whose velocity the newest measurement lacks."""
        velocities = self.numbers.velocity[: self._n]
        return [
            name for name, value in zip(self._joints, velocities, strict=False) if math.isnan(value)
        ]

    def _is_newer(self, stamp: int, arrival: int) -> bool:
        """Return whether a message is newer than the last one, and advance the time line if so.

        A message without a stamp is believed. One with an old stamp comes from a relay or a
        source that repeats itself, and would keep feedback alive for ever. A stamp that jumps is
        no reason to ignore the source: its clock was set.
        """
        elapsed, since = stamp - self._stamp, arrival - self._arrival
        if stamp and not elapsed:
            return False
        if not stamp or abs(elapsed - since) > _CLOCK_STEP:
            elapsed = since
        if elapsed <= 0:
            return False
        self._stamp, self._arrival = stamp, arrival
        self._line += elapsed
        return True

    def _fill(self, message: Any, places: dict[str, int], arrival: int) -> None:
        """Copy a message into the numbers; NaN where it lacks a value."""
        numbers = self.numbers
        numbers.data[0] = arrival * 1e-9
        for row, values in (
            (numbers.position, message.position),
            (numbers.velocity, message.velocity),
            (numbers.effort, message.effort),
        ):
            for joint, name in enumerate(self._joints):
                place = places.get(name, -1)
                row[joint] = values[place] if 0 <= place < len(values) else math.nan
        if self._estimate is not None:
            self._estimate_velocities(self._estimate, numbers.position, self._line * 1e-9)
            velocity = numbers.velocity
            np.copyto(velocity, self._velocity, where=np.isnan(velocity))

    def _estimate_velocities(self, estimate: VelocityEstimate, position: Array, at: float) -> None:
        """Estimate velocities; a position that jumped, or turned over, is not a speed."""
        reading = self._reading
        reading.position[:], reading.time = position, at
        absent = np.isnan(position)
        reading.position[absent] = 0.0
        if self._confirmer.confirm(reading):
            confirmed = self._confirmer.state.position.copy()
            confirmed[absent] = math.nan
            self._velocity = estimate.update(confirmed, at)
