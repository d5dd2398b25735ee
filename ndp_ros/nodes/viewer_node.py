"""The viewer node: shows arm and objects, as topics tell of them, in MuJoCo's window.

It only looks: no physics runs here, and closing the window ends nothing but this node.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState

from ndp_ros import checkpoint
from ndp_ros.bringup import task_arguments
from ndp_ros.config import param
from ndp_ros.errors import ConfigError, NdpError
from ndp_ros.nodes import parameters, qos
from ndp_ros.nodes.clocks import keep_system_time, refuse_sim_time
from ndp_ros.nodes.lifecycle import StopSignals, make_executor
from ndp_ros.nodes.observer import JOINT_STATES, pose_topic
from ndp_ros.paths import find_checkpoint
from ndp_ros.tasks.replay import Replay
from ndp_ros.tasks.throw import Throw

NAME = "viewer_node"

_FRAME_TIME = 1.0 / 50.0


@dataclass(frozen=True)
class ViewerNodeConfig:
    """Parameters of the viewer node."""

    checkpoint: str = param(doc="Checkpoint that runs: it says which scene to show.")


class ViewerNode(Node):
    """Holds the newest joints and poses."""

    def __init__(self) -> None:
        super().__init__(NAME)
        parameters.declare(self, ViewerNodeConfig)
        refuse_sim_time(self)
        self.add_on_set_parameters_callback(keep_system_time)
        config = parameters.read(self, ViewerNodeConfig)
        saved = checkpoint.load(find_checkpoint(config.checkpoint))
        # The render mode brings the meshes.
        self.replay = Replay(Throw(**task_arguments(saved), render_mode="rgb_array"))
        self.replay.begin(0)
        self.position: NDArray[np.float64] | None = None
        self.poses: dict[str, NDArray[np.float64]] = {}
        self.create_subscription(JointState, JOINT_STATES, self._on_joints, qos.STATE)
        for name in Throw.objects:
            callback = partial(self._on_pose, name)
            self.create_subscription(PoseStamped, pose_topic(name), callback, qos.STATE)

    def _on_joints(self, message: JointState) -> None:
        if self.replay.of_this_arm(message.name, message.position):
            self.position = np.array(message.position)

    def _on_pose(self, name: str, message: PoseStamped) -> None:
        p, q = message.pose.position, message.pose.orientation
        self.poses[name] = np.array([p.x, p.y, p.z, q.w, q.x, q.y, q.z])

    def show(self) -> None:
        """Put the scene into the state that was heard last."""
        if self.position is not None:
            self.replay.show(self.position, self.poses)


def main(argv: list[str] | None = None) -> int:
    """Run the viewer node until its window is closed."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        print(
            f"{NAME}: needs a screen: neither DISPLAY nor WAYLAND_DISPLAY is set",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        return 2
    import mujoco.viewer

    with StopSignals(process_ends=argv is None) as signals:
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
        node: ViewerNode | None = None
        try:
            node = ViewerNode()
            executor = make_executor()
            executor.add_node(node)
            robot = node.replay.task.robot
            try:
                window = mujoco.viewer.launch_passive(robot.model, robot.data)
            except Exception as error:
                problem = " ".join(str(error).split())
                raise ConfigError(f"MuJoCo cannot open a window: {problem}") from error
            with window:
                while window.is_running() and not signals.received:
                    executor.spin_once(timeout_sec=_FRAME_TIME)
                    with window.lock():
                        node.show()
                    window.sync()
        except NdpError as error:
            print(f"{NAME}: {error}", file=sys.stderr, flush=True)
            return 2
        finally:
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
