# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The ROS 2 nodes.

rclpy is imported only here and in ``arms/ros2_control/bridge.py``. Each node can be composed: its
class takes the keyword arguments of ``rclpy.node.Node``.
"""
