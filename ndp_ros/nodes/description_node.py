# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The description node: show the arm to RViz, Foxglove and every other user of TF.

It publishes the robot description, the frames of all links from the joint states, and markers: the
objects of the scene, the path of the hand that each segment plans, the path that it went, and the
state of arm and guard. Nothing depends on this node.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PoseStamped, TransformStamped
from ndp_interfaces.msg import DmpParameters, Status
from rclpy.timer import Timer
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from ndp_ros import checkpoint
from ndp_ros.arms.kinematic_tree import KinematicTree, Shape, placement, shapes_of
from ndp_ros.arms.urdf import link_names, urdf_of
from ndp_ros.config import param
from ndp_ros.control.arm import ArmConfig, Array
from ndp_ros.control.arm_model import compile_arm
from ndp_ros.dmp.segment import Segment
from ndp_ros.errors import NdpError
from ndp_ros.nodes import diagnostics, lifecycle, markers, parameters, process, qos
from ndp_ros.nodes.diagnostics import Health
from ndp_ros.nodes.lifecycle import NdpNode
from ndp_ros.nodes.messages import MAX_DURATION, parameters_from_message, pose_array
from ndp_ros.nodes.observer import JOINT_STATES, SETPOINT, pose_topic
from ndp_ros.nodes.task import task_of
from ndp_ros.paths import find_checkpoint
from ndp_ros.tasks.arm_task import ArmTask

NAME = "description_node"

_TRAIL = 60
"""Points of the executed path."""


@dataclass(frozen=True)
class DescriptionConfig:
    """Parameters of the description node."""

    arm: str = param(doc="Arm, as in config/arms/.")
    checkpoint: str = param(
        "", doc="Checkpoint whose scene is shown around the arm; empty: only the arm."
    )
    task_options: tuple[str, ...] = lifecycle.task_options_param()
    prefix: str = lifecycle.prefix_param()
    frame_prefix: str = param(
        "", doc="Begins the name of every frame, but of no joint, such as left/."
    )
    base_frame: str = param("base", doc="Frame of the arm's base.")
    rate: float = param(
        25.0, doc="Frames and markers per second.", unit="Hz", minimum=1.0, maximum=200.0
    )
    path_points: int = param(
        20, doc="Points of the path that a segment plans.", minimum=2, maximum=200
    )
    autostart: bool = lifecycle.autostart_param()


