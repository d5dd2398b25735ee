# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Fit a network whose last layer is a DMP to curves in the plane.

Each sample is an arc from the origin: its end and its height are the network's input, the curve is
the target. The network predicts the goal g and the weights w; the loss is on the positions and its
gradient flows through the dynamical system (eqs. 23 and 29 of the paper).
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor, nn

from ndp_ros import DmpConfig, DmpLayer

K = 25
"""Points of a curve."""
DMP = DmpConfig(n_basis=10, alpha=25.0, forcing="free")


class ArcNetwork(nn.Module):
    """Network from a description of a curve (batch, 3) to the curve (batch, K, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 2 * (1 + DMP.n_basis)))
        self.dmp = DmpLayer(DMP, K)

    def forward(self, description: Tensor) -> Tensor:
        """Return the curves."""
        outputs = self.body(description).view(len(description), 2, -1)
        g, w = outputs[..., 0], 100.0 * outputs[..., 1:]  # accelerations are large per segment
        start = torch.zeros_like(g)
        curves: Tensor = self.dmp(start, start, g, w)
        return curves


def arcs(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return descriptions (n, 3), end and height, and curves (n, K, 2) of minimum jerk."""
    description = 2.0 * torch.rand(n, 3, generator=generator) - 1.0
    t = torch.arange(1, K + 1) / K
    along = t**3 * (10.0 - 15.0 * t + 6.0 * t**2)
    curves = description[:, None, :2] * along[:, None]
    curves[..., 1] += description[:, 2:] * torch.sin(math.pi * along)
    return description, curves


def main() -> None:
    """Train and print the error on arcs that were not trained on."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=600, help="gradient steps (default: 600)")
    steps = parser.parse_args().steps

    torch.manual_seed(0)
    network, generator = ArcNetwork(), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    test_description, test_curves = arcs(300, generator)
    for step in range(steps):
        description, curves = arcs(64, generator)
        loss = torch.mean((network(description) - curves) ** 2)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % max(1, steps // 5) == 0 or step == steps - 1:
            with torch.inference_mode():
                error = torch.mean((network(test_description) - test_curves) ** 2).sqrt()
            print(f"step {step:5}  held-out error {error:.4f} (arcs are up to 1 wide and high)")


if __name__ == "__main__":
    main()
