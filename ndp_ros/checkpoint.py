# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The checkpoint folder: specification, tensors and origin of a policy.

::

    <folder>/config.json         schema, specification, provenance, digest of the numbers
    <folder>/model.safetensors   weights and normaliser, float32
    <folder>/README.md           a card for people (optional)

Loading executes nothing that the folder contains and needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import yaml
from numpy.typing import NDArray
from safetensors import SafetensorError

from ndp_ros.config import from_mapping, param, to_mapping
from ndp_ros.errors import CheckpointError, ConfigError, describe
from ndp_ros.files import read_file
from ndp_ros.observation import JOINT_FIELDS, field_slices
from ndp_ros.paths import find_checkpoint
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import OBSERVATION_CLIP, VARIANCE, Layout, Tensors
from ndp_ros.policies.policy import Policy
from ndp_ros.policies.spec import PolicySpec

SCHEMA = 1
CONFIG = "config.json"
MODEL = "model.safetensors"
CARD = "README.md"

_FLOATS = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
"""Types of numbers that are read, beside BF16."""
_WIDEST = 8
"""Bytes of the widest of these types."""
_LARGEST_CONFIG = 1 << 22
_LARGEST_HEADER = 1 << 20
_LARGEST_MODEL = 1 << 30
"""Sizes up to which a file or a part of it is read [bytes]."""


@dataclass(frozen=True)
class TaskRecord:
    """Task on which a policy was trained, as its checkpoint records it."""

    task: str = param(doc="Short name of the task, or its gymnasium id.")
    method: str = param(doc="Training method.")
    k: int | None = param(None, doc="Control steps per action of the method.")
    preset: str = param("default", doc="Named configuration of the task; empty for none.")
    task_options: tuple[str, ...] = param((), doc="Further options, name=value each.")

    def option(self, name: str) -> Any:
        """Return the value of a further option, None if it was not given."""
        pairs = (option.partition("=") for option in self.task_options)
        return next((yaml.safe_load(value) for key, _, value in pairs if key == name), None)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded and validated checkpoint.

    Attributes:
        spec: Specification, from which the policy is built.
        tensors: Every tensor by name, float32, finite, of the right shape.
        provenance: Commit, seed, samples, evaluation, command: plain data.
        digest: SHA-256 of the numbers, in hexadecimal.
    """

    spec: PolicySpec
    tensors: dict[str, NDArray[np.float32]]
    provenance: dict[str, Any] = field(default_factory=dict)
    digest: str = ""

    @property
    def id(self) -> str:
        """Short name of this checkpoint, distinct from every other one."""
        return f"{self.spec.task}-{self.spec.method}-{self.digest[:12]}"

    def require_arm(self, arm: str, joint_names: Sequence[str]) -> None:
        """Check that this checkpoint was made for an arm.

        Raises:
            CheckpointError: If arm or joints differ; the message names both.
        """
        if self.spec.arm != arm:
            raise CheckpointError(f"checkpoint was made for arm {self.spec.arm!r}, not {arm!r}")
        if tuple(joint_names) != self.spec.joint_names:
            raise CheckpointError(
                f"checkpoint drives joints {list(self.spec.joint_names)}, "
                f"this {arm} has {list(joint_names)}"
            )

    def trained_on(self) -> TaskRecord:
        """Return the task on which the policy was trained.

        Raises:
            CheckpointError: If the record of the training is damaged.
        """
        config = self.provenance.get("config")
        record = config if isinstance(config, dict) else {}
        names = ("method", "k", "preset", "task_options")
        known = {name: record[name] for name in names if record.get(name) is not None}
        values = {"method": self.spec.method, **known, "task": self.spec.task}
        try:
            return from_mapping(TaskRecord, values, "record of the checkpoint's training")
        except ConfigError as error:
            raise CheckpointError(str(error)) from error


def save(
    folder: str | Path,
    spec: PolicySpec,
    tensors: Tensors,
    provenance: Mapping[str, Any] | None = None,
    card: str | None = None,
    extra: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a checkpoint folder atomically: a reader sees the old one or the new one.

    The tensors are those of ``Layout(spec).tensors``, stored as float32; the provenance is plain
    data that JSON can hold, the card a text for people. ``extra`` are further files by name, such
    as the state of the training.

    Raises:
        CheckpointError: If tensors do not fit the specification, or the disk refuses.
    """
    folder = Path(folder)
    require_replaceable(folder)
    _check_tensors(spec, tensors, str(folder))
    data = safetensors.numpy.save(
        {name: np.ascontiguousarray(a, dtype=np.float32) for name, a in tensors.items()}
    )
    config = {
        "schema": SCHEMA,
        "spec": to_mapping(spec),
        "provenance": dict(provenance or {}),
        "model_sha256": hashlib.sha256(data).hexdigest(),
    }
    files = {MODEL: data, CONFIG: (json.dumps(config, indent=1) + "\n").encode(), **(extra or {})}
    if card is not None:
        files[CARD] = card.encode()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write_folder(folder, files)
    except OSError as error:
        raise CheckpointError(f"cannot write checkpoint {folder}: {error.strerror}") from error
    return folder


