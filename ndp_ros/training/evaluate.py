# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``evaluate``: run a checkpoint on the task that it was trained on.

The public function, ``ndp eval`` and ``ndp export`` share the episodes and the report.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from ndp_ros import checkpoint
from ndp_ros.config import from_mapping
from ndp_ros.errors import CheckpointError, ConfigError, TaskError
from ndp_ros.paths import find_checkpoint
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.tasks.arm_task import ArmTask
from ndp_ros.tasks.choice import TaskChoice
from ndp_ros.tasks.contract import TaskEnvironment, plain
from ndp_ros.tasks.recording import Recording
from ndp_ros.tasks.replay import Recorder
from ndp_ros.training.config import RunConfig
from ndp_ros.training.directory import acting_choice
from ndp_ros.training.evaluation import Episode, Watcher, make_actor, run_episode, summarise
from ndp_ros.training.logs import ProgressLine
from ndp_ros.training.methods import HELD, METHODS


def evaluate(
    policy: str | os.PathLike[str],
    episodes: int = 100,
    seed: int = 0,
    task_options: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the figures of deterministic episodes on a checkpoint's own task.

    An NDP acts through its segments, sampled at every tick of the simulated arm; other policies act
    through their mean actions. The intervals are Wilson's, at 95 %.

    Args:
        policy: Checkpoint folder, run directory, or the name of a shipped checkpoint.
        episodes: Number of episodes; episode n starts from ``seed + n``.
        seed: First start state.
        task_options: ``name=value`` each, over those of the training.

    Returns:
        ``success_rate`` and its interval ``ci95``, ``return``, and the task's own figures, such as
        ``max_joint_speed`` [rad/s] and ``tracking_rms`` [rad].

    Raises:
        ConfigError: If there is no such checkpoint.
        CheckpointError: If it is damaged or does not fit its task.
        TaskError: If the task cannot be made with these options.

    Example:
        >>> report = evaluate("jaco_throw", episodes=1, seed=7)
        >>> report["episodes"], report["method"]
        (1, 'ndp')
        >>> 0.0 <= report["success_rate"] <= 1.0
        True
    """
    folder = find_checkpoint(policy if isinstance(policy, str) else Path(policy))
    saved = checkpoint.load(folder)
    with closing(task_choice(saved, list(task_options), folder).make()) as env:
        return report_on(saved, seed, measure(saved, env, episodes, seed))


def measure(
    saved: checkpoint.Checkpoint,
    env: TaskEnvironment,
    episodes: int,
    seed: int,
    line: ProgressLine | None = None,
    watcher: Watcher | None = None,
    watched: int = 0,
) -> list[Episode]:
    """Return the figures of each of several episodes from ``seed`` on.

    A line shows the success rate so far; a watcher looks on at the first ``watched`` episodes.

    Raises:
        CheckpointError: If policy and task do not belong together.
    """
    require_fit(saved, env)
    actor = make_actor(ArrayPolicy(saved.spec, saved.tensors))
    done: list[Episode] = []
    with line or ProgressLine("", episodes, quiet=True) as shown:
        for n in range(episodes):
            done.append(run_episode(env, actor, seed + n, watcher if n < watched else None))
            rate = sum(bool(e["success"]) for e in done) / len(done)
            shown.show(n + 1, [("success", f"{rate:.2f}")])
    return done


def record(folder: Path, seed: int) -> Recording:
    """Return the recording of one episode of a checkpoint from a start state.

    Raises:
        CheckpointError: If it is damaged or does not fit its task.
        TaskError: If its task is not one on an arm.
    """
    saved = checkpoint.load(folder)
    with closing(task_choice(saved, [], folder).make()) as env:
        task = arm_task_in(env)
        if task is None:
            raise TaskError(
                f"{saved.id}: {saved.spec.task} is not a task on an arm; ndp eval --video films it"
            )
        recorder = Recorder(task, {"checkpoint": saved.id, "task": saved.spec.task})
        measure(saved, env, 1, seed, watcher=recorder, watched=1)
    return recorder.recordings[0]


def arm_task_in(env: TaskEnvironment) -> ArmTask | None:
    """Return the task on an arm that an environment is, or that a wrapper has inside."""
    task = getattr(env, "env", env)
    return task if isinstance(task, ArmTask) else None


def report_on(
    saved: checkpoint.Checkpoint, seed: int, episodes: Sequence[Episode]
) -> dict[str, Any]:
    """Return the summary of episodes as JSON can hold it, with the identity of the checkpoint."""
    return {
        "checkpoint": saved.id,
        "task": saved.spec.task,
        "method": saved.spec.method,
        "seed": seed,
        **plain(summarise(episodes)),
    }


def task_choice(
    saved: checkpoint.Checkpoint, options: list[str], folder: Path | None = None
) -> TaskChoice:
    """Return the task that a checkpoint was trained on, with some options replaced.

    The folder of a Dyn-E checkpoint has the embedding of its actions.

    Raises:
        CheckpointError: If its actions are embedded and no folder is given, or the record of
            its training is damaged.
    """
    record = saved.trained_on()
    row = METHODS.get(record.method)
    if saved.spec.method == "bounded" and (row is None or not row.embedded or folder is None):
        raise CheckpointError("a policy of dyn-e can be trained and evaluated only")
    # Where one action lasts k control steps, the k of the policy itself is 1.
    held = row is not None and row.timing == HELD
    values = {**vars(record), "k": record.k if held else saved.spec.k}
    try:
        config = from_mapping(RunConfig, values, source="record of the checkpoint's training")
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    config = replace(config, task_options=(*config.task_options, *options))
    return acting_choice(config, folder or "")


def require_fit(saved: checkpoint.Checkpoint, env: TaskEnvironment) -> None:
    """Check that a policy fits an environment.

    Raises:
        CheckpointError: If it does not; the message names the difference.
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
