# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The viewer node: show arm and objects, as their topics report them, in MuJoCo's window.

No physics runs here, and closing the window ends only this node.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState

from ndp_ros import checkpoint
from ndp_ros.config import param
from ndp_ros.errors import ConfigError, NdpError
from ndp_ros.nodes import lifecycle, parameters, qos
from ndp_ros.nodes.messages import pose_array
from ndp_ros.nodes.observer import JOINT_STATES, pose_topic
from ndp_ros.nodes.process import StopSignals, make_executor, ros
from ndp_ros.nodes.task import task_of
from ndp_ros.paths import find_checkpoint
from ndp_ros.tasks.replay import Replay

NAME = "viewer_node"

_FRAME_TIME = 1.0 / 50.0


@dataclass(frozen=True)
class ViewerNodeConfig:
    """Parameters of the viewer node."""

    checkpoint: str = param(doc="Checkpoint that runs: it says which scene to show.")
    task_options: tuple[str, ...] = lifecycle.task_options_param()
    prefix: str = lifecycle.prefix_param()


class ViewerNode(Node):
    """Holds the newest joints and poses, and the scene in which they are shown."""

    def __init__(self) -> None:
        super().__init__(NAME)
        config = parameters.declare_and_read(self, ViewerNodeConfig)
        self._prefix = config.prefix
        saved = checkpoint.load(find_checkpoint(config.checkpoint))
        # The render mode brings the meshes.
        self._task = task = task_of(saved, config.task_options, render_mode="rgb_array")
        replay = task.judge()
        if not isinstance(replay, Replay):
            raise ConfigError(f"{saved.spec.task} is no task on an arm: no window shows it")
        self.replay = replay
        self.replay.begin(0)
        self.position: NDArray[np.float64] | None = None
        self.poses: dict[str, NDArray[np.float64]] = {}
        self.create_subscription(JointState, JOINT_STATES, self.on_joint_states, qos.STATE)
        for name in task.objects:
            callback = partial(self._on_pose, name)
            self.create_subscription(PoseStamped, pose_topic(name), callback, qos.STATE)

    def on_joint_states(self, message: JointState) -> None:
        """Take measured joints; those of another arm are ignored."""
        names = tuple(self._prefix + name for name in self._task.joint_names)
        position = message.position
        if tuple(message.name) == names and len(position) == len(names):
            self.position = np.array(message.position)

    def _on_pose(self, name: str, message: PoseStamped) -> None:
        self.poses[name] = pose_array(message)

    def show(self) -> None:
        """Put the scene into the newest state."""
        if self.position is not None:
            self.replay.show(self.position, self.poses)

    def run(self, signals: StopSignals) -> None:
        """Show the scene in a window until it is closed.

        Raises:
            ConfigError: If MuJoCo cannot open a window.
        """
        import mujoco.viewer

        executor, robot = make_executor(), self.replay.task.robot
        executor.add_node(self)
        try:
            window = mujoco.viewer.launch_passive(robot.model, robot.data)
        except Exception as error:
            problem = " ".join(str(error).split())
            raise ConfigError(f"MuJoCo cannot open a window: {problem}") from error
        with window:
            while window.is_running() and not signals.received:
                executor.spin_once(timeout_sec=_FRAME_TIME)
                with window.lock():
                    self.show()
                window.sync()


def main(argv: list[str] | None = None) -> int:
    """Run the viewer node until its window is closed."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        text = "needs a screen: neither DISPLAY nor WAYLAND_DISPLAY is set"
        print(f"{NAME}: {text}", file=sys.stderr, flush=True)
        return 2
    with ros(argv) as signals:
        node: ViewerNode | None = None
        try:
            node = ViewerNode()
            node.run(signals)
        except NdpError as error:
            print(f"{NAME}: {error}", file=sys.stderr, flush=True)
            return 2
        finally:
            if node is not None:
                node.destroy_node()
    return 0


if __name__ == "__main__":
    sys.exit(main())
