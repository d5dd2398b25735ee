"""What fixes the response of a DMP: the one configuration of the dynamical layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ndp_ros.config import param
from ndp_ros.errors import ConfigError

KERNELS = ("gaussian", "multiquadric", "inverse_quadric", "inverse_multiquadric", "linear")
SOLVERS = ("exact", "euler")
LAYOUTS = ("paper", "released")
FORCINGS = ("outside", "inside")
ORDERS = ("simultaneous", "lagged")


@dataclass(frozen=True)
class DmpConfig:
    """Everything that fixes B in [y; yd; ydd] = B [y0; yd0; g; w (g - y0)].

    Time inside the system is normalised: a segment lasts tau = 1 whatever its
    duration in seconds.
    """

    n_basis: int = param(6, doc="Number of basis functions N.", minimum=1, maximum=100)
    alpha: float = param(
        15.0, doc="Stiffness of eq. (1); beta = alpha / 4.", minimum=0.1, maximum=200
    )
    a_x: float = param(1.0, doc="Decay rate of the phase, eq. (2).", minimum=0.01, maximum=50)
    kernel: str = param("gaussian", doc="Kernel psi of eq. (3).", choices=KERNELS)
    layout: str = param(
        "released",
        doc="Centres and widths: as printed or as in the released code.",
        choices=LAYOUTS,
    )
    forcing: str = param(
        "outside", doc="f outside alpha(...), eq. (1), or inside it, eq. (4).", choices=FORCINGS
    )
    solver: str = param("exact", doc="Continuous solution or m Euler steps.", choices=SOLVERS)
    m: int = param(35, doc="Euler steps a segment; unused by exact.", minimum=1, maximum=100000)
    order: str = param(
        "simultaneous",
        doc="Euler order: all states at once (eq. 18), or velocity one step late (eq. 5).",
        choices=ORDERS,
    )

    @property
    def beta(self) -> float:
        """Critical damping: beta = alpha / 4."""
        return self.alpha / 4.0

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return a named configuration: ``paper``, ``released`` or ``default``.

        Raises:
            ConfigError: If there is no such preset.
        """
        presets = {
            "paper": cls(layout="paper", forcing="inside", solver="euler", order="lagged"),
            "released": cls(layout="released", forcing="outside", solver="euler", m=40),
            "default": cls(),
        }
        if name not in presets:
            raise ConfigError.choice("preset", name, presets)
        return presets[name]
