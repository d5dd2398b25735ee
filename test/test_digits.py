# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Digit writing: the data set, the writers, their training, Table 2 and its queue."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ndp_ros import cli
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError, TrainingError
from ndp_ros.paper import table2
from ndp_ros.paper.digits import data as task
from ndp_ros.paper.digits import training
from ndp_ros.paper.digits.data import DigitsConfig, generate
from ndp_ros.paper.digits.networks import HEADS, CnnDmpWriter, DmpFit, WriterSpec, make_writer
from ndp_ros.paper.digits.training import DigitsRun
from ndp_ros.paper.queue import SCALES, Job
from ndp_ros.paths import share

SMALL = DigitsConfig(train=60, test=20)
FIVE = WriterSpec(segments=5, dmp=DmpConfig(n_basis=6, alpha=25.0, m=60))
SPECS = [
    *(WriterSpec(head=head, start=start) for head in HEADS for start in ("predicted", "given")),
    FIVE,
    WriterSpec(weights="raw"),
    WriterSpec(head="cnn-dmp", weights="raw"),
    WriterSpec(head="cnn", scaling="released"),
    WriterSpec(weights="raw", scaling="released", start="given"),
]


@pytest.fixture(scope="module")
def digits():
    return generate(SMALL)[0]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors(digits):
    return torch.from_numpy(digits.images), torch.from_numpy(digits.trajectories)


# The data set.


def test_the_same_seed_makes_the_same_digits(digits):
    assert generate(SMALL)[0].digest() == digits.digest()
    assert generate(replace(SMALL, seed=1))[0].digest() != digits.digest()


def test_every_class_has_as_many_samples():
    for part in generate(DigitsConfig(train=100, test=30)):
        assert set(np.bincount(part.labels)) == {len(part) // 10}


@pytest.mark.parametrize("digit", range(10))
def test_the_pen_travels_along_the_stroke_with_minimum_jerk(digit):
    steps = np.linalg.norm(np.diff(task.stroke(digit, task.minimum_jerk()), axis=0), axis=1)
    travelled = np.cumsum(steps) / steps.sum()
    t = np.linspace(0.0, 1.0, 301)[1:]
    # A sample cuts each corner, by at most the way of one step.
    np.testing.assert_allclose(travelled, 10 * t**3 - 15 * t**4 + 6 * t**5, atol=0.006)
    assert steps[0] < 1e-3 * steps.max() and steps[-1] < 1e-3 * steps.max()


def test_variations_keep_the_published_bounds():
    config = DigitsConfig(train=500, test=10)
    train, _ = generate(config)
    for digit in range(10):
        timed = task.stroke(digit, task.minimum_jerk())
        design = np.c_[timed, np.ones(len(timed))]
        for y in train.trajectories[train.labels == digit]:
            solution, residual, *_ = np.linalg.lstsq(design, y.astype(float), rcond=None)
            assert (residual < 1e-6).all()  # nothing but an affine map of the glyph
            A, shift = solution[:2].T / task.UNIT, solution[2] - 20.0
            scale, angle = np.hypot(*A[:, 0]), math.atan2(A[1, 0], A[0, 0])
            shear = (A[:, 0] @ A[:, 1]) / scale**2
            assert abs(scale - 1.0) <= 0.1 + 1e-5
            assert abs(math.degrees(angle)) <= 8.0 + 1e-3
            assert abs(shear) <= 0.1 + 1e-5
            assert np.abs(shift).max() <= 3.0 + 1e-4


def test_ink_is_where_the_pen_was_and_nowhere_else(digits):
    centres = np.arange(40) + 0.5
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    for image, y in zip(digits.images[:10], digits.trajectories[:10], strict=True):
        distance = np.linalg.norm(grid[:, None] - y[None], axis=2).min(axis=1).reshape(40, 40)
        assert (image[distance < task.PEN_RADIUS - 0.6] > 240).all()
        assert (image[distance > task.PEN_RADIUS + 0.5] == 0).all()


def test_a_line_has_the_ink_of_its_area():
    x = np.linspace(8.0, 32.0, 97)
    for height in (20.0, 20.25, 20.5):
        ink = task.draw(np.stack((x, np.full_like(x, height)), axis=1)[None]).sum() / 255.0
        r = task.PEN_RADIUS
        assert ink == pytest.approx(24.0 * 2.0 * r + math.pi * r**2, rel=0.03)


def test_one_command_makes_the_set(tmp_path, capsys):
    path = tmp_path / "new" / "digits.npz"
    assert task.main([str(path), "--train", "20", "--test", "10"]) == 0
    with np.load(path) as file:
        parts = [file[name][20:] for name in ("images", "trajectories", "labels")]
    assert task.DigitSet(*parts).digest() in capsys.readouterr().out
    assert task.main([str(path), "--train", "ten"]) == 2
    assert "train" in capsys.readouterr().err


# The writers.


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.head}-{s.start}-{s.weights}-{s.scaling}")
def test_every_writer_draws_301_positions_and_learns_from_them(spec, digits):
    images, trajectories = tensors(digits[:20])
    torch.manual_seed(0)
    writer = make_writer(spec)
    if isinstance(writer, CnnDmpWriter):
        writer.standardise(digits.trajectories)
    y = writer(images, trajectories[:, 0] if spec.start == "given" else None)
    assert y.shape == (20, 301, 2)
    assert torch.isfinite(y).all()
    optimiser = torch.optim.Adam(writer.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = writer.loss(images, trajectories)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for p in writer.parameters())


