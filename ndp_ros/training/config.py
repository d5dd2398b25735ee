# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Configuration of a training run: its options by learner, checked against the method.

:func:`make_spec` completes it with an environment to the specification of the policy.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ndp_ros.config import fields_of, is_config, param
from ndp_ros.errors import ConfigError, TaskError
from ndp_ros.policies.devices import DEVICES
from ndp_ros.policies.spec import PolicyShape, PolicySpec
from ndp_ros.training.methods import METHODS, STEP, Method, learnt_by

if TYPE_CHECKING:
    from ndp_ros.tasks.choice import TaskChoice
    from ndp_ros.tasks.contract import TaskEnvironment


@dataclass(frozen=True)
class PpoConfig:
    """Hyper-parameters of PPO; the defaults are the paper's table (A.2)."""

    batch_size: int = param(2048, doc="Control steps per update, all environments.", minimum=1)
    minibatches: int = param(32, doc="Minibatches per epoch.", minimum=1)
    epochs: int = param(10, doc="Passes over each batch.", minimum=1)
    clip: float = param(0.1, doc="Clip of the probability ratio.", minimum=0.0, maximum=10)
    clip_value: bool = param(True, doc="Clip the change of values as well.")
    gamma: float = param(0.99, doc="Discount per control step.", minimum=0.0, maximum=1.0)
    gae_lambda: float = param(0.95, doc="Lambda of GAE.", minimum=0.0, maximum=1.0)
    learning_rate: float = param(3e-4, doc="Step size of Adam.", minimum=0.0)
    schedule: str = param(
        "constant",
        doc="Step size over the run; adaptive: adapted to keep the KL at target_kl.",
        choices=("constant", "linear", "adaptive"),
    )
    adam_eps: float = param(1e-5, doc="Epsilon of Adam.", minimum=0.0)
    target_kl: float = param(
        0.0,
        doc="KL at which an update ends, or to which the step size adapts; 0: off.",
        minimum=0.0,
    )
    entropy: float = param(0.0, doc="Entropy coefficient.", minimum=0.0)
    value: float = param(0.5, doc="Value loss coefficient.", minimum=0.0)
    max_grad_norm: float = param(0.5, doc="Largest norm of the gradient.", minimum=0.0)
    noise_correlation: float = param(
        0.0,
        doc="Correlation of the noise of neighbouring actions in a window (paper: 0).",
        minimum=0.0,
        maximum=0.99,
    )
    normalise_observations: bool = param(True, doc="Normalise by running mean and deviation.")
    normalise_returns: bool = param(True, doc="Scale rewards by the deviation of the return.")
    scale_by: str = param(
        "",
        doc="One-hot field of the observation that names the task, for a scale of each task; "
        "empty: one scale.",
    )

    def __post_init__(self) -> None:
        """Check that an adaptive schedule has a target."""
        if self.schedule == "adaptive" and self.target_kl == 0.0:
            raise ConfigError("schedule adaptive needs target_kl, such as 0.01")


@dataclass(frozen=True)
class ImitationConfig:
    """Hyper-parameters of behaviour cloning, section 3.3."""

    passes: int = param(200, doc="Passes over the demonstrations.", minimum=1)
    windows_per_step: int = param(64, doc="Windows per gradient step.", minimum=1)
    step_size: float = param(1e-3, doc="Step size of Adam.", minimum=0.0)
    decay: bool = param(False, doc="Decrease the step size linearly to zero.")
    holdout: float = param(
        0.1, doc="Part of the episodes that is held out.", minimum=0.0, maximum=0.9
    )
    only_successful: bool = param(True, doc="Leave out episodes that failed.")


@dataclass(frozen=True)
class Td3Config:
    """Hyper-parameters of the off-policy methods; actions are in units of their bound."""

    collect: int = param(640, doc="Control steps between rounds of learning.", minimum=1)
    warm_up: int = param(
        5000, doc="Control steps of random actions before learning starts.", minimum=0
    )
    memory: int = param(100_000, doc="Windows in the replay memory.", minimum=1)
    steps_per_window: float = param(
        1.0, doc="Gradient steps per window collected.", minimum=0.0, maximum=100.0
    )
    replay_batch: int = param(128, doc="Windows per gradient step.", minimum=1)
    actor_rate: float = param(1e-3, doc="Step size of the actor.", minimum=0.0)
    critic_rate: float = param(1e-3, doc="Step size of the critics.", minimum=0.0)
    critic_hidden: tuple[int, ...] = param((256, 256), doc="Hidden layers of a critic.", minimum=1)
    critic_norm: bool = param(True, doc="Normalise the hidden layers of the critics.")
    target_rate: float = param(
        0.005, doc="Update rate of the target networks.", minimum=0.0, maximum=1.0
    )
    exploration: float = param(0.1, doc="Deviation of exploration.", minimum=1e-6)
    target_noise: float = param(0.04, doc="Deviation of the target actor's noise.", minimum=0.0)
    target_clip: float = param(0.1, doc="Largest noise of the target actor.", minimum=0.0)
    actor_every: int = param(
        2, doc="Gradient steps of the critics per step of the actor.", minimum=1
    )


