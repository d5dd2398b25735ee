# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The table of methods: how each one acts and learns, one row a method.

``ndp train --method`` takes the name of a row. All code that depends on the method reads its row,
so that a new method is a row here and, where it learns in a new way, a run class.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ndp_ros.training.trainer import Trainer

STEP, WINDOW, HELD = "step", "window", "held"
"""Values of :attr:`Method.timing`."""


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        policy: Kind of policy, a value of ``PolicySpec.method``.
        learner: How it learns, a name in :data:`LEARNERS`.
        timing: ``step``: one action from the observation of every control step; ``window``:
            k actions from one observation; ``held``: one action that lasts k control steps.
        impedance: Coordinates whose impedance the actions set, ``joints`` or ``hand``; empty
            where actions displace the setpoint.
        random_motion: Options of the run that count control steps of random motion before the
            policy starts to learn.
        always: Options of the policy that the method leaves no choice of.
    """

    policy: str
    learner: str = "ppo"
    timing: str = WINDOW
    impedance: str = ""
    random_motion: tuple[str, ...] = ()
    always: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def embedded(self) -> bool:
        """Whether actions are points of a learnt embedding, which the environment decodes."""
        return self.policy == "bounded"

    @property
    def draws_segments(self) -> bool:
        """Whether exploration noise can be drawn once a segment, in curve amounts."""
        return self.policy == "ndp" and self.learner in ("ppo", "td3")

    @property
    def sees_images(self) -> bool:
        """Whether it can learn from images: a convolutional network comes before phi."""
        return self.learner in ("ppo", "imitation") and not self.impedance

    @property
    def learns_in_torch(self) -> bool:
        """Whether all of it learns in torch, with or without images."""
        return self.learner in ("td3", "dyn-e")

    @property
    def correlates_noise(self) -> bool:
        """Whether exploration noise can be correlated within a window."""
        return self.learner == "ppo" and self.timing == WINDOW


_PPO = Method("ppo", timing=STEP)

METHODS: dict[str, Method] = {
    "ndp": Method("ndp"),
    "ppo": _PPO,
    "ppo-multi": Method("ppo-multi"),
    "ndp-td3": Method(
        "ndp",
        learner="td3",
        random_motion=("td3.warm_up",),
        always=MappingProxyType({"noise": "segment", "squashed": True}),
    ),
    "bc-ndp": Method("ndp", learner="imitation"),
    "bc-nn": Method("ppo-multi", learner="imitation"),
    "vices": replace(_PPO, impedance="joints"),
    "vices-pos": replace(_PPO, impedance="hand"),
    "vices-low-freq": replace(_PPO, impedance="joints", timing=HELD),
    "dyn-e": Method(
        "bounded", learner="dyn-e", timing=HELD, random_motion=("td3.warm_up", "dyne.random_steps")
    ),
}
"""Every method by name."""

LEARNERS = {
    "ppo": ("ndp_ros.training.on_policy", "PpoRun"),
    "imitation": ("ndp_ros.training.imitation", "ImitationRun"),
    "td3": ("ndp_ros.training.baselines.off_policy", "Td3Run"),
    "dyn-e": ("ndp_ros.training.baselines.dyn_e", "DynERun"),
}
"""Module and run class of each learner; the off-policy ones need torch."""


def learnt_by(learner: str) -> tuple[str, ...]:
    """Return the names of the methods with a learner."""
    return tuple(name for name, row in METHODS.items() if row.learner == learner)


def run_class(learner: str) -> type[Trainer]:
    """Import the run class of a learner."""
    module, name = LEARNERS[learner]
    found: type[Trainer] = getattr(importlib.import_module(module), name)
    return found
