"""Training speed, collection and update, beside Stable-Baselines3's PPO.

All contestants train on the same task with the same networks (2 x 100, tanh), 2048 control
steps a batch, 32 minibatches and 10 epochs, observations and rewards normalised. Rounds
are interleaved, so that whatever else the machine does burdens all alike; the figure is the
best round's control steps per second of wall clock.
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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from ndp_ros.arguments import positive, whole
from ndp_ros.errors import TrainingError
from ndp_ros.training.environment import TaskChoice
from ndp_ros.training.experiment import RunConfig, provenance
from ndp_ros.training.logs import read_progress
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
    parser.add_argument("--batches", type=positive, default=4, help="batches measured a round (4)")
    parser.add_argument("--rounds", type=positive, default=2, help="rounds (2)")
    parser.add_argument(
        "--contestants", nargs="+", default=list(CONTESTANTS), choices=list(CONTESTANTS),
        metavar="NAME", help=f"any of {', '.join(CONTESTANTS)}",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Measure and print one row per contestant."""
    results: dict[str, dict[str, float]] = {}
    left_out = {name: why for name in args.contestants if (why := _missing(name))}
    for name, why in left_out.items():
        sys.stderr.write(f"{name} is left out: {why}\n")
    contestants = [name for name in args.contestants if name not in left_out]
    if not contestants:
        raise TrainingError(f"nobody is left to measure: {'; '.join(left_out.values())}")
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
            "task": args.task, "task_options": args.task_options,
            "environments": args.environments, "results": results, "left_out": left_out,
            **provenance(),
        }  # fmt: skip
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        for name, f in results.items():
            ratio = f"  {f['ratio']:.2f} x sb3" if "ratio" in f else ""
            sys.stdout.write(
                f"{name:<16} {f['samples_per_second']:8.0f} samples/s "
                f"{f['memory_mib']:6.0f} MiB{ratio}\n"
            )
    return 0


def ours(method: str) -> Contestant:
    """Return a measurement of this package's trainer."""

    def measure(args: argparse.Namespace) -> dict[str, float]:
        config = RunConfig(
            task=args.task, method=method, preset=args.preset,
            task_options=tuple(args.task_options), environments=args.environments,
            workers=args.workers, checkpoint_every=10**6, evaluation_episodes=0,
        )  # fmt: skip
        # One batch more: the first one starts the workers and trains nothing.
        samples = (args.batches + 1) * config.samples_per_batch
        config = dataclasses.replace(config, samples=samples)
        memory = _Memory()
        with tempfile.TemporaryDirectory() as folder:
            train(config, Path(folder) / "run", quiet=True, watch=memory.look)
            seconds = [float(r["seconds"]) for r in read_progress(Path(folder) / "run")]
        spent = seconds[-1] - seconds[0]
        return {
            "samples_per_second": round(args.batches * config.samples_per_batch / spent, 1),
            "memory_mib": round(memory.mib, 1),
        }

    return measure


def _missing(contestant: str) -> str:
    """Return why a contestant cannot be measured here, or nothing."""
    if contestant.startswith("sb3") and find_spec("stable_baselines3") is None:
        return "Stable-Baselines3 is not installed (pip install 'ndp_ros[bench]')"
    return ""


def stable_baselines(k: int, processes: bool) -> Contestant:
    """Return a measurement of Stable-Baselines3's PPO.

    Args:
        k: Control steps of an action; more than one as one long action vector.
        processes: Whether its environments run in one process each.
    """

    def measure(args: argparse.Namespace) -> dict[str, float]:
        import torch
        from stable_baselines3 import PPO
        from stable_baselines3.common.callbacks import BaseCallback
        from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

        torch.set_num_threads(1)
        choice = TaskChoice(args.task, k, args.preset, tuple(args.task_options))
        kind = SubprocVecEnv if processes else DummyVecEnv
        steps = -(-2048 // (args.environments * k))
        memory = _Memory()

        class Clock(BaseCallback):  # type: ignore[misc]
            """Notes when each roll-out starts: the update before it is done by then."""

            def __init__(self) -> None:
                super().__init__()
                self.times: list[float] = []

            def _on_rollout_start(self) -> None:
                memory.look()
                self.times.append(time.monotonic())

            def _on_step(self) -> bool:
                return True

        def make() -> Any:
            return choice.make()

        makers: list[Any] = [make] * args.environments
        env = VecNormalize(kind(makers), gamma=0.99)
        try:
            model = PPO(
                "MlpPolicy", env, n_steps=steps, batch_size=steps * args.environments // 32,
                n_epochs=10, clip_range=0.1, clip_range_vf=0.1, device="cpu", seed=0,
                policy_kwargs={"net_arch": [100, 100], "activation_fn": torch.nn.Tanh},
            )  # fmt: skip
            clock = Clock()
            # The last batch is only there to say when the one before was done.
            model.learn((args.batches + 2) * steps * args.environments, callback=clock)
        finally:
            env.close()
        spent = clock.times[args.batches + 1] - clock.times[1]
        samples = args.batches * steps * args.environments * k
        return {
            "samples_per_second": round(samples / spent, 1),
            "memory_mib": round(memory.mib, 1),
        }

    return measure


class _Memory:
    """The largest memory of this process and its children, each page counted once."""

    def __init__(self) -> None:
        self.mib = 0.0

    def look(self, *_: Any) -> None:
        """Measure now."""
        process = psutil.Process()
        total = 0
        for one in (process, *process.children(recursive=True)):
            try:
                total += one.memory_full_info().pss
            except psutil.Error:
                continue
        self.mib = max(self.mib, total / 2**20)


CONTESTANTS: dict[str, Contestant] = {
    "ndp": ours("ndp"),
    "ppo": ours("ppo"),
    "ppo-multi": ours("ppo-multi"),
    "sb3-ppo": stable_baselines(1, processes=False),
    "sb3-ppo-processes": stable_baselines(1, processes=True),
}
