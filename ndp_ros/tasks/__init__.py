# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Gymnasium environments on simulated arms, registered when this package is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium

import ndp_ros
from ndp_ros.tasks.metaworld import registry as metaworld_registry

if TYPE_CHECKING:
    from ndp_ros.tasks.arm_task import ArmTask
    from ndp_ros.tasks.config import ArmTaskConfig, with_options

__all__ = ["ArmTask", "ArmTaskConfig", "with_options"]

__getattr__ = ndp_ros.lazy_exports(
    __name__,
    {"ArmTask": "arm_task", "ArmTaskConfig": "config", "with_options": "config"},
)


gymnasium.register("ndp_ros/Throw-v0", entry_point="ndp_ros.tasks.throw:Throw")
gymnasium.register(
    "ndp_ros/Throw-Gen3-v0", entry_point="ndp_ros.tasks.throw:Throw", kwargs={"scene": "throw-gen3"}
)
gymnasium.register(
    "ndp_ros/Throw-Wall-v0", entry_point="ndp_ros.tasks.throw:Throw", kwargs={"wall": True}
)
gymnasium.register("ndp_ros/Pick-v0", entry_point="ndp_ros.tasks.pick:Pick")
gymnasium.register(
    "ndp_ros/Pick-Sparse-v0", entry_point="ndp_ros.tasks.pick:Pick", kwargs={"reward": "height"}
)
gymnasium.register("ndp_ros/Reach-v0", entry_point="ndp_ros.tasks.reach:Reach")
metaworld_registry.register()
