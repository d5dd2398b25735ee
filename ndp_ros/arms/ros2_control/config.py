# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Parameters of an arm behind ros2_control, and the full names of its controllers and topics."""

from __future__ import annotations

from dataclasses import dataclass

from ndp_ros.config import param
from ndp_ros.errors import ConfigError

_DEFAULT_CONTROLLERS = {
    ("group", "position"): "forward_position_controller",
    ("group", "torque"): "forward_effort_controller",
    ("trajectory", "position"): "joint_trajectory_controller",
}


@dataclass(frozen=True)
class Ros2ControlConfig:
    """Controllers and topics of an arm behind ros2_control."""

    controller: str = param(
        "",
        doc="Name of the controller; empty: forward_position_controller, "
        "forward_effort_controller or joint_trajectory_controller, by kind and command mode.",
    )
    controller_kind: str = param(
        "group",
        doc="Interface of the controller: group takes one number per joint at every tick, "
        "trajectory takes trajectories.",
        choices=("group", "trajectory"),
    )
    controller_namespace: str = param(
        "", doc="Namespace of names that are not absolute; empty: the integrator node's."
    )
    controller_timeout: float = param(
        5.0, doc="Longest wait for the controllers.", unit="s", minimum=0.1, maximum=60.0
    )
    trust_order: bool = param(
        False,
        doc="Assume this joint order for a group controller that does not answer get_parameters.",
    )
    joints: tuple[str, ...] = param(
        (), doc="ROS names of the arm's joints, in order; empty: those of config/arms."
    )
    joint_states: str = param(
        "joint_states", doc="Topic of the measured joints, in the namespace unless absolute."
    )
    robot_description: str = param(
        "robot_description",
        doc="Topic of the robot's URDF, whose limits of the arm's joints count where they are "
        "tighter than those of config/arms; empty: none.",
    )
    gripper_controller: str = param(
        "", doc="Group controller of the gripper's position; empty: the gripper gets no command."
    )
    gripper_joint: str = param(
        "", doc="ROS name of the gripper's joint; empty: that of config/arms."
    )
    trajectory_rate: float = param(
        100.0, doc="Trajectories per second.", unit="Hz", minimum=1.0, maximum=1000.0
    )
    lookahead: float = param(
        0.02, doc="Delay of a trajectory's setpoint.", unit="s", minimum=0.001, maximum=1.0
    )
    grip: float | None = param(
        None,
        doc="Position to which the gripper is commanded first; none: it keeps its last command "
        "until its setpoint changes.",
        unit="rad",
    )
    dry_run: bool = param(False, doc="Read the arm but send it no command.")

    def controller_for(self, mode: str) -> str:
        """Return the full name of the controller for a command mode.

        Raises:
            ConfigError: If no controller of this kind takes the mode.
        """
        if (self.controller_kind, mode) not in _DEFAULT_CONTROLLERS:
            raise ConfigError(
                f"controller_kind {self.controller_kind} takes no {mode} commands: choose group, "
                "and position or torque"
            )
        return self.resolve(self.controller or _DEFAULT_CONTROLLERS[self.controller_kind, mode])

    def resolve(self, name: str) -> str:
        """Return the full name of a topic or node, as ROS resolves it without remappings."""
        parts = name if name.startswith("/") else f"{self.controller_namespace}/{name}"
        return "/" + "/".join(part for part in parts.split("/") if part)

    def refuse_echo(self, published: str) -> None:
        """Refuse to read joint states from the topic on which the caller publishes its own.

        The node would take its own messages for measurements and never detect lost feedback.

        Raises:
            ConfigError: If both are the same topic.
        """
        if self.resolve(self.joint_states) == published:
            raise ConfigError(
                f"joint_states is {published}, where this node publishes its own, so that lost "
                "feedback would go unnoticed: remap this node's and the policy's, as by "
                "--ros-args -r joint_states:=ndp/joint_states (ndp run and the launch file do)"
            )
