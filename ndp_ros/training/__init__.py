# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Training: methods and their learners, roll-outs, evaluation, run directories and experiments.

A run is a :class:`RunConfig`, of which :func:`shipped` returns a tuned one, given to :func:`train`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ndp_ros

if TYPE_CHECKING:
    from ndp_ros.training.config import RunConfig
    from ndp_ros.training.evaluation import run_episodes, summarise
    from ndp_ros.training.experiments import shipped
    from ndp_ros.training.methods import METHODS, Method
    from ndp_ros.training.run import train

__all__ = ["METHODS", "Method", "RunConfig", "run_episodes", "shipped", "summarise", "train"]

__getattr__ = ndp_ros.lazy_exports(
    __name__,
    {
        "METHODS": "methods",
        "Method": "methods",
        "RunConfig": "config",
        "run_episodes": "evaluation",
        "shipped": "experiments",
        "summarise": "evaluation",
        "train": "run",
    },
)
