"""Studies of training runs: rows are experiments with changes, curves are their evaluations.

A row is the experiment that ships for its task and method, with changes on top; without any it
is ``ndp train TASK --method METHOD``. Besides its learning curve by deterministic evaluation
every run ends with episodes that neither training nor the choice of its best checkpoint has
seen, and with the probes of its row: the same checkpoint under other conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ndp_ros import checkpoint
from ndp_ros.config import from_mapping, to_mapping
from ndp_ros.policies.layout import actor_outputs
from ndp_ros.training.claims import Claim
from ndp_ros.training.curves import COLOURS, Curve, area, bands, draw_band, interquartile_mean
from ndp_ros.training.directory import BEST, CHECKPOINTS, LAST, read_config
from ndp_ros.training.evaluation import plain, wilson
from ndp_ros.training.experiment import RunConfig, differences, merge, shipped
from ndp_ros.training.logs import read_progress
from ndp_ros.training.reproduce import Job, Outcome, finish
from ndp_ros.training.study import Record, Study
from ndp_ros.training.trained import FIRST_SEED, Probe, go_on, measure

_RUN = "run"
_BY_OBSERVATIONS = "area, by observations"
_COLUMNS = 3
"""Panels of a picture side by side."""
_MAY_DIFFER = ("workers", "samples", "demonstrations", "evaluation_episodes")
"""Fields in which a finished run may differ from what is asked now without a word of it."""


@dataclass(frozen=True)
class Row:
    """A curve of a figure."""

    task: str
    method: str
    panel: str
    """Panel of the picture."""
    curve: str = ""
    """Name in the panel's legend; the method's if there is none."""
    experiment: str = ""
    """Shipped experiment on top of that of task and method."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Values on top of both, as a configuration file has them."""
    probes: Mapping[str, Probe] = field(default_factory=dict)
    stage: int = 0
    """Stages are worked on one after the other, each seed by seed."""
    seeds: Mapping[str, int] = field(default_factory=dict)
    """Seeds at a scale, where they are others than the scale's."""
    at: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Values at a scale, on top of all others."""
    home: str = ""
    """Experiment that the run belongs to, where it is another one's."""

    @property
    def legend(self) -> str:
        """What its panel calls it."""
        return self.curve or self.method

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.panel}, {self.legend}"


@dataclass(frozen=True)
class Scale:
    """What a scale costs."""

    text: str
    seeds: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Values on top of every row's."""
    episodes: int = 100
    """Episodes of the last and of the best checkpoint after the end of a run."""


SMOKE = Scale(
    "a few hundred control steps, 1 seed; says nothing about the methods",
    1,
    {
        "samples": 640, "environments": 4, "evaluation_episodes": 2,
        "ppo": {"batch_size": 320, "minibatches": 4, "epochs": 2},
        "sac": {"collect": 160, "warm_up": 160, "replay_batch": 16},
        "dyne": {"random_steps": 320, "embedding_steps": 4, "decoder_steps": 4},
    },
    2,
)  # fmt: skip


