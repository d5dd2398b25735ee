"""Gymnasium environments on the simulated arm, registered when this package is imported."""

from __future__ import annotations

import gymnasium

from ndp_ros.tasks import metaworld_registry

gymnasium.register("ndp_ros/Throw-v0", entry_point="ndp_ros.tasks.throw:Throw")
gymnasium.register(
    "ndp_ros/Throw-Gen3-v0", entry_point="ndp_ros.tasks.throw:Throw", kwargs={"scene": "throw-gen3"}
)
gymnasium.register("ndp_ros/Pick-v0", entry_point="ndp_ros.tasks.pick:Pick")
metaworld_registry.register()
