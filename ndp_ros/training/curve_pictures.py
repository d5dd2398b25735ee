# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Draw learning curves: steps from evaluation to evaluation, single seeds where they are few."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ndp_ros.pictures.style import Look, looks, picture, thousands
from ndp_ros.training.curves import Band

_FEW = 5
"""Most seeds whose own curves are drawn beside the band."""
_MARKED = 60
"""Most evaluations that are marked by a point each."""
_WIDTH, _INSIDE = 62, 4
"""Letters in a line of a picture, and lines of a legend that fit inside the axes."""
AXES = {
    "observed": "observations by the policy",
    "samples": "control steps",
    "seconds": "time [s]",
    "eval_success": "success, deterministic evaluation",
    "success": "success while training",
    "eval_return": "return, deterministic evaluation",
    "return": "return while training",
    "tracking_rms": "tracking error, rms [mrad; of a hand mm]",
    "eval_tracking_rms": "tracking error in evaluation, rms [mrad; of a hand mm]",
    "max_joint_speed": "fastest joint [rad/s]",
    "eval_max_joint_speed": "fastest joint in evaluation [rad/s]",
}
"""Names of columns of a run's log on an axis, with units."""
_THOUSANDTHS = ("tracking_rms", "eval_tracking_rms")
"""Columns that are drawn in thousandths of the log's unit."""


def draw_band(axes: Any, group: Band, label: str, look: Look) -> None:
    """Draw a band with its label into axes of matplotlib."""
    how: dict[str, Any] = {"color": look.colour, "label": label}
    if group.x[0] == group.x[-1]:  # one point, which a line would not show
        ends = np.abs(np.array([group.low[:1], group.high[:1]]) - group.middle[:1])
        how |= {"marker": look.marker, "ls": "", "capsize": 3}
        axes.errorbar(group.x[:1], group.middle[:1], ends, **how)
        return
    marker = look.marker if len(group.x) <= _MARKED else ""
    axes.step(
        group.x, group.middle, where="post", ls=look.line, marker=marker, ms=2, zorder=3, **how
    )
    if group.seeds == 1:
        return
    axes.fill_between(
        group.x, group.low, group.high, step="post", color=look.colour, alpha=0.14, lw=0, zorder=1
    )
    for curve in group.curves if group.seeds <= _FEW else ():
        thin = {"color": look.colour, "lw": 0.6, "alpha": 0.55, "zorder": 2}
        axes.step(curve.x, curve.y, where="post", label="_", **thin)


def draw(groups: Sequence[Band], figure: str, against: str, path: Path, title: str = "") -> None:
    """Draw bands into a picture; the ending of the path decides its format.

    ``figure`` is the column of the log that they show, ``against`` that of the horizontal axis.

    Raises:
        ConfigError: If it cannot be written.
    """
    labels = [
        textwrap.fill(f"{g.label} ({g.seeds} seed{'s' if g.seeds != 1 else ''})", _WIDTH)
        for g in groups
    ]
    lines = sum(label.count("\n") + 1 for label in labels)
    beside = lines > _INSIDE  # inside, they would cover the curves
    height = 4.0 + (0.2 * lines if beside else 0.0)
    found = looks([g.label for g in groups])
    with picture(path, 6.4, height) as drawing:
        axes = drawing.subplots()
        for group, label in zip(groups, labels, strict=True):
            draw_band(axes, group, label, found[group.label])
        axes.set(xlabel=AXES.get(against, against), ylabel=AXES.get(figure, figure))
        thousands(axes.xaxis)
        if figure in _THOUSANDTHS:
            axes.yaxis.set_major_formatter(lambda value, _: f"{1e3 * value:.6g}")
        if "success" in figure:
            axes.set_ylim(-0.02, 1.02)
        axes.set_title(textwrap.fill(title, _WIDTH))
        if beside:
            drawing.legend(loc="outside lower center")
        else:
            axes.legend()
