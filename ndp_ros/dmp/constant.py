# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A numpy array as a torch tensor on any device, safe across the modes of torch.

A layer keeps such tensors between calls. A tensor made in inference mode could never be trained
with, and a tensor that a fake mode or functorch has wrapped is of no use outside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active

ORDINARY = (Tensor, nn.Parameter)
"""Classes of tensors that hold numbers of their own, unlike fake ones."""


class Constant:
    """An array with a tensor of it for each device, made on demand.

    Attributes:
        array: The numbers.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        self._tensors: dict[torch.device, Tensor] = {}

    def like(self, tensor: Tensor) -> Tensor:
        """Return the numbers on a tensor's device, in a form that can be combined with it."""
        ordinary = type(tensor) in ORDINARY
        kept = self._tensors.get(tensor.device)
        if kept is not None and ordinary:
            return kept
        with torch.inference_mode(False):
            if not ordinary:
                return torch.tensor(self.array, device=tensor.device)
            made = torch.from_numpy(np.array(self.array)).to(tensor.device)
        if not _are_functorch_transforms_active():
            self._tensors[tensor.device] = made
        return made
