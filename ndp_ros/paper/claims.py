# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Judge the statements of the paper by the figures of every seed.

A claim compares rows with one another, or with a number: the difference of the means over seeds
with its 95 % t interval, Welch's (against a number Student's). Rows that change one method in one
thing are compared on the same seeds, since a seed gives them the same start states and, as far as
shapes agree, the same first parameters and noise. With one seed on either side nothing is decided.

======================  ==================================  ======================================
kind                    held                                not held
======================  ==================================  ======================================
``above``, ``below``    the interval is on that side of 0   it is on the other side
``not below``           it stays above ``-MARGIN``          it stays below ``-MARGIN``
``same``                it stays within ``±BAND``           it stays outside
======================  ==================================  ======================================

A claim of several comparisons holds if each does, and does not hold as soon as one does not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ndp_ros.errors import TrainingError

ABOVE, NOT_BELOW, BELOW, SAME = "above", "not below", "below", "same"
HELD, NOT_HELD, UNDECIDED = "held", "not held", "not decided"

OURS = "not in the paper"

MARGIN = 0.02
"""Difference by which a row may stay below another and still be as good."""
BAND = 0.1
"""Difference of rows that still count as the same."""
LEAST = 0.01
"""Least deviation between seeds that is assumed: equal figures of two or three seeds say little of
the next one, and a hundred episodes at a success of 0.99 leave as much.
"""

Interval = tuple[float, float, float]
"""A difference and the ends of its 95 % interval."""


@dataclass(frozen=True)
class Claim:
    """A statement of the paper and the comparisons that decide it."""

    text: str
    pairs: tuple[tuple[str, str | float], ...]
    """Each row with another one, or with a number."""
    kind: str = ABOVE
    figure: str = "auc_observed"
    """Figure of the rows that is compared, one value a seed."""
    source: str = OURS
    """Section or table of the paper."""

    def __post_init__(self) -> None:
        """Check the kind."""
        if self.kind not in (ABOVE, NOT_BELOW, BELOW, SAME):
            raise TrainingError.choice("kind", self.kind, (ABOVE, NOT_BELOW, BELOW, SAME))

    @property
    def rows(self) -> set[str]:
        """Rows that it compares."""
        return {name for pair in self.pairs for name in pair if isinstance(name, str)}


def claim(
    text: str,
    row: str,
    than: str | float,
    kind: str = ABOVE,
    figure: str = "auc_observed",
    source: str = OURS,
) -> Claim:
    """Return a claim of one comparison: a row with another one, or with a number."""
    return Claim(text, ((row, than),), kind, figure, source)


def interval(a: Sequence[float], b: Sequence[float] | float) -> Interval | None:
    """Return the difference of means a - b with its 95 % interval, None if undecidable.

    A row has one value a seed; b may be a number.
    """
    groups = [np.asarray(a, float)] + ([] if isinstance(b, float) else [np.asarray(b, float)])
    if any(len(group) < 2 for group in groups):
        return None
    other = b if isinstance(b, float) else float(groups[1].mean())
    parts = [
        (max(float(group.var(ddof=1)), LEAST**2) / len(group), len(group) - 1) for group in groups
    ]
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / n for part, n in parts)
    return _around(float(groups[0].mean()) - other, math.sqrt(variance), freedom)


def blocked_interval(a: str, b: str, rows: Mapping[str, Mapping[int, float]]) -> Interval | None:
    """Return the difference of rows a - b with its 95 % interval, None if undecidable.

    Least squares of value = row + seed + deviation over all rows, each with its values by seed:
    with two rows Student's paired t interval, with several, each on the same seeds, that of a
    randomised block design.
    """
    if any(len(rows.get(row, ())) < 2 for row in (a, b)):
        return None
    names, seeds = list(rows), sorted({seed for row in rows.values() for seed in row})
    cells = [(name, seed) for name, row in rows.items() for seed in row]
    design = np.zeros((len(cells), len(names) + len(seeds)))
    for line, (name, seed) in zip(design, cells, strict=True):
        line[names.index(name)] = line[len(names) + seeds.index(seed)] = 1.0
    values = np.array([rows[name][seed] for name, seed in cells])
    contrast = np.zeros(design.shape[1])
    contrast[names.index(a)], contrast[names.index(b)] = 1.0, -1.0
    inverse = np.linalg.pinv(design)
    freedom = len(cells) - int(np.linalg.matrix_rank(design))
    estimable = np.allclose(contrast @ inverse @ design, contrast)
    if freedom < 1 or not estimable:
        return None
    effects = inverse @ values
    spread = max(float(np.sum((values - design @ effects) ** 2)) / freedom, LEAST**2)
    size = float(np.linalg.norm(contrast @ inverse))
    return _around(float(contrast @ effects), size * math.sqrt(spread), freedom)


