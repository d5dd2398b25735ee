# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A run learns, resumes after any interruption with the same numbers, and fails clearly."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import toy_task

from ndp_ros import checkpoint, cli, training
from ndp_ros.config import to_mapping
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError, TrainingError
from ndp_ros.policies import KINDS
from ndp_ros.training import provenance as provenance_module
from ndp_ros.training.config import PpoConfig, RunConfig, differences, make_spec
from ndp_ros.training.directory import read_config
from ndp_ros.training.evaluation import EVALUATION_SEED
from ndp_ros.training.experiments import flat
from ndp_ros.training.logs import TIME_COLUMNS, read_progress
from ndp_ros.training.methods import METHODS, run_class
from ndp_ros.training.provenance import as_typed, observed, provenance
from ndp_ros.training.rollouts import Rollouts
from ndp_ros.training.run import train
from ndp_ros.training.trainer import Trainer
from ndp_ros.training.warm_start import start_tensors

pytestmark = pytest.mark.live

TOY = "toy_task:Toy-v0"
HERE = Path(__file__).parent


def toy(samples: int = 960, **changes: object) -> RunConfig:
    values = {
        "task": TOY,
        "samples": samples,
        "environments": 4,
        "workers": 1,
        "hidden": (16, 16),
        "checkpoint_every": 2,
        "evaluation_episodes": 4,
        "preset": "",
        "ppo": PpoConfig(batch_size=160, minibatches=4, epochs=2),
    }
    return RunConfig(**{**values, **changes})


def curve(folder: Path) -> list[dict[str, str]]:
    return [
        {name: value for name, value in row.items() if name not in TIME_COLUMNS}
        for row in read_progress(folder)
    ]


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return checkpoint.load(folder / "checkpoints" / "last").tensors


def assert_same_run(a: Path, b: Path) -> None:
    assert curve(a) == curve(b)
    for name, value in tensors(a).items():
        np.testing.assert_array_equal(value, tensors(b)[name], err_msg=name)


_EARLIER: set[int] = set()
"""Processes that this one had started before the test."""


@pytest.fixture(autouse=True)
def earlier_children() -> None:
    _EARLIER.clear()
    _EARLIER.update(child.pid for child in psutil.Process().children())


def no_children() -> bool:
    new = [child for child in psutil.Process().children() if child.pid not in _EARLIER]
    return not [child for child in new if "tracker" not in " ".join(child.cmdline())]


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("ndp", {}),
        ("ndp", {"noise": "segment", "curves": 2, "dmp": DmpConfig(forcing="free")}),
        ("ppo", {}),
        ("ppo-multi", {}),
    ],
)
def test_every_method_learns_the_toy(tmp_path: Path, method: str, changes: dict) -> None:
    config = toy(
        16_000,
        method=method,
        **changes,
        evaluation_episodes=20,
        checkpoint_every=100,
        workers=1,
        ppo=PpoConfig(batch_size=640, minibatches=8, learning_rate=2e-3),
    )
    train(config, tmp_path / "run", quiet=True)
    last = read_progress(tmp_path / "run")[-1]
    first = read_progress(tmp_path / "run")[0]
    assert float(last["return"]) > 0.6 * float(first["return"])  # returns are negative
    assert int(last["observed"]) * (1 if method == "ppo" else 5) == int(last["samples"])


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(toy(480, seed=seed), tmp_path / name, quiet=True)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert curve(tmp_path / "a") != curve(tmp_path / "c")


