"""Table 1 of the paper: behaviour cloning of PPO experts by NN and by NDP.

The expert of a task is the PPO policy (k = 1) that succeeds most often of its seeds, at its best
checkpoint by evaluation: of Throw and Pick those of Figure 5, of Meta-World's tasks policies
trained for this table with the v1 rewards, with which PPO gets through. It demonstrates with part
of its exploration while what it meant is recorded; k consecutive control steps with the first
one's observation are a window, the same windows for both learners. Both have the same hidden
layers and normaliser, and see the same episodes in the same order; NDP has (1 + N) outputs a
joint, NN has k.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ndp_ros import checkpoint
from ndp_ros.config import param, to_mapping
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.training.claims import ABOVE, BELOW, Claim
from ndp_ros.training.comparison import SMOKE, Comparison, Row, Scale, listed
from ndp_ros.training.demonstrations import Expert, collect, regroup
from ndp_ros.training.directory import BEST, CHECKPOINTS, LAST
from ndp_ros.training.environment import TaskEnvironment
from ndp_ros.training.evaluation import plain
from ndp_ros.training.experiment import CLONES, RunConfig, shipped
from ndp_ros.training.figures import FIG5, TASKS
from ndp_ros.training.reproduce import RESULT, Job, finish
from ndp_ros.training.study import Record

_ARM, _META_WORLD = ("throw", "pick"), ("push", "soccer", "faucet-open")

PAPER = {
    "throw": {"nn": (0.528, 0.262), "ndp": (0.642, 0.246)},
    "pick": {"nn": (0.672, 0.074), "ndp": (0.408, 0.058)},
    "push": {"nn": (0.002, 0.004), "ndp": (0.208, 0.049)},
    "soccer": {"nn": (0.885, 0.016), "ndp": (0.890, 0.010)},
    "faucet-open": {"nn": (0.532, 0.231), "ndp": (0.790, 0.059)},
}
"""Table 1 of the paper: success and its deviation."""

_EXPERT = {
    "task_options": ["horizon=250", "reward=v1"],
    "init_log_std": -0.5, "final_log_std": -1.6, "checkpoint_every": 20,
    "ppo": {"batch_size": 4000, "minibatches": 16, "clip": 0.2},
}  # fmt: skip
"""One configuration of PPO for Meta-World's three experts."""
_EXPERT_SAMPLES = {"push": 600_000, "soccer": 1_500_000, "faucet-open": 600_000}

EXPERTS = Comparison(
    "experts",
    {
        f"{task}-ppo": Row(
            task, "ppo", TASKS[task], changes=_EXPERT,
            at={scale: {"samples": _EXPERT_SAMPLES[task]} for scale in ("short", "full")},
        )
        for task in _META_WORLD
    },
    {
        "smoke": SMOKE,
        "short": Scale("600,000 control steps, in Soccer 1,500,000, 1 seed", 1),
        "full": Scale("600,000 control steps, in Soccer 1,500,000, 3 seeds", 3),
    },
    remark="PPO with the v1 rewards; success is the benchmark's and has nothing to do with them.",
)  # fmt: skip

FILE = "demonstrations.safetensors"
_FIRST = 1 << 20
"""First start state of demonstrations: no evaluation uses them."""


