# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Clone demonstrations: the studies of imitation learning and the recordings that they share.

An expert demonstrates with part of its exploration noise, and the actions without noise are
recorded. k consecutive control steps with the first one's observation are a window; all learners of
a task see the same windows in the same order.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ndp_ros import checkpoint
from ndp_ros.config import param, to_mapping
from ndp_ros.paper.claims import Claim
from ndp_ros.paper.comparison import RUN, Comparison, listed
from ndp_ros.paper.queue import RESULT, Job, Log, finish
from ndp_ros.paper.rows import PAPER_NOISE, Row, Scale
from ndp_ros.paper.study import Record
from ndp_ros.pictures.style import METHOD_COLOURS, PALETTE, picture
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.tasks.contract import TaskEnvironment, plain
from ndp_ros.training.config import RunConfig
from ndp_ros.training.demonstrations import Expert, collect, regroup
from ndp_ros.training.directory import BEST, CHECKPOINTS, LAST
from ndp_ros.training.experiments import shipped
from ndp_ros.training.methods import METHODS

FILE = "demonstrations.safetensors"
_FIRST = 1 << 20
"""First start state of demonstrations: no evaluation uses them."""


@dataclass(frozen=True, kw_only=True)
class DemonstrationConfig(ABC):
    """Demonstrations of one task; with the expert they decide every number of the file."""

    task: str = param(doc="The task.")
    k: int = param(5, doc="Control steps a window.", minimum=1)
    every: int = param(
        0, doc="Control steps from one window's start to the next one's; 0: no overlap.", minimum=0
    )
    episodes: int = param(200, doc="Episodes.", minimum=1)
    noise: float = param(0.3, doc="Part of its deviation that the expert acts with.", minimum=0.0)

    @abstractmethod
    def demonstrate(self, experts: Sequence[Path], folder: Path, log: Log) -> None:
        """Write demonstrations and their result into a job's folder.

        ``experts`` are the folders of the jobs that it needs.
        """

    def _write(
        self,
        expert: Expert,
        env: TaskEnvironment,
        source: dict[str, Any],
        named: dict[str, Any],
        folder: Path,
        log: Log,
    ) -> None:
        """Record an expert in its environment, and close the environment.

        The origin of the demonstrations is the ``source`` of their file, and ``named`` in the
        result.
        """
        try:
            data = collect(
                expert,
                env,
                range(_FIRST, _FIRST + self.episodes),
                source,
                self.noise,
                lambda episode: log(f"episode {episode['seed'] - _FIRST + 1} of {self.episodes}"),
            )
        finally:
            env.close()
        data = regroup(data, self.k, self.every)
        data.save(folder / FILE)
        result = {
            "episodes": data.episodes,
            "success_rate": float(data.success.mean()),
            "windows": len(data.observations),
            "noise": self.noise,
        }
        finish(folder, plain(result | named))


@dataclass(frozen=True, kw_only=True)
class BestOfExperts(DemonstrationConfig):
    """Demonstrations by the most successful of several runs."""

    expert: RunConfig = param(doc="The run of the experts' first seed.")

    def demonstrate(self, experts: Sequence[Path], folder: Path, log: Log) -> None:
        """Record the best of the experts."""

        def successes(expert: Path) -> float:
            result = json.loads((expert / RESULT).read_text(encoding="utf-8"))
            return float(result[BEST]["success_rate"])

        best = max(experts, key=successes)
        saved = checkpoint.load(best / RUN / CHECKPOINTS / BEST)
        policy, source = ArrayPolicy(saved.spec, saved.tensors), {"checkpoint": saved.id}
        env = self.expert.choice.make()
        self._write(policy, env, source, {"expert": best.name, **source}, folder, log)


