# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The configuration of a DMP, which determines its response.

Checkpoints, messages and experiments hold it; presets name the readings of the paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Self

from ndp_ros.config import param
from ndp_ros.errors import ConfigError

KERNELS = ("gaussian", "multiquadric", "inverse_quadric", "inverse_multiquadric", "linear")
SOLVERS = ("exact", "euler")
LAYOUTS = ("paper", "released")
FORCINGS = ("outside", "inside", "free")
ORDERS = ("simultaneous", "lagged")


@dataclass(frozen=True)
class DmpConfig:
    """Configuration of a DMP: all that determines B in [y; yd; ydd] = B [y0; yd0; g; w (g - y0)].

    With ``forcing="free"`` the last columns of the right factor are w itself.

    Time inside the system is normalised: a segment lasts tau = 1 whatever its duration in seconds.

    Source: eqs. (1) to (5) and section 5.3 of the paper.

    Example:
        >>> DmpConfig(n_basis=10, alpha=25.0).beta
        6.25
        >>> DmpConfig.preset("paper").solver
        'euler'
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
        "outside",
        doc="f outside alpha(...), eq. (1); inside it, eq. (4); or free: outside, without the "
        "factor g - y0.",
        choices=FORCINGS,
    )
    solver: str = param("exact", doc="Continuous solution or m Euler steps.", choices=SOLVERS)
    m: int = param(35, doc="Euler steps a segment; unused by exact.", minimum=1, maximum=100000)
    order: str = param(
        "simultaneous",
        doc="Euler order: all states at once (eq. 18), or velocity one step late (eq. 5).",
        choices=ORDERS,
    )

    def __post_init__(self) -> None:
        """Refuse values for which no response exists.

        The bounds of the fields apply where a file or a command line is read; an experiment in
        Python may go beyond them.

        Raises:
            ConfigError: If a name is not among the choices, a count is not a positive whole
                number, or alpha or a_x is not a positive finite number.
        """
        for f in fields(self):
            value, choices = getattr(self, f.name), f.metadata["choices"]
            if choices is not None and value not in choices:
                raise ConfigError.choice(f.name, value, choices)
            kind = Integral if f.type == "int" else Real
            if choices is None and not (isinstance(value, kind) and 0.0 < float(value) < math.inf):
                whole = "whole " if kind is Integral else ""
                raise ConfigError(f"{f.name} is {value!r}, expected a positive {whole}number")

    @property
    def beta(self) -> float:
        """Critical damping: beta = alpha / 4."""
        return self.alpha / 4.0

    @property
    def scaled(self) -> bool:
        """Whether the forcing term is scaled by g - y0, as in eq. (3).

        A free one, f = x sum psi_i w_i / sum psi_i, moves a joint whose goal is where it starts,
        and the motion is linear in w and g together; w is then in rad per segment^2.
        """
        return self.forcing != "free"

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
