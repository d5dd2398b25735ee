"""``ndp collect``: write down what an expert does, for imitation."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ndp_ros import checkpoint
from ndp_ros.arguments import positive, whole
from ndp_ros.commands.evaluate import require_fit, task_of
from ndp_ros.errors import NdpError, TrainingError
from ndp_ros.outputs import require_file
from ndp_ros.paths import find_checkpoint
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.training.demonstrations import Expert, collect, regroup, require_windows
from ndp_ros.training.environment import TaskEnvironment
from ndp_ros.training.evaluation import Episode
from ndp_ros.training.logs import ProgressLine
from ndp_ros.training.scripted import SCRIPT, scripted

_EPILOG = """\
The file is in safetensors format: observations, actions and where episodes start. Episode n
starts from seed SEED + n. script:TASK is Meta-World's hand-written policy of a task, such as
script:push, or of all fifty (script:mt50, which plays task n modulo 50 in episode n).

examples:
  ndp collect models/checkpoints/jaco_throw --episodes 200 -o throws.safetensors
  ndp collect models/checkpoints/jaco_throw --noise 0.5 -o throws.safetensors
  ndp train throw --method bc-ndp --demonstrations throws.safetensors
  ndp collect script:push --k 5 --every 1 --noise 0.3 --task-options horizon=250 -o push.safetensors
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("expert", help="checkpoint folder, name of one that ships, or script:TASK")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="file")
    parser.add_argument("--episodes", type=positive, default=200, help="episodes (default: 200)")
    parser.add_argument("--seed", type=whole, default=0, help="first start state (default: 0)")
    parser.add_argument(
        "--noise", type=float, default=0.0, metavar="PART",
        help="act with this part of the expert's exploration, record what it meant (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--k",
        type=positive,
        default=0,
        metavar="STEPS",
        help="control steps a window, for an expert that sees each one (default: the expert's)",
    )
    parser.add_argument(
        "--every",
        type=positive,
        default=0,
        metavar="STEPS",
        help="control steps from one such window's start to the next one's (default: --k)",
    )
    parser.add_argument(
        "--task-options",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="options of the task that differ from those of the expert's training",
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Collect and say what was collected."""
    if not 0.0 <= args.noise <= 10.0:
        raise TrainingError(f"--noise is {args.noise}, expected 0 to 10")
    if args.every and not args.k:
        raise TrainingError("--every needs --k, the control steps of a window")
    require_file(args.output, "--output")
    expert, env, source = _expert(args.expert, args.task_options)
    told: list[Episode] = []
    try:
        if args.k:
            require_windows(expert.spec, args.k, args.every)
        with ProgressLine(f"collect {args.expert}", args.episodes, unit="episodes") as line:

            def tell(episode: Episode) -> None:
                told.append(episode)
                rate = sum(bool(e["success"]) for e in told) / len(told)
                line.show(len(told), [("success", f"{rate:.2f}")])

            seeds = range(args.seed, args.seed + args.episodes)
            data = collect(expert, env, seeds, source, args.noise, tell)
    finally:
        env.close()
    if args.k:
        data = regroup(data, args.k, args.every)
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


def _expert(name: str, options: list[str]) -> tuple[Expert, TaskEnvironment, dict[str, Any]]:
    """Return an expert, its environment and how its demonstrations name it."""
    if name.startswith(SCRIPT):
        return scripted(name.removeprefix(SCRIPT), options)
    saved = checkpoint.load(find_checkpoint(name))
    env = task_of(saved, options).make()
    try:
        require_fit(saved, env)
    except NdpError:
        env.close()
        raise
    return ArrayPolicy(saved.spec, saved.tensors), env, {"checkpoint": saved.id}
