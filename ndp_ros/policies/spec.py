# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Specification of a policy: sizes, scales and dynamical system, as plain data without torch.

A checkpoint's ``config.json`` holds it. A training run chooses a :class:`PolicyShape`;
the task adds joints, observation and control step, which makes a :class:`PolicySpec`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ndp_ros.config import param
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.curves import Curves
from ndp_ros.errors import ConfigError
from ndp_ros.observation import ObservationField, field_slice

KINDS = ("ndp", "ppo", "ppo-multi", "bounded")
WEIGHTS = ("raw", "whitened")
NOISES = ("action", "segment")
ALPHA_RANGE = (0.5, 30.0)
"""Bounds of a learned alpha."""
MAX_DISPLACEMENT = 10.0
"""Largest action scale of an NDP [rad per control step]."""


@dataclass(frozen=True)
class PolicyShape:
    """The part of a policy that a training run chooses: networks, gains and dynamical system."""

    hidden: tuple[int, ...] = param((100, 100), doc="Hidden layer sizes.", minimum=1)
    critic_heads: str = param(
        "multi", doc="k value heads (section 3.4) or one.", choices=("multi", "single")
    )
    goal_gain: float = param(0.25, doc="g = y0 + goal_gain * output.", unit="rad", minimum=0.0)
    weight_gain: float = param(50.0, doc="w = weight_gain * output.", minimum=0.0)
    weights: str = param(
        "raw",
        doc="With noise action, outputs are the weights or amounts of orthogonal curves.",
        choices=WEIGHTS,
    )
    noise: str = param(
        "action",
        doc="Explore by noise on each of the k actions (the paper's), or of an NDP by one draw a "
        "segment in its curve amounts, which Phi then yields (docs/training.md).",
        choices=NOISES,
    )
    curves: int = param(
        1,
        doc="Curve amounts per joint with noise segment: the goal's and forcing curves.",
        minimum=1,
        maximum=101,
    )
    reach: float = param(
        0.86,
        doc="End displacement of one unit of the goal's curve, in units of k actions of one.",
        minimum=1e-6,
    )
    curve_size: float = param(
        0.3, doc="Size of a forcing curve in units of the goal's curve.", minimum=1e-6
    )
    squashed: bool = param(
        False, doc="Curve amounts lie in (-1, 1), as off-policy learners need them."
    )
    learned_alpha: bool = param(
        False, doc="Phi also yields the alpha of each segment, section 5.2.1; only in training."
    )
    init_log_std: float = param(
        0.0, doc="Initial log standard deviation of actions.", minimum=-15.0, maximum=5.0
    )
    dmp: DmpConfig = param(DmpConfig(), doc="Dynamical system of an NDP.")


@dataclass(frozen=True, kw_only=True)
class PolicySpec(PolicyShape):
    """Specification of a policy: the shape of Φ and its critic, and its actions on an arm.

    One action is a displacement of the setpoint over one control step in units of
    ``action_scale``; an NDP's actions are the differences of its trajectory at the
    k control steps of a segment.
    """

    method: str = param(doc="How actions are produced.", choices=KINDS)
    task: str = param(doc="Task that the policy was trained on.")
    arm: str = param(doc="Arm that the policy was trained on.")
    joint_names: tuple[str, ...] = param(doc="Joints of an action, in order.")
    observation: tuple[ObservationField, ...] = param(doc="Fields of the observation, in order.")
    control_dt: float = param(doc="Control step.", unit="s", minimum=1e-3, maximum=1.0)
    k: int = param(doc="Actions per forward pass of phi.", minimum=1, maximum=1000)
    action_scale: tuple[float, ...] = param(
        doc="Displacement of one action unit over one control step; for VICES also gains [1/s^2].",
        unit="rad",
        minimum=0.0,
        maximum=1e4,
    )

    def __post_init__(self) -> None:
        """Check that scales, joints, observation and method agree."""
        for title, names in (
            ("joint_names", self.joint_names),
            ("observation", [f.name for f in self.observation]),
        ):
            if len(set(names)) != len(names):
                raise ConfigError(f"{title} has a name twice: {', '.join(names)}")
        if len(self.action_scale) != len(self.joint_names):
            raise ConfigError(
                f"action_scale has {len(self.action_scale)} values for "
                f"{len(self.joint_names)} joints"
            )
        if not all(scale > 0.0 for scale in self.action_scale):
            raise ConfigError(f"action_scale is {self.action_scale}, expected positive values")
        if self.method == "ppo" and self.k != 1:
            raise ConfigError(f"ppo predicts one action at a time, k is {self.k}: use ppo-multi")
        low, high = ALPHA_RANGE
        if self.learned_alpha and not low < self.dmp.alpha < high:
            raise ConfigError(
                f"alpha is {self.dmp.alpha:g}, to be learned from inside {low:g} to {high:g}"
            )
        self._check_curves()
        if self.method == "ndp":
            if max(self.action_scale) > MAX_DISPLACEMENT:
                raise ConfigError(
                    f"action_scale is {self.action_scale}: an NDP's are at most "
                    f"{MAX_DISPLACEMENT:g} rad per control step"
                )
            for name in ("setpoint", "setpoint_velocity"):
                where = field_slice(self.observation, name)
                if where.stop - where.start != self.dof:
                    raise ConfigError(
                        f"observation field {name} has {where.stop - where.start} values "
                        f"for {self.dof} joints"
                    )

    def _check_curves(self) -> None:
        """Check that a segment's noise has curves to be drawn in.

        Raises:
            ConfigError: If it has not.
        """
        if self.noise != "segment":
            if self.curves != 1 or self.squashed:
                raise ConfigError(
                    f"curves is {self.curves} and squashed {self.squashed}, which take noise "
                    f"segment, not {self.noise}"
                )
            return
        if self.method != "ndp" or self.learned_alpha:
            which = f"method {self.method!r}" + (" with a learned alpha" * self.learned_alpha)
            raise ConfigError(f"noise segment is for an NDP with a fixed alpha, not for {which}")
        # Names the possible numbers of curves and the forcing term that they take.
        Curves(self.dmp, self.curves, self.curve_size)

    @property
    def decision(self) -> tuple[int, int]:
        """Shape of what one forward pass of phi draws.

        It is the k actions (k, dof), each with a probability of its own, or with the noise of a
        segment one draw (1, curves dof), amount after amount.
        """
        return (1, self.curves * self.dof) if self.noise == "segment" else (self.k, self.dof)

    @property
    def bounded(self) -> bool:
        """Whether decisions lie in (-1, 1)."""
        return self.squashed or self.method == "bounded"

    @property
    def dof(self) -> int:
        """Number of joints of an action."""
        return len(self.joint_names)

    @property
    def segment_duration(self) -> float:
        """Time that one forward pass of phi covers [s]."""
        return self.k * self.control_dt
