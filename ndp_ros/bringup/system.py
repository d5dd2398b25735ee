# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Options and processes of the simulated system, for the launch file and ``ndp sim``.

A system that cannot run is refused before anything starts (:func:`preflight`); after that its
description is plain data (:func:`simulation`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_ros.bringup import checks, process
from ndp_ros.bringup.process import ProcessSpec
from ndp_ros.config import param, to_mapping
from ndp_ros.paths import find_checkpoint, share
from ndp_ros.streaming.config import RuntimeConfig

if TYPE_CHECKING:
    from ndp_ros.checkpoint import Checkpoint


RECORDS = ("none", "video", "mcap", "all")


def record_param(default: str) -> Any:
    """Return the option ``record`` of a system."""
    return param(
        default,
        doc="What to write: video is recordings, plots, film and contact sheet after the last "
        "episode, mcap a bag of every topic, all is both.",
        choices=RECORDS,
    )


@dataclass(frozen=True)
class SimConfig:
    """Options of ``ndp sim`` and of ``launch/sim.launch.py``."""

    checkpoint: str = param(
        "jaco_throw", doc="Checkpoint folder, or the name of one that ships with the package."
    )
    policy: str = param(
        "checkpoint",
        doc="Driver of the arm: the checkpoint, or chunks of way points on ndp/chunk; the "
        "checkpoint then only names arm and scene, and there are no episodes.",
        choices=("checkpoint", "chunks"),
    )
    rate: float = param(
        1000.0, doc="Ticks of the streaming loop per second.", unit="Hz", minimum=100, maximum=5000
    )
    throws: int = param(
        10,
        doc="Episodes to run in simulation, such as throws; 0 only brings the system up.",
        minimum=0,
        maximum=100000,
    )
    viewer: bool = param(False, doc="Show the simulation in a window; needs a screen.")
    record: str = record_param("video")
    seed: int = param(
        0,
        doc="Start state of the first episode; each next episode adds 1.",
        minimum=0,
        maximum=2**31 - 1,
    )
    arm: str = param(
        "", doc="Name or file of the arm, where it is another one than in the training."
    )
    out: str = param("out", doc="Folder for video, plot and results of the episodes.")
    namespace: str = param("", doc="Namespace of all nodes and topics, such as left; empty: none.")
    prefix: str = param("", doc="Begins the name of every joint and link in ROS, such as left_.")
    use_sim_time: bool = param(
        False, doc="Keep simulated time, on /clock: the simulated arm publishes its own."
    )
    params_file: str = param(
        "", doc="YAML file with parameters of the nodes, which replace those of this launch."
    )
    log_level: str = param(
        "",
        doc="Lowest level of what the nodes log; empty: the default.",
        choices=("", *process.LOG_LEVELS),
    )
    describe: bool = param(
        True, doc="Publish the robot description, TF and markers, for RViz and Foxglove."
    )
    launch_rviz: bool = param(False, doc="Show arm, objects and planned paths in RViz.")

    def __post_init__(self) -> None:
        """Check the names and the parameter file."""
        checks.require_namespace(self.namespace)
        checks.require_prefix(self.prefix)
        if self.params_file:
            checks.require_params_file(Path(self.params_file))

    @property
    def episodes(self) -> int:
        """Number of simulated episodes."""
        return self.throws if self.policy == "checkpoint" else 0


def simulation(config: SimConfig, saved: Checkpoint) -> list[ProcessSpec]:
    """Return the processes of the simulated system."""
    from ndp_ros.control.arm import arm_reference
    from ndp_ros.nodes.task import over_options, task_of

    folder = str(find_checkpoint(config.checkpoint))
    runtime = RuntimeConfig.named("simulation", rate=config.rate)
    options, record = _options(config), saved.trained_on()
    with closing(task_of(saved, options)) as task:
        integrator = {
            "hardware": "mujoco",
            "arm": arm_reference(task.arm_file),
            "task": record.task,
            "task_options": [
                f"k={saved.spec.k}",
                *([f"preset={record.preset}"] if record.preset else []),
                *over_options(list(record.task_options), options),
            ],
            "command_mode": task.command_mode,
            "seed": config.seed,
            "signals": sum(task.signals.values()),
            **({"objects": list(task.objects)} if task.objects else {}),
            **to_mapping(runtime),
        }
    policy = {
        "checkpoint": folder,
        "arm": saved.spec.arm,
        "max_observation_age": runtime.max_parameter_age,
    }
    scene = {"checkpoint": folder, **({"task_options": options} if options else {})}
    specs = [
        ProcessSpec(process.INTEGRATOR, integrator),
        driver(config, policy),
        *shown(config, integrator["arm"], scene),
    ]
    if config.viewer:
        specs.append(ProcessSpec(process.VIEWER, scene, optional=True))
    if config.episodes:
        values = {
            **scene,
            "episodes": config.episodes,
            "seed": config.seed,
            "record": config.record in ("video", "all"),
            "out": str(Path(config.out).absolute()),
        }
        specs.append(ProcessSpec(process.EPISODE, values, ends_system=True))
    else:
        specs.append(ProcessSpec(process.ACTION, scene, respawn=True))
    return completed(config, specs)


def shown(config: SimConfig, arm: str, scene: Mapping[str, Any]) -> list[ProcessSpec]:
    """Return the processes that show an arm, and the scene that parameters name, to users."""
    from ndp_ros.control.arm import ArmConfig

    space = config.namespace.strip("/")
    # Two arms without a prefix have links of the same names.
    frames = f"{space}/" if space and not config.prefix else ""
    specs = []
    if config.describe and ArmConfig.named(arm).model:
        values = {"arm": arm, **scene, "frame_prefix": frames}
        specs.append(ProcessSpec(process.DESCRIPTION, values, optional=True))
    if config.record in ("mcap", "all"):
        bag = Path(config.out).absolute() / f"bag_{time.strftime('%Y%m%d_%H%M%S')}"
        specs.append(ProcessSpec(process.RECORD, {"bag": str(bag)}, optional=True))
    if config.launch_rviz:
        seen = str(share("config/ndp.rviz")), "-f", f"{frames}{config.prefix}base"
        specs.append(ProcessSpec(process.RVIZ, {}, optional=True, arguments=("-d", *seen)))
    return specs


def completed(config: SimConfig, specs: Sequence[ProcessSpec]) -> list[ProcessSpec]:
    """Return processes with what all of them have in common."""
    names = {"prefix": config.prefix} if config.prefix else {}
    clock = {"use_sim_time": True} if config.use_sim_time else {}
    nameless = process.CHUNKS, process.RECORD, process.RVIZ
    file = str(Path(config.params_file).absolute()) if config.params_file else ""
    return [
        replace(
            spec,
            namespace=config.namespace,
            log_level=config.log_level,
            params_file=file if spec.name != process.RVIZ else "",
            parameters={**spec.parameters, **(names if spec.name not in nameless else {}), **clock},
        )
        for spec in specs
    ]


def driver(config: SimConfig, policy: Mapping[str, Any]) -> ProcessSpec:
    """Return the process whose segments drive the arm."""
    if config.policy == "chunks":
        return ProcessSpec(process.CHUNKS, {}, respawn=True)
    return ProcessSpec(process.POLICY, policy, respawn=True)


def preflight(config: SimConfig) -> Checkpoint:
    """Check that the simulated system can run, and return its checkpoint.

    Raises:
        ConfigError: If the ROS domain is not valid or in use, or as :func:`checked`.
        CheckpointError: As :func:`checked`.
        TaskError: As :func:`checked`.
    """
    # Importing and making the task takes about as long as listening.
    with checks.listening(config.namespace) as require_free:
        saved = checked(config)
        require_free()
    return saved


def checked(config: SimConfig) -> Checkpoint:
    """Check all but the ROS domain, and return the checkpoint.

    Raises:
        ConfigError: If ROS is missing, or the output folder cannot be written.
        CheckpointError: If the checkpoint is missing, damaged, or for another arm.
        TaskError: If its task cannot be made, or has no simulated arm.
    """
    from ndp_ros.nodes.task import task_of

    saved = checks.require_checkpoint(config.checkpoint)
    checks.require_modules()
    with closing(task_of(saved, _options(config))) as task:
        saved.require_arm(task.arm, task.joint_names)
    require_extras(config)
    if config.episodes:
        checks.require_writable(Path(config.out))
    return saved


def _options(config: SimConfig) -> list[str]:
    """Return the options of the task over those of the training."""
    from ndp_ros.control.arm import arm_reference

    return [f"arm={arm_reference(config.arm)}"] if config.arm else []


def require_extras(config: SimConfig) -> None:
    """Check that windows can open and a bag can be written, where they are asked for.

    Raises:
        ConfigError: If there is no screen, no RViz, no rosbags or no folder.
    """
    if config.record in ("mcap", "all"):
        checks.require_modules(("rosbags", "pip install 'ndp_ros[bag]'"))
        checks.require_writable(Path(config.out))
    if config.viewer:
        checks.require_screen("viewer")
    if config.launch_rviz:
        checks.require_screen("launch_rviz")
        checks.require_program(process.RVIZ, "install ros-$ROS_DISTRO-rviz2")
