# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Second-order structures other than the DMP for the same layer, which differ in their B.

The paper embeds a DMP "as a design choice" (section 1) that may be swapped. Any structure that is
linear in its start state, goal and weights fits the layer:

    DmpLayer(config, k, respond=SpringDamper(metric=2.0, damping=9.0, stiffness=30.0))

A structure is an experiment in training: checkpoints and DmpParameters messages carry a DmpConfig
and no structure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndp_ros.config import param
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.response import response
from ndp_ros.errors import ConfigError


@dataclass(frozen=True)
class SpringDamper:
    """Spring and damper: constant metric M and damping D, a quadratic potential with stiffness K.

    M ydd = K (g - y) - D yd + M f(x, g), with f of eq. (3). This is eq. (1) with alpha = D / M and
    a beta independent of it, so that the motion may overshoot or creep; the configuration's alpha
    has no effect unless the forcing term stands inside the bracket.
    """

    metric: float = param(1.0, doc="Metric M.", minimum=1e-6)
    damping: float = param(15.0, doc="Damping D.", unit="1/segment", minimum=0.0)
    stiffness: float = param(56.25, doc="Stiffness K.", unit="1/segment^2", minimum=1e-6)

    def __post_init__(self) -> None:
        """Check the three constants.

        Raises:
            ConfigError: If M or K is not positive, D is negative, or one is no number.
        """
        try:
            finite = all(map(math.isfinite, (self.metric, self.damping, self.stiffness)))
        except (TypeError, OverflowError) as error:
            raise ConfigError(f"{self}: expected three finite numbers") from error
        if not finite or self.metric <= 0.0 or self.stiffness <= 0.0 or self.damping < 0.0:
            raise ConfigError(f"{self}: metric and stiffness must be positive, damping at least 0")

    @property
    def damping_ratio(self) -> float:
        """1 for critical damping, below it the motion overshoots."""
        return self.damping / (2.0 * math.sqrt(self.stiffness * self.metric))

    def __call__(self, config: DmpConfig, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return B (3, r, 3 + N) as :func:`~ndp_ros.dmp.response.response` does for a DMP."""
        return response(config, times, self.stiffness / self.metric, self.damping / self.metric)
