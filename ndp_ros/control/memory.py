# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Numbers of an object in memory that compiled code can share.

A class that is a ``ctypes.Structure`` keeps the attributes listed in its ``_fields_`` in its own
buffer; all others are ordinary.
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

_KINDS: dict[type, Any] = {int: ctypes.c_int64, bool: ctypes.c_int64, float: ctypes.c_double}


def fields(**kinds: type) -> list[tuple[str, Any]]:
    """Return ``_fields_`` for numbers of 8 bytes by name, in this order."""
    return [(name, _KINDS[kind]) for name, kind in kinds.items()]


class TickCore(Protocol):
    """Compiled code that does parts of a tick; each function returns whether it has done its part.

    Where it has not, nothing is changed, and the Python code decides.
    """

    def demand(self) -> bool:
        """Compute the accelerations that computed torque asks of the arm."""
        ...

    def torque(self, tau: NDArray[np.float64]) -> bool:
        """Complete and clip the torques (n,) of these accelerations, and fill the command."""
        ...

    def actuate(self) -> bool:
        """Hand the command to the controls of a simulated arm."""
        ...

    def sense(self) -> bool:
        """Read the joints of a simulated arm."""
        ...

    def confirm(
        self,
        position: NDArray[np.float64],
        velocity: NDArray[np.float64],
        effort: NDArray[np.float64],
        time: float,
    ) -> bool:
        """Confirm a reading: three arrays (dof,), and its time [s]."""
        ...


@runtime_checkable
class Shared(Protocol):
    """An arm or an Ω whose part of a tick compiled code can do."""

    @property
    def memory(self) -> dict[str, Any]:
        """The arrays that compiled code shares, by its names for them."""
        ...

    def use(self, core: TickCore) -> None:
        """Leave usual ticks to a core."""
        ...


def _nothing(*_: object) -> Any:
    return False


class Interpreted:
    """A core that leaves everything to Python."""

    wait = tick = usual = advance = command = confirm = tracked = publish = _nothing
    demand = torque = actuate = sense = release = _nothing
