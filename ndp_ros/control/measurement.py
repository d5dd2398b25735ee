# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Confirmation of measurements before they become a start, a target or a state.

A reading holds an arm's positions, velocities and efforts at one instant. It is confirmed if it is
finite and reachable from the last confirmed reading; otherwise several consecutive readings must
agree. Until then the last confirmed reading stands with its age, so that persistent nonsense ends
as lost feedback.

Positions and velocities must be consistent: velocities have to explain the change of positions. A
joint cannot jump between two close readings, however often they repeat the jump, and a velocity
without motion is rejected.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.control import travel
from ndp_ros.control.arm import ArmInfo, Array, JointState
from ndp_ros.control.memory import fields
from ndp_ros.control.travel import Travel, VelocityCheck

Mask = NDArray[np.bool_]

AGREEING = 3
"""Consecutive readings that must agree before a jump is accepted."""

_TURN = 2.0 * math.pi
_NOISE = 0.02
"""Change of position that is always accepted [rad]: resolution, jitter of time stamps."""
_SPEED = 3.0
"""Highest accepted speed, in units of the joint's limit: a fall, a collision."""
_ACCELERATION = 2.0
"""Highest accepted acceleration, in units of the joint's limit."""
_VELOCITY_NOISE = 0.07
"""Change of velocity that is always accepted, in units of the joint's limit."""
_EFFORT = 2.0
"""Largest accepted effort, in units of the joint's limit."""
_SUDDEN = 0.012
"""Longest unseen time that widens the bounds of a single reading [s]; after a longer one readings
must agree."""
_SETTLED = 2.0
"""Agreement after which an impossible jump is accepted [s]: by then feedback has counted as lost
and the arm was stopped."""
_RESOLUTION = 0.002
"""Change of position that needs no velocity [rad]."""
_QUIET = 0.05
"""Speed that needs no change of position [rad/s]."""
_FILTER = 0.01
"""Time constant of velocities estimated from positions [s]."""
_FARTHEST = 1e3
"""Largest position of a joint [rad]."""

CONSTANTS = {"sudden": _SUDDEN, **travel.CONSTANTS}
"""Those that compiled code needs, by its names for them."""