@pytest.mark.parametrize("head", ["ndp", "cnn-dmp"])
def test_a_dynamical_system_starts_where_it_is_told(head, digits):
    images, trajectories = tensors(digits[:5])
    writer = make_writer(WriterSpec(head=head, start="given"))
    torch.testing.assert_close(writer(images, trajectories[:, 0])[:, 0], trajectories[:, 0])
    with pytest.raises(ConfigError, match="pass y0"):
        writer(images)


@pytest.mark.parametrize("head", HEADS)
def test_a_writer_that_predicts_the_start_never_sees_it(head, digits):
    images, trajectories = tensors(digits[:5])
    writer = make_writer(WriterSpec(head=head))
    assert torch.equal(writer(images, trajectories[:, 0]), writer(images))


def test_segments_join_without_a_jump_in_velocity(digits):
    torch.manual_seed(0)
    writer = make_writer(FIVE).double()
    bend = torch.diff(writer(torch.from_numpy(digits.images[:10])), n=2, dim=1).abs()
    seams = [59, 119, 179, 239]
    between = [i for i in range(bend.shape[1]) if i not in seams]
    assert bend[:, seams].max() <= 2.0 * bend[:, between].max()


def test_one_segment_and_many_are_the_same_system_of_equations(digits):
    """A segment with w = 0 and its goal at rest holds; so do five of them."""
    writer = make_writer(FIVE)
    out = torch.zeros(3, writer.hidden[-1].out_features)
    torch.testing.assert_close(writer.trajectories(out, None), torch.full((3, 301, 2), 20.0))


def test_released_scaling_divides_the_picture_twice(digits):
    images, _ = tensors(digits[:5])
    torch.manual_seed(0)
    ours = make_writer(WriterSpec(head="cnn"))
    released = make_writer(WriterSpec(head="cnn", scaling="released"))
    released.load_state_dict(ours.state_dict())
    torch.testing.assert_close(released.outputs(images), ours.outputs(images / 255.0))
    torch.testing.assert_close(ours(images), 20.0 + 8.0 * ours.outputs(images).view(5, 301, 2))


@pytest.mark.parametrize(("weights", "bound"), [("whitened", 0.05), ("raw", 0.1)])
def test_parameters_fitted_to_a_demonstration_draw_it(weights, bound, digits):
    spec = WriterSpec(weights=weights)
    fit = DmpFit(spec.dmp, 301, weights)
    drawn = fit.rows @ fit(digits.trajectories)
    errors = np.mean((drawn - digits.trajectories) ** 2, axis=(1, 2))
    assert errors.max() < bound  # [px^2]; a class mean is 3.6 away
    np.testing.assert_allclose(drawn[:, 0], digits.trajectories[:, 0], atol=1e-3)


def test_cnn_dmp_is_trained_on_parameters_and_not_on_the_trajectory(digits):
    images, trajectories = tensors(digits[:20])
    writer = make_writer(WriterSpec(head="cnn-dmp"))
    writer.standardise(digits.trajectories)
    fitted = torch.from_numpy(writer.fit(trajectories.numpy())).float()
    perfect = (fitted.flatten(1) - writer.mean) / writer.deviation
    writer.outputs = lambda images: perfect
    assert writer.loss(images, trajectories) < 1e-6
    torch.testing.assert_close(writer(images), writer.rows @ fitted, atol=1e-2, rtol=1e-4)
    writer.outputs = lambda images: perfect + 1.0
    assert writer.loss(images, trajectories).item() == pytest.approx(1.0, rel=1e-3)


def test_specifications_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="do not divide"):
        WriterSpec(segments=7)
    with pytest.raises(ConfigError, match="cnn has one"):
        WriterSpec(head="cnn", segments=5)
    with pytest.raises(ConfigError, match="weights=raw"):
        WriterSpec(scaling="released", start="given")


# Training.


def test_errors_are_means_over_classes(digits):
    offset = np.where(digits.labels == 3, 2.0, 0.0).astype(np.float32)
    found = training.score(digits.trajectories + offset[:, None, None], digits)
    assert found.classes == pytest.approx([0, 0, 0, 4, 0, 0, 0, 0, 0, 0], abs=1e-5)
    assert found.px2 == pytest.approx(0.4, rel=1e-4)
    assert found.spread == pytest.approx(1.2, rel=1e-4)
    assert found.roughness == pytest.approx(1.0, rel=0.01)


