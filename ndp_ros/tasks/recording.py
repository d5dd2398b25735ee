# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The samples of one episode, planned and measured, as they are written down and read again.

A recording is an ``.npz`` file of plain arrays, which numpy reads without this package::

    times (n,) [s], position (n, dof) [rad], setpoint (n, dof) [rad], segments (s,) [s]
    hand (n, 3), hand_setpoint (n, 3)       path of the hand, measured and planned [m]
    pose_<object> (n, 7)                    position [m] and quaternion (w, x, y, z)
    about                                   JSON: seed, joint names, checkpoint, task, outcome
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ndp_ros.errors import TaskError, describe
from ndp_ros.files import read_file, write_output
from ndp_ros.tasks.contract import Array, plain

_POSE = "pose_"
_FREE = 0.05
"""An object further from the hand than this is not held by it [m]."""
_FALL = 0.5
"""Vertical speed of a falling object, which an impact halves within 20 ms [m/s]."""


@dataclass
class Recording:
    """Samples of one episode; times on the arm's clock [s] from the first segment."""

    seed: int
    joint_names: tuple[str, ...] = ()
    times: list[float] = field(default_factory=list)
    position: list[Array] = field(default_factory=list)
    """Measured joints (dof,) [rad], one per time."""
    setpoint: list[Array] = field(default_factory=list)
    """Planned joints (dof,) [rad], one per time."""
    poses: list[dict[str, Array]] = field(default_factory=list)
    """Pose (7,) of each object in the arm's base frame, one per time."""
    segments: list[float] = field(default_factory=list)
    """Times at which the policy gave a new segment."""
    hand: list[Array] = field(default_factory=list)
    """Measured position (3,) of the hand's grip in the base frame [m]; may be absent."""
    hand_setpoint: list[Array] = field(default_factory=list)
    """The same of the planned joints."""
    about: dict[str, Any] = field(default_factory=dict)
    """Checkpoint, task and outcome of the episode, as JSON can hold them."""

    def add(
        self, time: float, position: Array, setpoint: Array, poses: Mapping[str, Array]
    ) -> None:
        """Append one sample."""
        self.times.append(time)
        self.position.append(position)
        self.setpoint.append(setpoint)
        self.poses.append(dict(poses))

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the objects."""
        return tuple(self.poses[0]) if self.poses else ()

    @property
    def success(self) -> bool | None:
        """Whether the episode succeeded, None if that is unknown."""
        success = self.about.get("outcome", {}).get("success")
        return None if success is None else bool(success)

    def path_of(self, name: str) -> Array:
        """Return the positions (n, 3) of an object in the base frame [m]."""
        return np.array([poses[name][:3] for poses in self.poses])

    def state_at(self, time: float) -> tuple[Array, dict[str, Array]]:
        """Return joints (dof,) [rad] and poses (7,) of the objects at an instant.

        Between two samples they are interpolated, for slow motion.
        """
        after = int(np.searchsorted(self.times, time).clip(1, max(1, len(self.times) - 1)))
        before = after - 1
        after = min(after, len(self.times) - 1)
        span = self.times[after] - self.times[before]
        share = min(1.0, max(0.0, (time - self.times[before]) / span)) if span > 0.0 else 0.0

        def between(a: Array, b: Array) -> Array:
            return (1.0 - share) * a + share * b

        poses: dict[str, Array] = {}
        for name, a in self.poses[before].items():
            b = self.poses[after][name].copy()
            b[3:] *= 1.0 if a[3:] @ b[3:] >= 0.0 else -1.0  # two signs are one rotation
            poses[name] = between(a, b)
            poses[name][3:] /= np.linalg.norm(poses[name][3:]) or 1.0
        return between(self.position[before], self.position[after]), poses

    def flight(self) -> tuple[str, int, int] | None:
        """Return an object that the hand lets go: name, sample of release, sample of landing.

        The landing is the first impact after the release, or the last sample. None if the hand
        path is unknown, or no object leaves the hand for good.
        """
        hand = np.array(self.hand)
        for name in self.objects if len(hand) else ():
            at = self.path_of(name)
            gap = np.linalg.norm(at - hand, axis=1)
            if gap[0] > _FREE or gap[-1] <= _FREE:
                continue
            release = len(gap) - int(np.argmax(gap[::-1] <= _FREE))
            return name, release, _impact(np.array(self.times), at[:, 2], release)
        return None

    def save(self, path: Path) -> None:
        """Write the recording as an ``.npz`` file.

        Raises:
            TaskError: If it cannot be written.
        """
        arrays: dict[str, Any] = {
            name: np.array(getattr(self, name))
            for name in ("times", "position", "setpoint", "segments", "hand", "hand_setpoint")
        }
        arrays |= {_POSE + name: [poses[name] for poses in self.poses] for name in self.objects}
        about = {"seed": self.seed, "joint_names": list(self.joint_names), **plain(self.about)}
        data = io.BytesIO()
        np.savez_compressed(data, about=np.array(json.dumps(about)), **arrays)
        try:
            write_output(path, data.getvalue())
        except OSError as error:
            raise TaskError(f"cannot write {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read a recording; nothing in the file is executed.

        Raises:
            TaskError: If it cannot be read, or is no recording.
        """
        try:
            with np.load(io.BytesIO(read_file(path)), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(str(arrays.pop("about")))
            poses = {n.removeprefix(_POSE): v for n, v in arrays.items() if n.startswith(_POSE)}
            return cls(
                seed=int(about.pop("seed")),
                joint_names=tuple(about.pop("joint_names")),
                times=arrays["times"].tolist(),
                segments=arrays["segments"].tolist(),
                poses=[{n: v[i] for n, v in poses.items()} for i in range(len(arrays["times"]))],
                **{n: list(arrays[n]) for n in ("position", "setpoint", "hand", "hand_setpoint")},
                about=about,
            )
        except OSError as error:
            raise TaskError(f"cannot read {describe(error)}") from error
        except (ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise TaskError(f"{path} is no recording of an episode: {error}") from error


def _impact(times: Array, height: Array, release: int) -> int:
    """Return the sample after a release at which a falling object is stopped, or the last."""
    t, z = times[release:], height[release:]
    if len(t) < 3:
        return len(times) - 1
    ends = np.minimum(np.searchsorted(t, t + 0.02), len(t) - 1)
    ahead = (z[ends] - z) / np.maximum(t[ends] - t, 1e-6)
    stops = np.flatnonzero((ahead[:-1] < -_FALL) & (ahead[ends[:-1]] > 0.5 * ahead[:-1]))
    if not len(stops):
        return len(times) - 1
    near = slice(stops[0], ends[ends[stops[0]]] + 1)
    return release + int(stops[0]) + int(np.argmin(z[near]))
