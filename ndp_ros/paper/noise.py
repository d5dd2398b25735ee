# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Compare correlated noise with the paper's: NDP and PPO-multi on Throw and Pick.

The paper's exploration draws the noise of each of the k actions anew. This study measures how much
of the difference between methods lies in the noise and not in the policy.
"""

from __future__ import annotations

from dataclasses import replace

from ndp_ros.paper.claims import NOT_BELOW, Claim, claim
from ndp_ros.paper.comparison import Comparison
from ndp_ros.paper.figures import ARM, FIG5_ROWS, at_short
from ndp_ros.paper.rows import PAPER_NOISE, SMOKE, Row, Scale
from ndp_ros.training.experiments import shipped

CORRELATION = 0.8
WIDER = 0.64
"""Increase of the log deviation with which independent noise moves the setpoint as far over a
window of five: the deviation of the sum is 4.3 times an action's with correlation, 2.2 without.
"""
_METHODS = {"ndp": "NDP", "ppo-multi": "PPO-multi"}
_TWO = {"short": 2}


def _rows() -> dict[str, Row]:
    """Return each method with the noise of Figure 5, which makes those runs, and with others."""
    rows = {}
    for task, panel in ARM.items():
        for method, name in _METHODS.items():
            row, config = f"{task}-{method}", shipped(task, method, noise=PAPER_NOISE)
            rows[row] = replace(FIG5_ROWS[row], curve=f"{name}, independent", home="fig5")
            rows[f"{row}-correlated"] = Row(
                task,
                method,
                panel,
                f"{name}, correlated",
                at=at_short(task),
                changes={"ppo": {"noise_correlation": CORRELATION}},
            )
            if task == "throw":
                assert config.final_log_std is not None
                rows[f"{row}-wider"] = Row(
                    task,
                    method,
                    panel,
                    f"{name}, wider",
                    at=at_short(task),
                    seeds=_TWO,
                    changes={
                        "init_log_std": config.init_log_std + WIDER,
                        "final_log_std": config.final_log_std + WIDER,
                    },
                )
    return rows


def _claims() -> list[Claim]:
    tasks = [(task, panel, m, name) for task, panel in ARM.items() for m, name in _METHODS.items()]
    found = []
    for task, panel, method, name in tasks:
        text = f"{name} learns {panel} from fewer observations with correlated noise"
        found.append(claim(text, f"{task}-{method}-correlated", f"{task}-{method}"))
    for method, name in _METHODS.items():
        text = f"{name} learns Throw from fewer observations with correlated noise than with "
        text += "independent noise that moves as far"
        found.append(claim(text, f"throw-{method}-correlated", f"throw-{method}-wider"))
    for task, panel in ARM.items():
        text = f"With correlated noise in both, NDP is at least as good as PPO-multi in {panel}"
        ndp, multi = f"{task}-ndp-correlated", f"{task}-ppo-multi-correlated"
        found.append(claim(text, ndp, multi, NOT_BELOW))
    return found


NOISE = Comparison(
    "noise",
    _rows(),
    {
        "smoke": SMOKE,
        "short": Scale(
            "the shipped experiments, 3 seeds, 2 of wider noise; those with independent noise are "
            "Figure 5's; Throw for 1.2 million control steps instead of 2",
            3,
        ),
        "full": Scale("the shipped experiments, 10 seeds", 10),
    },
    _claims(),
    remark=(
        f"Correlated: {CORRELATION:g} between the noise of one control step and the next inside "
        "a window (`--noise-correlation`), every action with the deviation that it has without; "
        "over a window such noise moves the setpoint 1.9 times as far. Wider: independent noise "
        "of 1.9 times the deviation, which moves it as far."
    ),
)
