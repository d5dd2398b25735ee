"""Confirm what an arm reports before anything is built on it.

A reading is one answer of an arm: positions, velocities and efforts at an instant. It is
confirmed when it is finite and reachable from the last confirmed reading; otherwise it takes
readings that agree with it, one after the other. Until then the last confirmed reading stands,
with its age. So no single wrong reading becomes a start, a target or a state, and lasting
nonsense ends as lost feedback.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.arm import ArmInfo, JointState

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

AGREEING = 3
"""Readings in a row that must agree with each other before a jump is believed."""

_TURN = 2.0 * math.pi
_NOISE = 0.02
"""Change of position that is always reachable [rad]: resolution, jitter of time stamps."""
_SPEED = 3.0
"""Speed that is believed, in units of the joint's limit: a fall, a collision."""
_ACCELERATION = 5.0
"""Acceleration that is believed, in units of the joint's limit."""
_VELOCITY_NOISE = 0.2
"""Change of velocity that is always believed, in units of the joint's limit."""
_EFFORT = 2.0
"""Largest effort that is believed, in units of the joint's limit."""
_LONGEST = 0.25
"""Longest time for which a joint may have moved unseen [s]; after more, readings must agree."""
_FARTHEST = 1e3
"""No joint is further from zero than this [rad]."""


