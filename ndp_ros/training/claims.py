"""What the paper says of its methods, judged by the figures of every seed.

A claim compares rows with one another, or with a number. Each comparison is the difference of
the means over seeds with Welch's 95 % t interval (against a number: Student's). Where rows are
one method with one thing changed, a seed gives all of them the same start states and, as far
as their shapes agree, the same first parameters and noise: some seeds are hard for every row.
There a figure is taken to be a row's plus a seed's plus a deviation that all rows share, and
the difference is that of rows on the same seeds. Two seeds of their own say next to nothing.
With one seed on either side there is no interval and nothing is decided. ``above`` holds if
the whole interval is above zero and does not hold if all of it is below; ``not below``
tolerates ``MARGIN``; ``same`` holds if the interval is within ``BAND`` on both sides, and does
not hold if all of it is outside. A claim of several comparisons holds if all of them do, and
does not hold as soon as one does not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndp_ros.errors import TrainingError

ABOVE, NOT_BELOW, BELOW, SAME = "above", "not below", "below", "same"
HELD, NOT_HELD, UNDECIDED = "held", "not held", "not decided"

OURS = "not in the paper"

MARGIN = 0.02
"""What a row may stay below another and still be as good."""
BAND = 0.1
"""What rows may differ by and still be called the same."""
LEAST = 0.01
"""Least deviation that seeds are taken to have: equal figures of two or three seeds say little of
the next one, and so many a hundred episodes at a success of 0.99 leave in it.
"""

_T975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
_NORMAL = 1.96

Interval = tuple[float, float, float]
"""A difference and the ends of its 95 % interval."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper and the comparisons that decide it."""

    text: str
    pairs: tuple[tuple[str, str | float], ...]
    """Rows and what each is compared with: another row, or a number."""
    kind: str = ABOVE
    figure: str = "auc_observed"
    """Figure of the rows that is compared, one value a seed."""
    source: str = OURS
    """Where the paper says it."""

    def __post_init__(self) -> None:
        """Check the kind."""
        if self.kind not in (ABOVE, NOT_BELOW, BELOW, SAME):
            raise TrainingError.choice("kind", self.kind, (ABOVE, NOT_BELOW, BELOW, SAME))


def interval(a: Sequence[float], b: Sequence[float] | float) -> Interval | None:
    """Return the difference of means a - b with its 95 % interval, None if undecidable.

    Args:
        a: One value a seed.
        b: The same of another row, or a number.
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
    """Return the difference a - b with its 95 % interval, None if undecidable.

    Least squares of value = row + seed + deviation over all rows: with two rows Student's
    paired t interval, with several, each on the same seeds, that of a randomised block design.

    Args:
        a: A row.
        b: Another row.
        rows: Values by seed of each row, these two among them.
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
    told_apart = np.allclose(contrast @ inverse @ design, contrast)
    if freedom < 1 or not told_apart:
        return None
    effects = inverse @ values
    spread = max(float(np.sum((values - design @ effects) ** 2)) / freedom, LEAST**2)
    size = float(np.linalg.norm(contrast @ inverse))
    return _around(float(contrast @ effects), size * math.sqrt(spread), freedom)


def _around(difference: float, deviation: float, freedom: float) -> Interval:
    half = _quantile(freedom) * deviation
    return difference, difference - half, difference + half


def judge(
    claim: Claim, rows: Sequence[Mapping[str, Any]], alike: Collection[str] = ()
) -> dict[str, Any]:
    """Return a claim with every comparison, its interval and the verdict.

    Args:
        claim: The claim.
        rows: Aggregated rows by ``row``, each with its ``seeds`` and the figure as one value
            a seed.
        alike: Rows that are one method with one thing changed, those of the claim among them;
            none if it compares others.
    """
    named = {name for pair in claim.pairs for name in pair} | set(alike)
    values = {
        row["row"]: {
            seed: value
            for seed, value in zip(row["seeds"], row[claim.figure], strict=True)
            if value is not None
        }
        for row in rows
        if row["row"] in named and claim.figure in row
    }
    pool = {name: values[name] for name in sorted(alike) if name in values}
    comparisons = []
    for row, other in claim.pairs:
        if pool and isinstance(other, str):
            found = blocked_interval(row, other, pool)
        else:
            against = other if isinstance(other, float) else list(values.get(other, {}).values())
            found = interval(list(values.get(row, {}).values()), against)
        comparisons.append({
            "row": row, "than": other, "interval": found,
            "verdict": _verdict(claim.kind, found),
        })  # fmt: skip
    verdicts = {c["verdict"] for c in comparisons}
    whole = UNDECIDED
    if NOT_HELD in verdicts:
        whole = NOT_HELD
    elif verdicts == {HELD}:
        whole = HELD
    return {
        "claim": claim.text, "source": claim.source, "kind": claim.kind, "figure": claim.figure,
        "verdict": whole, "comparisons": comparisons,
    }  # fmt: skip


def claims_table(judged: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table of judged claims."""
    lines = [
        "| claim | said in | verdict | difference (95 % interval) |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for claim in judged:
        shown = []
        for c in claim["comparisons"]:
            found = c["interval"]
            text = "no interval yet"
            if found is not None:
                text = "{:+.3f} ({:+.3f} to {:+.3f})".format(*found)
            shown.append(f"`{c['row']}` − {_named(c['than'])}: {text}")
        lines.append(
            f"| {claim['claim']} | {claim['source']} | {claim['verdict']} | {'; '.join(shown)} |"
        )
    return lines


def _named(than: str | float) -> str:
    return f"`{than}`" if isinstance(than, str) else f"{than:g}"


def _quantile(freedom: float) -> float:
    """Return the 97.5 % quantile of Student's t, or a little more."""
    if freedom <= len(_T975):  # convex in 1 / freedom: a chord lies above
        shares = 1.0 / np.arange(len(_T975), 0, -1)
        return float(np.interp(1.0 / freedom, shares, _T975[::-1]))
    return _NORMAL + 2.6 / freedom  # above the quantile by at most 0.005 from 21 on


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
