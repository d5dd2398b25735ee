# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Compare NDP by TD3 with Dyn-E, and one curve with three where the way of a throw counts.

Both methods take as many gradient steps per control step, and all control steps count: those from
which Dyn-E learns its embedding too.
"""

from __future__ import annotations

from typing import Any

from ndp_ros.files import merged
from ndp_ros.paper.protocol import difference
from ndp_ros.paper.rows import Row
from ndp_ros.paper.segments import PROTOCOL, TASKS, Judged, judged_scales

_SAMPLES = 400_000
"""Control steps of a run, and horizon of its area."""
_STEPS = 0.2
"""Gradient steps per control step."""
_LENGTHS = {"ndp-td3": 10, "dyn-e": 5}
"""k of each method."""
_LABELS = {"ndp-td3": "NDP by TD3", "dyn-e": "Dyn-E"}
_CURVES = (1, 3)


def _values(method: str) -> dict[str, Any]:
    k = _LENGTHS[method]
    return {
        "k": k,
        "samples": _SAMPLES,
        "checkpoint_every": 10,
        "evaluation_episodes": 64,
        "td3": {"steps_per_window": _STEPS * k},
    }


ROWS = {
    **{
        f"{task}-{method}": Row(
            task, method, panel, _LABELS[method], changes=_values(method), stage=stage
        )
        for stage, (task, (panel, _)) in enumerate(TASKS.items())
        for method in _LENGTHS
    },
    **{
        f"throw-wall-r{r}": Row(
            "throw-wall",
            "ndp-td3",
            "Throw over a wall",
            f"r = {r}",
            changes=merged(_values("ndp-td3"), {"curves": r, "dmp": {"forcing": "free"}}),
            stage=len(TASKS),
        )
        for r in _CURVES
    },
}
_CLAIMS = [
    difference(f"NDP by TD3 is better than Dyn-E in {panel}", (f"{task}-ndp-td3", f"{task}-dyn-e"))
    for task, (panel, _) in TASKS.items()
] + [difference("Two forcing curves help to throw over a wall", ("throw-wall-r3", "throw-wall-r1"))]

OFF_POLICY = Judged(
    "off_policy",
    ROWS,
    judged_scales(
        f"seeds from {PROTOCOL.first_seed} on in groups of {PROTOCOL.group}, "
        f"{_SAMPLES:,} control steps"
    ),
    against="samples",
    contrasts=_CLAIMS,
    remark="Areas by control steps over the whole run, 64 episodes an evaluation. Every method "
    "takes one gradient step for five control steps.",
)
