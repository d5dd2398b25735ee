# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Arms: the backends of the arm protocol.

The simulated arm and the mock are here; ``kortex`` and ``ros2_control`` drive real ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ndp_ros

if TYPE_CHECKING:
    from ndp_ros.arms.mock import MockArm
    from ndp_ros.arms.mujoco import MujocoArm
    from ndp_ros.arms.scenes import SCENES, Scene

__all__ = ["SCENES", "MockArm", "MujocoArm", "Scene"]

__getattr__ = ndp_ros.lazy_exports(
    __name__,
    {
        "MockArm": "mock",
        "MujocoArm": "mujoco",
        "SCENES": "scenes",
        "Scene": "scenes",
    },
)
