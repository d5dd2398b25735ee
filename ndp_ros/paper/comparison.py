# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Compare training runs: rows are experiments with changes, curves are their evaluations.

A row is the experiment that ships for its task and method, with changes on top; without any it
is ``ndp train TASK --method METHOD``. Every run ends with episodes that neither training nor the
choice of its best checkpoint has seen, and with the probes of its row: the last checkpoint under
other conditions.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ndp_ros import checkpoint
from ndp_ros.config import from_mapping, to_mapping
from ndp_ros.errors import TrainingError
from ndp_ros.files import merged
from ndp_ros.paper.claims import Claim
from ndp_ros.paper.panels import draw_panels
from ndp_ros.paper.queue import Job, Log, Outcome, finish
from ndp_ros.paper.rows import FIRST_SEED, Probe, Row, Scale
from ndp_ros.paper.study import Record, Study
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import actor_outputs
from ndp_ros.tasks.contract import plain
from ndp_ros.tasks.vector import vectorise
from ndp_ros.training.config import RunConfig, differences
from ndp_ros.training.curves import area, interquartile_mean
from ndp_ros.training.directory import BEST, CHECKPOINTS, CONFIG, LAST, acting_choice, read_config
from ndp_ros.training.evaluation import run_episodes, summarise, wilson
from ndp_ros.training.experiments import shipped
from ndp_ros.training.logs import read_progress
from ndp_ros.training.run import train

RUN = "run"
"""Run directory inside a job's folder."""

_BY_OBSERVATIONS = "area, by observations"
_SIDE_BY_SIDE = 10
"""Environments that measure a checkpoint at a time."""
_MAY_DIFFER = ("workers", "device", "samples", "demonstrations", "evaluation_episodes")
"""Fields in which a finished run may differ from the present configuration without a note."""


