# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Processes that drive a real arm, or a stand-in for one: for the launch file and ``ndp run``.

As in ``bringup.system``, everything that can be known to be wrong is found before anything
starts. That includes an arm that does not answer, refuses its password or is in fault.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ndp_ros.arms.kortex.config import KortexConfig
from ndp_ros.arms.kortex.credentials import PASSWORD_VARIABLE, USERNAME_VARIABLE, Credentials
from ndp_ros.arms.ros2_control.config import Ros2ControlConfig
from ndp_ros.bringup import checks, system
from ndp_ros.bringup.process import ACTION, INTEGRATOR, OBJECTS, ProcessSpec
from ndp_ros.bringup.system import SimConfig
from ndp_ros.config import changed, fields_of, param, to_mapping
from ndp_ros.errors import ConfigError
from ndp_ros.nodes.surroundings import Surroundings
from ndp_ros.paths import find_checkpoint
from ndp_ros.streaming.config import RuntimeConfig

if TYPE_CHECKING:
    from ndp_ros.checkpoint import Checkpoint

_AUTO = "auto"
_BUILTIN = "builtin"
_COMMAND_MODES = {
    "kortex": "position",
    "mujoco": "torque",
    "mock": "position",
    "ros2_control": "position",
}
_CHECKPOINTS = {"kortex": "gen3_throw"}
_CHECKPOINT = "jaco_throw"
_KORTEX_RATE = 1000.0
"""Commands per second that a Kortex arm takes [Hz]."""
_KORTEX_ARMS = "gen3"
"""Beginning of the name of every arm of the Kortex family."""
_NOT_SIMULATED = ("objects", "close_gripper", "follow_for", "runtime")
"""Arguments without effect on the simulated arm, which has a scene and a loop of its own."""
_ONLY_SIMULATED = ("throws", "seed", "viewer")
"""Arguments without effect on a real arm, whose episodes are started by hand."""
_OWN_STATES = "ndp/joint_states"
"""Topic of this system's joint states beside those of a joint_state_broadcaster."""


@dataclass(frozen=True)
class HardwareConfig(SimConfig):
    """Options of ``ndp run`` and of ``launch/jaco_throw.launch.py``.

    They are those of the simulation, and those of an arm: the same system runs on either, and
    ``hardware`` says on which.
    """

    hardware: str = param(
        _AUTO,
        doc="Backend of the arm; auto is kortex with a robot_ip and mujoco without.",
        choices=(_AUTO, *_COMMAND_MODES),
    )
    command_mode: str = param(
        _AUTO,
        doc="Commands of the arm; auto is torque in MuJoCo and position elsewhere.",
        choices=(_AUTO, "position", "torque"),
    )
    checkpoint: str = param(
        "",
        doc="Checkpoint folder, or the name of one that ships; empty: gen3_throw for a Kortex arm "
        "and jaco_throw otherwise.",
    )
    password: str = param(
        "",
        doc="Password of a Kortex arm. Others can read a command line: prefer credentials_file or "
        "NDP_KORTEX_PASSWORD.",
    )
    objects: str = param(
        "config",
        doc="Source of object poses on hardware: config/surroundings, or topics published by "
        "perception.",
        choices=("config", "topics"),
    )
    close_gripper: bool = param(
        True,
        doc="Close the gripper on the object that the task holds when the arm is reached; grip "
        "says otherwise.",
    )
    follow_for: float = param(
        2.2,
        doc="Length of a motion; 0: until hold is called.",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
    )
    runtime: str = param(
        "hardware",
        doc="Parameters of the loop and of its guard: a name in config/runtime, or a file.",
    )
    record: str = system.record_param("none")
    kortex: KortexConfig = param(KortexConfig(), doc="A Kortex arm.")
    ros2_control: Ros2ControlConfig = param(Ros2ControlConfig(), doc="An arm of ros2_control.")

    @property
    def backend(self) -> str:
        """The name of the arm's backend."""
        if self.hardware != _AUTO:
            return self.hardware
        return "kortex" if self.kortex.robot_ip else "mujoco"

    @property
    def mode(self) -> str:
        """The command mode of the arm."""
        return _COMMAND_MODES[self.backend] if self.command_mode == _AUTO else self.command_mode

    @property
    def dry_run(self) -> bool:
        """Whether the arm is read but gets no command."""
        return self.kortex.dry_run or self.ros2_control.dry_run


