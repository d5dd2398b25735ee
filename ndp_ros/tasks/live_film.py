# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Film a task that draws itself, while it runs: pictures need no recording."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ndp_ros.errors import TaskError
from ndp_ros.pictures.paper import Paper
from ndp_ros.pictures.style import ERROR, GOAL
from ndp_ros.pictures.video import MOMENTS, RATE, ROWS, ContactSheet, Picture, write_video
from ndp_ros.tasks.film import REST


class LiveFilm:
    """A film of a task that draws itself, taken while it runs.

    A task with ``on_tick`` is seen at every instant, any other after each window. The picture is
    kept as long as the next one takes.
    """

    def __init__(self, env: Any, control_dt: float, k: int) -> None:
        """Begin a film of a task with a control step [s], of which a window has k."""
        self._env, self._each = env, env if hasattr(env, "on_tick") else None
        self._step = control_dt if self._each is not None else control_dt * k
        self._steps = 0
        self._pictures: list[list[Picture]] = []
        self._times: list[list[float]] = []
        self._captions: list[tuple[int, bool | None]] = []

    def begin(self, seed: int) -> None:
        """Film the start state of an episode."""
        self._pictures.append([])
        self._times.append([])
        self._captions.append((seed, None))
        self._steps = 0
        self._take()
        if self._each is not None:
            self._each.on_tick = self._tick

    def window(self) -> None:
        """Film the state after a window of a task that has no instants."""
        if self._each is None:
            self._tick()

    def end(self, outcome: dict[str, Any]) -> None:
        """Write the result on the last picture."""
        if self._each is not None:
            self._each.on_tick = None
        self._captions[-1] = self._captions[-1][0], bool(outcome["success"])

    def save(self, path: Path, sheet: Path | None = None) -> None:
        """Write the film, and a contact sheet.

        Raises:
            TaskError: If a file cannot be written.
        """
        contacts = ContactSheet()
        write_video(path, self._draw(contacts), RATE)
        if sheet is not None:
            contacts.save(sheet)

    def _tick(self) -> None:
        self._steps += 1
        if self._steps * self._step >= self._times[-1][-1] + 1.0 / RATE - 1e-9:
            self._take()

    def _take(self) -> None:
        picture = self._env.render()
        if picture is None:
            raise TaskError("this task draws no pictures: leave out --video")
        self._pictures[-1].append(picture)
        self._times[-1].append(self._steps * self._step)

    def _draw(self, contacts: ContactSheet) -> Iterator[Picture]:
        """Yield the pictures of all episodes with their captions, at the film's rate."""
        total = len(self._pictures)
        for n, (pictures, times) in enumerate(zip(self._pictures, self._times, strict=True)):
            seed, success = self._captions[n]
            kept = np.linspace(0, len(pictures) - 1, MOMENTS).round().astype(int).tolist()
            ends = [*times[1:], times[-1] + REST]
            shown = 0
            for place, (picture, at, end) in enumerate(zip(pictures, times, ends, strict=True)):
                paper = Paper(picture)
                paper.caption(f"{n + 1} of {total}, start state {seed}   {at:.2f} s", left=True)
                if place == len(pictures) - 1 and success is not None:
                    colour = GOAL if success else ERROR
                    paper.caption("success" if success else "FAILURE", False, colour)
                done = paper.picture()
                for _ in range(kept.count(place) if n < ROWS else 0):
                    contacts.add(n, done)
                until = max(shown + 1, round(end * RATE))
                yield from [done] * (until - shown)
                shown = until
