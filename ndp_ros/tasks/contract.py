"""What every task of this package keeps of gymnasium's contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from ndp_ros.errors import TaskError


class OneOfAKind:
    """Refuses copies: a simulation has views and processes that a copy would share or lose."""

    def __copy__(self) -> NoReturn:
        """Refuse."""
        self._refuse()

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        """Refuse."""
        self._refuse()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuse."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TaskError(
            f"{type(self).__name__} cannot be copied or pickled: make another one, such as by "
            "gymnasium.make, and reset it with the same seed"
        )


def check_options(options: Mapping[str, Any] | None, allowed: tuple[str, ...] = ()) -> None:
    """Refuse what ``reset(options=...)`` makes no use of.

    Raises:
        TaskError: If an option is not among those that are allowed.
    """
    for name in options or {}:
        if name not in allowed:
            raise TaskError(
                f"reset: {name!r} is no option of this task: "
                + (f"there are {', '.join(allowed)}" if allowed else "it has none")
            )


def pictures_per_second(period: float) -> float:
    """Return how many pictures a second of simulated time has, one a step of that long [s]."""
    rate = 1.0 / period
    return round(rate) if abs(rate - round(rate)) < 1e-6 * rate else rate
