"""Which processes drive a real arm, or what stands in for one: for the launch file and ``ndp run``.

As in ``bringup``, everything that can be known to be wrong is found before anything is
started, and that includes an arm that does not answer, refuses its password or is in fault.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_ros.arms.kortex.credentials import PASSWORD_VARIABLE, USERNAME_VARIABLE, Credentials
from ndp_ros.bringup import (
    INTEGRATOR,
    OBJECTS,
    POLICY,
    ProcessSpec,
    SimConfig,
    preflight,
    require_checkpoint,
    require_free_domain,
    require_modules,
    require_namespace,
    simulation,
)
from ndp_ros.config import from_mapping, load, param, parameters, to_mapping
from ndp_ros.errors import ConfigError
from ndp_ros.paths import find_checkpoint
from ndp_ros.streaming.config import RuntimeConfig, options_of
from ndp_ros.surroundings import Surroundings

if TYPE_CHECKING:
    from ndp_ros.checkpoint import Checkpoint

_AUTO = "auto"
_BUILTIN = "builtin"
_COMMAND_MODES = {"kortex": "position", "mujoco": "torque", "mock": "position",
                  "ros2_control": "position"}  # fmt: skip
_CHECKPOINTS = {"kortex": "gen3_throw"}
_CHECKPOINT = "jaco_throw"
_KORTEX_RATE = 1000.0
"""Commands per second that a Kortex arm takes [Hz]."""
_KORTEX_ARMS = "gen3"
"""What the name of every arm of the Kortex family begins with."""
_KORTEX_ONLY = (
    "robot_ip", "username", "password", "credentials_file", "driver", "port", "udp_port",
    "clear_faults",
)  # fmt: skip
"""Arguments that no other backend has a use for."""
_NOT_SIMULATED = ("objects", "follow_for", "runtime", "options")
"""Arguments without effect on the simulated arm, which has a scene and a loop of its own."""
_OWN_STATES = "ndp/joint_states"
"""Where this system publishes joint states beside a broadcaster of its own kind."""


@dataclass(frozen=True)
class HardwareConfig:
    """Arguments of ``launch/jaco_throw.launch.py`` and of ``ndp run``."""

    robot_ip: str = param(
        "",
        doc="Address of a Kortex arm, such as 192.168.1.10. Without one no real arm is driven: the "
        "simulated one is.",
    )
    username: str = param(
        "", doc="User name; else from the file, NDP_KORTEX_USERNAME, or the factory's."
    )
    password: str = param(
        "",
        doc="Password; others can read a command line, so better in the file or in "
        "NDP_KORTEX_PASSWORD.",
    )
    credentials_file: str = param("", doc="YAML file with username and password, mode 600.")
    hardware: str = param(
        _AUTO,
        doc="What is driven; auto is kortex with a robot_ip and mujoco without.",
        choices=(_AUTO, *_COMMAND_MODES),
    )
    driver: str = param(
        _BUILTIN,
        doc="Kortex client: this package's own, or vendor for Kinova's kortex_api where it is "
        "installed.",
        choices=(_BUILTIN, "vendor"),
    )
    command_mode: str = param(
        _AUTO,
        doc="What the arm gets; auto is torque in MuJoCo and position elsewhere.",
        choices=(_AUTO, "position", "torque"),
    )
    rate: float = param(
        1000.0, doc="Commands per second; a Kortex arm takes 1000.", unit="Hz", minimum=100,
        maximum=5000,
    )  # fmt: skip
    checkpoint: str = param(
        "",
        doc="Checkpoint folder, or the name of one that ships; unless given, gen3_throw for a "
        "Kortex arm and jaco_throw else.",
    )
    dry_run: bool = param(False, doc="Read the arm but send it no command.")
    port: int = param(10000, doc="TCP port of a Kortex arm.", minimum=1, maximum=65535)
    udp_port: int = param(10001, doc="UDP port of a Kortex arm.", minimum=1, maximum=65535)
    clear_faults: bool = param(False, doc="Clear the faults of a Kortex arm when connecting.")
    objects: str = param(
        "config",
        doc="Where poses of objects come from on hardware: config/surroundings, or topics that "
        "somebody else publishes.",
        choices=("config", "topics"),
    )
    follow_for: float = param(
        2.2,
        doc="The arm holds again by itself this long after the first segment; 0: when told to.",
        unit="s", minimum=0.0, maximum=3600.0,
    )  # fmt: skip
    runtime: str = param(
        "hardware",
        doc="Parameters of the loop and of its guard: a name in config/runtime, or a file.",
    )
    options: str = param(
        "{}", doc="JSON of what else the backend takes, such as topics of ros2_control."
    )
    throws: int = param(
        10, doc="Throws of the simulated arm; 0 brings it up alone.", minimum=0, maximum=100000
    )
    out: str = param("out", doc="Folder for the results of simulated throws.")
    namespace: str = param("", doc="Namespace of all nodes and topics, such as left; empty: none.")

    def __post_init__(self) -> None:
        """Check the namespace."""
        require_namespace(self.namespace)

    @property
    def backend(self) -> str:
        """The name of the arm's backend."""
        if self.hardware != _AUTO:
            return self.hardware
        return "kortex" if self.robot_ip else "mujoco"

    @property
    def mode(self) -> str:
        """What the arm gets."""
        return _COMMAND_MODES[self.backend] if self.command_mode == _AUTO else self.command_mode


