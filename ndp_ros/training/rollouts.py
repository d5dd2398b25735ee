"""Roll-outs in worker processes: one message a batch, everything else in shared memory.

Each worker holds some of the environments and its own copy of the policy, in numpy.
The learner writes the parameters to shared memory and asks for a batch; the workers
act, step and write observations, actions and rewards where the learner reads them.

A run depends on its seed alone. Noise and start states come from generators keyed by
(seed, environment, batch) and (seed, environment, episode), so that a resumed run needs
no generator's state. The block of memory has no name and disappears with its last user,
a worker that loses the learner ends, and a lost worker ends the run with one error.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ndp_ros.errors import NdpError, TrainingError
from ndp_ros.observation import observation_size
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import LOG_STD, Layout, initial_tensors
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.training.environment import (
    Explorable,
    Step,
    TaskChoice,
    TaskEnvironment,
    crowd,
    described,
)
from ndp_ros.training.evaluation import Episode, planned, run_episodes
from ndp_ros.training.exploration import WindowNoise

Array = NDArray[Any]

_ALIGNMENT = 64
_START_TIMEOUT = 120.0
_NOISE, _START = 1, 2
"""What a generator is for; part of its key."""


@dataclass(frozen=True)
class Plan:
    """Who does what: plain data that every worker gets.

    Attributes:
        choice: The task.
        spec: The policy.
        seed: Seed of the run.
        environments: Number of environments.
        windows: Windows per environment and batch.
        workers: Number of processes.
        noise_correlation: Of a window's noise, from one action to the next.
    """

    choice: TaskChoice
    spec: PolicySpec
    seed: int
    environments: int
    windows: int
    workers: int
    noise_correlation: float = 0.0

    def share(self, worker: int) -> range:
        """Return the environments of a worker."""
        edges = np.linspace(0, self.environments, self.workers + 1).astype(int)
        return range(edges[worker], edges[worker + 1])


class Block:
    """Named arrays in one anonymous block of shared memory."""

    def __init__(self, plan: Plan, memory: Any = None) -> None:
        """Lay the arrays out in given memory, or in new memory."""
        T, E = plan.windows, plan.environments
        n_obs, k, dof = observation_size(plan.spec.observation), plan.spec.k, plan.spec.dof
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "flat": ((Layout(plan.spec).size,), np.float32),
            "mean": ((n_obs,), np.float64),
            "variance": ((n_obs,), np.float64),
            "obs": ((T, E, n_obs), np.float64),
            "next_obs": ((T, E, n_obs), np.float64),
            "actions": ((T, E, k, dof), np.float32),
            "rewards": ((T, E, k), np.float64),
            "terminated": ((T, E), np.bool_),
            "ended": ((T, E), np.bool_),
            "episodes": ((E,), np.int64),
        }
        starts, size = {}, 0
        for name, (shape, kind) in shapes.items():
            starts[name] = size
            size += -(-int(np.prod(shape)) * np.dtype(kind).itemsize // _ALIGNMENT) * _ALIGNMENT
        context = multiprocessing.get_context("spawn")
        self.memory = context.RawArray(ctypes.c_byte, size) if memory is None else memory
        view = memoryview(self.memory)
        arrays: dict[str, Array] = {
            name: np.frombuffer(view, kind, int(np.prod(shape)), starts[name]).reshape(shape)
            for name, (shape, kind) in shapes.items()
        }
        self.flat, self.mean, self.variance = arrays["flat"], arrays["mean"], arrays["variance"]
        self.obs, self.next_obs = arrays["obs"], arrays["next_obs"]
        self.actions, self.rewards = arrays["actions"], arrays["rewards"]
        self.terminated, self.ended = arrays["terminated"], arrays["ended"]
        self.episodes = arrays["episodes"]


class Rollouts:
    """The learner's side: start workers, collect batches, evaluate, close.

    Attributes:
        block: What the last batch holds.
    """

    def __init__(self, plan: Plan, mine: range | None = None) -> None:
        """Start the workers and build their environments.

        Args:
            plan: Who does what.
            mine: The workers to start, where others run elsewhere; ``None`` for all.

        Raises:
            TrainingError: If a worker cannot build its environments.
        """
        self.plan = plan
        self.block = Block(plan)
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        context = multiprocessing.get_context("spawn")
        try:
            with _single_threaded(), _undisturbed():
                for index in range(plan.workers) if mine is None else mine:
                    ours, theirs = context.Pipe()
                    process = context.Process(
                        target=work, args=(plan, index, self.block.memory, theirs),
                        name=f"ndp-rollouts-{index}", daemon=True,
                    )  # fmt: skip
                    process.start()
                    theirs.close()
                    self._processes.append(process)
                    self._pipes.append(ours)
            self._gather(time.monotonic() + _START_TIMEOUT)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Rollouts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [process.pid for process in self._processes if process.pid is not None]

    def publish(self, policy: ArrayPolicy) -> None:
        """Give the workers the present parameters and statistics."""
        self.block.flat[:] = policy.flat
        self.block.mean[:] = policy.mean
        self.block.variance[:] = policy.variance

    def collect(self, batch: int, fresh: bool) -> list[Episode]:
        """Fill the block with a batch and return the episodes that ended in it.

        Args:
            batch: Number of the batch, which keys the noise.
            fresh: Whether all environments start a new episode first.

        Raises:
            TrainingError: If a worker dies or an environment fails.
        """
        return self._ask("collect", [(batch, fresh)] * len(self._pipes))

    def evaluate(self, seeds: Sequence[int]) -> list[Episode]:
        """Run one deterministic episode per seed, spread over the workers.

        Afterwards the environments must start anew: collect with ``fresh``.

        Raises:
            TrainingError: If a worker dies or an environment fails.
        """
        shares = [list(part) for part in np.array_split(np.array(seeds), len(self._pipes))]
        return self._ask("evaluate", shares)

    def close(self) -> None:
        """End the workers; may be called twice."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(1.0)
            if process.is_alive():
                process.terminate()
                process.join(2.0)
            if process.is_alive():
                process.kill()
                process.join()
        self._pipes, self._processes = [], []

    def _ask(self, verb: str, arguments: Sequence[Any]) -> list[Episode]:
        for pipe, argument in zip(self._pipes, arguments, strict=True):
            with contextlib.suppress(OSError):
                pipe.send((verb, argument))
        return self._gather(None)

    def _gather(self, deadline: float | None) -> list[Episode]:
        """Return all workers' answers in order, or raise as soon as one fails."""
        answers: dict[int, list[Episode]] = {}
        while len(answers) < len(self._pipes):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            pending = [pipe for i, pipe in enumerate(self._pipes) if i not in answers]
            ready = wait([*pending, *(p.sentinel for p in self._processes)], left)
            if not ready:
                raise TrainingError(f"roll-out workers did not start in {_START_TIMEOUT:.0f} s")
            for pipe in pending:
                if pipe in ready:
                    index = self._pipes.index(pipe)
                    answers[index] = self._receive(index)
            for process in self._processes:
                if process.sentinel in ready and not process.is_alive():
                    raise TrainingError(_obituary(process))
        return [episode for index in sorted(answers) for episode in answers[index]]

    def _receive(self, index: int) -> list[Episode]:
        try:
            verb, content = self._pipes[index].recv()
        except (EOFError, OSError) as error:
            self._processes[index].join(2.0)
            raise TrainingError(_obituary(self._processes[index])) from error
        if verb == "error":
            raise TrainingError(content)
        episodes: list[Episode] = content
        return episodes


