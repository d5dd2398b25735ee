# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Train and measure a writer on the digit set (sections 3.3 and 5.1).

::

    <run>/run.json            configuration, data, commit, command, machine
    <run>/curve.csv           one row an epoch
    <run>/model.safetensors   the writer, after the last epoch
    <run>/state.pt            writer and optimiser after the last epoch done, while under way
    <run>/result.json         the figures; marks the run as complete

The order of the samples follows from seed and epoch alone, so a resumed run computes the
same numbers as one that was never interrupted.
"""

from __future__ import annotations

import csv
import io
import json
import math
import pickle
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray

from ndp_ros.config import from_mapping, param, to_mapping
from ndp_ros.errors import ConfigError, TrainingError
from ndp_ros.files import atomic_write
from ndp_ros.paper.digits.data import CLASSES, DigitsConfig, DigitSet, generate
from ndp_ros.paper.digits.networks import CnnDmpWriter, DmpFit, Writer, WriterSpec, make_writer
from ndp_ros.paper.queue import Log
from ndp_ros.policies.devices import DEVICES, torch_device
from ndp_ros.training.provenance import provenance

RUN, CURVE, RESULT = "run.json", "curve.csv", "result.json"
MODEL, STATE = "model.safetensors", "state.pt"
_COLUMNS = ("epoch", "loss", "test_px2", "test_spread", "cpu_seconds")


@dataclass(frozen=True)
class DigitsRun:
    """A training run on the digit set; but for the device it decides every number of the result."""

    writer: WriterSpec = param(WriterSpec(), doc="The model.")
    data: DigitsConfig = param(DigitsConfig(), doc="The digit set.")
    seed: int = param(0, doc="Seed of initial weights and sample order.", minimum=0)
    epochs: int = param(6, doc="Passes over the training set.", minimum=1)
    batch: int = param(32, doc="Samples a gradient step.", minimum=1)
    learning_rate: float = param(1e-3, doc="Adam's step size.", minimum=0.0)
    schedule: str = param(
        "cosine",
        doc="Step size over the run: falling to zero as a half cosine, or constant.",
        choices=("cosine", "constant"),
    )
    device: str = param("cpu", doc="Where torch learns; auto: cuda, if any.", choices=DEVICES)


@dataclass(frozen=True)
class Score:
    """Errors of predicted trajectories on one set."""

    classes: tuple[float, ...]
    """Mean squared error of each digit [px^2], over samples, time and both axes."""
    roughness: float
    """RMS third difference in time, relative to that of the demonstrations."""

    @property
    def px2(self) -> float:
        """Mean over the classes [px^2]: the figure of Table 2."""
        return float(np.mean(self.classes))

    @property
    def spread(self) -> float:
        """Standard deviation over the classes [px^2]: the +- of Table 2."""
        return float(np.std(self.classes))

    def plain(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        means = {"px2": self.px2, "spread": self.spread}
        return {**means, "classes": list(self.classes), "roughness": self.roughness}


@lru_cache(maxsize=1)
def data_set(config: DigitsConfig) -> tuple[DigitSet, DigitSet]:
    """Return both sets, made once per process."""
    return generate(config)


def score(predicted: NDArray[Any], truth: DigitSet) -> Score:
    """Return the errors of trajectories (n, 301, 2) [px] against a set."""
    errors = ((predicted - truth.trajectories).astype(np.float64) ** 2).mean(axis=(1, 2))
    classes = tuple(float(errors[truth.labels == digit].mean()) for digit in range(CLASSES))
    jerk = [np.diff(y, n=3, axis=1).astype(np.float64) for y in (predicted, truth.trajectories)]
    rough, smooth = (math.sqrt(float(np.mean(j**2))) for j in jerk)
    return Score(classes, rough / smooth)


def predict(writer: Writer, digits: DigitSet) -> NDArray[np.float32]:
    """Return the writer's trajectories (n, 301, 2) [px] for a set."""
    images, y0 = torch.from_numpy(digits.images), torch.from_numpy(digits.trajectories[:, 0])
    place = writer.resize.device
    with torch.inference_mode():
        parts = [
            writer(i.to(place), s.to(place)).cpu()
            for i, s in zip(images.split(500), y0.split(500), strict=True)
        ]
    return np.asarray(torch.cat(parts).numpy())


