# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The compiled body of a tick, ``core.c``, where it was built and nothing is unusual.

Every function of the core does what the Python code beside its call does, to the same bits, or
returns False, and then the Python code decides. Without the extension all of them return False.
"""

from __future__ import annotations

import ctypes
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_ros.arms.mock import MockArm
from ndp_ros.control.memory import Shared, TickCore, fields
from ndp_ros.control.omega import Identity
from ndp_ros.streaming.clock import MOST_BUSY

if TYPE_CHECKING:
    from ndp_ros.control.arm import Arm, ArmInfo, Command
    from ndp_ros.control.omega import Omega
    from ndp_ros.streaming.clock import Clock
    from ndp_ros.streaming.config import RuntimeConfig
    from ndp_ros.streaming.feedback import Feedback
    from ndp_ros.streaming.follower import Follower
    from ndp_ros.streaming.mailbox import Mailbox
    from ndp_ros.streaming.recovery import Recovery

try:
    from ndp_ros.streaming import _core
except ImportError as error:
    _core = None
    MISSING = "Python: the extension was not built (pip install with a C compiler)"
    if "_core" not in str(error):
        MISSING = f"Python: the extension cannot be loaded ({error})"
else:
    MISSING, _source = "", Path(__file__).with_name("core.c")
    # In an editable installation the source goes on, and the extension does not.
    if _source.exists() and zlib.crc32(_source.read_bytes()) != getattr(_core, "SOURCE", None):
        MISSING = "Python: the extension was built from another core.c (pip install again)"
"""Why ticks run in Python; empty if the extension is there and fits."""

Array = NDArray[np.float64]


class Turn(ctypes.Structure):
    """Numbers that pass from tick to tick."""

    _fields_ = fields(
        previous=int,
        waits_since=int,
        request=int,
        changed=bool,
        parent_silent=bool,
        settles_until=float,
    )


class Core(TickCore, Protocol):
    """The functions of a core; each returns whether it has done its part."""

    def wait(self) -> int:
        """Wait as the clock does."""
        ...

    def tick(self) -> bool:
        """Do a whole tick of an arm that is always at its last command."""
        ...

    def usual(self, began: int) -> bool:
        """Begin a tick: nothing was asked since the last, but to follow a good segment."""
        ...

    def advance(self) -> bool:
        """Take the next setpoint."""
        ...

    def command(self) -> bool:
        """Accept the command."""
        ...

    def tracked(self, age: float) -> bool:
        """Accept the measurement of an age [s]."""
        ...

    def publish(self, now: float, arm_time: float) -> bool:
        """Publish the state, and at their rates status and sample."""
        ...

    def release(self) -> object:
        """Release all memory; afterwards nothing is done any more."""
        ...


def make_core(
    config: RuntimeConfig,
    info: ArmInfo,
    parts: tuple[Follower, Recovery, Clock, Mailbox, Feedback],
    memory: Mapping[str, Any],
    constants: Mapping[str, float],
    signals: list[int],
) -> Core:
    """Return a core on the memory of the loop's parts.

    Args:
        config: Parameters of the loop.
        info: The arm.
        parts: Each has ``memory``, its arrays and numbers by the names in ``core.c``.
        memory: That of the streamer itself.
        constants: Likewise.
        signals: Signals caught so far.
    """
    assert _core is not None
    shared, numbers = dict(memory), dict(constants)
    numbers |= {
        "period": config.period,
        "heartbeat_timeout": config.heartbeat_timeout,
        "feedback_timeout": config.feedback_timeout,
        "most_busy": MOST_BUSY,
    }
    follower, recovery, _, mailbox, feedback = parts
    for part in parts:
        shared |= part.memory
    for owner in (follower, recovery, mailbox, feedback):
        numbers |= owner.constants
    size = mailbox.samples.dtype.itemsize
    # Readings are confirmed here, or in an arm that shares the memory of its own confirmer.
    state = shared["confirmer"].state if "confirmer" in shared else feedback.state
    core: Core = _core.Core(info.dof, info.n_arm, size, shared, numbers, signals, state)
    return core


def memory_of(command: Command, arm: Arm, omega: Omega) -> dict[str, Any]:
    """Return the memory of a command, and of an arm and an Ω that share theirs."""
    memory: dict[str, Any] = {
        "command_position": command.position,
        "command_velocity": command.velocity,
        "command_torque": command.torque,
    }
    if isinstance(arm, MockArm) and isinstance(omega, Identity):
        memory["loopback_position"], memory["loopback_velocity"] = arm.loopback
    for part in (arm, omega):
        memory |= part.memory if isinstance(part, Shared) else {}
    return memory


def lend(core: Core, *users: object) -> None:
    """Let those of an arm, an Ω and a feedback use a core that can."""
    for user in users:
        if isinstance(user, Shared):
            user.use(core)


def loop_of(compiled: bool) -> str:
    """Return which code runs a tick, in one phrase: ``compiled``, or Python and why."""
    if not compiled or os.environ.get("NDP_COMPILED") == "0":
        return "Python: as configured"
    return MISSING or "compiled"
