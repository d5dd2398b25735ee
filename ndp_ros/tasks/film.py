# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Film episodes: thirty pictures a second of every simulated instant, the release in slow motion.

A film is drawn after the episode, from its :class:`~ndp_ros.tasks.recording.Recording`, so that
drawing disturbs nothing that runs.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ndp_ros.control.arm_model import GRIP
from ndp_ros.errors import TaskError
from ndp_ros.pictures.paper import Paper, rgb
from ndp_ros.pictures.style import ERROR, GOAL, OBJECT, PLANNED
from ndp_ros.pictures.video import MOMENTS, RATE, ROWS, ContactSheet, Picture, write_video
from ndp_ros.tasks.contract import Array
from ndp_ros.tasks.recording import Recording
from ndp_ros.tasks.replay import Replay

SIZE = (1280, 720)
"""Width and height of a picture [px]."""
SLOWDOWN = 6.0
"""How many times slower the release is shown."""

_SLOW = (0.08, 0.15)
"""Time before and after a release that is shown in slow motion [s]."""
REST = 0.8
"""Time for which the last picture of an episode stays [s]."""


@dataclass(frozen=True)
class _Shot:
    """One picture of a film: an instant of a recording [s], and how fast time passes."""

    at: float
    slow: bool


def film(
    replay: Replay,
    recordings: Sequence[Recording],
    path: Path,
    progress: Callable[[float], None] | None = None,
    sheet: Path | None = None,
    size: tuple[int, int] = SIZE,
) -> None:
    """Write episodes as one film, one after the other.

    Args:
        replay: On a task that was made with ``render_mode="rgb_array"``.
        recordings: The episodes.
        path: The film; its ending, one of ``VIDEOS``, determines the format.
        progress: Called after each picture with the share that is done.
        sheet: A contact sheet (.png) of the same episodes.
        size: Width and height of a picture [px].

    Raises:
        TaskError: If this machine cannot draw, or a file cannot be written.
    """
    # Without a GPU, shadows and reflections take five sixths of the time.
    replay.task.resize(size)
    model = replay.task.robot.model
    model.light_castshadow[:] = 0
    model.mat_reflectance[:] = 0.0
    contacts = ContactSheet()
    shots = [shots_of(recording) for recording in recordings]
    total, done = sum(map(len, shots)), 0

    def draw() -> Iterator[Picture]:
        nonlocal done
        for number, (recording, each) in enumerate(zip(recordings, shots, strict=True)):
            scene = _Scene(replay, recording, f"{number + 1} of {len(recordings)}")
            moments = _moments(recording) if number < ROWS else []
            for shot, picture in scene.pictures(each):
                while moments and shot.at >= moments[0]:
                    contacts.add(number, picture)
                    moments.pop(0)
                yield picture
                done += 1
                if progress is not None:
                    progress(done / total)

    write_video(path, draw(), RATE)
    if sheet is not None:
        contacts.save(sheet)


def shots_of(recording: Recording) -> list[_Shot]:
    """Return the pictures of an episode in real time, and slower around the release."""
    if not recording.times:
        return []
    times, flight = recording.times, recording.flight()
    released = times[flight[1]] if flight else math.inf
    shots, now = [], times[0]
    while now <= times[-1]:
        slow = -_SLOW[0] <= now - released <= _SLOW[1]
        shots.append(_Shot(now, slow))
        now += 1.0 / (RATE * (SLOWDOWN if slow else 1.0))
    last = _Shot(times[-1], slow=False)
    return [*shots, *[last] * round(REST * RATE)]


def _moments(recording: Recording) -> list[float]:
    """Return the instants [s] of a contact sheet: start, swing, release, flight, landing, end."""
    times = np.array(recording.times)
    flight = recording.flight()
    if flight is None:
        return [float(t) for t in np.linspace(times[0], times[-1], MOMENTS)]
    _, release, landing = flight
    a, b, c = times[0], times[release], times[landing]
    return [float(t) for t in (a, (a + b) / 2, b, (b + c) / 2, c, times[-1])]


