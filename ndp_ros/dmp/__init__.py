# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The dynamical system: w and g to y, yd and ydd at any rate (sections 2 and 3.1 of the paper).

:func:`response` computes the solution of eq. (1) as a matrix; :class:`DmpLayer` applies it in torch
with gradients, :class:`Segment` in numpy at the rate of a control loop. :func:`fit_segment` finds
the segment that passes given way points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ndp_ros

if TYPE_CHECKING:
    from ndp_ros.dmp.config import DmpConfig
    from ndp_ros.dmp.fit import fit_segment
    from ndp_ros.dmp.layer import DmpLayer
    from ndp_ros.dmp.segment import BoundSegment, Segment
    from ndp_ros.dmp.structures import SpringDamper

__all__ = ["BoundSegment", "DmpConfig", "DmpLayer", "Segment", "SpringDamper", "fit_segment"]

__getattr__ = ndp_ros.lazy_exports(
    __name__,
    {
        "BoundSegment": "segment",
        "DmpConfig": "config",
        "DmpLayer": "layer",
        "Segment": "segment",
        "SpringDamper": "structures",
        "fit_segment": "fit",
    },
)
