"""Figure 5 of the paper on the Jaco: Throw and Pick by NDP, PPO and PPO-multi.

Every run is ``ndp train`` with the experiment that ships for its task and method; within a
task the methods differ in the policy alone. Besides the learning curve by deterministic
evaluation every run ends with episodes that neither training nor the choice of its best
checkpoint has seen. Throw with a bin that moves is a row of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ndp_ros import checkpoint
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.training.curves import Band, bands, interquartile_mean, read_curve
from ndp_ros.training.directory import BEST, CHECKPOINTS, CONFIG, LAST, PROVENANCE
from ndp_ros.training.environment import crowd
from ndp_ros.training.evaluation import plain, run_episodes, summarise, wilson
from ndp_ros.training.experiment import RunConfig, provenance, shipped
from ndp_ros.training.logs import read_progress
from ndp_ros.training.reproduce import RESULT, Job, Outcome, csv_text
from ndp_ros.training.run import train

SCALES = {
    "smoke": "8,192 control steps, 1 seed; says nothing about the methods",
    "short": "the shipped experiments, 3 seeds, 1 of the moving bin",
    "full": "the shipped experiments, 10 seeds",
}
EPISODES = 100
"""Episodes after the end of a run, of its last and of its best checkpoint."""
FIRST_SEED = 1000
"""First start state of those episodes."""

_RUN = "run"
_SIDE_BY_SIDE = 10


@dataclass(frozen=True)
class Row:
    """A curve of the figure."""

    task: str
    method: str
    panel: str
    experiment: str = ""
    """Shipped experiment on top of that of task and method."""

    @property
    def label(self) -> str:
        """What tables and legends call it."""
        return f"{self.panel}, {self.method}"


ROWS = {
    "pick-ndp": Row("pick", "ndp", "Pick"),
    "throw-moving-ndp": Row("throw", "ndp", "Throw, moving bin", "throw-moving-ndp"),
    "throw-ppo": Row("throw", "ppo", "Throw"),
    "throw-ppo-multi": Row("throw", "ppo-multi", "Throw"),
    "pick-ppo": Row("pick", "ppo", "Pick"),
    "pick-ppo-multi": Row("pick", "ppo-multi", "Pick"),
    "throw-ndp": Row("throw", "ndp", "Throw"),
}


def jobs(scale: str) -> list[Job]:
    """Return the runs, seed by seed, so that every curve is there early."""
    seeds = {"smoke": 1, "short": 3, "full": 10}[scale]
    found = []
    for seed in range(seeds):
        for name, row in ROWS.items():
            if seed > 0 and row.experiment and scale != "full":
                continue  # beside the paper's figure: one seed of a long run
            # One worker: the bits do not depend on the machine's number of cores.
            changes: dict[str, Any] = {"seed": seed, "workers": 1}
            if scale == "smoke":
                changes |= {"samples": 8192, "evaluation_episodes": 2}
            config = shipped(row.task, row.method, row.experiment)
            found.append(Job(name, seed, replace(config, **changes)))
    return found


def work(job: Job, folder: Path, command: str, say: Callable[[str], None]) -> None:
    """Train, or go on with it, and measure the last and the best checkpoint."""
    config: RunConfig = job.config
    run = folder / _RUN

    def watch(row: dict[str, Any]) -> None:
        success = row.get("success")
        shown = "" if success is None else f", success {success:.2f}"
        say(f"{row['samples']} of {config.samples} samples{shown}")

    if run.exists() and not (run / CONFIG).exists():
        shutil.rmtree(run)
    train(config, run, (run / CONFIG).exists(), command, quiet=True, watch=watch)
    episodes = EPISODES if config.evaluation_episodes > 2 else 2
    rows = read_progress(run)
    result = {
        "samples": int(rows[-1]["samples"]),
        "observed": int(rows[-1]["observed"]),
        "seconds": float(rows[-1]["seconds"]),
        "first_seed": FIRST_SEED,
        LAST: measure(config, run / CHECKPOINTS / LAST, episodes),
        BEST: measure(config, run / CHECKPOINTS / BEST, episodes),
    }
    scratch = folder / f".{RESULT}"
    scratch.write_text(json.dumps(plain(result)) + "\n", encoding="utf-8")
    scratch.replace(folder / RESULT)


def measure(config: RunConfig, folder: Path, episodes: int) -> dict[str, Any]:
    """Return the figures of a checkpoint over start states of their own."""
    saved = checkpoint.load(folder)
    envs = [config.choice.make() for _ in range(min(_SIDE_BY_SIDE, episodes))]
    try:
        policy = ArrayPolicy(saved.spec, saved.tensors)
        seeds = range(FIRST_SEED, FIRST_SEED + episodes)
        done = run_episodes(envs, crowd(envs), policy, seeds)
    finally:
        for env in envs:
            env.close()
    return {"checkpoint": saved.id, "at": saved.provenance.get("samples"), **summarise(done)}


def report(scale: str, outcomes: Sequence[Outcome], out: Path, command: str) -> list[Path]:
    """Write ``figure5.json``, ``runs.csv``, ``curves.csv``, ``figure5.md`` and the picture."""
    out.mkdir(parents=True, exist_ok=True)
    record = {
        "scale": scale,
        "command": command,
        "report": provenance(),
        "rows": [_aggregate(name, [o for o in outcomes if o.job.row == name]) for name in ROWS],
        "runs": [o.record(f"{_RUN}/{PROVENANCE}") for o in outcomes],
    }
    texts = {
        "figure5.json": json.dumps(plain(record), indent=1) + "\n",
        "runs.csv": _runs_csv(record),
        "curves.csv": _curves_csv(outcomes),
        "figure5.md": table(record),
    }
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return [*(out / name for name in texts), _picture(outcomes, out / "figure5.png")]


def table(record: dict[str, Any]) -> str:
    """Return the Markdown table of a record."""
    lines = [
        "| task, method | seeds | control steps | observed | success at the end | of each seed "
        "| best checkpoint | observed to 0.8 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in record["rows"]:
        cells = [row["label"], f"{row['done']} of {row['asked']}"]
        if row["done"]:
            reached = [f"{n:,}" if n else "never" for n in row["observed_to_80"]]
            cells += [
                f"{row['samples']:,}", f"{row['observed']:,}", f"{row['iqm']:.2f}",
                _list(row["last"]), _list(row["best"]), ", ".join(reached),
            ]  # fmt: skip
        lines.append("| " + " | ".join(cells + [""] * (8 - len(cells))) + " |")
    lines += [
        "",
        f"Scale {record['scale']}. Success of the deterministic policy over {EPISODES} episodes "
        f"with start states from seed {FIRST_SEED} on, which no training saw; at the end: the "
        "interquartile mean over seeds of the last checkpoint. The best checkpoint is the one "
        "with the most successes among 32 other episodes during training. Observed counts "
        "observations, of which a segment takes one; the last column is where that evaluation "
        "first reaches 0.8, by seed. Within a task the methods differ in the policy alone.",
        "",
    ]
    bad = [r for r in record["runs"] if r["status"] != "done"]
    lines += [f"Run {r['name']} {r['status']}: {r['error'] or 'no result yet'}.  " for r in bad]
    seconds = sum(r["result"]["seconds"] for r in record["runs"] if r["result"])
    lines += [f"Made by `{record['command']}`; {seconds / 60:.0f} minutes of training in all.", ""]
    return "\n".join(lines)


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _aggregate(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what the seeds of a row have in common."""
    import numpy as np

    done = [o for o in outcomes if o.result]
    whole: dict[str, Any] = {
        "row": name, "label": ROWS[name].label, "asked": len(outcomes), "done": len(done),
    }  # fmt: skip
    if not done:
        return whole
    results = [o.result for o in done if o.result]
    last = [float(r[LAST]["success_rate"]) for r in results]
    pooled = sum(round(r[LAST]["success_rate"] * r[LAST]["episodes"]) for r in results)
    episodes = sum(r[LAST]["episodes"] for r in results)
    return whole | {
        "samples": max(r["samples"] for r in results),
        "observed": max(r["observed"] for r in results),
        "iqm": float(interquartile_mean(np.array(last))),
        "last": last,
        "last_pooled_ci95": list(wilson(pooled, episodes)),
        "best": [float(r[BEST]["success_rate"]) for r in results],
        "observed_to_80": [_reached(o.folder / _RUN, 0.8) for o in done],
    }