def notice(config: HardwareConfig) -> str:
    """Return what is going to be driven, in one line."""
    backend = config.backend
    if backend == "kortex":
        dry = ", DRY RUN: it gets no command" if config.dry_run else ""
        where = f"{config.robot_ip}:{config.port}"
        how = "" if config.driver == _BUILTIN else " through kortex_api"
        return f"a real arm at {where} is driven by {config.mode} at {config.rate:g} Hz{how}{dry}"
    if backend == "mujoco":
        why = "" if config.hardware != _AUTO else "no robot_ip: "
        return f"{why}the simulated arm (MuJoCo) is driven, no real one"
    if backend == "mock":
        return "an ideal arm without physics (mock) is driven, no real one"
    dry = ", DRY RUN: they get no command" if config.dry_run else ""
    return f"the controllers of ros2_control are driven by {config.mode} at {config.rate:g} Hz{dry}"


def processes(config: HardwareConfig) -> list[ProcessSpec]:
    """Check everything and return what is to be started.

    Raises:
        ConfigError: If arguments do not fit together, ROS is missing, or the domain is in use.
        CheckpointError: If the checkpoint is missing, damaged, or for something else.
        ArmError: If the arm does not answer, refuses the credentials, or is in fault.
    """
    backend = config.backend
    if backend != "kortex":
        for name in _given(config, _KORTEX_ONLY):
            raise ConfigError(f"{name} is for hardware:=kortex, not for {backend}: leave it out")
    if backend in ("mujoco", "mock") and config.dry_run:
        raise ConfigError(f"dry_run is for a real arm; {backend} is none")
    if backend == "kortex" and not config.robot_ip:
        raise ConfigError("robot_ip is missing: give the address of the arm, such as 192.168.1.10")
    name = config.checkpoint or _CHECKPOINTS.get(backend, _CHECKPOINT)
    if backend == "mujoco":
        if config.mode != "torque":
            raise ConfigError("the simulated arm takes torques alone: leave command_mode out")
        for name in _given(config, _NOT_SIMULATED):
            raise ConfigError(
                f"{name} has no effect on the simulated arm: leave it out, or give the robot_ip "
                "of a real one"
            )
        simulated = SimConfig(
            name, rate=config.rate, throws=config.throws, record=False, out=config.out,
            namespace=config.namespace,
        )  # fmt: skip
        return simulation(simulated, preflight(simulated))
    saved = require_checkpoint(name)
    surroundings = Surroundings.named(saved.spec.task) if config.objects == "config" else None
    require_modules()
    require_free_domain(config.namespace)
    if backend == "kortex":
        if config.rate > _KORTEX_RATE:
            raise ConfigError(
                f"rate is {config.rate:g}: a Kortex arm takes {_KORTEX_RATE:g} commands per second"
            )
        if not saved.spec.arm.startswith(_KORTEX_ARMS):
            raise ConfigError(
                f"{name} was trained for the arm {saved.spec.arm}, which Kortex does not drive: "
                "choose a checkpoint for the arm that is there, such as gen3"
            )
    options, environment = _options(config, saved.spec.arm, surroundings)
    patience = _runtime(config.runtime).feedback_timeout
    if backend == "kortex":
        # The guard names lost feedback; the client gives the arm up no earlier.
        from ndp_ros.arms.kortex.config import KortexConfig

        options.setdefault("feedback_timeout", max(KortexConfig.feedback_timeout, patience))
    if backend == "kortex":
        if config.driver != _BUILTIN:
            from ndp_ros.arms.kortex import vendor

            vendor.require(environment)
        _reach(config, saved)
    return _system(config, name, saved, options, environment)


