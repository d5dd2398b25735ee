# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Draw an episode from its recording: joints planned and measured, and the hand's path in space."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np

from ndp_ros.control.arm_model import GRIP
from ndp_ros.errors import TaskError
from ndp_ros.pictures.style import ERROR, GOAL, MEASURED, OBJECT, PLANNED, picture
from ndp_ros.tasks.recording import Recording

_WIDE = 0.2
"""Least half-width of the view from above [m]."""
_LONG = 1.0
"""Length from which on an axis in space has fewer numbers [m]."""
_LONGEST = 13
"""Letters of a line of a joint's name beside its row."""
_MARKED = 40
"""Most borders of segments that are marked; more would hide the curves."""
_MARKERS = "PDv^*"
"""Markers of objects, in their order."""
_MARGIN = 0.12
"""Free space around what is drawn in space [m]."""


def draw_joints(recording: Recording, path: Path, title: str = "") -> None:
    """Draw planned and measured joint angles, with the tracking error on axes of its own.

    Without a title, checkpoint, start state and result are it.

    Raises:
        TaskError: If nothing was recorded.
        ConfigError: If the picture cannot be written.
    """
    if not recording.times:
        raise TaskError(f"no plot {path}: nothing was recorded")
    times, measured = np.array(recording.times), np.array(recording.position)
    planned = np.array(recording.setpoint)
    dof = measured.shape[1]
    box = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1.0}
    plate: dict[str, Any] = {"bbox": box, "ha": "right", "va": "top", "fontsize": 7}
    with picture(path, 9.6, 1.05 * dof + 1.0) as figure:
        grid = figure.subplots(dof, 2, sharex=True, squeeze=False, width_ratios=(3, 2))
        for joint, (ax, off) in enumerate(grid):
            ax.plot(times, planned[:, joint], color=PLANNED, lw=3.0, alpha=0.45, label="planned")
            ax.plot(times, measured[:, joint], color=MEASURED, lw=1.0, label="measured")
            error = 1e3 * (measured[:, joint] - planned[:, joint])
            off.axhline(0.0, color="0.75", lw=0.8)
            off.plot(times, error, color=ERROR, lw=1.0)
            ax.set_ylabel(f"{_wrapped(recording.joint_names[joint])}\n[rad]", fontsize=8)
            note = f"rms {np.sqrt(np.mean(error**2)):.1f}, most {np.abs(error).max():.1f} mrad"
            off.text(0.99, 0.98, note, transform=off.transAxes, **plate)
            off.margins(y=0.3)
            for one in (ax, off):
                _mark_segments(one, recording)
                one.locator_params(axis="y", nbins=4)
                one.set_xlim(times[0], times[-1])
        grid[0, 0].set_title("joint angle")
        grid[0, 1].set_title("measured − planned [mrad]")
        since = "time from the first segment [s]" if recording.segments else "time [s]"
        for ax in grid[-1]:
            ax.set_xlabel(since)
        lines = dict(zip(*grid[0, 0].get_legend_handles_labels()[::-1], strict=True))
        figure.legend(
            list(lines.values()), list(lines), loc="outside lower center", ncols=len(lines)
        )
        figure.suptitle(title or _title(recording))


