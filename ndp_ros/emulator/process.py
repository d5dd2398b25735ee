# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The emulator as a separate process, its handle and the client of its control port."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Self

from ndp_ros.config import from_mapping, to_mapping
from ndp_ros.emulator.config import EmulatorConfig
from ndp_ros.errors import ArmError

_START = 60.0
"""Longest time to start the process, on a busy machine [s]."""


class ControlClient:
    """A client of the control port.

    ``client.do("network", loss=0.3)`` returns the emulator's answer.
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


class EmulatorProcess:
    """A running emulator; it ends with the ``with`` block, or with this process.

    Attributes:
        host: Address that it listens on.
        port: TCP port.
        udp_port: UDP port.
        pid: Process identifier.
        control_port: TCP port for experiments.
        control: Its client.
    """

    def __init__(self, config: EmulatorConfig) -> None:
        """Start the process and wait until it answers.

        Raises:
            ArmError: If it does not start; the message is the emulator's.
        """
        command = [sys.executable, "-m", __name__, json.dumps(to_mapping(config))]
        # The emulator ends when this pipe to its standard input is closed.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None and self._process.stderr is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _START)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self._process.kill()
            said = self._process.communicate()[1].decode(errors="replace").strip()
            raise ArmError(f"the emulator did not start: {said or f'no answer in {_START} s'}")
        ports = json.loads(line)
        self.host = config.host
        self.port, self.udp_port = ports["port"], ports["udp_port"]
        self.control_port = ports["control_port"]
        self.control = ControlClient(self.control_port)

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process, as a power cut would."""
        self._process.kill()
        self._process.wait()

    def signal(self, number: int) -> None:
        """Send the process a signal, such as SIGSTOP."""
        os.kill(self.pid, number)

    def wait_for(self, condition: Any, timeout: float = 120.0) -> dict[str, Any]:
        """Wait until ``condition(state)`` holds and return that state.

        Raises:
            ArmError: If it does not hold in time; the message has the last state.
        """
        end = time.monotonic() + timeout
        while True:
            state: dict[str, Any] = self.control.do("state")
            if condition(state):
                return state
            if time.monotonic() > end:
                raise ArmError(f"waited {timeout} s in vain, the emulator's state is {state}")
            time.sleep(0.005)

    def close(self) -> None:
        """End the process; may be called twice."""
        with contextlib.suppress(OSError):
            self.control.close()
        if self.running:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(config: EmulatorConfig, watch: int | None = None, announce: Any = None) -> None:
    """Run an emulator in this process until SIGINT or SIGTERM.

    ``watch`` is as in :meth:`~ndp_ros.emulator.server.Emulator.run`; ``announce`` is called with
    the emulator once its ports are open.

    Raises:
        ArmError: If a port is in use.
    """
    from ndp_ros.emulator.server import Emulator

    emulator = Emulator(config)
    previous = {
        number: signal.signal(number, lambda *_: emulator.stop())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        if config.priority:
            # A real arm has its own processor, so a busy machine must not delay this one.
            with contextlib.suppress(OSError):
                os.sched_setscheduler(
                    0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(config.priority)
                )
        if announce is not None:
            announce(emulator)
        emulator.run(watch)
    finally:
        emulator.close()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _main() -> int:
    config = from_mapping(EmulatorConfig, json.loads(sys.argv[1]))

    try:
        serve(
            config,
            sys.stdin.fileno(),
            lambda emulator: print(json.dumps(emulator.ports), flush=True),
        )
    except ArmError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main())
