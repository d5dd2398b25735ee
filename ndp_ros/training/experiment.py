"""What a training run is: its configuration, its policy and where it comes from."""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium

from ndp_ros import __version__
from ndp_ros.config import from_mapping, param, read_yaml
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError, TaskError
from ndp_ros.paths import share_roots
from ndp_ros.policies.spec import WEIGHTS, PolicySpec
from ndp_ros.training.environment import TaskChoice, TaskEnvironment
from ndp_ros.training.ppo import PpoConfig

METHODS = {
    "ndp": "ndp",
    "ppo": "ppo",
    "ppo-multi": "ppo-multi",
    "bc-ndp": "ndp",
    "bc-nn": "ppo-multi",
    "ndp-sac": "ndp",
    "sac": "ppo-multi",
    "vices": "ppo",
    "vices-pos": "ppo",
    "vices-low-freq": "ppo",
    "dyn-e": "bounded",
}
"""What a method trains: the kind of policy, ``PolicySpec.method``, by name."""

IMPEDANCE = {"vices": "joints", "vices-pos": "hand", "vices-low-freq": "joints"}
"""Coordinates of the impedance that a method's actions control."""

CLONES = ("bc-ndp", "bc-nn")
"""Methods that learn from demonstrations."""
LEARN_ALONE = (*CLONES, "ndp-sac", "sac", "dyn-e")
"""Methods that do not learn by PPO."""

_IN_WINDOWS = ("ndp", "ppo-multi")
_FOLDERS = ("--out", "--runs")
_VERSIONS = ("numpy", "mujoco", "pin", "gymnasium", "torch", "safetensors")


@dataclass(frozen=True)
class ImitationConfig:
    """Hyper-parameters of behaviour cloning, section 3.3."""

    passes: int = param(200, doc="Passes over the demonstrations.", minimum=1)
    windows_per_step: int = param(64, doc="Windows per gradient step.", minimum=1)
    step_size: float = param(1e-3, doc="Step size of Adam.", minimum=0.0)
    decay: bool = param(False, doc="Let the step size fall to zero over the passes, by a line.")
    holdout: float = param(
        0.1, doc="Part of the episodes that is only measured.", minimum=0.0, maximum=0.9
    )
    only_successful: bool = param(True, doc="Leave out episodes that failed.")


@dataclass(frozen=True)
class SacConfig:
    """Hyper-parameters of the off-policy methods."""

    collect: int = param(640, doc="Control steps between rounds of learning.", minimum=1)
    warm_up: int = param(5000, doc="Control steps before learning starts.", minimum=0)
    memory: int = param(100_000, doc="Windows that are remembered.", minimum=1)
    steps_per_window: float = param(
        1.0, doc="Gradient steps per window collected.", minimum=0.0, maximum=100.0
    )
    replay_batch: int = param(256, doc="Windows per gradient step.", minimum=1)
    actor_rate: float = param(3e-4, doc="Step size of actor and temperature.", minimum=0.0)
    critic_rate: float = param(1e-3, doc="Step size of the critics.", minimum=0.0)
    critic_hidden: tuple[int, ...] = param((256, 256), doc="Hidden layers of a critic.", minimum=1)
    target_rate: float = param(
        0.005, doc="Part by which target critics follow.", minimum=0.0, maximum=1.0
    )
    entropy_per_action: float = param(
        -1.0, doc="Target entropy of one joint's displacement, in units of its bound."
    )


@dataclass(frozen=True)
class DynEConfig:
    """Hyper-parameters of Dyn-E on top of those of the off-policy methods."""

    random_steps: int = param(100_000, doc="Control steps of random motion.", minimum=1)
    embedding_size: int = param(
        0, doc="Dimensions of the embedding; 0: as many as joints.", minimum=0, maximum=1000
    )
    embedding_hidden: int = param(400, doc="Width of its networks' two hidden layers.", minimum=1)
    embedding_steps: int = param(4000, doc="Gradient steps of encoder and model.", minimum=1)
    decoder_steps: int = param(10_000, doc="Gradient steps of the decoder.", minimum=1)
    embedding_batch: int = param(128, doc="Windows per gradient step of either.", minimum=2)
    embedding_rate: float = param(1e-4, doc="Step size of either.", minimum=0.0)
    information_cost: float = param(1e-4, doc="beta, weight of the KL.", minimum=0.0)
    motion_cost: float = param(1e-4, doc="lambda, weight of the decoder's motion.", minimum=0.0)
    exploration: float = param(
        0.1, doc="Deviation of exploration, in units of the largest embedded action.", minimum=1e-6
    )
    target_noise: float = param(
        0.2, doc="Deviation of the target actor's noise, in the same units and over k.",
        minimum=0.0,
    )  # fmt: skip
    target_clip: float = param(
        0.5, doc="Largest noise of the target actor, as embedded.", minimum=0.0
    )
    actor_every: int = param(2, doc="Critics' steps per step of the actor.", minimum=1)


