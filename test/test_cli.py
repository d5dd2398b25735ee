"""The command line answers everything: figures on request, one clear line on bad input."""

import dataclasses
import json
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ndp_ros import checkpoint, cli
from ndp_ros.config import to_mapping
from ndp_ros.observation import arm_observation
from ndp_ros.paths import find_checkpoint, share
from ndp_ros.policies import PolicySpec, initial_tensors
from ndp_ros.streaming import bench
from ndp_ros.training import benchmark
from ndp_ros.training.evaluation import summarise, wilson
from ndp_ros.training.experiment import RunConfig, shipped
from ndp_ros.training.rollouts import Rollouts

TOY = "toy_task:Toy-v0"
TRAIN = [
    "train", TOY, "--preset", "", "--samples", "320", "--environments", "2", "--workers", "1",
    "--batch-size", "80", "--minibatches", "2", "--epochs", "1", "--hidden", "8", "8",
    "--checkpoint-every", "2", "--evaluation-episodes", "2", "--quiet",
]  # fmt: skip


def ndp(*arguments: object) -> int:
    try:
        return cli.main([str(a) for a in arguments])
    except SystemExit as end:
        return int(end.code or 0)


def toy_checkpoint(folder: Path, **changes: object) -> Path:
    values = {
        "method": "ndp", "task": TOY, "arm": "toy", "joint_names": ("left", "right"),
        "observation": arm_observation(2, ["goal"]), "control_dt": 0.05, "k": 5,
        "action_scale": (0.05, 0.1), "hidden": (8, 8),
    }  # fmt: skip
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


def test_help_is_there_for_every_command_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "eval", "plot", "check"):
        assert ndp(name, "--help") == 0
        assert "examples:" in capsys.readouterr().out
    assert ndp("--help") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.SUBCOMMANDS)


