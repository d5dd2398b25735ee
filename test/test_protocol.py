# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The protocol of comparisons: seeds in groups, one error probability for all claims and looks."""

from typing import Any

import numpy as np
import pytest

from ndp_ros.errors import TrainingError
from ndp_ros.paper import segments
from ndp_ros.paper.panels import draw_by_k
from ndp_ros.paper.protocol import (
    Contrast,
    Protocol,
    difference,
    judge,
    seeds_wanted,
    verdict_table,
)
from ndp_ros.paper.segments import LENGTHS, SEGMENTS, TUNING, chosen

PROTOCOL = Protocol()


def values(rng, mean, seeds, spread=0.03):
    return {s: mean + spread * rng.normal() for s in PROTOCOL.seeds(seeds)}


def figures(**rows):
    return {"auc_samples": rows}


def test_a_large_difference_is_decided_by_the_first_group_and_a_small_one_asks_for_more():
    rng = np.random.default_rng(0)
    claims = [difference("large", ("a", "b")), difference("none", ("c", "b"))]
    rows = {name: values(rng, mean, 4) for name, mean in (("a", 0.9), ("b", 0.3), ("c", 0.31))}
    large, none = judge(claims, figures(**rows), PROTOCOL)
    assert (large["verdict"], large["seeds"]) == ("held", 4)
    assert none["verdict"] == "not decided"
    wanted = seeds_wanted(claims, figures(**rows), PROTOCOL)
    assert list(wanted["a"]) == [10, 11, 12, 13]
    assert list(wanted["b"]) == list(wanted["c"]) == list(range(10, 18))
    assert "held | 4 |" in verdict_table([large, none])[2]


def test_the_seeds_that_decided_a_claim_stay_in_every_later_report():
    rng = np.random.default_rng(1)
    claims = [difference("some", ("a", "b"))]
    rows = {"a": values(rng, 0.75, 8, 0.2), "b": values(rng, 0.3, 8, 0.2)}
    (verdict,) = judge(claims, figures(**rows), PROTOCOL)
    assert (verdict["verdict"], verdict["seeds"]) == ("held", 8)
    assert list(seeds_wanted(claims, figures(**rows), PROTOCOL)["a"]) == list(range(10, 18))


def test_a_run_that_a_report_has_is_in_the_next_one():
    made = {"row": "pick-segment-k10", "seed": 20, "status": "done"}
    wanted = SEGMENTS.wanted("short", {"runs": [made]})
    assert ("pick-segment-k10", 20) in {(job.row, job.seed) for job in wanted}


def test_nothing_is_judged_before_every_row_has_every_seed_of_a_group():
    rng = np.random.default_rng(0)
    claims = [difference("large", ("a", "b"))]
    rows = {"a": values(rng, 0.9, 4), "b": values(rng, 0.3, 3)}
    (verdict,) = judge(claims, figures(**rows), PROTOCOL)
    assert verdict["verdict"] == "not decided"
    assert verdict["seeds"] == 0
    assert list(seeds_wanted(claims, figures(**rows), PROTOCOL)["a"]) == [10, 11, 12, 13]


def test_a_verdict_is_not_taken_back_by_later_seeds():
    rng = np.random.default_rng(0)
    rows = {"a": values(rng, 0.9, 4), "b": values(rng, 0.3, 8)}
    rows["a"] |= dict.fromkeys(range(14, 18), -9.0)
    (verdict,) = judge([difference("large", ("a", "b"))], figures(**rows), PROTOCOL)
    assert (verdict["verdict"], verdict["seeds"]) == ("held", 4)