class Comparison(Study):
    """Training runs beside one another."""

    columns: tuple[str, ...] = (
        "control steps", "observed", "success at the end", "of each seed", "best checkpoint",
        _BY_OBSERVATIONS, "area, by control steps", "observed to 0.8",
    )  # fmt: skip
    run_columns: ClassVar[Mapping[str, str]] = {
        "samples": "result.samples", "observed": "result.observed", "seconds": "result.seconds",
        "last_success": "result.last.success_rate", "best_success": "result.best.success_rate",
        "best_at": "result.best.at", "area_observed": "area_observed",
        "area_samples": "area_samples", "saturation": "result.last.saturation",
        "max_joint_speed": "result.last.max_joint_speed",
        "tracking_rms": "result.last.tracking_rms", "commit": "origin.commit",
    }  # fmt: skip
    curve_columns: ClassVar[tuple[str, ...]] = (
        "samples", "observed", "eval_success", "success", "return", "saturation", "std",
    )  # fmt: skip

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
        """Describe a study.

        Args:
            name: Its name on the command line.
            rows: Its rows by name, in the order of the table and of each stage's work.
            scales: Its scales by name.
            claims: What the paper says of it.
            against: Horizontal axis of its pictures: ``observed`` or ``samples``.
            baseline: Row that every panel shows, where the others are this one with something
                changed.
            remark: A sentence for below the table.
        """
        super().__init__(name, {n: s.text for n, s in scales.items()}, claims)
        self.rows, self.scales, self.against = rows, scales, against
        self.baseline, self.remark = baseline, remark
        if baseline:
            # With another k the same observations are another part of a run.
            self.columns = tuple(c for c in self.columns if c != _BY_OBSERVATIONS)

    def labels(self) -> Mapping[str, str]:
        """Return what tables call each row."""
        return {name: row.label for name, row in self.rows.items()}

    def config(self, name: str, scale: str) -> RunConfig:
        """Return what the runs of a row train, seed 0."""
        row = self.rows[name]
        return self._changed(_plain(row.task, row.method, row.experiment), name, scale)

    def _changed(self, values: dict[str, Any], name: str, scale: str) -> RunConfig:
        """Return a configuration with what a row and a scale change in it."""
        row, of_scale = self.rows[name], self.scales[scale].changes
        # One worker: the bits do not depend on the machine's number of cores.
        for layer in (row.changes, of_scale, {"seed": 0, "workers": 1}, row.at.get(scale, {})):
            values = merge(values, dict(layer), name)
        return from_mapping(RunConfig, values, source=f"{self.name} {name}")

    def jobs(self, scale: str) -> list[Job]:
        """Return the runs, stage by stage, seed by seed, so that every curve is there early."""
        how = self.scales[scale]
        found = []
        for name, row in self.rows.items():
            home, config = f"{row.home or self.name}/{scale}", self.config(name, scale)
            for seed in range(row.seeds.get(scale, how.seeds)):
                job = Job(name, seed, replace(config, seed=seed), home)
                found.append((row.stage, seed, job))
        return [job for *_, job in sorted(found, key=lambda item: item[:2])]

    def work(self, job: Job, root: Path, command: str, say: Callable[[str], None]) -> None:
        """Train, or go on with it, and measure the last and the best checkpoint."""
        folder, config = job.folder(root), job.config
        scale = self.scales[job.home.rpartition("/")[2]]
        run = go_on(config, folder / _RUN, command, say)
        rows = read_progress(run)
        ends = {name: run / CHECKPOINTS / name for name in (LAST, BEST)}
        result: Record = {
            "samples": int(rows[-1]["samples"]),
            "observed": int(rows[-1]["observed"]),
            "seconds": float(rows[-1]["seconds"]),
            "outputs": actor_outputs(checkpoint.load(ends[LAST]).spec),
            "first_seed": FIRST_SEED,
            LAST: measure(config, ends[LAST], scale.episodes),
        }
        same = ends[LAST].resolve() == ends[BEST].resolve()
        result[BEST] = result[LAST] if same else measure(config, ends[BEST], scale.episodes)
        for name, probe in self.rows[job.row].probes.items():
            say(f"probe {name}")
            episodes = min(probe.episodes or scale.episodes, scale.episodes)
            result.setdefault("probes", {})[name] = measure(
                config, ends[LAST], episodes, probe.first_seed, probe.options, probe.m
            )
        finish(folder, plain(result))

    # The report.

    def more_of(self, outcome: Outcome) -> Record:
        """Return the curve of a run, and in what it differs from what is asked now."""
        run = outcome.folder / _RUN
        curve = [
            {name: _number(line.get(name)) for name in self.curve_columns}
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
                    start = _blind(config) / (config.k if axis == "observed" else 1)
                    run[f"area_{axis}"] = area(points, min(ends), start) if points else None
        return runs

    def aggregate(self, row: str, runs: Sequence[Record]) -> Record:
        """Return what the seeds of a row have in common."""
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
            "observed_to_80": [_reached(run["curve"], 0.8) for run in runs],
            "probes": probes,
        }

    def cells(self, row: Record) -> list[str]:
        """Return the cells of a row."""
        reached = [f"{n:,}" if n else "never" for n in row["observed_to_80"]]
        areas = [] if self.baseline else [listed(row["auc_observed"])]
        return [
            f"{row['samples']:,}", f"{row['observed']:,}", f"{row['iqm']:.2f}",
            listed(row["last"]), listed(row["best"]), *areas, listed(row["auc_samples"]),
            ", ".join(reached),
        ]  # fmt: skip

    def alike(self, claim: Claim) -> Collection[str]:
        """Return all rows that are the baseline with one thing changed, if a claim's rows are."""
        changed = {n for c in self.claims for n in _named(c) if self._is_baseline_changed(n)}
        return changed if _named(claim) <= changed else ()

    def _is_baseline_changed(self, name: str) -> bool:
        row, base = self.rows[name], self.rows.get(self.baseline)
        return base is not None and (row.task, row.method) == (base.task, base.method)

    def notes(self, record: Record) -> list[str]:
        """Return what the columns mean, and the probes."""
        episodes = self.scales[record["scale"]].episodes
        notes = [
            f"Success of the deterministic policy over {episodes} episodes with start states from "
            f"seed {FIRST_SEED} on, which no training saw; at the end: the interquartile mean over "
            "seeds of the last checkpoint. The best checkpoint is the one with the most successes "
            "among the evaluations during training. Observed counts observations, of which a "
            "segment takes one; the last column is where evaluation first reaches 0.8, by seed. "
            "Areas are those under the curve of evaluation, from none at the start (of Dyn-E, "
            "until its random motion ends) to where the shortest run of the task ends, 1 being "
            "success all along; one value a seed.",
        ]
        notes += [self.remark] if self.remark else []
        probes: list[str] = []
        for row in record["rows"]:
            for name, values in row.get("probes", {}).items():
                probes.append(f"- {row['label']}, {name}: {listed(values)}")
        if probes:
            notes.append("\n".join(["The last checkpoint under other conditions:", "", *probes]))
        return notes

    def pictures(self, record: Record, out: Path) -> list[Path]:
        """Draw the curves of the runs that are done, a panel each."""
        from matplotlib.figure import Figure

        runs = [r for r in record["runs"] if r["status"] == "done" and r["curve"]]
        panels = {
            title: rows for title, rows in self._panels().items()
            if any(run["row"] in rows for run in runs)
        } or self._panels()  # fmt: skip
        # A method has one colour in all panels, unless there are more of them than colours.
        everywhere = list(dict.fromkeys(row.legend for row in self.rows.values()))
        columns = min(len(panels), _COLUMNS)
        lines = -(-len(panels) // columns)
        figure = Figure(figsize=(4 * columns, 4 * lines), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False)
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        for ax, (title, rows) in zip(axes.flat, panels.items(), strict=False):
            here = list(dict.fromkeys(self.rows[r].legend for r in rows))
            labels = everywhere if len(everywhere) <= COLOURS else here
            curves = []
            for run in runs:
                if run["row"] in rows:
                    points = np.array([[p[self.against], p["eval_success"]] for p in run["curve"]])
                    label = self.rows[run["row"]].legend
                    curves.append(Curve(label, run["seed"], points[:, 0], points[:, 1]))
            for group in bands(curves):
                label = f"{group.label} ({group.seeds})"
                draw_band(ax, group, label, labels.index(group.label))
            spoken = {"observed": "observations", "samples": "control steps"}
            ax.set(title=title, xlabel=spoken[self.against], ylim=(-0.02, 1.02))
            if self.against == "observed" and curves:
                ax.set_xscale("log")
            ax.grid(alpha=0.3)
            if curves:
                ax.legend(  # below: the curves need all of the panel
                    fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18)
                )
        for ax in axes[:, 0]:
            ax.set_ylabel("success, deterministic evaluation")
        figure.supxlabel("in brackets: number of seeds", fontsize=8)
        path = out / f"{self.name}.png"
        figure.savefig(path, dpi=120)
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


@lru_cache(maxsize=64)
def _plain(task: str, method: str, experiment: str) -> dict[str, Any]:
    return to_mapping(shipped(task, method, experiment))


def _blind(config: RunConfig) -> int:
    """Return the control steps that a method moves at random before it has a policy."""
    warm_up = config.sac.warm_up if config.method in ("dyn-e", "sac", "ndp-sac") else 0
    return warm_up + (config.dyne.random_steps if config.method == "dyn-e" else 0)


def listed(values: Sequence[float | None]) -> str:
    """Return figures as text, one a seed."""
    return ", ".join("–" if value is None else f"{value:.2f}" for value in values)


def _named(claim: Claim) -> set[str]:
    return {name for pair in claim.pairs for name in pair if isinstance(name, str)}


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _reached(curve: Sequence[Record], success: float) -> int | None:
    """Return the observations after which evaluation first reached a success rate."""
    return next((int(p["observed"]) for p in curve if p["eval_success"] >= success), None)
