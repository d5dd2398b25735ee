"""Figures and tables: rows, the queue of their runs, the report, the page of results."""

import csv
import dataclasses
import errno
import fcntl
import functools
import json
import os
import shutil
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from test_training import TOY, toy

from ndp_ros import cli
from ndp_ros.commands import reproduce as command
from ndp_ros.config import to_mapping
from ndp_ros.errors import TrainingError
from ndp_ros.training import claims, figures, reproduce, results_page, table1, trained
from ndp_ros.training.claims import (
    ABOVE,
    BELOW,
    NOT_BELOW,
    SAME,
    Claim,
    blocked_interval,
    interval,
    judge,
)
from ndp_ros.training.comparison import Comparison, Probe, Row, Scale
from ndp_ros.training.curves import area
from ndp_ros.training.demonstrations import load, regroup
from ndp_ros.training.executors import _by_processes, run_queue
from ndp_ros.training.experiment import METHODS, differences, make_spec, shipped
from ndp_ros.training.reproduce import EXPERIMENTS, SCALES, Job, Queue, experiment, outcomes
from ndp_ros.training.run import train
from ndp_ros.training.study import Study, json_text
from ndp_ros.training.warm_start import start_tensors

STUDIES = {name: experiment(name) for name in EXPERIMENTS}
_ROWS_OWN = ("task", "method", "seed", "dmp", "task_options")
TINY = {n: v for n, v in to_mapping(toy(320)).items() if n not in _ROWS_OWN}
SCALE = {scale: Scale("a test", 2, TINY, 3) for scale in SCALES}
CURVES = {
    "toy-ndp": Row(TOY, "ndp", "Toy", probes={"five at once": Probe({"windows": 5}, episodes=2)}),
    "toy-ppo": Row(TOY, "ppo", "Toy", stage=1),
    "toy-N2": Row(TOY, "ndp", "basis", "N = 2", changes={"dmp": {"n_basis": 2}}, stage=1),
}


@functools.cache
def jobs_of(name, scale):
    return experiment(name).jobs(scale)


def register(monkeypatch, **studies):
    for name, study in studies.items():
        monkeypatch.setitem(EXPERIMENTS, name, ("test_reproduce:none", "a test"))
        monkeypatch.setitem(STUDIES, name, study)
    monkeypatch.setattr(reproduce, "experiment", lambda name: STUDIES[name])
    monkeypatch.setattr("ndp_ros.commands.reproduce.experiment", lambda name: STUDIES[name])


@pytest.fixture
def small(monkeypatch):
    saying = [Claim("NDP beats PPO here", (("toy-ndp", "toy-ppo"),), source="nowhere")]
    study = Comparison("fig5", CURVES, SCALE, saying, baseline="toy-ndp")
    register(monkeypatch, fig5=study)
    return study


# The queue.


class Script(Study):
    """Three runs that do what a test says."""

    columns, run_columns, curve_columns = (), {}, ()

    def __init__(self, work, needs=()):
        super().__init__("script", dict.fromkeys(SCALES, "a test"))
        self._work, self._needs = work, needs

    def labels(self):
        return {"row": "Row"}

    def jobs(self, scale):
        first = Job("row", 0, None, f"script/{scale}")
        others = [
            Job("row", seed, None, f"script/{scale}", (first,) if seed in self._needs else ())
            for seed in (1, 2)
        ]
        return [*others, first]

    def work(self, job, root, command, say):
        self._work(job, job.folder(root))

    def aggregate(self, row, runs):
        return {}

    def cells(self, row):
        return []

    def pictures(self, record, out):
        return []


def done(job, folder):
    (folder / "result.json").write_text('{"px2": 1}')


def test_a_failed_run_stops_no_other_and_is_tried_again(monkeypatch, tmp_path):
    attempts = []

    def work(job, folder):
        attempts.append(job.seed)
        if job.seed == 1 and attempts.count(1) == 1:
            raise ValueError("bad luck")
        done(job, folder)

    register(monkeypatch, script=Script(work))
    queue = Queue("script", "smoke", tmp_path)
    run_queue(queue, 1)
    found = {o.job.seed: o for o in outcomes(queue.jobs(), tmp_path)}
    assert {seed: o.status for seed, o in found.items()} == {0: "done", 1: "failed", 2: "done"}
    assert found[1].error == "ValueError: bad luck"
    run_queue(queue, 1)
    assert all(o.status == "done" for o in outcomes(queue.jobs(), tmp_path))
    assert attempts == [1, 2, 0, 1]


