# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The command line: figures on request, and one clear line for bad input."""

import dataclasses
import io
import json
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ndp_ros import checkpoint, cli
from ndp_ros.commands import bench as bench_several
from ndp_ros.commands import bench_stream as bench
from ndp_ros.commands import bench_train as benchmark
from ndp_ros.commands import doctor
from ndp_ros.commands.arguments import OneLineParser, paint
from ndp_ros.config import fields_of, to_mapping
from ndp_ros.errors import ConfigError
from ndp_ros.observation import arm_observation
from ndp_ros.paths import find_checkpoint, share
from ndp_ros.policies import PolicySpec, initial_tensors
from ndp_ros.training.config import PpoConfig, RunConfig
from ndp_ros.training.evaluation import summarise, wilson
from ndp_ros.training.experiments import shipped
from ndp_ros.training.rollouts import Rollouts

pytestmark = pytest.mark.live

TOY = "toy_task:Toy-v0"
TRAIN = [
    "train",
    TOY,
    "--preset",
    "",
    "--samples",
    "320",
    "--environments",
    "2",
    "--workers",
    "1",
    "--batch-size",
    "80",
    "--minibatches",
    "2",
    "--epochs",
    "1",
    "--hidden",
    "8",
    "8",
    "--checkpoint-every",
    "2",
    "--evaluation-episodes",
    "2",
    "--quiet",
]


def ndp(*arguments: object) -> int:
    try:
        return cli.main([str(a) for a in arguments])
    except SystemExit as end:
        return int(end.code or 0)


def toy_checkpoint(folder: Path, **changes: object) -> Path:
    values = {
        "method": "ndp",
        "task": TOY,
        "arm": "toy",
        "joint_names": ("left", "right"),
        "observation": arm_observation(2, ["goal"]),
        "control_dt": 0.05,
        "k": 5,
        "action_scale": (0.05, 0.1),
        "hidden": (8, 8),
    }
    spec = PolicySpec(**{**values, **changes})
    return checkpoint.save(
        folder, spec, initial_tensors(spec, 0), {"config": {"preset": "", "task_options": []}}
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "toy"
    assert ndp(*TRAIN, "--out", folder) == 0
    return folder


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


def test_every_command_has_help_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "config", "eval", "plot", "check"):
        assert ndp(name, "--help") == 0
        assert "examples:" in capsys.readouterr().out
    assert ndp("--help") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.SUBCOMMANDS)


def test_help_keeps_the_case_of_names(capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in (("check", "Check YAML files"), ("sim", "under ROS 2 in simulation")):
        assert ndp(name, "--help") == 0
        assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--workers", "-1"], "'-1' is not a whole number from 0 on"),
        (["train", "--environments", "0"], "'0' is not a positive whole number"),
        (["train", "--batches", "0"], "'0' is not a positive whole number"),
        (["train", "--rounds", "-1"], "'-1' is not a positive whole number"),
        (["stream", "--seconds", "0"], "'0' is not a positive number of seconds"),
        (["stream", "--seconds", "-1"], "'-1' is not a positive number of seconds"),
        (["stream", "--seconds", "nan"], "'nan' is not a positive number of seconds"),
    ],
)
def test_a_benchmark_refuses_values_that_it_cannot_measure(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (benchmark, bench):
        monkeypatch.setattr(module, "main", lambda _: pytest.fail("a measurement"))
    assert ndp("bench", *arguments) == 2
    assert message in one_line(capsys)


def test_benchmarks_that_fail_are_named_and_the_result_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = {"wire": ["wire", "--cycles", "0"]}
    assert bench_several.run_several(runs, as_json=True) == 1, "its ratio is not there"
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"wire": {"failed": "exit status 2"}}
    assert "no figure" in shown.err


