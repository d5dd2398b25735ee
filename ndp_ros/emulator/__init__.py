# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The Kortex emulator: the protocol over real sockets, with MuJoCo physics behind it.

:class:`EmulatorProcess` runs it as a process, for tests and ``ndp emulate kortex``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ndp_ros

if TYPE_CHECKING:
    from ndp_ros.emulator.config import EmulatorConfig, NetworkConfig
    from ndp_ros.emulator.process import EmulatorProcess
    from ndp_ros.emulator.server import Emulator

__all__ = ["Emulator", "EmulatorConfig", "EmulatorProcess", "NetworkConfig"]

__getattr__ = ndp_ros.lazy_exports(
    __name__,
    {
        "Emulator": "server",
        "EmulatorConfig": "config",
        "EmulatorProcess": "process",
        "NetworkConfig": "config",
    },
)
