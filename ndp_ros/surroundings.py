"""What stands around a real arm where nothing sees it: fixed objects, and the one in the hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ndp_ros.config import load, param
from ndp_ros.errors import ConfigError
from ndp_ros.paths import share


@dataclass(frozen=True)
class Surroundings:
    """The objects of a task as ``config/surroundings/<task>.yaml`` describes them.

    All positions are given in the frame of the arm's base.
    """

    fixed: tuple[str, ...] = param((), doc="Objects that never move.")
    positions: tuple[tuple[float, float, float], ...] = param(
        (), doc="Where the origin of each of them is.", unit="m"
    )
    held: str = param("", doc="Object that the hand holds at the start; empty for none.")
    grip: float = param(
        0.0, doc="Gripper setpoint that holds it.", unit="rad", minimum=0.0, maximum=2.0
    )
    released: float = param(
        0.0,
        doc="Measured gripper position below which it has left the hand.",
        unit="rad", minimum=0.0, maximum=2.0,
    )  # fmt: skip
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
        folder = share("config/surroundings")
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        if task not in names:
            raise ConfigError.choice("surroundings of the task", task, names)
        return load(cls, folder / f"{task}.yaml")
