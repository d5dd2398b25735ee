# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Draw the panels of a study: learning curves, and figures by the length of a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ndp_ros.pictures.style import Look, looks, picture, thousands
from ndp_ros.training.curve_pictures import AXES, draw_band
from ndp_ros.training.curves import Curve, bands

_COLUMNS = 3
"""Most panels side by side."""
_WIDTHS = (6.4, 4.8, 3.4)
"""Width of one of one, two or three panels [in]."""
_LETTERS = 6.0
"""Letters of a label for each inch of a panel that leave room for another label beside it."""


def draw_panels(
    runs: Sequence[Mapping[str, Any]],
    panels: Mapping[str, Sequence[str]],
    legends: Mapping[str, str],
    against: str,
    path: Path,
) -> None:
    """Draw the evaluations of the finished runs.

    Panels are rows by title; those without a finished run are left out. Legends name every row, and
    ``against`` is the horizontal axis, ``observed`` or ``samples``.
    """
    runs = [r for r in runs if r["status"] == "done" and r["curve"]]
    begun = {t: rows for t, rows in panels.items() if any(run["row"] in rows for run in runs)}
    panels = begun or panels
    columns = 2 if len(panels) == 4 else min(len(panels), _COLUMNS)
    lines = -(-len(panels) // columns)
    with picture(path, _WIDTHS[columns - 1] * columns, 3.5 * lines) as figure:
        axes = figure.subplots(lines, columns, squeeze=False)
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        everywhere = looks([legends[row] for rows in panels.values() for row in rows])
        for ax, (title, rows) in zip(axes.flat, panels.items(), strict=False):
            _draw_panel(ax, [r for r in runs if r["row"] in rows], legends, against, everywhere)
            ax.set(title=title, xlabel=AXES[against], ylim=(-0.02, 1.02))
        for ax in axes[:, 0]:
            ax.set_ylabel(AXES["eval_success"])
        figure.supxlabel("in brackets: number of seeds", fontsize=8, color="0.4")


def draw_by_k(
    panels: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]], label: str, path: Path
) -> None:
    """Draw a figure of each method over k: points for the seeds, a line through their means.

    Values are by title, method and k, one a seed; the label is that of the vertical axis.
    """
    everywhere = looks([method for methods in panels.values() for method in methods])
    with picture(path, _WIDTHS[1] * len(panels), 3.5) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for ax, (title, methods) in zip(axes, panels.items(), strict=True):
            lengths = sorted({k for values in methods.values() for k in values})
            for method, values in methods.items():
                look = everywhere[method]
                means = [(k, float(np.mean(values[k]))) for k in sorted(values)]
                ax.plot(*zip(*means, strict=True), look.line, color=look.colour)
                ax.plot([], [], look.line + look.marker, color=look.colour, ms=3.5, label=method)
                seeds = [(k, value) for k in values for value in values[k]]
                ax.plot(
                    *zip(*seeds, strict=True), look.marker, color=look.colour, ms=3.5, alpha=0.6
                )
            ax.set(
                title=title, xlabel="k, control steps a decision", xscale="log", ylim=(-0.02, 1.02)
            )
            ax.set_xticks(lengths, [str(k) for k in lengths])
            ax.minorticks_off()
        axes[0].set_ylabel(label)
        axes[-1].legend()


def _draw_panel(
    ax: Any,
    runs: Sequence[Mapping[str, Any]],
    legends: Mapping[str, str],
    against: str,
    everywhere: Mapping[str, Look],
) -> None:
    """Draw the runs of one panel, with its legend below: the curves need all of the panel."""
    curves = []
    for run in runs:
        points = np.array([[p[against], p["eval_success"]] for p in run["curve"]])
        curves.append(Curve(legends[run["row"]], run["seed"], points[:, 0], points[:, 1]))
    for group in bands(curves):
        draw_band(ax, group, f"{group.label} ({group.seeds})", everywhere[group.label])
    if not curves:
        return
    if against == "observed":
        _decades(ax)
    else:
        thousands(ax.xaxis)
    labels = ax.get_legend_handles_labels()[1]
    wide = ax.get_figure().get_figwidth() / ax.get_subplotspec().get_gridspec().ncols
    columns = 1 if max(map(len, labels)) > _LETTERS * wide else 2
    ax.legend(
        ncols=columns,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        borderaxespad=4.5,
        columnspacing=1.0,
    )


def _decades(ax: Any) -> None:
    """Make the horizontal axis logarithmic, with labels at 1, 2 and 5 of a decade."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    ax.xaxis.set_major_formatter(EngFormatter(sep=" "))
    ax.xaxis.set_minor_formatter(NullFormatter())
