# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The real-time side: the loop process, its guard, its clock and its shared memory.

A parent starts a loop by a :class:`StreamerHandle` of a :class:`StreamSpec` and sends it segments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ndp_ros

if TYPE_CHECKING:
    from ndp_ros.streaming.config import RuntimeConfig, StreamSpec
    from ndp_ros.streaming.guard import Guard
    from ndp_ros.streaming.handle import StreamerHandle

__all__ = ["Guard", "RuntimeConfig", "StreamSpec", "StreamerHandle"]

__getattr__ = ndp_ros.lazy_exports(
    __name__,
    {
        "Guard": "guard",
        "RuntimeConfig": "config",
        "StreamSpec": "config",
        "StreamerHandle": "handle",
    },
)
