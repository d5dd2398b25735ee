# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Compare noise of the segment with the paper's, and NDP with PPO-multi, by k.

``tuning`` gives each method the same number of trials at each k, one thing changed at a time around
a centre, on a seed that judges nothing; ``segments`` compares the best trial of each on seeds from
10 on, by the :class:`~ndp_ros.paper.protocol.Protocol`. Both read the trials from here, so that the
comparison was fixed before its runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ndp_ros.files import merged
from ndp_ros.paper.claims import by_seed
from ndp_ros.paper.comparison import Comparison
from ndp_ros.paper.panels import draw_by_k
from ndp_ros.paper.protocol import (
    Contrast,
    Protocol,
    difference,
    judge,
    seeds_wanted,
    verdict_table,
)
from ndp_ros.paper.queue import Job
from ndp_ros.paper.rows import SMOKE, Row, Scale
from ndp_ros.paper.study import Record, read_record
from ndp_ros.training.config import RunConfig

PROTOCOL = Protocol()

LENGTHS = (5, 10, 20)
"""k: control steps a decision."""
TASKS = {
    "throw": ("Throw", 600_000),
    "pick": ("Pick", 600_000),
    "push": ("Push", 1_000_000),
    "soccer": ("Soccer", 1_000_000),
    "faucet-open": ("Faucet", 1_000_000),
}
"""Name and horizon of each task: a run is as long, and its area is taken over all of it."""
TUNED = ("throw", "pick")
"""Tasks that trials are made on; the others take Throw's choice."""
TRIAL_SEED, TRIAL_SHARE = 3, 0.5
"""Seed of the trials, and their length as a share of the horizon."""

_SEGMENT, _MULTI = "segment", "multi"
_CENTRE: Mapping[str, Mapping[str, Any]] = {
    _SEGMENT: {"noise": "segment", "ppo": {"clip": 0.2}},
    _MULTI: {"ppo": {"clip": 0.2, "noise_correlation": 0.8}},
}
_WIDER = 0.5
_TRIALS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    _SEGMENT: {
        "centre": {},
        "reach 0.5": {"reach": 0.5},
        "reach 1.4": {"reach": 1.4},
        "clip 0.1": {"ppo": {"clip": 0.1}},
        "clip 0.3": {"ppo": {"clip": 0.3}},
        "r = 3": {"curves": 3, "dmp": {"forcing": "free"}},
    },
    _MULTI: {
        "centre": {},
        "correlation 0": {"ppo": {"noise_correlation": 0.0}},
        "correlation 0.95": {"ppo": {"noise_correlation": 0.95}},
        "clip 0.1": {"ppo": {"clip": 0.1}},
        "wider": {"init_log_std": _WIDER, "final_log_std": _WIDER},
        "narrower": {"init_log_std": -_WIDER, "final_log_std": -_WIDER},
    },
}
"""Changes of each trial; log deviations are added to those of the experiment."""
_METHODS = {_SEGMENT: "ndp", _MULTI: "ppo-multi"}
_LABELS = {_SEGMENT: "NDP, segment noise", _MULTI: "PPO-multi"}
_ADDED = ("init_log_std", "final_log_std")
_SHARED = {"evaluation_episodes": 64}
"""Values of every run of both studies."""


def _values(kind: str, k: int, trial: str) -> dict[str, Any]:
    """Return the noise and the values of a trial."""
    changes = merged(merged(_CENTRE[kind], _TRIALS[kind][trial]), {"k": k, **_SHARED})
    return {"noise": "segment" if kind == _SEGMENT else "action", "changes": changes}


def _rows_of_trials() -> dict[str, Row]:
    return {
        _trial(task, kind, k, name): Row(
            task,
            _METHODS[kind],
            f"{TASKS[task][0]}, {_LABELS[kind]}",
            f"k = {k}, {name}",
            at=_length(task, TRIAL_SHARE),
            stage=LENGTHS.index(k),
            **_values(kind, k, name),
        )
        for task in TUNED
        for k in LENGTHS
        for kind, trials in _TRIALS.items()
        for name in trials
    }


def _trial(task: str, kind: str, k: int, name: str) -> str:
    plain = "".join(c for c in name if c.isalnum() or c == ".")
    return f"{task}-{kind}-k{k}-{plain}"


def _length(task: str, share: float = 1.0) -> dict[str, dict[str, Any]]:
    samples = {"samples": int(share * TASKS[task][1])}
    return {"short": samples, "full": samples}


class Segments(Comparison):
    """A comparison whose log deviations are relative to the experiment's."""

    def _changed(self, values: dict[str, Any], name: str, scale: str) -> RunConfig:
        row = self.rows[name]
        moved = {n: values[n] + row.changes[n] for n in _ADDED if n in row.changes}
        config = super()._changed(values, name, scale)
        return replace(config, **moved)


