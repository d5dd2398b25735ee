# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Make the environment that a task name and its options stand for.

Training, evaluation, the command line and the nodes all make their tasks here.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gymnasium
import yaml
from gymnasium.envs.registration import load_env_creator

from ndp_ros.errors import NdpError, TaskError, describe
from ndp_ros.tasks.contract import TaskEnvironment
from ndp_ros.tasks.metaworld import registry as metaworld_registry

NAMESPACE = "ndp_ros"

_BENCHMARK = re.compile(r"Meta-World/(?P<name>[a-z-]+)-v3")
"""Meta-World's own names of its tasks, which are played by the faster environment here."""
_POWER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
"""Numbers with a power of ten, of which YAML reads only some."""


@dataclass(frozen=True)
class TaskChoice:
    """A task with its options, as plain data that a worker process can be given.

    Attributes:
        task: A short name such as ``throw``, or any gymnasium id (``module:id``).
        k: Control steps per forward pass of phi.
        preset: Named configuration of the task; empty for a task without presets.
        options: Further keyword arguments as ``name=value``, the value in YAML.
        impedance: Coordinates that a policy controls by variable impedance, ``joints`` or
            ``hand``; its parameters may be among the options.
        embedding: File with the decoder of an embedding that a policy acts through.
    """

    task: str
    k: int
    preset: str = ""
    options: tuple[str, ...] = ()
    impedance: str = ""
    embedding: str = ""

    def make(self, **changes: Any) -> TaskEnvironment:
        """Return the environment; a task's module is also found in the working directory.

        Raises:
            TaskError: If there is no such task, its module has a mistake or it refuses an
                option.
        """
        here = str(Path.cwd())
        if ":" in self.task and here not in sys.path:
            sys.path.append(here)
        arguments: dict[str, Any] = {"k": self.k, **parse_options(self.options), **changes}
        if self.preset:
            arguments["preset"] = self.preset
        ranges: dict[str, Any] = {}
        if self.impedance:
            from ndp_ros.tasks.actions.impedance import ImpedanceConfig, with_impedance

            names = {f.name for f in dataclasses.fields(ImpedanceConfig)}
            ranges = {name: arguments.pop(name) for name in names & arguments.keys()}
        try:
            made = _make(self.task, disable_env_checker=True, **arguments)
        except NdpError:
            raise
        except (gymnasium.error.Error, ImportError) as error:
            missing = isinstance(error, ModuleNotFoundError)
            problem = describe(error) if missing else " ".join(str(error).split())
            raise TaskError(f"cannot make task {self.task!r}: {problem}") from error
        except Exception as error:
            raise TaskError(f"cannot make task {self.task!r}: {_hint(error, self.task)}") from error
        try:
            if self.impedance:
                task = with_impedance(made.unwrapped, self.impedance, ranges)
                return cast(TaskEnvironment, task)
            if self.embedding:
                from ndp_ros.tasks.actions.embedding import Decoder, EmbeddedActions

                decoder = Decoder.load(self.embedding)
                return cast(TaskEnvironment, EmbeddedActions(_task_in(made), decoder))
        except NdpError:
            made.close()
            raise
        return cast(TaskEnvironment, _task_in(made))


def _make(task: str, **arguments: Any) -> gymnasium.Env[Any, Any]:
    """Return an environment by its name: a task, or any other one in an ``NdpWrapper``."""
    from ndp_ros.tasks.wrapper import NdpWrapper, wrapper_options

    module, _, id_ = environment_id(task).rpartition(":")
    if module:
        importlib.import_module(module)
    spec = gymnasium.spec(id_)
    entry = spec.entry_point
    creator = entry if callable(entry) else load_env_creator(str(entry))
    options = wrapper_options(creator)
    if options is None:
        return gymnasium.make(spec, **arguments)
    if arguments.pop("preset", "default") != "default":
        raise TaskError(f"{task} has no presets: use --preset default")
    own = {name: arguments.pop(name) for name in ("k", *options) if name in arguments}
    return NdpWrapper(gymnasium.make(spec, **arguments), **own)


