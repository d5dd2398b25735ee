# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Packets between the streaming loop and the bridge: one kind byte, then text or plain numbers."""

from __future__ import annotations

import numpy as np

STATE, COMMAND, READY, PROBLEM = b"s", b"c", b"r", b"p"
"""First byte of a packet. A problem is followed by its text, a state and a command by numbers."""
LARGEST = 16384
"""Size limit of a packet [bytes]."""


class Numbers:
    """The numbers of a state or a command, with named views; NaN marks an absent value.

    Attributes:
        data: Every number, in the order of the packet.
        position, velocity, effort: Values of all joints (dof,) [rad], [rad/s], [N m].
    """

    def __init__(self, dof: int) -> None:
        """Fill the numbers with NaN."""
        self.data = np.full(2 + 3 * dof, np.nan)
        self.data[1] = 0.0
        self.position, self.velocity, self.effort = self.data[2:].reshape(3, dof)

    @property
    def time(self) -> float:
        """Arrival of a state on the monotonic clock [s]."""
        return float(self.data[0])

    @property
    def ignored(self) -> int:
        """Joint states of a second publisher that were ignored so far."""
        return int(self.data[1])

    def encode(self, kind: bytes) -> bytes:
        """Return the packet."""
        return kind + self.data.tobytes()

    def decode(self, packet: bytes) -> None:
        """Take over the numbers of a packet."""
        self.data[:] = np.frombuffer(packet, np.float64, offset=1)