def test_a_ratio_that_falls_short_is_seen() -> None:
    results = {
        name: {"speed_up": {"forward": 30.0, "gradients": 20.0}} for name in ("throw", "digits")
    }
    row = {"loop": "compiled", "cost_us": {"p50": 5.0}}
    good = {
        "dmp": results,
        "stream": {"rows": [row]},
        "stream_python": {"rows": [{**row, "cost_us": {"p50": 100.0}}]},
        "wire": {"over_floor": 4.0},
    }
    assert [ratio(good) >= least for _, ratio, least in bench_several.LEAST] == [True] * 5
    slow = {**good, "stream_python": {"rows": [row]}, "wire": {"over_floor": 13.0}}
    assert [ratio(slow) >= least for _, ratio, least in bench_several.LEAST][3:] == [False] * 2


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ndp_ros import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'rclpy', 'mujoco', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("arguments", [[], ["fly"], ["train"], ["train", "--seed"], ["--json"]])
def test_a_wrong_command_line_exits_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ndp(*arguments) == 2
    one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "juggle"], "'juggle' is not one of"),
        (["train", TOY, "--seed", "-1"], "seed is -1"),
        (["train", TOY, "--clip", "x"], "clip is 'x'"),
        (["train", TOY, "--method", "magic"], "is not one of [ndp"),
        (
            ["train", TOY, "--config", "missing.yaml"],
            "cannot read missing.yaml",
        ),
        (["train", TOY, "--seeds", "1", "1"], "different seeds"),
        (["train", TOY, "--seed", "1", "--seeds", "2"], "--seed 1 beside --seeds 2: give one"),
        (["train", TOY, "--bogus", "1"], "unrecognized arguments"),
        (["eval", "nowhere"], "none of that name ships (those: faucet_open, gen3_throw"),
        (["eval", "nowhere", "--episodes", "0"], "not a positive whole number"),
        (["plot", "nowhere", "-o", "x.png"], "nowhere is no run, recording or 'field'"),
        (["check", "missing.yaml"], "missing.yaml: there is no such file or folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ndp(*arguments) == 2
    assert message in one_line(capsys)
    assert not list(tmp_path.iterdir())


def test_a_run_directory_stands_for_its_best_checkpoint(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints" / "best").mkdir(parents=True)
    assert ndp("eval", "run") == 2
    assert "run/checkpoints/best/config.json: No such file" in one_line(capsys)


def test_a_shipped_checkpoint_is_found_by_its_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ndp("eval", "jaco_pick", "--episodes", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["task"] == "pick"


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    from ndp_ros.commands import train

    path = tmp_path / "mine.yaml"
    path.write_text("seed: 3\nk: 4\nppo: {clip: 0.3, epochs: 7}\ndmp: {n_basis: 4}\n")
    parser = OneLineParser()
    train.configure(parser)
    config = train.read_config(
        parser.parse_args([TOY, "--config", str(path), "--k", "2", "--epochs", "5"])
    )
    assert (config.seed, config.k) == (3, 2)
    assert (config.ppo.clip, config.ppo.epochs, config.ppo.gamma) == (0.3, 5, 0.99)
    assert config.dmp.n_basis == 4


def train_config(*arguments: str) -> RunConfig:
    from ndp_ros.commands import train

    parser = OneLineParser()
    train.configure(parser)
    return train.read_config(parser.parse_args(arguments))


def test_task_options_are_merged_by_name_from_shipped_experiment_file_and_flags(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("task_options: [latency=0.01, horizon=1.5]\n")
    shipped = ("limit_cost=0.3", "latency=0.02")
    assert train_config("throw").task_options == shipped
    one = train_config("throw", "--task-options", "moving_bin=true")
    assert one.task_options == ("moving_bin=true", *shipped)
    several = train_config(
        "throw", "--config", str(path), "--task-options", "moving_bin=true", "horizon=1.6"
    )
    assert several.task_options == (
        "moving_bin=true",
        "horizon=1.6",
        "latency=0.01",
        "limit_cost=0.3",
    )


def test_a_shipped_experiment_on_top_of_another_is_the_same_in_studies_and_as_a_file() -> None:
    path = str(share("config/experiments/throw-moving.yaml"))
    assert train_config("throw", "--config", path) == shipped("throw", "ndp", "throw-moving")


def test_the_noise_of_an_ndp_brings_the_values_that_were_tuned_for_it(tmp_path: Path) -> None:
    segment, action = train_config("throw"), train_config("throw", "--noise", "action")
    assert (segment.noise, segment.k, segment.ppo.clip) == ("segment", 10, 0.2)
    assert (action.noise, action.k, action.ppo.clip) == ("action", 5, 0.1)
    assert action == shipped("throw", "ndp", noise="action")
    assert train_config("throw", "--method", "ppo-multi").k == 5
    path = tmp_path / "mine.yaml"
    path.write_text("noise: action\n")
    assert train_config("throw", "--config", str(path)) == action
    path.write_text("methods: {ndp: {}}\nnoises: {segment: {k: 17}}\n")
    assert train_config("throw", "--config", str(path)).k == 17
    assert train_config("throw", "--config", str(path), "--noise", "action").k == 5
    path.write_text("methods: {ndp: {}}\nnoises: {pink: {}}\n")
    with pytest.raises(ConfigError, match=r"noises: 'pink' is not one of \[action, segment\]"):
        train_config("throw", "--config", str(path))


def test_the_file_of_a_run_that_left_out_a_shipped_option_gives_its_configuration_again(
    tmp_path: Path,
) -> None:
    config = RunConfig(task="throw", task_options=("limit_cost=0.3",))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(to_mapping(config)))
    assert train_config("throw", "--config", str(path)) == config


def test_an_interrupted_run_prints_the_command_that_continues_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    collect, stop = Rollouts.collect, 3

    def interrupted(self: Rollouts, batch: int, fresh: bool) -> list:
        if batch == stop:
            raise KeyboardInterrupt
        return collect(self, batch, fresh)

    monkeypatch.setattr(Rollouts, "collect", interrupted)
    out, early = tmp_path / "a run", tmp_path / "early"
    assert ndp(*TRAIN, "--out", out) == cli.INTERRUPTED
    command = shlex.split(one_line(capsys).partition("resume with: ")[2])
    stop = 0
    assert ndp(*TRAIN, "--out", early) == cli.INTERRUPTED
    assert one_line(capsys) == f"ndp train: interrupted before the first checkpoint of {early}\n"
    monkeypatch.undo()
    assert command[0] == "ndp"
    assert ndp("train", TOY, "--preset", "", "--out", out, "--resume", "--quiet") == 2
    assert "checkpoint_every (2, now 10)" in one_line(capsys)
    assert ndp(*command[1:], "--quiet") == 0
    saved = checkpoint.load(out / "checkpoints" / "last")
    assert saved.provenance["samples"] == 320


def test_commands_of_the_page_on_training_write_to_different_folders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ndp_ros.commands import train

    root = Path(__file__).parents[1]
    monkeypatch.chdir(root)
    page = (root / "docs" / "training.md").read_text(encoding="utf-8").replace("\\\n", "")
    folders = []
    for line in page.splitlines():
        if line.startswith("ndp train "):
            parser = OneLineParser()
            train.configure(parser)
            args = parser.parse_args(shlex.split(line, comments=True)[2:])
            folders.append(args.out or Path("runs") / train.read_config(args).name)
    assert len(folders) > 3
    assert len(set(folders)) == len(folders), folders


EXPERIMENTS = sorted(share("config/experiments").glob("*.yaml"))


def test_every_shipped_experiment_is_sound() -> None:
    assert ndp("check", *EXPERIMENTS) == 0


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_value_of_a_shipped_experiment_is_explained_beside_it(path: Path) -> None:
    named = re.compile(r" *(base|task|method|methods|[a-z0-9-]+: {}|- )")
    lines = [line for line in path.read_text().splitlines() if re.search(r"[:=] *[^ :]+$", line)]
    assert [line for line in lines if "#" not in line and not named.match(line)] == []


def test_later_layers_win_and_only_listed_methods_have_shipped_values(tmp_path: Path) -> None:
    (tmp_path / "common.yaml").write_text("learners: {ppo: {k: 2, ppo: {clip: 0.3, epochs: 7}}}\n")
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: common\nsamples: 9\nk: 3\nlearners: {ppo: {ppo: {clip: 0.2}}}\n"
        "methods: {ndp: {ppo: {gamma: 0.5}}, dyn-e: {samples: 8}}\n"
    )
    ndp_run = train_config(TOY, "--config", str(path), "--epochs", "4")
    assert (ndp_run.samples, ndp_run.k) == (9, 3)
    assert (ndp_run.ppo.clip, ndp_run.ppo.epochs, ndp_run.ppo.gamma) == (0.2, 4, 0.5)
    dyn_e = train_config(TOY, "--config", str(path), "--method", "dyn-e")
    assert (dyn_e.samples, dyn_e.ppo) == (8, PpoConfig())
    assert train_config(TOY, "--config", str(path), "--method", "ppo").samples == 600_000


def test_a_task_without_an_experiment_file_has_the_values_for_any_task() -> None:
    config = train_config("Reacher-v5")
    assert (config.noise, config.init_log_std, config.ppo.clip) == ("segment", 0.0, 0.2)
    assert config.ppo.schedule == "linear", "by the base of any.yaml"
    assert train_config(TOY).noise == "segment"
    assert train_config("Reacher-v5", "--method", "bc-nn").noise == RunConfig().noise


def test_config_prints_each_value_in_force_and_its_source(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("ppo: {epochs: 7}\n")
    flags = ["--config", mine, "--task-options", "horizon=1", "--clip", "0.2"]
    assert ndp("config", "throw", "--method", "vices", *flags, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    expected = {
        "samples": (2_000_000, "throw.yaml"),
        "k": (1, "row vices of methods.py"),
        "method.impedance": ("joints", "row vices of methods.py"),
        "init_log_std": (-0.5, "throw.yaml, learners.ppo"),
        "ppo.schedule": ("linear", "common.yaml, learners.ppo"),
        "ppo.epochs": (7, str(mine)),
        "ppo.clip": (0.2, "command line"),
        "ppo.gamma": (0.99, "default"),
        "task_options.horizon": ("1", "command line"),
        "task_options.latency": ("0.02", "throw.yaml"),
    }
    assert {name: (rows[name]["value"], rows[name]["source"]) for name in expected} == expected
    assert ndp("config", "throw", "--changed") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["goal_gain", "0.2", "throw.yaml,", "methods.ndp"] in lines
    assert all(line[-1] != "default" for line in lines)


def test_eval_ends_with_one_json_object(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    each = run.parent / "each.jsonl"
    status = ndp(
        "eval", run / "checkpoints" / "last", "--episodes", 3, "--seed", 7, "--json", "--each", each
    )
    assert status == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    report = json.loads(out)
    assert report["episodes"] == 3
    assert 0.0 <= report["ci95"][0] <= report["success_rate"] <= report["ci95"][1] <= 1.0
    assert {"saturation", "max_joint_speed", "tracking_rms"} <= report.keys()
    seeds = [json.loads(line)["seed"] for line in each.read_text().splitlines()]
    assert seeds == [7, 8, 9]


def test_eval_prints_figures_with_their_units(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ndp("eval", toy_checkpoint(tmp_path / "c"), "--episodes", 1) == 0
    out = capsys.readouterr().out
    assert re.search(r"max_joint_speed \S+ rad/s  tracking_rms \S+ rad  return", out), out


def test_eval_is_deterministic(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = []
    for _ in range(2):
        ndp("eval", run / "checkpoints" / "best", "--episodes", 3, "--json")
        reports.append(capsys.readouterr().out)
    assert reports[0] == reports[1]


def test_eval_writes_a_video_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = toy_checkpoint(tmp_path / "c")
    video = tmp_path / "film.mp4"
    assert ndp("eval", folder, "--episodes", 1, "--video", video) == 0
    assert video.stat().st_size > 0
    assert "success" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--each", "folder"], "--each is 'folder', a folder"),
        (["--each", ""], "--each is '.', a folder"),
        (["--each", "file/x.jsonl"], "file is no folder"),
        (["--video", "x.txt"], "not one of [.mp4,"),
        (["--video", "file/such/x.mp4"], "file is no folder"),
        (["--seed", "-1"], "'-1' is not a whole number from 0 on"),
    ],
)
def test_eval_refuses_outputs_that_it_cannot_write_before_the_first_episode(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    from ndp_ros.commands import evaluate

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "measure", lambda *_: pytest.fail("an episode"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    toy_checkpoint(tmp_path / "c")
    assert ndp("eval", "c", *arguments) == 2
    assert message in one_line(capsys)
    assert {p.name for p in tmp_path.iterdir()} == {"c", "folder", "file"}


def test_eval_creates_the_folders_of_its_outputs(tmp_path: Path) -> None:
    each = tmp_path / "new" / "folder" / "each.jsonl"
    assert ndp("eval", toy_checkpoint(tmp_path / "c"), "--episodes", 1, "--each", each) == 0
    assert json.loads(each.read_text())["seed"] == 0


@pytest.mark.parametrize(("flag", "name"), [("--each", "each.jsonl"), ("--video", "film.mp4")])
def test_eval_prints_its_figures_even_if_the_disk_is_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, name: str
) -> None:
    folder, out = toy_checkpoint(tmp_path / "c"), tmp_path / "out"
    out.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, before[1]))  # the encoder inherits it
    try:
        status = ndp("eval", folder, "--episodes", 9, "--json", flag, out / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    captured = capsys.readouterr()
    assert status == 2
    assert json.loads(captured.out.splitlines()[-1])["episodes"] == 9
    assert f"cannot write {out / name}" in captured.err
    assert not list(out.iterdir())


def test_an_empty_checkpoint_name_is_refused_with_those_that_ship(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ndp("eval", "") == 2
    assert "checkpoint is '': name a folder, or one that ships (faucet" in one_line(capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arm": "gen3"}, "made for arm 'gen3', not 'toy'"),
        ({"joint_names": ("up", "down")}, "drives joints"),
        ({"control_dt": 0.01}, "control_dt of the checkpoint is 0.01"),
        ({"observation": arm_observation(2, ["bin"])}, "observation of the checkpoint"),
    ],
)
def test_eval_refuses_a_checkpoint_for_another_arm_or_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    assert ndp("eval", toy_checkpoint(tmp_path / "c", **changes), "--episodes", 1) == 2
    assert message in one_line(capsys)


def test_check_reports_each_fault_and_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = toy_checkpoint(tmp_path / "good")
    bad = toy_checkpoint(tmp_path / "bad")
    (bad / checkpoint.MODEL).write_bytes(b"")
    experiment = tmp_path / "experiments" / "x.yaml"
    experiment.parent.mkdir()
    experiment.write_text("method: ndp\nppo: {clip: -1}\n")
    assert ndp("check", bad, good, experiment) == 2
    captured = capsys.readouterr()
    assert "sound checkpoint" in captured.out
    assert "truncated or damaged" in captured.err
    assert "clip is -1" in captured.err


def test_check_refuses_a_file_of_unknown_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.yaml").write_text("colour: blue\n")
    assert ndp("check", tmp_path / "x.yaml") == 2
    assert "neither an arm" in one_line(capsys)


@pytest.mark.parametrize(
    ("of_spec", "of_training", "message"),
    [
        ({"arm": "foo"}, {}, "made for arm 'foo', not 'jaco'"),
        ({"task": ""}, {}, "task: '' is not one of"),
        ({}, {"preset": "nix"}, "preset: 'nix' is not one of"),
        ({}, {"task_options": 5}, "task_options is 5, expected a list"),
        ({}, {"task_options": ["laetncy=0.02"]}, "laetncy"),
        ({}, {"method": "vices-low-freq"}, "k is None, expected int"),
    ],
)
def test_check_and_eval_refuse_a_checkpoint_that_fits_no_task(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    of_spec: dict[str, object],
    of_training: dict[str, object],
    message: str,
) -> None:
    shipped = checkpoint.load(find_checkpoint("jaco_throw"))
    spec = dataclasses.replace(shipped.spec, **of_spec)
    training = {"task_options": ["latency=0.02"], **of_training}
    folder = checkpoint.save(tmp_path / "c", spec, shipped.tensors, {"config": training})
    for command in (["check"], ["eval", "--episodes", 1]):
        assert ndp(*command, folder) == 2
        assert message in one_line(capsys)


def test_check_accepts_the_shipped_checkpoints(capsys: pytest.CaptureFixture[str]) -> None:
    assert ndp("check", find_checkpoint("jaco_throw"), find_checkpoint("gen3_throw")) == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.yaml", "task: throw\ntask_options: [laetncy=0.02]\nmethod: ndp\n", "'laetncy'"),
        ("x.yaml", "task: juggle\nmethod: ndp\n", "'juggle' is not one of"),
        ("throw.yaml", "task_options: [laetncy=0.02]\nmethods: {ppo: {}}\n", "'laetncy'"),
        ("x.yaml", "learners: {ppo: {ppo: {clip: -1}}}\nmethods: {ndp: {}}\n", "clip is -1"),
        ("x.yaml", "methods: {npd: {}}\n", "'npd' is not one of [ndp"),
        ("x.yaml", "learners: {sarsa: {}}\nmethods: {}\n", "'sarsa' is not one of [ppo"),
        ("x.yaml", "methods: {ndp: 3}\n", "methods.ndp is 3, expected a mapping"),
        ("x.yaml", "k: 5\nmethod: ndp\nk: 7\n", "k is there twice"),
        ("x.yaml", "method: ndp\nppo: {clip: 0.1, clip: 0.2}\n", "clip is there twice"),
    ],
)
def test_check_refuses_an_experiment_with_wrong_or_repeated_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    assert ndp("check", tmp_path / name) == 2
    assert message in one_line(capsys)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("samples: 9\ndmp: {n_basis: 4}\n", "experiment"),
        ("velocity_margin: 0.2\n", "run-time parameters"),
        ("floor: -0.5\n", "surroundings of a task"),
    ],
)
def test_check_recognises_a_file_by_its_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, what: str
) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert ndp("check", tmp_path / "x.yaml") == 0
    assert f"sound {what}" in capsys.readouterr().out


