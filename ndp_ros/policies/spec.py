"""What rebuilds a policy: sizes, scales and the dynamical system, as plain data.

The specification is the ``config.json`` of a checkpoint and needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from ndp_ros.config import param
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError
from ndp_ros.observation import ObservationField, field_slice

METHODS = ("ndp", "ppo", "ppo-multi", "bounded")
WEIGHTS = ("raw", "whitened")
ALPHA_RANGE = (0.5, 30.0)
"""What a learned alpha may become."""


@dataclass(frozen=True)
class PolicySpec:
    """The shape of Φ and of its critic, and what its outputs mean on an arm.

    One action is a displacement of the setpoint over one control step in units of
    ``action_scale``; an NDP's actions are the differences of its trajectory at the
    k control steps of a segment.
    """

    method: str = param(doc="How actions are produced.", choices=METHODS)
    task: str = param(doc="Task that the policy was trained on.")
    arm: str = param(doc="Arm that the policy was trained on.")
    joint_names: tuple[str, ...] = param(doc="Joints of an action, in order.")
    observation: tuple[ObservationField, ...] = param(doc="Fields of the observation, in order.")
    control_dt: float = param(doc="Control step.", unit="s", minimum=1e-4, maximum=1.0)
    k: int = param(doc="Actions per forward pass of phi.", minimum=1, maximum=1000)
    action_scale: tuple[float, ...] = param(
        doc="Displacement of one action unit over one control step.", unit="rad", minimum=0.0
    )
    hidden: tuple[int, ...] = param((100, 100), doc="Hidden layer sizes.", minimum=1)
    dmp: DmpConfig = param(DmpConfig(), doc="Dynamical system of an NDP.")
    goal_gain: float = param(0.25, doc="g = y0 + goal_gain * output.", unit="rad", minimum=0.0)
    weight_gain: float = param(50.0, doc="w = weight_gain * output.", minimum=0.0)
    weights: str = param(
        "raw",
        doc="Outputs are the weights themselves, or amounts of orthogonal curves (dmp.response).",
        choices=WEIGHTS,
    )
    learned_alpha: bool = param(
        False, doc="Phi also yields the alpha of each segment, section 5.2.1; in training alone."
    )
    init_log_std: float = param(0.0, doc="Initial log standard deviation of actions.")
    critic_heads: str = param(
        "multi", doc="k value heads (section 3.4) or one for all.", choices=("multi", "single")
    )

    def __post_init__(self) -> None:
        """Check that scales, joints, observation and method agree."""
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
        names = [f.name for f in self.observation]
        if len(set(names)) != len(names):
            raise ConfigError(f"observation names a field twice: {names}")
        if self.method == "ndp":
            for name in ("setpoint", "setpoint_velocity"):
                where = field_slice(self.observation, name)
                if where.stop - where.start != self.dof:
                    raise ConfigError(
                        f"observation field {name} has {where.stop - where.start} values "
                        f"for {self.dof} joints"
                    )

    @property
    def dof(self) -> int:
        """Number of joints of an action."""
        return len(self.joint_names)

    @property
    def segment_duration(self) -> float:
        """Time that one forward pass of phi covers [s]."""
        return self.k * self.control_dt
