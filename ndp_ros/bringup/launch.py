# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Turn the processes of a system into actions of a launch file; needs the ``launch`` packages."""

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

from ndp_ros.bringup.plan import ask, config_of, from_text, names_launch_file
from ndp_ros.bringup.process import REFUSED, RVIZ, ProcessSpec, environment
from ndp_ros.config import Field, leaves
from ndp_ros.processes import bound_to_this_process

_RESPAWN_DELAY = 1.0


def description(kind: str) -> LaunchDescription:
    """Return the description of a launch file, of kind ``plan.SIM`` or ``plan.HARDWARE``.

    The fields of its configuration become launch arguments. The processes are found by the
    interpreter that runs the nodes (``plan``); an error there ends the launch before anything runs.
    """
    known = leaves(config_of(kind))
    arguments = [
        DeclareLaunchArgument(p.name, default_value=_text(p), description=p.describe())
        for p in known
    ]

    def start(context: LaunchContext) -> list[Any]:
        given = {p.name: LaunchConfiguration(p.name).perform(context) for p in known}
        specs, notice = ask(kind, from_text(config_of(kind), given))
        nodes = [_node(spec) for spec in specs]
        file = str(context.get_locals_as_dict().get("current_launch_file_path", ""))
        own = names_launch_file(sys.argv, Path(file))
        watchers = [
            RegisterEventHandler(
                OnProcessExit(target_action=node, on_exit=_end_of(spec, nodes, own))
            )
            for spec, node in zip(specs, nodes, strict=True)
            if not spec.optional
        ]
        return [*([LogInfo(msg=notice)] if notice else []), *nodes, *watchers]

    defaults = [
        SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value))
        for name, value in environment().items()
    ]
    return LaunchDescription([*defaults, *arguments, OpaqueFunction(function=start)])


def _text(p: Field) -> str:
    """Return a default as the text of a launch argument; empty without one."""
    if p.required or p.default is None:
        return ""
    return str(list(p.default) if isinstance(p.default, tuple) else p.default)


def _node(spec: ProcessSpec) -> Node:
    return Node(
        package=RVIZ if spec.name == RVIZ else "ndp_ros",
        executable=spec.name,
        name=spec.name,
        namespace=spec.namespace,
        arguments=list(spec.arguments),
        # Not as ``parameters``: launch would put them into a section of the node's name, which no
        # section for several nodes (``/**:``) of the user's file could override.
        ros_arguments=spec.ros_arguments,
        additional_env={**spec.environment, **bound_to_this_process()},
        output="screen",
        respawn=spec.respawn,
        respawn_delay=_RESPAWN_DELAY,
    )


def _end_of(spec: ProcessSpec, nodes: Sequence[Node], own: bool) -> Callable[..., list[Any]]:
    """Return the handler for the exit of a process that the system cannot do without.

    One that is started again ends the system only by refusing its parameters. A launch that is not
    its ``own``, because it includes this system, goes on without it.
    """

    def ended(event: ProcessExited, context: LaunchContext) -> list[Any]:
        if context.is_shutdown or (spec.respawn and event.returncode != REFUSED):
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
