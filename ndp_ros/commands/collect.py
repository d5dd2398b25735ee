"""``ndp collect``: write down what a checkpoint does, for imitation."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ndp_ros import checkpoint
from ndp_ros.commands.evaluate import positive, require_fit, task_of
from ndp_ros.errors import TrainingError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.training.demonstrations import collect
from ndp_ros.training.evaluation import Episode
from ndp_ros.training.logs import ProgressLine

_EPILOG = """\
The file is in safetensors format: observations, actions and where episodes start. Episode n
starts from seed SEED + n.

examples:
  ndp collect models/checkpoints/jaco_throw --episodes 200 -o throws.safetensors
  ndp collect models/checkpoints/jaco_throw --noise 0.5 -o throws.safetensors
  ndp train throw --method bc-ndp --demonstrations throws.safetensors
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder of the expert")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="file")
    parser.add_argument("--episodes", type=positive, default=200, help="episodes (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="first start state (default: 0)")
    parser.add_argument(
        "--noise", type=float, default=0.0, metavar="PART",
        help="act with this part of the expert's exploration, record what it meant (default: 0)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Collect and say what was collected."""
    if not 0.0 <= args.noise <= 10.0:
        raise TrainingError(f"--noise is {args.noise}, expected 0 to 10")
    saved = checkpoint.load(args.checkpoint)
    env = task_of(saved, []).make()
    told: list[Episode] = []
    try:
        require_fit(saved, env)
        with ProgressLine(f"collect {args.checkpoint}", args.episodes) as line:

            def tell(episode: Episode) -> None:
                told.append(episode)
                rate = sum(bool(e["success"]) for e in told) / len(told)
                line.show(len(told), [("success", f"{rate:.2f}")])

            seeds = range(args.seed, args.seed + args.episodes)
            policy = ArrayPolicy(saved.spec, saved.tensors)
            data = collect(policy, env, seeds, {"checkpoint": saved.id}, args.noise, tell)
    finally:
        env.close()
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
