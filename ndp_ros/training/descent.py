"""One step down a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from ndp_ros.errors import TrainingError


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, name: str, rate: str) -> None:
    """Take one optimiser step down a loss.

    Gradients of parameters that are not the optimiser's are not computed.

    Args:
        optimiser: Of the parameters that may move.
        loss: A single number.
        name: What the loss belongs to.
        rate: Option that sets the size of the step.

    Raises:
        TrainingError: If the loss is not finite.
    """
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss of the {name} is not finite: lower {rate}")
    optimiser.zero_grad()
    loss.backward(inputs=[p for group in optimiser.param_groups for p in group["params"]])
    optimiser.step()