@dataclass(frozen=True, kw_only=True)
class DemonstrationConfig(ABC):
    """Demonstrations of one task; with who gives them it decides every number of the file."""

    task: str = param(doc="The task.")
    k: int = param(5, doc="Control steps a window.", minimum=1)
    every: int = param(
        0, doc="Control steps from one window's start to the next one's; 0: no overlap.", minimum=0
    )
    episodes: int = param(200, doc="Episodes.", minimum=1)
    noise: float = param(0.3, doc="Part of its deviation that the expert acts with.", minimum=0.0)

    @abstractmethod
    def demonstrate(
        self, experts: Sequence[Path], folder: Path, say: Callable[[str], None]
    ) -> None:
        """Write demonstrations and their result into a job's folder.

        Args:
            experts: Folders of the jobs that it needs.
            folder: Folder of this one.
            say: Called with one line an episode.
        """

    def _write(
        self, expert: Expert, env: TaskEnvironment, source: dict[str, Any], named: dict[str, Any],
        folder: Path, say: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Write down what an expert does in its environment, which is closed in the end.

        ``source`` says in the file who demonstrates, ``named`` in the result.
        """
        try:
            data = collect(
                expert, env, range(_FIRST, _FIRST + self.episodes), source, self.noise,
                lambda episode: say(f"episode {episode['seed'] - _FIRST + 1} of {self.episodes}"),
            )  # fmt: skip
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
    """Demonstrations by the run that succeeds most often of some."""

    expert: RunConfig = param(doc="The run of the experts' first seed.")

    def demonstrate(
        self, experts: Sequence[Path], folder: Path, say: Callable[[str], None]
    ) -> None:
        """Write down what the best of the experts does."""

        def successes(expert: Path) -> float:
            result = json.loads((expert / RESULT).read_text(encoding="utf-8"))
            return float(result[BEST]["success_rate"])

        best = max(experts, key=successes)
        saved = checkpoint.load(best / "run" / CHECKPOINTS / BEST)
        policy, source = ArrayPolicy(saved.spec, saved.tensors), {"checkpoint": saved.id}
        env = self.expert.choice.make()
        self._write(policy, env, source, {"expert": best.name, **source}, folder, say)


class Imitation(Comparison):
    """The five tasks, their demonstrations and both learners."""

    columns = ("success", "of each seed", "paper", "demonstrations", "outputs", "held-out error")
    run_columns: ClassVar[Mapping[str, str]] = {
        "success": "result.last.success_rate", "best_success": "result.best.success_rate",
        "outputs": "result.outputs", "seconds": "result.seconds", "episodes": "result.episodes",
        "commit": "origin.commit",
    }  # fmt: skip
    curve_columns = ("samples", "eval_success", "error", "holdout_error")

    def __init__(
        self, experts: Sequence[Comparison], rows: Mapping[str, Row], scales: Mapping[str, Scale],
        episodes: Mapping[str, int], claims: Sequence[Claim] = (), name: str = "table1",
    ) -> None:  # fmt: skip
        """Describe the table.

        Args:
            experts: Studies whose runs demonstrate, in rows ``TASK-ppo``; the first that has it.
            rows: Learners by name, ``TASK-nn`` and ``TASK-ndp``.
            scales: Its scales by name.
            episodes: Episodes of demonstrations by scale.
            claims: What the paper says.
            name: Its name on the command line.
        """
        super().__init__(name, rows, scales, claims)
        self._experts, self._episodes = experts, episodes

    def labels(self) -> Mapping[str, str]:
        """Return what tables call each row; every task's demonstrations are one."""
        found: dict[str, str] = {}
        for name, row in self.rows.items():
            found.setdefault(_shown(name), f"{row.panel}, expert's demonstrations")
            found[name] = row.label
        return found

    def config(self, name: str, scale: str) -> RunConfig:
        """Return what the runs of a row train: the task's NDP and scales, by cloning."""
        row = self.rows[name]
        if row.method not in CLONES:
            return super().config(name, scale)
        base = replace(shipped(row.task, "ndp"), method=row.method, start_from="")
        # PPO's schedule of the deviation means nothing here; checkpoints come every so many passes.
        values = to_mapping(replace(base, final_log_std=None))
        values |= {"checkpoint_every": 50, "evaluation_episodes": 16}
        return self._changed(values, name, scale)

    def jobs(self, scale: str) -> list[Job]:
        """Return the learners' runs, each after its demonstrations and the experts' runs."""
        experts: dict[str, list[Job]] = {}
        for study in reversed(self._experts):
            experts |= _by_row(study.jobs(scale))
        demonstrations: dict[str, Job] = {}
        found: list[Job] = []
        for job in super().jobs(scale):
            if job.config.method not in CLONES:
                found.append(job)
                continue
            shown = _shown(job.row)
            if shown not in demonstrations:
                asked_to = tuple(experts.get(f"{shown.rpartition('-')[0]}-ppo", ()))
                asked = self._asked(job.config, self._episodes[scale], asked_to)
                demonstrations[shown] = Job(shown, 0, asked, job.home, asked_to)
                found.append(demonstrations[shown])
            needs = (*demonstrations[shown].needs, demonstrations[shown])
            found.append(replace(job, needs=needs))
        return found

    def _asked(
        self, learner: RunConfig, episodes: int, experts: Sequence[Job]
    ) -> DemonstrationConfig:
        """Return the configuration of the demonstrations that a learner clones."""
        return BestOfExperts(
            task=learner.task, k=learner.k, episodes=episodes, expert=experts[0].config
        )

    def work(self, job: Job, root: Path, command: str, say: Callable[[str], None]) -> None:
        """Write demonstrations down, or clone them and measure the clone."""
        if isinstance(job.config, DemonstrationConfig):
            experts = [need.folder(root) for need in job.needs]
            job.config.demonstrate(experts, job.folder(root), say)
            return
        if not job.needs:
            super().work(job, root, command, say)
            return
        file = job.needs[-1].folder(root) / FILE
        super().work(
            replace(job, config=replace(job.config, demonstrations=str(file))), root, command, say
        )

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
        """Return the records: curves over passes say nothing about samples."""
        return runs

    def curve(self, run: Record) -> list[Record]:
        """Return the learning curve of a learner."""
        rows: list[Record] = run.get("curve", [])
        return rows

    def cells(self, row: Record) -> list[str]:
        """Return the cells of a row."""
        if "demonstrated" in row:
            said = f"{row['episodes']} episodes of {row['expert']}, {row['demonstrated']:.2f}"
            return ["", "", "", said, "", ""]
        spread = "" if row["deviation"] is None else f" ± {row['deviation']:.3f}"
        task, _, kind = row["row"].rpartition("-")
        paper = PAPER.get(task, {}).get(kind)
        beside = f"{paper[0]:.3f} ± {paper[1]:.3f}" if paper else ""
        return [
            f"{row['mean']:.3f}{spread}", listed(row["last"]), beside, "", str(row["outputs"]),
            ", ".join(f"{error:.3f}" for error in row["holdout"]),
        ]  # fmt: skip

    def notes(self, record: Record) -> list[str]:
        """Return how the table was made."""
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
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 3.2), layout="constrained")
        ax = figure.subplots()
        done = [r for r in record["rows"] if r.get("last")]
        compared = False
        for place, row in enumerate(done):
            colour = "tab:blue" if self.rows[row["row"]].method.endswith("ndp") else "tab:orange"
            ax.bar(place, row["mean"], yerr=row["deviation"] or 0.0, color=colour, width=0.7)
            task, _, kind = row["row"].rpartition("-")
            paper = PAPER.get(task, {}).get(kind)
            if paper:
                ax.plot([place - 0.35, place + 0.35], [paper[0]] * 2, color="black")
                compared = True
        ax.set_xticks(range(len(done)), [r["label"].replace(", ", "\n") for r in done], fontsize=8)
        ax.set(ylim=(0.0, 1.02), ylabel="success (line: the paper's)" if compared else "success")
        path = out / f"{self.name}.png"
        figure.savefig(path, dpi=120)
        return [path]


