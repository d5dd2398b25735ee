"""Learning curves over seeds: the interquartile mean and its bootstrap interval."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.errors import TrainingError
from ndp_ros.outputs import write_output
from ndp_ros.training.directory import CONFIG, read_config
from ndp_ros.training.experiment import RunConfig, differences, value_at
from ndp_ros.training.logs import COLUMNS, read_progress

Array = NDArray[np.float64]

_RESAMPLES = 2000
_GRID = 100
COLOURS = 10
"""Colours of matplotlib's cycle."""
_LINES, _MARKERS = ("-", "--", ":", "-."), ("o", "s", "^", "D")
"""What tells curves of one colour apart."""
_WIDTH, _INSIDE = 55, 4
"""Letters in a line of a picture, and lines of a legend that leave room for the curves."""
_OF_A_SEED: dict[str, Any] = {"seed": 0, "workers": 0, "samples": 1}
"""Fields in which the seeds of one curve may differ, and what stands for them."""


class NothingYetError(TrainingError):
    """A run that has no values of a figure, as one that has just begun."""


@dataclass(frozen=True)
class Curve:
    """One figure of a run against observed samples.

    Attributes:
        label: Task and method.
        seed: Seed of the run.
        x: Observations made ``(n,)``.
        y: The figure ``(n,)``.
        config: What the run trains; None if there is no telling.
    """

    label: str
    seed: int
    x: Array
    y: Array
    config: RunConfig | None = None


@dataclass(frozen=True)
class Band:
    """The curves of several seeds together, on one grid of observed samples.

    Attributes:
        label: Task and method.
        seeds: Number of seeds.
        x: Grid ``(n,)``.
        middle: Interquartile mean ``(n,)``.
        low: Lower end of the 95 % interval ``(n,)``.
        high: Upper end of the 95 % interval ``(n,)``.
    """

    label: str
    seeds: int
    x: Array
    middle: Array
    low: Array
    high: Array


def read_curve(folder: Path, figure: str, against: str = "observed") -> Curve:
    """Return a run's curve.

    Args:
        folder: The run directory.
        figure: Column of ``progress.csv``.
        against: Column of the horizontal axis.

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


def told_apart(curves: Sequence[Curve]) -> list[Curve]:
    """Return curves that have one label only where they are seeds of one configuration.

    Labels that stand for several get the values in which these differ.
    """
    kinds: dict[str, list[RunConfig]] = {}
    for curve in curves:
        found = kinds.setdefault(curve.label, [])
        if curve.config and (kind := replace(curve.config, **_OF_A_SEED)) not in found:
            found.append(kind)
    return [
        replace(c, label=c.label + _what_differs(c.config, kinds[c.label])) if c.config else c
        for c in curves
    ]


def _what_differs(config: RunConfig, kinds: Sequence[RunConfig]) -> str:
    """Return the values in which a configuration is not like all of some others."""
    names = dict.fromkeys(n for kind in kinds for n in differences(kinds[0], kind))
    told = []
    for name in names:
        values = [value_at(kind, name) for kind in kinds]
        value = value_at(config, name)
        if name == "task_options":  # which name themselves, and of which some may be shared
            own = [option for option in value if any(option not in v for v in values)]
            told.append(" ".join(own) or "no other task_options")
        else:
            told.append(f"{name} {'none' if value in ('', (), None) else value}")
    return f", {', '.join(told)}" if told else ""


def interquartile_mean(values: Array) -> Array:
    """Return the mean of the middle half along the first axis, with fractional weights.

    Args:
        values: ``(n, ...)``.
    """
    ordered = np.sort(values, axis=0)
    n = len(ordered)
    edges = np.clip(np.arange(n + 1) / n, 0.25, 0.75)
    weights = np.diff(edges) * 2.0
    return np.tensordot(weights, ordered, axes=1)


def bootstrap(values: Array, seed: int = 0) -> tuple[Array, Array]:
    """Return the 95 % percentile interval of the interquartile mean over seeds.

    Args:
        values: ``(seeds, n)``.
        seed: Seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(values), size=(_RESAMPLES, len(values)))
    means = np.stack([interquartile_mean(values[draw]) for draw in draws])
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high


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
    """Return several seeds' curves as one band, up to where the shortest ends."""
    start = max(c.x[0] for c in curves)
    end = min(c.x[-1] for c in curves)
    x = np.linspace(start, max(start, end), _GRID)
    values = np.stack([np.interp(x, c.x, c.y) for c in curves])
    low, high = bootstrap(values)
    return Band(curves[0].label, len(curves), x, interquartile_mean(values), low, high)