def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy(task_options=("noise=0.01",), workers=2)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config, whole, quiet=True)

    collect, calls = Rollouts.collect, []

    def interrupted(self: Rollouts, batch: int, fresh: bool) -> list:
        calls.append(batch)
        if len(calls) == 4:  # one batch after the first checkpoint
            raise KeyboardInterrupt
        return collect(self, batch, fresh)

    monkeypatch.setattr(Rollouts, "collect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, cut, quiet=True)
    monkeypatch.undo()
    assert len(curve(cut)) == 3
    train(config, cut, resume=True, quiet=True)
    assert_same_run(whole, cut)


def test_a_run_can_be_extended(tmp_path: Path) -> None:
    train(toy(640), tmp_path / "short", quiet=True)
    train(toy(960), tmp_path / "short", resume=True, quiet=True)
    train(toy(960), tmp_path / "long", quiet=True)
    assert_same_run(tmp_path / "short", tmp_path / "long")


def test_a_run_that_ended_between_checkpoints_can_be_extended(tmp_path: Path) -> None:
    train(toy(480), tmp_path / "run", quiet=True)  # 3 batches, a checkpoint every 2
    train(toy(960), tmp_path / "run", resume=True, quiet=True)
    assert [int(row["samples"]) for row in curve(tmp_path / "run")] == list(range(160, 961, 160))


def test_a_recorded_command_leaves_out_the_folders_of_its_machine():
    typed = ["train", "throw", "--out", "/a b/run", "--seed", "3", "--runs=/c"]
    assert as_typed(typed) == "ndp train throw --seed 3"
    assert as_typed(["train", "throw", "--task-options", "latency=0.02"]) == (
        "ndp train throw --task-options latency=0.02"
    )


def test_a_run_records_command_versions_and_seed(tmp_path: Path) -> None:
    train(toy(320, seed=5), tmp_path / "run", command="ndp train toy", quiet=True)
    origin = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert origin["command"] == "ndp train toy"
    assert origin["versions"]["numpy"] == np.__version__
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    saved = checkpoint.load(tmp_path / "run" / "checkpoints" / "best")
    assert saved.provenance["seed"] == 5
    assert saved.provenance["samples"] == 320
    assert saved.provenance["evaluation"]["episodes"] == 4


def test_a_run_records_each_resumption(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(toy(320), run, command="ndp train toy", quiet=True)
    train(toy(640), run, resume=True, command="ndp train toy --resume", quiet=True)
    origin = json.loads((run / "provenance.json").read_text())
    assert origin["command"] == "ndp train toy"
    (entry,) = origin["resumed"]
    assert (entry["command"], entry["samples"]) == ("ndp train toy --resume", 640)
    assert entry["commit"] == origin["commit"]
    assert read_config(run).samples == 640


def test_resuming_a_schedule_with_another_length_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduled = {"init_log_std": -1.0, "final_log_std": -2.0}
    train(toy(320, **scheduled), tmp_path / "run", quiet=True)
    train(toy(320, **scheduled), tmp_path / "run", resume=True)
    assert "samples is" not in capsys.readouterr().err
    train(toy(480, **scheduled), tmp_path / "run", resume=True)
    assert "samples is 480, was 320" in capsys.readouterr().err


def test_the_recorded_commit_is_the_one_that_the_process_started_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = provenance()["commit"]

    def moved(*_: object, **__: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(subprocess, "run", moved)
    assert provenance()["commit"] == before


def test_a_copy_inside_another_project_s_repository_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(
        ["git", "-C", str(tmp_path), *who, "commit", "-q", "--allow-empty", "-m", "theirs"],
        check=True,
    )
    module = tmp_path / "site-packages" / "ndp_ros" / "training" / "experiment.py"
    module.parent.mkdir(parents=True)
    monkeypatch.setattr(provenance_module, "__file__", str(module))
    provenance_module._commit.cache_clear()  # noqa: SLF001
    try:
        assert provenance()["commit"] == "unknown"
    finally:
        provenance_module._commit.cache_clear()  # noqa: SLF001


@pytest.mark.parametrize("normalise", [True, False])
def test_a_resumed_run_from_a_checkpoint_equals_an_uninterrupted_one(
    tmp_path: Path, normalise: bool
) -> None:
    train(toy(320), tmp_path / "first", quiet=True)
    ppo = PpoConfig(batch_size=160, minibatches=4, epochs=2, normalise_observations=normalise)
    later = {"start_from": str(tmp_path / "first" / "checkpoints" / "last"), "ppo": ppo}
    train(toy(640, **later), tmp_path / "whole", quiet=True)
    train(toy(320, **later), tmp_path / "cut", quiet=True)
    train(toy(640, **later), tmp_path / "cut", resume=True, quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("method", ["ppo", "vices-low-freq", "bc-nn", "dyn-e"])
def test_correlated_noise_is_refused_where_it_has_no_effect(method: str) -> None:
    with pytest.raises(ConfigError, match=r"no effect on [a-z-]+:"):
        RunConfig(method=method, ppo=PpoConfig(noise_correlation=0.5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"method": "dyn-e", "start_from": "x"},
            r"start_from is 'x', which dyn-e .*\(ndp, ppo, ppo-",
        ),
        ({"method": "ppo-multi", "noise": "segment"}, "noise segment has no effect on ppo-multi"),
        ({"noise": "segment", "ppo": PpoConfig(noise_correlation=0.5)}, "with noise segment: it"),
        ({"method": "bc-nn", "start_from": "x"}, "start_from is 'x', which bc-nn"),
        (
            {"method": "ndp", "demonstrations": "x"},
            r"which ndp does not use: .*\(bc-ndp, bc-nn\)",
        ),
    ],
)
def test_an_option_that_a_method_does_not_use_is_refused(
    values: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig(**values)


def test_observations_are_counted_once() -> None:
    spec = make_spec(toy(), toy().choice.make())
    clone = {"samples": 4000, "config": {"method": "bc-ndp", "bc": {"passes": 40}}}
    assert observed(clone, spec) == 4000 / 40 / spec.k
    assert observed({"samples": 4000, "config": {"method": "ndp"}}, spec) == 4000 / spec.k
    for method, kind in (("vices-low-freq", "ppo"), ("dyn-e", "bounded")):
        held = dataclasses.replace(spec, method=kind, k=1)
        assert observed({"samples": 4000, "config": {"method": method, "k": 8}}, held) == 500


def test_the_row_of_a_method_names_a_kind_of_policy_and_a_run_class() -> None:
    for name, row in METHODS.items():
        assert row.policy in KINDS, name
        assert issubclass(run_class(row.learner), Trainer)
        assert set(row.random_motion) <= {name for name, _ in flat(to_mapping(RunConfig()))}
    assert RunConfig(method="ndp").random_steps == 0
    assert RunConfig(method="dyn-e").random_steps == 5_000 + 100_000


def test_only_the_last_and_the_best_checkpoint_are_kept(tmp_path: Path) -> None:
    train(toy(1600), tmp_path / "run", quiet=True)
    names = {p.name for p in (tmp_path / "run" / "checkpoints").iterdir()}
    assert {"last", "best", "000001600"} <= names
    assert len(names) <= 4


def test_deviations_follow_a_schedule_if_one_is_given(tmp_path: Path) -> None:
    train(toy(1600, init_log_std=-1.0, final_log_std=-2.0), tmp_path / "run", quiet=True)
    logs = [np.log(float(row["std"])) for row in read_progress(tmp_path / "run")]
    np.testing.assert_allclose(logs, -1.0 - np.arange(10) / 10, atol=1e-5)


def test_an_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    train(toy(320), tmp_path / "run", quiet=True)
    with pytest.raises(TrainingError, match="--resume"):
        train(toy(320), tmp_path / "run", quiet=True)


def test_resuming_with_another_configuration_is_refused(tmp_path: Path) -> None:
    train(toy(320), tmp_path / "run", quiet=True)
    both = r"seed \(0, now 9\), ppo\.clip \(0\.1, now 0\.3\): continue it with 'ndp train"
    with pytest.raises(TrainingError, match=both):
        changed = toy(320, seed=9, ppo=PpoConfig(batch_size=160, minibatches=4, epochs=2, clip=0.3))
        train(changed, tmp_path / "run", resume=True, quiet=True)


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot resume"):
        train(toy(), tmp_path / "nothing", resume=True, quiet=True)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", r"environment \d: observation position is not finite"),
        ("raise", "ZeroDivisionError: the toy broke"),
        ("die", "was killed by SIGKILL"),
    ],
)
def test_a_failing_environment_ends_the_run_and_spares_the_checkpoint(
    tmp_path: Path, how: str, message: str
) -> None:
    # 2 environments a worker, 8 windows a batch: breaks in the third batch, after a checkpoint
    options = ("break_after=20", f"break_how={how}")
    config = toy(task_options=options, evaluation_episodes=0, workers=2)
    with pytest.raises(TrainingError, match=message):
        train(config, tmp_path / "run", quiet=True)
    assert no_children()
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last").provenance["samples"] == 320


def test_a_worker_killed_from_outside_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = Rollouts.collect

    def kill_one(self: Rollouts, batch: int, fresh: bool) -> list:
        if batch == 3:
            os.kill(self._processes[1].pid, signal.SIGKILL)
        return collect(self, batch, fresh)

    monkeypatch.setattr(Rollouts, "collect", kill_one)
    with pytest.raises(TrainingError, match=r"ndp-rollouts-1 was killed by SIGKILL"):
        train(toy(workers=2), tmp_path / "run", quiet=True)
    assert no_children()
    checkpoint.load(tmp_path / "run" / "checkpoints" / "last")


def test_a_full_disk_ends_the_run_and_spares_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def full(fd: int) -> None:
        calls.append(fd)
        if len(calls) > 5:
            raise OSError(28, "No space left on device")
        real(fd)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Exception, match="No space left"):
        train(toy(), tmp_path / "run", quiet=True)
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last").provenance["samples"] == 320
    assert no_children()


