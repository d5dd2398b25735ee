# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Run Φ, the network of a checkpoint, on single observations.

The policy node calls it once a segment. It is computed in numpy: on a single observation torch
takes four times as long, and two seconds and 200 MB to be imported.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ndp_ros import checkpoint
from ndp_ros.errors import CheckpointError
from ndp_ros.nodes.observer import topic_of
from ndp_ros.observation import SIGNAL_FIELDS, field_slice
from ndp_ros.paths import find_checkpoint
from ndp_ros.policies import PolicySpec
from ndp_ros.policies.array_policy import ArrayPolicy


class Phi:
    """Φ, loaded from a checkpoint and tried once.

    Attributes:
        name: Folder or name under which it was asked for.
        id: Identity of the checkpoint.
        spec: Specification of the policy.
        setpoint: Place of the setpoint in the observation vector.
    """

    def __init__(self, name: str, arm: str) -> None:
        """Load a checkpoint, made for an arm unless that is empty; check it and run it once.

        Raises:
            NdpError: If it is missing, damaged, no NDP or made for another arm.
        """
        loaded = checkpoint.load(find_checkpoint(name))
        self.name = name
        self.id = loaded.id
        self.spec: PolicySpec = loaded.spec
        if arm and self.spec.arm != arm:
            raise CheckpointError(f"{name} was made for arm {self.spec.arm!r}, not {arm!r}")
        if self.spec.method != "ndp":
            raise CheckpointError(
                f"{name} holds method {self.spec.method!r}: only 'ndp' yields DMP parameters"
            )
        self.setpoint = field_slice(self.spec.observation, "setpoint")
        self._policy = ArrayPolicy(self.spec, loaded.tensors)
        # The first pass allocates; it must not be the first segment of a motion.
        g, w = self(np.zeros(sum(f.size for f in self.spec.observation)))
        if not (np.isfinite(g).all() and np.isfinite(w).all()):
            raise CheckpointError(
                f"{name}: a trial pass gives a goal or weights that are not finite"
            )

    def __call__(self, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return g (dof,) and w (dof, N) for an observation (n_obs,)."""
        g, w = self._policy.parameters_of(obs[None])
        return g[0].astype(np.float64), w[0].astype(np.float64)

    def require_fit(self, running: Phi, absent: Sequence[str]) -> None:
        """Check that this policy can take over from another; nobody publishes ``absent`` topics.

        Raises:
            CheckpointError: If it cannot; the message names every field that differs.
        """
        found, here = [], running.spec
        for field in ("arm", "joint_names"):
            theirs, ours = getattr(self.spec, field), getattr(here, field)
            if theirs != ours:
                found.append(f"{field} is {_listed(theirs)}, here {_listed(ours)}")
        sizes = {f.name: f.size for f in here.observation if f.name in SIGNAL_FIELDS}
        for f in self.spec.observation:
            if sizes.get(f.name, f.size) != f.size:
                found.append(f"observation {f.name} has {f.size} values, here {sizes[f.name]}")
            elif (topic := topic_of(f.name)) in absent:
                found.append(f"observation {f.name} comes from {topic}, which nobody publishes")
        if found:
            raise CheckpointError(
                f"{self.name} does not fit what runs, {running.id}: {'; '.join(found)}"
            )


def _listed(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else f"({', '.join(value)})"