class _Scene:
    """The pictures of one episode: the scene, the path of the hand, and what is written on it."""

    def __init__(self, replay: Replay, recording: Recording, number: str) -> None:
        self._replay, self._recording, self._number = replay, recording, number
        self._flight = recording.flight()
        replay.begin(recording.seed)
        camera = replay.task.camera
        self._lens = _Lens(
            replay.task.robot.data.camera(camera), replay.task.robot.model.camera(camera).fovy[0]
        )

    def pictures(self, shots: Sequence[_Shot]) -> Iterator[tuple[_Shot, Picture]]:
        """Yield each shot with its picture (height, width, 3).

        The next one is drawn, by the process of the camera, while one is written on and encoded.
        """
        groups = [(shot, len(list(same))) for shot, same in itertools.groupby(shots)]
        with ThreadPoolExecutor(1) as drawing:
            coming = deque(drawing.submit(self._draw, shot) for shot, _ in groups[:1])
            for n, (shot, times) in enumerate(groups):
                drawn = coming.popleft().result()
                coming.extend(
                    drawing.submit(self._draw, later) for later, _ in groups[n + 1 : n + 2]
                )
                picture = self._annotate(drawn, shot)
                yield from [(shot, picture)] * times

    def _draw(self, shot: _Shot) -> Picture:
        self._replay.show(*self._recording.state_at(shot.at))
        picture = self._replay.task.render()
        if picture is None:
            raise TaskError("no film: the task was made without render_mode='rgb_array'")
        return np.asarray(picture)

    def _annotate(self, picture: Picture, shot: _Shot) -> Picture:
        """Write number, time and result, and draw the path of the hand, release and landing."""
        paper = Paper(picture)
        recording = self._recording
        sample = int(np.searchsorted(recording.times, shot.at + 1e-9)) - 1
        line = self._project(recording.hand_setpoint, paper.size)
        measured = self._project(recording.hand, paper.size)
        paper.line(line, (*rgb(PLANNED), 110), 4)
        paper.line(measured[: sample + 1], (*rgb(PLANNED), 255), 3)
        if len(line):
            below = line[np.argmax(line[:, 1])] + (0.0, paper.size[1] / 15)
            paper.label(below, "planned path of the hand", PLANNED)
        if self._flight is not None:
            name, release, landing = self._flight
            if sample >= release:
                at = self._project(recording.path_of(name)[: landing + 1], paper.size)
                paper.line(at[release : sample + 1], (*rgb(OBJECT), 200), 2)
                paper.mark(at[release], ERROR)
                paper.label(at[release], "release", ERROR)
        base = self._project([np.zeros(3)], paper.size)
        paper.label(base[0], f"arm ({self._replay.task.arm})", "#ffffff")
        for name in recording.objects:
            if name == GRIP:  # the hand, whose path is labelled
                continue
            if self._flight is None or name != self._flight[0]:
                at = self._project([recording.poses[sample][name][:3]], paper.size)
                paper.label(at[0], name, "#ffffff")
        paper.caption(f"{self._title()}   {shot.at:.2f} s", left=True)
        if shot.slow:
            paper.caption(f"{SLOWDOWN:.0f} times slower", left=False)
        elif sample == len(recording.times) - 1 and recording.success is not None:
            good = recording.success
            paper.caption("success" if good else "FAILURE", False, GOAL if good else ERROR)
        return paper.picture()

    def _title(self) -> str:
        return f"{self._replay.task.task} {self._number}, start state {self._recording.seed}"

    def _project(self, places: Sequence[Array] | Array, size: tuple[int, int]) -> Array:
        """Return where places (n, 3) in the base frame are in a picture (n, 2) [px]."""
        if not len(places):
            return np.zeros((0, 2))
        return self._lens.project(self._replay.in_world(np.array(places)), size)


class _Lens:
    """The projection of a camera of MuJoCo."""

    def __init__(self, camera: Any, fovy: float) -> None:
        self._at, self._axes = camera.xpos.copy(), camera.xmat.reshape(3, 3).copy()
        self._focus = 0.5 / math.tan(math.radians(float(fovy)) / 2.0)

    def project(self, places: Array, size: tuple[int, int]) -> Array:
        """Return where places (n, 3) of the world are in a picture (n, 2) [px]."""
        seen = (places - self._at) @ self._axes
        width, height = size
        scale = self._focus * height / np.maximum(-seen[:, 2], 1e-6)
        return np.stack((width / 2 + scale * seen[:, 0], height / 2 - scale * seen[:, 1]), 1)
