# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""An arm throws: ``ros2 launch ndp_ros jaco_throw.launch.py robot_ip:=192.168.1.10``.

Without robot_ip the simulated arm does. ``--show-args`` explains the arguments, and
docs/hardware.md what to do before the first start.
"""

from launch.launch_description import LaunchDescription

from ndp_ros.bringup.launch import description


def generate_launch_description() -> LaunchDescription:
    """Return the actions that ``ros2 launch`` runs."""
    return description("hardware")
