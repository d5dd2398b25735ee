"""Correlated noise beside the paper's: NDP and PPO-multi on Throw and Pick.

Not in the paper, whose exploration draws the noise of each of the k actions anew. How much of
the difference between methods lies in the noise and not in the policy is what this asks.
"""

from __future__ import annotations

from dataclasses import replace

from ndp_ros.training.claims import ABOVE, NOT_BELOW, Claim
from ndp_ros.training.comparison import SMOKE, Comparison, Row, Scale
from ndp_ros.training.figures import ARM, FIG5_ROWS, at_short

CORRELATION = 0.8
_METHODS = {"ndp": "NDP", "ppo-multi": "PPO-multi"}


def _rows() -> dict[str, Row]:
    """Return each method with the noise of Figure 5, whose runs those are, and with ours."""
    rows = {}
    for task, panel in ARM.items():
        for method, name in _METHODS.items():
            plain = FIG5_ROWS[f"{task}-{method}"]
            rows[f"{task}-{method}"] = replace(plain, curve=f"{name}, independent", home="fig5")
            rows[f"{task}-{method}-correlated"] = Row(
                task, method, panel, f"{name}, correlated", at=at_short(task),
                changes={"ppo": {"noise_correlation": CORRELATION}},
            )  # fmt: skip
    return rows


def _claims() -> list[Claim]:
    found = [
        Claim(
            f"{name} learns {panel} from fewer observations with correlated noise",
            ((f"{task}-{method}-correlated", f"{task}-{method}"),), ABOVE,
        )
        for task, panel in ARM.items()
        for method, name in _METHODS.items()
    ]  # fmt: skip
    return found + [
        Claim(
            f"With correlated noise in both, NDP is at least as good as PPO-multi in {panel}",
            ((f"{task}-ndp-correlated", f"{task}-ppo-multi-correlated"),), NOT_BELOW,
        )
        for task, panel in ARM.items()
    ]  # fmt: skip


NOISE = Comparison(
    "noise",
    _rows(),
    {
        "smoke": SMOKE,
        "short": Scale(
            "the shipped experiments, 3 seeds; those with independent noise are Figure 5's; Throw "
            "for 1.2 million control steps instead of 2", 3,
        ),
        "full": Scale("the shipped experiments, 10 seeds", 10),
    },
    _claims(),
    remark=(
        f"Correlated: {CORRELATION:g} between the noise of one control step and the next inside "
        "a window (`--noise-correlation`); every action has the deviation that it has without."
    ),
)  # fmt: skip