def _by_row(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    rows: dict[str, list[Job]] = {}
    for job in jobs:
        rows.setdefault(job.row, []).append(job)
    return rows


def _shown(row: str) -> str:
    """Return the row of the demonstrations that a learner's row clones."""
    return f"{row.rpartition('-')[0]}-demonstrations"


ROWS = {
    f"{task}-{kind}": Row(task, f"bc-{kind}", TASKS[task], label, stage=stage)
    for stage, tasks in enumerate((_ARM, _META_WORLD))
    for task in tasks
    for kind, label in (("nn", "NN"), ("ndp", "NDP"))
}

_SMOKE = replace(
    SMOKE,
    changes={"evaluation_episodes": 2, "bc": {"passes": 2, "only_successful": False}},
)

TABLE1 = Imitation(
    (EXPERTS, FIG5),
    ROWS,
    {
        "smoke": _SMOKE,
        "short": Scale("200 demonstrations, 200 passes over them, 5 seeds", 5),
        "full": Scale("200 demonstrations, 200 passes over them, 10 seeds", 10),
    },
    {"smoke": 3, "short": 200, "full": 200},
    [
        Claim(
            f"NDP {'above' if better else 'below'} NN in {TASKS[task]}",
            ((f"{task}-ndp", f"{task}-nn"),), ABOVE if better else BELOW, "last", "Table 1",
        )
        for task in PAPER
        for better in [PAPER[task]["ndp"][0] > PAPER[task]["nn"][0]]
    ]
    + [
        Claim(
            f"NDP above the paper's own figure in {TASKS[task]}",
            ((f"{task}-ndp", PAPER[task]["ndp"][0]),), ABOVE, "last",
        )
        for task in PAPER
    ],
)  # fmt: skip