def _reached(run: Path, success: float) -> int | None:
    """Return the observations after which evaluation first reached a success rate."""
    for row in read_progress(run):
        if row["eval_success"] and float(row["eval_success"]) >= success:
            return int(row["observed"])
    return None


_RUNS = (
    "row", "seed", "status", "samples", "observed", "seconds", "last_success", "best_success",
    "best_at", "saturation", "max_joint_speed", "tracking_rms", "commit",
)  # fmt: skip


def _runs_csv(record: dict[str, Any]) -> str:
    rows = []
    for run in record["runs"]:
        result = run["result"] or {}
        last, best = result.get(LAST, {}), result.get(BEST, {})
        rows.append([
            run["row"], run["seed"], run["status"],
            *(result.get(name) for name in ("samples", "observed", "seconds")),
            last.get("success_rate"), best.get("success_rate"), best.get("at"),
            *(last.get(name) for name in ("saturation", "max_joint_speed", "tracking_rms")),
            run["origin"].get("commit"),
        ])  # fmt: skip
    return csv_text(_RUNS, rows)


_CURVES = ("samples", "observed", "eval_success", "success", "return", "saturation", "std")


def _curves_csv(outcomes: Sequence[Outcome]) -> str:
    rows = [
        [o.job.row, o.job.seed, *(line[name] for name in _CURVES)]
        for o in outcomes
        for line in read_progress(o.folder / _RUN)
        if line["eval_success"]
    ]
    return csv_text(("row", "seed", *_CURVES), rows)


def _picture(outcomes: Sequence[Outcome], path: Path) -> Path:
    """Draw the curves of the runs that are done, a panel per task."""
    from matplotlib.figure import Figure

    panels: dict[str, list[Band]] = {row.panel: [] for row in ROWS.values()}
    for name, row in ROWS.items():
        done = [o for o in outcomes if o.job.row == name and o.result]
        curves = [read_curve(o.folder / _RUN, "eval_success") for o in done]
        panels[row.panel] += bands([replace(c, label=row.method) for c in curves])
    figure = Figure(figsize=(4 * len(panels), 3.4), layout="constrained")
    for ax, (title, groups) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for group in groups:
            (line,) = ax.plot(group.x, group.middle, label=f"{group.label} ({group.seeds} seeds)")
            ax.fill_between(group.x, group.low, group.high, color=line.get_color(), alpha=0.2)
        ax.set(title=title, xscale="log", xlabel="observations", ylim=(-0.02, 1.02))
        ax.grid(alpha=0.3)
        if groups:
            ax.legend(fontsize=8)
    figure.axes[0].set_ylabel("success, deterministic evaluation")
    figure.savefig(path, dpi=120)
    return path