def draw_hand(recording: Recording, path: Path, title: str = "") -> None:
    """Draw the path of the hand in space, from the side and from above, with release and landing.

    Without a title, checkpoint, start state and result are it.

    Raises:
        TaskError: If the path of the hand was not recorded.
        ConfigError: If the picture cannot be written.
    """
    if not recording.hand:
        raise TaskError(f"no plot {path}: the path of the hand was not recorded")
    with picture(path, 9.6, 5.2) as figure:
        figure.set_layout_engine("constrained", wspace=0.14)
        space: Any = figure.add_subplot(1, 2, 1, projection="3d")
        side, above = figure.add_subplot(2, 2, 2), figure.add_subplot(2, 2, 4)
        for ax, axes in ((space, (0, 1, 2)), (side, (0, 2)), (above, (0, 1))):
            _draw_paths(ax, recording, axes)
        _frame(space, recording)
        side.set(ylabel="z [m]", title="from the side", aspect="equal")
        above.set(xlabel="x [m]", ylabel="y [m]", title="from above", aspect="equal")
        for ax in (side, above):
            ax.margins(0.08)
            ax.locator_params(nbins=5)
        low, high = above.get_ylim()
        above.set_ylim(min(low, -_WIDE), max(high, _WIDE))
        handles, labels = space.get_legend_handles_labels()
        rows = 1 + len(labels) // 8
        figure.legend(handles, labels, loc="outside lower center", ncols=-(-len(labels) // rows))
        figure.suptitle(title or _title(recording))


def _draw_paths(ax: Any, recording: Recording, axes: tuple[int, ...]) -> None:
    """Draw the paths of hand and objects, along some of the axes x, y and z."""
    planned, hand = np.array(recording.hand_setpoint)[:, axes], np.array(recording.hand)[:, axes]
    ax.plot(*planned.T, color=PLANNED, lw=4.0, alpha=0.35, label="hand, planned")
    ax.plot(*hand.T, color=MEASURED, lw=1.2, label="hand, measured")
    times = np.array(recording.times)
    at = hand[np.searchsorted(times, recording.segments).clip(0, len(times) - 1)]
    ax.plot(*at.T, ls="", marker="o", ms=2.5, color=MEASURED, label="new segment")
    ax.plot(*([0.0],) * len(axes), ls="", marker="s", ms=6, color="0.5", label="base")
    flight = recording.flight()
    if flight is not None:
        name, release, landing = flight
        way = recording.path_of(name)[:, axes]
        ax.plot(*way[release : landing + 1].T, color=OBJECT, ls="--", label=f"{name} in flight")
        ax.plot(*way[[release]].T, ls="", marker="o", ms=6, color=ERROR, label="release")
        ax.plot(*way[[landing]].T, ls="", marker="X", ms=7, color=OBJECT, label="landing")
    # The hand has a path of its own, and what flies has one already.
    drawn = {GRIP, flight[0] if flight is not None else GRIP}
    others = (name for name in recording.objects if name not in drawn)
    for name, marker in zip(others, itertools.cycle(_MARKERS)):
        way = recording.path_of(name)[:, axes]
        ax.plot(*way.T, color=GOAL, lw=1.2)
        ax.plot(*way[[-1]].T, ls="", marker=marker, ms=7, color=GOAL, label=name)


def _frame(ax: Any, recording: Recording) -> None:
    """Give the three axes one scale, with room for all that is drawn."""
    from matplotlib.ticker import MultipleLocator

    every = [np.array(recording.hand), np.array(recording.hand_setpoint), np.zeros((1, 3))]
    every += [recording.path_of(name) for name in recording.objects]
    points = np.concatenate(every)
    low, high = points.min(0) - _MARGIN, points.max(0) + _MARGIN
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    ax.set_box_aspect(high - low, zoom=0.88)
    ax.set(xlabel="x [m]", ylabel="y [m]", zlabel="z [m]")
    ax.view_init(elev=22, azim=-62)
    for axis, span in zip((ax.xaxis, ax.yaxis, ax.zaxis), high - low, strict=True):
        axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
        axis.labelpad = 0 if span > _LONG else 5  # there the numbers have one digit more
        axis.set_major_locator(MultipleLocator(0.5 if span > _LONG else 0.25))


def _mark_segments(ax: Any, recording: Recording) -> None:
    """Mark where the policy gave a new segment, if there are not too many, and the release."""
    for number, at in enumerate(recording.segments if len(recording.segments) <= _MARKED else ()):
        label = "new segment" if number == 0 else "_"
        ax.axvline(at, color="0.6", lw=0.7, ls=(0, (2, 2)), label=label, zorder=1)
    flight = recording.flight()
    if flight is not None:
        ax.axvline(recording.times[flight[1]], color=OBJECT, lw=1.2, label="release", zorder=1)


def _wrapped(name: str) -> str:
    """Return a name in lines that are no longer than a row of joints is high."""
    lines = [""]
    for part in re.findall(r"[^_/.-]*[_/.-]?", name):
        if len(lines[-1]) + len(part) > _LONGEST and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _title(recording: Recording) -> str:
    about, success = recording.about, recording.success
    verdict = "" if success is None else ", success" if success else ", failure"
    name = about.get("checkpoint") or about.get("task") or "episode"
    return f"{name}, start state {recording.seed}{verdict}"
