# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Put the threads of a node's process under real-time scheduling where that is permitted.

Nodes run below the streamer's loop and above everything without a deadline.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from ndp_ros.config import param


def set_realtime_priority(priority: int) -> str:
    """Put every thread of this process under SCHED_FIFO at a priority, 0 for none, if permitted.

    Processes that are started later do not inherit it.

    Returns:
        The scheduling class that the kernel granted.
    """
    if priority <= 0:
        return "SCHED_OTHER"
    try:
        _schedule(os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, priority)
    except OSError as error:
        return f"SCHED_OTHER: SCHED_FIFO refused ({error.strerror})"
    return f"SCHED_FIFO {priority}"


def clear_realtime_priority() -> None:
    """Put every thread of this process back under SCHED_OTHER."""
    with contextlib.suppress(OSError):
        _schedule(os.SCHED_OTHER, 0)


def _schedule(policy: int, priority: int) -> None:
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setscheduler(int(thread.name), policy, os.sched_param(priority))


def priority_param(default: int) -> Any:
    """Return the parameter ``node_priority`` of a node's configuration."""
    return param(
        default,
        doc="SCHED_FIFO priority of this node where permitted; 0 asks for none.",
        minimum=0,
        maximum=98,
    )
