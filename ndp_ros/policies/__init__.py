# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The policies: the network phi, the distributions over actions and the critics.

Only :func:`make_policy` needs torch, and imports it when called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ndp_ros.policies.layout import Tensors, initial_tensors
from ndp_ros.policies.spec import KINDS, PolicySpec

if TYPE_CHECKING:
    from ndp_ros.policies.actor_critic import ActorCritic

__all__ = ["KINDS", "PolicySpec", "initial_tensors", "make_policy"]


def make_policy(spec: PolicySpec, tensors: Tensors | None = None, seed: int = 0) -> ActorCritic:
    """Return the torch policy of a specification.

    Its tensors are those given, as :func:`ndp_ros.checkpoint.load` returns them, or else the
    initial ones of a seed.
    """
    policy: ActorCritic
    if spec.method == "ndp":
        from ndp_ros.policies.ndp import NdpPolicy

        policy = NdpPolicy(spec)
    else:
        from ndp_ros.policies.actor_critic import ActionPolicy, BoundedPolicy

        policy = BoundedPolicy(spec) if spec.method == "bounded" else ActionPolicy(spec)
    policy.load_tensors(initial_tensors(spec, seed) if tensors is None else tensors)
    return policy
