# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Table 1 of the paper: behaviour cloning of PPO experts by NN and by NDP.

The expert of a task is the PPO policy (k = 1) that succeeds most often of its seeds, at its best
checkpoint by evaluation: of Throw and Pick those of Figure 5, of Meta-World's tasks policies
trained for this table with the v1 rewards, with which PPO succeeds. Both learners have the same
hidden layers and normaliser; NDP has (1 + N) outputs a joint, NN has k.
"""

from __future__ import annotations

from dataclasses import replace

from ndp_ros.paper.claims import ABOVE, BELOW, Claim, claim
from ndp_ros.paper.comparison import Comparison
from ndp_ros.paper.figures import FIG5, TASKS
from ndp_ros.paper.imitation import Imitation
from ndp_ros.paper.rows import SMOKE, Row, Scale

_ARM, _META_WORLD = ("throw", "pick"), ("push", "soccer", "faucet-open")

PAPER = {
    "throw-nn": (0.528, 0.262), "throw-ndp": (0.642, 0.246),
    "pick-nn": (0.672, 0.074), "pick-ndp": (0.408, 0.058),
    "push-nn": (0.002, 0.004), "push-ndp": (0.208, 0.049),
    "soccer-nn": (0.885, 0.016), "soccer-ndp": (0.890, 0.010),
    "faucet-open-nn": (0.532, 0.231), "faucet-open-ndp": (0.790, 0.059),
}  # fmt: skip
"""Table 1 of the paper: success and its deviation."""

_EXPERT = {
    "task_options": ["horizon=250", "reward=v1"],
    "init_log_std": -0.5,
    "final_log_std": -1.6,
    "checkpoint_every": 20,
    "ppo": {"batch_size": 4000, "minibatches": 16, "clip": 0.2},
}
"""One configuration of PPO for Meta-World's three experts."""
_EXPERT_SAMPLES = {"push": 600_000, "soccer": 1_500_000, "faucet-open": 600_000}

EXPERTS = Comparison(
    "experts",
    {
        f"{task}-ppo": Row(
            task,
            "ppo",
            TASKS[task],
            changes=_EXPERT,
            at={scale: {"samples": _EXPERT_SAMPLES[task]} for scale in ("short", "full")},
        )
        for task in _META_WORLD
    },
    {
        "smoke": SMOKE,
        "short": Scale("600,000 control steps, in Soccer 1,500,000, 1 seed", 1),
        "full": Scale("600,000 control steps, in Soccer 1,500,000, 3 seeds", 3),
    },
    remark="PPO with the v1 rewards; success is the benchmark's and has nothing to do with them.",
)

ROWS = {
    f"{task}-{kind}": Row(task, f"bc-{kind}", TASKS[task], label, stage=stage)
    for stage, tasks in enumerate((_ARM, _META_WORLD))
    for task in tasks
    for kind, label in (("nn", "NN"), ("ndp", "NDP"))
}

_SMOKE = replace(
    SMOKE, changes={"evaluation_episodes": 2, "bc": {"passes": 2, "only_successful": False}}
)


def _claims() -> list[Claim]:
    found = []
    for task in _ARM + _META_WORLD:
        ndp, nn, title = f"{task}-ndp", f"{task}-nn", TASKS[task]
        order, kind = ("above", ABOVE) if PAPER[ndp] > PAPER[nn] else ("below", BELOW)
        text = f"NDP {order} NN in {title}"
        found.append(claim(text, ndp, nn, kind, "last", "Table 1"))
    for task in _ARM + _META_WORLD:
        ndp, text = f"{task}-ndp", f"NDP above the paper's own figure in {TASKS[task]}"
        found.append(claim(text, ndp, PAPER[ndp][0], ABOVE, "last"))
    return found


TABLE1 = Imitation(
    "table1",
    ROWS,
    {
        "smoke": _SMOKE,
        "short": Scale("200 demonstrations, 200 passes over them, 5 seeds", 5),
        "full": Scale("200 demonstrations, 200 passes over them, 10 seeds", 10),
    },
    {"smoke": 3, "short": 200, "full": 200},
    (EXPERTS, FIG5),
    PAPER,
    _claims(),
)