LIMITED = """
import resource, signal, sys
from pathlib import Path
from test_training import toy
from ndp_ros.errors import NdpError
from ndp_ros.training.run import train
from ndp_ros.training.warm_start import start_tensors

if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    try:
        train(toy(160_000), Path(sys.argv[1]), quiet=True)
    except NdpError as error:
        sys.exit(str(error))
"""


def test_a_file_that_cannot_grow_ends_the_run_and_spares_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "limited.py").write_text(LIMITED)
    done = subprocess.run(
        [sys.executable, tmp_path / "limited.py", tmp_path / "run"],
        env={**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr
    assert "the last checkpoint is intact" in done.stderr
    samples = checkpoint.load(tmp_path / "run" / "checkpoints" / "last").provenance["samples"]
    assert 320 <= samples < 160_000
    train(toy(samples + 160), tmp_path / "run", resume=True, quiet=True)


def test_a_run_in_a_read_only_directory_is_refused_and_left_as_it_was() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        run = Path(name) / "run"
        train(toy(320), run, quiet=True)
        folders = [run, *(p for p in run.rglob("*") if p.is_dir() and not p.is_symlink())]
        before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
        me = os.geteuid()
        for folder in folders:
            folder.chmod(0o555)
        if me == 0:
            os.seteuid(65534)  # root may write anywhere
        try:
            with pytest.raises(TrainingError, match=r"cannot write to .*run: Permission denied"):
                train(toy(640), run, resume=True, quiet=True)
        finally:
            os.seteuid(me)
            for folder in folders:
                folder.chmod(0o755)
        assert no_children()
        assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before
        checkpoint.load(run / "checkpoints" / "last")


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="file"):
        train(toy(), tmp_path / "file" / "run", quiet=True)


def test_an_unknown_option_of_the_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="sparkle"):
        train(toy(task_options=("sparkle=1",)), tmp_path / "run", quiet=True)


