"""The guard: the one place where every segment, setpoint, command and measurement passes.

Each violation has a name (``GUARD_NAMES``), a count and a policy (``POLICIES``). Setpoints obey
position, velocity and acceleration limits by construction (``control.limiter``): a wanted
setpoint inside them passes unchanged, any other is clamped or begins braking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.arm import ArmInfo, Command, JointState
from ndp_ros.control.limiter import ROWS, Limiter
from ndp_ros.errors import ConfigError
from ndp_ros.streaming.config import POLICIES, RuntimeConfig
from ndp_ros.streaming.layout import GUARD_NAMES

Array = NDArray[np.float64]

COUNT, CLAMP, BRAKE, FAULT = range(len(POLICIES))
"""Policies in order of severity; a check returns the most severe that it met."""

_INDEX = {name: place for place, name in enumerate(GUARD_NAMES)}
_TOO_FAST = 1.02
"""Excess up to which a segment runs as it is, clamped on the way: a start at the limit is
no reason to slow down."""
_TORQUE_SAMPLES = 8
"""Setpoints of a segment whose torques are looked at."""


@dataclass
class Verdict:
    """What the guard says of a segment before it starts."""

    stretch: float
    """Factor on the duration: 1 as it is, more if it would be too fast, 0 if refused."""
    name: str = ""
    """Violation that the verdict rests on; empty for none."""
    text: str = ""
    """One line for people."""


class Guard:
    """Limits of one arm at one rate, and the counts of what violated them.

    Attributes:
        counts: Violations so far, one per name of ``GUARD_NAMES``.
        fault: Name of the last violation whose policy was brake or fault.
        max_following_error: Distance between setpoint and arm allowed (n_arm,) [rad].
        max_measured_velocity: Speed of the arm allowed (n_arm,) [rad/s].
    """

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
            torque_of: Torques (n, n_arm) of setpoints (dof, 3, n), to have whole segments
                checked for torque too; such a segment is slowed down like one that is
                too fast.

        Raises:
            ConfigError: If the margins leave a joint no room.
        """
        self.config = config
        self.info = info
        self.counts = [0] * len(GUARD_NAMES)
        self.fault = ""
        dof, T = info.dof, config.period
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
            for name in ("position", "velocity", "acceleration", "torque", "torque_rate",
                         "following_error", "overspeed")
        }  # fmt: skip
        # Without it nothing else holds, so a jump is clamped whatever the others are.
        self._policies["continuity"] = max(self._policies["acceleration"], CLAMP)

        # A command is judged by position, torque and change of torque; row by row.
        n = self._n
        self._command_rows = np.zeros((3, dof))
        self._command_high = np.full((3, dof), np.inf)
        self._command_high[1, :n] = info.max_torque[:n] * config.torque_margin
        self._command_high[2, :n] = info.max_torque_rate[:n] * T
        self._command_low = -self._command_high
        self._command_inside = np.zeros((3, dof), bool)
        self._command_above = np.zeros((3, dof), bool)
        self._command_all_inside = np.ones((3, dof), bool).tobytes()
        self._last_torque = np.zeros(n)
        self._torque_known = False

        # A measurement is judged by following error and speed.
        self._measured_rows = np.zeros((2, n))
        self._measured_high = np.stack(
            (np.full(n, config.max_following_error), info.max_velocity[:n] * config.max_overspeed)
        )
        self.max_following_error, self.max_measured_velocity = self._measured_high
        self._measured_inside = np.zeros((2, n), bool)
        self._measured_all_inside = np.ones((2, n), bool).tobytes()
        self.seat((self.lower + self.upper) / 2.0)

    # -- counting ----------------------------------------------------------------------------

    def hit(self, name: str) -> int:
        """Count a violation and return its policy."""
        self.counts[_INDEX[name]] += 1
        policy = self._policies.get(name, FAULT)
        if policy >= BRAKE:
            self.fault = name
        return policy

    def hit_quietly(self, name: str) -> None:
        """Count a violation that has no policy: what follows is part of its meaning."""
        self.counts[_INDEX[name]] += 1

    def count(self, name: str) -> int:
        """Return how often a violation was met."""
        return self.counts[_INDEX[name]]

    # -- setpoints ---------------------------------------------------------------------------

    def seat(self, position: Array) -> None:
        """Widen the limits to a position (dof,) outside them, so that the arm may hold there."""
        if ((position < self.lower) | (position > self.upper)).any():
            self.hit_quietly("position")
        self.limiter.widen(position)
        self._command_low[0], self._command_high[0] = self.limiter.lower, self.limiter.upper
        self._torque_known = False

    def limit(self, current: Array, wanted: Array) -> int:
        """Step from the current setpoint to the wanted one, as far as the limits allow.

        The gripper is clamped without being counted: to want more than it can is to grip.

        Args:
            current: Setpoint (3, dof): y, yd, ydd; overwritten by the next one.
            wanted: Setpoint (3, dof) wanted one period later; left alone.

        Returns:
            The most severe policy met: COUNT (nothing happened), CLAMP, BRAKE or FAULT. With
            the last two the step is that of :meth:`brake`.
        """
        limiter = self.limiter
        if limiter.admits(current, wanted):
            current[:] = wanted
            return COUNT
        if not np.isfinite(wanted).all():
            self.hit("setpoint_not_finite")
            limiter.brake(current)
            return FAULT
        inside = limiter.inside
        policy, before, met = COUNT, "", COUNT
        for row, name in enumerate(ROWS):
            if not inside[row, : self._n].all():
                if name != before:  # one count a tick for all rows of a name
                    met = self.hit(name)
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
        """Step towards rest at the acceleration limits; return True once at rest."""
        return self.limiter.brake(current)

    def approach(self, current: Array, target: Array, share: float = 1.0) -> bool:
        """Step towards rest at a position (dof,) at a share of the speed; True once there."""
        return self.limiter.approach(current, target, share)

    # -- whole segments ----------------------------------------------------------------------

    def judge_parameters(self, g: Array, w: Array) -> Verdict:
        """Judge the numbers of a segment before anything is computed from them."""
        if np.isfinite(g).all() and np.isfinite(w).all():
            return Verdict(1.0)
        return Verdict(0.0, "segment_not_finite", "goal or weights are not finite")

    def judge(self, setpoints: Array, tolerance: float | None = None) -> Verdict:
        """Judge a whole segment in one vectorised pass before it starts.

        The gripper is not judged for speed or range, and no joint for acceleration: those
        are clamped on the way. (A DMP that is handed over in motion begins with a short peak
        of acceleration, which slowing down would not take away.)

        Args:
            setpoints: Setpoints (dof, 3, n) over the horizon.
            tolerance: Distance [rad] outside the position limits up to which setpoints
                are clamped on the way instead; ``position_tolerance`` unless given.

        Returns:
            A verdict whose ``stretch`` is 1 when it may run as it is, the factor by
            which to slow it down when it is too fast (the caller builds the slower
            segment and has it judged again), 0 when it is refused.
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
                0.0, "segment_impossible",
                f"{self.info.joint_names[joint]} would leave its limits by {beyond[joint]:.3g} rad",
            )  # fmt: skip
        name = "velocity"
        ratio = float((np.maximum(high[1], -low[1])[:n] / self.max_velocity[:n]).max())
        if self.config.on_fast_segment == "clamp":
            return Verdict(1.0)
        if self._torque_of is not None and ratio <= _TOO_FAST:
            rows = np.linspace(0, setpoints.shape[2] - 1, _TORQUE_SAMPLES).astype(int)
            sample = setpoints[:, :, rows]
            limit = self.max_acceleration[:, None]
            # Peaks of acceleration are clamped on the way; what is clamped takes no torque.
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
        """Check a command and clamp what may be clamped; in place.

        Returns:
            The most severe policy met. With FAULT because of a value that is not
            finite the command must not be sent.
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
        """Count what is outside and clamp it where the policy says so."""
        if not np.isfinite(self._command_rows).all():
            return self.hit("command_not_finite")
        n, low, high, policy = self._n, self._command_low, self._command_high, COUNT
        if not inside[0].all():
            # Whatever the policy, no position beyond the limits is ever sent.
            policy = max(policy, self.hit("position"))
            np.clip(command.position, low[0], high[0], out=command.position)
        torque = command.torque[:n]
        if not inside[1].all():
            met = self.hit("torque")
            policy = max(policy, met)
            if met != COUNT:
                np.clip(torque, low[1, :n], high[1, :n], out=torque)
        if not inside[2].all():
            met = self.hit("torque_rate")
            policy = max(policy, met)
            if met != COUNT:
                last = self._last_torque
                np.clip(torque, last + low[2, :n], last + high[2, :n], out=torque)
        return policy

    def measured(self, y: Array, state: JointState, age: float, finite: bool = True) -> int:
        """Check a measurement against the setpoint that the arm was to be at.

        Args:
            y: Setpoint position (dof,) [rad].
            state: The last confirmed measurement.
            age: How old it is [s]; 0 for a simulated arm.
            finite: Whether what has come since was numbers at least.
        """
        if age > self.config.feedback_timeout:
            return self.hit("feedback_lost" if finite else "feedback_not_finite")
        rows, n = self._measured_rows, self._n
        np.subtract(y[:n], state.position[:n], out=rows[0])
        rows[1] = state.velocity[:n]
        np.abs(rows, out=rows)
        inside = np.less_equal(rows, self._measured_high, out=self._measured_inside)
        if inside.tobytes() == self._measured_all_inside:
            return COUNT
        if not np.isfinite(rows).all():
            return self.hit("feedback_not_finite")
        policy = COUNT
        if not inside[0].all():
            policy = max(policy, self.hit("following_error"))
        if not inside[1].all():
            policy = max(policy, self.hit("overspeed"))
        return policy