class Judged(Segments):
    """The comparison itself: tuned rows, seeds in groups, claims by the protocol."""

    def __init__(self, *args: Any, contrasts: Sequence[Contrast], **options: Any) -> None:
        super().__init__(*args, **options)
        self._contrasts = tuple(contrasts)

    def wanted(self, scale: str, before: Record) -> list[Job]:
        """Return the runs that the protocol asks for, and those that the last report has."""
        if scale == "smoke":
            return self.jobs(scale)
        wanted = seeds_wanted(self._contrasts, self._figures(before.get("rows", ())), PROTOCOL)
        made = {(r["row"], r["seed"]) for r in before.get("runs", ()) if r["status"] == "done"}
        return [
            j
            for j in self.jobs(scale)
            if j.seed in wanted.get(j.row, ()) or (j.row, j.seed) in made
        ]

    def judged(self, record: Record) -> list[Record]:
        """Return the claims, judged by the protocol."""
        return judge(self._contrasts, self._figures(record["rows"]), PROTOCOL)

    def claims_lines(self, record: Record) -> list[str]:
        """Return the table of the claims."""
        return verdict_table(record["claims"])

    def pictures(self, record: Record, out: Path) -> list[Path]:
        """Draw the curves, and the areas over k of tasks where a method has more than one."""
        panels: dict[str, dict[str, dict[int, list[float]]]] = {}
        for name, values in by_seed(record["rows"], "auc_samples").items():
            row = self.rows[name]
            if values:
                method = row.legend.partition(", k =")[0]
                by_k = panels.setdefault(row.panel, {}).setdefault(method, {})
                by_k[row.changes["k"]] = list(values.values())
        panels = {t: m for t, m in panels.items() if any(len(by_k) > 1 for by_k in m.values())}
        paths = super().pictures(record, out)
        if panels:
            paths.append(out / f"{self.name}_by_k.png")
            draw_by_k(panels, "area under the curve of success", paths[-1])
        return paths

    def _figures(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[int, float]]]:
        return {claim.figure: by_seed(rows, claim.figure) for claim in self._contrasts}


def judged_scales(short: str) -> dict[str, Scale]:
    """Return the scales of a comparison by the protocol, of which ``short`` has this text."""
    how: dict[str, Any] = {"seeds": PROTOCOL.most, "first_seed": PROTOCOL.first_seed}
    full = f"the same with all {PROTOCOL.most} seeds"
    return {"smoke": SMOKE, "short": Scale(short, **how), "full": Scale(full, **how)}


def chosen(task: str, kind: str, k: int, tuning: Record) -> str:
    """Return the trial with the largest area, the centre as long as there is none.

    A task without trials has Throw's.
    """
    where = task if task in TUNED else TUNED[0]
    areas = {
        row["row"]: row["auc_samples"][0]
        for row in tuning.get("rows", ())
        if row.get("auc_samples") and row["auc_samples"][0] is not None
    }
    return max(_TRIALS[kind], key=lambda name: areas.get(_trial(where, kind, k, name), -1.0))


def _rows_of_comparison(tuning: Record) -> dict[str, Row]:
    rows = {}
    for stage, (task, (panel, _)) in enumerate(TASKS.items()):
        for k in LENGTHS:
            for kind, method in _METHODS.items():
                curve = f"{_LABELS[kind]}, k = {k}"
                values = _values(kind, k, chosen(task, kind, k, tuning))
                row = Row(task, method, panel, curve, at=_length(task), stage=stage, **values)
                rows[f"{task}-{kind}-k{k}"] = row
        rows[f"{task}-action-k5"] = Row(
            task,
            "ndp",
            panel,
            "NDP, the paper's noise, k = 5",
            changes={"k": 5, "ppo": {"clip": 0.2}, **_SHARED},
            at=_length(task),
            stage=stage,
        )
    return rows


def _contrasts() -> list[Contrast]:
    """Return the primary claims."""
    found = [
        difference(
            f"Noise of the segment is better than the paper's in {TASKS[task][0]}, k = 5",
            (f"{task}-segment-k5", f"{task}-action-k5"),
        )
        for task in TUNED
    ]
    for k, tasks in ((10, tuple(TASKS)), (20, TUNED)):
        found += [
            difference(
                f"NDP is better than tuned PPO-multi in {TASKS[task][0]}, k = {k}",
                (f"{task}-segment-k{k}", f"{task}-multi-k{k}"),
            )
            for task in tasks
        ]
    found += [
        difference(
            f"Its lead over PPO-multi grows from k = 5 to 20 in {TASKS[task][0]}",
            (f"{task}-segment-k20", f"{task}-multi-k20"),
            (f"{task}-segment-k5", f"{task}-multi-k5"),
        )
        for task in TUNED
    ]
    return found


_LONG = "Throw and Pick for 600,000 control steps, Meta-World's tasks for a million"
TUNING = Segments(
    "tuning",
    _rows_of_trials(),
    {
        "smoke": SMOKE,
        "short": Scale(
            f"six trials of each method at each k, seed {TRIAL_SEED}, 300,000 control steps",
            1,
            first_seed=TRIAL_SEED,
            episodes=20,
        ),
        "full": Scale("the same on three seeds", 3, first_seed=TRIAL_SEED, episodes=20),
    },
    against="samples",
    remark="A trial changes one thing around the centre: clip 0.2, and for PPO-multi noise with a "
    "correlation of 0.8. `segments` takes the trial with the largest area by control steps.",
)
SEGMENTS = Judged(
    "segments",
    _rows_of_comparison(read_record(Path("results") / "tuning", "tuning")),
    judged_scales(
        f"the best of six trials each, seeds from {PROTOCOL.first_seed} on in groups of "
        f"{PROTOCOL.group}; {_LONG}"
    ),
    against="samples",
    contrasts=_contrasts(),
    remark="Areas by control steps over the whole run, 64 episodes an evaluation; at one k they "
    "are those by observations. NDP and PPO-multi had six trials each at each k (`tuning`).",
)