def notice(config: HardwareConfig) -> str:
    """Return one line on the arm that is going to be driven."""
    backend = config.backend
    dry = ", DRY RUN: no command is sent" if config.dry_run else ""
    if backend == "kortex":
        where = f"{config.kortex.robot_ip}:{config.kortex.port}"
        how = "" if config.kortex.driver == _BUILTIN else " through kortex_api"
        return f"a real arm at {where} is driven by {config.mode} at {config.rate:g} Hz{how}{dry}"
    if backend == "mujoco":
        why = "" if config.hardware != _AUTO else "no robot_ip: "
        return f"{why}the simulated arm (MuJoCo) is driven, no real one"
    if backend == "mock":
        return "an ideal arm without physics (mock) is driven, no real one"
    return f"the controllers of ros2_control are driven by {config.mode} at {config.rate:g} Hz{dry}"


def processes(config: HardwareConfig) -> list[ProcessSpec]:
    """Check everything and return the processes to start.

    Raises:
        ConfigError: If arguments do not fit together, ROS is missing, or the domain is in use.
        CheckpointError: If the checkpoint is missing, damaged, or for another arm.
        ArmError: If the arm does not answer, refuses the credentials, or is in fault.
    """
    backend = config.backend
    _require_use(config)
    name = config.checkpoint or _CHECKPOINTS.get(backend, _CHECKPOINT)
    if backend == "mujoco":
        simulated = replace(config, checkpoint=name)
        return system.simulation(simulated, system.preflight(simulated))
    saved = checks.require_checkpoint(name)
    arm = checks.find_arm(config.arm, saved)
    surroundings = Surroundings.named(saved.spec.task) if config.objects == "config" else None
    checks.require_modules()
    system.require_extras(config)
    checks.require_free_domain(config.namespace)
    # An arm in dry run does not follow its setpoint.
    dry = {"on_following_error": "count"} if config.dry_run else {}
    runtime = RuntimeConfig.named(config.runtime, rate=config.rate, **dry)
    grip = None
    if surroundings is not None and surroundings.held and config.close_gripper:
        grip = surroundings.grip
    settings: KortexConfig | Ros2ControlConfig | None = None
    environment: dict[str, str] = {}
    if backend == "kortex":
        _require_kortex(config, name, saved)
        settings, environment = kortex_settings(config, grip, runtime.feedback_timeout)
        if config.kortex.driver != _BUILTIN:
            from ndp_ros.arms.kortex import vendor

            vendor.require(environment)
        _reach(config, arm)
    elif backend == "ros2_control":
        given = config.ros2_control
        settings = replace(given, grip=grip if given.grip is None else given.grip)
    integrator = {
        "hardware": backend,
        "arm": arm,
        "task": "",
        "command_mode": config.mode,
        "follow_for": config.follow_for,
        **to_mapping(runtime),
        **(changed(settings) if settings is not None else {}),
    }
    return _nodes(config, name, saved, integrator, environment)


def _require_use(config: HardwareConfig) -> None:
    """Refuse arguments that have no effect on the backend.

    Raises:
        ConfigError: If one is given, or the address of a Kortex arm is missing.
    """
    backend = config.backend
    if backend in ("mujoco", "mock") and config.dry_run:
        raise ConfigError(f"dry_run is for a real arm; {backend} is none")
    sections = {"kortex": config.kortex, "ros2_control": config.ros2_control}
    own = {p.name for p in fields_of(type(sections[backend]))} if backend in sections else set()
    for section, settings in sections.items():
        for name in changed(settings):
            if section != backend and name not in own:
                raise ConfigError(f"{name} is for hardware:={section}, not for {backend}: omit it")
    if config.password and backend != "kortex":
        raise ConfigError(f"password is for hardware:=kortex, not for {backend}: omit it")
    if backend == "kortex" and not config.kortex.robot_ip:
        raise ConfigError("robot_ip is missing: give the address of the arm, such as 192.168.1.10")
    if backend == "mujoco" and config.mode != "torque":
        raise ConfigError("the simulated arm takes torques only: omit command_mode")
    if backend != "mujoco" and config.record in ("video", "all"):
        raise ConfigError(f"record is {config.record}: hardware:={backend} takes none or mcap")
    useless = _NOT_SIMULATED if backend == "mujoco" else _ONLY_SIMULATED
    for name in useless:
        if name in changed(config):
            remedy = ", or give the robot_ip of a real one" if backend == "mujoco" else ""
            arm = "the simulated arm" if backend == "mujoco" else f"hardware:={backend}"
            raise ConfigError(f"{name} has no effect on {arm}: omit it{remedy}")


