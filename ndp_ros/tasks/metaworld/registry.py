# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Names of Meta-World's tasks in the benchmark and in gymnasium."""

from __future__ import annotations

import gymnasium

TASKS = tuple(
    """
    assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall
    button-press button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble
    door-close door-lock door-open door-unlock hand-insert drawer-close drawer-open faucet-open
    faucet-close hammer handle-press-side handle-press handle-pull-side handle-pull lever-pull
    pick-place-wall pick-out-of-hole pick-place plate-slide plate-slide-side plate-slide-back
    plate-slide-back-side peg-insert-side peg-unplug-side soccer stick-push stick-pull push
    push-wall push-back reach reach-wall shelf-place sweep-into sweep window-open window-close
    """.split()  # noqa: SIM905  (fifty lines otherwise)
)
"""The tasks in the benchmark's order, which is that of MT50's one-hot."""

MT50 = "mt50"
"""All fifty in one, with a one-hot in the observation."""

_ENTRY_POINT = "ndp_ros.tasks.metaworld.environment:MetaWorld"


def register() -> None:
    """Register the tasks with gymnasium; the first one that is made imports Meta-World."""
    for task in (*TASKS, MT50):
        gymnasium.register(gymnasium_id(task), entry_point=_ENTRY_POINT, kwargs={"task": task})
    paper = "ndp_ros/Faucet-v0"
    gymnasium.register(paper, entry_point=_ENTRY_POINT, kwargs={"task": "faucet-open"})


def gymnasium_id(task: str) -> str:
    """Return the gymnasium id of a task, such as ``ndp_ros/Faucet-Open-v0``.

    ``reach`` is ``ndp_ros/Sawyer-Reach-v0``: the short name is that of the task for any arm.
    """
    name = {MT50: "MT50", "reach": "Sawyer-Reach"}.get(task, task.title())
    return f"ndp_ros/{name}-v0"
