# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Studies that tests run: a comparison of methods on the toy task, and runs that a test writes."""

import dataclasses

from test_training import TOY, toy

from ndp_ros.config import to_mapping
from ndp_ros.paper.claims import Claim
from ndp_ros.paper.comparison import Comparison
from ndp_ros.paper.queue import SCALES, Job, Queue, select
from ndp_ros.paper.rows import Probe, Row, Scale
from ndp_ros.paper.study import Study

_ROWS_OWN = ("task", "method", "seed", "dmp", "task_options")
TINY = {n: v for n, v in to_mapping(toy(320)).items() if n not in _ROWS_OWN}
SCALE = {scale: Scale("a test", 2, TINY, 3) for scale in SCALES}
CURVES = {
    "toy-ndp": Row(TOY, "ndp", "Toy", probes={"five at once": Probe({"windows": 5}, episodes=2)}),
    "toy-ppo": Row(TOY, "ppo", "Toy", stage=1),
    "toy-N2": Row(TOY, "ndp", "basis", "N = 2", changes={"dmp": {"n_basis": 2}}, stage=1),
}
CLAIMS = [
    Claim("NDP beats PPO here", (("toy-ndp", "toy-ppo"),), source="nowhere"),
    Claim("NDP has an area", (("toy-ndp", -1.0),)),
    Claim("PPO has less area than none", (("toy-ppo", -1.0),), "below"),
]


def small_study():
    return Comparison("fig5", CURVES, SCALE, CLAIMS, baseline="toy-ndp")


def queue_of(study, root, only=(), scale="smoke"):
    """Return the queue of a study's runs, or of some of them."""
    return Queue(study.name, tuple(select(study.jobs(scale), only)), root)


class Script(Study):
    """Three runs by a function of the job and its folder."""

    columns, run_columns, curve_columns = (), {}, ()

    def __init__(self, work, needs=()):
        super().__init__("script", dict.fromkeys(SCALES, "a test"))
        self._work, self._needs = work, needs

    def labels(self):
        return {"row": "Row"}

    def jobs(self, scale):
        first = Job("row", 0, None, f"script/{scale}", self.work)
        after = {seed: (first,) if seed in self._needs else () for seed in (1, 2)}
        others = [
            dataclasses.replace(first, seed=seed, needs=needs) for seed, needs in after.items()
        ]
        return [*others, first]

    def work(self, job, root, command, log):
        self._work(job, job.folder(root))

    def aggregate(self, row, runs):
        return {}

    def cells(self, row):
        return []

    def pictures(self, record, out):
        return []


def done(job, folder):
    (folder / "result.json").write_text('{"px2": 1}')
