# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Make the simulated task that a checkpoint was trained on.

The episode node judges and draws by it, the viewer node shows its scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ndp_ros.checkpoint import Checkpoint
from ndp_ros.tasks.choice import TaskChoice, over_options
from ndp_ros.tasks.contract import SimulatedTask, require_simulated

__all__ = ["over_options", "task_of"]


def task_of(saved: Checkpoint, options: Sequence[str] = (), **changes: Any) -> SimulatedTask:
    """Return a checkpoint's task, with ``name=value`` options over those of the training.

    Raises:
        NdpError: If there is no such task here, or it has no simulated arm.
    """
    record = saved.trained_on()
    under = list(record.task_options)
    choice = TaskChoice(
        record.task, saved.spec.k, record.preset, tuple(over_options(under, list(options)))
    )
    return require_simulated(choice.make(**changes), record.task)
