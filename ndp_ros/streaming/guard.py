# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The guard: the one place where every segment, setpoint, command and measurement is checked.

Each violation has a name (``GUARD_NAMES``), a count and a policy (``POLICIES``). Setpoints obey
position, velocity and acceleration limits by construction (``control.limiter``): a desired
setpoint inside them passes unchanged, any other is clamped or begins braking. Torque limits
are enforced in :meth:`Guard.command`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.control.arm import ArmInfo, Command, JointState
from ndp_ros.control.limiter import ROWS, Limiter
from ndp_ros.control.memory import fields
from ndp_ros.errors import ConfigError
from ndp_ros.streaming.config import POLICIES, RuntimeConfig
from ndp_ros.streaming.layout import GUARD_NAMES

Array = NDArray[np.float64]

COUNT, CLAMP, BRAKE, FAULT = range(len(POLICIES))
"""Policies in order of severity; a check returns the most severe one of its violations."""

_INDEX = {name: place for place, name in enumerate(GUARD_NAMES)}
_TOO_FAST = 1.02
"""Excess up to which a segment is clamped on the way instead of slowed down: it may begin at
the limit."""
_TORQUE_SAMPLES = 8
"""Number of setpoints of a segment whose torques are computed."""


@dataclass
class Verdict:
    """Judgement of a segment before it starts."""

    stretch: float
    """Factor on the duration: 1 to accept, more to slow down, 0 to refuse."""
    name: str = ""
    """Violation that led to it; empty for none."""
    text: str = ""
    """Explanation in one line."""