def test_plot_draws_a_picture_and_prints_the_ends_of_its_curves(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "curve.png"
    assert ndp("plot", run, "-o", picture, "--figure", "eval_return", "--json") == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    report = json.loads(capsys.readouterr().out)
    assert report["curves"][0]["seeds"] == 1


def test_several_seeds_run_in_one_command(tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    code = "import sys; from ndp_ros.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *TRAIN[:-1], "--seeds", "1", "2", "--out", str(out)]
    here = Path(__file__).parent
    subprocess.run(command, check=True, env={"PYTHONPATH": f"{here}:{here.parent}"}, timeout=120)
    assert sorted(p.name for p in out.iterdir()) == ["seed-1", "seed-2"]
    ids = {checkpoint.load(p / "checkpoints" / "last").id for p in out.iterdir()}
    assert len(ids) == 2


def test_wilson_interval_by_hand() -> None:
    low, high = wilson(95, 100)
    assert (low, high) == pytest.approx((0.8882, 0.9785), abs=1e-4)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == pytest.approx(1.0)


def test_a_summary_has_means_and_the_largest_of_maxima() -> None:
    episodes = [
        {"success": True, "seed": 0, "max_joint_speed": 3.0, "miss": float("inf"), "saturation": 0},
        {"success": False, "seed": 1, "max_joint_speed": 1.0, "miss": 0.5, "saturation": 1},
    ]
    summary = summarise(episodes)
    assert summary["success_rate"] == 0.5
    assert summary["max_joint_speed"] == 3.0
    assert summary["saturation"] == 0.5
    assert summary["miss"] == 0.5


def test_a_misspelt_command_option_or_checkpoint_is_answered_by_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ndp("trian") == 2
    assert "'trian' is no command: did you mean train? (see ndp --help)" in one_line(capsys)
    assert ndp("train", "throw", "--sedd", "3") == 2
    assert "did you mean --seed or --seeds?" in one_line(capsys)
    assert ndp("eval", "jaco_pik") == 2
    assert one_line(capsys).endswith("did you mean jaco_pick?\n")


def test_help_fits_on_a_screen_and_help_all_names_every_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in cli.SUBCOMMANDS:
        assert ndp(name, "--help") == 0
        assert capsys.readouterr().out.count("\n") <= 70, name
    assert ndp("train", "--help") == 0
    short = capsys.readouterr().out
    assert "--learning-rate " not in short.partition("examples:")[0]
    assert ndp("train", "--help-all") == 0
    whole = capsys.readouterr().out
    assert all(f"--{p.name.replace('_', '-')}" in whole for p in fields_of(PpoConfig))


@pytest.mark.parametrize("name", cli.SUBCOMMANDS)
def test_help_loads_nothing_heavy(name: str) -> None:
    code = (
        "import sys; from ndp_ros.cli import SUBCOMMANDS as S; from ndp_ros.commands.arguments "
        f"import OneLineParser as P; p = P({name!r}); S[{name!r}].configure(p); p.format_help();"
        "heavy = {'torch', 'mujoco', 'pinocchio', 'matplotlib', 'rclpy', 'optuna', 'onnx'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert paint("x", "red", Terminal()) == "\033[31mx\033[0m"
    assert paint("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("x", "red", Terminal()) == "x"


def test_the_doctor_says_what_is_broken_and_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there, absent = doctor.has_module, ("torch", "optuna")
    monkeypatch.setattr(doctor, "has_module", lambda name: name not in absent and there(name))
    assert ndp("doctor", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["broken"] == ["extra train"]
    found = {one["name"]: one for one in report["checks"]}
    assert found["extra train"]["advice"] == "pip install 'ndp_ros[train]'"
    assert re.search(
        r"pip install 'ndp_ros\[\.\.\.\]' for .*sweep", found["optional extras"]["text"]
    )
    assert {"python", "drawing", "real time", "cores", "shared memory"} <= found.keys()
    assert all(one["advice"] for one in found.values() if one["state"] != doctor.OK)


def test_the_shell_completes_commands_options_and_checkpoints(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert ndp("completion", "bash") == 0
    script = tmp_path / "ndp.bash"
    script.write_text(capsys.readouterr().out)

    def completed(*words: str) -> list[str]:
        code = (
            f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1};"
            "_shtab_ndp; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        run = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False)
        return run.stdout.split()

    assert completed("ndp", "doc") == ["doctor"]
    assert "--learning-rate" in completed("ndp", "train", "throw", "--lea")
    assert "jaco_throw" in completed("ndp", "eval", "jaco_t")