def _system(
    config: HardwareConfig,
    name: str,
    saved: Checkpoint,
    options: dict[str, Any],
    environment: dict[str, str],
) -> list[ProcessSpec]:
    arm = saved.spec.arm
    # An arm that gets no command does not follow its setpoint.
    dry = {"on_following_error": "count"} if config.dry_run else {}
    runtime = _runtime(config.runtime, rate=config.rate, **dry)
    broadcast = config.backend == "ros2_control"
    remappings = (("joint_states", _OWN_STATES),) if broadcast else ()
    integrator = {
        "hardware": config.backend, "arm": arm, "task": "", "command_mode": config.mode,
        "options": json.dumps(options), "follow_for": config.follow_for, **to_mapping(runtime),
    }  # fmt: skip
    policy = {"checkpoint": str(find_checkpoint(name)), "arm": arm}
    specs = [
        ProcessSpec(INTEGRATOR, integrator, environment=environment, remappings=remappings),
        ProcessSpec(POLICY, policy, respawn=True, remappings=remappings),
    ]
    if config.objects == "config":
        seen = {"arm": arm, "task": saved.spec.task}
        specs.append(ProcessSpec(OBJECTS, seen, respawn=True, remappings=remappings))
    return [replace(spec, namespace=config.namespace) for spec in specs]


def _given(config: HardwareConfig, names: tuple[str, ...]) -> list[str]:
    """Return which of these arguments differ from their defaults."""
    return [name for name in names if getattr(config, name) != getattr(HardwareConfig, name)]


def _runtime(name: str, **overrides: Any) -> RuntimeConfig:
    if Path(name).suffix in (".yaml", ".yml"):
        return load(RuntimeConfig, Path(name).expanduser(), overrides)
    return RuntimeConfig.named(name, **overrides)


def _options(
    config: HardwareConfig, arm: str, surroundings: Surroundings | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the backend's options, and the variables that its process gets beside them."""
    options = options_of(config.options)
    if "password" in options:
        raise ConfigError("options must hold no password: use credentials_file")
    arguments = {p.name for p in parameters(HardwareConfig)}
    for name in options:
        # What was checked and what the user was told would be of another arm than the loop's.
        if name in arguments:
            flag = name.replace("_", "-")
            raise ConfigError(
                f"options must not hold {name}, which is an argument itself: say --{flag} to "
                f"ndp run or {name}:= to the launch file"
            )
    grip = {"grip": surroundings.grip} if surroundings is not None and surroundings.held else {}
    variables: dict[str, str] = {}
    if config.backend == "kortex":
        who = credentials(config)
        given = {
            "robot_ip": config.robot_ip, "port": config.port, "udp_port": config.udp_port,
            "dry_run": config.dry_run, "clear_faults": config.clear_faults,
            "driver": config.driver, **grip, **options,
        }  # fmt: skip
        variables = {USERNAME_VARIABLE: who.username, PASSWORD_VARIABLE: who.password}
        if config.driver != _BUILTIN:
            from ndp_ros.arms.kortex import vendor

            variables |= vendor.environment()
    elif config.backend == "ros2_control":
        given = {"dry_run": config.dry_run, **grip, **options}
    else:
        given = options
    _require_fit(config.backend, arm, given)
    return given, variables


def _require_fit(backend: str, arm: str, options: dict[str, Any]) -> None:
    """Refuse options that the backend would refuse once its process runs."""
    kind: type[Any]
    if backend == "kortex":
        from ndp_ros.arms.kortex.config import KortexConfig

        kind = KortexConfig
    elif backend == "ros2_control":
        from ndp_ros.arms.ros2_arm import Ros2ControlConfig

        kind = Ros2ControlConfig
    else:
        from ndp_ros.arms.arm import ArmConfig
        from ndp_ros.arms.mock import MockArm

        try:
            MockArm(ArmConfig.named(arm), **options)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"options are {options!r}: the mock arm takes start alone, a list of its "
                "joints' positions [rad]"
            ) from error
        return
    arguments = {p.name for p in parameters(HardwareConfig)}
    known = [p.name for p in parameters(kind)]
    for name in options:
        if name not in known:
            free = [each for each in known if each not in arguments]
            raise ConfigError.choice("options: parameter", name, free)
    from_mapping(kind, options, source="options")


def credentials(config: HardwareConfig) -> Credentials:
    """Return who logs in: arguments, then the file, then the environment."""
    return Credentials.find(config.username, config.password, config.credentials_file)


def _reach(config: HardwareConfig, saved: Checkpoint) -> None:
    """Log in at the arm, look at it, and log out: it is not taken.

    This package's own client does it, whichever will drive.

    Raises:
        ArmError: If it cannot be driven now; the message says what to do.
    """
    from ndp_ros.arms.arm import ArmConfig
    from ndp_ros.arms.kortex.arm import KortexArm
    from ndp_ros.arms.kortex.config import KortexConfig

    who = credentials(config)
    settings = KortexConfig(
        config.robot_ip, who.username, who.password, port=config.port, udp_port=config.udp_port,
        clear_faults=config.clear_faults,
    )  # fmt: skip
    arm = KortexArm(ArmConfig.named(saved.spec.arm), settings, config.rate)
    try:
        arm.connect()
    finally:
        arm.close()
