"""What the streamer tells its parent beside the state of every tick: greeting, status, poses."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ndp_ros.streaming.clock import Clock, Histogram
from ndp_ros.streaming.follower import STOPPED, Follower
from ndp_ros.streaming.guard import Guard
from ndp_ros.streaming.layout import ANSWERS, TEXT
from ndp_ros.streaming.mailbox import Mailbox

if TYPE_CHECKING:
    from ndp_ros.arms.arm import ArmInfo, SimulatedArm
    from ndp_ros.streaming.config import StreamSpec


class Report:
    """The words of a streamer, in the mailbox."""

    def __init__(
        self, mailbox: Mailbox, follower: Follower, guard: Guard, clock: Clock, cost: Histogram
    ) -> None:
        """Tell of these."""
        self._mailbox, self._follower, self._guard = mailbox, follower, guard
        self._clock, self._cost = clock, cost

    def hello(
        self,
        spec: StreamSpec,
        info: ArmInfo,
        mode: str,
        simulated: SimulatedArm | None,
        granted: Mapping[str, str],
    ) -> None:
        """Say that the arm is there, which one it is and how it is driven.

        Args:
            spec: What was asked for.
            info: The arm.
            mode: Command mode of Ω.
            simulated: The arm if it is a simulated one.
            granted: What the system granted for real time.
        """
        guard = self._guard
        self._mailbox.say_hello({
            "pid": os.getpid(),
            "arm": spec.arm,
            "hardware": spec.hardware,
            "simulated": simulated is not None,
            "joint_names": info.joint_names,
            "gripper": info.gripper,
            "rate": spec.runtime.rate,
            "command_mode": mode,
            "lower": guard.lower.tolist(),
            "upper": guard.upper.tolist(),
            "max_velocity": guard.max_velocity.tolist(),
            "max_acceleration": guard.max_acceleration.tolist(),
            "objects": sorted(simulated.objects()) if simulated else [],
            "realtime": dict(granted),
        })  # fmt: skip

    def poses(self, simulated: SimulatedArm) -> None:
        """Fill the poses of the objects that the mailbox has room for; absent ones are NaN."""
        names = self._mailbox.layout.objects
        if not names:
            return
        poses, found = self._mailbox.state["poses"], simulated.objects()
        for place, name in enumerate(names):
            poses[place] = found.get(name, np.nan)

    def answer(self, record: Any, refusal: str) -> None:
        """Answer a request; empty if it was done."""
        ticket = int(record["ticket"])
        answer = self._mailbox.status["answers"][ticket % ANSWERS]
        answer["ticket"], answer["refusal"] = ticket, shorten(refusal)
        self.status()

    def status(self) -> None:
        """Publish counters, times and the reason of the phase."""
        status, follower, clock = self._mailbox.status, self._follower, self._clock
        value = status.value
        value["pid"], value["ticks"], value["missed"] = os.getpid(), clock.ticks, clock.missed
        value["worst"], value["costliest"] = clock.lateness.worst * 1e-9, self._cost.worst * 1e-9
        value["histogram"], value["costs"] = clock.lateness.counts, self._cost.counts
        value["guard"] = self._guard.counts
        value["accepted"], value["dropped"] = follower.accepted, follower.dropped
        value["refused"], value["stretched"] = follower.refused, follower.stretched
        value["fault"] = shorten(follower.fault)
        value["reason"] = shorten(follower.reason)
        value["refusal"] = shorten(follower.refusal)
        status.publish()

    def stopped(self) -> None:
        """Say that the arm has been let go."""
        self._follower.phase = STOPPED
        self.status()
        self._mailbox.state["phase"] = STOPPED
        self._mailbox.state.publish()


def shorten(text: str) -> bytes:
    """Return a text as it fits the mailbox, cut after a whole word."""
    whole = text.encode()
    if len(whole) <= TEXT:
        return whole
    cut = whole[: TEXT - 4].decode(errors="ignore").rpartition(" ")[0]
    return (cut or text[: TEXT // 4 - 1]).encode() + " …".encode()