class Guard(ctypes.Structure):
    """Limits of one arm at one rate, and the counts of their violations.

    Attributes:
        counts: Violations so far, one count per name of ``GUARD_NAMES``.
        fault: Name of the last violation whose policy was brake or fault.
        max_following_error: Largest distance between setpoint and arm (n_arm,) [rad].
        max_measured_velocity: Largest measured speed (n_arm,) [rad/s].
    """

    _fields_ = fields(_torque_known=bool)

    def __init__(
        self,
        info: ArmInfo,
        config: RuntimeConfig,
        torque_of: Callable[[Array], Array] | None = None,
    ) -> None:
        """Prepare every array that the loop needs.

        Args:
            info: Limits of the arm.
            config: Margins and policies.
            torque_of: Function from setpoints (dof, 3, n) to torques (n, n_arm), with which
                whole segments are checked for torque too; a segment that takes too much is
                slowed down like one that is too fast.

        Raises:
            ConfigError: If the margins leave a joint no room.
        """
        self.config = config
        self.info = info
        self.counts = [0] * len(GUARD_NAMES)
        self.fault = ""
        dof = info.dof
        self._n = info.n_arm
        margin = np.full(dof, config.position_margin)
        margin[self._n :] = 0.0
        self.lower, self.upper = info.lower + margin, info.upper - margin
        if not (self.lower < self.upper).all():
            joint = info.joint_names[int(np.argmin(self.upper - self.lower))]
            raise ConfigError(
                f"position_margin {config.position_margin:g} rad leaves {joint} no room"
            )
        self.max_velocity = info.max_velocity * config.velocity_margin
        self.max_acceleration = info.max_acceleration * config.acceleration_margin
        self.limiter = Limiter(
            self.lower, self.upper, self.max_velocity, self.max_acceleration, config.period
        )
        self._torque_of = torque_of
        self._policies = {
            name: POLICIES.index(getattr(config, f"on_{name}"))
            for name in (
                "position",
                "velocity",
                "acceleration",
                "torque",
                "torque_rate",
                "following_error",
                "overspeed",
            )
        }
        # All other limits rest on continuity, so a jump is clamped whatever their policies are.
        self._policies["continuity"] = max(self._policies["acceleration"], CLAMP)
        self._prepare_command_checks()
        self._prepare_measurement_checks()
        self._bound_checks(config)
        self.rest_at((self.lower + self.upper) / 2.0)

    def _prepare_command_checks(self) -> None:
        """Allocate the rows by which a command is judged: position, torque, change of torque."""
        info, config, n, dof = self.info, self.config, self._n, self.info.dof
        self._command_rows = np.zeros((3, dof))
        self._command_high = np.full((3, dof), np.inf)
        self._command_high[2, :n] = info.max_torque_rate[:n] * config.period
        self._command_low = -self._command_high
        self._command_inside = np.zeros((3, dof), bool)
        self._command_above = np.zeros((3, dof), bool)
        self._command_all_inside = np.ones((3, dof), bool).tobytes()
        self._last_torque = np.zeros(n)
        self._torque_known = False

    def _prepare_measurement_checks(self) -> None:
        """Allocate the rows by which a measurement is judged: following error and speed."""
        n = self._n
        self._measured_rows, self._measured_high = np.zeros((2, n)), np.zeros((2, n))
        self.max_following_error, self.max_measured_velocity = self._measured_high
        self._measured_inside = np.zeros((2, n), bool)
        self._measured_all_inside = np.ones((2, n), bool).tobytes()

    def tune(self, config: RuntimeConfig) -> None:
        """Take the parameters ``TUNABLE`` of another configuration, from the next tick on."""
        self.limiter.limit_velocity(self.info.max_velocity * config.velocity_margin)
        self.max_velocity[:] = self.limiter.max_velocity
        self._bound_checks(config)
        self.config = config

    def _bound_checks(self, config: RuntimeConfig) -> None:
        """Set the bounds of torques and measurements."""
        info, n = self.info, self._n
        self._command_high[1, :n] = info.max_torque[:n] * config.torque_margin
        self._command_low[1] = -self._command_high[1]
        self.max_following_error[:] = config.max_following_error
        self.max_measured_velocity[:] = info.max_velocity[:n] * config.max_overspeed

    @property
    def memory(self) -> dict[str, Any]:
        """The arrays and numbers that compiled code shares, by its names for them."""
        return {
            "guard": self,
            "lower": self.lower,
            "upper": self.upper,
            "max_velocity": self.max_velocity,
            "command_low": self._command_low,
            "command_high": self._command_high,
            "last_torque": self._last_torque,
            "measured_high": self._measured_high,
            **self.limiter.memory,
        }

    @property
    def constants(self) -> dict[str, float]:
        """How segments are judged, for compiled code, which computes no torques."""
        takes = self.config.on_fast_segment == "clamp" or self._torque_of is None
        return {"too_fast": _TOO_FAST, "takes": takes}

    # -- counting ----------------------------------------------------------------------------

    def violation(self, name: str) -> int:
        """Count a violation and return its policy."""
        self.count(name)
        policy = self._policies.get(name, FAULT)
        if policy >= BRAKE:
            self.fault = name
        return policy

    def count(self, name: str) -> None:
        """Count a violation that has no policy, because its consequence is fixed."""
        self.counts[_INDEX[name]] += 1

    def count_of(self, name: str) -> int:
        """Return the number of violations of one name."""
        return self.counts[_INDEX[name]]

    # -- setpoints ---------------------------------------------------------------------------

    def rest_at(self, position: Array) -> None:
        """Widen the limits to a position (dof,) outside them, so that the arm may rest there."""
        if ((position < self.lower) | (position > self.upper)).any():
            self.count("position")
        self.limiter.widen(position)
        self._command_low[0], self._command_high[0] = self.limiter.lower, self.limiter.upper
        self._torque_known = False

    def limit(self, current: Array, wanted: Array) -> int:
        """Step from the current setpoint to the desired one, as far as the limits allow.

        The gripper is clamped without a count: a setpoint beyond its range is a grip.

        Args:
            current: Setpoint (3, dof): y, yd, ydd; overwritten by the next one.
            wanted: Desired setpoint (3, dof) one period later; not changed.

        Returns:
            The most severe policy: COUNT (nothing happened), CLAMP, BRAKE or FAULT. With the
            last two the step is that of :meth:`brake`.
        """
        limiter = self.limiter
        if limiter.admits(current, wanted):
            current[:] = wanted
            return COUNT
        if not np.isfinite(wanted).all():
            self.violation("setpoint_not_finite")
            limiter.brake(current)
            return FAULT
        inside = limiter.inside
        policy, before, met = COUNT, "", COUNT
        for row, name in enumerate(ROWS):
            if not inside[row, : self._n].all():
                if name != before:  # one count per tick for all rows of a name
                    met = self.violation(name)
                    policy = max(policy, met)
                before = name
                if met == COUNT:
                    inside[row, : self._n] = True
        if policy >= BRAKE:
            limiter.brake(current)
        else:
            limiter.clamp(current, wanted)
        return policy

    def brake(self, current: Array) -> bool:
        """Step towards rest at the acceleration limits; return whether it is reached."""
        return self.limiter.brake(current)

    def approach(self, current: Array, target: Array, share: float = 1.0) -> bool:
        """Step towards rest at a position (dof,); return whether it is reached.

        Args:
            current: Setpoint (3, dof); overwritten by the next one.
            target: Position (dof,) [rad].
            share: Share of the velocity limits that is used.
        """
        return self.limiter.approach(current, target, share)

    # -- whole segments ----------------------------------------------------------------------

    def judge_parameters(self, g: Array, w: Array) -> Verdict:
        """Check goal (dof,) and weights (dof, N) before anything is computed from them."""
        if np.isfinite(g).all() and np.isfinite(w).all():
            return Verdict(1.0)
        return Verdict(0.0, "segment_not_finite", "goal or weights are not finite")

    def judge(self, setpoints: Array, tolerance: float | None = None) -> Verdict:
        """Judge a whole segment in one vectorised pass before it starts.

        Speed and range of the gripper and the acceleration of all joints are not judged but
        clamped on the way. (A DMP that is handed over in motion begins with a short peak of
        acceleration, which slowing down would not remove.)

        Args:
            setpoints: Setpoints (dof, 3, n) over the horizon.
            tolerance: Distance outside the position limits up to which setpoints are clamped on
                the way instead [rad]; ``position_tolerance`` unless given.

        Returns:
            A verdict whose ``stretch`` is 1 for a segment that may run, 0 for one that is
            refused, and otherwise the factor by which to slow it down; the caller builds the
            slower segment and has it judged again.
        """
        n = self._n
        high, low = setpoints.max(axis=2).T, setpoints.min(axis=2).T
        if not (np.isfinite(high).all() and np.isfinite(low).all()):
            return Verdict(0.0, "segment_not_finite", "setpoints are not finite")
        tolerance = self.config.position_tolerance if tolerance is None else tolerance
        beyond = np.maximum(high[0] - self.limiter.upper, self.limiter.lower - low[0])[:n]
        if (beyond > tolerance).any():
            joint = int(np.argmax(beyond))
            return Verdict(
                0.0,
                "segment_impossible",
                f"{self.info.joint_names[joint]} would leave its limits by {beyond[joint]:.3g} rad",
            )
        name = "velocity"
        ratio = float((np.maximum(high[1], -low[1])[:n] / self.max_velocity[:n]).max())
        if self.config.on_fast_segment == "clamp":
            return Verdict(1.0)
        if self._torque_of is not None and ratio <= _TOO_FAST:
            rows = np.linspace(0, setpoints.shape[2] - 1, _TORQUE_SAMPLES).astype(int)
            sample = setpoints[:, :, rows]
            limit = self.max_acceleration[:, None]
            # Peaks of acceleration are clamped on the way and take no torque beyond that.
            np.clip(sample[:, 2], -limit, limit, out=sample[:, 2])
            torque = np.abs(self._torque_of(sample)).max(axis=0)[:n]
            name, ratio = "torque", float(np.sqrt((torque / self._command_high[1, :n]).max()))
        if ratio <= _TOO_FAST:
            return Verdict(1.0)
        if self.config.on_fast_segment == "refuse":
            return Verdict(0.0, "segment_impossible", f"{name} is {ratio:.3g} times too fast")
        return Verdict(ratio, "segment_stretched", f"{name} is {ratio:.3g} times too fast")

    # -- commands and measurements -----------------------------------------------------------

    def command(self, command: Command) -> int:
        """Check a command against the limits of position, torque and torque rate; clamp in place.

        Returns:
            The most severe policy. A command with a value that is not finite (FAULT) must not
            be sent.
        """
        rows, n, torque = self._command_rows, self._n, command.torque
        rows[0] = command.position
        if command.mode == "torque":
            rows[1, :n] = torque[:n]
            if self._torque_known:
                np.subtract(torque[:n], self._last_torque, out=rows[2, :n])
            else:  # there is no torque before the first one
                rows[2, :n] = 0.0
        inside = np.less_equal(rows, self._command_high, out=self._command_inside)
        inside &= np.greater_equal(rows, self._command_low, out=self._command_above)
        policy = COUNT
        if inside.tobytes() != self._command_all_inside:
            policy = self._clamp_command(command, inside)
        if command.mode == "torque":
            self._last_torque[:] = torque[:n]
            self._torque_known = True
        return policy

    def _clamp_command(self, command: Command, inside: NDArray[np.bool_]) -> int:
        """Count the values outside the limits, and clamp them where their policy says so."""
        if not np.isfinite(self._command_rows).all():
            return self.violation("command_not_finite")
        n, low, high, policy = self._n, self._command_low, self._command_high, COUNT
        if not inside[0].all():
            # No position beyond the limits is ever sent, whatever the policy.
            policy = max(policy, self.violation("position"))
            np.clip(command.position, low[0], high[0], out=command.position)
        torque = command.torque[:n]
        if not inside[1].all():
            met = self.violation("torque")
            policy = max(policy, met)
            if met != COUNT:
                np.clip(torque, low[1, :n], high[1, :n], out=torque)
        if not inside[2].all():
            met = self.violation("torque_rate")
            policy = max(policy, met)
            if met != COUNT:
                last = self._last_torque
                np.clip(torque, last + low[2, :n], last + high[2, :n], out=torque)
        return policy

    def measured(self, y: Array, state: JointState, age: float, finite: bool = True) -> int:
        """Check a measurement against the setpoint of its tick.

        Args:
            y: Setpoint position (dof,) [rad].
            state: The last confirmed measurement.
            age: Its age [s]; 0 for a simulated arm.
            finite: Whether the readings since then were finite at least.

        Returns:
            The most severe policy.
        """
        if age > self.config.feedback_timeout:
            return self.violation("feedback_lost" if finite else "feedback_not_finite")
        rows, n = self._measured_rows, self._n
        np.subtract(y[:n], state.position[:n], out=rows[0])
        rows[1] = state.velocity[:n]
        np.abs(rows, out=rows)
        inside = np.less_equal(rows, self._measured_high, out=self._measured_inside)
        if inside.tobytes() == self._measured_all_inside:
            return COUNT
        if not np.isfinite(rows).all():
            return self.violation("feedback_not_finite")
        policy = COUNT
        if not inside[0].all():
            policy = max(policy, self.violation("following_error"))
        if not inside[1].all():
            policy = max(policy, self.violation("overspeed"))
        return policy
