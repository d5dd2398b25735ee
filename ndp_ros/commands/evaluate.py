"""``ndp eval``: how often a checkpoint succeeds, with its interval."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ndp_ros import checkpoint
from ndp_ros.arguments import positive, whole
from ndp_ros.config import from_mapping
from ndp_ros.errors import CheckpointError, ConfigError, TaskError
from ndp_ros.outputs import require_file, write_output
from ndp_ros.paths import find_checkpoint
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.training.directory import acting_choice
from ndp_ros.training.environment import TaskChoice, TaskEnvironment
from ndp_ros.training.evaluation import Episode, make_actor, plain, run_episode, summarise
from ndp_ros.training.experiment import IMPEDANCE, RunConfig
from ndp_ros.training.logs import ProgressLine

_EPILOG = """\
Episode n starts from seed SEED + n. The last line of standard output is the result, with
--json one JSON object; everything else goes to standard error.

examples:
  ndp eval jaco_throw
  ndp eval models/checkpoints/jaco_throw --episodes 100 --seed 7 --json
  ndp eval runs/throw-ndp-0/checkpoints/best --each episodes.jsonl --video throw.mp4
"""

_VIDEOS = (".mp4", ".mkv", ".mov", ".avi")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("checkpoint", help="checkpoint folder, or the name of one that ships")
    parser.add_argument("--episodes", type=positive, default=100, help="episodes (default: 100)")
    parser.add_argument("--seed", type=whole, default=0, help="first start state (default: 0)")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--each", type=Path, metavar="FILE", help="write one JSON line an episode")
    parser.add_argument("--video", type=Path, metavar="FILE", help="film the first episodes (.mp4)")
    parser.add_argument(
        "--video-episodes", type=positive, default=3, metavar="N", help="episodes to film (3)"
    )
    parser.add_argument(
        "--task-options", nargs="+", default=[], metavar="NAME=VALUE",
        help="options of the task that differ from those of the training",
    )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Evaluate and print the figures."""
    if args.each:
        require_file(args.each, "--each")
    if args.video:
        require_file(args.video, "--video", _VIDEOS)
    folder = find_checkpoint(args.checkpoint)
    saved = checkpoint.load(folder)
    policy = ArrayPolicy(saved.spec, saved.tensors)
    choice = task_of(saved, args.task_options, folder)
    env = choice.make(**({"render_mode": "rgb_array"} if args.video else {}))
    try:
        require_fit(saved, env)
        film = Film(args.video, env) if args.video else None
        actor = make_actor(policy)
        episodes: list[Episode] = []
        with ProgressLine(f"eval {args.checkpoint}", args.episodes, unit="episodes") as line:
            for n in range(args.episodes):
                watch = film.take if film and n < args.video_episodes else None
                episodes.append(run_episode(env, actor, args.seed + n, watch))
                rate = sum(bool(e["success"]) for e in episodes) / len(episodes)
                line.show(n + 1, [("success", f"{rate:.2f}")])
    finally:
        env.close()
    report = {
        "checkpoint": saved.id,
        "task": saved.spec.task,
        "method": saved.spec.method,
        "seed": args.seed,
        **plain(summarise(episodes)),
    }
    if args.json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        low, high = report["ci95"]
        sys.stdout.write(
            f"success {report['success_rate']:.3f} (95 % interval {low:.3f} to {high:.3f}, "
            f"{report['episodes']} episodes)  "
            + "  ".join(f"{n} {v:.4g}" for n, v in report.items() if n in _SHOWN and v is not None)
            + "\n"
        )
    sys.stdout.flush()  # the figures are out, whatever happens to the files
    if args.each:
        write_lines(args.each, episodes)
    if film:
        film.save()
    return 0


_SHOWN = ("saturation", "max_joint_speed", "tracking_rms", "return")


def task_of(
    saved: checkpoint.Checkpoint, options: list[str], folder: Path | None = None
) -> TaskChoice:
    """Return the task that a checkpoint was trained on, with options on top.

    Args:
        saved: The checkpoint.
        options: ``name=value`` each.
        folder: Where it is; Dyn-E's has the embedding that it acts through.

    Raises:
        CheckpointError: If it acts through an embedding and there is no folder, or the record
            of its training is damaged.
    """
    record = saved.provenance.get("config")
    trained = record if isinstance(record, dict) else {}
    method = str(trained.get("method", saved.spec.method))
    if saved.spec.method == "bounded" and (method != "dyn-e" or folder is None):
        raise CheckpointError("a policy of dyn-e can be trained and evaluated, and nothing else")
    # Where one action is for several control steps, the policy itself knows of one.
    k = trained.get("k") if method in IMPEDANCE or method == "dyn-e" else saved.spec.k
    values = {
        "task": saved.spec.task,
        "method": method,
        "k": k,
        "preset": trained.get("preset", "default"),
        "task_options": trained.get("task_options", ()),
    }
    try:
        config = from_mapping(RunConfig, values, source="record of the checkpoint's training")
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    config = replace(config, task_options=(*config.task_options, *options))
    return acting_choice(config, folder or "")


def require_fit(saved: checkpoint.Checkpoint, env: TaskEnvironment) -> None:
    """Check that a policy and an environment belong together.

    Raises:
        CheckpointError: If they do not; the message says in what they differ.
    """
    saved.require_arm(env.arm, env.joint_names)
    spec = saved.spec
    pairs: dict[str, tuple[Any, Any]] = {
        "observation": (spec.observation, tuple(env.fields)),
        "control_dt": (spec.control_dt, float(env.control_dt)),
        "action_scale": (spec.action_scale, tuple(float(s) for s in env.action_scale)),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise CheckpointError(f"{name} of the checkpoint is {theirs}, of the task {ours}")


def write_lines(path: Path, episodes: list[Episode]) -> None:
    """Write one JSON object a line.

    Raises:
        TaskError: If the file cannot be written.
    """
    try:
        write_output(path, "".join(json.dumps(plain(e)) + "\n" for e in episodes))
    except OSError as error:
        raise TaskError(f"cannot write {path}: {error.strerror}") from error


class Film:
    """Pictures of an environment, written as a video at the end."""

    def __init__(self, path: Path, env: TaskEnvironment) -> None:
        import imageio.v2 as imageio
        import imageio_ffmpeg

        self._save, self._count = imageio.mimsave, imageio_ffmpeg.count_frames_and_secs
        self._path, self._env = path, env
        self._rate = 1.0 / (env.k * env.control_dt)
        self._pictures: list[Any] = []

    def take(self) -> None:
        """Keep the present picture.

        Raises:
            TaskError: If the task draws none.
        """
        picture = self._env.render()
        if picture is None:
            raise TaskError("this task draws no pictures: leave out --video")
        self._pictures.append(picture)

    def save(self) -> None:
        """Write the video.

        Raises:
            TaskError: If it cannot be written.
        """
        scratch = self._path.with_name(f".new.{self._path.name}")  # its ending tells the format
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._save(scratch, self._pictures, fps=self._rate)
            # The encoder is a process whose end nobody asks about, even if the disk is full.
            written, _ = self._count(str(scratch))
            if written != len(self._pictures):
                raise OSError(f"{written} of {len(self._pictures)} pictures fitted on the disk")
            scratch.replace(self._path)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            problem = " ".join(str(error).split())
            raise TaskError(f"cannot write {self._path}: {problem}") from error
        finally:
            scratch.unlink(missing_ok=True)
        sys.stderr.write(f"video: {self._path}\n")
