# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Declare the rows and scales of a comparison: experiments, changes, probes and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PAPER_NOISE = "action"
"""Exploration of the paper's NDP: independent noise on each action."""
FIRST_SEED = 1000
"""First start state of the episodes after the end of a run."""


@dataclass(frozen=True)
class Probe:
    """Conditions under which the last checkpoint of a run is measured once more."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task on top of the run's."""
    m: int | None = None
    """Euler steps a segment, for a system that runs on a finer grid than it was trained on."""
    episodes: int | None = None
    first_seed: int = FIRST_SEED


@dataclass(frozen=True)
class Row:
    """A curve of a figure."""

    task: str
    method: str
    panel: str
    """Panel of the picture."""
    curve: str = ""
    """Name in the panel's legend; the method's if there is none."""
    experiment: str = ""
    """Shipped experiment on top of that of task and method."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Values on top of both, as a configuration file has them."""
    noise: str = PAPER_NOISE
    """Exploration of a method that has a choice."""
    probes: Mapping[str, Probe] = field(default_factory=dict)
    stage: int = 0
    """Stages are worked on one after the other, each seed by seed."""
    seeds: Mapping[str, int] = field(default_factory=dict)
    """Seeds by scale, where they differ from the scale's."""
    at: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Values by scale, on top of all others."""
    home: str = ""
    """Study that the run belongs to, if that is another one."""

    @property
    def legend(self) -> str:
        """Name in the legend of its panel."""
        return self.curve or self.method

    @property
    def label(self) -> str:
        """Name in tables."""
        return f"{self.panel}, {self.legend}"


@dataclass(frozen=True)
class Scale:
    """Size of a study."""

    text: str
    seeds: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Values on top of every row's."""
    episodes: int = 100
    """Episodes of the last and of the best checkpoint after the end of a run."""
    first_seed: int = 0
    """Seed of the first run of a row."""


SMOKE = Scale(
    "a few hundred control steps, 1 seed; says nothing about the methods",
    1,
    {
        "samples": 640,
        "environments": 4,
        "evaluation_episodes": 2,
        "ppo": {"batch_size": 320, "minibatches": 4, "epochs": 2},
        "td3": {"collect": 160, "warm_up": 160, "replay_batch": 16},
        "dyne": {"random_steps": 320, "embedding_steps": 4, "decoder_steps": 4},
    },
    2,
)
