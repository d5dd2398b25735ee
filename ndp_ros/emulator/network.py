# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A simulated network that loses, delays and reorders datagrams, reproducibly by a seed."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

from ndp_ros.emulator.config import NetworkConfig


class Network:
    """The network between socket and emulator, in both directions.

    Attributes:
        lost: Datagrams dropped so far.
        delayed: Datagrams delivered late so far.
    """

    def __init__(self, config: NetworkConfig) -> None:
        self.lost = self.delayed = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._cut_until = 0.0
        self.configure(config)

    def configure(self, config: NetworkConfig) -> None:
        """Change the disturbances; datagrams under way still arrive."""
        self.config = config
        self._random = random.Random(config.seed)
        self._clean = config == NetworkConfig(seed=config.seed)

    @property
    def idle(self) -> bool:
        """Whether every datagram passes undisturbed."""
        return self._clean and self._cut_until == 0.0 and not self._queue

    def cut(self, until: float) -> None:
        """Drop every datagram until a time on the loop's clock [s]."""
        self._cut_until = until

    def carry(self, now: float, deliver: Callable[[], None]) -> None:
        """Carry one datagram: deliver it now, later or never."""
        if self._clean and now >= self._cut_until:
            self._cut_until = 0.0
            deliver()
            return
        config, draw = self.config, self._random.random
        lost, held = draw() < config.loss, draw() < config.reorder
        wait = config.delay + draw() * config.jitter + (config.hold if held else 0.0)
        if config.burst_every > 0.0:
            # Datagrams sent during a burst arrive together at its end.
            wait += max(0.0, config.burst_delay - now % config.burst_every)
        if lost or now < self._cut_until:
            self.lost += 1
        elif wait <= 0.0:
            deliver()
        else:
            self.delayed += 1
            self._order += 1
            heapq.heappush(self._queue, (now + wait, self._order, deliver))

    def due(self) -> float:
        """Return the arrival of the next delayed datagram [s]; infinity without one."""
        return self._queue[0][0] if self._queue else float("inf")

    def advance(self, now: float) -> None:
        """Deliver every datagram that is due."""
        while self._queue and self._queue[0][0] <= now:
            heapq.heappop(self._queue)[2]()
