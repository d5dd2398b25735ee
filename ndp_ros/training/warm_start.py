# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Initial weights of a run from a checkpoint, such as one of an easier task."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros import checkpoint
from ndp_ros.errors import TrainingError
from ndp_ros.observation import field_slices
from ndp_ros.paths import find_checkpoint
from ndp_ros.policies.layout import LOG_STD, VARIANCE, Layout
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.provenance import observed

_CONSTANT = 1e-6
"""An input with less variance was constant."""
_MUST_AGREE = (
    *("method", "observation", "joint_names", "action_scale", "dmp"),
    *("goal_gain", "weight_gain", "weights", "learned_alpha"),
)
"""Fields of the specification that the checkpoint must share with the run."""


def start_tensors(
    spec: PolicySpec, name: str
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
    """Return a new run's tensors from a checkpoint, and the counts behind its normaliser.

    Weights of inputs that were constant in the checkpoint's training, such as the position of a
    fixed bin, are set to zero, because they are untrained. Standard deviations are those of the
    new run. The normaliser continues from the checkpoint's statistics: new statistics from the
    first batch would not fit the trained network and would spoil the policy.

    Returns:
        Tensors by name, and the number of observations behind each input's statistics
        ``(n_obs,)``, which is 0 for an input that was constant.

    Raises:
        TrainingError: If the checkpoint has another kind of policy.
        CheckpointError: If it is damaged.
        ConfigError: If there is none.
    """
    saved = checkpoint.load(find_checkpoint(name))
    compared = [(field, getattr(saved.spec, field), getattr(spec, field)) for field in _MUST_AGREE]
    compared.append(("networks", Layout(saved.spec).tensors, Layout(spec).tensors))
    for field, theirs, ours in compared:
        if theirs != ours:
            raise TrainingError(f"start_from {name}: {field} is {theirs}, in this run {ours}")
    tensors: dict[str, NDArray[Any]] = {n: a.copy() for n, a in saved.tensors.items()}
    tensors[LOG_STD][:] = spec.init_log_std
    constant = tensors[VARIANCE] < _CONSTANT
    tensors[VARIANCE][constant] = 1.0
    # Images become features, which come after all vectors.
    vectors = [constant[where] for f, where in field_slices(spec.observation) if not f.image]
    columns = np.flatnonzero(np.concatenate(vectors))
    for network in ("actor", "critic"):
        tensors[f"{network}.0.weight"][:, columns] = 0.0
    seen = observed(saved.provenance, saved.spec)
    return tensors, np.where(constant, 0.0, float(seen))
