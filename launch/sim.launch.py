# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The simulated Jaco throws cubes: ``ros2 launch ndp_ros sim.launch.py``.

Ends by itself once all throws are made; ``--show-args`` explains the arguments.
"""

from launch.launch_description import LaunchDescription

from ndp_ros.bringup.launch import description


def generate_launch_description() -> LaunchDescription:
    """Return the actions that ``ros2 launch`` runs."""
    return description("sim")