class DescriptionNode(NdpNode):
    """Publisher of ``robot_description``, ``/tf``, ``/tf_static`` and ``ndp/markers``."""

    needed = False

    def __init__(self, **options: Any) -> None:
        writable = "rate", "path_points"
        super().__init__(NAME, DescriptionConfig, writable=writable, **options)
        self._config = DescriptionConfig(arm="")
        self._joint_names: tuple[str, ...] = ()
        self._frames: list[str] = []
        self._tree: KinematicTree | None = None
        self._shapes: dict[str, tuple[Shape, ...]] = {}
        self._timer: Timer | None = None
        self._joints: tuple[Time, Array] | None = None
        self._shown: Time | None = None
        self._setpoint: tuple[Array, Array] | None = None
        self._poses: dict[str, PoseStamped] = {}
        self._trail: deque[Point] = deque(maxlen=_TRAIL)
        self._status = Status()
        self._description = self.create_publisher(String, "robot_description", qos.LATCHED)
        self._tf = self.create_publisher(TFMessage, "/tf", 100)
        self._tf_static = self.create_publisher(TFMessage, "/tf_static", qos.LATCHED)
        self._markers = self.create_publisher(MarkerArray, "ndp/markers", qos.STATE_OUT)
        self.create_subscription(JointState, JOINT_STATES, self._on_joint_states, qos.STATE)
        self.create_subscription(JointTrajectory, SETPOINT, self._on_setpoint, qos.STATE)
        self.create_subscription(Status, "ndp/status", self._on_status, qos.LATCHED)
        self.create_subscription(
            DmpParameters, "ndp/dmp_parameters", self._on_parameters, qos.PARAMETERS
        )

    def configure(self) -> None:
        """Read the arm and its scene, and publish the robot description."""
        self._config = config = parameters.read(self, DescriptionConfig)
        arm = ArmConfig.named(config.arm)
        self._joint_names = tuple(config.prefix + name for name in arm.joint_names)
        self._tree = tree = KinematicTree(compile_arm(arm), arm)
        self._shapes = _scene(config) if config.checkpoint else {}
        names = link_names(tree, config.base_frame, config.prefix)
        self._frames = [config.frame_prefix + name for name in names]
        for name in self._shapes:
            callback = partial(self._on_pose, name)
            self.create_subscription(PoseStamped, pose_topic(name), callback, qos.STATE)
        text = urdf_of(tree, arm, config.base_frame, config.prefix)
        self._description.publish(String(data=text))

    def activate(self) -> None:
        """Publish frames and markers from the next joint state on."""
        fixed = [i for i, link in enumerate(self._links) if link.parent >= 0 and not link.joint]
        placements = [link.origin for link in self._links]
        stamp = self.get_clock().now().to_msg()
        self._tf_static.publish(self._transforms(fixed, placements, stamp))
        self._timer = self.every(1.0 / self._config.rate, self._publish)

    def deactivate(self) -> None:
        """Publish no more frames and markers."""
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None

    def on_change(self, changes: list[Any]) -> Any:
        """Take a new rate or number of points over at once."""
        values = {change.name: change.value for change in changes}
        known = {name: value for name, value in values.items() if hasattr(self._config, name)}
        self._config = DescriptionConfig(**{**vars(self._config), **known})
        if "rate" in known and self._timer is not None:
            self._timer.timer_period_ns = int(1e9 / self._config.rate)
        return super().on_change(changes)

    @property
    def _links(self) -> list[Any]:
        return self._tree.links if self._tree is not None else []

    # -- input --------------------------------------------------------------------------------

    def _on_joint_states(self, message: JointState) -> None:
        values = self._values(message.name, message.position)
        if values is not None:
            self._joints = message.header.stamp, values

    def _on_setpoint(self, message: JointTrajectory) -> None:
        for point in message.points[:1]:
            y = self._values(message.joint_names, point.positions)
            yd = self._values(message.joint_names, point.velocities)
            if y is not None and yd is not None:
                self._setpoint = y, yd

    def _values(self, names: Any, values: Any) -> Array | None:
        """Return one finite value (dof,) for each joint of the arm; None if a message lacks one."""
        if len(names) != len(values):
            return None
        given = dict(zip(names, values, strict=True))
        if not all(name in given for name in self._joint_names):
            return None
        found = np.array([given[name] for name in self._joint_names])
        return found if np.isfinite(found).all() else None

    def _on_pose(self, name: str, message: PoseStamped) -> None:
        self._poses[name] = message

    def _on_status(self, message: Status) -> None:
        self._status = message

    def _on_parameters(self, message: DmpParameters) -> None:
        """Publish the path of the hand that a segment plans."""
        if self._tree is None or self._setpoint is None or self._timer is None:
            return
        y, yd = self._setpoint
        try:
            names = self._joint_names
            p = parameters_from_message(message, names, age=0.0, max_age=MAX_DURATION)
            g = p.g if p.origin is None else p.g + (y - p.origin)
            times = np.linspace(0.0, p.duration, self._config.path_points)
            motion = Segment(p.config, g, p.w, p.duration).bind(y, yd).setpoints(times)[:, 0]
        except NdpError:
            return  # the integrator node refuses it and says why
        points = [markers.point_of(self._tree.hand_at(position)) for position in motion]
        followed = self._status.state == Status.FOLLOWING
        colour = markers.PLANNED if followed else markers.IGNORED
        stamp = message.header.stamp
        self._markers.publish(
            MarkerArray(markers=markers.line("planned", points, colour, stamp, self._frames[0]))
        )

    # -- output -------------------------------------------------------------------------------

    def _publish(self) -> None:
        """Publish the frames of the newest joint state, and the markers."""
        if self._tree is None or self._joints is None or self._joints[0] == self._shown:
            return
        stamp, position = self._joints
        self._shown = stamp
        placements = self._tree.placements(position)
        moving = [i for i, link in enumerate(self._tree.links) if link.joint]
        self._tf.publish(self._transforms(moving, placements, stamp))
        self._trail.append(markers.point_of(self._tree.hand_at(position)))
        frame = self._frames[0]
        shown = markers.line("executed", list(self._trail), markers.EXECUTED, stamp, frame)
        shown.append(markers.state_text(self._status, stamp, frame))
        for name, message in self._poses.items():
            pose = pose_array(message)
            place = placement(pose[:3], pose[3:])
            shown += markers.shape_markers(name, self._shapes[name], place, stamp, frame)
        self._markers.publish(MarkerArray(markers=shown))

    def _transforms(self, links: list[int], placements: list[Array], stamp: Time) -> TFMessage:
        """Return the transforms of links to their parents."""
        message = TFMessage()
        for i in links:
            transform = TransformStamped(child_frame_id=self._frames[i])
            transform.header.stamp = stamp
            transform.header.frame_id = self._frames[self._links[i].parent]
            pose, t = markers.pose_of(placements[i]), transform.transform
            t.translation.x, t.translation.y = pose.position.x, pose.position.y
            t.translation.z, t.rotation = pose.position.z, pose.orientation
            message.transforms.append(transform)
        return message

    def health(self) -> Health:
        """Return the arm and the objects that are shown."""
        values = {"arm": self._config.arm, "objects": ", ".join(self._shapes)}
        return Health(diagnostics.OK, self.state, values)


def _scene(config: DescriptionConfig) -> dict[str, tuple[Shape, ...]]:
    """Return the shapes of the objects in the scene of a checkpoint's task, by object."""
    task = task_of(checkpoint.load(find_checkpoint(config.checkpoint)), config.task_options)
    if not isinstance(task, ArmTask):
        return {}
    model = task.robot.model
    return {name: shapes_of(model, model.body(name).id) for name in task.objects}


def main(argv: list[str] | None = None) -> int:
    """Run the description node."""
    return process.run(DescriptionNode, argv)


if __name__ == "__main__":
    sys.exit(main())