def test_a_claim_that_is_wrong_is_not_held_and_a_lead_may_be_compared_with_another():
    rng = np.random.default_rng(0)
    rows = {n: values(rng, m, 4) for n, m in (("a", 0.2), ("b", 0.8), ("c", 0.9), ("d", 0.1))}
    claims = [
        difference("wrong", ("a", "b")),
        difference("c leads d by more than b leads a", ("c", "d"), ("b", "a")),
    ]
    wrong, lead = judge(claims, figures(**rows), PROTOCOL)
    assert wrong["verdict"] == "not held"
    assert lead["mean"] == pytest.approx(0.2, abs=0.06)
    assert claims[1].weights == {"c": 1.0, "d": -1.0, "b": -1.0, "a": 1.0}


def test_true_null_hypotheses_are_rejected_in_at_most_one_of_twenty_comparisons():
    rng = np.random.default_rng(1)
    claims = [difference(str(i), (f"a{i}", "b")) for i in range(5)]
    wrong, n = 0, 120
    for _ in range(n):
        names = ["b", *(f"a{i}" for i in range(5))]
        rows = {name: values(rng, 0.5, 16, spread=0.1) for name in names}
        wrong += any(
            v["verdict"] != "not decided" for v in judge(claims, figures(**rows), PROTOCOL)
        )
    assert wrong / n < 0.05 + 2.0 * (0.05 * 0.95 / n) ** 0.5


def test_weights_compare_something():
    for weights in ({}, {"a": 1.0}):
        with pytest.raises(TrainingError, match="must add to 0"):
            Contrast("x", weights)


def test_the_comparison_takes_the_best_trial_and_gives_both_methods_as_many():
    rows = [
        {"row": "throw-multi-k10-wider", "auc_samples": [0.6]},
        {"row": "throw-multi-k10-centre", "auc_samples": [0.5]},
        {"row": "throw-multi-k5-centre", "auc_samples": [0.9]},
    ]
    assert chosen("throw", "multi", 10, {"rows": rows}) == "wider"
    assert chosen("push", "multi", 10, {"rows": rows}) == "wider"
    assert chosen("throw", "segment", 10, {"rows": rows}) == "centre"
    counts = {
        (row.task, row.method, k): sum(
            other.task == row.task and other.method == row.method and other.changes["k"] == k
            for other in TUNING.rows.values()
        )
        for row in TUNING.rows.values()
        for k in LENGTHS
    }
    assert set(counts.values()) == {6}


def test_trials_and_judged_runs_have_no_seed_in_common():
    trials = {job.seed for job in TUNING.jobs("short")}
    judged = {job.seed for job in SEGMENTS.jobs("short")}
    assert judged == set(range(10, 26))
    assert not trials & judged
    first = SEGMENTS.wanted("short", {})
    assert {job.seed for job in first} == {10, 11, 12, 13}


def test_rows_of_a_comparison_at_one_k_differ_in_method_and_tuned_values_only():
    for k in LENGTHS:
        a, b = (SEGMENTS.config(f"throw-{kind}-k{k}", "short") for kind in ("segment", "multi"))
        assert (a.k, a.samples, a.environments) == (b.k, b.samples, b.environments)
        assert (a.method, a.noise, b.method, b.noise) == ("ndp", "segment", "ppo-multi", "action")


def test_the_picture_over_k_has_a_panel_for_each_task_with_more_than_one_k(tmp_path) -> None:
    areas = {"throw-segment-k5": 0.8, "throw-segment-k20": 0.6, "push-segment-k10": 0.5}
    rows = [
        {"row": row, "seeds": [10, 11], "auc_samples": [area, None]} for row, area in areas.items()
    ]
    drawn: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "draw_by_k", lambda panels, label, path: drawn.append(panels))
        paths = SEGMENTS.pictures({"rows": rows, "runs": [], "scale": "short"}, tmp_path)
    assert [path.name for path in paths] == ["segments.png", "segments_by_k.png"]
    assert drawn == [{"Throw": {"NDP, segment noise": {5: [0.8], 20: [0.6]}}}]
    draw_by_k(drawn[0], "area", tmp_path / "by_k.png")
    assert (tmp_path / "by_k.png").stat().st_size > 10_000