def _nodes(
    config: HardwareConfig,
    name: str,
    saved: Checkpoint,
    integrator: dict[str, Any],
    environment: dict[str, str],
) -> list[ProcessSpec]:
    """Return the nodes of a system that drives an arm."""
    arm = integrator["arm"]
    broadcast = config.backend == "ros2_control"
    remappings = (("joint_states", _OWN_STATES),) if broadcast else ()
    policy = {"checkpoint": str(find_checkpoint(name)), "arm": saved.spec.arm}
    specs = [
        ProcessSpec(INTEGRATOR, integrator, environment=environment, remappings=remappings),
        replace(system.driver(config, policy), remappings=remappings),
    ]
    if config.objects == "config":
        seen = {"arm": arm, "task": saved.spec.task}
        specs.append(ProcessSpec(OBJECTS, seen, respawn=True, remappings=remappings))
    goals = {"checkpoint": policy["checkpoint"]}
    specs.append(ProcessSpec(ACTION, goals, respawn=True, remappings=remappings))
    for spec in system.shown(config, arm, {"checkpoint": policy["checkpoint"]}):
        specs.append(replace(spec, remappings=remappings))
    return system.completed(config, specs)


def _require_kortex(config: HardwareConfig, name: str, saved: Checkpoint) -> None:
    """Check that a Kortex arm takes the rate and the checkpoint.

    Raises:
        ConfigError: If it does not.
    """
    if config.rate > _KORTEX_RATE:
        raise ConfigError(
            f"rate is {config.rate:g}: a Kortex arm takes {_KORTEX_RATE:g} commands per second"
        )
    if not saved.spec.arm.startswith(_KORTEX_ARMS):
        raise ConfigError(
            f"{name} was trained for the arm {saved.spec.arm}, which Kortex does not drive: "
            "choose a checkpoint for the arm that is there, such as gen3"
        )


def kortex_settings(
    config: HardwareConfig, grip: float | None, feedback_timeout: float
) -> tuple[KortexConfig, dict[str, str]]:
    """Return the settings of the integrator's Kortex arm, and the variables of its process.

    User name and password travel as variables: no command line or parameter holds them. The grip
    [rad] is that of the object that the task holds; the guard counts older feedback [s] as lost.
    """
    who, given = credentials(config), config.kortex
    settings = replace(
        given,
        grip=grip if given.grip is None else given.grip,
        username="",
        credentials_file="",
        # The guard names lost feedback; the client gives the arm up no earlier.
        unreachable_after=max(given.unreachable_after, feedback_timeout),
    )
    variables = {USERNAME_VARIABLE: who.username, PASSWORD_VARIABLE: who.password}
    if settings.driver != _BUILTIN:
        from ndp_ros.arms.kortex import vendor

        variables |= vendor.environment()
    return settings, variables


def credentials(config: HardwareConfig) -> Credentials:
    """Return the credentials: of the arguments, then of the file, then of the environment."""
    kortex = config.kortex
    return Credentials.find(kortex.username, config.password, kortex.credentials_file)


def _reach(config: HardwareConfig, arm_file: str) -> None:
    """Log in at the arm, look at its state and log out; the arm is not taken.

    This package's own client does it, whichever client will drive.

    Raises:
        ArmError: If it cannot be driven now; the message says what to do.
    """
    from ndp_ros.arms.kortex.arm import KortexArm
    from ndp_ros.control.arm import ArmConfig

    settings = replace(config.kortex, driver=_BUILTIN, grip=None)
    robot = ArmConfig.named(arm_file)
    arm = KortexArm(robot, settings, config.rate, credentials(config))
    try:
        arm.connect()
    finally:
        arm.close()