def start_run(folder: Path) -> subprocess.Popen:
    """Start a long run in its own process and wait until it has written a checkpoint."""
    code = (
        "from test_training import toy, train; from pathlib import Path; import sys\n"
        "if __name__ == '__main__': train(toy(10**7, workers=2), Path(sys.argv[1]), quiet=True)"
    )
    (folder.parent / "main.py").write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(folder.parent / "main.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}"},
        stderr=subprocess.DEVNULL,
        # A suite that runs in the background hands down that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for _ in range(4000):
        if (folder / "checkpoints" / "last").exists():
            return process
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    raise AssertionError("no checkpoint after 200 s")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_process_and_can_be_resumed(
    tmp_path: Path, how: signal.Signals
) -> None:
    folder = tmp_path / "run"
    process = start_run(folder)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    assert process.wait(120) != 0
    _, alive = psutil.wait_procs(children, timeout=120)
    assert not alive
    saved = checkpoint.load(folder / "checkpoints" / "last")
    more = saved.provenance["samples"] + 160
    train(toy(more, workers=2), folder, resume=True, quiet=True)
    assert int(read_progress(folder)[-1]["samples"]) == more


def test_differences_names_nested_fields() -> None:
    assert differences(toy(), toy(seed=1, ppo=PpoConfig())) == [
        "seed",
        "ppo.batch_size",
        "ppo.minibatches",
        "ppo.epochs",
    ]


