# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Describe one process of a running system: a node with its parameters.

Launch files and the supervisor of the command line start processes from the same description.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ndp_ros.processes import SINGLE_THREADED

INTEGRATOR, POLICY, OBJECTS = "integrator_node", "policy_node", "objects_node"
EPISODE, VIEWER, CHUNKS = "episode_node", "viewer_node", "chunk_node"
DESCRIPTION, RECORD = "description_node", "record_node"
ACTION, RVIZ = "run_policy_node", "rviz2"

REFUSED = 2
"""Exit status of a node that refuses its parameters, which a second try would repeat."""
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


@dataclass(frozen=True)
class ProcessSpec:
    """One process of a running system."""

    name: str
    """Name of the node and of its executable in ``lib/ndp_ros``."""
    parameters: Mapping[str, Any]
    """ROS parameters by name."""
    ends_system: bool = False
    """Whether the exit of this process ends the system."""
    respawn: bool = False
    """Whether it is started again when it dies."""
    optional: bool = False
    """Whether the system goes on without it."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment of this process, for values that must not appear on a command line."""
    remappings: tuple[tuple[str, str], ...] = ()
    """Topics that have another name in this process: old name, new name."""
    namespace: str = ""
    """Namespace of the node; empty for none."""
    params_file: str = ""
    """Parameter file of the user, whose values replace ``parameters``; empty for none."""
    log_level: str = ""
    """Lowest level of what the node logs; empty for the default."""
    arguments: tuple[str, ...] = ()
    """Arguments before those of ROS."""

    @property
    def ros_arguments(self) -> list[str]:
        """Command-line arguments that follow ``--ros-args``, without the namespace."""
        arguments = [
            part
            for name, value in self.parameters.items()
            for part in ("-p", f"{name}:={json.dumps(value)}")
        ]
        # Later values win.
        arguments += ["--params-file", self.params_file] if self.params_file else []
        arguments += [part for old, new in self.remappings for part in ("-r", f"{old}:={new}")]
        return arguments + (["--log-level", self.log_level] if self.log_level else [])

    @property
    def command(self) -> list[str]:
        """The command line that starts this process without ``ros2 run``."""
        own = [sys.executable, "-m", f"ndp_ros.nodes.{self.name}"]
        space = ["-r", f"__ns:=/{self.namespace.strip('/')}"] if self.namespace else []
        program = [RVIZ] if self.name == RVIZ else own
        return [*program, *self.arguments, "--ros-args", *self.ros_arguments, *space]


def environment() -> dict[str, str]:
    """Return the defaults of the environment of every process."""
    return {
        # Nodes do not communicate with other machines unless the user asks for it.
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        # The shared-memory transport would leave files in /dev/shm when a node is killed.
        "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4",
        **SINGLE_THREADED,
    }


def set_default_environment() -> None:
    """Set the defaults in the environment of this process, whose children inherit them."""
    os.environ.setdefault("ROS_DOMAIN_ID", "0")
    for name, value in environment().items():
        os.environ.setdefault(name, value)
