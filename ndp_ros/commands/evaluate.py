# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp eval``: measure the success rate of a checkpoint, with its confidence interval."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ndp_ros import checkpoint
from ndp_ros.commands.arguments import take_arm
from ndp_ros.errors import TaskError
from ndp_ros.files import require_file, write_output
from ndp_ros.paths import find_checkpoint
from ndp_ros.pictures.video import VIDEOS
from ndp_ros.tasks.contract import plain
from ndp_ros.training.evaluate import measure, report_on, task_choice
from ndp_ros.training.evaluation import Episode
from ndp_ros.training.films import save_film, watcher_of
from ndp_ros.training.logs import ProgressLine


def main(args: argparse.Namespace) -> int:
    """Evaluate the checkpoint and print the figures."""
    if args.each:
        require_file(args.each, "--each")
    if args.video:
        require_file(args.video, "--video", VIDEOS)
    take_arm(args)
    folder = find_checkpoint(args.checkpoint)
    saved = checkpoint.load(folder)
    choice = task_choice(saved, args.task_options, folder)
    with closing(choice.make(**({"render_mode": "rgb_array"} if args.video else {}))) as env:
        line = ProgressLine(f"eval {args.checkpoint}", args.episodes, unit="episodes")
        watcher = watcher_of(env, saved) if args.video else None
        episodes = measure(saved, env, args.episodes, args.seed, line, watcher, args.video_episodes)
    report = report_on(saved, args.seed, episodes)
    if args.json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        low, high = report["ci95"]
        sys.stdout.write(
            f"success {report['success_rate']:.3f} (95 % interval {low:.3f} to {high:.3f}, "
            f"{report['episodes']} episode{'s' if report['episodes'] != 1 else ''})  "
            + "  ".join(_figures(report, of_hand=saved.spec.joint_names[:3] == HAND))
            + "\n"
        )
    sys.stdout.flush()  # before the files, which may fail
    if args.each:
        write_lines(args.each, episodes)
    if args.video and watcher:
        save_film(args.video, watcher, choice)
        sheet = args.video.with_suffix(".png")
        sys.stderr.write(f"video: {args.video}\ncontact sheet: {sheet}\n")
    return 0


HAND = ("x", "y", "z")
"""First names of the joints of a policy whose y is the position of the hand [m]."""

_UNITS = {"max_joint_speed": " rad/s", "tracking_rms": " rad", "jerk": " rad/s^3"}
_SHOWN = ("saturation", *_UNITS, "return")


def _figures(report: Mapping[str, Any], of_hand: bool) -> Iterator[str]:
    """Yield name, value and unit of each figure for people that a report has."""
    units = {**_UNITS, "tracking_rms": " m"} if of_hand else _UNITS
    for name, value in report.items():
        if name in _SHOWN and value is not None:
            yield f"{name} {value:.4g}{units.get(name, '')}"


def write_lines(path: Path, episodes: list[Episode]) -> None:
    """Write one JSON object per episode and line.

    Raises:
        TaskError: If the file cannot be written.
    """
    try:
        write_output(path, "".join(json.dumps(plain(e)) + "\n" for e in episodes))
    except OSError as error:
        raise TaskError(f"cannot write {path}: {error.strerror}") from error
