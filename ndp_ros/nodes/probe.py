# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Print the names of the nodes in this ROS domain as a JSON list.

Bring-up runs ``python -m ndp_ros.nodes.probe`` as a process of its own, which keeps ROS out of the
process that checks.
"""

from __future__ import annotations

import json
import os
import sys
import time

import rclpy

LISTEN = 1.5
"""Time for discovery [s]; on one host it takes 0.1 to 0.3 s."""


def main() -> int:
    """Wait for discovery and print the names."""
    rclpy.init(args=[])
    node = rclpy.create_node(f"ndp_probe_{os.getpid()}", enable_rosout=False)
    try:
        time.sleep(LISTEN)
        names = {
            f"{space.rstrip('/')}/{name}" for name, space in node.get_node_names_and_namespaces()
        }
        print(json.dumps(sorted(names)))
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
