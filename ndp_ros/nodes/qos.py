# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Quality of service of every topic."""

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

STATE = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Subscribers of joint states, setpoints and object poses: only the newest message counts."""

STATE_OUT = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""Publishers of the same topics: reliable matches subscribers of either kind, and those of MoveIt
and rviz are reliable."""

RECORD = QoSProfile(depth=1000, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Subscribers of the same topics that record every message, however late."""

PARAMETERS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""DMP parameters: none may get lost, and only the newest is of use."""

LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
"""Status: a late subscriber receives the last message."""
