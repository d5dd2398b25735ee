# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Control: Ω from setpoints to commands, rigid-body models, limits, confirmed measurements.

The arm protocol is here as well, so that control knows no backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ndp_ros

if TYPE_CHECKING:
    from ndp_ros.control.arm import Arm, ArmConfig, ArmInfo, Command, JointState
    from ndp_ros.control.limiter import Limiter
    from ndp_ros.control.measurement import Confirmer
    from ndp_ros.control.omega import Identity, InverseDynamics
    from ndp_ros.control.rigid_body import RigidBody

__all__ = [
    "Arm",
    "ArmConfig",
    "ArmInfo",
    "Command",
    "Confirmer",
    "Identity",
    "InverseDynamics",
    "JointState",
    "Limiter",
    "RigidBody",
]

__getattr__ = ndp_ros.lazy_exports(
    __name__,
    {
        "Arm": "arm",
        "ArmConfig": "arm",
        "ArmInfo": "arm",
        "Command": "arm",
        "Confirmer": "measurement",
        "Identity": "omega",
        "InverseDynamics": "omega",
        "JointState": "arm",
        "Limiter": "limiter",
        "RigidBody": "rigid_body",
    },
)