def test_references_fall_with_what_they_are_told():
    train, test = generate(DigitsConfig(train=1000, test=100))
    found = {n: s.px2 for n, s in training.references(train, test, WriterSpec()).items()}
    values = list(found.values())[:4]
    assert values == sorted(values, reverse=True)
    assert found["least squares, 30 raw weights"] < 0.01


def test_a_resumed_run_equals_one_that_was_never_interrupted(tmp_path):
    config = DigitsRun(data=SMALL, epochs=3, batch=20)
    training.train(config, tmp_path / "whole")

    def interrupt(line):
        if "epoch 2/3" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(config, tmp_path / "cut", log=interrupt)
    assert not (tmp_path / "cut" / training.RESULT).exists()
    training.train(config, tmp_path / "cut")
    names = {p.name for p in (tmp_path / "whole").iterdir()}
    assert names == {training.RUN, training.CURVE, training.MODEL, training.RESULT}
    assert {p.name for p in (tmp_path / "cut").iterdir()} == names
    whole, cut = (
        json.loads((tmp_path / n / training.RESULT).read_text()) for n in ("whole", "cut")
    )
    whole.pop("cpu_seconds"), cut.pop("cpu_seconds")
    assert whole == cut
    models = [(tmp_path / n / training.MODEL).read_bytes() for n in ("whole", "cut")]
    assert models[0] == models[1]
    writer = training.load_writer(tmp_path / "cut")
    test = generate(SMALL)[1]
    assert training.score(training.predict(writer, test), test).px2 == cut["test"]["px2"]


def test_the_writer_that_ships_writes_as_its_card_says():
    folder = share("models/checkpoints/digits")
    # Digits that it has not seen, made faster than those of its own record.
    writer, test = training.load_writer(folder), generate(DigitsConfig(train=10))[1]
    recorded = json.loads((folder / training.RESULT).read_text())["test"]["px2"]
    measured = training.score(training.predict(writer, test), test)
    assert np.mean(measured.classes) == pytest.approx(recorded, rel=0.1)
    assert f"{recorded:.2f} px²" in (folder / "README.md").read_text()


def test_a_run_directory_is_not_shared_by_two_configurations(tmp_path):
    config = DigitsRun(data=SMALL, epochs=1, batch=20)
    training.train(config, tmp_path)
    with pytest.raises(TrainingError, match="another configuration"):
        training.train(replace(config, seed=1), tmp_path)
    (tmp_path / training.MODEL).write_bytes(b"cut off")
    with pytest.raises(TrainingError, match="cannot load"):
        training.load_writer(tmp_path)


# The table.


def tiny_jobs(scale):
    rows = ("ndp", "cnn", "cnn-dmp")
    config = DigitsRun(data=SMALL, epochs=1, batch=30)
    return [
        Job(
            row,
            seed,
            replace(config, writer=table2.ROWS[row][1], seed=seed),
            "table2/smoke",
            table2.TABLE2.work,
        )
        for row in rows
        for seed in range(2 if row == "ndp" else 1)
    ]


def test_one_command_makes_the_table_and_its_pictures(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(table2.TABLE2, "jobs", tiny_jobs)
    runs, out = tmp_path / "runs", tmp_path / "out"
    command = ["reproduce", "table2", "--processes", "1", "--runs", str(runs), "--out", str(out)]
    assert cli.main([*command, "--report-only", "--json"]) == 1
    counts = json.loads(capsys.readouterr().out)["experiments"]["table2"]
    assert (counts["done"], counts["missing"]) == (0, 4)

    assert cli.main(command) == 0
    table = capsys.readouterr().out
    assert "| NDP | 2 of 2 | 38 | 1 |" in table
    assert "class mean, label given" in table
    names = {"table2.json", "runs.csv", "curves.csv", "table2.md", "figure4.png", "curves.png"}
    assert {p.name for p in (out / "table2").iterdir()} == names
    record = json.loads((out / "table2" / "table2.json").read_text())
    per_seed = [r["result"]["test"]["px2"] for r in record["runs"] if r["row"] == "ndp"]
    row = next(r for r in record["rows"] if r["row"] == "ndp")
    assert row["test"]["px2"] == pytest.approx(np.mean(per_seed))
    assert all(r["origin"]["data"]["train"] for r in record["runs"])

    (runs / "table2/smoke/ndp-1" / "result.json").unlink()
    (runs / "table2/smoke/ndp-1" / "failed.json").write_text('{"error": "out of luck"}')
    assert cli.main([*command, "--report-only"]) == 1
    table = capsys.readouterr().out
    assert "| NDP | 1 of 2 | 38 |" in table
    assert "Run ndp-1 failed: out of luck." in table


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_has_the_paper_s_rows_and_the_ndp_five_seeds_beyond_smoke(scale):
    jobs = table2.TABLE2.jobs(scale)
    assert len({job.name for job in jobs}) == len(jobs)
    assert {job.row for job in jobs} == set(table2.ROWS)
    seeds = [job.seed for job in jobs if job.row == "ndp"]
    assert seeds == ([0] if scale == "smoke" else [0, 1, 2, 3, 4])
    assert table2.ROWS["ndp"][1].start == "predicted"
