# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Read planned and measured joints from a bag of ``record:=mcap``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from ndp_ros.errors import TaskError
from ndp_ros.tasks.recording import Recording

_JOINT_STATES, _SETPOINT = "/joint_states", "/ndp/setpoint"


def is_bag(path: Path) -> bool:
    """Return whether a path is an MCAP file, or the folder of a bag."""
    return path.suffix == ".mcap" or (path / "metadata.yaml").is_file()


def read_bag(path: Path) -> dict[str, Recording]:
    """Return a recording of each arm in a bag, by namespace; times count from its first setpoint.

    Raises:
        TaskError: If the bag cannot be read, or holds no arm.
    """
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
    except ImportError as error:
        raise TaskError("a bag is read by rosbags: pip install 'ndp_ros[bag]'") from error
    measured: dict[str, dict[int, Any]] = {}
    planned: dict[str, dict[int, Any]] = {}
    try:
        with contextlib.closing(AnyReader([path])) as bag:
            bag.open()
            wanted = [c for c in bag.connections if c.topic.endswith((_JOINT_STATES, _SETPOINT))]
            for connection, _, data in bag.messages(wanted):
                message: Any = bag.deserialize(data, connection.msgtype)
                stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
                setpoint = connection.topic.endswith(_SETPOINT)
                space = connection.topic.removesuffix(_SETPOINT if setpoint else _JOINT_STATES)
                (planned if setpoint else measured).setdefault(space, {})[stamp] = message
    except (AnyReaderError, OSError) as error:
        raise TaskError(f"{path} is no bag that can be read: {error}") from error
    recordings = {space: _recording(measured.get(space, {}), planned[space]) for space in planned}
    recordings = {space: found for space, found in recordings.items() if found.times}
    if not recordings:
        raise TaskError(f"{path} holds no joint_states with an ndp/setpoint of the same stamp")
    return recordings


def _recording(measured: dict[int, Any], planned: dict[int, Any]) -> Recording:
    """Join the messages of one stamp; the arm's clock is the time."""
    found = Recording(0)
    for stamp in sorted(measured.keys() & planned.keys()):
        state, point = measured[stamp], planned[stamp].points[0]
        found.joint_names = tuple(state.name)
        clock = point.time_from_start.sec + point.time_from_start.nanosec * 1e-9
        found.add(clock, np.array(state.position), np.array(point.positions), {})
    start = found.times[0] if found.times else 0.0
    found.times = [time - start for time in found.times]
    return found
