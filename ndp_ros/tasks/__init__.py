"""Gymnasium environments on the simulated arm, registered when this package is imported."""

from __future__ import annotations

import gymnasium

from ndp_ros.tasks import metaworld

gymnasium.register("ndp_ros/Throw-v0", entry_point="ndp_ros.tasks.throw:Throw")
metaworld.register()
