# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Neural Dynamic Policies for robot arms under ROS 2.

A network maps an observation to the goal and the weights of a dynamic movement primitive, which an
integrator streams to an arm. The names below are imported when they are first used, so that
``import ndp_ros`` needs neither torch, ROS nor MuJoCo.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ndp_ros.checkpoint import load_policy
    from ndp_ros.dmp.config import DmpConfig
    from ndp_ros.dmp.fit import fit_segment
    from ndp_ros.dmp.layer import DmpLayer
    from ndp_ros.dmp.segment import BoundSegment, Segment
    from ndp_ros.errors import CheckpointError, ConfigError, NdpError, SegmentError, TaskError
    from ndp_ros.policies.policy import Policy
    from ndp_ros.tasks.choice import list_tasks, make
    from ndp_ros.tasks.wrapper import NdpWrapper
    from ndp_ros.training.config import RunConfig
    from ndp_ros.training.evaluate import evaluate
    from ndp_ros.training.run import train

__version__ = "0.1.0"

__all__ = [
    "BoundSegment",
    "CheckpointError",
    "ConfigError",
    "DmpConfig",
    "DmpLayer",
    "NdpError",
    "NdpWrapper",
    "Policy",
    "RunConfig",
    "Segment",
    "SegmentError",
    "TaskError",
    "__version__",
    "evaluate",
    "fit_segment",
    "list_tasks",
    "load_policy",
    "make",
    "train",
]


def lazy_exports(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's ``__getattr__``, which imports each name from its module on first use."""

    def export(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return export


__getattr__ = lazy_exports(
    __name__,
    {
        "BoundSegment": "dmp.segment",
        "CheckpointError": "errors",
        "ConfigError": "errors",
        "DmpConfig": "dmp.config",
        "DmpLayer": "dmp.layer",
        "NdpError": "errors",
        "NdpWrapper": "tasks.wrapper",
        "Policy": "policies.policy",
        "RunConfig": "training.config",
        "Segment": "dmp.segment",
        "SegmentError": "errors",
        "TaskError": "errors",
        "evaluate": "training.evaluate",
        "fit_segment": "dmp.fit",
        "list_tasks": "tasks.choice",
        "load_policy": "checkpoint",
        "make": "tasks.choice",
        "train": "training.run",
    },
)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
