# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Find the processes that a launch file starts, by the interpreter that runs the nodes.

``ros2 launch`` runs launch files with the system's Python, which need not have the packages of the
nodes. It asks this module (``python3 -m ndp_ros.bringup.plan sim``): the path's ``python3``, which
starts the nodes too, is the one of an active virtual environment.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ndp_ros.bringup.arm import HardwareConfig, notice, processes
from ndp_ros.bringup.process import ProcessSpec
from ndp_ros.bringup.system import SimConfig, preflight, simulation
from ndp_ros.config import Field, from_mapping, leaves, nest, to_mapping
from ndp_ros.errors import ConfigError, NdpError, describe

PACKAGE = "ndp_ros"
SIM, HARDWARE = "sim", "hardware"
_CONFIGS: dict[str, type[SimConfig]] = {SIM: SimConfig, HARDWARE: HardwareConfig}
_TIMEOUT = 180.0
_OPTIONS_WITH_A_VALUE = ("--launch-prefix", "--launch-prefix-filter")


def config_of(kind: str) -> type[SimConfig]:
    """Return the class whose fields are the arguments of a kind of system."""
    return _CONFIGS[kind]


def from_text(cls: type[Any], values: Mapping[str, str]) -> Any:
    """Build a configuration from launch arguments, which are all text.

    Raises:
        ConfigError: If a value does not fit.
    """

    def value(p: Field) -> Any:
        text = values[p.name]
        return text if p.type is str else yaml.safe_load(text)

    given = {p.name: value(p) for p in leaves(cls) if p.name in values}
    return from_mapping(cls, nest(cls, given))


def plan(config: SimConfig) -> tuple[list[ProcessSpec], str]:
    """Check everything and return the processes to start, and a notice for the user.

    Raises:
        NdpError: If the system cannot run.
    """
    if isinstance(config, HardwareConfig):
        return processes(config), notice(config)
    return simulation(config, preflight(config)), ""


def ask(kind: str, config: SimConfig) -> tuple[list[ProcessSpec], str]:
    """Return the result of :func:`plan`, computed by the interpreter that runs the nodes.

    Raises:
        ConfigError: With the line that it prints.
    """
    python = shutil.which("python3") or sys.executable
    try:
        done = subprocess.run(
            [python, "-m", "ndp_ros.bringup.plan", kind],
            input=json.dumps(to_mapping(config)),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{python} cannot check the system: {error}") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"{python} ended without a message"]
        hint = ""
        if said[-1].startswith(("ModuleNotFoundError", "ImportError")):
            hint = (
                f" ({python} runs the nodes: activate its virtual environment before ros2 launch)"
            )
        raise ConfigError(said[-1] + hint)
    answer = json.loads(done.stdout.splitlines()[-1])
    specs = [
        ProcessSpec(
            **{
                **values,
                "remappings": tuple(tuple(r) for r in values["remappings"]),
                "arguments": tuple(values["arguments"]),
            }
        )
        for values in answer["processes"]
    ]
    return specs, str(answer["notice"])


def names_launch_file(command: Sequence[str], file: Path) -> bool:
    """Return whether a command line of ``ros2 launch`` starts a launch file itself.

    A launch file that another one includes is not named there, though both may have one name.

    Args:
        command: Such as ``["ros2", "launch", "ndp_ros", "sim.launch.py", "rate:=500"]``.
        file: The launch file that is being executed.
    """
    words: list[str] = []
    given = iter(command[1:])
    for word in given:
        if word in _OPTIONS_WITH_A_VALUE:
            next(given, None)
        elif not word.startswith("-") and (words or word != "launch"):
            words.append(word)
    if words and Path(words[0]).is_file():
        return file.exists() and Path(words[0]).samefile(file)
    return words[:2] == [PACKAGE, file.name]


def main(arguments: Sequence[str]) -> int:
    """Print the plan as one line of JSON, or the error as one line on standard error."""
    try:
        config = from_mapping(config_of(arguments[0]), json.loads(sys.stdin.read()))
        specs, text = plan(config)
    except NdpError as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return 2
    except (ImportError, OSError) as error:
        sys.stderr.write(
            f"{describe(error)} ({sys.executable} runs the nodes: activate its virtual environment "
            "before ros2 launch)\n"
        )
        return 2
    # The environment may hold a password: this goes through a pipe to the launch.
    answer = {"processes": [dataclasses.asdict(spec) for spec in specs], "notice": text}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