def test_help_keeps_names_as_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
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
def test_a_benchmark_refuses_what_it_cannot_measure(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for module in (benchmark, bench):
        monkeypatch.setattr(module, "main", lambda _: pytest.fail("a measurement"))
    assert ndp("bench", *arguments) == 2
    assert message in one_line(capsys)


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
        (["plot", "nowhere", "-o", "x.png"], "nowhere is no run directory"),
        (["check", "missing.yaml"], "missing.yaml: there is no such file or folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert ndp(*arguments) == 2
    assert message in one_line(capsys)
    assert not list(tmp_path.iterdir())


def test_a_run_in_place_of_a_checkpoint_stands_for_its_best(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints" / "best").mkdir(parents=True)
    assert ndp("eval", "run") == 2
    assert "run/checkpoints/best/config.json: No such file" in one_line(capsys)


def test_a_shipped_checkpoint_goes_by_its_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ndp("eval", "jaco_pick", "--episodes", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["task"] == "pick"


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    from ndp_ros.commands import train

    path = tmp_path / "mine.yaml"
    path.write_text("seed: 3\nk: 4\nppo: {clip: 0.3, epochs: 7}\ndmp: {n_basis: 4}\n")
    parser = cli.OneLineParser()
    train.configure(parser)
    config = train.read_config(
        parser.parse_args([TOY, "--config", str(path), "--k", "2", "--epochs", "5"])
    )
    assert (config.seed, config.k) == (3, 2)
    assert (config.ppo.clip, config.ppo.epochs, config.ppo.gamma) == (0.3, 5, 0.99)
    assert config.dmp.n_basis == 4


def train_config(*arguments: str) -> RunConfig:
    from ndp_ros.commands import train

    parser = cli.OneLineParser()
    train.configure(parser)
    return train.read_config(parser.parse_args(arguments))


def test_task_options_are_taken_over_by_name_from_what_ships_the_file_and_the_flags(
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
        "moving_bin=true", "horizon=1.6", "latency=0.01", "limit_cost=0.3"
    )  # fmt: skip


def test_a_shipped_experiment_on_top_of_another_is_the_same_in_studies_and_as_a_file() -> None:
    path = str(share("config/experiments/throw-moving-ndp.yaml"))
    assert train_config("throw", "--config", path) == shipped("throw", "ndp", "throw-moving-ndp")


def test_the_file_of_a_run_that_left_out_a_shipped_option_gives_its_configuration_again(
    tmp_path: Path,
) -> None:
    config = RunConfig(task="throw", task_options=("limit_cost=0.3",))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(to_mapping(config)))
    assert train_config("throw", "--config", str(path)) == config


def test_an_interrupted_run_says_the_command_that_goes_on_with_it(
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
    command = shlex.split(one_line(capsys).partition("go on with: ")[2])
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


def test_no_two_commands_of_the_page_on_training_write_to_one_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ndp_ros.commands import train

    root = Path(__file__).parents[1]
    monkeypatch.chdir(root)
    page = (root / "docs" / "training.md").read_text(encoding="utf-8")
    folders = []
    for line in page.splitlines():
        if line.startswith("ndp train "):
            parser = cli.OneLineParser()
            train.configure(parser)
            args = parser.parse_args(shlex.split(line, comments=True)[2:])
            folders.append(args.out or Path("runs") / train.read_config(args).name)
    assert len(folders) > 3
    assert len(set(folders)) == len(folders), folders


def test_every_shipped_experiment_is_sound() -> None:
    folder = Path(cli.__file__).parent.parent / "config" / "experiments"
    paths = sorted(folder.glob("*.yaml"))
    if paths:
        assert ndp("check", *paths) == 0


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


def test_eval_says_the_same_twice(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = []
    for _ in range(2):
        ndp("eval", run / "checkpoints" / "best", "--episodes", 3, "--json")
        reports.append(capsys.readouterr().out)
    assert reports[0] == reports[1]


def test_eval_films_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_eval_refuses_what_it_could_not_write_before_any_episode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    from ndp_ros.commands import evaluate

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "run_episode", lambda *_: pytest.fail("an episode"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    toy_checkpoint(tmp_path / "c")
    assert ndp("eval", "c", *arguments) == 2
    assert message in one_line(capsys)
    assert {p.name for p in tmp_path.iterdir()} == {"c", "folder", "file"}


def test_eval_makes_the_folders_of_what_it_writes(tmp_path: Path) -> None:
    each = tmp_path / "new" / "folder" / "each.jsonl"
    assert ndp("eval", toy_checkpoint(tmp_path / "c"), "--episodes", 1, "--each", each) == 0
    assert json.loads(each.read_text())["seed"] == 0


@pytest.mark.parametrize(("flag", "name"), [("--each", "each.jsonl"), ("--video", "film.mp4")])
def test_a_full_disk_costs_eval_the_file_and_not_the_figures(
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


def test_no_name_of_a_checkpoint_is_refused_with_those_that_ship(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ndp("eval", "") == 2
    assert "no name of a checkpoint: name a folder, or one that ships (faucet" in one_line(capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arm": "gen3"}, "made for arm 'gen3', not 'toy'"),
        ({"joint_names": ("up", "down")}, "drives joints"),
        ({"control_dt": 0.01}, "control_dt of the checkpoint is 0.01"),
        ({"observation": arm_observation(2, ["bin"])}, "observation of the checkpoint"),
    ],
)
def test_eval_refuses_a_checkpoint_of_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    assert ndp("eval", toy_checkpoint(tmp_path / "c", **changes), "--episodes", 1) == 2
    assert message in one_line(capsys)


def test_check_finds_what_is_wrong_and_keeps_going(
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


def test_check_refuses_a_file_it_cannot_tell(
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
        ({}, {"method": "vices"}, "k is None, expected int"),
    ],
)
def test_check_and_eval_refuse_a_checkpoint_that_fits_no_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], of_spec: dict[str, object],
    of_training: dict[str, object], message: str,
) -> None:  # fmt: skip
    shipped = checkpoint.load(find_checkpoint("jaco_throw"))
    spec = dataclasses.replace(shipped.spec, **of_spec)
    training = {"task_options": ["latency=0.02"], **of_training}
    folder = checkpoint.save(tmp_path / "c", spec, shipped.tensors, {"config": training})
    for command in (["check"], ["eval", "--episodes", 1]):
        assert ndp(*command, folder) == 2
        assert message in one_line(capsys)


def test_check_finds_sound_what_ships(capsys: pytest.CaptureFixture[str]) -> None:
    assert ndp("check", find_checkpoint("jaco_throw"), find_checkpoint("gen3_throw")) == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.yaml", "task: throw\ntask_options: [laetncy=0.02]\nmethod: ndp\n", "'laetncy'"),
        ("x.yaml", "task: juggle\nmethod: ndp\n", "'juggle' is not one of"),
        ("experiments/throw-ndp.yaml", "task_options: [laetncy=0.02]\n", "'laetncy'"),
        ("x.yaml", "k: 5\nmethod: ndp\nk: 7\n", "k is there twice"),
        ("x.yaml", "method: ndp\nppo: {clip: 0.1, clip: 0.2}\n", "clip is there twice"),
    ],
)
def test_check_refuses_an_experiment_that_could_not_be_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, message: str
) -> None:
    (tmp_path / "experiments").mkdir()
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
def test_check_tells_a_file_by_the_names_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, what: str
) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert ndp("check", tmp_path / "x.yaml") == 0
    assert f"sound {what}" in capsys.readouterr().out


def test_plot_draws_a_picture_and_says_where_curves_end(
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


def test_a_summary_takes_means_and_the_worst_of_maxima() -> None:
    episodes = [
        {"success": True, "seed": 0, "max_joint_speed": 3.0, "miss": float("inf"), "saturation": 0},
        {"success": False, "seed": 1, "max_joint_speed": 1.0, "miss": 0.5, "saturation": 1},
    ]
    summary = summarise(episodes)
    assert summary["success_rate"] == 0.5
    assert summary["max_joint_speed"] == 3.0
    assert summary["saturation"] == 0.5
    assert summary["miss"] == 0.5