class Imitation(Comparison):
    """A study of learners that clone demonstrations, on one or several tasks."""

    columns = ("success", "of each seed", "paper", "demonstrations", "outputs", "held-out error")
    run_columns: ClassVar[Mapping[str, str]] = {
        "success": "result.last.success_rate",
        "best_success": "result.best.success_rate",
        "outputs": "result.outputs",
        "seconds": "result.seconds",
        "episodes": "result.episodes",
        "commit": "origin.commit",
    }
    curve_columns = ("samples", "eval_success", "error", "holdout_error")

    def __init__(
        self,
        name: str,
        rows: Mapping[str, Row],
        scales: Mapping[str, Scale],
        episodes: Mapping[str, int],
        experts: Sequence[Comparison] = (),
        paper: Mapping[str, tuple[float, float]] | None = None,
        claims: Sequence[Claim] = (),
    ) -> None:
        """Describe the table of learners ``TASK-nn`` and ``TASK-ndp``.

        Each scale has a number of episodes of demonstrations. ``experts`` are studies whose runs
        demonstrate, in rows ``TASK-ppo``; the first that has one. ``paper`` has success and
        deviation in the paper's table, by row.
        """
        super().__init__(name, rows, scales, claims)
        self._experts, self._episodes, self._paper = experts, episodes, paper or {}

    def labels(self) -> Mapping[str, str]:
        """Return the label of each row; the demonstrations of a task are a row."""
        found: dict[str, str] = {}
        for name, row in self.rows.items():
            found.setdefault(_demonstrations(name), f"{row.panel}, expert's demonstrations")
            found[name] = row.label
        return found

    def config(self, name: str, scale: str) -> RunConfig:
        """Return the configuration of a row: the task's NDP, trained by cloning."""
        row = self.rows[name]
        if METHODS[row.method].learner != "imitation":
            return super().config(name, scale)
        own = shipped(row.task, "ndp", noise=PAPER_NOISE)
        base = replace(own, method=row.method, start_from="")
        # Cloning has no schedule of the deviation, and counts passes between checkpoints.
        values = to_mapping(replace(base, final_log_std=None))
        values |= {"checkpoint_every": 50, "evaluation_episodes": 16}
        return self._changed(values, name, scale)

    def jobs(self, scale: str) -> list[Job]:
        """Return the learners' runs, each after its demonstrations and the experts' runs."""
        experts: dict[str, list[Job]] = {}
        for study in reversed(self._experts):
            experts |= _by_row(study.jobs(scale))
        recordings: dict[str, Job] = {}
        found: list[Job] = []
        for job in super().jobs(scale):
            if job.config.row.learner != "imitation":
                found.append(job)
                continue
            row = _demonstrations(job.row)
            if row not in recordings:
                runs = tuple(experts.get(f"{row.rpartition('-')[0]}-ppo", ()))
                config = self._recording(job.config, self._episodes[scale], runs)
                recordings[row] = Job(row, 0, config, job.home, self.work, runs)
                found.append(recordings[row])
            found.append(replace(job, needs=(*recordings[row].needs, recordings[row])))
        return found

    def _recording(
        self, learner: RunConfig, episodes: int, experts: Sequence[Job]
    ) -> DemonstrationConfig:
        """Return the configuration of the demonstrations that a learner clones."""
        return BestOfExperts(
            task=learner.task, k=learner.k, episodes=episodes, expert=experts[0].config
        )

    def work(self, job: Job, root: Path, command: str, log: Log) -> None:
        """Record demonstrations, or clone them and measure the clone."""
        if isinstance(job.config, DemonstrationConfig):
            experts = [need.folder(root) for need in job.needs]
            job.config.demonstrate(experts, job.folder(root), log)
            return
        if job.needs:
            file = job.needs[-1].folder(root) / FILE
            job = replace(job, config=replace(job.config, demonstrations=str(file)))
        super().work(job, root, command, log)

    def aggregate(self, row: str, runs: Sequence[Record]) -> Record:
        """Return the figures of learners, or of demonstrations."""
        results = [run["result"] for run in runs]
        if row not in self.rows:
            (result,) = results
            return {
                "demonstrated": result["success_rate"],
                "episodes": result["episodes"],
                "expert": result["expert"],
            }
        last = [float(r[LAST]["success_rate"]) for r in results]
        return {
            "last": last,
            "mean": float(np.mean(last)),
            "deviation": float(np.std(last, ddof=1)) if len(last) > 1 else None,
            "best": [float(r[BEST]["success_rate"]) for r in results],
            "outputs": results[0]["outputs"],
            "holdout": [
                run["curve"][-1]["holdout_error"]
                for run in runs
                if run["curve"] and run["curve"][-1]["holdout_error"] is not None
            ],
        }

    def compared(self, scale: str, runs: list[Record]) -> list[Record]:
        """Return the records as they are: a curve over passes has no area by samples."""
        return runs

    def curve(self, run: Record) -> list[Record]:
        """Return the learning curve of a learner."""
        rows: list[Record] = run.get("curve", [])
        return rows

    def cells(self, row: Record) -> list[str]:
        """Return the cells of a row."""
        if "demonstrated" in row:
            text = f"{row['episodes']} episodes of {row['expert']}, {row['demonstrated']:.2f}"
            return ["", "", "", text, "", ""]
        spread = "" if row["deviation"] is None else f" ± {row['deviation']:.3f}"
        paper = self._paper.get(row["row"])
        beside = f"{paper[0]:.3f} ± {paper[1]:.3f}" if paper else ""
        return [
            f"{row['mean']:.3f}{spread}",
            listed(row["last"]),
            beside,
            "",
            str(row["outputs"]),
            ", ".join(f"{error:.3f}" for error in row["holdout"]),
        ]

    def notes(self, record: Record) -> list[str]:
        """Return how the table is made."""
        return [
            "Success of the last checkpoint, mean ± deviation over seeds. The expert is the PPO "
            "policy that succeeds most often of its seeds (its best checkpoint by evaluation): of "
            "Throw and Pick those of Figure 5, of the others policies trained with Meta-World's v1 "
            "rewards. Its row says how often its demonstrations succeed. Both learners have "
            "the same hidden layers and normaliser and clone the successful demonstrations; the "
            "held-out error is the mean squared distance to the expert's actions in a tenth of the "
            "episodes."
        ]

    def pictures(self, record: Record, out: Path) -> list[Path]:
        """Draw success beside the paper's."""
        path = out / f"{self.name}.png"
        done = [r for r in record["rows"] if r.get("last")]
        with picture(path, 7.0, 3.2) as figure:
            ax = figure.subplots()
            for place, row in enumerate(done):
                method = self.rows[row["row"]].method
                shade = METHOD_COLOURS.get(method, PALETTE[0])
                ax.bar(place, row["mean"], color=shade, width=0.7)
                ax.scatter([place] * len(row["last"]), row["last"], s=6, color="black", zorder=3)
                paper = self._paper.get(row["row"])
                if paper:
                    ax.plot([place - 0.35, place + 0.35], [paper[0]] * 2, color="black", lw=1.4)
            names = [r["label"].replace(", ", "\n") for r in done]
            ax.set_xticks(range(len(done)), names, fontsize=8)
            ax.grid(visible=False, axis="x")
            compared = any(row["row"] in self._paper for row in done)
            notes = "dot: a seed" + ("; line: the paper's" if compared else "")
            ax.set(ylim=(0.0, 1.02), ylabel=f"success ({notes})")
        return [path]


def _by_row(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    rows: dict[str, list[Job]] = {}
    for job in jobs:
        rows.setdefault(job.row, []).append(job)
    return rows


def _demonstrations(row: str) -> str:
    """Return the row of the demonstrations that a learner's row clones."""
    return f"{row.rpartition('-')[0]}-demonstrations"