@dataclass(frozen=True)
class DynEConfig:
    """Hyper-parameters of Dyn-E's embedding."""

    random_steps: int = param(100_000, doc="Control steps of random motion.", minimum=1)
    embedding_size: int = param(
        0, doc="Dimensions of the embedding; 0: as many as joints.", minimum=0, maximum=1000
    )
    embedding_hidden: int = param(
        400, doc="Width of the two hidden layers of its networks.", minimum=1
    )
    embedding_steps: int = param(4000, doc="Gradient steps of encoder and model.", minimum=1)
    decoder_steps: int = param(10_000, doc="Gradient steps of the decoder.", minimum=1)
    embedding_batch: int = param(
        128, doc="Windows per gradient step of encoder or decoder.", minimum=2
    )
    embedding_rate: float = param(1e-4, doc="Step size of encoder and decoder.", minimum=0.0)
    information_cost: float = param(1e-4, doc="beta, weight of the KL.", minimum=0.0)
    motion_cost: float = param(1e-4, doc="lambda, weight of the decoder's motion.", minimum=0.0)


@dataclass(frozen=True, kw_only=True)
class RunConfig(PolicyShape):
    """Configuration of a training run, which determines every number of the result.

    Example:
        >>> config = RunConfig(task="pick", method="ppo-multi", seed=3)
        >>> config.name
        'pick-ppo-multi-3'
    """

    task: str = param("throw", doc="Task: a short name or a gymnasium id (module:id).")
    method: str = param("ndp", doc="Method: policy and learner.", choices=tuple(METHODS))
    seed: int = param(0, doc="Seed of all random numbers.", minimum=0, maximum=2**63 - 1)
    samples: int = param(600_000, doc="Control steps to train on.", minimum=1)
    preset: str = param("default", doc="Preset of the task; empty for a task without presets.")
    task_options: tuple[str, ...] = param((), doc="Further options of the task, name=value.")
    k: int = param(
        5,
        doc="Control steps per forward pass; 1 for ppo, vices and vices-pos.",
        minimum=1,
        maximum=1000,
    )
    environments: int = param(16, doc="Environments that run in parallel.", minimum=1)
    workers: int = param(0, doc="Roll-out processes; 0: one per core.", minimum=0)
    device: str = param(
        "cpu",
        doc="Where torch learns: ndp-td3, dyn-e and the encoder of images; auto: cuda, if any.",
        choices=DEVICES,
    )
    final_log_std: float | None = param(
        None,
        doc="Log deviation at the end of a linear schedule; without one the deviation is learnt.",
        minimum=-10.0,
        maximum=5.0,
    )
    checkpoint_every: int = param(
        10, doc="Batches between checkpoints, at which new episodes start.", minimum=1
    )
    evaluation_episodes: int = param(
        32, doc="Deterministic episodes per checkpoint; 0: none.", minimum=0
    )
    demonstrations: str = param("", doc="File of demonstrations, for bc-ndp and bc-nn.")
    start_from: str = param(
        "", doc="Checkpoint, or name of one that ships, with the initial weights for PPO."
    )
    ppo: PpoConfig = param(PpoConfig(), doc="Hyper-parameters of PPO.")
    td3: Td3Config = param(Td3Config(), doc="Hyper-parameters of the off-policy methods.")
    bc: ImitationConfig = param(ImitationConfig(), doc="Hyper-parameters of imitation.")
    dyne: DynEConfig = param(DynEConfig(), doc="Hyper-parameters of Dyn-E.")

    def __post_init__(self) -> None:
        """Set what the method leaves no choice of, and check that every option has an effect."""
        for name, value in self.row.always.items():
            object.__setattr__(self, name, value)
        correlation, segment = self.ppo.noise_correlation, self.noise == "segment"
        if correlation and (segment or not self.row.correlates_noise):
            by = [name for name, row in METHODS.items() if row.correlates_noise]
            raise ConfigError(
                f"noise_correlation is {correlation:g}, which has no effect on {self.method}"
                f"{' with noise segment' if segment else ''}: it is for methods that explore in "
                f"windows ({', '.join(by)}) with noise action"
            )
        if segment and not self.row.draws_segments:
            by = [name for name, row in METHODS.items() if row.draws_segments]
            raise ConfigError(
                f"noise segment has no effect on {self.method}: it is for {', '.join(by)}"
            )
        for field, learner in (
            ("start_from", "ppo"),
            ("ppo.scale_by", "ppo"),
            ("demonstrations", "imitation"),
        ):
            value = value_at(self, field)
            if value and self.row.learner != learner:
                raise ConfigError(
                    f"{field} is {value!r}, which {self.method} does not use: leave it out, or "
                    f"choose a method that does ({', '.join(learnt_by(learner))})"
                )

    @property
    def row(self) -> Method:
        """Row of the method in ``METHODS``."""
        return METHODS[self.method]

    @property
    def choice(self) -> TaskChoice:
        """The task, as plain data for worker processes."""
        k = 1 if self.row.timing == STEP else self.k
        from ndp_ros.tasks.choice import TaskChoice

        return TaskChoice(self.task, k, self.preset, self.task_options, self.row.impedance)

    @property
    def random_steps(self) -> int:
        """Control steps of random motion before the policy starts to learn."""
        return sum(value_at(self, option) for option in self.row.random_motion)

    @property
    def processes(self) -> int:
        """Number of worker processes."""
        cores = len(os.sched_getaffinity(0))
        return min(self.workers or cores, self.environments)

    @property
    def windows(self) -> int:
        """Windows per environment and batch, for at least ``batch_size`` control steps."""
        return -(-self.ppo.batch_size // (self.environments * self.choice.k))

    @property
    def samples_per_batch(self) -> int:
        """Control steps of a batch of all environments."""
        return self.windows * self.environments * self.choice.k

    @property
    def batches(self) -> int:
        """Number of batches of the run."""
        return -(-self.samples // self.samples_per_batch)

    @property
    def name(self) -> str:
        """Default name of the run directory."""
        task = re.split("[/:]", self.task)[-1]
        return f"{task}-{self.method}-{self.seed}"


NESTED: dict[str, type] = {p.name: p.type for p in fields_of(RunConfig) if is_config(p.type)}
"""Configuration classes nested in :class:`RunConfig`, by field."""


def make_spec(config: RunConfig, env: TaskEnvironment) -> PolicySpec:
    """Return the specification of the policy of a run in an environment.

    Raises:
        ConfigError: If configuration and environment do not fit.
        TaskError: If the observation is not a vector.
    """
    import gymnasium

    space = getattr(env, "observation_space", None)
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise TaskError(
            f"observations of task {config.task} are {space}: all methods take one vector "
            "(gymnasium.wrappers.FlattenObservation makes one)"
        )
    images = [f.name for f in env.fields if f.image]
    if images and not config.row.sees_images:
        able = [name for name, row in METHODS.items() if row.sees_images]
        raise TaskError(
            f"{images[0]} of task {config.task} is an image, from which {config.method} does not "
            f"learn: choose one of {', '.join(able)}"
        )
    if config.device == "cuda" and not (images or config.row.learns_in_torch):
        able = [name for name, row in METHODS.items() if row.learns_in_torch]
        raise ConfigError(
            f"device is cuda, but {config.method} learns vectors in numpy: leave it out; torch "
            f"learns images and {', '.join(able)}"
        )
    return PolicySpec(
        method=config.row.policy,
        task=config.task,
        arm=env.arm,
        joint_names=tuple(env.joint_names),
        observation=tuple(env.fields),
        control_dt=float(env.control_dt),
        k=env.k,
        action_scale=tuple(float(s) for s in env.action_scale),
        **{f.name: getattr(config, f.name) for f in dataclasses.fields(PolicyShape)},
    )


def differences(a: Any, b: Any, prefix: str = "") -> list[str]:
    """Return the names of the fields in which two configurations of one class differ."""
    names = []
    for f in dataclasses.fields(a):
        left, right = getattr(a, f.name), getattr(b, f.name)
        if dataclasses.is_dataclass(left):
            names += differences(left, right, f"{prefix}{f.name}.")
        elif left != right:
            names.append(prefix + f.name)
    return names


def value_at(config: Any, name: str) -> Any:
    """Return the value of a field by its name, such as ``ppo.clip``."""
    return functools.reduce(getattr, name.split("."), config)
