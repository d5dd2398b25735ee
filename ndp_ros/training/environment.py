"""Which environment a task name stands for, and what a policy must know of it."""

from __future__ import annotations

import dataclasses
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import gymnasium
import numpy as np
import yaml
from numpy.typing import NDArray

from ndp_ros.errors import NdpError, TaskError, describe
from ndp_ros.observation import ObservationField

Array = NDArray[np.float64]
Step = tuple[Array, float, bool, bool, dict[str, Any]]

NAMESPACE = "ndp_ros"

_POWER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
"""Numbers with a power of ten, of which YAML reads only some."""


class TaskEnvironment(Protocol):
    """The contract of ``docs/architecture.md``: k control steps a ``step``.

    Attributes:
        fields: What the observation holds, in order.
        joint_names: Joints of an action.
        action_scale: Displacement ``(dof,)`` of one action unit over a control step [rad].
        control_dt: Control step [s].
        k: Control steps per ``step``.
        tick: Period of Ω [s].
        segment_times: When the setpoints given to ``execute`` are due ``(n_ticks,)`` [s].
        arm: Name of the arm.
    """

    fields: tuple[ObservationField, ...]
    joint_names: tuple[str, ...]
    action_scale: Array
    control_dt: float
    k: int
    tick: float
    segment_times: Array
    arm: str

    def reset(self, *, seed: int | None = None) -> tuple[Array, dict[str, Any]]:
        """Start an episode; the seed alone decides its start state."""
        ...

    def step(self, action: Array) -> Step:
        """Run k control steps along an action ``(k, dof)``."""
        ...

    def execute(self, setpoints: Array) -> Step:
        """Run k control steps along setpoints ``(n_ticks, 3, dof)``."""
        ...

    def render(self) -> NDArray[np.uint8] | None:
        """Return a picture ``(height, width, 3)``."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


@runtime_checkable
class Explorable(Protocol):
    """An environment with setpoints of its own, whose ticks are finer than its control steps.

    Attributes:
        setpoint: Position and velocity (dof,) that the next segment starts from, which may
            be further on than those of the observation.
    """

    @property
    def setpoint(self) -> tuple[Array, Array]:
        """Return the present setpoint."""
        ...

    def deviation(self, action: Array) -> Array:
        """Return what displacements ``(k, dof)`` add to setpoints ``(n_ticks, 3, dof)``."""
        ...


class Crowd(Protocol):
    """Environments that advance side by side, faster than one after the other."""

    def step(self, actions: Sequence[Array]) -> list[Step]:
        """Run ``step`` of every environment."""
        ...

    def execute(self, setpoints: Sequence[Array]) -> list[Step]:
        """Run ``execute`` of every environment."""
        ...


class OneByOne:
    """Environments of any kind, one after the other."""

    def __init__(self, envs: Sequence[TaskEnvironment]) -> None:
        self._envs = tuple(envs)

    def step(self, actions: Sequence[Array]) -> list[Step]:
        """Run ``step`` of every environment."""
        return [env.step(action) for env, action in zip(self._envs, actions, strict=True)]

    def execute(self, setpoints: Sequence[Array]) -> list[Step]:
        """Run ``execute`` of every environment."""
        return [env.execute(s) for env, s in zip(self._envs, setpoints, strict=True)]


def crowd(envs: Sequence[TaskEnvironment]) -> Crowd:
    """Return environments of one kind as a crowd, side by side if their class can do that."""
    together = getattr(type(envs[0]), "together", None)
    made: Crowd = OneByOne(envs) if together is None or len(envs) == 1 else together(envs)
    return made


@dataclass(frozen=True)
class TaskChoice:
    """A task with its options, as plain data that a worker process can be given.

    Attributes:
        task: A short name such as ``throw``, or any gymnasium id (``module:id``).
        k: Control steps per forward pass of phi.
        preset: Named configuration of the task; empty for a task without presets.
        options: Further keyword arguments as ``name=value``, the value in YAML.
        impedance: Coordinates that a policy controls by variable impedance, a name of
            ``ndp_ros.tasks.impedance.SPACES``; its parameters may be among the options.
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
            from ndp_ros.tasks.impedance import ImpedanceConfig, control

            names = {f.name for f in dataclasses.fields(ImpedanceConfig)}
            ranges = {name: arguments.pop(name) for name in names & arguments.keys()}
        try:
            made = gymnasium.make(environment_id(self.task), disable_env_checker=True, **arguments)
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
                return cast(TaskEnvironment, control(made.unwrapped, self.impedance, ranges))
            if self.embedding:
                from ndp_ros.tasks.embedding import Decoder, EmbeddedActions

                decoder = Decoder.load(self.embedding)
                return cast(TaskEnvironment, EmbeddedActions(made.unwrapped, decoder))
        except NdpError:
            made.close()
            raise
        return cast(TaskEnvironment, made.unwrapped)


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
    if "/" in task or ":" in task:
        return task
    known = task_ids()
    if task not in known:
        raise TaskError.choice("task", task, known)
    return known[task]


def task_ids() -> dict[str, str]:
    """Return the gymnasium id of every task of this package by its short name."""
    import ndp_ros.tasks  # noqa: F401  (registers them)

    return {
        entry.name.lower(): id_
        for id_, entry in sorted(gymnasium.registry.items())
        if entry.namespace == NAMESPACE
    }


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
    """Return options with others over them by name, those first that are over.

    Args:
        under: ``name=value`` each.
        over: The same; what is no list of texts is returned as it is, for its schema to refuse.
    """
    if not all(isinstance(o, list | tuple) for o in (under, over)):
        return over
    named = {str(option).partition("=")[0] for option in over}
    return [*over, *(o for o in under if str(o).partition("=")[0] not in named)]