@dataclass(frozen=True)
class RunConfig:
    """A training run; with its seed it decides every number of the result."""

    task: str = param("throw", doc="Task: a short name or a gymnasium id (module:id).")
    method: str = param("ndp", doc="What is trained, and how.", choices=tuple(METHODS))
    seed: int = param(0, doc="Seed of everything random.", minimum=0, maximum=2**63 - 1)
    samples: int = param(600_000, doc="Control steps to train on.", minimum=1)
    preset: str = param("default", doc="Preset of the task; empty for a task without presets.")
    task_options: tuple[str, ...] = param((), doc="Further options of the task, name=value.")
    k: int = param(
        5, doc="Control steps per forward pass; ppo, vices and vices-pos have 1.",
        minimum=1, maximum=1000,
    )  # fmt: skip
    environments: int = param(16, doc="Environments that collect at a time.", minimum=1)
    workers: int = param(0, doc="Processes that step them; 0: one per core.", minimum=0)
    hidden: tuple[int, ...] = param((100, 100), doc="Hidden layer sizes.", minimum=1)
    critic_heads: str = param(
        "multi", doc="k value heads (section 3.4) or one.", choices=("multi", "single")
    )
    goal_gain: float = param(0.25, doc="g = y0 + goal_gain * output.", unit="rad", minimum=0.0)
    weight_gain: float = param(50.0, doc="w = weight_gain * output.", minimum=0.0)
    weights: str = param(
        "raw", doc="Outputs are weights, or amounts of orthogonal curves.", choices=WEIGHTS
    )
    learned_alpha: bool = param(False, doc="An NDP also yields the alpha of each segment.")
    init_log_std: float = param(
        0.0, doc="Initial log standard deviation of actions.", minimum=-10.0, maximum=5.0
    )
    final_log_std: float | None = param(
        None, doc="Log deviation at the end, approached linearly; without it, it is learnt.",
        minimum=-10.0, maximum=5.0,
    )  # fmt: skip
    checkpoint_every: int = param(
        10, doc="Batches between checkpoints; each starts new episodes.", minimum=1
    )
    evaluation_episodes: int = param(
        32, doc="Deterministic episodes per checkpoint; 0: none.", minimum=0
    )
    demonstrations: str = param("", doc="File of demonstrations, for bc-ndp and bc-nn.")
    start_from: str = param(
        "", doc="Checkpoint, or name of one that ships, whose numbers PPO starts with."
    )
    ppo: PpoConfig = param(PpoConfig(), doc="Hyper-parameters of PPO.")
    dmp: DmpConfig = param(DmpConfig(), doc="Dynamical system of an NDP.")
    sac: SacConfig = param(SacConfig(), doc="Hyper-parameters of the off-policy methods.")
    bc: ImitationConfig = param(ImitationConfig(), doc="Hyper-parameters of imitation.")
    dyne: DynEConfig = param(DynEConfig(), doc="Hyper-parameters of Dyn-E.")

    def __post_init__(self) -> None:
        """Check that what is asked for has something to act on."""
        correlation = self.ppo.noise_correlation
        if correlation and self.method not in _IN_WINDOWS:
            raise ConfigError(
                f"noise_correlation is {correlation:g}, which {self.method} does not have: it is "
                f"for methods that explore in windows ({', '.join(_IN_WINDOWS)})"
            )
        by_ppo = [name for name in METHODS if name not in LEARN_ALONE]
        for field, methods in (("start_from", by_ppo), ("demonstrations", CLONES)):
            value = getattr(self, field)
            if value and self.method not in methods:
                raise ConfigError(
                    f"{field} is {value!r}, of which {self.method} makes no use: leave it out, or "
                    f"choose a method that does ({', '.join(methods)})"
                )

    @property
    def policy(self) -> str:
        """Kind of policy that is trained."""
        return METHODS[self.method]

    @property
    def choice(self) -> TaskChoice:
        """The task as a worker process is given it."""
        once = self.policy == "ppo" and self.method != "vices-low-freq"
        impedance = IMPEDANCE.get(self.method, "")
        return TaskChoice(
            self.task, 1 if once else self.k, self.preset, self.task_options, impedance
        )

    @property
    def processes(self) -> int:
        """Number of worker processes."""
        cores = len(os.sched_getaffinity(0))
        return min(self.workers or cores, self.environments)

    @property
    def windows(self) -> int:
        """Windows per environment and batch, so that a batch has ``batch_size`` or just above."""
        return -(-self.ppo.batch_size // (self.environments * self.choice.k))

    @property
    def samples_per_batch(self) -> int:
        """Control steps of a batch, all environments."""
        return self.windows * self.environments * self.choice.k

    @property
    def batches(self) -> int:
        """Number of batches of the run."""
        return -(-self.samples // self.samples_per_batch)

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        task = re.split("[/:]", self.task)[-1]
        return f"{task}-{self.method}-{self.seed}"


NESTED = {
    "ppo": PpoConfig, "dmp": DmpConfig, "sac": SacConfig, "bc": ImitationConfig,
    "dyne": DynEConfig,
}  # fmt: skip
"""Configurations inside a :class:`RunConfig`, by field."""


def shipped(task: str, method: str, also: str = "") -> RunConfig:
    """Return the configuration that ships for a task and method.

    Args:
        task: Short name of the task.
        method: What is trained, and how.
        also: Name of a shipped experiment whose values come on top.
    """
    values = {**shipped_values(task, method), "task": task, "method": method}
    if also:
        values = merge(values, _shipped(also), also)
    return from_mapping(RunConfig, values, source=f"{task}-{method}")


def shipped_values(task: str, method: str) -> dict[str, Any]:
    """Return the tuned values that ship for a task and method, none if there are none."""
    return _shipped(f"{task}-{method}")


def _shipped(name: str) -> dict[str, Any]:
    for root in share_roots():
        path = root / "config" / "experiments" / f"{name}.yaml"
        if path.is_file():
            return read_yaml(path)
    return {}


def merge(values: dict[str, Any], over: dict[str, Any], source: str) -> dict[str, Any]:
    """Return values with others on top; nested configurations are merged field by field."""
    merged = {**values, **over}
    for name in NESTED:
        layers = [layer.get(name) or {} for layer in (values, over)]
        if not all(isinstance(layer, dict) for layer in layers):
            raise ConfigError(f"{source}: {name} is {over.get(name)!r}, expected a mapping")
        merged[name] = {**layers[0], **layers[1]}
    return merged


def make_spec(config: RunConfig, env: TaskEnvironment) -> PolicySpec:
    """Return the specification of the policy for an environment.

    Raises:
        ConfigError: If the two do not fit.
        TaskError: If the observation is no vector of numbers.
    """
    space = getattr(env, "observation_space", None)
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise TaskError(
            f"observations of task {config.task} are {space}: every method here takes one vector "
            "of numbers (gymnasium.wrappers.FlattenObservation makes one)"
        )
    return PolicySpec(
        method=config.policy,
        task=config.task,
        arm=env.arm,
        joint_names=tuple(env.joint_names),
        observation=tuple(env.fields),
        control_dt=float(env.control_dt),
        k=env.k,
        action_scale=tuple(float(s) for s in env.action_scale),
        hidden=config.hidden,
        dmp=config.dmp,
        goal_gain=config.goal_gain,
        weight_gain=config.weight_gain,
        weights=config.weights,
        learned_alpha=config.learned_alpha,
        init_log_std=config.init_log_std,
        critic_heads=config.critic_heads,
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
    """Return the value of a field, or of one inside another: ``ppo.clip``."""
    return functools.reduce(getattr, name.split("."), config)


def observed(origin: Mapping[str, Any], spec: PolicySpec) -> int:
    """Return how many different observations a checkpoint has learnt from.

    Args:
        origin: Its provenance.
        spec: Its policy, which knows of one action where one holds for several control steps.
    """
    samples, config = int(origin.get("samples", 0)), origin.get("config") or {}
    method = config.get("method")
    if method in CLONES:
        return samples // (spec.k * int(config["bc"]["passes"]))
    return samples // int(config["k"] if method == "vices-low-freq" else spec.k)


def as_typed(arguments: Sequence[str]) -> str:
    """Return an ``ndp`` command as its records keep it: without the folders it wrote to.

    Those belong to one machine, and the command does the same without them.
    """
    words = ["ndp"]
    skip = False
    for word in arguments:
        if not skip and word.partition("=")[0] not in _FOLDERS:
            words.append(word)
        skip = word in _FOLDERS
    return shlex.join(words)


def provenance() -> dict[str, Any]:
    """Return where results come from: commit, versions and machine."""
    return {
        "ndp_ros": __version__,
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _VERSIONS},
        },
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "architecture": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
        },
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


@functools.cache
def _commit() -> str:
    """Return the commit of the source tree, marked if files differ from it.

    It is asked for once: what changes on the disk while a process runs is not what it runs.
    An installed copy may lie inside a repository that is another project's: that says nothing.
    """
    root = Path(__file__).resolve().parents[2]
    answers = []
    for question in (
        ["rev-parse", "--show-toplevel"], ["describe", "--always", "--abbrev=40", "--dirty"],
    ):  # fmt: skip
        command = ["git", "-C", str(root), *question]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return "unknown"
        answers.append(done.stdout.strip())
    top, commit = answers
    return commit if Path(top).resolve() == root else "unknown"