def load(folder: str | Path) -> Checkpoint:
    """Read and validate a checkpoint folder.

    Raises:
        CheckpointError: If the folder or a file is missing, truncated or altered, of another
            schema version, or holds unknown, misshapen or non-finite tensors.
    """
    folder = Path(folder)
    try:
        found = stat.S_ISDIR(folder.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        found = False
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read checkpoint {describe(error)}") from error
    if not found:
        raise CheckpointError(f"no checkpoint folder {folder}")
    config = _read_config(folder)
    try:
        spec = from_mapping(PolicySpec, config["spec"], source=str(folder / CONFIG))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    numbers = sum(math.prod(shape) for shape in Layout(spec).tensors.values())
    data = _read(folder / MODEL, _LARGEST_HEADER + _WIDEST * numbers)
    digest = hashlib.sha256(data).hexdigest()
    tensors = _parse(data, folder / MODEL)
    _check_tensors(spec, tensors, str(folder))
    if digest != config["model_sha256"]:
        raise CheckpointError(f"{folder / MODEL} is not the file that {CONFIG} was written with")
    _try_out(spec, tensors, str(folder))
    return Checkpoint(spec, tensors, config["provenance"], digest)


def load_policy(name: str | os.PathLike[str]) -> Policy:
    """Load a trained policy; torch is not needed.

    Args:
        name: Checkpoint folder, run directory (its best checkpoint), or the name of a checkpoint
            that ships with the package.

    Raises:
        ConfigError: If there is no such checkpoint; the message lists the shipped ones.
        CheckpointError: If it is damaged.

    Example:
        >>> policy = load_policy("jaco_throw")
        >>> g, w = policy.parameters({f.name: [0.0] * f.size for f in policy.spec.observation})
        >>> g.shape, w.shape
        ((7,), (7, 5))
    """
    loaded = load(find_checkpoint(name if isinstance(name, str) else Path(name)))
    return Policy(loaded.spec, loaded.tensors)


def require_replaceable(folder: Path) -> None:
    """Check that a checkpoint written to a folder replaces nothing but a checkpoint.

    Raises:
        CheckpointError: If the folder holds something else.
    """
    if folder.is_dir() and any(folder.iterdir()) and not is_checkpoint(folder):
        raise CheckpointError(f"{folder} holds something else: name a new folder")


def is_checkpoint(path: str | Path) -> bool:
    """Return whether a folder has a file of a checkpoint."""
    return (Path(path) / CONFIG).is_file() or (Path(path) / MODEL).is_file()


def _read(path: Path, largest: int) -> bytes:
    try:
        return read_file(path, min(largest, _LARGEST_MODEL))
    except OSError as error:
        raise CheckpointError(f"cannot read {describe(error)}") from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(_read(path, _LARGEST_CONFIG).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else error
        raise CheckpointError(f"{path} is no JSON: {problem}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds {type(config).__name__}, expected an object")
    if config.get("schema") != SCHEMA:
        raise CheckpointError(f"{path} has schema {config.get('schema')!r}, this reads {SCHEMA}")
    for name, kind in (("spec", dict), ("provenance", dict), ("model_sha256", str)):
        if not isinstance(config.get(name), kind):
            raise CheckpointError(f"{path} has no {name}")
    return config


def _check_tensors(spec: PolicySpec, tensors: Tensors, where: str) -> None:
    expected = Layout(spec).tensors
    for name in expected:
        if name not in tensors:
            raise CheckpointError(f"{where}: tensor {name} is missing")
    for name, array in tensors.items():
        if name not in expected:
            raise CheckpointError.choice(f"{where}: tensor", name, expected)
        if array.shape != expected[name]:
            raise CheckpointError(
                f"{where}: tensor {name} has shape {array.shape}, expected {expected[name]}"
            )
        if not np.issubdtype(array.dtype, np.floating):
            raise CheckpointError(f"{where}: tensor {name} holds {array.dtype}, expected floats")
        with np.errstate(over="ignore"):
            single = array.astype(np.float32)
        if not np.isfinite(single).all():
            raise CheckpointError(
                f"{where}: tensor {name} holds values that are not finite in single precision"
            )
    if (tensors[VARIANCE] < 0.0).any():
        worst = float(tensors[VARIANCE].min())
        raise CheckpointError(f"{where}: tensor {VARIANCE} holds {worst:g}, expected 0 or more")
    for f, place in field_slices(spec.observation):
        if f.name in JOINT_FIELDS and not tensors[VARIANCE][place].any():
            raise CheckpointError(
                f"{where}: tensor {VARIANCE} is 0 for every {f.name}: joints that never moved"
            )


def _parse(data: bytes, path: Path) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of a file in single precision.

    Raises:
        CheckpointError: If it is damaged or holds another type of numbers.
    """
    try:
        entries = safetensors.deserialize(data)
    except (SafetensorError, ValueError, KeyError) as error:
        problem = " ".join(str(error).split())
        raise CheckpointError(f"{path} is truncated or damaged: {problem}") from error
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, entry in entries:
        kind, content = entry["dtype"], bytes(entry["data"])
        if kind == "BF16":
            # The upper half of a float32.
            array = (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif kind in _FLOATS:
            array = np.frombuffer(content, _FLOATS[kind])
        else:
            raise CheckpointError(
                f"{path}: tensor {name} holds {kind}, expected one of BF16, {', '.join(_FLOATS)}"
            )
        tensors[name] = array.reshape(entry["shape"])
    return tensors


def _try_out(spec: PolicySpec, tensors: Tensors, where: str) -> None:
    """Run the policy once on plausible and on extreme observations.

    Raises:
        CheckpointError: If an output is not finite in single precision.
    """
    policy = ArrayPolicy(spec, tensors)
    spread = np.sqrt(policy.variance) * OBSERVATION_CLIP
    obs = np.stack([policy.mean, policy.mean + spread, policy.mean - spread])
    with np.errstate(all="ignore"):
        results = {
            "deviation": policy.std,
            "means": policy.means(obs),
            "values": policy.values(obs),
        }
        if spec.method == "ndp":
            results["goal"], results["weights"] = policy.parameters_of(obs)
        for name, result in results.items():
            if not np.isfinite(np.asarray(result).astype(np.float32)).all():
                raise CheckpointError(f"{where}: the policy's {name} are not finite numbers")


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write all files beside the folder, then put them in its place by renaming."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh = scratch / "new"
        fresh.mkdir()
        for name, data in files.items():
            with (fresh / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        replaced = folder.is_dir() and not folder.is_symlink()
        if replaced:
            folder.rename(scratch / "old")
        try:
            fresh.rename(folder)
        except OSError:
            if replaced:
                (scratch / "old").rename(folder)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
