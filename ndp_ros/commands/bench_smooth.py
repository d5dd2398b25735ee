# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp bench smooth``: compare how smoothly policies and up-samplings move the simulated arm.

Contestants play the same start states of one task: the NDP, whose segments are functions of time;
PPO and PPO-multi, whose way points a C1 cubic joins; and the way points of NDP and PPO-multi joined
in other ways, by lines, cubics or ``fit_segment``. Steps are those from the end of a segment, as
commanded, to the begin of the next: of the velocity at its start, and of the acceleration one tick
of Ω later. Jerk is the second difference of the
arm's velocities at the ticks of Ω, as commanded behind the limiter and as measured in simulation.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from ndp_ros import checkpoint
from ndp_ros.commands.arguments import positive
from ndp_ros.control.arm import Array
from ndp_ros.dmp.fit import fit_segment
from ndp_ros.errors import NdpError, TaskError
from ndp_ros.paths import find_checkpoint
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.tasks.arm_task import ArmTask
from ndp_ros.tasks.contract import TaskEnvironment
from ndp_ros.training.evaluate import arm_task_in, task_choice
from ndp_ros.training.evaluation import planned, summarise
from ndp_ros.training.provenance import provenance

Planner = Callable[[ArmTask, Array], tuple[Array, Array]]
"""From a task and its observation to the velocity (dof,) at the start of the next segment and its
setpoints (n_ticks, 3, dof)."""

JOININGS = ("segment", "cubic", "linear", "fit")
"""Ways from the way points of a chunk to setpoints at every tick; ``segment`` is the NDP's own."""

_EPILOG = """\
Units: rad/s^3 (jerk), rad/s and rad/s^2 (steps), rad (tracking); saturation is the share of joints
and ticks at a torque limit. Contestants without a checkpoint are named and left out.

examples:
  ndp bench smooth --json
  ndp bench smooth --ndp jaco_pick --ppo-multi jaco_pick_ppo_multi --ppo jaco_pick_ppo
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    for name in ("ndp", "ppo-multi", "ppo"):
        default = "jaco_throw" + ("" if name == "ndp" else "_" + name.replace("-", "_"))
        parser.add_argument(f"--{name}", default=default, metavar="CHECKPOINT", help=f"({default})")
    parser.add_argument("--episodes", type=positive, default=20, help="each (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="first start state (default: 0)")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Measure and print one row a contestant."""
    contestants = {
        "ndp": (args.ndp, "segment"),
        "ndp-linear": (args.ndp, "linear"),
        "ndp-cubic": (args.ndp, "cubic"),
        "ppo-multi": (args.ppo_multi, "cubic"),
        "ppo-multi-linear": (args.ppo_multi, "linear"),
        "ppo-multi-fit": (args.ppo_multi, "fit"),
        "ppo": (args.ppo, "cubic"),
    }
    rows: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    out = sys.stderr if args.json else sys.stdout
    for name, (policy, joining) in contestants.items():
        try:
            rows[name] = row = measure(policy, joining, args.episodes, args.seed)
        except NdpError as error:
            left_out[name] = str(error)
            sys.stderr.write(f"{name} is left out: {error}\n")
            continue
        out.write(
            f"{name:<17} success {row['success_rate']:.2f}  "
            f"jerk rms {row['jerk_rms']:7.0f} commanded {row['measured_jerk_rms']:7.0f} measured  "
            f"steps {row['velocity_step_max']:.3f} rad/s {row['acceleration_step_max']:6.1f} "
            f"rad/s^2  saturation {100 * row['saturation']:.1f} %  "
            f"tracking {1e3 * row['tracking_rms']:.1f} mrad\n"
        )
    if not rows:
        raise TaskError(f"no contestant can be measured: {'; '.join(left_out.values())}")
    if args.json:
        report = {"episodes": args.episodes, "seed": args.seed, "contestants": rows}
        sys.stdout.write(json.dumps({**report, "left_out": left_out, **provenance()}) + "\n")
    return 0


@dataclass
class _Track:
    """Commanded and measured motion of one episode, tick by tick."""

    commanded: list[Array] = field(default_factory=list)
    """Velocities (n_ticks, n_arm) behind the limiter [rad/s]."""
    measured: list[Array] = field(default_factory=list)
    velocity_steps: list[Array] = field(default_factory=list)
    acceleration_steps: list[Array] = field(default_factory=list)


