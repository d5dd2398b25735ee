# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Values of a run by layer: shipped experiment files, a file of one's own, the command line.

An experiment file, ``config/experiments/TASK.yaml``, has values of all its methods at the top,
values by learner under ``learners``, values by method under ``methods`` and values by exploration
under ``noises``, for methods that have a choice; the later win. It ships values for the methods
that it lists and may name a ``base`` (:func:`ndp_ros.files.layers`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndp_ros.config import from_mapping
from ndp_ros.errors import ConfigError
from ndp_ros.files import layers, merged, read_yaml
from ndp_ros.paths import share, share_roots
from ndp_ros.policies.spec import NOISES
from ndp_ros.training.config import NESTED, RunConfig
from ndp_ros.training.methods import LEARNERS, METHODS

_LEARNERS, _METHODS, _NOISES, _OPTIONS = "learners", "methods", "noises", "task_options"
_SECTIONS: dict[str, Collection[str]] = {_LEARNERS: LEARNERS, _METHODS: METHODS, _NOISES: NOISES}
"""Sections of an experiment file, with the names that each of them may have."""


@dataclass(frozen=True)
class Layer:
    """Values of a run's configuration and their source, for people to read."""

    source: str
    values: Mapping[str, Any]


def is_experiment(values: Mapping[str, Any]) -> bool:
    """Return whether the content of a file has sections by learner, method or noise."""
    return bool(_SECTIONS.keys() & values.keys())


def listed_methods(path: Path) -> tuple[str, ...]:
    """Return the methods for which an experiment file has values.

    Raises:
        ConfigError: If it cannot be read, or names an unknown method, learner or noise.
    """
    found: dict[str, None] = {}
    for file, values in layers(path):
        for section, known in _SECTIONS.items():
            for name in _mapping(values.get(section), f"{file}: {section}"):
                if name not in known:
                    raise ConfigError.choice(f"{file}: {section}", name, list(known))
        found |= dict.fromkeys(values.get(_METHODS) or {})
    return tuple(found)


def experiment_layers(path: Path, method: str, noise: str = "") -> list[Layer]:
    """Return the values of an experiment file for a method, the most general first.

    ``noise`` is the exploration if it is not the file's own choice; the layers do not set it.

    Raises:
        ConfigError: As in :func:`listed_methods`.
    """
    if method not in listed_methods(path):
        return []
    files = list(layers(path))
    chosen = {_LEARNERS: METHODS[method].learner, _METHODS: method, _NOISES: noise}
    if not noise:
        for _, values in files:
            chosen[_NOISES] = noise_in(values, method) or chosen[_NOISES]
    found = []
    for file, values in files:
        sections = {name: values.pop(name, None) or {} for name in _SECTIONS}
        found.append(Layer(file.name, values))
        for section, name in chosen.items():
            source = f"{file.name}, {section}.{name}"
            if section != _NOISES or METHODS[method].draws_segments:
                found.append(Layer(source, _mapping(sections[section].get(name), source)))
    return [layer for layer in found if layer.values]


def noise_in(values: Mapping[str, Any], method: str) -> str:
    """Return the exploration that a file's content chooses for a method, empty if it does not."""
    sections = values.get(_METHODS)
    own = sections.get(method) if isinstance(sections, dict) else None
    found = own.get("noise") if isinstance(own, dict) else None
    return str(found or values.get("noise", ""))


def shipped_layers(task: str, method: str, noise: str = "") -> list[Layer]:
    """Return the values that ship for a task, or else for any task, with a method."""
    path = _shipped_file(task) or share("config/experiments/any.yaml")
    return experiment_layers(path, method, noise)


def shipped(task: str, method: str, also: str = "", noise: str = "") -> RunConfig:
    """Return the configuration that ships for a task and a method.

    The values of another shipped file, ``also``, come on top. ``noise`` is the exploration of a
    method that has a choice; the experiment's unless given.
    """
    over = read_yaml(share(f"config/experiments/{also}.yaml")) if also else {}
    noise = noise or noise_in(over, method)
    found = [*shipped_layers(task, method, noise), Layer(also, over)]
    if noise and METHODS[method].draws_segments:
        found.append(Layer("noise", {"noise": noise}))
    values = {**combined(found), "task": task, "method": method}
    return from_mapping(RunConfig, values, source=f"{task} {method}")


def combined(found: Sequence[Layer]) -> dict[str, Any]:
    """Return the values of layers, later ones over earlier ones, task options name by name."""
    values: dict[str, Any] = {}
    for layer in found:
        over = dict(layer.values)
        if _OPTIONS in over:
            from ndp_ros.tasks.choice import over_options

            over[_OPTIONS] = over_options(values.get(_OPTIONS, ()), over[_OPTIONS])
        values = merged(values, over)
    return values


def flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every value with its name, such as ``ppo.clip`` or ``task_options.latency``."""
    for name, value in values.items():
        if name == _OPTIONS:
            for option in value:
                key, _, text = option.partition("=")
                yield f"{name}.{key}", text
        elif name in NESTED:
            for inner, part in (value or {}).items():
                yield f"{name}.{inner}", part
        else:
            yield name, value


def sources(found: Sequence[Layer]) -> dict[str, str]:
    """Return the source of every value that a layer sets, by the names of :func:`flat`."""
    return {name: layer.source for layer in found for name, _ in flat(layer.values)}


def _mapping(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values or {}, dict):
        raise ConfigError(f"{where} is {values!r}, expected a mapping")
    return dict(values or {})


def _shipped_file(name: str) -> Path | None:
    paths = (root / "config" / "experiments" / f"{name}.yaml" for root in share_roots())
    return next((path for path in paths if path.is_file()), None)
