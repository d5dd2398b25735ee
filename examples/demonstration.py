# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Fit a DMP to one demonstration and carry the motion over to new goals.

The demonstration is a reach with a detour, two joints at 100 Hz. `fit_segment` returns goal and
weights; another start or goal keeps the shape. The picture shows demonstration, fit and motions.
"""

from __future__ import annotations

import argparse

import numpy as np
from matplotlib.figure import Figure

from ndp_ros import DmpConfig, Segment, fit_segment

PERIOD, REACH, DURATION = 0.01, 1.5, 2.0  # [s]: the last half second is rest at the goal
DMP = DmpConfig(n_basis=25, forcing="outside")
"""Scaled forcing, w (g - y0): it grows and shrinks with the way to the goal."""


def demonstrate() -> np.ndarray:
    """Return positions (n, 2) [rad] of a reach that swings out on its way, with a shaking hand."""
    s = np.arange(1, round(REACH / PERIOD) + 1) * PERIOD / REACH
    reach = s**3 * (10.0 - 15.0 * s + 6.0 * s**2)
    way = np.stack((1.2 * reach, 0.4 * reach + 0.6 * np.sin(np.pi * reach)), axis=1)
    return way + np.random.default_rng(0).normal(0.0, 0.002, way.shape)


def main() -> None:
    """Fit, print how well, generalise, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", default="demonstration.png", help="picture")
    out = parser.parse_args().out

    shown = demonstrate()
    rest = np.zeros(2)
    fit = fit_segment(
        shown, PERIOD, y0=rest, yd0=rest, goal=shown[-1], duration=DURATION, config=DMP
    )
    print(f"fit: {1000 * fit.residual:.2f} mrad rms from the demonstration, {DMP.n_basis} weights")

    t = np.linspace(0.0, DURATION, 200)
    figure = Figure(figsize=(5.0, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(*shown.T, ".", color="0.7", ms=3, label="demonstration")
    axes.plot(*fit.motion.setpoints(t)[:, 0].T, color="black", label="fit")
    for goal in (np.array([1.2, 0.8]), np.array([1.6, 0.2]), np.array([0.8, 0.5])):
        # Position, velocity and acceleration (n, 3, dof) of the same weights with another goal.
        motion = Segment(DMP, goal, fit.segment.w, DURATION).bind(rest, rest).setpoints(t)
        ends = np.linalg.norm(motion[-1, 0] - goal)
        print(
            f"goal {goal}: ends {1000 * ends:.1f} mrad from it, at {motion[-1, 1].round(3)} rad/s"
        )
        axes.plot(*motion[:, 0].T, ls="--", label=f"goal ({goal[0]:g}, {goal[1]:g})")
        axes.plot(*goal, "x", color="black")
    axes.set(xlabel="joint 1 [rad]", ylabel="joint 2 [rad]")
    axes.legend()
    figure.savefig(out, dpi=150)
    print(f"picture: {out}")


if __name__ == "__main__":
    main()
