"""The processes of ``bringup`` as actions of a launch file; needs the ``launch`` packages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.launch_context import LaunchContext
from launch.launch_description import LaunchDescription
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from ndp_ros.bringup import ProcessSpec, environment, from_text
from ndp_ros.config import parameters
from ndp_ros.parent import ends_with_me

_RESPAWN_DELAY = 1.0


def description(
    config_class: type[Any],
    processes: Callable[[Any], Sequence[ProcessSpec]],
    notice: Callable[[Any], str] | None = None,
) -> LaunchDescription:
    """Return what a launch file has to return.

    Args:
        config_class: Configuration class; its fields become launch arguments.
        processes: Checks a configuration and returns what it starts; an NdpError ends
            the launch before anything runs.
        notice: What the user is told once everything is checked.
    """
    arguments = [
        DeclareLaunchArgument(
            p.name, default_value="" if p.required else str(p.default), description=p.describe()
        )
        for p in parameters(config_class)
    ]

    def start(context: LaunchContext) -> list[Any]:
        given = {
            p.name: LaunchConfiguration(p.name).perform(context) for p in parameters(config_class)
        }
        config = from_text(config_class, given)
        actions = [action for spec in processes(config) for action in _actions(spec)]
        return actions if notice is None else [LogInfo(msg=notice(config)), *actions]

    defaults = [
        SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value))
        for name, value in environment().items()
    ]
    return LaunchDescription([*defaults, *arguments, OpaqueFunction(function=start)])


def _actions(spec: ProcessSpec) -> list[Any]:
    node = Node(
        package="ndp_ros",
        executable=spec.name,
        name=spec.name,
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
    if spec.respawn or spec.optional:
        return [node]

    def ended(event: ProcessExited, context: LaunchContext) -> list[Any]:
        if context.is_shutdown:
            return []
        how = f"{spec.name} has ended with status {event.returncode}"
        if event.returncode == 0 and spec.ends_system:
            return [EmitEvent(event=Shutdown(reason="all is done"))]
        return [EmitEvent(event=Shutdown(reason=how)), OpaqueFunction(function=_fail, args=[how])]

    return [node, RegisterEventHandler(OnProcessExit(target_action=node, on_exit=ended))]


def _fail(_context: LaunchContext, text: str) -> None:
    """Give the launch an exit status other than 0."""
    raise RuntimeError(text)
