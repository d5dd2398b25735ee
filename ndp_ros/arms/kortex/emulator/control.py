"""The port for experiments: what a test or a person may do to the emulated arm.

One JSON object a line each way: ``{"do": "network", "loss": 0.05}`` is answered by
``{"ok": ...}`` or ``{"error": "..."}``. It is no part of Kortex.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ndp_ros.arms.kortex.codes import ActuatorFault
from ndp_ros.arms.kortex.emulator.config import NetworkConfig
from ndp_ros.config import from_mapping
from ndp_ros.errors import ArmError, NdpError

if TYPE_CHECKING:
    from ndp_ros.arms.kortex.emulator.server import Emulator


class Control:
    """Answers the commands of the port for experiments."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._commands: dict[str, Callable[..., Any]] = {
            "state": self._state,
            "record": self._record,
            "rows": self._rows,
            "clear": self._clear,
            "network": self._network,
            "cut_udp": self._cut_udp,
            "cut_tcp": self._cut_tcp,
            "fault": self._fault,
            "end_sessions": self._emulator.sessions.end_all,
            "reset": self._reset,
            "tool": self._tool,
            "objects": self._objects,
            "pause": self._pause,
        }

    def answer(self, line: bytes) -> dict[str, Any]:
        """Carry out one line and return its answer."""
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
            # Anybody may write anything here, and the emulated arm goes on.
            return {"error": f"{type(error).__name__}: {str(error)[:200]}"}

    def _state(self) -> dict[str, Any]:
        robot, network = self._emulator.robot, self._emulator.network
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
            "sessions": sum(1 for peer in self._emulator.sessions.peers if peer.session),
            "slipped": self._emulator.slipped,
            "lost": network.lost,
            "delayed": network.delayed,
        }

    def _record(self) -> dict[str, Any]:
        return self._emulator.robot.record.summary()

    def _rows(self, newest: int = 10_000) -> list[list[float | None]]:
        rows = self._emulator.robot.record.rows()[-max(int(newest), 1) :].tolist()
        # Not a number is no JSON.
        return [[None if value != value else value for value in row] for row in rows]

    def _clear(self) -> None:
        self._emulator.robot.record.clear()

    def _network(self, **settings: Any) -> None:
        config = dataclasses.asdict(self._emulator.network.config)
        self._emulator.network.configure(from_mapping(NetworkConfig, {**config, **settings}))

    def _cut_udp(self, seconds: float) -> None:
        self._emulator.network.cut(time.monotonic() + float(seconds))

    def _cut_tcp(self) -> None:
        self._emulator.cut_streams()

    def _fault(self, actuator: int, name: str) -> None:
        if name not in ActuatorFault.__members__:
            raise ArmError.choice("fault", name, ActuatorFault.__members__)
        if not 0 <= actuator < self._emulator.robot.n:
            raise ArmError(f"actuator {actuator}: there are {self._emulator.robot.n}")
        self._emulator.robot.trip(actuator, ActuatorFault[name])

    def _reset(self, seed: int = 0) -> None:
        self._emulator.robot.reset_scene(int(seed))

    def _tool(self, connected: bool) -> None:
        """Take the gripper off its cable, or put it back."""
        self._emulator.robot.connect_tool(bool(connected))

    def _objects(self) -> dict[str, list[float]]:
        return {name: pose.tolist() for name, pose in self._emulator.robot.objects().items()}

    def _pause(self, seconds: float) -> None:
        """Stop answering, as a base that hangs would."""
        time.sleep(min(max(float(seconds), 0.0), 5.0))


def _names(bank: int) -> list[str]:
    return [fault.name or "" for fault in ActuatorFault if bank & fault]


class ControlClient:
    """The other end of the port for experiments.

    ``client.do("network", loss=0.3)`` returns what the emulator answers.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", timeout: float = 10.0) -> None:
        self._socket = socket.create_connection((host, port), timeout)
        self._file = self._socket.makefile("rwb")

    def do(self, command: str, **arguments: Any) -> Any:
        """Carry out one command.

        Raises:
            ArmError: If the emulator refuses it or is gone.
        """
        try:
            self._file.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
            self._file.flush()
            line = self._file.readline()
        except OSError as error:
            raise ArmError(f"the emulator does not answer: {error}") from error
        if not line:
            raise ArmError("the emulator closed the connection")
        answer = json.loads(line)
        if "error" in answer:
            raise ArmError(f"the emulator refuses {command}: {answer['error']}")
        return answer["ok"]

    def close(self) -> None:
        """Close the connection; may be called twice."""
        self._file.close()
        self._socket.close()