def work(plan: Plan, index: int, memory: Any, pipe: Connection) -> None:
    """Serve the learner from a process of its own until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError, OSError):
        try:
            worker = Worker(plan, index, memory)
            pipe.send(("ready", []))
            while True:
                verb, argument = pipe.recv()
                if verb == "collect":
                    pipe.send(("episodes", worker.collect(*argument)))
                else:
                    pipe.send(("episodes", worker.evaluate(argument)))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except NdpError as error:
            pipe.send(("error", str(error)))
        except Exception as error:
            text = described(error, plan.choice.task)
            pipe.send(("error", f"roll-out worker {index}: {text}"))


class Worker:
    """The worker's side: some environments and a copy of the policy."""

    def __init__(self, plan: Plan, index: int, memory: Any) -> None:
        self._plan = plan
        self._block = Block(plan, memory)
        self._mine = plan.share(index)
        self._environments: list[TaskEnvironment] = [plan.choice.make() for _ in self._mine]
        self._crowd = crowd(self._environments)
        self._obs = np.zeros((len(self._mine), observation_size(plan.spec.observation)))
        self._returns = np.zeros(len(self._mine))
        self._policy = ArrayPolicy(plan.spec, initial_tensors(plan.spec, 0))
        self._noise = WindowNoise(plan.spec.k, plan.noise_correlation)

    def collect(self, batch: int, fresh: bool) -> list[Episode]:
        """Write the windows of one batch and return the episodes that ended."""
        plan, block, mine = self._plan, self._block, self._mine
        rows = slice(mine.start, mine.stop)
        self._update_policy()
        if fresh:
            for i in range(len(mine)):
                self._reset(i)
        noise = np.stack([
            np.random.default_rng([plan.seed, _NOISE, e, batch]).standard_normal(
                (plan.windows, plan.spec.k, plan.spec.dof), dtype=np.float32
            )
            for e in mine
        ], axis=1)  # fmt: skip
        noise = np.moveaxis(self._noise.colour(np.moveaxis(noise, 2, 0)), 0, 2)
        noise *= np.exp(self._policy.parameters[LOG_STD])
        episodes: list[Episode] = []
        for t in range(plan.windows):
            block.obs[t, rows] = self._obs
            block.actions[t, rows] = self._policy.means(self._obs) + noise[t]
            steps = self._explore(block.actions[t, rows], noise[t])
            for (i, e), step in zip(enumerate(mine), steps, strict=True):
                obs, reward, terminated, truncated, info = step
                self._check(obs, info["rewards"], e)
                self._returns[i] += reward
                ended = terminated or truncated
                block.next_obs[t, e] = self._obs[i] = obs
                block.rewards[t, e] = info["rewards"]
                block.terminated[t, e] = terminated
                block.ended[t, e] = ended
                if ended:
                    episodes.append({**info["outcome"], "return": self._returns[i]})
                    self._reset(i)
        return episodes

    def _explore(self, actions: Array, noise: Array) -> list[Step]:
        """Advance every environment by one window of noisy actions (e, k, dof).

        An NDP's window is the segment itself, the very function of time that the streamer
        runs, plus the noise; way points joined otherwise would teach other velocities.
        """
        spec, environments = self._plan.spec, self._environments
        if spec.method != "ndp" or not isinstance(environments[0], Explorable):
            return self._crowd.step(list(actions.astype(np.float64)))
        segments = planned(self._policy, environments, self._obs)
        return self._crowd.execute([
            setpoints + cast(Explorable, env).deviation(noise[i])
            for i, (env, setpoints) in enumerate(zip(environments, segments, strict=True))
        ])  # fmt: skip

    def evaluate(self, seeds: Sequence[int]) -> list[Episode]:
        """Run one deterministic episode per seed."""
        self._update_policy()
        return run_episodes(self._environments, self._crowd, self._policy, seeds)

    def _update_policy(self) -> None:
        self._policy.flat[:] = self._block.flat
        self._policy.mean[:] = self._block.mean
        self._policy.variance[:] = self._block.variance

    def _reset(self, i: int) -> None:
        e = self._mine[i]
        number = int(self._block.episodes[e])
        self._block.episodes[e] += 1
        key = np.random.SeedSequence([self._plan.seed, _START, e, number])
        obs, _ = self._environments[i].reset(seed=int(key.generate_state(1)[0]) >> 1)
        self._check(obs, np.zeros(1), e)
        self._obs[i] = obs
        self._returns[i] = 0.0

    def _check(self, obs: Array, rewards: Array, environment: int) -> None:
        if np.isfinite(obs).all() and np.isfinite(rewards).all():
            return
        start, names = 0, []
        for f in self._plan.spec.observation:
            if not np.isfinite(obs[start : start + f.size]).all():
                names.append(f.name)
            start += f.size
        what = f"observation {', '.join(names)}" if names else "reward"
        raise TrainingError(f"environment {environment}: {what} is not finite")


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let child processes leave Ctrl-C to this one, from their first instruction on."""
    # Whoever starts this helper unblocks the signal, so it is there before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Let child processes use one BLAS thread each; the products are too small for more."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _obituary(process: BaseProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"ended with status {code}"
    return f"roll-out worker {process.name} {how}; the last checkpoint is intact, use --resume"