def references(train: DigitSet, test: DigitSet, spec: WriterSpec) -> dict[str, Score]:
    """Return the scores of predictors without a network on the held-out set.

    The first three show how much of the error a constant explains; the others, which know the
    demonstration, bound the outputs of a dynamical system.
    """
    y, truth = train.trajectories, test.trajectories
    means = np.stack([y[train.labels == digit].mean(0) for digit in range(CLASSES)])
    of_class = means[test.labels]
    rows = {
        "global mean": np.broadcast_to(y.mean(0), truth.shape),
        "class mean, label given": of_class,
        "class mean, label and start given": of_class - of_class[:, :1] + truth[:, :1],
    }
    for weights in ("raw", "whitened"):
        fit = DmpFit(spec.dmp, spec.samples, weights)
        name = f"least squares, {fit.rows.shape[1] - 2} {weights} weights"
        rows[name] = _closest(fit.rows, truth)
        rows[f"targets of cnn-dmp, {weights}"] = fit.rows @ fit(truth)
    return {name: score(predicted, test) for name, predicted in rows.items()}


def train(config: DigitsRun, folder: Path, command: str = "", log: Log | None = None) -> None:
    """Train a writer in a run directory, from wherever an earlier attempt stopped.

    But for the device the configuration must equal that of an earlier attempt in the folder. The
    log is called with one line an epoch.

    Raises:
        ConfigError: If this torch does not have the device.
        TrainingError: If the folder belongs to another run or the loss is not finite.
    """
    torch.set_num_threads(1)
    folder = Path(folder)
    if (folder / RESULT).exists():
        _begin(config, folder, command)
        return
    place = torch_device(config.device)
    training, held_out = data_set(config.data)
    _begin(config, folder, command)
    writer = _new_writer(config, training).to(place)
    optimiser = torch.optim.Adam(writer.parameters(), config.learning_rate)
    curve = _resume(folder, writer, optimiser)
    images = torch.from_numpy(training.images).to(place)
    trajectories = torch.from_numpy(training.trajectories).to(place)
    spent = float(curve[-1]["cpu_seconds"]) if curve else 0.0

    for epoch in range(len(curve), config.epochs):
        start = time.process_time()
        order = np.random.default_rng([config.seed, epoch]).permutation(len(training))
        batches = torch.from_numpy(order).to(place).split(config.batch)
        total = 0.0
        for number, rows in enumerate(batches):
            done = (epoch + number / len(batches)) / config.epochs
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * _share(config.schedule, done)
            optimiser.zero_grad()
            loss = writer.loss(images[rows], trajectories[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.item() * len(rows)
        if not math.isfinite(total):
            raise TrainingError(f"{folder}: the loss is {total} in epoch {epoch + 1}")
        now = score(predict(writer, held_out), held_out)
        spent += time.process_time() - start
        row = (epoch + 1, total / len(training), now.px2, now.spread, round(spent, 2))
        curve.append(dict(zip(_COLUMNS, map(str, row), strict=True)))
        _save(folder, writer, optimiser, curve)
        if log is not None:
            log(f"epoch {epoch + 1}/{config.epochs}  test {now.px2:.3f} px^2  {spent:.0f} s")
    _finish(folder, config, writer, curve, training, held_out, spent)


def _new_writer(config: DigitsRun, training: DigitSet) -> Writer:
    """Return a run's writer before its first step; it does not depend on the device."""
    torch.manual_seed(config.seed)
    writer = make_writer(config.writer)
    if isinstance(writer, CnnDmpWriter):
        writer.standardise(training.trajectories)
    return writer


def load_writer(folder: Path) -> Writer:
    """Load the trained writer of a run directory; nothing in it is executed.

    Raises:
        TrainingError: If a file is missing, damaged or of another shape.
    """
    try:
        asked = json.loads((folder / RUN).read_text(encoding="utf-8"))["config"]
        writer = make_writer(from_mapping(WriterSpec, asked["writer"], str(folder / RUN)))
        writer.load_state_dict(safetensors.torch.load_file(folder / MODEL))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        ConfigError,
        safetensors.SafetensorError,
    ) as error:
        raise TrainingError(f"cannot load the writer of {folder}: {error}") from error
    return writer.eval()


def read_curve(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a run's curve, none if there is no file."""
    try:
        with (folder / CURVE).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def _share(schedule: str, done: float) -> float:
    """Return the step size relative to its first value, after a share of the run."""
    return 0.5 * (1.0 + math.cos(math.pi * done)) if schedule == "cosine" else 1.0


def _closest(rows: NDArray[np.float64], truth: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the trajectories in the span of ``rows`` that are closest to ``truth``."""
    flat = np.moveaxis(truth, 1, 0).reshape(truth.shape[1], -1).astype(np.float64)
    solution = np.linalg.lstsq(rows, flat, rcond=None)[0]
    return np.moveaxis((rows @ solution).reshape(truth.shape[1], len(truth), -1), 0, 1)


def _begin(config: DigitsRun, folder: Path, command: str) -> None:
    """Make the run directory, or check that it belongs to this run."""
    asked = to_mapping(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / RUN).exists():
            # Records made before there was a choice of device name none.
            then = {**json.loads((folder / RUN).read_text())["config"], "device": config.device}
            if then != asked:
                raise TrainingError(f"{folder} belongs to a run with another configuration")
            return
        sets = {
            n: s.digest() for n, s in zip(("train", "test"), data_set(config.data), strict=True)
        }
        record = {"config": asked, "data": sets, "command": command, **provenance()}
        atomic_write(folder / RUN, (json.dumps(record, indent=1) + "\n").encode())
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"cannot use the run directory {folder}: {error}") from error


def _resume(folder: Path, writer: Writer, optimiser: torch.optim.Optimizer) -> list[dict[str, str]]:
    """Restore the state that :func:`_save` wrote, if any, and return the curve so far."""
    if not (folder / STATE).exists():
        return []
    try:
        state = torch.load(folder / STATE, weights_only=True, map_location="cpu")
        writer.load_state_dict(state["writer"])
        optimiser.load_state_dict(state["adam"])
    except (OSError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{folder / STATE} is damaged: {error}; remove {folder}") from error
    return read_curve(folder)[: state["epochs"]]


def _save(
    folder: Path, writer: Writer, optimiser: torch.optim.Optimizer, curve: list[dict[str, str]]
) -> None:
    """Write the curve and then, in one file, the state that the next epoch needs."""
    lines = [",".join(_COLUMNS), *(",".join(row[c] for c in _COLUMNS) for row in curve)]
    atomic_write(folder / CURVE, ("\n".join(lines) + "\n").encode())
    state = {
        "epochs": len(curve),
        "writer": writer.state_dict(),
        "adam": optimiser.state_dict(),
    }
    data = io.BytesIO()
    torch.save(state, data)
    atomic_write(folder / STATE, data.getvalue())


def _finish(
    folder: Path,
    config: DigitsRun,
    writer: Writer,
    curve: list[dict[str, str]],
    training: DigitSet,
    held_out: DigitSet,
    spent: float,
) -> None:
    """Measure the trained writer on both sets and write the result."""
    on_test = predict(writer, held_out)
    result = {
        "seed": config.seed,
        "epochs": config.epochs,
        "cpu_seconds": spent,
        "outputs": writer.hidden[-1].out_features,
        "parameters": sum(p.numel() for p in writer.parameters()),
        "train": score(predict(writer, training), training).plain(),
        "test": score(on_test, held_out).plain(),
        "test_curve": [float(row["test_px2"]) for row in curve],
    }
    tensors = {name: tensor.cpu().contiguous() for name, tensor in writer.state_dict().items()}
    atomic_write(folder / MODEL, safetensors.torch.save(tensors))
    atomic_write(folder / RESULT, (json.dumps(result, indent=1) + "\n").encode())
    (folder / STATE).unlink(missing_ok=True)