class Confirmer:
    """The confirmed state of one arm.

    The arm's joints are confirmed together, the gripper by itself. The rows of every (3, dof)
    array are position, velocity and effort.

    Attributes:
        state: The last confirmed reading; continuous joints are unwrapped.
        rejected: Readings so far in which something was not confirmed.
        reason: What was not confirmed in the newest reading; empty if all was.
        finite: Whether the arm's joints were finite in the newest reading.
        gripper_time: When the gripper was last confirmed, on the clock of the readings [s].
    """

    def __init__(self, info: ArmInfo) -> None:
        """Prepare every array that a loop needs.

        Args:
            info: The arm: its limits, and which of its joints turn without end.
        """
        dof, n = info.dof, info.n_arm
        self._now = np.zeros((3, dof))
        self.state = JointState(self._now[0], self._now[1], self._now[2], -math.inf)
        self.rejected, self.reason, self.finite = 0, "", True
        self.gripper_time = -math.inf
        self._names, self._continuous = info.joint_names, info.continuous
        # A change of position, a change of velocity and an effort are judged by
        # allowed + rate * elapsed.
        torque = np.where(info.max_torque > 0.0, _EFFORT * info.max_torque, np.inf)
        noise = np.full(dof, _NOISE)
        self._allowed = np.stack((noise, _VELOCITY_NOISE * info.max_velocity, torque))
        self._rate = np.stack(
            (_SPEED * info.max_velocity, _ACCELERATION * info.max_acceleration, np.zeros(dof))
        )
        self._raw, self._base = np.zeros((3, dof)), np.zeros((3, dof))
        self._turns = np.zeros(dof)
        """Whole turns between what the arm reports and the unwrapped position [rad]."""
        self._change, self._bounds = np.zeros((3, dof)), np.zeros((3, dof))
        self._inside = np.zeros((3, dof), bool)
        self._all_inside = np.ones((3, dof), bool).tobytes()
        self._seen = -math.inf
        self._groups = [
            _Group(joints) for joints in (slice(0, n), slice(n, dof)) if joints.start < joints.stop
        ]
        self._agreeing = False

    @property
    def complete(self) -> bool:
        """Whether every joint has been confirmed, the gripper too."""
        return all(group.confirmed for group in self._groups)

    def confirm(self, reading: JointState, now: float = math.inf) -> bool:
        """Judge a reading and take over in ``state`` what is confirmed of it.

        Args:
            reading: What the arm reports; a ``time`` that is not newer is no new reading.
            now: The present on the clock of the readings [s]; one from the future is not
                believed, because it would never grow old.

        Returns:
            Whether the arm's joints in it are confirmed.
        """
        at = reading.time
        if not self._seen < at <= now:
            if at > now:
                self.reason = "its time is in the future"
            return False
        self._seen = at
        raw, base = self._raw, self._base
        np.add(reading.position, self._turns, out=raw[0])
        raw[1], raw[2] = reading.velocity, reading.effort
        self._judge(raw, base, at - self.state.time)
        if self._inside.tobytes() != self._all_inside or self._agreeing or not self.complete:
            return self._confirm_groups(raw, at)
        self._now[:] = raw
        base[:2] = raw[:2]
        self.state.time = self.gripper_time = at
        self.reason, self.finite = "", True
        return True

    def _judge(self, raw: Array, base: Array, elapsed: float) -> Mask:
        """Return whether each joint can have come from a state (3, dof) in that time [s]."""
        np.subtract(raw, base, out=self._change)
        np.abs(self._change, out=self._change)
        np.multiply(self._rate, min(max(elapsed, 0.0), _LONGEST), out=self._bounds)
        self._bounds += self._allowed
        # Written so that a NaN is outside.
        return np.less_equal(self._change, self._bounds, out=self._inside)

    def _confirm_groups(self, raw: Array, at: float) -> bool:
        """Judge the arm's joints and the gripper apart, each against what it was before."""
        finite = np.isfinite(raw).all(axis=0) & (np.abs(raw[0]) < _FARTHEST)
        self.finite = bool(finite[self._groups[0].joints].all())
        self.reason, good = "", []
        for group in self._groups:
            wrapped = self._unwrapped(raw, self._base) if group.confirmed else raw
            inside = self._judge(wrapped, self._base, at - self.state.time).copy()
            passed = group.confirmed and bool(inside[:, group.joints].all())
            if passed:
                group.agreeing = 0
            else:
                why = self._explain(group, inside, finite)
                passed = self._agrees(group, wrapped, at, bool(finite[group.joints].all()))
                wrapped = group.candidate
                self.reason = self.reason or ("" if passed else why)
            if passed:
                self._take(group, wrapped, raw)
            good.append(passed)
        self._agreeing = any(group.agreeing for group in self._groups)
        # The first readings only begin to agree: nothing is wrong with them.
        self.rejected += self.complete and not all(good)
        if good[-1]:
            self.gripper_time = at
        if good[0]:
            self.state.time = at
        return good[0]

    def _agrees(self, group: _Group, raw: Array, at: float, finite: bool) -> bool:
        """Whether enough readings in a row agree with each other, this one the last of them."""
        if not finite:
            group.agreeing = 0
            return False
        if group.agreeing:
            raw = self._unwrapped(raw, group.candidate)
            base = np.vstack((group.candidate[:2], np.zeros_like(raw[2])))
            if not self._judge(raw, base, at - group.time)[:, group.joints].all():
                group.agreeing = 0
        group.agreeing += 1
        group.candidate, group.time = raw.copy(), at
        if group.agreeing < AGREEING:
            return False
        group.agreeing = 0
        return True

    def _take(self, group: _Group, confirmed: Array, raw: Array) -> None:
        """Take the joints of a group over, and the turns that they have made."""
        joints, group.confirmed = group.joints, True
        self._turns[joints] += confirmed[0, joints] - raw[0, joints]
        self._now[:, joints] = confirmed[:, joints]
        self._base[:2, joints] = confirmed[:2, joints]

    def _unwrapped(self, raw: Array, base: Array) -> Array:
        """Return a reading with continuous joints in the turn that is nearest to a state."""
        moved = raw.copy()
        turns = np.rint((raw[0] - base[0]) / _TURN) * _TURN
        np.subtract(raw[0], turns, out=moved[0], where=self._continuous & np.isfinite(turns))
        return moved

    def _explain(self, group: _Group, inside: Mask, finite: Mask) -> str:
        """Return one line on the first joint that is not confirmed."""
        for joint in range(group.joints.start, group.joints.stop):
            if not finite[joint]:
                return f"{self._names[joint]} is not finite"
            for row, what in enumerate(("position", "velocity", "effort")):
                if group.confirmed and not inside[row, joint]:
                    return f"{what} of {self._names[joint]} jumped"
        return "too few readings agree"


class _Group:
    """Joints that are confirmed together, and the reading that waits for others to agree."""

    def __init__(self, joints: slice) -> None:
        self.joints = joints
        self.confirmed = False
        self.agreeing = 0
        self.candidate = np.zeros((3, 0))
        self.time = -math.inf
