# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Reproduce the paper: its tables and figures as studies, and the queue of their runs.

A study (:mod:`~ndp_ros.paper.study`) declares rows and claims; :mod:`~ndp_ros.paper.queue` makes
its runs; the report is computed from their records. ``ndp reproduce`` is the only user.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

from ndp_ros.errors import TrainingError

if TYPE_CHECKING:
    from ndp_ros.paper.study import Study

__all__ = ["STUDIES", "load_study"]

STUDIES = {
    "experts": ("table1:EXPERTS", "Meta-World's experts of Table 1"),
    "table1": ("table1:TABLE1", "behaviour cloning: NN and NDP on five tasks"),
    "table2": ("table2:TABLE2", "digits: NDP, CNN and CNN-DMP (and Fig. 4)"),
    "mt50": ("mt50:MT50", "Meta-World's fifty tasks by one policy"),
    "fig5": ("figures:FIG5", "learning curves: NDP, PPO, PPO-multi"),
    "fig6": ("figures:FIG6", "push: kernels, N, integration steps, k"),
    "fig7": ("figures:FIG7", "push: learned alpha, only g, solver, weights"),
    "fig8": ("figures:FIG8", "throw: kernels, N, integration steps, k"),
    "fig9": ("figures:FIG9", "throw: as Fig. 7, and latency"),
    "noise": ("noise:NOISE", "exploration with correlated noise"),
    "tuning": (
        "segments:TUNING",
        "trials of noise of the segment and of PPO-multi at k = 5, 10, 20",
    ),
    "off_policy": ("off_policy:OFF_POLICY", "NDP by TD3 against Dyn-E"),
    "segments": ("segments:SEGMENTS", "noise of the segment, NDP against PPO-multi by k"),
}
"""Module and name of each study, with its summary."""


def load_study(name: str) -> Study:
    """Import a study.

    Raises:
        TrainingError: If there is none of that name.
    """
    if name not in STUDIES:
        raise TrainingError.choice("experiment", name, [*STUDIES, "all"])
    module, _, attribute = STUDIES[name][0].partition(":")
    found: Any = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    return cast("Study", found)