class Comparison(Study):
    """A study of training runs."""

    columns: tuple[str, ...] = (
        "control steps",
        "observed",
        "success at the end",
        "of each seed",
        "best checkpoint",
        _BY_OBSERVATIONS,
        "area, by control steps",
        "observed to 0.8",
    )
    run_columns: ClassVar[Mapping[str, str]] = {
        "samples": "result.samples",
        "observed": "result.observed",
        "seconds": "result.seconds",
        "last_success": "result.last.success_rate",
        "best_success": "result.best.success_rate",
        "best_at": "result.best.at",
        "area_observed": "area_observed",
        "area_samples": "area_samples",
        "saturation": "result.last.saturation",
        "max_joint_speed": "result.last.max_joint_speed",
        "tracking_rms": "result.last.tracking_rms",
        "commit": "origin.commit",
    }
    curve_columns: ClassVar[tuple[str, ...]] = (
        "samples",
        "observed",
        "eval_success",
        "success",
        "return",
        "saturation",
        "std",
    )

    def __init__(
        self,
        name: str,
        rows: Mapping[str, Row],
        scales: Mapping[str, Scale],
        claims: Sequence[Claim] = (),
        against: str = "observed",
        baseline: str = "",
        remark: str = "",
    ) -> None:
        """Describe a study of rows, in the order of the table and of each stage's work.

        ``against`` is the horizontal axis of the pictures, ``observed`` or ``samples``. Every panel
        shows the ``baseline``, which the others change in one thing. A remark is for below the
        table.
        """
        super().__init__(name, {n: s.text for n, s in scales.items()}, claims)
        self.rows, self.scales, self.against = rows, scales, against
        self.baseline, self.remark = baseline, remark
        if baseline:
            # With another k the same number of observations is another part of a run.
            self.columns = tuple(c for c in self.columns if c != _BY_OBSERVATIONS)

    def labels(self) -> Mapping[str, str]:
        """Return the label of each row."""
        return {name: row.label for name, row in self.rows.items()}

    def config(self, name: str, scale: str) -> RunConfig:
        """Return the configuration of a row, seed 0."""
        row = self.rows[name]
        values = _shipped(row.task, row.method, row.experiment, row.noise)
        return self._changed(values, name, scale)

    def _changed(self, values: dict[str, Any], name: str, scale: str) -> RunConfig:
        """Return a configuration with the changes of a row and a scale."""
        row, of_scale = self.rows[name], self.scales[scale].changes
        # One worker: the bits do not depend on the machine's number of cores.
        for layer in (row.changes, of_scale, {"seed": 0, "workers": 1}, row.at.get(scale, {})):
            values = merged(values, layer)
        return from_mapping(RunConfig, values, source=f"{self.name} {name}")

    def jobs(self, scale: str) -> list[Job]:
        """Return the runs, stage by stage, seed by seed, so that every curve is there early."""
        how = self.scales[scale]
        found = []
        for name, row in self.rows.items():
            home, config = f"{row.home or self.name}/{scale}", self.config(name, scale)
            for number in range(row.seeds.get(scale, how.seeds)):
                seed = how.first_seed + number
                job = Job(name, seed, replace(config, seed=seed), home, self.work)
                found.append((row.stage, seed, job))
        return [job for *_, job in sorted(found, key=lambda item: item[:2])]

    def work(self, job: Job, root: Path, command: str, log: Log) -> None:
        """Train or resume a run, and measure its last and its best checkpoint."""
        folder, config = job.folder(root), job.config
        scale = self.scales[job.home.rpartition("/")[2]]
        run = _train(config, folder / RUN, command, log)
        rows = read_progress(run)
        ends = {name: run / CHECKPOINTS / name for name in (LAST, BEST)}
        whole = Probe(episodes=scale.episodes)
        result: Record = {
            "samples": int(rows[-1]["samples"]),
            "observed": int(rows[-1]["observed"]),
            "seconds": float(rows[-1]["seconds"]),
            "outputs": actor_outputs(checkpoint.load(ends[LAST]).spec),
            "first_seed": FIRST_SEED,
            LAST: measure(config, ends[LAST], whole),
        }
        same = ends[LAST].resolve() == ends[BEST].resolve()
        result[BEST] = result[LAST] if same else measure(config, ends[BEST], whole)
        for name, probe in self.rows[job.row].probes.items():
            log(f"probe {name}")
            episodes = min(probe.episodes or scale.episodes, scale.episodes)
            figures = measure(config, ends[LAST], replace(probe, episodes=episodes))
            result.setdefault("probes", {})[name] = figures
        finish(folder, plain(result))

    # The report.

    def run_details(self, outcome: Outcome) -> Record:
        """Return the curve of a run, and the fields in which its configuration differs from now."""
        run = outcome.folder / RUN
        curve = [
            {n: float(line[n]) if line.get(n) else None for n in self.curve_columns}
            for line in read_progress(run)
            if line["eval_success"]
        ]
        changed = differences(read_config(run), outcome.job.config) if run.exists() else []
        return {"curve": curve, "differs": [n for n in changed if n not in _MAY_DIFFER]}

    def compared(self, scale: str, runs: list[Record]) -> list[Record]:
        """Add the area under each curve, up to where the shortest of its task ends."""
        tasks = {name: (row.task, row.experiment) for name, row in self.rows.items()}
        for task in dict.fromkeys(tasks.values()):
            done = [r for r in runs if r["status"] == "done" and tasks[r["row"]] == task]
            for axis in ("observed", "samples"):
                ends = [run["curve"][-1][axis] for run in done if run["curve"]]
                for run in done:
                    points = [(p[axis], p["eval_success"]) for p in run["curve"]]
                    config = self.config(run["row"], scale)
                    start = config.random_steps / (config.k if axis == "observed" else 1)
                    run[f"area_{axis}"] = area(points, min(ends), start) if points else None
        return runs

    def aggregate(self, row: str, runs: Sequence[Record]) -> Record:
        """Return the figures of a row over its seeds."""
        results = [run["result"] for run in runs]
        last = [float(r[LAST]["success_rate"]) for r in results]
        pooled = sum(round(r[LAST]["success_rate"] * r[LAST]["episodes"]) for r in results)
        probes: dict[str, list[float]] = {}
        for result in results:
            for name, figures in result.get("probes", {}).items():
                probes.setdefault(name, []).append(float(figures["success_rate"]))
        return {
            "samples": max(r["samples"] for r in results),
            "observed": max(r["observed"] for r in results),
            "iqm": float(interquartile_mean(np.array(last))),
            "last": last,
            "last_pooled_ci95": list(wilson(pooled, sum(r[LAST]["episodes"] for r in results))),
            "best": [float(r[BEST]["success_rate"]) for r in results],
            "auc_observed": [run["area_observed"] for run in runs],
            "auc_samples": [run["area_samples"] for run in runs],
            "observed_to_80": [_observed_until(run["curve"], 0.8) for run in runs],
            "probes": probes,
        }

    def cells(self, row: Record) -> list[str]:
        """Return the cells of a row."""
        reached = [f"{n:,}" if n else "never" for n in row["observed_to_80"]]
        areas = [] if self.baseline else [listed(row["auc_observed"])]
        return [
            f"{row['samples']:,}",
            f"{row['observed']:,}",
            f"{row['iqm']:.2f}",
            listed(row["last"]),
            listed(row["best"]),
            *areas,
            listed(row["auc_samples"]),
            ", ".join(reached),
        ]

    def pooled(self, claim: Claim) -> Collection[str]:
        """Return all rows that change the baseline in one thing, if the claim's rows do."""
        changed = {n for c in self.claims for n in c.rows if self._changes_baseline(n)}
        return changed if claim.rows <= changed else ()

    def _changes_baseline(self, name: str) -> bool:
        row, base = self.rows[name], self.rows.get(self.baseline)
        return base is not None and (row.task, row.method) == (base.task, base.method)

    def notes(self, record: Record) -> list[str]:
        """Return definitions of the columns, and the probes."""
        episodes = self.scales[record["scale"]].episodes
        notes = [
            f"Success of the deterministic policy over {episodes} episodes with start states from "
            f"seed {FIRST_SEED} on, which no training saw; at the end: the interquartile mean over "
            "seeds of the last checkpoint. The best checkpoint is the one with the most successes "
            "among the evaluations during training. Observed counts observations, of which a "
            "segment takes one; the last column is where evaluation first reaches 0.8, by seed. "
            "Areas are those under the curve of evaluation, from none at the start (of Dyn-E, "
            "until its random motion ends) to where the shortest run of the task ends, 1 being "
            "success all along; one value a seed."
        ]
        notes += [self.remark] if self.remark else []
        probes = [
            f"- {row['label']}, {name}: {listed(values)}"
            for row in record["rows"]
            for name, values in row.get("probes", {}).items()
        ]
        if probes:
            notes.append("\n".join(["The last checkpoint under other conditions:", "", *probes]))
        return notes

    def pictures(self, record: Record, out: Path) -> list[Path]:
        """Draw the curves of the finished runs, a panel each."""
        path = out / f"{self.name}.png"
        legends = {name: row.legend for name, row in self.rows.items()}
        draw_panels(record["runs"], self._panels(), legends, self.against, path)
        return [path]

    def _panels(self) -> dict[str, list[str]]:
        """Return the rows of each panel of the picture, the baseline first."""
        base = self.rows.get(self.baseline)
        panels: dict[str, list[str]] = {}
        for name, row in self.rows.items():
            if row is not base:
                first = [self.baseline] if base and base.task == row.task else []
                panels.setdefault(row.panel, first).append(name)
        return panels