def test_a_run_under_way_elsewhere_is_left_alone(monkeypatch, tmp_path):
    worked = []
    register(monkeypatch, script=Script(lambda job, folder: worked.append(job.seed)))
    folder = tmp_path / "script" / "smoke" / "row-1"
    folder.mkdir(parents=True)
    with (folder / reproduce.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run_queue(Queue("script", "smoke", tmp_path), 1)
    assert worked == [2, 0]


def test_a_run_comes_after_what_it_needs_and_fails_with_it(monkeypatch, tmp_path):
    worked = []

    def work(job, folder):
        worked.append(job.seed)
        if job.seed == 0 and len(worked) < 4:
            raise TrainingError("no expert")
        done(job, folder)

    register(monkeypatch, script=Script(work, needs=(1,)))
    queue = Queue("script", "smoke", tmp_path)
    run_queue(queue, 1)
    assert worked == [0, 2]
    (failed,) = [o for o in outcomes(queue.jobs(), tmp_path) if o.job.seed == 1]
    assert failed.error == "needs row-0, which failed"
    worked += [9, 9]
    run_queue(queue, 1)
    assert worked[4:] == [0, 1]


def test_a_part_of_the_queue_brings_what_it_needs(monkeypatch, tmp_path):
    register(monkeypatch, script=Script(done, needs=(1,)))
    names = [j.name for j in Queue("script", "smoke", tmp_path, only=("row-1",)).jobs()]
    assert names == ["row-0", "row-1"]
    with pytest.raises(TrainingError, match="rows"):
        Queue("script", "smoke", tmp_path, only=("rows",)).jobs()


@pytest.mark.timeout(60)
def test_the_queue_ends_when_its_last_workers_end_while_they_are_looked_at(monkeypatch):
    look = BaseProcess.is_alive

    def looked_at_slowly(worker: BaseProcess) -> bool:
        alive = look(worker)
        if alive:
            worker.join(30.0)  # the pause of a busy machine between two looks
        return alive

    monkeypatch.setattr(BaseProcess, "is_alive", looked_at_slowly)
    _by_processes(functools.partial(time.sleep, 0.0), 2)


def test_submitit_works_through_the_same_queue(tmp_path):
    pytest.importorskip("submitit")
    queue = Queue("fig6", "smoke", tmp_path, only=("push-N2",))
    folder = tmp_path / "fig6" / "smoke" / "push-N2-0"
    folder.mkdir(parents=True)
    (folder / "run").write_text("in the way")  # fails at once, in another process
    run_queue(queue, 1, "submitit-local", {"timeout_min": 5})
    (outcome,) = outcomes(queue.jobs(), tmp_path)
    assert outcome.status == "failed"
    assert list((tmp_path / "submitit").glob("*_log.out"))


def test_an_executor_that_is_not_there_is_named_in_one_line(monkeypatch, tmp_path):
    register(monkeypatch, script=Script(done))
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    with pytest.raises(TrainingError, match=r"pip install 'ndp_ros\[cluster\]'"):
        run_queue(Queue("script", "smoke", tmp_path), 1, "submitit")
    with pytest.raises(TrainingError, match="submitit-local"):
        run_queue(Queue("script", "smoke", tmp_path), 1, "pbs")


# The studies.


def test_records_are_json_with_lists_of_numbers_on_a_line():
    record = {"a": [1.5, -2e-7, [3, 4]], "b": [{"c": []}, None, "[ 5,  6 ]"], "d": [[], [1]]}
    text = json_text(record)
    assert json.loads(text) == record
    assert '"a": [ 1.5, -2e-07, [ 3, 4 ] ],' in text


def test_one_command_makes_a_figure_and_goes_on_where_it_stopped(small, tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    command = ["reproduce", "fig5", "--processes", "1", "--runs", str(runs), "--out", str(out)]
    assert cli.main([*command, "--report-only", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["experiments"]["fig5"]["missing"] == 6
    assert cli.main([*command, "--list"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "missing", str(runs / "fig5" / "smoke" / "toy-ndp-0"),
    ]  # fmt: skip

    # A run that was cut off after its training goes on instead of starting anew.
    job = small.jobs("smoke")[0]
    train(dataclasses.replace(job.config, samples=160), job.folder(runs) / "run", quiet=True)
    assert cli.main([*command, "--only", "toy-ndp"]) == 0
    assert "| Toy, ppo | 0 of 2 |" in capsys.readouterr().out
    assert cli.main(command) == 0
    assert "| Toy, ndp | 2 of 2 | 320 | 64 |" in capsys.readouterr().out
    names = {"fig5.json", "runs.csv", "curves.csv", "fig5.md", "fig5.png"}
    assert {p.name for p in (out / "fig5").iterdir()} == names
    record = json.loads((out / "fig5" / "fig5.json").read_text())
    assert [r["done"] for r in record["rows"]] == [2, 2, 2]
    assert all(r["result"]["last"]["episodes"] == 3 for r in record["runs"])
    assert len(record["rows"][0]["probes"]["five at once"]) == 2
    (judged,) = record["claims"]
    ndp, ppo = (
        next(r[judged["figure"]] for r in record["rows"] if r["row"] == name)
        for name in ("toy-ndp", "toy-ppo")
    )
    middle, low, high = judged["comparisons"][0]["interval"]
    assert middle == pytest.approx(np.mean(ndp) - np.mean(ppo))
    assert low < middle < high
    verdict = claims.HELD if low > 0 else claims.NOT_HELD if high < 0 else claims.UNDECIDED
    assert judged["verdict"] == verdict
    with (out / "fig5" / "runs.csv").open() as file:
        assert {row["status"] for row in csv.DictReader(file)} == {"done"}


def test_runs_made_elsewhere_stay_in_the_report(small, tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "out"
    queue = Queue("fig5", "smoke", runs, only=("toy-ndp-0", "toy-ndp-1"))
    run_queue(queue, 1)
    jobs = small.jobs("smoke")
    small.report("smoke", outcomes(jobs, runs), out, "first")
    before = json.loads((out / "fig5.json").read_text())
    small.report("smoke", outcomes(jobs, tmp_path / "empty"), out, "second")
    after = json.loads((out / "fig5.json").read_text())
    assert after["rows"] == before["rows"]
    assert after["runs"] == before["runs"]
    # An option that the record does not know yet was at its default.
    older = json.loads((out / "fig5.json").read_text())
    for row in older["rows"]:
        del row["config"]["bc"]["decay"]
    (out / "fig5.json").write_text(json.dumps(older))
    small.report("smoke", outcomes(jobs, tmp_path / "empty"), out, "second")
    assert json.loads((out / "fig5.json").read_text()) == after
    # Runs of another configuration do not stay.
    other = [dataclasses.replace(j, config=dataclasses.replace(j.config, goal_gain=0.3))
             for j in jobs]  # fmt: skip
    (tmp_path / "copy").mkdir()
    shutil.copy(out / "fig5.json", tmp_path / "copy" / "fig5.json")
    small.report("smoke", outcomes(other, tmp_path / "empty"), tmp_path / "copy", "third")
    copied = json.loads((tmp_path / "copy" / "fig5.json").read_text())
    assert all(r["done"] == 0 for r in copied["rows"])


def test_a_report_of_another_scale_replaces_nothing(small, tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    run_queue(Queue("fig5", "smoke", runs, only=("toy-ndp-0",)), 1)
    small.report("smoke", outcomes(small.jobs("smoke"), runs), out / "fig5", "first")
    before = {path: path.read_bytes() for path in (out / "fig5").iterdir()}
    with pytest.raises(TrainingError, match="holds 1 runs of scale smoke"):
        small.report("short", outcomes(small.jobs("short"), tmp_path / "empty"), out / "fig5", "")
    capsys.readouterr()
    other = str(tmp_path / "other")
    assert cli.main(["reproduce", "fig5", "--scale", "full", "--runs", other, "--out", str(out)])
    assert "name another folder for those of scale full with --out" in capsys.readouterr().err
    assert not Path(other).exists()
    assert {path: path.read_bytes() for path in (out / "fig5").iterdir()} == before


def test_a_run_that_another_figure_makes_is_taken_from_its_report(small, monkeypatch, tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "out"
    run_queue(Queue("fig5", "smoke", runs, only=("toy-ndp-0",)), 1)
    small.report("smoke", outcomes(small.jobs("smoke"), runs), out / "fig5", "first")
    rows = {"toy-ndp": dataclasses.replace(small.rows["toy-ndp"], home="fig5")}
    second = Comparison("fig7", rows, small.scales)
    register(monkeypatch, fig7=second)
    jobs = second.jobs("smoke")
    assert "toy-ndp-0" in second.recorded("smoke", jobs, out / "fig7")
    second.report("smoke", outcomes(jobs, tmp_path / "empty"), out / "fig7", "second")
    first, other = (
        {r["name"]: r for r in json.loads((out / n / f"{n}.json").read_text())["runs"]}
        for n in ("fig5", "fig7")
    )
    assert other["toy-ndp-0"]["result"] == first["toy-ndp-0"]["result"]


def test_what_a_report_holds_need_not_be_made_again(small, tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    run_queue(Queue("fig5", "smoke", runs, only=("toy-ndp-0",)), 1)
    small.report("smoke", outcomes(small.jobs("smoke"), runs), out / "fig5", "first")
    other = tmp_path / "other"
    command = ["reproduce", "fig5", "--runs", str(other), "--out", str(out)]
    assert cli.main([*command, "--list"]) == 0
    stands = dict(line.split()[::-1] for line in capsys.readouterr().out.splitlines())
    assert stands.pop(str(other / "fig5" / "smoke" / "toy-ndp-0")) == "recorded"
    assert set(stands.values()) == {"missing"}
    assert cli.main([*command, "--list", "--unrecorded"]) == 0
    assert dict(line.split()[::-1] for line in capsys.readouterr().out.splitlines()) == stands
    only = ["--only", "toy-ndp-0", "--unrecorded", "--json"]
    assert cli.main([*command, *only]) == 0
    counts = json.loads(capsys.readouterr().out)["experiments"]["fig5"]
    assert (counts["done"], counts["recorded"], counts["missing"]) == (0, 0, 0)
    assert cli.main([*command, "--only", "toy-ndp-0", "--report-only", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["experiments"]["fig5"]
    assert (counts["done"], counts["recorded"], counts["missing"]) == (0, 1, 0)


def test_a_run_of_another_configuration_is_shown_as_such(small, tmp_path):
    job = small.jobs("smoke")[0]
    config = dataclasses.replace(job.config, goal_gain=0.3)
    small.work(dataclasses.replace(job, config=config), tmp_path, "", lambda line: None)
    files = small.report("smoke", outcomes([job], tmp_path), tmp_path / "out", "")
    (table,) = [f for f in files if f.suffix == ".md"]
    assert "Run toy-ndp-0 was made with another goal_gain than asked now." in table.read_text()


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("scale", SCALES)
def test_every_study_has_every_row_at_every_scale(name, scale):
    study, jobs = STUDIES[name], jobs_of(name, scale)
    assert len({(j.home, j.name) for j in jobs}) == len(jobs)
    assert {job.row for job in jobs} == set(study.labels())
    for job in jobs:  # what belongs to another study is that one's own run
        owner, _, its_scale = job.home.partition("/")
        assert its_scale == scale
        if owner != name:
            assert job in jobs_of(owner, scale)
    rows = set(study.labels())
    for claim in study.claims:
        assert {r for pair in claim.pairs for r in pair if isinstance(r, str)} <= rows
        assert claim.pairs


def test_throw_and_pick_come_first_and_train_what_the_commands_train():
    jobs = STUDIES["fig5"].jobs("short")
    stages = [job.row.partition("-")[0] in ("throw", "pick") for job in jobs]
    assert stages[: stages.index(False)] == [True] * 20
    assert {j.seed for j in jobs if j.row == "throw-ndp"} == {0, 1, 2}
    for job in jobs[:20]:
        row = figures.FIG5_ROWS[job.row]
        plain = shipped(row.task, row.method, row.experiment)
        assert set(differences(plain, job.config)) <= {"seed", "workers", "samples"}


@pytest.mark.parametrize("task", ["throw", "pick", "push", "soccer", "faucet-open"])
def test_methods_are_compared_under_one_configuration(task):
    ndp, *others = (shipped(task, method) for method in ("ndp", "ppo", "ppo-multi"))
    for other in others:
        assert other.method in METHODS
        same = dataclasses.replace(
            other, method="ndp", dmp=ndp.dmp, goal_gain=ndp.goal_gain, weight_gain=ndp.weight_gain
        )
        assert same == ndp


@pytest.mark.parametrize("name", ["fig6", "fig7", "fig8", "fig9"])
def test_an_ablation_changes_one_thing(name):
    study = STUDIES[name]
    configs = {job.row: job.config for job in study.jobs("full") if job.seed == 0}
    base = configs.pop(study.baseline)
    for row, config in configs.items():
        if (config.task, config.method) == (base.task, base.method):
            changed = set(differences(base, config))
            assert changed in (
                {"k"}, {"dmp.kernel"}, {"dmp.n_basis"}, {"dmp.solver"}, {"dmp.solver", "dmp.m"},
                {"weight_gain"}, {"learned_alpha"}, {"weights", "weight_gain"}, {"task_options"},
            ), row  # fmt: skip


def test_a_moving_bin_starts_from_the_policy_of_the_still_one():
    moving, still = shipped("throw", "ndp", "throw-moving-ndp"), shipped("throw", "ndp")
    assert "moving_bin=true" in moving.task_options
    assert set(differences(moving, still)) <= {
        "samples", "task_options", "start_from", "init_log_std", "ppo.learning_rate",
    }  # fmt: skip
    env = moving.choice.make()
    start_tensors(make_spec(moving, env), moving.start_from)
    env.close()


def test_the_tables_clones_learn_from_the_same_windows_of_one_expert(monkeypatch, tmp_path, capsys):
    expert = Row(TOY, "ppo", "Toy", changes={"task_options": ["windows=20"]})
    experts = Comparison("fig5", {"toy-ppo": expert}, SCALE)
    changes = TINY | {"bc": {"passes": 3, "only_successful": False}, "checkpoint_every": 3}
    scales = {scale: Scale("a test", 2, changes, 3) for scale in SCALES}
    rows = {f"toy-{kind}": Row(TOY, f"bc-{kind}", "Toy", kind.upper()) for kind in ("nn", "ndp")}
    study = table1.Imitation(
        [experts], rows, scales, dict.fromkeys(SCALES, 4),
        [Claim("NDP clones better", (("toy-ndp", "toy-nn"),), ABOVE, "last")],
    )  # fmt: skip
    register(monkeypatch, fig5=experts, table1=study)
    runs, out = tmp_path / "runs", tmp_path / "out"
    command = ["reproduce", "table1", "--processes", "1", "--runs", str(runs), "--out", str(out)]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    home = runs / "table1" / "smoke"
    results = {run.name: json.loads((run / "result.json").read_text())
               for run in (runs / "fig5" / "smoke").iterdir()}  # fmt: skip
    best = max(sorted(results), key=lambda name: results[name]["best"]["success_rate"])
    assert len(results) == 2
    assert f"| Toy, expert's demonstrations | 1 of 1 |  |  |  | 4 episodes of {best}," in text
    assert json.loads((home / "toy-demonstrations-0" / "result.json").read_text())["expert"] == best
    data = load(home / "toy-demonstrations-0" / table1.FILE)
    assert (data.spec.k, data.episodes) == (5, 4)
    assert data.actions.shape == (16, 5, 2)
    for name in ("toy-nn-0", "toy-ndp-1"):
        config = (home / name / "run" / "config.yaml").read_text()
        assert f"demonstrations: {home / 'toy-demonstrations-0' / table1.FILE}" in config
    record = json.loads((out / "table1" / "table1.json").read_text())
    assert [len(row.get("last", ())) for row in record["rows"]] == [0, 2, 2]
    assert (out / "table1" / "table1.png").stat().st_size > 0


def test_windows_of_single_steps_keep_every_action_in_order(tmp_path):
    from ndp_ros.policies.array_policy import ArrayPolicy
    from ndp_ros.policies.layout import initial_tensors
    from ndp_ros.training.demonstrations import collect

    config = toy(method="ppo", task_options=("windows=12",))
    env = config.choice.make()
    policy = ArrayPolicy(make_spec(config, env), initial_tensors(make_spec(config, env), 0))
    single = collect(policy, env, range(3), {})
    env.close()
    five = regroup(single, 5)
    assert five.starts.tolist() == [0, 2, 4, 6]  # the last two of twelve steps are dropped
    np.testing.assert_array_equal(five.observations[2], single.observations[12])
    np.testing.assert_array_equal(five.actions[3], single.actions[17:22, 0])
    assert regroup(five, 5) is five
    dense = regroup(single, 5, every=1)
    assert dense.starts.tolist() == [0, 8, 16, 24]
    np.testing.assert_array_equal(dense.actions[9], single.actions[13:18, 0])
    np.testing.assert_array_equal(dense.observations[9], single.observations[13])
    with pytest.raises(TrainingError, match="k = 5"):
        regroup(five, 2)
    five.save(tmp_path / "five.safetensors")
    assert load(tmp_path / "five.safetensors").spec.k == 5


def test_scripts_demonstrate_for_a_study_in_windows_that_overlap(tmp_path):
    job = STUDIES["mt50"].jobs("smoke")[0]
    assert (job.config.task, job.config.episodes, job.config.every) == ("mt50", 3, 1)
    asked = dataclasses.replace(job.config, task="reach", task_options=("horizon=20",))
    asked.demonstrate((), tmp_path, lambda line: None)
    data = load(tmp_path / table1.FILE)
    assert np.diff(data.starts).tolist() == [16, 16, 16]
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["episodes"], result["windows"], result["expert"]) == (3, 48, "the scripts")


def test_a_checkpoint_can_be_measured_under_other_conditions(tmp_path):
    config = toy(320)
    train(config, tmp_path / "run", quiet=True)
    last = tmp_path / "run" / "checkpoints" / "last"
    usual = trained.measure(config, last, 3)
    longer = trained.measure(config, last, 3, options={"windows": 8})
    assert longer["return"] != usual["return"]
    assert longer["checkpoint"] == usual["checkpoint"]


# Claims.


def test_areas_are_means_of_the_curve_from_nothing_at_the_start():
    assert area([(10.0, 1.0), (20.0, 1.0)], 20.0) == pytest.approx(0.75)
    assert area([(10.0, 1.0), (20.0, 1.0)], 10.0) == pytest.approx(0.5)
    assert area([(10.0, 0.5), (20.0, 0.5)], 15.0) == pytest.approx((2.5 + 2.5) / 15)
    # Nothing is credited to the time before there is a policy.
    assert area([(10.0, 1.0), (20.0, 1.0)], 20.0, start=8.0) == pytest.approx((1.0 + 10.0) / 20)
    assert area([(10.0, 1.0), (20.0, 1.0)], 20.0, start=12.0) == pytest.approx(0.75)


def test_intervals_are_welch_s():
    stats = pytest.importorskip("scipy.stats")
    a, b = [0.9, 0.8, 0.97, 0.88], [0.5, 0.71, 0.62]
    middle, low, high = interval(a, b)
    exact = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert middle == pytest.approx(0.8875 - 0.61)
    assert low <= exact.low <= middle <= exact.high <= high  # never narrower
    assert low == pytest.approx(exact.low, abs=0.02)
    one = interval(a, 0.5)
    exact = stats.ttest_1samp(a, 0.5).confidence_interval(0.95)
    assert one[1:] == pytest.approx((exact.low - 0.5, exact.high - 0.5), abs=1e-3)


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
    stats = pytest.importorskip("scipy.stats")
    a, b = [0.3, 0.9, 0.55, 0.7], [0.2, 0.85, 0.5, 0.4]
    exact = stats.ttest_rel(a, b).confidence_interval(0.95)
    found = blocked_interval("a", "b", {"a": dict(enumerate(a)), "b": dict(enumerate(b))})
    assert found == pytest.approx((np.mean(a) - np.mean(b), exact.low, exact.high), abs=1e-3)


def test_all_rows_say_how_seeds_deviate_and_what_a_seed_does_to_each_row_counts_for_none():
    stats = pytest.importorskip("scipy.stats")
    deviations = np.array([[0.04, -0.01, 0.0], [0.0, 0.03, -0.02], [0.01, 0.0, 0.05]])
    values = deviations + np.array([0.1, 0.8, 0.4])  # a seed's share is ten times what is left
    rows = {str(i): dict(enumerate(row)) for i, row in enumerate(values)}
    left = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    half = stats.t.ppf(0.975, 4) * np.sqrt(np.sum(left**2) / 4 * 2 / 3)
    middle = values[0].mean() - values[1].mean()
    expected = pytest.approx((middle, middle - half, middle + half), abs=1e-3)
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


def test_only_rows_that_change_one_thing_are_taken_to_deviate_alike():
    study = STUDIES["fig9"]
    by_pair = {claim.pairs: set(study.alike(claim)) for claim in study.claims}
    ablated = {"throw-base", "throw-alpha", "throw-only-g", "throw-m35", "throw-whitened"}
    assert by_pair[(("throw-base", "throw-alpha"),)] == ablated
    assert by_pair[(("throw-base", "throw-vices-pos"),)] == set()
    assert by_pair[(("pick-ndp", "pick-vices-pos"),)] == set()
    assert not any(STUDIES["fig5"].alike(claim) for claim in STUDIES["fig5"].claims)


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


# The page.


def test_the_page_keeps_its_prose_and_takes_its_tables_from_the_results(tmp_path):
    page, results = tmp_path / "results.md", tmp_path / "results"
    page.write_text("before\n<!-- fig5 -->\nold\n<!-- /fig5 -->\nafter\n")
    assert results_page.update(["fig5", "fig6"], page, results) == ["fig5"]
    assert "`ndp reproduce fig5 --scale short`" in page.read_text()
    (results / "fig5").mkdir(parents=True)
    (results / "fig5" / "fig5.md").write_text(r"| \1 | new |")
    for _ in range(2):
        results_page.update(["fig5"], page, results)
        text = page.read_text()
        assert text == "before\n<!-- fig5 -->\n\n| \\1 | new |\n\n<!-- /fig5 -->\nafter\n"
    page.write_text("<!-- fig5 -->\nno end\n")
    with pytest.raises(TrainingError, match="expected one"):
        results_page.update(["fig5"], page, results)


def test_the_page_of_results_says_what_the_records_say(tmp_path):
    root = Path(__file__).parent.parent
    copy = tmp_path / "results.md"
    copy.write_text((root / results_page.PAGE).read_text())
    cwd_relative = results_page.RESULTS
    placed = results_page.update(list(EXPERIMENTS), copy, root / cwd_relative)
    assert placed == list(EXPERIMENTS)
    assert copy.read_text().replace(str(root) + "/", "") == (root / results_page.PAGE).read_text()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_committed_results_hold_every_run_that_is_asked_for_as_it_is_asked_for(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(Path(__file__).parent.parent)
    assert cli.main(["reproduce", name, "--scale", "short", "--runs", str(tmp_path), "--list"]) == 0
    stands = dict(line.split()[::-1] for line in capsys.readouterr().out.splitlines())
    assert stands
    assert set(stands.values()) == {"recorded"}, [f for f, s in stands.items() if s == "missing"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["table3"],
        ["fig5", "--scale", "huge"],
        ["fig5", "--processes", "-1"],
        ["fig5", "--only", "nothing-like-this"],
        ["all", "--only", "throw-ndp"],
        ["fig5", "--executor", "pbs"],
        ["fig7", "--executor-options", "partition", "--only", "push-only-g"],
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments, tmp_path, capsys):
    try:
        status = cli.main(["reproduce", *arguments, "--runs", str(tmp_path)])
    except SystemExit as end:
        status = end.code
    assert status == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in lines if "says nothing" not in line]) == 1


def test_a_full_disk_is_told_with_the_folders_that_were_written_to(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(command, "outcomes", full)
    out = tmp_path / "out"
    arguments = ["--runs", str(tmp_path / "runs"), "--out", str(out), "--report-only"]
    assert cli.main(["reproduce", "fig5", *arguments]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"cannot write to {tmp_path / 'runs'} or {out / 'fig5'}: No space left" in message
