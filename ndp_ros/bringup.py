"""Which processes with which parameters: one description for launch files and for ``ndp sim``.

Everything that can be known to be wrong is found before anything is started
(:func:`preflight`); after that the description is plain data (:func:`simulation`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ndp_ros.config import Parameter, from_mapping, param, parameters, to_mapping
from ndp_ros.domain import claim_node, domain_id
from ndp_ros.errors import CheckpointError, ConfigError
from ndp_ros.paths import find_checkpoint
from ndp_ros.streaming.config import RuntimeConfig

if TYPE_CHECKING:
    from ndp_ros.checkpoint import Checkpoint

INTEGRATOR, POLICY, OBJECTS = "integrator_node", "policy_node", "objects_node"
THROW, VIEWER = "throw_node", "viewer_node"
NODES = (INTEGRATOR, POLICY, THROW)

_TASKS = ("throw", "throw-gen3")
"""Tasks that can be watched and judged here; each has the name of its scene."""
_INSTALL = "run `make setup`, or pip install 'ndp_ros[sim,train]'"
_PROBE_TIMEOUT = 60.0
_NAMESPACE = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True)
class SimConfig:
    """Arguments of ``ndp sim`` and of ``launch/sim.launch.py``."""

    checkpoint: str = param(
        "jaco_throw", doc="Checkpoint folder, or the name of one that ships with the package."
    )
    rate: float = param(
        1000.0, doc="Ticks of the streaming loop per second.", unit="Hz", minimum=500, maximum=5000
    )
    throws: int = param(
        10, doc="Throws to make; 0 brings the system up until it is ended by hand.", minimum=0,
        maximum=100000,
    )  # fmt: skip
    viewer: bool = param(False, doc="Show the simulation in a window; needs a screen.")
    record: bool = param(True, doc="Write a video and a plot once all throws are made.")
    seed: int = param(
        0, doc="Start state of the first throw; each next throw adds 1.", minimum=0,
        maximum=2**31 - 1,
    )  # fmt: skip
    out: str = param("out", doc="Folder for video, plot and results.")
    namespace: str = param("", doc="Namespace of all nodes and topics, such as left; empty: none.")

    def __post_init__(self) -> None:
        """Check the namespace."""
        require_namespace(self.namespace)


@dataclass(frozen=True)
class ProcessSpec:
    """One process of a running system."""

    name: str
    """Name of the node and of its executable in ``lib/ndp_ros``."""
    parameters: Mapping[str, Any]
    """ROS parameters by name."""
    ends_system: bool = False
    """Whether the system is done when this process ends by itself."""
    respawn: bool = False
    """Whether it is started again when it dies."""
    optional: bool = False
    """Whether the system goes on without it."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables for this process alone: what must stand on no command line."""
    remappings: tuple[tuple[str, str], ...] = ()
    """Names of topics that are others in this process."""
    namespace: str = ""
    """Namespace of the node; empty for none."""

    @property
    def command(self) -> list[str]:
        """The command line that starts this process without ``ros2 run``."""
        arguments = [
            part
            for name, value in self.parameters.items()
            for part in ("-p", f"{name}:={json.dumps(value)}")
        ]
        arguments += [part for old, new in self.remappings for part in ("-r", f"{old}:={new}")]
        if self.namespace:
            arguments += ["-r", f"__ns:=/{self.namespace.strip('/')}"]
        return [sys.executable, "-m", f"ndp_ros.nodes.{self.name}", "--ros-args", *arguments]


def environment() -> dict[str, str]:
    """Return what the processes' environment gets unless it is set already."""
    return {
        # No node answers to other machines unless somebody asks for that.
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        # Nothing that a killed node could leave behind in /dev/shm.
        "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4",
        # Several threads for products of a few thousand numbers only wait for each other.
        **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")},
    }


def simulation(config: SimConfig, saved: Checkpoint) -> list[ProcessSpec]:
    """Return the processes of the simulated system.

    Args:
        config: The arguments.
        saved: The checkpoint that ``config`` names.
    """
    folder = str(find_checkpoint(config.checkpoint))
    arguments = task_arguments(saved)
    scene = saved.spec.task + ("-moving" if arguments.get("moving_bin") else "")
    runtime = RuntimeConfig.named("default", rate=config.rate)
    specs = [
        ProcessSpec(
            INTEGRATOR,
            {
                "hardware": "mujoco", "arm": saved.spec.arm, "task": scene,
                "command_mode": "torque", "seed": config.seed, **to_mapping(runtime),
            },
        ),
        ProcessSpec(
            POLICY,
            {
                "checkpoint": folder, "arm": saved.spec.arm,
                "max_observation_age": runtime.max_parameter_age,
            },
            respawn=True,
        ),
    ]  # fmt: skip
    if config.viewer:
        specs.append(ProcessSpec(VIEWER, {"checkpoint": folder}, optional=True))
    if config.throws:
        values = {
            "checkpoint": folder, "throws": config.throws, "seed": config.seed,
            "record": config.record, "out": str(Path(config.out).absolute()),
        }  # fmt: skip
        specs.append(ProcessSpec(THROW, values, ends_system=True))
    return [replace(spec, namespace=config.namespace) for spec in specs]


