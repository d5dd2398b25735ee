# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Claims of the paper: intervals over seeds, and the verdicts that follow from them."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from ndp_ros.paper import claims
from ndp_ros.paper.claims import (
    ABOVE,
    BELOW,
    NOT_BELOW,
    SAME,
    Claim,
    blocked_interval,
    interval,
    judge,
)


def test_intervals_are_welch_s():
    a, b = [0.9, 0.8, 0.97, 0.88], [0.5, 0.71, 0.62]
    middle, low, high = interval(a, b)
    exact = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert middle == pytest.approx(0.8875 - 0.61)
    assert (low, high) == pytest.approx((exact.low, exact.high))
    one = interval(a, 0.5)
    exact = stats.ttest_1samp(a, 0.5).confidence_interval(0.95)
    assert one[1:] == pytest.approx((exact.low - 0.5, exact.high - 0.5))


@pytest.mark.parametrize(
    ("kind", "a", "b", "verdict"),
    [
        (ABOVE, [0.9, 0.91, 0.9], [0.1, 0.12, 0.1], claims.HELD),
        (ABOVE, [0.1, 0.12, 0.1], [0.9, 0.91, 0.9], claims.NOT_HELD),
        (ABOVE, [0.1, 0.9], [0.2, 0.8], claims.UNDECIDED),
        (ABOVE, [0.9], [0.1, 0.1], claims.UNDECIDED),
        (ABOVE, [1.0, 1.0], [1.0, 1.0], claims.UNDECIDED),
        (NOT_BELOW, [1.0, 1.0], [1.0, 1.0], claims.UNDECIDED),
        (NOT_BELOW, [1.0] * 5, [1.0] * 5, claims.HELD),
        (ABOVE, [1.0, 1.0], [0.99, 0.99], claims.UNDECIDED),
        (BELOW, [1.0, 1.0, 1.0], 0.1, claims.NOT_HELD),
        (BELOW, [0.1, 0.12, 0.1], [0.9, 0.91, 0.9], claims.HELD),
        (BELOW, [0.1, 0.12, 0.1], 0.5, claims.HELD),
        (SAME, [0.5, 0.51, 0.5], [0.52, 0.51, 0.52], claims.HELD),
        (SAME, [0.1, 0.12, 0.1], [0.9, 0.91, 0.9], claims.NOT_HELD),
        (SAME, [0.1, 0.9], [0.2, 0.8], claims.UNDECIDED),
    ],
)
def test_a_claim_is_judged_by_its_interval(kind, a, b, verdict):
    rows = [
        {"row": name, "auc_observed": values, "seeds": list(range(len(values)))}
        for name, values in (("a", a), ("b", [] if isinstance(b, float) else b))
    ] + [{"row": "c", "seeds": []}]
    than = b if isinstance(b, float) else "b"
    assert judge(Claim("a and b", (("a", than),), kind), rows)["verdict"] == verdict


def test_two_rows_on_the_same_seeds_are_compared_by_pairs():
    a, b = [0.3, 0.9, 0.55, 0.7], [0.2, 0.85, 0.5, 0.4]
    exact = stats.ttest_rel(a, b).confidence_interval(0.95)
    found = blocked_interval("a", "b", {"a": dict(enumerate(a)), "b": dict(enumerate(b))})
    assert found == pytest.approx((np.mean(a) - np.mean(b), exact.low, exact.high))


def test_all_rows_say_how_seeds_deviate_and_what_a_seed_does_to_each_row_counts_for_none():
    deviations = np.array([[0.04, -0.01, 0.0], [0.0, 0.03, -0.02], [0.01, 0.0, 0.05]])
    values = deviations + np.array([0.1, 0.8, 0.4])  # a seed's share is ten times what is left
    rows = {str(i): dict(enumerate(row)) for i, row in enumerate(values)}
    left = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    half = stats.t.ppf(0.975, 4) * np.sqrt(np.sum(left**2) / 4 * 2 / 3)
    middle = values[0].mean() - values[1].mean()
    expected = pytest.approx((middle, middle - half, middle + half))
    assert blocked_interval("0", "1", rows) == expected
    # A seed that only one row has says nothing of a difference.
    assert blocked_interval("0", "1", rows | {"0": rows["0"] | {7: 0.9}}) == expected
    assert blocked_interval("0", "3", rows | {"3": {0: 0.2}}) is None
    apart = {"4": {7: 0.1, 8: 0.2}}  # on seeds of its own
    assert blocked_interval("0", "4", rows | apart) is None


def test_a_claim_of_rows_that_are_one_method_is_judged_on_the_same_seeds():
    values = {"0": [0.3, 0.9], "1": [0.2, 0.8], "2": [0.31, 0.92]}
    rows = [{"row": name, "seeds": [0, 1], "auc_observed": v} for name, v in values.items()]
    claim = Claim("0 above 1", (("0", "1"),), ABOVE)
    assert judge(claim, rows)["verdict"] == claims.UNDECIDED
    assert judge(claim, rows, ("0", "1", "2"))["verdict"] == claims.HELD


def test_one_comparison_that_fails_decides_a_claim_of_several():
    rows = [
        {"row": name, "auc_observed": values, "seeds": [0, 1]}
        for name, values in (("a", [0.5, 0.5]), ("b", [0.5, 0.51]), ("c", [0.9, 0.91]))
    ]
    claim = Claim("all the same", (("b", "a"), ("c", "a")), SAME)
    assert judge(claim, rows)["verdict"] == claims.NOT_HELD
    assert judge(dataclasses.replace(claim, pairs=(("b", "a"), ("d", "a"))), rows)["verdict"] == (
        claims.UNDECIDED
    )
