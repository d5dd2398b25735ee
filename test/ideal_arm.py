# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""An arm that follows every command at once, logs it, and fails on cue.

The streamer process loads it as ``hardware: ideal_arm:make``.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from ndp_ros.control.arm import ArmConfig, ArmInfo, Command, JointState
from ndp_ros.control.omega import Identity
from ndp_ros.errors import ArmError

WRITE, STOP, CLOSE = 0, 1, 2


class IdealArm:
    """A real arm to the streamer: it has no ``step`` and its clock is CLOCK_MONOTONIC."""

    def __init__(
        self,
        config: ArmConfig,
        log: str = "",
        fail_at: int = -1,
        stuck_at: int = -1,
        silent_at: int = -1,
        nan_at: int = -1,
        pauses_above: float = np.inf,
        cue: str = "",
        brakes_after: float = 0.0,
        creeps: float = 0.0,
        wrong_at: int = -1,
        wrong_by: float = 0.0,
        wrong_first: float = 0.0,
        restless: float = 0.0,
    ) -> None:
        """Prepare an arm at its home position.

        Args:
            config: The arm.
            log: File for one record per write, stop and close.
            fail_at, stuck_at, silent_at, nan_at: Write after which the arm raises, does not
                move, gives no new measurements, or measures NaN.
            pauses_above: Speed of the first joint at which the arm holds the loop up once,
                for 0.1 s [rad/s].
            cue: File that must exist too before any of that happens.
            brakes_after: Time without a write after which the arm measures no speed, until
                then the commanded one [s]; with 0 it never measures any.
            wrong_at: Write after which each joint is measured wrong once, one every ten readings.
            wrong_by: By so much [rad].
            wrong_first: By how much the first reading of all is wrong [rad].
            restless: By how much every reading differs from the one before [rad].
            creeps: How fast its first joint moves, whatever it is commanded [rad/s].
        """
        self._info = ArmInfo.from_config(config, ("position",))
        self._at = np.array(config.home)
        self._measured_at = self._began = time.monotonic()
        self._log = Path(log).open("ab", buffering=0) if log else None  # noqa: SIM115
        self._fail_at, self._stuck_at, self._silent_at, self._nan_at, self._wrong_at = (
            at if at >= 0 else 1 << 60 for at in (fail_at, stuck_at, silent_at, nan_at, wrong_at)
        )
        self._wrong_by, self._wrong_first, self._restless = wrong_by, wrong_first, restless
        self._reads, self._wrong = 0, 0
        self._pauses_above = pauses_above
        self._cue = cue
        self._brakes_after = brakes_after
        self._creeps = creeps
        self._velocity = np.zeros_like(self._at)
        self._commanded_at = 0.0
        self._writes = 0
        self._cued = 0

    def connect(self) -> ArmInfo:
        return self._info

    def read(self, out: JointState) -> JointState:
        if self._cued < self._silent_at:
            self._measured_at = time.monotonic()
        out.position[:] = self._at if self._cued < self._nan_at else np.nan
        self._reads += 1
        out.position[0] += self._creeps * (self._measured_at - self._began)
        out.position += self._wrong_first if self._reads == 1 else 0.0
        out.position += self._restless * (self._reads % 2)
        if self._cued >= self._wrong_at:
            joint, rest = divmod(self._wrong, 10)
            if joint < len(out.position) and not rest:
                out.position[joint] += self._wrong_by
            self._wrong += 1
        braked = time.monotonic() - self._commanded_at > self._brakes_after
        out.velocity[:] = 0.0 if braked else self._velocity
        out.velocity[0] += self._creeps
        out.effort[:] = 0.0
        out.time = self._measured_at
        if abs(out.velocity[0]) > self._pauses_above:
            self._pauses_above = np.inf
            time.sleep(0.1)
        return out

    def write(self, command: Command) -> None:
        self._writes += 1
        if self._writes % 10 == 0 and (not self._cue or Path(self._cue).exists()):
            self._cued = self._writes
        if self._cued >= self._fail_at:
            raise ArmError("the ideal arm fails on cue")
        if self._cued < self._stuck_at:
            self._at[:] = command.position
            self._velocity[:] = command.velocity
        self._commanded_at = time.monotonic()
        self._note(WRITE, command.position)

    def stop(self) -> None:
        self._note(STOP, self._at)

    def close(self) -> None:
        self._note(CLOSE, self._at)

    def _note(self, kind: int, position: np.ndarray) -> None:
        if self._log is not None:
            self._log.write(np.array([kind, time.monotonic(), *position]).tobytes())


def make(config: ArmConfig, *, task: str, command_mode: str, rate: float, seed: int, **options):
    return IdealArm(config, **options), Identity()


def read_log(path: Path, dof: int) -> np.ndarray:
    """Return one row per call: kind, time, position (dof,); a row half written is left out."""
    width = 2 + dof
    values = np.frombuffer(path.read_bytes())
    return values[: values.size // width * width].reshape(-1, width)