def bands(curves: Sequence[Curve]) -> list[Band]:
    """Return one band per label, in the order in which labels first appear."""
    labels = dict.fromkeys(c.label for c in curves)
    return [band([c for c in curves if c.label == label]) for label in labels]


def draw_band(axes: Any, group: Band, label: str, number: int) -> None:
    """Draw a band into axes.

    Args:
        axes: Of matplotlib.
        group: The band.
        label: Its name in the legend.
        number: Which curve it is, from 0 on: decides colour and kind of line.
    """
    colour, line = f"C{number % COLOURS}", _LINES[number // COLOURS % len(_LINES)]
    if group.x[0] == group.x[-1]:  # of which a line would show nothing
        ends = np.abs(np.array([group.low[:1], group.high[:1]]) - group.middle[:1])
        how = {"color": colour, "marker": _MARKERS[number // COLOURS % len(_MARKERS)]}
        axes.errorbar(group.x[:1], group.middle[:1], ends, label=label, ls="", capsize=3, **how)
        return
    axes.plot(group.x, group.middle, label=label, color=colour, ls=line)
    if group.seeds > 1:
        axes.fill_between(group.x, group.low, group.high, color=colour, alpha=0.2)


def draw(groups: Sequence[Band], figure: str, against: str, path: Path, title: str = "") -> None:
    """Draw bands into a picture; the ending of the path decides its format.

    Raises:
        TrainingError: If it cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = [
        textwrap.fill(f"{g.label} ({g.seeds} seed{'s' if g.seeds != 1 else ''})", _WIDTH)
        for g in groups
    ]
    lines = sum(label.count("\n") + 1 for label in labels)
    beside = lines > _INSIDE  # where they would cover the curves
    height = 4.0 + (0.2 * lines if beside else 0.0)
    drawing, axes = pyplot.subplots(figsize=(6.4, height), layout="constrained")
    for number, (group, label) in enumerate(zip(groups, labels, strict=True)):
        draw_band(axes, group, label, number)
    names: dict[str, Any] = {"observed": "observed samples", "samples": "control steps"}
    axes.set_xlabel(names.get(against, against))
    axes.set_ylabel(_SPOKEN.get(figure, figure))
    if "success" in figure:
        axes.set_ylim(-0.02, 1.02)
    axes.set_title(textwrap.fill(title, _WIDTH))
    axes.grid(alpha=0.3)
    if beside:
        drawing.legend(loc="outside lower center")
    else:
        axes.legend()
    data = io.BytesIO()
    try:
        drawing.savefig(data, format=path.suffix[1:], dpi=150)
        write_output(path, data.getvalue())
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot write {path}: {error}") from error
    finally:
        pyplot.close(drawing)


def table(groups: Sequence[Band]) -> list[dict[str, Any]]:
    """Return the last point of every band as plain data."""
    return [
        {
            "label": g.label, "seeds": g.seeds, "at": float(g.x[-1]),
            "iqm": round(float(g.middle[-1]), 6),
            "ci95": [round(float(g.low[-1]), 6), round(float(g.high[-1]), 6)],
        }
        for g in groups
        if math.isfinite(g.middle[-1])
    ]  # fmt: skip


_SPOKEN = {
    "eval_success": "success, deterministic evaluation",
    "success": "success while training",
    "return": "return while training",
}