def _task_in(env: gymnasium.Env[Any, Any]) -> Any:
    """Return the part of an environment that is a task: the wrapper that makes it one, or all."""
    return env if hasattr(type(env), "execute") else env.unwrapped


def make(task: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """Return a task as a gymnasium environment.

    Observations are vectors ``(n_obs,)`` in SI units; an action ``(k, dof)`` is the displacement of
    the setpoint over each of k control steps in units of ``action_scale``.

    Args:
        task: A short name, see :func:`list_tasks`, or any gymnasium id (``module:id``).
        options: Keyword arguments of the task, such as ``k``, ``preset`` and ``render_mode``.

    Raises:
        TaskError: If there is no such task or it refuses an option.

    Example:
        >>> env = make("throw", k=5)
        >>> observation, info = env.reset(seed=0)
        >>> env.action_space.shape, observation.shape == env.observation_space.shape
        ((5, 7), True)
        >>> env.close()
    """
    try:
        return _make(task, **options)
    except NdpError:
        raise
    except Exception as error:
        raise TaskError(f"cannot make task {task!r}: {_hint(error, task)}") from error


def list_tasks() -> dict[str, str]:
    """Return the gymnasium id of every task of this package by its short name.

    Meta-World's tasks are listed whether or not its extra is installed.

    Example:
        >>> list_tasks()["throw"]
        'ndp_ros/Throw-v0'
    """
    import ndp_ros.tasks  # noqa: F401  (registers them)

    return {
        entry.name.lower(): id_
        for id_, entry in sorted(gymnasium.registry.items())
        if entry.namespace == NAMESPACE
    }


def described(error: BaseException, task: str) -> str:
    """Return an error in one line, with the place in the task's module where it comes from.

    Without a place there it is where the error was raised. A mistake in a task of one's own
    cannot be found without it: a process at work shows no traceback.
    """
    # Gymnasium raises anew what a constructor raises.
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    module = sys.modules.get(task.partition(":")[0])
    mine = [f for f in frames if f.filename == getattr(module, "__file__", None)]
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    last = (mine or frames)[-1:]
    return text + "".join(f" ({frame.filename}:{frame.lineno})" for frame in last)


def _hint(error: Exception, task: str) -> str:
    """Return what keeps a task from being made, and where it says what a task takes."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    if isinstance(error, TypeError) and "unexpected keyword argument" in str(error):
        return (
            f"{' '.join(str(error).split())}; a task takes k, preset (--preset '' for one without) "
            "and its options: see docs/own_task.md and, for the contract, docs/architecture.md"
        )
    return described(error, task)


def environment_id(task: str) -> str:
    """Return the gymnasium id of a task.

    Raises:
        TaskError: If a short name is unknown; the message lists those there are.
    """
    benchmark = _BENCHMARK.fullmatch(task)
    if benchmark and benchmark["name"] in metaworld_registry.TASKS:
        return metaworld_registry.gymnasium_id(benchmark["name"])
    if "/" in task or ":" in task or task in gymnasium.registry:
        return task
    known = list_tasks()
    if task not in known:
        raise TaskError.choice("task", task, known)
    return known[task]


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """Return ``name=value`` pairs as a mapping, values read as YAML.

    Raises:
        TaskError: If an option is no such pair.
    """
    parsed: dict[str, Any] = {}
    for option in options:
        name, sign, value = option.partition("=")
        if not sign or not name.isidentifier():
            raise TaskError(f"task option {option!r} is not name=value")
        try:
            # YAML takes 2e-2 for a text.
            parsed[name] = float(value) if _POWER.fullmatch(value) else yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise TaskError(f"task option {name}: {value!r} is no YAML value") from error
    return parsed


def over_options(under: Any, over: Any) -> Any:
    """Return ``name=value`` options with others over them by name, those first that are over.

    What is no list of texts is returned as it is, for its schema to refuse.
    """
    if not all(isinstance(o, list | tuple) for o in (under, over)):
        return over
    named = {str(option).partition("=")[0] for option in over}
    return [*over, *(o for o in under if str(o).partition("=")[0] not in named)]
