# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Summarise learning curves over seeds, by interquartile mean and bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ndp_ros.errors import TrainingError
from ndp_ros.observation import Array
from ndp_ros.training.config import RunConfig, differences, value_at
from ndp_ros.training.directory import CONFIG, read_config
from ndp_ros.training.logs import COLUMNS, read_progress

_RESAMPLES = 2000
_OF_A_SEED: dict[str, Any] = {"seed": 0, "workers": 0, "samples": 1, "device": "cpu"}
"""Fields in which the seeds of one curve may differ, with the value that replaces them."""


class NothingYetError(TrainingError):
    """A run has no values of a figure yet."""


@dataclass(frozen=True)
class Curve:
    """One figure of a run against observed samples.

    Attributes:
        label: Task and method.
        seed: Seed of the run.
        x: Observations made ``(n,)``.
        y: The figure ``(n,)``.
        config: Configuration of the run, None if unknown.
    """

    label: str
    seed: int
    x: Array
    y: Array
    config: RunConfig | None = None


@dataclass(frozen=True)
class Band:
    """The curves of several seeds together, wherever one of them was evaluated.

    Attributes:
        label: Task and method.
        curves: The curve of each seed.
        x: Where a seed was evaluated ``(n,)``, from where all have a value to the end of the
            shortest.
        middle: Interquartile mean ``(n,)``.
        low: Lower end of the 95 % interval ``(n,)``.
        high: Upper end of the 95 % interval ``(n,)``.
    """

    label: str
    curves: tuple[Curve, ...]
    x: Array
    middle: Array
    low: Array
    high: Array

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.curves)


def read_curve(folder: Path, figure: str, against: str = "observed") -> Curve:
    """Return a run's curve: a column of ``progress.csv`` against another one.

    Raises:
        NothingYetError: If it has no such figure yet.
        TrainingError: If this is no run.
    """
    for option, name in (("--figure", figure), ("--against", against)):
        if name not in COLUMNS:
            raise TrainingError.choice(option, name, COLUMNS)
    if not (folder / CONFIG).is_file():
        raise TrainingError(f"{folder} is no run directory: it has no {CONFIG}")
    config = read_config(folder)
    rows = [(r[against], r[figure]) for r in read_progress(folder) if r.get(figure)]
    if not rows:
        raise NothingYetError(f"{folder} has no values of {figure} yet")
    points = np.array(rows, dtype=np.float64)
    label = f"{config.task} {config.method}"
    return Curve(label, config.seed, points[:, 0], points[:, 1], config)


def read_curves(
    folders: Sequence[Path], figure: str, against: str
) -> tuple[list[Curve], list[NothingYetError]]:
    """Return the curves of the runs that have one, and why others have none.

    Raises:
        NothingYetError: If none has one.
        TrainingError: As :func:`read_curve`.
    """
    curves, missing = [], []
    for folder in folders:
        try:
            curves.append(read_curve(folder, figure, against))
        except NothingYetError as error:
            missing.append(error)
    if not curves:
        raise missing[0]
    return curves, missing


def with_distinct_labels(curves: Sequence[Curve]) -> list[Curve]:
    """Add to labels that several configurations share the values in which these differ.

    Curves with one label are then the seeds of one configuration.
    """
    kinds: dict[str, list[RunConfig]] = {}
    for curve in curves:
        found = kinds.setdefault(curve.label, [])
        if curve.config and (kind := replace(curve.config, **_OF_A_SEED)) not in found:
            found.append(kind)
    return [
        replace(c, label=c.label + _difference(c.config, kinds[c.label])) if c.config else c
        for c in curves
    ]


def _difference(config: RunConfig, kinds: Sequence[RunConfig]) -> str:
    """Return the values in which a configuration differs from others, as part of a label."""
    names = dict.fromkeys(n for kind in kinds for n in differences(kinds[0], kind))
    parts = []
    for name in names:
        values = [value_at(kind, name) for kind in kinds]
        value = value_at(config, name)
        if name == "task_options":  # each names itself; those that all share are left out
            own = [option for option in value if any(option not in v for v in values)]
            parts.append(" ".join(own) or "no other task_options")
        else:
            parts.append(f"{name} {'none' if value in ('', (), None) else value}")
    return f", {', '.join(parts)}" if parts else ""


def interquartile_mean(values: Array, axis: int = 0) -> Array:
    """Return the mean of the middle half of the values along an axis.

    Weights at its edges are fractional, unlike those of ``scipy.stats.trim_mean``, which with three
    seeds trims nothing.
    """
    ordered = np.sort(values, axis)
    n = ordered.shape[axis]
    weights = np.diff(np.clip(np.arange(n + 1) / n, 0.25, 0.75)) * 2.0
    return np.tensordot(weights, ordered, axes=(0, axis))


def bootstrap(values: Array) -> tuple[Array, Array]:
    """Return the 95 % percentile interval of the interquartile mean over seeds ``(seeds, n)``."""
    if len(values) < 2:
        return values[0], values[0]
    found = stats.bootstrap(
        (values,),
        interquartile_mean,
        axis=0,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return found.confidence_interval.low, found.confidence_interval.high


def area(points: Sequence[tuple[float, float]], end: float, start: float = 0.0) -> float:
    """Return the mean height of a curve between 0, where it is 0, and an end.

    Args:
        points: The curve, in order.
        end: Where to stop; at most where the curve ends.
        start: Up to where it stays 0, if that is before its first point.
    """
    begin = [(0.0, 0.0), (start, 0.0)] if 0.0 < start < points[0][0] else [(0.0, 0.0)]
    x, y = np.array([*begin, *points], dtype=np.float64).T
    grid = np.append(x[x < end], end)
    return float(np.trapezoid(np.interp(grid, x, y), grid)) / end


def band(curves: Sequence[Curve]) -> Band:
    """Return several seeds' curves as one band, up to where the shortest ends.

    Between two evaluations of a seed its last one counts; nothing is interpolated.
    """
    start = max(c.x[0] for c in curves)
    end = max(start, min(c.x[-1] for c in curves))
    points = np.unique(np.concatenate([c.x for c in curves]))
    x = points[(points >= start) & (points <= end)]
    values = np.stack([c.y[np.searchsorted(c.x, x, side="right") - 1] for c in curves])
    low, high = bootstrap(values)
    return Band(curves[0].label, tuple(curves), x, interquartile_mean(values), low, high)


def bands(curves: Sequence[Curve]) -> list[Band]:
    """Return one band per label, in the order in which labels first appear."""
    labels = dict.fromkeys(c.label for c in curves)
    return [band([c for c in curves if c.label == label]) for label in labels]


def table(groups: Sequence[Band]) -> list[dict[str, Any]]:
    """Return the last point of every band as plain data."""
    return [
        {
            "label": g.label,
            "seeds": g.seeds,
            "at": float(g.x[-1]),
            "iqm": round(float(g.middle[-1]), 6),
            "ci95": [round(float(g.low[-1]), 6), round(float(g.high[-1]), 6)],
        }
        for g in groups
        if math.isfinite(g.middle[-1])
    ]
