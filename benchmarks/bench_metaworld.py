# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Measure Meta-World's steps per second: stock environment, fast environment, task on top.

Stock and fast play the same episodes with the same random actions, in turn and 100 steps
at a time, so that a busy machine slows both alike. Every observation, reward and success
flag is compared. Figures are steps per second of CPU time of one thread, the median over
the turns; a ratio is the median of the turns' ratios.

    python benchmarks/bench_metaworld.py                                 # push
    python benchmarks/bench_metaworld.py --tasks push soccer faucet-open --episodes 10
    python benchmarks/bench_metaworld.py --tasks all --rewards v1 v2 --episodes 1

Progress goes to standard error; standard output ends with one JSON object. The exit
status is 1 if any number differs between stock and fast.
"""

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from typing import Any

from ndp_ros.processes import SINGLE_THREADED

os.environ.update(SINGLE_THREADED)

import numpy as np
from numpy.typing import NDArray

from ndp_ros.errors import NdpError, TaskError
from ndp_ros.tasks.metaworld.config import HORIZON, REWARDS
from ndp_ros.tasks.metaworld.environment import MetaWorld
from ndp_ros.tasks.metaworld.registry import TASKS
from ndp_ros.tasks.metaworld.scene import draw_goal, make_simulation

TURN = 100
Array = NDArray[np.float64]


def native_action(rng: np.random.Generator, obs: Array) -> NDArray[np.float32]:
    """Return a native action (4,): random, in half of the calls towards the object."""
    action = rng.uniform(-1, 1, 4)
    if rng.random() < 0.5:
        action[:3] = np.clip(10 * (obs[4:7] - obs[:3]), -1, 1)
    return action.astype(np.float32)


def compare(task: str, reward: str, episodes: int) -> dict[str, Any]:
    """Return the speeds of the stock and the fast environment and the number of unequal steps."""
    stock, fast = make_simulation(task, reward, stock=True), make_simulation(task, reward)
    seconds: dict[str, list[tuple[float, float]]] = {"reset": [], "step": []}
    # a row per turn: stock, fast
    differ = 0
    for episode in range(episodes):
        start = time.process_time()
        obs = draw_goal(stock, np.random.default_rng(episode))
        middle = time.process_time()
        fast_obs = draw_goal(fast, np.random.default_rng(episode))
        seconds["reset"].append((middle - start, time.process_time() - middle))
        differ += int(not np.array_equal(obs, fast_obs))
        rng = np.random.default_rng([episode, 1])
        for _ in range(HORIZON // TURN):
            actions, seen, spent = [], [], [0, 0]
            for _ in range(TURN):
                actions.append(native_action(rng, obs))
                start = time.process_time_ns()
                obs, value, _, _, info = stock.step(actions[-1])
                spent[0] += time.process_time_ns() - start
                seen.append((obs, value, info["success"]))
            for action, (obs, *expected) in zip(actions, seen, strict=True):
                start = time.process_time_ns()
                fast_obs, value, _, _, info = fast.step(action)
                spent[1] += time.process_time_ns() - start
                same = np.array_equal(obs, fast_obs) and expected == [value, info["success"]]
                differ += int(not same)
            seconds["step"].append((spent[0] / TURN / 1e9, spent[1] / TURN / 1e9))
    stock.close()
    fast.close()
    steps, resets = np.array(seconds["step"]), np.array(seconds["reset"])
    names = ("stock", "fast")
    return {
        "steps_per_second": dict(
            zip(names, np.round(1 / np.median(steps, axis=0)).tolist(), strict=True)
        ),
        "ratio": round(float(np.median(steps[:, 0] / steps[:, 1])), 2),
        "reset_ms": dict(
            zip(names, np.round(1e3 * np.median(resets, axis=0), 1).tolist(), strict=True)
        ),
        "steps_compared": episodes * HORIZON,
        "steps_that_differ": differ,
    }


def task_speed(task: str, episodes: int, **arguments: Any) -> int:
    """Return the control steps per second of a task, resets included."""
    env = MetaWorld(task, **arguments)
    rng = np.random.default_rng(0)
    speeds = []
    for episode in range(episodes):
        start = time.process_time()
        env.reset(seed=episode)
        for _ in range(HORIZON // env.k):
            env.step(rng.uniform(-1, 1, (env.k, 4)))
        speeds.append(HORIZON / (time.process_time() - start))
    env.close()
    return round(float(np.median(speeds)))


def main() -> int:
    """Run the comparison and print one JSON object; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=__doc__.split("\n\n", 2)[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tasks", nargs="+", default=["push"], help="names, or all")
    parser.add_argument("--rewards", nargs="+", default=["v2"], choices=REWARDS)
    parser.add_argument("--episodes", type=int, default=4, help="episodes of 500 steps each")
    parser.add_argument("--no-task", action="store_true", help="leave out the task on top")
    arguments = parser.parse_args()
    tasks = list(TASKS) if arguments.tasks == ["all"] else arguments.tasks
    if arguments.episodes < 1:
        parser.error(f"--episodes is {arguments.episodes}: at least 1")
    result: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "arch": platform.machine()},
        "versions": {name: version(name) for name in ("metaworld", "mujoco", "numpy")},
        "tasks": {},
    }
    differ = 0
    try:
        for task in tasks:
            if task not in TASKS:
                raise TaskError.choice("task", task, (*TASKS, "all"))
        for number, task in enumerate(tasks, 1):
            row: dict[str, Any] = {}
            result["tasks"][task] = row
            for reward in arguments.rewards:
                print(
                    f"{number}/{len(tasks)} {task} {reward}", end=" ", file=sys.stderr, flush=True
                )
                row[reward] = compare(task, reward, arguments.episodes)
                differ += row[reward]["steps_that_differ"]
                print(f"{row[reward]['ratio']:.2f} times stock", file=sys.stderr, flush=True)
            if not arguments.no_task:
                row["task_steps_per_second"] = {
                    "k=5 stale": task_speed(task, arguments.episodes, k=5),
                    "k=5 fresh": task_speed(task, arguments.episodes, k=5, stale=False),
                    "k=1": task_speed(task, arguments.episodes, k=1),
                }
    except NdpError as error:
        print(error, file=sys.stderr)
        return 2
    ratios = [
        row[reward]["ratio"] for row in result["tasks"].values() for reward in arguments.rewards
    ]
    result["ratio"] = {"least": min(ratios), "median": round(float(np.median(ratios)), 2)}
    result["steps_that_differ"] = differ
    print(json.dumps(result))
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
