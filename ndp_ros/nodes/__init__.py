# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The ROS 2 nodes.

rclpy is imported only here and in ``arms/ros2_control/bridge.py``. Each node can be composed: its
class takes the keyword arguments of ``rclpy.node.Node``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ndp_ros

if TYPE_CHECKING:
    from ndp_ros.nodes.chunk_node import ChunkNode
    from ndp_ros.nodes.description_node import DescriptionNode
    from ndp_ros.nodes.episode_node import EpisodeNode
    from ndp_ros.nodes.integrator_node import IntegratorNode
    from ndp_ros.nodes.objects_node import ObjectsNode
    from ndp_ros.nodes.policy_node import PolicyNode
    from ndp_ros.nodes.record_node import RecordNode
    from ndp_ros.nodes.run_policy_node import RunPolicyNode
    from ndp_ros.nodes.viewer_node import ViewerNode

__all__ = [
    "ChunkNode",
    "DescriptionNode",
    "EpisodeNode",
    "IntegratorNode",
    "ObjectsNode",
    "PolicyNode",
    "RecordNode",
    "RunPolicyNode",
    "ViewerNode",
]

__getattr__ = ndp_ros.lazy_exports(
    __name__,
    {
        "ChunkNode": "chunk_node",
        "DescriptionNode": "description_node",
        "EpisodeNode": "episode_node",
        "IntegratorNode": "integrator_node",
        "ObjectsNode": "objects_node",
        "PolicyNode": "policy_node",
        "RecordNode": "record_node",
        "RunPolicyNode": "run_policy_node",
        "ViewerNode": "viewer_node",
    },
)
