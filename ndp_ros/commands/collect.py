# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp collect``: record demonstrations of an expert, for imitation."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ndp_ros import checkpoint
from ndp_ros.commands.arguments import take_arm
from ndp_ros.errors import NdpError, TrainingError
from ndp_ros.files import require_file
from ndp_ros.paths import find_checkpoint
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.tasks.contract import TaskEnvironment
from ndp_ros.training import demonstrations
from ndp_ros.training.demonstrations import Demonstrations, Expert
from ndp_ros.training.evaluate import require_fit, task_choice
from ndp_ros.training.evaluation import Episode
from ndp_ros.training.lerobot import LEROBOT, read_lerobot
from ndp_ros.training.logs import ProgressLine
from ndp_ros.training.scripted import SCRIPT, scripted


def main(args: argparse.Namespace) -> int:
    """Collect demonstrations, save them and print a summary."""
    if not 0.0 <= args.noise <= 10.0:
        raise TrainingError(f"--noise is {args.noise}, expected 0 to 10")
    if args.every and not args.k:
        raise TrainingError("--every needs --k, the control steps of a window")
    require_file(args.output, "--output")
    take_arm(args)
    data = _read(args) if args.expert.startswith(LEROBOT) else _act(args)
    if args.k:
        data = demonstrations.regroup(data, args.k, args.every)
    data.save(args.output)
    report = {
        "file": str(args.output),
        "episodes": data.episodes,
        "windows": len(data.observations),
        "success_rate": float(data.success.mean()),
    }
    if args.json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        sys.stdout.write(
            f"{args.output}: {report['episodes']} episodes, {report['windows']} windows, "
            f"success {report['success_rate']:.3f}\n"
        )
    return 0


def _read(args: argparse.Namespace) -> Demonstrations:
    """Return the episodes of a LeRobot data set."""
    if not args.task:
        raise TrainingError(f"{args.expert} needs --task, whose observations and joints they are")
    columns = dict(text.partition("=")[::2] for text in args.columns)
    folder = Path(args.expert.removeprefix(LEROBOT))
    return read_lerobot(folder, args.task, args.task_options, columns)


def _act(args: argparse.Namespace) -> Demonstrations:
    """Let an expert act, and return what it does."""
    expert, env, source = _expert(args.expert, args.task_options)
    seen: list[Episode] = []
    try:
        if args.k:
            demonstrations.require_windows(expert.spec, args.k, args.every)
        with ProgressLine(f"collect {args.expert}", args.episodes, unit="episodes") as line:

            def show(episode: Episode) -> None:
                seen.append(episode)
                rate = sum(bool(e["success"]) for e in seen) / len(seen)
                line.show(len(seen), [("success", f"{rate:.2f}")])

            seeds = range(args.seed, args.seed + args.episodes)
            return demonstrations.collect(expert, env, seeds, source, args.noise, show)
    finally:
        env.close()


def _expert(name: str, options: list[str]) -> tuple[Expert, TaskEnvironment, dict[str, Any]]:
    """Return an expert, its environment and the ``source`` of its demonstrations."""
    if name.startswith(SCRIPT):
        return scripted(name.removeprefix(SCRIPT), options)
    saved = checkpoint.load(find_checkpoint(name))
    env = task_choice(saved, options).make()
    try:
        require_fit(saved, env)
    except NdpError:
        env.close()
        raise
    return ArrayPolicy(saved.spec, saved.tensors), env, {"checkpoint": saved.id}
