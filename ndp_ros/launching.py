"""The processes of ``bringup`` as actions of a launch file; needs the ``launch`` packages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown, matches_action
from launch.events.process import ProcessExited, ShutdownProcess
from launch.launch_context import LaunchContext
from launch.launch_description import LaunchDescription
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from ndp_ros.bringup import ProcessSpec, environment, from_text
from ndp_ros.config import parameters
from ndp_ros.parent import ends_with_me
from ndp_ros.plan import ask, config_of

_RESPAWN_DELAY = 1.0


def description(kind: str) -> LaunchDescription:
    """Return what a launch file has to return.

    What is started is found out by the interpreter that runs the nodes (``plan``); an error there
    ends the launch before anything runs.

    Args:
        kind: ``plan.SIM`` or ``plan.HARDWARE``; the fields of its configuration become launch
            arguments.
    """
    known = parameters(config_of(kind))
    arguments = [
        DeclareLaunchArgument(
            p.name, default_value="" if p.required else str(p.default), description=p.describe()
        )
        for p in known
    ]

    def start(context: LaunchContext) -> list[Any]:
        given = {p.name: LaunchConfiguration(p.name).perform(context) for p in known}
        specs, notice = ask(kind, from_text(config_of(kind), given))
        nodes = [_node(spec) for spec in specs]
        own = _is_the_launch(context)
        watchers = [
            RegisterEventHandler(
                OnProcessExit(target_action=node, on_exit=_end_of(spec, nodes, own))
            )
            for spec, node in zip(specs, nodes, strict=True)
            if not (spec.respawn or spec.optional)
        ]
        return [*([LogInfo(msg=notice)] if notice else []), *nodes, *watchers]

    defaults = [
        SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value))
        for name, value in environment().items()
    ]
    return LaunchDescription([*defaults, *arguments, OpaqueFunction(function=start)])


def _is_the_launch(context: LaunchContext) -> bool:
    """Whether this file is what was launched, and not included by another one."""
    file = Path(context.get_locals_as_dict().get("current_launch_file_path", ""))
    return file.name in {Path(argument).name for argument in sys.argv}


def _node(spec: ProcessSpec) -> Node:
    return Node(
        package="ndp_ros",
        executable=spec.name,
        name=spec.name,
        namespace=spec.namespace,
        # Text stays text: left alone it would be read as YAML.
        parameters=[
            {
                name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
                for name, value in spec.parameters.items()
            }
        ],
        remappings=list(spec.remappings),
        additional_env={**spec.environment, **ends_with_me()},
        output="screen",
        respawn=spec.respawn,
        respawn_delay=_RESPAWN_DELAY,
    )


def _end_of(spec: ProcessSpec, nodes: Sequence[Node], own: bool) -> Callable[..., list[Any]]:
    """Return what happens when a process ends without which the system cannot go on.

    Args:
        spec: The process.
        nodes: All processes of the system.
        own: Whether the launch is this system alone. One that includes it goes on without it.
    """

    def ended(event: ProcessExited, context: LaunchContext) -> list[Any]:
        if context.is_shutdown:
            return []
        done = event.returncode == 0 and spec.ends_system
        how = "all is done" if done else f"{spec.name} has ended with status {event.returncode}"
        if not own:
            stops = [
                EmitEvent(event=ShutdownProcess(process_matcher=matches_action(node)))
                for node in nodes
            ]
            return [LogInfo(msg=f"{how}: its system is shut down"), *stops]
        if done:
            return [EmitEvent(event=Shutdown(reason=how))]
        return [EmitEvent(event=Shutdown(reason=how)), OpaqueFunction(function=_fail, args=[how])]

    return ended


def _fail(_context: LaunchContext, text: str) -> None:
    """Give the launch an exit status other than 0."""
    raise RuntimeError(text)