def _around(difference: float, deviation: float, freedom: float) -> Interval:
    half = float(stats.t.ppf(0.975, freedom)) * deviation
    return difference, difference - half, difference + half


def by_seed(rows: Sequence[Mapping[str, Any]], figure: str) -> dict[str, dict[int, float]]:
    """Return the values of a figure that aggregated rows have, by row and seed."""
    return {
        row["row"]: {s: v for s, v in zip(row["seeds"], row[figure], strict=True) if v is not None}
        for row in rows
        if figure in row
    }


def judge(
    claim: Claim, rows: Sequence[Mapping[str, Any]], pooled: Collection[str] = ()
) -> dict[str, Any]:
    """Return a claim with every comparison, its interval and the verdict.

    Aggregated rows are compared by their ``row``, with one value of the figure for each of their
    ``seeds``. The rows of ``pooled``, those of the claim among them, share one deviation between
    seeds; without any, rows are compared on their own seeds.
    """
    named = claim.rows | set(pooled)
    values = by_seed([row for row in rows if row["row"] in named], claim.figure)
    pool = {name: values[name] for name in sorted(pooled) if name in values}
    comparisons = []
    for row, other in claim.pairs:
        if pool and isinstance(other, str):
            found = blocked_interval(row, other, pool)
        else:
            against = other if isinstance(other, float) else list(values.get(other, {}).values())
            found = interval(list(values.get(row, {}).values()), against)
        verdict = _verdict(claim.kind, found)
        comparisons.append({"row": row, "than": other, "interval": found, "verdict": verdict})
    verdicts = {c["verdict"] for c in comparisons}
    overall = NOT_HELD if NOT_HELD in verdicts else HELD if verdicts == {HELD} else UNDECIDED
    return {
        "claim": claim.text,
        "source": claim.source,
        "kind": claim.kind,
        "figure": claim.figure,
        "verdict": overall,
        "comparisons": comparisons,
    }


def claims_table(judged: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table of judged claims."""
    rows = []
    for claim in judged:
        texts = [interval_text(c["interval"]) or "no interval yet" for c in claim["comparisons"]]
        pairs = zip(claim["comparisons"], texts, strict=True)
        shown = [f"`{c['row']}` − {_named(c['than'])}: {text}" for c, text in pairs]
        rows.append((claim["claim"], claim["source"], claim["verdict"], "; ".join(shown)))
    return markdown_rows(("claim", "said in", "verdict", "difference (95 % interval)"), rows)


def interval_text(found: Sequence[float] | None) -> str:
    """Return a difference and its interval as text, empty without one."""
    return "{:+.3f} ({:+.3f} to {:+.3f})".format(*found) if found else ""


def markdown_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def _named(than: str | float) -> str:
    return f"`{than}`" if isinstance(than, str) else f"{than:g}"


def _verdict(kind: str, found: Interval | None) -> str:
    if found is None:
        return UNDECIDED
    _, low, high = found
    if kind == BELOW:
        low, high = -high, -low
    if kind == SAME:
        inside, outside = max(abs(low), abs(high)) <= BAND, low > BAND or high < -BAND
        return HELD if inside else NOT_HELD if outside else UNDECIDED
    floor = -MARGIN if kind == NOT_BELOW else 0.0
    if high < floor:
        return NOT_HELD
    sure = low >= floor if kind == NOT_BELOW else low > floor
    return HELD if sure else UNDECIDED
