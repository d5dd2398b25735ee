"""What a launch file starts, found by the interpreter that runs the nodes.

``ros2 launch`` runs launch files with the system's Python, which need not have what the nodes
need. It asks this module (``python3 -m ndp_ros.plan sim``), as the nodes' scripts are started by
``python3`` of the path too: in an active virtual environment its own.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ndp_ros.bringup import ProcessSpec, SimConfig, preflight, simulation
from ndp_ros.config import from_mapping, to_mapping
from ndp_ros.errors import ConfigError, NdpError, describe
from ndp_ros.hardware import HardwareConfig, notice, processes

SIM, HARDWARE = "sim", "hardware"
_CONFIGS: dict[str, type[Any]] = {SIM: SimConfig, HARDWARE: HardwareConfig}
_TIMEOUT = 180.0


def config_of(kind: str) -> type[Any]:
    """Return the class whose fields are the arguments of a kind of system."""
    return _CONFIGS[kind]


def plan(kind: str, config: Any) -> tuple[list[ProcessSpec], str]:
    """Check everything and return what is to be started, and what the user is told first.

    Raises:
        NdpError: If anything can be known to go wrong.
    """
    if kind == SIM:
        return simulation(config, preflight(config)), ""
    return processes(config), notice(config)


def ask(kind: str, config: Any) -> tuple[list[ProcessSpec], str]:
    """Return what :func:`plan` returns, found by the interpreter that runs the nodes.

    Raises:
        ConfigError: With the line that it says.
    """
    python = shutil.which("python3") or sys.executable
    try:
        done = subprocess.run(
            [python, "-m", "ndp_ros.plan", kind], input=json.dumps(to_mapping(config)),
            capture_output=True, text=True, timeout=_TIMEOUT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{python} cannot check the system: {error}") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"{python} ended without a word"]
        hint = ""
        if said[-1].startswith(("ModuleNotFoundError", "ImportError")):
            hint = (
                f" ({python} runs the nodes: activate its virtual environment before ros2 launch)"
            )
        raise ConfigError(said[-1] + hint)
    answer = json.loads(done.stdout.splitlines()[-1])
    specs = [
        ProcessSpec(**{**values, "remappings": tuple(tuple(r) for r in values["remappings"])})
        for values in answer["processes"]
    ]
    return specs, str(answer["notice"])


def main(arguments: Sequence[str]) -> int:
    """Answer with one line of JSON, or say in one line what is wrong."""
    try:
        config = from_mapping(config_of(arguments[0]), json.loads(sys.stdin.read()))
        specs, text = plan(arguments[0], config)
    except NdpError as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return 2
    except (ImportError, OSError) as error:
        sys.stderr.write(
            f"{describe(error)} ({sys.executable} runs the nodes: activate its virtual environment "
            "before ros2 launch)\n"
        )
        return 2
    # Among the variables may be a password: this goes through a pipe, to the launch alone.
    answer = {"processes": [dataclasses.asdict(spec) for spec in specs], "notice": text}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