class Confirmer(ctypes.Structure):
    """The confirmed state of one arm.

    The arm's joints are confirmed together, the gripper separately. The rows of every (3, dof)
    array are position, velocity and effort.

    Attributes:
        state: The last confirmed reading; continuous joints are unwrapped.
        complete: Whether every joint and the gripper have been confirmed.
        rejected: Readings so far that were not fully confirmed.
        reason: Why the newest reading was not confirmed; empty if it was.
        finite: Whether the arm's joints were finite in the newest reading.
        gripper_time: Time of the gripper's last confirmation, on the clock of the readings [s].
    """

    _fields_ = fields(_seen=float, _finite_at=float, gripper_time=float, _passed=bool)

    def __init__(self, info: ArmInfo, velocities: bool = True) -> None:
        """Prepare every array that a loop needs.

        Args:
            info: The arm's limits and continuous joints.
            velocities: Whether readings hold measured velocities; without them only positions
                and efforts are judged.
        """
        dof, n = info.dof, info.n_arm
        self._now = np.zeros((3, dof))
        self.state = JointState(self._now[0], self._now[1], self._now[2], -math.inf)
        self.rejected, self.reason, self.finite = 0, "", True
        self.gripper_time = -math.inf
        self._names, self._continuous = info.joint_names, info.continuous
        # A change of position, a change of velocity and an effort are judged by
        # allowed + rate * elapsed.
        torque = np.where(info.max_torque > 0.0, _EFFORT * info.max_torque, _FARTHEST)
        noise = np.full(dof, _NOISE)
        self._allowed = np.stack((noise, _VELOCITY_NOISE * info.max_velocity, torque))
        self._rate = np.stack(
            (_SPEED * info.max_velocity, _ACCELERATION * info.max_acceleration, np.zeros(dof))
        )
        self._raw, self._base = np.zeros((3, dof)), np.zeros((3, dof))
        self._turns = np.zeros(dof)
        """Whole turns between the reported and the unwrapped position [rad]."""
        self._change, self._bounds = np.zeros((3, dof)), np.zeros((3, dof))
        self._inside = np.zeros((3, dof), bool)
        self._all_inside = np.ones((3, dof), bool).tobytes()
        self._seen = self._finite_at = -math.inf
        self._arm = slice(0, n)
        self._motion = VelocityCheck(n) if velocities else None
        self._groups = [_Group(self._arm, self._motion)]
        if n < dof:
            self._groups.append(_Group(slice(n, dof), None))
        self._agreeing = self.complete = False
        self._passed = False
        """Whether the last reading passed in every respect."""

    @property
    def memory(self) -> dict[str, Any]:
        """The arrays and numbers that compiled code shares; none unless velocities are judged."""
        if self._motion is None:
            return {}
        return {
            "confirmer": self,
            "turns": self._turns,
            "base": self._base,
            "now": self._now,
            "allowed": self._allowed,
            "rates": self._rate,
            **self._motion.memory,
        }

    def confirm(self, reading: JointState, now: float = math.inf) -> bool:
        """Check a reading and copy its confirmed part to ``state``.

        Args:
            reading: The arm's answer; ignored unless its ``time`` is newer than the last.
            now: The present on the clock of the readings [s]; a reading from the future is
                rejected, because it would never grow old.

        Returns:
            Whether the arm's joints are confirmed.
        """
        at = reading.time
        self._passed = False
        if not self._seen < at <= now:
            if at > now:
                self.reason = "its time is in the future"
            return False
        self._seen = at
        raw, base = self._raw, self._base
        np.add(reading.position, self._turns, out=raw[0])
        raw[1], raw[2] = reading.velocity, reading.effort
        unseen = at - self._finite_at
        self._judge(raw, base, unseen)
        if self._inside.tobytes() != self._all_inside or self._agreeing or not self.complete:
            return self._confirm_groups(raw, at, unseen)
        if self._motion is not None and not self._motion.explains(raw, at):
            return self._confirm_groups(raw, at, unseen, explained=False)
        self._finite_at = at
        self._now[:] = raw
        base[:2] = raw[:2]
        self.state.time = self.gripper_time = at
        self.reason, self.finite, self._passed = "", True, True
        return True

    def _judge(self, raw: Array, base: Array, elapsed: float) -> Mask:
        """Return whether each joint can have come from a state (3, dof) in a time [s]."""
        np.subtract(raw, base, out=self._change)
        np.abs(self._change, out=self._change)
        np.multiply(self._rate, min(max(elapsed, 0.0), _SUDDEN), out=self._bounds)
        self._bounds += self._allowed
        # Written so that a NaN is outside.
        return np.less_equal(self._change, self._bounds, out=self._inside)

    def _confirm_groups(self, raw: Array, at: float, unseen: float, explained: bool = True) -> bool:
        """Check the arm's joints and the gripper separately, each against its last state."""
        finite = np.isfinite(raw).all(axis=0) & (np.abs(raw[0]) < _FARTHEST)
        self.finite = bool(finite[self._groups[0].joints].all())
        self.reason, good = "", []
        for group in self._groups:
            wrapped = self._unwrapped(raw, self._base) if group.confirmed else raw
            inside = self._judge(wrapped, self._base, unseen).copy()
            sound = bool(finite[group.joints].all())
            if group.confirmed and inside[:, group.joints].all():
                group.agreeing = 0
                motion = group.motion
                passed = motion is None or (explained and motion.explains(wrapped, at))
            elif passed := self._agrees(group, wrapped, at, unseen, sound):
                wrapped = group.candidate
            if passed:
                self._take(group, wrapped, raw)
            else:
                self.reason = self.reason or self._explain(group, inside, finite)
                if group.confirmed and sound and inside[::2, group.joints].all():
                    self._estimate(group, wrapped, unseen)
            good.append(passed)
        if finite[self._arm].all():
            self._finite_at = at
        self._agreeing = any(group.agreeing for group in self._groups)
        # The first readings start to agree; none of them is rejected.
        self.complete = all(group.confirmed for group in self._groups)
        self.rejected += self.complete and not all(good)
        if good[-1]:
            self.gripper_time = at
        if good[0]:
            self.state.time = at
        return good[0]

    def _agrees(self, group: _Group, raw: Array, at: float, unseen: float, finite: bool) -> bool:
        """Return whether enough consecutive readings agree, with this one as the last."""
        if not finite:
            group.agreeing = 0
            return False
        if group.agreeing:
            raw = self._unwrapped(raw, group.candidate)
            base = np.vstack((group.candidate[:2], np.zeros_like(raw[2])))
            if not self._judge(raw, base, at - group.time)[:, group.joints].all():
                group.agreeing = 0
        if group.agreeing:
            group.add(raw, at)
        else:
            group.start(raw, at, self._possible(group, raw, unseen))
        if group.agreeing < AGREEING or not (group.possible or at - group.began > _SETTLED):
            return False
        if group.motion is not None:
            if not group.travel.explains(raw, _RESOLUTION).all():
                # A plainly wrong velocity is as wrong in the next reading.
                group.agreeing = 0
                return False
            if not self._visible(group, at - group.began):
                return False
            group.motion.begin(raw, at)
        group.agreeing = 0
        return True

    def _possible(self, group: _Group, raw: Array, unseen: float) -> bool:
        """Return whether the arm can have moved to a reading since the last finite one."""
        if not group.confirmed or group.joints != self._arm:
            return True
        speed, acceleration = self._rate[:2]
        way = (np.abs(self._base[1]) + 0.5 * acceleration * unseen) * unseen
        reach = self._allowed[0] + np.minimum(way, speed * unseen)
        return bool((np.abs(raw[0] - self._base[0]) <= reach)[self._arm].all())

    def _visible(self, group: _Group, elapsed: float) -> bool:
        """Return whether each velocity has moved its joint visibly, or is too low for that."""
        velocity = np.abs(group.candidate[1])[self._arm]
        quiet = velocity <= np.minimum(self._allowed[1][self._arm], _QUIET)
        return bool((quiet | (velocity * elapsed >= 2.0 * _RESOLUTION)).all())

    def _take(self, group: _Group, confirmed: Array, raw: Array) -> None:
        """Copy the joints of a group and their whole turns."""
        joints, group.confirmed = group.joints, True
        self._turns[joints] += confirmed[0, joints] - raw[0, joints]
        self._now[:, joints] = confirmed[:, joints]
        self._base[:2, joints] = confirmed[:2, joints]

    def _estimate(self, group: _Group, raw: Array, elapsed: float) -> None:
        """Follow positions while velocities are in doubt, without renewing their age."""
        joints = group.joints
        velocity = (raw[0, joints] - self._now[0, joints]) / elapsed
        share = min(elapsed / _FILTER, 1.0)
        estimate = self._now[1, joints] + share * (velocity - self._now[1, joints])
        limit = self._rate[0, joints]
        self._now[1, joints] = self._base[1, joints] = np.clip(estimate, -limit, limit)
        self._now[0, joints] = self._base[0, joints] = raw[0, joints]

    def _unwrapped(self, raw: Array, base: Array) -> Array:
        """Return a reading with continuous joints in the turn nearest to a state."""
        moved = raw.copy()
        turns = np.rint((raw[0] - base[0]) / _TURN) * _TURN
        np.subtract(raw[0], turns, out=moved[0], where=self._continuous & np.isfinite(turns))
        return moved

    def _explain(self, group: _Group, inside: Mask, finite: Mask) -> str:
        """Return one line on the first joint that is not confirmed."""
        joint: int | None
        for joint in range(group.joints.start, group.joints.stop):
            if not finite[joint]:
                return f"{self._names[joint]} is not finite"
            for row, what in enumerate(("position", "velocity", "effort")):
                if group.confirmed and not inside[row, joint]:
                    return f"{what} of {self._names[joint]} jumped"
        if self._motion is not None and (joint := self._motion.unexplained) is not None:
            return f"velocity of {self._names[joint]} does not explain its motion"
        return "too few readings agree"


