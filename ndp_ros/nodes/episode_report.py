# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Print, write and draw the episodes that the episode node has run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ndp_ros.checkpoint import Checkpoint
from ndp_ros.errors import NdpError, TaskError
from ndp_ros.files import write_output
from ndp_ros.nodes.integrator_client import IntegratorClient
from ndp_ros.nodes.task import task_of
from ndp_ros.tasks.episode_pictures import draw_hand, draw_joints
from ndp_ros.tasks.film import film
from ndp_ros.tasks.recording import Recording
from ndp_ros.tasks.replay import Replay

RESULT, RECORDINGS = "episodes.json", "recordings"
VIDEO, SHEET = "episodes.mp4", "episodes.png"
JOINTS, HAND = "joints.png", "hand.png"

_PROGRESS_PERIOD = 3.0
"""Time between two lines of progress [s]."""
_OF_THE_LOOP = ("seed", "success", "duration", "worst_late_us", "missed_ticks", "problem")
"""Figures of an episode that are not the task's own."""


class EpisodeReport:
    """Figures and recordings of the episodes up to now.

    Attributes:
        episodes: Figures of each episode.
        recordings: Samples of each episode.
    """

    def __init__(
        self, saved: Checkpoint, out: str, units: Mapping[str, str], options: Sequence[str] = ()
    ) -> None:
        """Begin a report; ``units`` are those of the task's figures that have one."""
        self._options = options
        self._saved, self._out, self._units = saved, Path(out), units
        self.episodes: list[dict[str, Any]] = []
        self.recordings: list[Recording] = []

    def add(self, episode: dict[str, Any], total: int) -> None:
        """Add the figures of an episode, one of ``total``, and print them in one line."""
        self.episodes.append(episode)
        own = [self._figure(name) for name in episode if name not in _OF_THE_LOOP]
        verdict = "success" if episode["success"] else "FAILURE"
        problem = f"  ({episode['problem']})" if episode["problem"] else ""
        print(
            f"{self._saved.spec.task} {len(self.episodes):2}/{total}  {verdict}  {', '.join(own)}  "
            f"worst late tick {episode['worst_late_us'] / 1e3:.2f} ms, "
            f"{episode['missed_ticks']} missed{problem}",
            flush=True,
        )

    def _figure(self, name: str) -> str:
        """Return a figure of the newest episode with its name and unit."""
        value = self.episodes[-1][name]
        unit = "" if value is None else f" {self._units.get(name, '')}"
        return f"{name.replace('_', ' ')} {_text(value)}{unit}".rstrip()

    def result(self, integrator: IntegratorClient) -> dict[str, Any]:
        """Return all figures, as ``ndp sim --json`` prints them."""
        figure = integrator.figure
        return {
            "episodes": len(self.episodes),
            "successes": sum(bool(episode["success"]) for episode in self.episodes),
            "checkpoint": self._saved.id,
            "rate_hz": figure("rate_hz"),
            "ticks": int(figure("ticks")),
            "missed_ticks": int(figure("missed_ticks")),
            "lateness_us": {name: figure(f"lateness_us_{name}") for name in ("p50", "p99", "max")},
            "segments": {
                name: int(figure(name)) for name in ("accepted", "dropped", "refused", "stretched")
            },
            "guard": integrator.guard_counts(),
            "scheduler": integrator.text("scheduler"),
            "each": self.episodes,
        }

    def write(self, integrator: IntegratorClient) -> None:
        """Print a summary and write all figures.

        Raises:
            TaskError: If the file cannot be written.
        """
        result = self.result(integrator)
        late = ", ".join(f"{value:.1f} us ({n})" for n, value in result["lateness_us"].items())
        print(
            f"{result['successes']} of {result['episodes']} succeeded, {result['checkpoint']} at "
            f"{result['rate_hz']:g} Hz: {result['ticks']} ticks, {result['missed_ticks']} missed, "
            f"late by {late}",
            flush=True,
        )
        path = self._out / RESULT
        try:
            write_output(path, json.dumps(result, indent=1) + "\n")
        except OSError as error:
            raise TaskError(f"cannot write {path}: {error.strerror}") from error

    def record(self, check: Callable[[], None]) -> None:
        """Write recordings, pictures of the first episode, a film and a contact sheet of all.

        A file that cannot be made is one line on standard error. ``check`` is called after each
        picture of the film, and may raise to end the drawing.
        """
        out = self._out
        task = task_of(self._saved, self._options, render_mode="rgb_array")
        try:
            replay = task.judge()
            if not isinstance(replay, Replay):
                draw_joints(self.recordings[0], out / JOINTS)
                print(f"plot: {out / JOINTS} (ndp eval --video films this task)", flush=True)
                return
            for recording, episode in zip(self.recordings, self.episodes, strict=True):
                replay.trace(recording)
                recording.about |= {
                    "checkpoint": self._saved.id,
                    "task": self._saved.spec.task,
                    "outcome": episode,
                }
                recording.save(out / RECORDINGS / f"{recording.seed}.npz")
            print(f"recordings: {out / RECORDINGS}/", flush=True)
            draw_joints(self.recordings[0], out / JOINTS)
            draw_hand(self.recordings[0], out / HAND)
            print(f"plots: {out / JOINTS}, {out / HAND}", flush=True)
            film(replay, self.recordings, out / VIDEO, _progress(check), out / SHEET)
            print(f"video: {out / VIDEO}, contact sheet: {out / SHEET}", flush=True)
        except NdpError as error:
            print(f"no recording: {error}", file=sys.stderr, flush=True)
        finally:
            task.close()


def _progress(check: Callable[[], None]) -> Callable[[float], None]:
    """Return a callback that prints the share of the video that is drawn, every three seconds."""
    last = time.monotonic()

    def show(share: float) -> None:
        nonlocal last
        check()
        if time.monotonic() - last > _PROGRESS_PERIOD:
            last = time.monotonic()
            print(f"video: {share:.0%} drawn", file=sys.stderr, flush=True)

    return show


def _text(value: Any) -> str:
    """Return a figure as it is printed: numbers with three digits, lists in parentheses."""
    if isinstance(value, list):
        return f"({', '.join(_text(item) for item in value)})"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
