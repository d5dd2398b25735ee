"""A new run that starts with the numbers of a checkpoint, such as of an easier task."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros import checkpoint
from ndp_ros.errors import TrainingError
from ndp_ros.paths import find_checkpoint
from ndp_ros.policies.layout import LOG_STD, VARIANCE, Layout
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.experiment import observed

_CONSTANT = 1e-6
"""An input with less variance than this has never changed."""


def start_tensors(
    spec: PolicySpec, name: str
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
    """Return the tensors of a checkpoint as those of a new run, and what its normaliser has seen.

    Inputs that were constant in the checkpoint's training, such as the place of a bin that
    never moved, count for nothing at first: nobody has trained their weights. The deviations
    are the new run's. The normaliser goes on from what the checkpoint's has seen: anew, it
    would turn the first batch's statistics on a network that was trained with others, and
    the policy would be lost before anything is learnt.

    Args:
        spec: The new run's policy.
        name: Folder of a checkpoint, or the name of one that ships.

    Returns:
        Tensors by name, and how many observations stand behind each input's statistics
        ``(n_obs,)``: none for an input that was constant.

    Raises:
        TrainingError: If the checkpoint is of another policy.
        CheckpointError: If it is damaged.
        ConfigError: If there is none.
    """
    saved = checkpoint.load(find_checkpoint(name))
    theirs, ours = Layout(saved.spec).tensors, Layout(spec).tensors
    for what, left, right in (
        ("method", saved.spec.method, spec.method),
        ("observation", saved.spec.observation, spec.observation),
        ("joints", saved.spec.joint_names, spec.joint_names),
        ("action_scale", saved.spec.action_scale, spec.action_scale),
        ("dmp", saved.spec.dmp, spec.dmp),
        ("goal_gain", saved.spec.goal_gain, spec.goal_gain),
        ("weight_gain", saved.spec.weight_gain, spec.weight_gain),
        ("weights", saved.spec.weights, spec.weights),
        ("learned_alpha", saved.spec.learned_alpha, spec.learned_alpha),
        ("networks", theirs, ours),
    ):
        if left != right:
            raise TrainingError(f"start_from {name}: {what} is {left}, of this run {right}")
    tensors: dict[str, NDArray[Any]] = {n: a.copy() for n, a in saved.tensors.items()}
    tensors[LOG_STD][:] = spec.init_log_std
    constant = tensors[VARIANCE] < _CONSTANT
    tensors[VARIANCE][constant] = 1.0
    for network in ("actor", "critic"):
        tensors[f"{network}.0.weight"][:, constant] = 0.0
    seen = observed(saved.provenance, saved.spec)
    return tensors, np.where(constant, 0.0, float(seen))
