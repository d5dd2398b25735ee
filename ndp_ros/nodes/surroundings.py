# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Describe the objects around a real arm without perception: fixed ones, and the one in the hand.

The objects node publishes their poses; bring-up closes the gripper on the held one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ndp_ros.config import load_named, param
from ndp_ros.errors import ConfigError


@dataclass(frozen=True)
class Surroundings:
    """Objects of a task, from ``config/surroundings/<task>.yaml``.

    All positions are given in the frame of the arm's base.
    """

    fixed: tuple[str, ...] = param((), doc="Objects that never move.")
    positions: tuple[tuple[float, float, float], ...] = param(
        (), doc="Position of the origin of each of them.", unit="m"
    )
    held: str = param("", doc="Object that the hand holds at the start; empty for none.")
    grip: float = param(
        0.0, doc="Gripper setpoint that holds it.", unit="rad", minimum=0.0, maximum=2.0
    )
    released: float = param(
        0.0,
        doc="Measured gripper position below which it has left the hand.",
        unit="rad",
        minimum=0.0,
        maximum=2.0,
    )
    floor: float = param(-1.0, doc="Height at which a thrown object comes to rest.", unit="m")

    def __post_init__(self) -> None:
        """Check that every fixed object has a position."""
        if len(self.fixed) != len(self.positions):
            raise ConfigError(
                f"surroundings: {len(self.fixed)} fixed objects, {len(self.positions)} positions"
            )

    @classmethod
    def named(cls, task: str) -> Self:
        """Load ``config/surroundings/<task>.yaml``.

        Raises:
            ConfigError: If there is no such file, or a value does not fit.
        """
        return load_named(cls, "surroundings", task, "surroundings of the task")