def measure(policy: str, joining: str, episodes: int, seed: int) -> dict[str, Any]:
    """Return the figures of a checkpoint whose way points are joined in one of ``JOININGS``.

    Raises:
        NdpError: If there is no such checkpoint, or its task is not one on an arm.
    """
    folder = find_checkpoint(policy)
    saved = checkpoint.load(folder)
    with closing(task_choice(saved, [], folder).make()) as env:
        task = arm_task_in(env)
        if task is None:
            raise TaskError(f"{saved.id}: {saved.spec.task} is not a task on an arm")
        plan = planner(ArrayPolicy(saved.spec, saved.tensors), joining)
        done = [_play(task, plan, seed + n) for n in range(episodes)]
    outcome = summarise([figures for figures, _ in done])
    names = ("success_rate", "ci95", "saturation", "tracking_rms")
    tracks = [track for _, track in done]
    return {
        "checkpoint": saved.id,
        "joining": joining,
        **{name: outcome[name] for name in names},
        **_spread("jerk", [_jerk(t.commanded, task.tick) for t in tracks]),
        **_spread("measured_jerk", [_jerk(t.measured, task.tick) for t in tracks]),
        **_spread("velocity_step", [np.stack(t.velocity_steps) for t in tracks]),
        **_spread("acceleration_step", [np.stack(t.acceleration_steps) for t in tracks]),
    }


def planner(policy: ArrayPolicy, joining: str) -> Planner:
    """Return a function from a task and its observation to the motion of the next segment."""

    def plan(task: ArmTask, obs: Array) -> tuple[Array, Array]:
        y, yd = task.setpoint
        if joining == "segment":
            return yd, planned(policy, [cast(TaskEnvironment, task)], obs[None])[0]
        action = policy.means(obs[None])[0].astype(np.float64)
        if joining == "cubic":
            return yd, np.asarray(task.join(action))
        points = y + np.cumsum(action * task.action_scale, axis=0)
        if joining == "linear":
            lines = _lines(y, points, task)
            return lines[0, 1], lines
        fit = fit_segment(points, task.control_dt, y, yd)
        return yd, fit.motion.setpoints(task.segment_times)

    return plan


def _lines(y: Array, points: Array, task: ArmTask) -> Array:
    """Return setpoints (n_ticks, 3, dof) on the lines between way points (k, dof)."""
    knots = task.control_dt * np.arange(len(points) + 1)
    path = np.vstack((y, points))
    setpoints = np.zeros((len(task.segment_times), 3, len(y)))
    for joint, column in enumerate(path.T):
        setpoints[:, 0, joint] = np.interp(task.segment_times, knots, column)
    setpoints[:, 1] = np.repeat(np.diff(path, axis=0) / task.control_dt, task.ticks, axis=0)
    return setpoints


def _play(task: ArmTask, plan: Planner, seed: int) -> tuple[dict[str, Any], _Track]:
    """Return the figures of an episode and its track."""
    track, n = _Track(), task.robot.connect().n_arm
    end_segment = task.end_segment

    def watch(rewards: Array, setpoints: Array, measured: Array, moved: Any) -> Any:
        track.commanded.append(setpoints[:, 1, :n].copy())
        track.measured.append(measured[1, :, :n].copy())
        return end_segment(rewards, setpoints, measured, moved)

    obs, _ = task.reset(seed=seed)
    ydd = np.zeros(n)
    vars(task)["end_segment"] = watch
    try:
        while True:
            start, wanted = plan(task, obs)
            track.velocity_steps.append((start - task.setpoint[1])[:n])
            track.acceleration_steps.append(wanted[0, 2, :n] - ydd)
            obs, _, terminated, truncated, info = task.execute(wanted)
            ydd = task.tracked[-1, 2, :n].copy()
            if terminated or truncated:
                return info["outcome"], track
    finally:
        del vars(task)["end_segment"]


def _jerk(velocities: list[Array], tick: float) -> Array:
    """Return the second differences (n_ticks - 2, n_arm) of velocities [rad/s^3]."""
    return np.asarray(np.diff(np.concatenate(velocities), n=2, axis=0) / tick**2)


def _spread(name: str, values: list[Array]) -> dict[str, float]:
    """Return root mean square and largest size of values over all episodes."""
    every = np.concatenate(values)
    rms, peak = float(np.sqrt(np.mean(every**2))), float(np.abs(every).max())
    return {f"{name}_rms": rms, f"{name}_max": peak}
