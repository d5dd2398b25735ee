# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Report a run to Weights & Biases: its configuration, every row of its log and its films.

The client decides where runs go: with ``WANDB_MODE=offline`` everything stays in ``wandb/`` of the
run directory, until ``wandb sync`` sends it. It needs the extra ``track``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ndp_ros.config import to_mapping
from ndp_ros.errors import TrainingError
from ndp_ros.training.config import RunConfig
from ndp_ros.training.films import FILMS, filming
from ndp_ros.training.logs import Row, Watch, finite_figures

TRACKERS = ("wandb",)


@contextlib.contextmanager
def watched(
    config: RunConfig, folder: Path, track: str = "", film_every: int = 0
) -> Iterator[Watch | None]:
    """Yield the watch of a run that films and reports it; None if neither is asked for.

    ``track`` is one of ``TRACKERS``, ``film_every`` the evaluations between films.

    Raises:
        TrainingError: If the tracker refuses to start.
    """
    films = filming(folder, film_every) if film_every else None
    tracker = _Wandb(config, folder) if track else None
    if films is None and tracker is None:
        yield None
        return

    def watch(row: Row) -> None:
        if films is not None:
            films(row)
        if tracker is not None:
            tracker.log(row)

    try:
        yield watch
    except BaseException:
        if tracker is not None:
            tracker.finish(1)
        raise
    if tracker is not None:
        tracker.finish(0)


class _Wandb:
    """A run of Weights & Biases, begun with the first row, when the run directory is there."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        import wandb

        self._wandb, self._config, self._folder = wandb, config, folder
        self._run: Any = None

    def log(self, row: Row) -> None:
        """Report a row, and the film that was made at it."""
        if self._run is None:
            self._run = self._begin()
        values: dict[str, Any] = {**finite_figures(row)}
        film = self._folder / FILMS / f"{row['samples']}.mp4"
        if film.exists():
            values["film"] = self._wandb.Video(str(film), format="mp4")
        self._run.log(values, step=int(row["samples"]))

    def finish(self, status: int) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish(exit_code=status)

    def _begin(self) -> Any:
        config = self._config
        # A resumed training continues the run that its directory has.
        earlier = sorted(self._folder.glob("wandb/*run-*-*"), key=lambda path: path.stat().st_mtime)
        try:
            return self._wandb.init(
                project="ndp_ros",
                name=config.name,
                group=f"{config.task} {config.method}",
                id=earlier[-1].name.rpartition("-")[2] if earlier else None,
                resume="allow" if earlier else None,
                dir=str(self._folder),
                config=to_mapping(config),
            )
        except Exception as error:  # of its service, its HTTP client and its settings
            text = str(error).strip().partition("\n")[0]
            raise TrainingError(
                f"Weights & Biases refuses ({text}): wandb login, or WANDB_MODE=offline"
            ) from error