def measure(config: RunConfig, folder: Path, probe: Probe) -> dict[str, Any]:
    """Return the figures of a checkpoint of a run under the conditions of a probe.

    Raises:
        TrainingError: If the probe has no episodes.
    """
    episodes = probe.episodes or 0
    if episodes < 1:
        raise TrainingError(f"episodes is {probe.episodes}, expected at least 1")
    saved = checkpoint.load(folder)
    spec = saved.spec
    if probe.m is not None:
        spec = replace(spec, dmp=replace(spec.dmp, m=probe.m))
    choice = acting_choice(config, folder)
    envs = [choice.make(**probe.options) for _ in range(min(_SIDE_BY_SIDE, episodes))]
    seeds = range(probe.first_seed, probe.first_seed + episodes)
    try:
        done = run_episodes(vectorise(envs), ArrayPolicy(spec, saved.tensors), seeds)
    finally:
        for env in envs:
            env.close()
    return {"checkpoint": saved.id, "at": saved.provenance.get("samples"), **summarise(done)}


def listed(values: Sequence[float | None]) -> str:
    """Return figures as text, one a seed."""
    return ", ".join("–" if value is None else f"{value:.2f}" for value in values)


def _train(config: RunConfig, run: Path, command: str, log: Log) -> Path:
    """Train in a run directory, from wherever an earlier attempt stopped; return it."""

    def watch(row: dict[str, Any]) -> None:
        success = row.get("success")
        shown = "" if success is None else f", success {success:.2f}"
        log(f"{row['samples']} of {row['total']} samples{shown}")

    if run.exists() and not (run / CONFIG).exists():
        shutil.rmtree(run)
    train(config, run, (run / CONFIG).exists(), command, quiet=True, watch=watch)
    return run


@lru_cache(maxsize=64)
def _shipped(task: str, method: str, experiment: str, noise: str) -> dict[str, Any]:
    return to_mapping(shipped(task, method, experiment, noise))


def _observed_until(curve: Sequence[Record], success: float) -> int | None:
    """Return the observations after which evaluation first reached a success rate."""
    return next((int(p["observed"]) for p in curve if p["eval_success"] >= success), None)
