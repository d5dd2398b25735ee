# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The protocol by which methods are compared: written down as data before the judged runs.

Every claim is a contrast, a weighted sum of the figures that rows have on the same seed, so that a
seed that is hard for all rows counts for none. Seeds come in groups; after each group the claims
that are still open are tested by Holm's procedure (two-sided t tests of the contrasts over seeds)
at an equal part of the whole error probability, and only the rows of open claims get the next
group. The probability that any true null hypothesis is rejected at any look is at most ``alpha``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ndp_ros.errors import TrainingError
from ndp_ros.paper.claims import (
    HELD,
    LEAST,
    NOT_HELD,
    OURS,
    UNDECIDED,
    interval_text,
    markdown_rows,
)

Values = Mapping[str, Mapping[int, float]]
"""A figure of each row, by seed."""


@dataclass(frozen=True)
class Protocol:
    """Seeds and error probability of a comparison."""

    first_seed: int = 10
    """Seeds below it chose the settings and judge nothing."""
    group: int = 4
    """Seeds between two looks."""
    most: int = 16
    """Seeds after which an open claim stays undecided."""
    alpha: float = 0.05
    """Probability that a claim is decided by chance, over all claims and looks."""

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which claims are judged."""
        return tuple(range(self.group, self.most + 1, self.group))

    def seeds(self, count: int) -> range:
        """Return the first seeds of the judged runs."""
        return range(self.first_seed, self.first_seed + count)


@dataclass(frozen=True)
class Contrast:
    """A claim: a weighted sum of rows is above zero."""

    text: str
    weights: Mapping[str, float]
    """Weight of each row; the claim says that the sum is positive."""
    figure: str = "auc_samples"
    """Figure of the rows that is compared, one value a seed."""
    source: str = OURS

    def __post_init__(self) -> None:
        """Check that the weights compare something."""
        if not self.weights or abs(sum(self.weights.values())) > 1e-12:
            raise TrainingError(f"claim {self.text!r}: weights {dict(self.weights)} must add to 0")

    @property
    def rows(self) -> set[str]:
        """Rows that it compares."""
        return set(self.weights)

    def on(self, values: Values, seeds: Sequence[int]) -> list[float] | None:
        """Return the contrast on each seed, None unless every row has every seed."""
        if any(seed not in values.get(row, {}) for row in self.weights for seed in seeds):
            return None
        return [sum(w * values[row][s] for row, w in self.weights.items()) for s in seeds]


def difference(text: str, *pairs: tuple[str, str]) -> Contrast:
    """Return the claim that a row is above another, or by more than a second pair of rows is."""
    weights: dict[str, float] = {}
    for sign, (row, other) in zip((1.0, -1.0), pairs, strict=False):
        weights[row] = weights.get(row, 0.0) + sign
        weights[other] = weights.get(other, 0.0) - sign
    return Contrast(text, weights)


def judge(
    claims: Sequence[Contrast], figures: Mapping[str, Values], protocol: Protocol
) -> list[dict[str, Any]]:
    """Return every claim with its mean, 95 % interval, the look that decided it and the verdict.

    They are all the primary claims, since Holm's procedure counts them.
    """
    judged: dict[int, dict[str, Any]] = {}
    shown: dict[int, dict[str, Any]] = {}
    for look in protocol.looks:
        tests = {}
        for i, claim in enumerate(claims):
            found = claim.on(figures[claim.figure], protocol.seeds(look))
            if i not in judged and found is not None:
                tests[i] = _test(found)
                shown[i] = {**tests[i], "seeds": look}
        # Holm: the smallest p against alpha / m, the next against alpha / (m - 1), and so on. A
        # claim whose seeds are not there yet counts as the least certain.
        share, left = protocol.alpha / len(protocol.looks), len(claims) - len(judged)
        for i in sorted(tests, key=lambda i: tests[i]["p"]):
            if tests[i]["p"] > share / left:
                break
            verdict = HELD if tests[i]["mean"] > 0.0 else NOT_HELD
            judged[i] = {**shown[i], "verdict": verdict}
            left -= 1
    nothing = {"mean": None, "interval": None, "p": None, "seeds": 0}
    return [
        {
            "claim": claim.text,
            "source": claim.source,
            "figure": claim.figure,
            "weights": dict(claim.weights),
            **judged.get(i, {**nothing, **shown.get(i, {}), "verdict": UNDECIDED}),
        }
        for i, claim in enumerate(claims)
    ]


def seeds_wanted(
    claims: Sequence[Contrast], figures: Mapping[str, Values], protocol: Protocol
) -> dict[str, range]:
    """Return the seeds of each row that the protocol asks for, given the values so far.

    The rows of a claim that its last look left open get the next group; those of a claim that a
    look has decided keep the seeds of that look.
    """
    verdicts = judge(claims, figures, protocol)
    wanted: dict[str, int] = {row: protocol.group for claim in claims for row in claim.rows}
    for claim, verdict in zip(claims, verdicts, strict=True):
        count = verdict["seeds"]
        if verdict["verdict"] == UNDECIDED and count:
            count = min(count + protocol.group, protocol.most)
        for row in claim.rows:
            wanted[row] = max(wanted[row], count)
    return {row: protocol.seeds(count) for row, count in wanted.items()}


def _test(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, 95 % interval and two-sided p of a contrast over seeds."""
    mean, freedom = float(np.mean(values)), len(values) - 1
    error = max(float(np.std(values, ddof=1)), LEAST) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.975, freedom)) * error
    p = 2.0 * float(stats.t.sf(abs(mean) / error, freedom))
    return {"mean": mean, "interval": [mean, mean - half, mean + half], "p": p}


def verdict_table(judged: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table of judged claims."""
    rows = []
    for claim in judged:
        text = interval_text(claim["interval"]) or "no seeds yet"
        p = "" if claim["p"] is None else f"{claim['p']:.2g}"
        rows.append((claim["claim"], claim["verdict"], str(claim["seeds"]), text, p))
    columns = ("claim", "verdict", "seeds", "difference (95 % interval)", "p")
    return markdown_rows(columns, rows)