class _Group:
    """Joints that are confirmed together, and their unconfirmed readings that agree.

    Attributes:
        joints: Columns of the joints in a reading.
        motion: The check of their velocities, if these are measured.
        confirmed: Whether the joints have been confirmed at least once.
        agreeing: Number of consecutive readings that agree.
        candidate: The newest of these readings (3, dof), measured at ``time`` [s].
        began: Time of the first of these readings [s].
        travel: The way since the first of them.
        possible: Whether the arm can have moved to the first reading.
    """

    def __init__(self, joints: slice, motion: VelocityCheck | None) -> None:
        self.joints, self.motion = joints, motion
        self.confirmed = False
        self.agreeing = 0
        self.candidate = np.zeros((3, 0))
        self.travel = Travel(joints.stop)
        self.possible = True

    @property
    def began(self) -> float:
        return self.travel.began

    @property
    def time(self) -> float:
        return self.travel.time

    def start(self, raw: Array, at: float, possible: bool) -> None:
        """Start with a reading (3, dof) that does not agree with those before."""
        self.candidate = raw.copy()
        self.travel.start(raw, at)
        self.agreeing, self.possible = 1, possible

    def add(self, raw: Array, at: float) -> None:
        """Add a reading (3, dof) that agrees with the last one."""
        self.candidate = raw.copy()
        self.travel.add(raw, at)
        self.agreeing += 1
