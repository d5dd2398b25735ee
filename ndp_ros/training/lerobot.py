# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Read a LeRobot data set as demonstrations of a task on an arm.

``observation.state`` are the measured joints and ``action`` the joints that were commanded, both in
rad; observations of the task that follow from them, velocities and the setpoint, are computed.
Versions 2 and 3 of the format are read from their parquet files; videos are not. It needs the extra
``lerobot``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ndp_ros.errors import TrainingError
from ndp_ros.observation import Array, ObservationField, assemble
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.config import RunConfig, make_spec
from ndp_ros.training.demonstrations import Demonstrations

LEROBOT = "lerobot:"
"""Prefix of the name of a data set among experts."""
_STATE, _ACTION = "observation.state", "action"
_REWARD, _SUCCESS = "next.reward", "next.success"


def read_lerobot(
    folder: Path, task: str, options: Sequence[str] = (), columns: Mapping[str, str] | None = None
) -> Demonstrations:
    """Return the episodes of a data set as demonstrations with k = 1, at the task's control step.

    ``columns`` has the column of each field of the observation, where it is not
    ``observation.FIELD``.

    Raises:
        TrainingError: If it is no data set, or a field has no column.
        TaskError: If there is no such task.
    """
    config = RunConfig(task=task, method="ppo", k=1, task_options=tuple(options))
    with closing(config.choice.make()) as env:
        spec = make_spec(config, env)
    data = _DataSet(folder)
    names = {_STATE: _STATE, _ACTION: _ACTION}
    names |= {f.name: data.column_of(f, columns or {}) for f in spec.observation if _read(f)}
    parts, starts, returns, success = [], [0], [], []
    for episode in data.episodes():
        values = {
            name: data.values(column, episode, spec.control_dt)
            for name, column in names.items()
            if column
        }
        for name in (_STATE, _ACTION):
            values[name] = values[name][:, data.joints(name, spec)]
        parts.append(_episode(spec, values))
        starts.append(starts[-1] + len(parts[-1][0]))
        returns.append(data.sum(_REWARD, episode))
        success.append(data.last(_SUCCESS, episode))
    return Demonstrations(
        spec=spec,
        source={"lerobot": folder.name, "fps": data.fps},
        observations=np.concatenate([obs for obs, _ in parts]),
        actions=np.concatenate([actions for _, actions in parts])[:, None],
        starts=np.array(starts, np.int64),
        returns=np.array(returns),
        success=np.array(success, np.uint8),
        seeds=np.arange(len(parts), dtype=np.int64),
    )


def _read(field: ObservationField) -> bool:
    """Return whether a field is read and does not follow from joints and commands."""
    return field.name not in ("position", "setpoint", "setpoint_velocity")


def _episode(spec: PolicySpec, values: dict[str, Array]) -> tuple[Array, Array]:
    """Return observations (n, n_obs) and actions (n, dof) of one episode."""
    state, target = values[_STATE], values[_ACTION]
    # The command of a frame is executed after it.
    setpoint = np.concatenate((state[:1], target[:-1]))
    known = dict(values)
    known["position"], known["setpoint"] = state, setpoint
    known["setpoint_velocity"] = np.diff(setpoint, axis=0, prepend=setpoint[:1]) / spec.control_dt
    known.setdefault("velocity", np.gradient(state, spec.control_dt, axis=0))
    rows = [
        assemble(spec.observation, {f.name: known[f.name][n] for f in spec.observation})
        for n in range(len(state))
    ]
    return np.array(rows), (target - setpoint) / np.array(spec.action_scale)


class _DataSet:
    """The table of a data set and its description."""

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            info = json.loads((folder / "meta" / "info.json").read_text(encoding="utf-8"))
            self.fps, self._features = float(info["fps"]), dict(info["features"])
            files = sorted((folder / "data").glob("**/*.parquet"))
            self._table = pa.concat_tables([pq.read_table(f) for f in files]).sort_by(
                [("episode_index", "ascending"), ("frame_index", "ascending")]
            )
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            problem = " ".join(str(error).split())
            raise TrainingError(f"{folder} is no LeRobot data set: {problem}") from error
        self._folder = folder
        self._of = np.asarray(self._table["episode_index"])
        for name in (_STATE, _ACTION):
            if name not in self._table.column_names:
                raise TrainingError.choice(f"{folder}: column", name, self._table.column_names)

    def episodes(self) -> list[slice]:
        """Return the rows of each episode, of which each has two or more."""
        edges = np.flatnonzero(np.diff(self._of)) + 1
        ends = [0, *edges.tolist(), len(self._of)]
        found = [slice(a, b) for a, b in itertools.pairwise(ends) if b - a > 1]
        if not found:
            raise TrainingError(f"{self._folder} has no episode of two frames or more")
        return found

    def column_of(self, field: ObservationField, columns: Mapping[str, str]) -> str:
        """Return the column of a field; empty for a velocity that is not recorded."""
        name = columns.get(field.name, f"observation.{field.name}")
        if name in self._table.column_names:
            return name
        if field.name == "velocity":
            return ""
        error = TrainingError.choice(f"column of {field.name}", name, self._table.column_names)
        raise TrainingError(f"{error}; name it by --columns {field.name}=COLUMN")

    def joints(self, column: str, spec: PolicySpec) -> list[int]:
        """Return the places of the task's joints in a column, by name or else in order."""
        names = self._features.get(column, {}).get("names")
        names = next(iter(names.values())) if isinstance(names, dict) else names
        plain = [str(name).removesuffix(".pos") for name in names or ()]
        if set(spec.joint_names) <= set(plain):
            return [plain.index(name) for name in spec.joint_names]
        size = self._matrix(column, slice(0, 1)).shape[1]
        if size != spec.dof:
            raise TrainingError(
                f"{column} has {size} values {plain or ''}, {spec.arm} has the joints "
                f"{list(spec.joint_names)}"
            )
        return list(range(size))

    def values(self, column: str, episode: slice, period: float) -> Array:
        """Return a column (n, size) of an episode, interpolated to one row a period [s]."""
        rows = self._matrix(column, episode)
        times = np.arange(len(rows)) / self.fps
        grid = np.arange(0.0, times[-1] + 1e-9, period)
        return np.stack([np.interp(grid, times, values) for values in rows.T], axis=1)

    def sum(self, column: str, episode: slice) -> float:
        """Return the sum of a column over an episode, 0 without the column."""
        known = column in self._table.column_names
        return float(self._matrix(column, episode).sum()) if known else 0.0

    def last(self, column: str, episode: slice) -> bool:
        """Return the last value of an episode, true without the column."""
        known = column in self._table.column_names
        return bool(self._matrix(column, episode)[-1, 0]) if known else True

    def _matrix(self, column: str, rows: slice) -> Array:
        """Return rows of a column as numbers (n, size)."""
        part: Any = self._table[column].slice(rows.start, rows.stop - rows.start)
        return np.array(part.to_pylist(), np.float64).reshape(rows.stop - rows.start, -1)