def task_arguments(saved: Checkpoint) -> dict[str, Any]:
    """Return the keyword arguments of the task that a checkpoint was trained on."""
    config = saved.provenance.get("config")
    trained = config if isinstance(config, dict) else {}
    arguments: dict[str, Any] = {"k": saved.spec.k, "scene": saved.spec.task}
    if preset := trained.get("preset"):
        arguments["preset"] = str(preset)
    for option in trained.get("task_options") or ():
        name, _, value = str(option).partition("=")
        arguments[name] = yaml.safe_load(value)
    return arguments


def preflight(config: SimConfig) -> Checkpoint:
    """Find what would go wrong, before anything is started, and return the checkpoint.

    Raises:
        ConfigError: If ROS is missing, the domain is not valid or in use, or the output
            folder cannot be written.
        CheckpointError: If the checkpoint is missing, damaged, or for something else.
    """
    saved = require_checkpoint(config.checkpoint)
    if saved.spec.task not in _TASKS:
        raise CheckpointError.choice(f"{config.checkpoint}: task", saved.spec.task, _TASKS)
    require_modules()
    if config.viewer and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ConfigError("viewer needs a screen: neither DISPLAY nor WAYLAND_DISPLAY is set")
    if config.throws:
        _require_writable(Path(config.out))
    require_free_domain(config.namespace)
    return saved


def require_checkpoint(name: str) -> Checkpoint:
    """Return a checkpoint that a policy node can run.

    Raises:
        CheckpointError: If it is missing, damaged, no NDP or for other joints.
    """
    from ndp_ros import checkpoint
    from ndp_ros.arms.arm import ArmConfig

    saved = checkpoint.load(find_checkpoint(name))
    if saved.spec.method != "ndp":
        raise CheckpointError(
            f"{name} holds method {saved.spec.method!r}: only 'ndp' yields DMP parameters"
        )
    saved.require_arm(saved.spec.arm, ArmConfig.named(saved.spec.arm).joint_names)
    return saved


def require_modules(*more: tuple[str, str]) -> None:
    """Check that every Python module is there that the processes need.

    Args:
        more: Modules beside the usual ones, each with how to get it.

    Raises:
        ConfigError: If one is missing; the message says how to get it.
    """
    for module, remedy in (
        ("rclpy", "install ROS 2 and source its setup.bash, or run `make setup`"),
        ("ndp_interfaces", "build the workspace with colcon, or `pip install ./interfaces`"),
        ("mujoco", _INSTALL),
        ("pinocchio", _INSTALL),
        ("torch", _INSTALL),
        *more,
    ):
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f"the Python module {module} is missing: {remedy}")


def require_free_domain(namespace: str = "") -> None:
    """Check that no system like this one runs in a namespace of this ROS domain.

    Args:
        namespace: Of the system that is to start; those in others are left alone.

    Raises:
        ConfigError: If one does, or if ``ROS_DOMAIN_ID`` is not valid.
    """
    domain, space = domain_id(), f"/{namespace.strip('/')}".rstrip("/")
    claim_node(f"{space}/{INTEGRATOR}").close()
    # A node on another machine of the domain holds no claim here.
    running = sorted(set(_listen()) & {f"{space}/{name}" for name in NODES})
    if running:
        raise ConfigError(
            f"ROS domain {domain} is in use: {', '.join(running)} run there already; end them, "
            "give this system a namespace, or set ROS_DOMAIN_ID to another number"
        )


def require_namespace(namespace: str) -> None:
    """Check that ROS takes a namespace.

    Raises:
        ConfigError: If it does not.
    """
    if namespace and not _NAMESPACE.fullmatch(namespace):
        raise ConfigError(
            f"namespace is {namespace!r}: expected letters, digits and _ that do not begin with a "
            "digit, parts divided by /, such as left or lab/left"
        )


def _listen() -> list[str]:
    """Return the names of the nodes that show themselves in this domain within a second."""
    probe = subprocess.run(
        [sys.executable, "-m", "ndp_ros.nodes.probe"], capture_output=True, text=True,
        timeout=_PROBE_TIMEOUT, env={**environment(), **os.environ}, check=False,
    )  # fmt: skip
    if probe.returncode != 0:
        problem = (probe.stderr.strip().splitlines() or ["no output"])[-1]
        raise ConfigError(f"ROS 2 does not start here: {problem}")
    names: list[str] = json.loads(probe.stdout)
    return names


def from_text(cls: type[Any], values: Mapping[str, str]) -> Any:
    """Build a configuration from launch arguments, which are all text.

    Raises:
        ConfigError: If a value does not fit.
    """

    def value(p: Parameter) -> Any:
        text = values[p.name]
        return text if p.type is str else yaml.safe_load(text)

    given = {p.name: value(p) for p in parameters(cls) if p.name in values}
    return from_mapping(cls, given)


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out: cannot make the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"out: the folder {folder} cannot be written")
