# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The control port: experiments with the emulated arm by tests and people.

One JSON object per line each way: ``{"do": "network", "loss": 0.05}`` is answered by
``{"ok": ...}`` or ``{"error": "..."}``. The port is not part of Kortex.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

from ndp_ros.arms.kortex.codes import ActuatorFault
from ndp_ros.config import from_mapping
from ndp_ros.emulator.config import NetworkConfig
from ndp_ros.emulator.network import Network
from ndp_ros.emulator.robot import Robot
from ndp_ros.emulator.sessions import Sessions
from ndp_ros.errors import ArmError, NdpError


class Control:
    """The commands of the control port."""

    def __init__(self, robot: Robot, sessions: Sessions, network: Network) -> None:
        """Offer what can be done to the emulated arm."""
        self._robot, self._sessions, self._network = robot, sessions, network
        self._commands: dict[str, Callable[..., Any]] = {
            "state": self._state,
            "record": robot.record.summary,
            "rows": self._rows,
            "clear": robot.record.clear,
            "network": self._configure_network,
            "cut_udp": lambda seconds: network.cut(time.monotonic() + float(seconds)),
            "cut_tcp": sessions.hang_up_streams,
            "fault": self._fault,
            "end_sessions": sessions.end_all,
            "reset": lambda seed=0: robot.reset_scene(int(seed)),
            "tool": lambda connected: robot.connect_tool(bool(connected)),
            "objects": lambda: {name: pose.tolist() for name, pose in robot.objects().items()},
            "pause": self._pause,
        }

    def answer(self, line: bytes) -> dict[str, Any]:
        """Carry out the command in a line and return its answer."""
        try:
            request = json.loads(line)
            name = request.pop("do")
            if name not in self._commands:
                raise ArmError.choice("do", name, self._commands)
            answer = {"ok": self._commands[name](**request)}
            json.dumps(answer, allow_nan=False)
            return answer
        except NdpError as error:
            return {"error": str(error)}
        except Exception as error:
            # Any bytes may arrive here, and the emulated arm goes on.
            return {"error": f"{type(error).__name__}: {str(error)[:200]}"}

    def _state(self) -> dict[str, Any]:
        robot = self._robot
        return {
            "time": robot.time,
            "position": robot.position.tolist(),
            "velocity": robot.velocity.tolist(),
            "torque": robot.servos.torque.tolist(),
            "gripper": robot.gripper.closed,
            "servoing": robot.servoing.name,
            "state": robot.state.name,
            "control_modes": [mode.name for mode in robot.control_modes],
            "faults": [_names(bank) for bank in robot.faults.actuators.tolist()],
            "warnings": [_names(bank) for bank in robot.faults.warnings.tolist()],
            "base_faults": robot.faults.base,
            "sessions": sum(1 for peer in self._sessions.peers if peer.session),
            "slipped": robot.slipped,
            "lost": self._network.lost,
            "delayed": self._network.delayed,
        }

    def _rows(self, newest: int = 10_000) -> list[list[float | None]]:
        rows = self._robot.record.rows()[-max(int(newest), 1) :].tolist()
        # JSON has no NaN.
        return [[None if value != value else value for value in row] for row in rows]

    def _configure_network(self, **settings: Any) -> None:
        config = dataclasses.asdict(self._network.config)
        self._network.configure(from_mapping(NetworkConfig, {**config, **settings}))

    def _fault(self, actuator: int, name: str) -> None:
        if name not in ActuatorFault.__members__:
            raise ArmError.choice("fault", name, ActuatorFault.__members__)
        if not 0 <= actuator < self._robot.n:
            raise ArmError(f"actuator {actuator}: there are {self._robot.n}")
        self._robot.trip(actuator, ActuatorFault[name])

    def _pause(self, seconds: float) -> None:
        """Stop answering, as a base that hangs would."""
        time.sleep(min(max(float(seconds), 0.0), 5.0))


def _names(bank: int) -> list[str]:
    return [fault.name or "" for fault in ActuatorFault if bank & fault]
