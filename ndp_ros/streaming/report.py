# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Reports of the streamer to its parent beside the state of every tick.

They are the handshake, the status and the poses of a simulated arm's objects, all in the mailbox.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ndp_ros.errors import StreamError
from ndp_ros.streaming.clock import Clock, Histogram
from ndp_ros.streaming.follower import STOPPED, Follower
from ndp_ros.streaming.guard import Guard
from ndp_ros.streaming.layout import encode
from ndp_ros.streaming.mailbox import Mailbox

if TYPE_CHECKING:
    from ndp_ros.control.arm import ArmInfo, SimulatedArm
    from ndp_ros.streaming.config import StreamSpec


class Report:
    """Writer of a streamer's handshake, status and object poses."""

    def __init__(
        self, mailbox: Mailbox, follower: Follower, guard: Guard, clock: Clock, cost: Histogram
    ) -> None:
        """Report on these parts of a streamer."""
        self._mailbox, self._follower, self._guard = mailbox, follower, guard
        self._clock, self._cost = clock, cost

    def handshake(
        self,
        spec: StreamSpec,
        info: ArmInfo,
        mode: str,
        simulated: SimulatedArm | None,
        granted: Mapping[str, str],
    ) -> None:
        """Publish which arm is connected and how it is driven.

        Args:
            spec: The specification of the stream.
            info: The arm.
            mode: Command mode of Ω.
            simulated: The arm if it is a simulated one.
            granted: Answers of the kernel to the requests for real time.
        """
        guard = self._guard
        signals = simulated.signals() if simulated else {}
        if (needed := sum(map(len, signals.values()))) > self._mailbox.layout.signals:
            signals, room = {}, self._mailbox.layout.signals
            if room:
                raise StreamError(f"{spec.arm} has {needed} further values: signals is {room}")
        limits = ("lower", "upper", "max_velocity", "max_acceleration")
        self._mailbox.publish_handshake(
            {
                "pid": os.getpid(),
                "arm": spec.arm,
                "hardware": spec.hardware,
                "simulated": simulated is not None,
                "joint_names": info.joint_names,
                "gripper": info.gripper,
                "rate": spec.runtime.rate,
                "command_mode": mode,
                **{name: getattr(guard, name).tolist() for name in limits},
                "objects": sorted(simulated.objects()) if simulated else [],
                "signals": {name: len(values) for name, values in signals.items()},
                "realtime": dict(granted),
            }
        )

    def world(self, simulated: SimulatedArm) -> None:
        """Fill poses and further values that the mailbox has room for; absent poses are NaN."""
        names = self._mailbox.layout.objects
        if self._mailbox.layout.signals and (found := [*simulated.signals().values()]):
            values = np.concatenate(found)
            self._mailbox.state["signals"][: len(values)] = values
        if not names:
            return
        poses, known = self._mailbox.state["poses"], simulated.objects()
        for place, name in enumerate(names):
            poses[place] = known.get(name, np.nan)

    def answer(self, record: Any, refusal: str) -> None:
        """Answer a request; the refusal is empty if it was carried out."""
        self._mailbox.requests.reply(record, refusal)
        self.status()

    def status(self) -> None:
        """Publish counters, times and the reason of the phase."""
        status, follower, clock = self._mailbox.status, self._follower, self._clock
        status["pid"], status["ticks"], status["missed"] = os.getpid(), clock.ticks, clock.missed
        status["worst"], status["histogram"] = clock.lateness.worst * 1e-9, clock.lateness.counts
        status["costliest"], status["costs"] = self._cost.worst * 1e-9, self._cost.counts
        status["guard"] = self._guard.counts
        for name in ("accepted", "dropped", "refused", "stretched"):
            status[name] = getattr(follower, name)
        for name in ("fault", "reason", "refusal"):
            status[name] = encode(getattr(follower, name))
        status.publish()

    def stopped(self) -> None:
        """Publish that the arm has been released."""
        self._follower.phase = STOPPED
        self.status()
        self._mailbox.state["phase"] = STOPPED
        self._mailbox.state.publish()
