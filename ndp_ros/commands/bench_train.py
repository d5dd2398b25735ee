# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp bench train``: compare the training speed with Stable-Baselines3's PPO.

All contestants train on the same task with the same networks (2 x 100, tanh), 2048 control steps
per batch, 32 minibatches and 10 epochs, with normalised observations and rewards. Rounds are
interleaved, so that other load affects all alike. The figure is control steps per second of wall
clock, collection and update together, in the best round.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from ndp_ros.commands.arguments import positive, whole
from ndp_ros.errors import TrainingError
from ndp_ros.tasks.choice import TaskChoice
from ndp_ros.training.config import RunConfig
from ndp_ros.training.logs import read_progress
from ndp_ros.training.provenance import provenance
from ndp_ros.training.run import train

_EPILOG = """\
examples:
  ndp bench train --json
  ndp bench train --contestants ndp sb3-ppo --batches 5 --rounds 3
  ndp bench train --task-options control_dt=0.01 --json
"""

Contestant = Callable[[argparse.Namespace], dict[str, float]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("--task", default="throw", help="task (default: throw)")
    parser.add_argument("--preset", default="default", help="preset of the task")
    parser.add_argument("--task-options", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--environments", type=positive, default=16, help="environments (16)")
    parser.add_argument("--workers", type=whole, default=0, help="processes; 0: one per core")
    parser.add_argument(
        "--batches", type=positive, default=4, help="batches measured per round (4)"
    )
    parser.add_argument("--rounds", type=positive, default=2, help="rounds (2)")
    parser.add_argument(
        "--contestants",
        nargs="+",
        default=list(CONTESTANTS),
        choices=list(CONTESTANTS),
        metavar="NAME",
        help=f"any of {', '.join(CONTESTANTS)}",
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Measure and print one row per contestant."""
    results: dict[str, dict[str, float]] = {}
    left_out = {name: why for name in args.contestants if (why := _missing(name))}
    for name, why in left_out.items():
        sys.stderr.write(f"{name} is left out: {why}\n")
    contestants = [name for name in args.contestants if name not in left_out]
    if not contestants:
        raise TrainingError(f"no contestant can be measured: {'; '.join(left_out.values())}")
    for number in range(args.rounds):
        for name in contestants:
            sys.stderr.write(f"round {number + 1} of {args.rounds}: {name}\n")
            figures = CONTESTANTS[name](args)
            best = results.get(name)
            if best is None or figures["samples_per_second"] > best["samples_per_second"]:
                results[name] = figures
            gc.collect()
    rivals = [f["samples_per_second"] for n, f in results.items() if n.startswith("sb3-ppo")]
    for figures in results.values():
        if rivals:
            figures["ratio"] = round(figures["samples_per_second"] / max(rivals), 3)
    for name, figures in results.items():
        sys.stderr.write(f"{name}: {figures}\n")
    if args.json:
        report = {
            "task": args.task,
            "task_options": args.task_options,
            "environments": args.environments,
            "results": results,
            "left_out": left_out,
            **provenance(),
        }
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        for name, f in results.items():
            ratio = f"  {f['ratio']:.2f} x sb3" if "ratio" in f else ""
            sys.stdout.write(
                f"{name:<16} {f['samples_per_second']:8.0f} samples/s "
                f"{f['memory_mib']:6.0f} MiB{ratio}\n"
            )
    return 0


def ours(args: argparse.Namespace, method: str) -> dict[str, float]:
    """Measure this package's trainer."""
    config = RunConfig(
        task=args.task,
        method=method,
        preset=args.preset,
        task_options=tuple(args.task_options),
        environments=args.environments,
        workers=args.workers,
        checkpoint_every=10**6,
        evaluation_episodes=0,
    )
    # One more batch: the first one starts the workers and does not train.
    samples = (args.batches + 1) * config.samples_per_batch
    config = dataclasses.replace(config, samples=samples)
    memory = _Memory()
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder) / "run", quiet=True, watch=memory.measure)
        seconds = [float(r["seconds"]) for r in read_progress(Path(folder) / "run")]
    spent = seconds[-1] - seconds[0]
    return {
        "samples_per_second": round(args.batches * config.samples_per_batch / spent, 1),
        "memory_mib": round(memory.mib, 1),
    }


def _missing(contestant: str) -> str:
    """Return why a contestant cannot be measured on this machine; empty if it can."""
    if contestant.startswith("sb3") and find_spec("stable_baselines3") is None:
        return "Stable-Baselines3 is not installed (pip install 'ndp_ros[bench]')"
    return ""


def stable_baselines(args: argparse.Namespace, k: int, processes: bool) -> dict[str, float]:
    """Measure Stable-Baselines3's PPO; k control steps form one long action vector."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

    torch.set_num_threads(1)
    choice = TaskChoice(args.task, k, args.preset, tuple(args.task_options))
    steps = -(-2048 // (args.environments * k))
    memory, starts = _Memory(), []

    def on_rollout_start() -> None:
        memory.measure()
        starts.append(time.monotonic())

    makers: list[Callable[[], Any]] = [choice.make] * args.environments
    env = VecNormalize((SubprocVecEnv if processes else DummyVecEnv)(makers), gamma=0.99)
    try:
        model = PPO(
            "MlpPolicy",
            env,
            n_steps=steps,
            batch_size=steps * args.environments // 32,
            n_epochs=10,
            clip_range=0.1,
            clip_range_vf=0.1,
            device="cpu",
            seed=0,
            policy_kwargs={"net_arch": [100, 100], "activation_fn": torch.nn.Tanh},
        )
        # The start of the last batch marks the end of the one before.
        total = (args.batches + 2) * steps * args.environments
        model.learn(total, callback=_callback(on_rollout_start))
    finally:
        env.close()
    spent = starts[args.batches + 1] - starts[1]
    samples = args.batches * steps * args.environments * k
    return {"samples_per_second": round(samples / spent, 1), "memory_mib": round(memory.mib, 1)}


def _callback(on_rollout_start: Callable[[], None]) -> Any:
    """Return a callback of Stable-Baselines3 for the start of each roll-out."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Callback(BaseCallback):  # type: ignore[misc]
        def _on_rollout_start(self) -> None:
            on_rollout_start()

        def _on_step(self) -> bool:
            return True

    return Callback()


class _Memory:
    """The peak memory of this process and its children, each page counted once."""

    def __init__(self) -> None:
        self.mib = 0.0

    def measure(self, *_: Any) -> None:
        """Update the peak."""
        process = psutil.Process()
        total = 0
        for one in (process, *process.children(recursive=True)):
            try:
                total += one.memory_full_info().pss
            except psutil.Error:
                continue
        self.mib = max(self.mib, total / 2**20)


CONTESTANTS: dict[str, Contestant] = {
    "ndp": partial(ours, method="ndp"),
    "ppo": partial(ours, method="ppo"),
    "ppo-multi": partial(ours, method="ppo-multi"),
    "sb3-ppo": partial(stable_baselines, k=1, processes=False),
    "sb3-ppo-processes": partial(stable_baselines, k=1, processes=True),
}