def test_evaluation_uses_its_own_start_states() -> None:
    assert EVALUATION_SEED > 10**6


def test_a_run_can_start_from_a_checkpoint_of_an_easier_task(tmp_path: Path) -> None:
    train(toy(960), tmp_path / "first", quiet=True)
    start = tmp_path / "first" / "checkpoints" / "last"
    saved = checkpoint.load(start)
    found, seen = start_tensors(saved.spec, str(start))
    np.testing.assert_array_equal(
        found["actor.0.weight"][:, :4], saved.tensors["actor.0.weight"][:, :4]
    )
    # Height 0 of the toy's goal never changes: nobody has trained what it weighs.
    constant = saved.tensors["normaliser.variance"] < 1e-6
    assert constant.sum() == 1
    assert not found["actor.0.weight"][:, constant].any()
    assert (found["normaliser.variance"][constant] == 1.0).all()
    # What has been observed stays; what never changed is learnt from the first batch.
    assert (seen[~constant] == 960 / saved.spec.k).all() and not seen[constant].any()

    config = toy(320, seed=1, start_from=str(start), init_log_std=-3.0, final_log_std=-3.0)
    train(config, tmp_path / "second", quiet=True)
    origin = json.loads((tmp_path / "second" / "provenance.json").read_text())
    assert origin["start_from"] == saved.id
    after = checkpoint.load(tmp_path / "second" / "checkpoints" / "last").tensors
    for name in ("normaliser.mean", "normaliser.variance"):
        drift = np.abs(after[name] - saved.tensors[name])[~constant]
        spread = np.sqrt(saved.tensors["normaliser.variance"])[~constant]
        assert (drift < 0.5 * np.maximum(spread, spread**2)).all(), "it goes on, not anew"
    fresh = toy(320, seed=1, init_log_std=-3.0, final_log_std=-3.0)
    train(fresh, tmp_path / "fresh", quiet=True)
    first = [float(curve(tmp_path / name)[0]["return"]) for name in ("second", "fresh")]
    assert first[0] > first[1], "what was learnt is there from the first batch on"
    with pytest.raises(TrainingError, match="networks"):
        train(toy(320, hidden=(8, 8), start_from=str(start)), tmp_path / "third", quiet=True)
    assert not (tmp_path / "third").exists()


def test_observations_that_are_no_vector_are_refused_in_one_line(tmp_path, capsys, monkeypatch):
    import gymnasium

    class Pictures(toy_task.Toy):
        def __init__(self, **kwargs) -> None:
            super().__init__(**kwargs)
            self.observation_space = gymnasium.spaces.Dict({"image": self.observation_space})

    gymnasium.register("Pictures-v0", entry_point=lambda **kwargs: Pictures(**kwargs))
    monkeypatch.chdir(tmp_path)
    for method in ("ndp", "ppo", "dyn-e"):
        assert cli.main(["train", "toy_task:Pictures-v0", "--method", method]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "one vector" in said or "one axis" in said


def test_every_public_name_of_the_subpackage_can_be_imported() -> None:
    assert [name for name in training.__all__ if not hasattr(training, name)] == []
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = training.nothing
