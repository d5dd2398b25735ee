# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Options and processes of a running system, simulated or on an arm.

Launch files and the commands ``ndp sim`` and ``ndp run`` start what is described here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ndp_ros

if TYPE_CHECKING:
    from ndp_ros.bringup.arm import HardwareConfig
    from ndp_ros.bringup.process import ProcessSpec
    from ndp_ros.bringup.supervisor import Supervisor
    from ndp_ros.bringup.system import SimConfig

__all__ = ["HardwareConfig", "ProcessSpec", "SimConfig", "Supervisor"]

__getattr__ = ndp_ros.lazy_exports(
    __name__,
    {
        "HardwareConfig": "arm",
        "ProcessSpec": "process",
        "SimConfig": "system",
        "Supervisor": "supervisor",
    },
)
